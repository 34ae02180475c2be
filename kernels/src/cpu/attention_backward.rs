//! Causal attention over packed segments, backward: scores are recomputed tile by tile from the kept log-sum-exp.
//!
//! Shape letters: `t` tokens, `h` query heads, `g` key-value heads, `d` head width. All arrays are row-major.
//!
//! In:    the inputs and results of [`attention_forward`](super::attention::attention_forward), the output's gradient.
//! Out:   the gradients of queries, keys and values.
//! Never: uses atomics on results, allocates per step, depends on the number of threads.
//!
//! Two schedules give the same bits, because every sum runs over the same tiles in the same order: a *whole* segment and
//! key-value head in one task (5 products a tile, needs a buffer for the query gradient), or its key tiles and its query
//! tiles as separate tasks (7 products a tile, any number of threads). Whole tasks are used while they balance.

use multiversion::multiversion;
use rayon::prelude::*;

use super::attention::{
    AttentionInputs, AttentionShape, Band, Head, KEY_TILE, QUERY_STRIDE, QUERY_TILE, TokenTile, key_bands,
};
use super::attention_schedule::{Task, plan_tasks};
use super::element::{Element, narrow};
use super::math::{exp, sum_lanes};
use super::parallel::{Shared, for_each_task, rows_per_block};
use super::scratch::{carve, with_floats};
use super::tile::{Extents, Left, Output, Right, multiply, padded, tile_stride};

/// What the forward left behind, and the gradient that arrives.
#[derive(Clone, Copy, Debug)]
pub struct AttentionOutputs<'a, E> {
    /// The forward's result, `[t, n_heads * head_dim]`.
    pub out_thd: &'a [E],
    /// The forward's log-sum-exp, `[n_heads, t]`.
    pub lse_ht: &'a [f32],
    /// The gradient of the result, `[t, n_heads * head_dim]`.
    pub dout_thd: &'a [E],
}

/// Where the gradients go; every element is overwritten.
#[derive(Debug)]
pub struct AttentionGradients<'a, E> {
    /// Of the queries, `[t, n_heads * head_dim]`.
    pub dq_thd: &'a mut [E],
    /// Of the keys, `[t, n_kv_heads * head_dim]`.
    pub dk_tgd: &'a mut [E],
    /// Of the values, `[t, n_kv_heads * head_dim]`.
    pub dv_tgd: &'a mut [E],
}

/// Computes the gradients of [`attention_forward`](super::attention::attention_forward).
///
/// # Panics
/// If lengths, segment bounds and shape disagree.
pub fn attention_backward<E: Element>(
    inputs: &AttentionInputs<'_, E>,
    outputs: &AttentionOutputs<'_, E>,
    shape: &AttentionShape,
    gradients: AttentionGradients<'_, E>,
) {
    let tokens = inputs.checked_tokens(shape);
    let (n_query, n_key) = (inputs.q_thd.len(), inputs.k_tgd.len());
    assert!(outputs.out_thd.len() == n_query && outputs.dout_thd.len() == n_query, "output and its gradient");
    assert_eq!(outputs.lse_ht.len(), shape.n_heads * tokens, "log-sum-exp");
    assert!(gradients.dq_thd.len() == n_query && gradients.dk_tgd.len() == n_key, "gradients of queries and keys");
    assert_eq!(gradients.dv_tgd.len(), n_key, "gradient of values");
    with_floats(shape.n_heads * tokens, |delta_ht| {
        fill_delta(outputs, shape, delta_ht);
        let backward = Backward {
            inputs,
            outputs,
            shape,
            tokens,
            delta_ht,
            dq: Shared::new(gradients.dq_thd),
            dk: Shared::new(gradients.dk_tgd),
            dv: Shared::new(gradients.dv_tgd),
        };
        let tasks = plan_tasks(inputs.segments, shape, rayon::current_num_threads());
        for_each_task(tasks.len(), |index| backward.run(tasks[index]));
    });
}

/// `delta[h, t] = sum over d of out * dout`, the term the softmax's backward subtracts.
fn fill_delta<E: Element>(outputs: &AttentionOutputs<'_, E>, shape: &AttentionShape, delta_ht: &mut [f32]) {
    let (n_heads, width) = (shape.n_heads, shape.head_dim);
    let tokens = delta_ht.len() / n_heads;
    let block = rows_per_block(width);
    delta_ht.par_chunks_mut(tokens.max(1)).enumerate().for_each(|(head, delta_t)| {
        delta_t.par_chunks_mut(block).enumerate().for_each(|(index, delta_t)| {
            for (row, delta) in delta_t.iter_mut().enumerate() {
                let offset = ((index * block + row) * n_heads + head) * width;
                *delta = dot(&outputs.out_thd[offset..][..width], &outputs.dout_thd[offset..][..width]);
            }
        });
    });
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn dot<E: Element>(a: &[E], b: &[E]) -> f32 {
    let mut lanes = [0.0f32; 32];
    let (a_blocks, b_blocks) = (a.chunks_exact(32), b.chunks_exact(32));
    let rest = a_blocks.remainder().iter().zip(b_blocks.remainder());
    for (a, b) in a_blocks.clone().zip(b_blocks) {
        for i in 0..32 {
            lanes[i] = a[i].to_f32().mul_add(b[i].to_f32(), lanes[i]);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(rest) {
        *lane = a.to_f32().mul_add(b.to_f32(), *lane);
    }
    sum_lanes(lanes)
}

struct Backward<'a, E> {
    inputs: &'a AttentionInputs<'a, E>,
    outputs: &'a AttentionOutputs<'a, E>,
    shape: &'a AttentionShape,
    tokens: usize,
    delta_ht: &'a [f32],
    dq: Shared<'a, E>,
    dk: Shared<'a, E>,
    dv: Shared<'a, E>,
}

/// Distance between query rows of a query-major tile of scores.
const KEY_STRIDE: usize = tile_stride(KEY_TILE);

/// The row statistics of a tile's queries.
struct Statistics<'a> {
    lse: &'a [f32],
    delta: &'a [f32],
    scale: f32,
}

/// Buffers of the key-tile pass.
struct KeyTile<'a> {
    keys_transposed: &'a mut [f32],
    values_transposed: &'a mut [f32],
    keys: &'a mut [f32],
    queries: &'a mut [f32],
    gradients: &'a mut [f32],
    weights: &'a mut [f32],
    scores: &'a mut [f32],
    dk: &'a mut [f32],
    dv: &'a mut [f32],
}

impl<'a> KeyTile<'a> {
    fn floats(width: usize) -> usize {
        2 * width * KEY_STRIDE + (3 * KEY_TILE + 2 * QUERY_TILE) * tile_stride(width) + 2 * QUERY_TILE * KEY_STRIDE
    }

    fn carve(mut floats: &'a mut [f32], width: usize) -> Self {
        let (rest, stride) = (&mut floats, tile_stride(width));
        KeyTile {
            keys_transposed: carve(rest, width * KEY_STRIDE),
            values_transposed: carve(rest, width * KEY_STRIDE),
            keys: carve(rest, KEY_TILE * stride),
            queries: carve(rest, QUERY_TILE * stride),
            gradients: carve(rest, QUERY_TILE * stride),
            weights: carve(rest, QUERY_TILE * KEY_STRIDE),
            scores: carve(rest, QUERY_TILE * KEY_STRIDE),
            dk: carve(rest, KEY_TILE * stride),
            dv: carve(rest, KEY_TILE * stride),
        }
    }
}

impl<E: Element> Backward<'_, E> {
    fn run(&self, task: Task) {
        match task {
            Task::Whole { kv_head, start, end } => self.whole(kv_head, start, end),
            Task::Keys { kv_head, tile, segment_end } => self.key_tile(kv_head, &tile, segment_end, None),
            Task::Queries { head, tile } => self.query_tile(head, &tile),
        }
    }

    fn whole(&self, kv_head: usize, start: usize, end: usize) {
        let (width, group) = (self.shape.head_dim, self.shape.n_heads / self.shape.n_kv_heads);
        let (length, stride) = (end - start, tile_stride(width));
        with_floats(group * length * stride, |dq| {
            dq.fill(0.0);
            for first in (start..end).step_by(KEY_TILE) {
                let tile = TokenTile { segment_start: start, first, end: end.min(first + KEY_TILE) };
                self.key_tile(kv_head, &tile, end, Some(dq));
            }
            for (h, dq) in dq.chunks_exact(length * stride).enumerate() {
                // SAFETY: this task alone owns the query heads of `kv_head` in this segment.
                unsafe { write_head(dq, stride, &self.dq, self.place(kv_head * group + h, self.shape.n_heads, start)) };
            }
        });
    }

    fn place(&self, head: usize, n_heads: usize, first: usize) -> Place {
        Place { head, n_heads, width: self.shape.head_dim, first }
    }

    /// Gradients of a tile of keys and values; with `dq_hld` also adds the tile's part to the query gradients.
    fn key_tile(&self, kv_head: usize, tile: &TokenTile, segment_end: usize, mut dq_hld: Option<&mut [f32]>) {
        let AttentionShape { n_heads, n_kv_heads, head_dim: width, .. } = *self.shape;
        let (group, stride, count) = (n_heads / n_kv_heads, tile_stride(width), tile.end - tile.first);
        with_floats(KeyTile::floats(width), |floats| {
            let mut buffers = KeyTile::carve(floats, width);
            let keys = Head::new(self.inputs.k_tgd, kv_head, n_kv_heads, width);
            let values = Head::new(self.inputs.v_tgd, kv_head, n_kv_heads, width);
            keys.pack_transposed(tile.first, count, buffers.keys_transposed, KEY_STRIDE);
            values.pack_transposed(tile.first, count, buffers.values_transposed, KEY_STRIDE);
            keys.pack_rows(tile.first, count, buffers.keys, stride);
            buffers.dk.fill(0.0);
            buffers.dv.fill(0.0);
            let length = segment_end - tile.segment_start;
            for h in 0..group {
                for band in self.query_bands(tile, segment_end) {
                    let dq = dq_hld.as_deref_mut().map(|dq| &mut dq[(h * length + band.first_query) * stride..]);
                    self.pair(kv_head * group + h, tile.segment_start, &band, &mut buffers, dq);
                }
            }
            // SAFETY: each (key tile, kv head) belongs to one task.
            unsafe {
                write_head(
                    &buffers.dk[..count * stride],
                    stride,
                    &self.dk,
                    self.place(kv_head, n_kv_heads, tile.first),
                );
                write_head(
                    &buffers.dv[..count * stride],
                    stride,
                    &self.dv,
                    self.place(kv_head, n_kv_heads, tile.first),
                );
            }
        });
    }

    /// The tiles of queries that see keys of `tile`, in ascending order, on the grid of the segment's query tiles.
    fn query_bands(&self, tile: &TokenTile, segment_end: usize) -> impl Iterator<Item = Band> + use<E> {
        let window = self.shape.window.unwrap_or(usize::MAX);
        let (first_key, n_keys) = (tile.first - tile.segment_start, tile.end - tile.first);
        let length = segment_end - tile.segment_start;
        let bands = (first_key / QUERY_TILE * QUERY_TILE..length).step_by(QUERY_TILE).map(move |first_query| {
            let n_queries = QUERY_TILE.min(length - first_query);
            Band { first_query, n_queries, first_key, n_keys, window }
        });
        bands.filter(Band::is_visible)
    }

    /// One tile of queries against the tile of keys in `buffers`.
    fn pair(&self, head: usize, segment: usize, band: &Band, buffers: &mut KeyTile<'_>, dq: Option<&mut [f32]>) {
        let AttentionShape { n_heads, head_dim: width, .. } = *self.shape;
        let (stride, first, count) = (tile_stride(width), segment + band.first_query, band.n_queries);
        Head::new(self.inputs.q_thd, head, n_heads, width).pack_rows(first, count, buffers.queries, stride);
        Head::new(self.outputs.dout_thd, head, n_heads, width).pack_rows(first, count, buffers.gradients, stride);
        let extents = Extents { rows: count, columns: padded(band.n_keys), depth: width };
        for (left, right, product) in [
            (&*buffers.queries, &*buffers.keys_transposed, &mut *buffers.weights),
            (&*buffers.gradients, &*buffers.values_transposed, &mut *buffers.scores),
        ] {
            let left = Left { data: left, row_stride: stride, depth_stride: 1 };
            let right = Right { data: right, stride: KEY_STRIDE };
            multiply(left, right, product, KEY_STRIDE, extents, Output::Overwrite);
        }
        query_major_gradient(buffers.weights, buffers.scores, band, &self.statistics(head, first, count));
        let extents = Extents { rows: band.n_keys, columns: padded(width), depth: count };
        for (left, right, sums) in [
            (&*buffers.weights, &*buffers.gradients, &mut *buffers.dv),
            (&*buffers.scores, &*buffers.queries, &mut *buffers.dk),
        ] {
            let left = Left { data: left, row_stride: 1, depth_stride: KEY_STRIDE };
            multiply(left, Right { data: right, stride }, sums, stride, extents, Output::Accumulate);
        }
        if let Some(dq) = dq {
            let extents = Extents { rows: count, columns: padded(width), depth: band.n_keys };
            let left = Left { data: buffers.scores, row_stride: KEY_STRIDE, depth_stride: 1 };
            multiply(left, Right { data: buffers.keys, stride }, dq, stride, extents, Output::Accumulate);
        }
    }

    fn statistics(&self, head: usize, first: usize, count: usize) -> Statistics<'_> {
        let rows = head * self.tokens + first..head * self.tokens + first + count;
        let (lse, delta) = (&self.outputs.lse_ht[rows.clone()], &self.delta_ht[rows]);
        Statistics { lse, delta, scale: self.shape.scale }
    }

    /// The gradient of a tile of queries, from all keys they see. Scores are key-major here, as in the forward.
    fn query_tile(&self, head: usize, tile: &TokenTile) {
        let AttentionShape { n_heads, n_kv_heads, head_dim: width, .. } = *self.shape;
        let (stride, count) = (tile_stride(width), tile.end - tile.first);
        let kv_head = head / (n_heads / n_kv_heads);
        let total = 2 * width * QUERY_STRIDE + 2 * KEY_TILE * (stride + QUERY_STRIDE) + QUERY_TILE * stride;
        with_floats(total, |mut rest| {
            let rest = &mut rest;
            let [queries, gradients] = [(); 2].map(|()| carve(rest, width * QUERY_STRIDE));
            let [keys, values] = [(); 2].map(|()| carve(rest, KEY_TILE * stride));
            let [weights, scores] = [(); 2].map(|()| carve(rest, KEY_TILE * QUERY_STRIDE));
            let dq = carve(rest, QUERY_TILE * stride);
            dq.fill(0.0);
            Head::new(self.inputs.q_thd, head, n_heads, width).pack_transposed(
                tile.first,
                count,
                queries,
                QUERY_STRIDE,
            );
            let dout = Head::new(self.outputs.dout_thd, head, n_heads, width);
            dout.pack_transposed(tile.first, count, gradients, QUERY_STRIDE);
            let statistics = self.statistics(head, tile.first, count);
            for band in key_bands(tile, self.shape.window) {
                let (first, n_keys) = (tile.segment_start + band.first_key, band.n_keys);
                Head::new(self.inputs.k_tgd, kv_head, n_kv_heads, width).pack_rows(first, n_keys, keys, stride);
                Head::new(self.inputs.v_tgd, kv_head, n_kv_heads, width).pack_rows(first, n_keys, values, stride);
                let extents = Extents { rows: n_keys, columns: padded(count), depth: width };
                for (left, right, product) in
                    [(&*keys, &*queries, &mut *weights), (&*values, &*gradients, &mut *scores)]
                {
                    let left = Left { data: left, row_stride: stride, depth_stride: 1 };
                    let right = Right { data: right, stride: QUERY_STRIDE };
                    multiply(left, right, product, QUERY_STRIDE, extents, Output::Overwrite);
                }
                key_major_gradient(weights, scores, &band, &statistics);
                let extents = Extents { rows: count, columns: padded(width), depth: n_keys };
                let left = Left { data: scores, row_stride: 1, depth_stride: QUERY_STRIDE };
                multiply(left, Right { data: keys, stride }, dq, stride, extents, Output::Accumulate);
            }
            // SAFETY: each (query tile, head) belongs to one task.
            unsafe { write_head(&dq[..count * stride], stride, &self.dq, self.place(head, n_heads, tile.first)) };
        });
    }
}

/// Some tokens of one head of a `[t, heads * width]` array.
struct Place {
    head: usize,
    n_heads: usize,
    width: usize,
    first: usize,
}

/// Writes all rows of a tile to their place.
///
/// # Safety
/// No other task may write these tokens of this head.
unsafe fn write_head<E: Element>(rows: &[f32], stride: usize, target: &Shared<'_, E>, place: Place) {
    for (row, values) in rows.chunks_exact(stride).enumerate() {
        let offset = ((place.first + row) * place.n_heads + place.head) * place.width;
        // SAFETY: by the caller's promise.
        narrow(&values[..place.width], unsafe { target.part(offset, place.width) });
    }
}

/// From `q · k` and `dout · v` of one entry: the weight and the gradient of the unscaled score.
#[inline(always)]
fn entry(weight: &mut f32, score: &mut f32, lse: f32, delta: f32, scale: f32) {
    *weight = exp(*weight * scale - lse);
    *score = *weight * (*score - delta) * scale;
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn query_major_gradient(weights: &mut [f32], scores: &mut [f32], band: &Band, statistics: &Statistics<'_>) {
    let rows = weights.chunks_exact_mut(KEY_STRIDE).zip(scores.chunks_exact_mut(KEY_STRIDE));
    for (row, (weights, scores)) in rows.take(band.n_queries).enumerate() {
        let (start, end) = band.keys_of(row);
        let (lse, delta) = (statistics.lse[row], statistics.delta[row]);
        for (w, s) in weights[start..end].iter_mut().zip(&mut scores[start..end]) {
            entry(w, s, lse, delta, statistics.scale);
        }
        for tile in [weights, scores] {
            tile[..start].fill(0.0);
            tile[end..band.n_keys].fill(0.0);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn key_major_gradient(weights: &mut [f32], scores: &mut [f32], band: &Band, statistics: &Statistics<'_>) {
    let rows = weights.chunks_exact_mut(QUERY_STRIDE).zip(scores.chunks_exact_mut(QUERY_STRIDE));
    for (row, (weights, scores)) in rows.take(band.n_keys).enumerate() {
        let (start, end) = band.queries_of(row);
        let columns = statistics.lse[start..end].iter().zip(&statistics.delta[start..end]);
        for ((w, s), (lse, delta)) in weights[start..end].iter_mut().zip(&mut scores[start..end]).zip(columns) {
            entry(w, s, *lse, *delta, statistics.scale);
        }
        scores[..start].fill(0.0);
        scores[end..band.n_queries].fill(0.0);
    }
}
