//! Keys and values of tokens that were already read, and attention over them.
//!
//! In:    queries, keys and values of the new tokens of some sequences.
//! Out:   their attention over all tokens of their sequence; the cache, longer by them.
//! Never: moves what it holds while each sequence has the room it was made with; beyond it sequences grow by [`GROWTH_TOKENS`]. On the CPU
//!        a layer's keys are one block of memory and its values another: many small ones would stay with the system's allocator.

use burn::tensor::{DType, Element as BurnElement, Tensor, TensorData, bf16};
use bytemuck::Pod;

use crate::cpu::Element;
use crate::cpu::attention_cached::{Onward, attention_cached};
use crate::ops::{AttentionGeometry, attention, is_flex};
use crate::twin;

/// Tokens by which a sequence grows.
pub const GROWTH_TOKENS: usize = 256;

/// What one attention layer keeps of several sequences.
#[derive(Debug, Clone)]
pub struct KeyValues {
    sequences: Vec<Sequence>,
    store: Store,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sequence {
    tokens: usize,
    /// Tokens that its rows have room for, once there are rows.
    room: usize,
}

/// Rows of tokens, `[t, n_kv_heads * head_dim]`: keys and values.
#[derive(Debug, Clone)]
enum Store {
    Empty,
    /// The sequences' rooms, one behind the other.
    F32([Vec<f32>; 2]),
    Bf16([Vec<bf16>; 2]),
    /// On a device without a CPU kernel: by sequence, `None` without tokens.
    Device(Vec<Option<[Tensor<2>; 2]>>),
}

impl KeyValues {
    /// Sequences without tokens, each with room for as many as said.
    pub fn with_room(tokens: &[usize]) -> KeyValues {
        let sequences = tokens.iter().map(|&room| Sequence { tokens: 0, room }).collect();
        KeyValues { sequences, store: Store::Empty }
    }

    /// Tokens that a sequence has read.
    pub fn tokens(&self, sequence: usize) -> usize {
        self.sequences[sequence].tokens
    }

    /// Forgets all tokens of a sequence from number `tokens` on.
    pub fn truncate(&mut self, sequence: usize, tokens: usize) {
        if tokens >= self.sequences[sequence].tokens {
            return;
        }
        self.sequences[sequence].tokens = tokens;
        if let Store::Device(all) = &mut self.store {
            let kept = all[sequence].take().filter(|_| tokens > 0);
            all[sequence] = kept.map(|both| both.map(|rows| rows.narrow(0, 0, tokens)));
        }
    }

    /// Where the keys are, and how many numbers there is room for.
    #[cfg(test)]
    pub(crate) fn place(&mut self) -> (*const f32, usize) {
        let [k, _] = f32::rows(&mut self.store);
        (k.as_ptr(), k.len())
    }

    /// Rows of the CPU's store for the tokens there are and `new` ones of each sequence, `width` numbers a row.
    fn make_room<E: Stored>(&mut self, new: &[usize], width: usize) {
        let wanted = self.sequences.iter().zip(new).map(|(sequence, new)| match sequence.tokens + new {
            tokens if tokens <= sequence.room => *sequence,
            tokens => Sequence { room: tokens.next_multiple_of(GROWTH_TOKENS), ..*sequence },
        });
        let wanted: Vec<Sequence> = wanted.collect();
        let total = wanted.iter().map(|sequence| sequence.room).sum::<usize>() * width;
        if matches!(self.store, Store::Empty) {
            self.store = E::store([0, 1].map(|_| vec![E::zeroed(); total]));
        } else if wanted != self.sequences {
            // One after the other, so that the most of both is never there twice.
            for rows in E::rows(&mut self.store) {
                let mut moved = vec![E::zeroed(); total];
                let (mut from, mut to) = (0, 0);
                for (was, is) in self.sequences.iter().zip(&wanted) {
                    let numbers = was.tokens * width;
                    moved[to..to + numbers].copy_from_slice(&rows[from..from + numbers]);
                    (from, to) = (from + was.room * width, to + is.room * width);
                }
                *rows = moved;
            }
        }
        self.sequences = wanted;
    }
}

/// What the CPU's caches hold.
trait Stored: Element + BurnElement + Pod {
    fn store(rows: [Vec<Self>; 2]) -> Store;
    fn rows(store: &mut Store) -> &mut [Vec<Self>; 2];
}

impl Stored for f32 {
    fn store(rows: [Vec<f32>; 2]) -> Store {
        Store::F32(rows)
    }

    fn rows(store: &mut Store) -> &mut [Vec<f32>; 2] {
        match store {
            Store::F32(rows) => rows,
            _ => panic!("a cache is filled in one format"),
        }
    }
}

impl Stored for bf16 {
    fn store(rows: [Vec<bf16>; 2]) -> Store {
        Store::Bf16(rows)
    }

    fn rows(store: &mut Store) -> &mut [Vec<bf16>; 2] {
        match store {
            Store::Bf16(rows) => rows,
            _ => panic!("a cache is filled in one format"),
        }
    }
}

/// Appends the new tokens of every sequence to its cache and attends over all of it.
///
/// - `q`: `[t, n_heads * head_dim]`; `k`, `v`: `[t, n_kv_heads * head_dim]`: the new tokens of all sequences, laid end to end as
///   `geometry.segments` says, one segment a sequence. Result as `q`. No gradient.
pub fn cached_attention(cache: &mut KeyValues, [q, k, v]: [Tensor<2>; 3], geometry: AttentionGeometry) -> Tensor<2> {
    assert_eq!(cache.sequences.len() + 1, geometry.segments.len(), "a segment for each sequence");
    if !is_flex(&q.device()) {
        return on_device(cache, [q, k, v], &geometry);
    }
    let fresh = cache.sequences.iter().all(|sequence| sequence.tokens == 0);
    match q.dtype() {
        DType::F32 => append::<f32>(cache, [&k, &v], &geometry),
        DType::BF16 => append::<bf16>(cache, [&k, &v], &geometry),
        other => panic!("CPU kernels compute in f32 and bf16, not in {other:?}"),
    }
    match q.dtype() {
        // Nothing stands before the new tokens: the packed kernel, as in training.
        _ if fresh => attention(q, k, v, geometry),
        DType::F32 => attend::<f32>(cache, q, &geometry),
        _ => attend::<bf16>(cache, q, &geometry),
    }
}

fn append<E: Stored>(cache: &mut KeyValues, both: [&Tensor<2>; 2], geometry: &AttentionGeometry) {
    let width = geometry.n_kv_heads * geometry.head_dim;
    let bounds = || geometry.segments.windows(2).map(|bounds| bounds[0] as usize..bounds[1] as usize);
    let lengths: Vec<usize> = bounds().map(|bounds| bounds.len()).collect();
    cache.make_room::<E>(&lengths, width);
    for (rows, new) in E::rows(&mut cache.store).iter_mut().zip(both) {
        let data = new.clone().into_data();
        let new = data.as_slice::<E>().expect("keys and values have the queries' format");
        let mut start = 0;
        for (sequence, bounds) in cache.sequences.iter().zip(bounds()) {
            let new = &new[bounds.start * width..bounds.end * width];
            rows[(start + sequence.tokens) * width..][..new.len()].copy_from_slice(new);
            start += sequence.room;
        }
    }
    cache.sequences.iter_mut().zip(lengths).for_each(|(sequence, new)| sequence.tokens += new);
}

fn attend<E: Stored>(cache: &mut KeyValues, q: Tensor<2>, geometry: &AttentionGeometry) -> Tensor<2> {
    let (device, dims, width) = (q.device(), q.dims(), geometry.n_kv_heads * geometry.head_dim);
    let data = q.into_data();
    let q = data.as_slice::<E>().expect("the format that was looked at");
    let mut out = vec![E::default(); q.len()];
    let (mut rest, mut sequences) = (out.as_mut_slice(), Vec::with_capacity(cache.sequences.len()));
    let [k, v] = E::rows(&mut cache.store);
    let mut start = 0;
    for (sequence, bounds) in cache.sequences.iter().zip(geometry.segments.windows(2)) {
        let range = bounds[0] as usize * dims[1]..bounds[1] as usize * dims[1];
        let (out, behind) = rest.split_at_mut(range.len());
        rest = behind;
        let rows = start * width..(start + sequence.tokens) * width;
        start += sequence.room;
        if !range.is_empty() {
            sequences.push(Onward { q: &q[range], k_tgd: &k[rows.clone()], v_tgd: &v[rows], out });
        }
    }
    attention_cached(sequences, &geometry.shape());
    Tensor::from_data(TensorData::new(out, dims), (&device, E::dtype()))
}

/// Plain Burn: the reference, and the path of other devices.
pub(crate) fn on_device(cache: &mut KeyValues, [q, k, v]: [Tensor<2>; 3], geometry: &AttentionGeometry) -> Tensor<2> {
    if !matches!(cache.store, Store::Device(_)) {
        cache.store = Store::Device(vec![None; cache.sequences.len()]);
    }
    let Store::Device(all) = &mut cache.store else { unreachable!("it was just made so") };
    let mut mixed = Vec::with_capacity(cache.sequences.len());
    for ((sequence, kept), bounds) in cache.sequences.iter_mut().zip(all).zip(geometry.segments.windows(2)) {
        let (start, length) = (bounds[0] as usize, (bounds[1] - bounds[0]) as usize);
        // A sequence that has ended reads nothing; Burn refuses tensors without rows.
        if length == 0 {
            continue;
        }
        let part = |x: &Tensor<2>| x.clone().narrow(0, start, length);
        let new = [part(&k), part(&v)];
        let [k, v] = match kept.take() {
            Some([k, v]) => {
                let [new_k, new_v] = new;
                [Tensor::cat(vec![k, new_k], 0), Tensor::cat(vec![v, new_v], 0)]
            }
            None => new,
        };
        mixed.push(twin::onward_attention(part(&q), k.clone(), v.clone(), geometry));
        sequence.tokens += length;
        *kept = Some([k, v]);
    }
    Tensor::cat(mixed, 0)
}
