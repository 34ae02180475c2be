//! Keys and values of tokens that were already read, and attention over them.
//!
//! In:    queries, keys and values of a sequence's new tokens.
//! Out:   their attention over all its tokens; the cache, longer by them.
//! Never: moves what it holds: on the CPU new rows are appended, and a cache grows in steps of [`GROWTH_TOKENS`].

use burn::tensor::{DType, Element as BurnElement, Tensor, TensorData, bf16};
use bytemuck::Pod;

use crate::cpu::attention_cached::{Onward, attention_cached};
use crate::cpu::{AttentionShape, Element};
use crate::ops::{AttentionGeometry, attention, is_flex};
use crate::twin;

/// Tokens by which a cache grows.
pub const GROWTH_TOKENS: usize = 256;

/// What one attention layer keeps of one sequence.
#[derive(Debug, Clone, Default)]
pub struct KeyValues {
    tokens: usize,
    store: Store,
}

/// Rows of tokens, `[t, n_kv_heads * head_dim]`: keys and values.
#[derive(Debug, Clone, Default)]
enum Store {
    #[default]
    Empty,
    F32([Vec<f32>; 2]),
    Bf16([Vec<bf16>; 2]),
    /// On a device without a CPU kernel.
    Device(Box<[Tensor<2>; 2]>),
}

impl KeyValues {
    /// Tokens read so far.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Forgets all tokens from number `tokens` on.
    pub fn truncate(&mut self, tokens: usize) {
        if tokens >= self.tokens {
            return;
        }
        fn cut<E>(rows: &mut [Vec<E>; 2], was: usize, tokens: usize) {
            rows.iter_mut().for_each(|rows| rows.truncate(rows.len() / was * tokens));
        }
        match &mut self.store {
            Store::Empty => {}
            Store::F32(rows) => cut(rows, self.tokens, tokens),
            Store::Bf16(rows) => cut(rows, self.tokens, tokens),
            Store::Device(_) if tokens == 0 => self.store = Store::Empty,
            Store::Device(both) => **both = both.each_ref().map(|rows| rows.clone().narrow(0, 0, tokens)),
        }
        self.tokens = tokens;
    }
}

/// What the CPU's caches hold.
trait Stored: Element + BurnElement + Pod {
    fn rows(store: &mut Store) -> &mut [Vec<Self>; 2];
}

impl Stored for f32 {
    fn rows(store: &mut Store) -> &mut [Vec<f32>; 2] {
        if matches!(store, Store::Empty) {
            *store = Store::F32(Default::default());
        }
        match store {
            Store::F32(rows) => rows,
            _ => panic!("a cache is filled in one format"),
        }
    }
}

impl Stored for bf16 {
    fn rows(store: &mut Store) -> &mut [Vec<bf16>; 2] {
        if matches!(store, Store::Empty) {
            *store = Store::Bf16(Default::default());
        }
        match store {
            Store::Bf16(rows) => rows,
            _ => panic!("a cache is filled in one format"),
        }
    }
}

/// Appends the new tokens of every sequence to its cache and attends over all of it.
///
/// - `q`: `[t, n_heads * head_dim]`; `k`, `v`: `[t, n_kv_heads * head_dim]`: the new tokens of all sequences, laid end to end as
///   `geometry.segments` says, one segment a cache. Result as `q`. No gradient.
pub fn cached_attention(caches: &mut [KeyValues], [q, k, v]: [Tensor<2>; 3], geometry: AttentionGeometry) -> Tensor<2> {
    assert_eq!(caches.len() + 1, geometry.segments.len(), "a segment for each cache");
    if !is_flex(&q.device()) {
        return on_device(caches, [q, k, v], &geometry);
    }
    let fresh = caches.iter().all(|cache| cache.tokens == 0);
    match q.dtype() {
        DType::F32 => append::<f32>(caches, [&k, &v], &geometry),
        DType::BF16 => append::<bf16>(caches, [&k, &v], &geometry),
        other => panic!("CPU kernels compute in f32 and bf16, not in {other:?}"),
    }
    match q.dtype() {
        // Nothing stands before the new tokens: the packed kernel, as in training.
        _ if fresh => attention(q, k, v, geometry),
        DType::F32 => attend::<f32>(caches, q, &geometry),
        _ => attend::<bf16>(caches, q, &geometry),
    }
}

fn append<E: Stored>(caches: &mut [KeyValues], both: [&Tensor<2>; 2], geometry: &AttentionGeometry) {
    let width = geometry.n_kv_heads * geometry.head_dim;
    for (at, new) in both.into_iter().enumerate() {
        let data = new.clone().into_data();
        let new = data.as_slice::<E>().expect("keys and values have the queries' format");
        for (cache, bounds) in caches.iter_mut().zip(geometry.segments.windows(2)) {
            let rows = &mut E::rows(&mut cache.store)[at];
            let new = &new[bounds[0] as usize * width..bounds[1] as usize * width];
            if rows.capacity() - rows.len() < new.len() {
                let step = GROWTH_TOKENS * width;
                rows.reserve_exact((rows.len() + new.len()).next_multiple_of(step) - rows.len());
            }
            rows.extend_from_slice(new);
        }
    }
    for (cache, bounds) in caches.iter_mut().zip(geometry.segments.windows(2)) {
        cache.tokens += (bounds[1] - bounds[0]) as usize;
    }
}

fn attend<E: Stored>(caches: &mut [KeyValues], q: Tensor<2>, geometry: &AttentionGeometry) -> Tensor<2> {
    let (device, dims) = (q.device(), q.dims());
    let data = q.into_data();
    let q = data.as_slice::<E>().expect("the format that was looked at");
    let mut out = vec![E::default(); q.len()];
    let (mut rest, mut sequences) = (out.as_mut_slice(), Vec::with_capacity(caches.len()));
    for (cache, bounds) in caches.iter_mut().zip(geometry.segments.windows(2)) {
        let range = bounds[0] as usize * dims[1]..bounds[1] as usize * dims[1];
        let (out, behind) = rest.split_at_mut(range.len());
        rest = behind;
        let [k, v] = E::rows(&mut cache.store);
        if !range.is_empty() {
            sequences.push(Onward { q: &q[range], k_tgd: k, v_tgd: v, out });
        }
    }
    attention_cached(sequences, &shape(geometry));
    Tensor::from_data(TensorData::new(out, dims), (&device, E::dtype()))
}

fn shape(geometry: &AttentionGeometry) -> AttentionShape {
    AttentionShape {
        n_heads: geometry.n_heads,
        n_kv_heads: geometry.n_kv_heads,
        head_dim: geometry.head_dim,
        scale: geometry.scale,
        window: geometry.window,
    }
}

/// Plain Burn: the reference, and the path of other devices.
pub(crate) fn on_device(
    caches: &mut [KeyValues],
    [q, k, v]: [Tensor<2>; 3],
    geometry: &AttentionGeometry,
) -> Tensor<2> {
    let mut mixed = Vec::with_capacity(caches.len());
    for (cache, bounds) in caches.iter_mut().zip(geometry.segments.windows(2)) {
        let (start, length) = (bounds[0] as usize, (bounds[1] - bounds[0]) as usize);
        // A sequence that has ended reads nothing; Burn refuses tensors without rows.
        if length == 0 {
            continue;
        }
        let part = |x: &Tensor<2>| x.clone().narrow(0, start, length);
        let new = [part(&k), part(&v)];
        let all = match std::mem::take(&mut cache.store) {
            Store::Device(both) => {
                let ([k, v], [new_k, new_v]) = (*both, new);
                [Tensor::cat(vec![k, new_k], 0), Tensor::cat(vec![v, new_v], 0)]
            }
            _ => new,
        };
        mixed.push(twin::onward_attention(part(&q), all[0].clone(), all[1].clone(), geometry));
        cache.tokens += length;
        cache.store = Store::Device(Box::new(all));
    }
    Tensor::cat(mixed, 0)
}
