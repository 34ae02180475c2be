//! Causal attention over packed segments, forward, without a matrix of all scores.
//!
//! Shape letters: `t` tokens, `h` query heads, `g` key-value heads, `d` head width. All arrays are row-major.
//!
//! In:    `q_thd`, `k_tgd`, `v_tgd`, the bounds of the segments, the shape.
//! Out:   `out_thd` and the log-sum-exp of every row of scores, `lse_ht`.
//! Never: lets a token see another segment, allocates per step, depends on the number of threads.
//!
//! Source: Dao et al. 2022, arXiv:2205.14135 (tiles and running softmax); Ainslie et al. 2023, arXiv:2305.13245 (shared
//! key-value heads). Scores are kept key-major, `[key][query]`, so that the softmax runs along vector lanes.

use multiversion::multiversion;

use super::element::Element;
use super::math::exp;
use super::parallel::{Shared, for_each_task};
use super::scratch::{carve, with_floats};
use super::tile::{Extents, Left, Output, Right, multiply, padded, tile_stride};

/// Queries in a tile.
pub(super) const QUERY_TILE: usize = 64;
/// Keys in a tile.
pub(super) const KEY_TILE: usize = 128;

/// Head counts, width and reach of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub n_heads: usize,
    /// Key-value heads; divides `n_heads`. Query head `h` reads key-value head `h / (n_heads / n_kv_heads)`.
    pub n_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Factor on the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// A query at `i` sees keys `j <= i` with `i - j < window`; `None` means all of them.
    pub window: Option<usize>,
}

/// What both directions read.
#[derive(Clone, Copy, Debug)]
pub struct AttentionInputs<'a, E> {
    /// Queries, `[t, n_heads * head_dim]`.
    pub q_thd: &'a [E],
    /// Keys, `[t, n_kv_heads * head_dim]`.
    pub k_tgd: &'a [E],
    /// Values, `[t, n_kv_heads * head_dim]`.
    pub v_tgd: &'a [E],
    /// Cumulative bounds of the segments: first 0, last `t`, never falling.
    pub segments: &'a [u32],
}

impl<E: Element> AttentionInputs<'_, E> {
    /// Number of tokens.
    ///
    /// # Panics
    /// If lengths, bounds and shape disagree: they come from the model's own layout, so that is our bug.
    pub(super) fn checked_tokens(&self, shape: &AttentionShape) -> usize {
        assert!(shape.n_kv_heads > 0 && shape.n_heads.is_multiple_of(shape.n_kv_heads), "bad head counts {shape:?}");
        assert!(shape.head_dim > 0 && shape.window != Some(0), "bad attention shape {shape:?}");
        let tokens = self.segments.last().map_or(0, |&end| end as usize);
        assert!(self.segments.first().is_none_or(|&start| start == 0), "segments must start at 0");
        assert!(self.segments.is_sorted(), "segment bounds must not fall");
        assert_eq!(self.q_thd.len(), tokens * shape.n_heads * shape.head_dim, "queries");
        assert_eq!(self.k_tgd.len(), tokens * shape.n_kv_heads * shape.head_dim, "keys");
        assert_eq!(self.v_tgd.len(), self.k_tgd.len(), "values");
        tokens
    }
}

/// One head of a `[t, heads * head_dim]` array.
#[derive(Clone, Copy)]
pub(super) struct Head<'a, E> {
    /// The whole array.
    pub data: &'a [E],
    /// Distance between tokens.
    pub stride: usize,
    /// Where the head starts inside a token.
    pub offset: usize,
    /// Width of the head.
    pub width: usize,
}

impl<'a, E: Element> Head<'a, E> {
    /// Head number `head` of `n_heads`.
    pub fn new(data: &'a [E], head: usize, n_heads: usize, width: usize) -> Self {
        Head { data, stride: n_heads * width, offset: head * width, width }
    }

    fn row(&self, token: usize) -> &'a [E] {
        &self.data[token * self.stride + self.offset..][..self.width]
    }

    /// Copies `count` tokens from `first` on into rows `stride` apart; columns up to the padding become 0.
    pub fn pack_rows(&self, first: usize, count: usize, tile: &mut [f32], stride: usize) {
        for (row, target) in tile.chunks_exact_mut(stride).take(count).enumerate() {
            pack_row(self.row(first + row), target);
        }
    }

    /// Copies `count` tokens transposed into `head_dim` rows `stride` apart; columns up to the padding become 0.
    pub fn pack_transposed(&self, first: usize, count: usize, tile: &mut [f32], stride: usize) {
        for block in (0..padded(count)).step_by(LANES) {
            let rows: [&[E]; LANES] = std::array::from_fn(|lane| match block + lane < count {
                true => self.row(first + block + lane),
                false => &[],
            });
            transpose_block(&rows, &mut tile[block..], stride, self.width);
        }
    }
}

/// Tokens transposed together.
const LANES: usize = 16;

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn pack_row<E: Element>(source: &[E], target: &mut [f32]) {
    let (body, rest) = target.split_at_mut(source.len());
    for (t, s) in body.iter_mut().zip(source) {
        *t = s.to_f32();
    }
    rest.fill(0.0);
}

fn transpose_block<E: Element>(rows: &[&[E]; LANES], tile: &mut [f32], stride: usize, width: usize) {
    for column in 0..width {
        let target = &mut tile[column * stride..][..LANES];
        for (t, row) in target.iter_mut().zip(rows) {
            *t = row.get(column).map_or(0.0, |x| x.to_f32());
        }
    }
}

/// The queries and keys of a tile of scores, as token positions inside one segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    pub first_query: usize,
    pub n_queries: usize,
    pub first_key: usize,
    pub n_keys: usize,
    /// `usize::MAX` when there is no window.
    pub window: usize,
}

impl Band {
    /// Whether any query sees any key.
    pub fn is_visible(&self) -> bool {
        let (last_query, last_key) = (self.first_query + self.n_queries - 1, self.first_key + self.n_keys - 1);
        self.first_key <= last_query && self.first_query.saturating_sub(last_key) < self.window
    }

    /// The columns of a key-major tile that key row `row` is seen by.
    #[inline(always)]
    pub fn queries_of(&self, row: usize) -> (usize, usize) {
        let key = self.first_key + row;
        let end = key.saturating_add(self.window).saturating_sub(self.first_query).min(self.n_queries);
        (key.saturating_sub(self.first_query).min(end), end)
    }

    /// The columns of a query-major tile that query row `row` sees.
    #[inline(always)]
    pub fn keys_of(&self, row: usize) -> (usize, usize) {
        let query = self.first_query + row;
        let end = (query + 1).saturating_sub(self.first_key).min(self.n_keys);
        ((query + 1).saturating_sub(self.window).saturating_sub(self.first_key).min(end), end)
    }
}

/// A run of tokens inside a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenTile {
    pub segment_start: usize,
    pub first: usize,
    pub end: usize,
}

/// All tiles of `size` tokens, cut from each segment's start, those late in their segment (with most keys) first.
pub(super) fn token_tiles(segments: &[u32], size: usize) -> Vec<TokenTile> {
    let mut tiles = Vec::new();
    for bounds in segments.windows(2) {
        let (segment_start, end) = (bounds[0] as usize, bounds[1] as usize);
        let starts = (segment_start..end).step_by(size);
        tiles.extend(starts.map(|first| TokenTile { segment_start, first, end: end.min(first + size) }));
    }
    tiles.sort_by_key(|tile| std::cmp::Reverse(tile.end - tile.segment_start));
    tiles
}

/// Computes `softmax(scale * q · kᵀ) · v` for every head, causal inside each segment.
///
/// - `out_thd`: the result, `[t, n_heads * head_dim]`; `lse_ht`: `[n_heads, t]`, natural logarithm, kept for the backward.
///
/// # Panics
/// If lengths, segment bounds and shape disagree.
pub fn attention_forward<E: Element>(
    inputs: &AttentionInputs<'_, E>,
    shape: &AttentionShape,
    out_thd: &mut [E],
    lse_ht: &mut [f32],
) {
    let tokens = inputs.checked_tokens(shape);
    assert_eq!(out_thd.len(), inputs.q_thd.len(), "output");
    assert_eq!(lse_ht.len(), shape.n_heads * tokens, "log-sum-exp");
    let tiles = token_tiles(inputs.segments, QUERY_TILE);
    let (out, lse) = (Shared::new(out_thd), Shared::new(lse_ht));
    Forward { inputs, shape, first_query: 0, tokens, out, lse }.run(&tiles);
}

/// [`attention_forward`] of the last queries of one segment: the keys and values are those of all its tokens, `inputs.q_thd` and `out_thd`
/// begin at token `first_query`.
///
/// # Panics
/// As [`attention_forward`].
pub(super) fn attention_onward<E: Element>(
    inputs: &AttentionInputs<'_, E>,
    shape: &AttentionShape,
    first_query: usize,
    out_thd: &mut [E],
) {
    let end = inputs.k_tgd.len() / (shape.n_kv_heads * shape.head_dim);
    let tokens = end - first_query;
    assert_eq!(inputs.q_thd.len(), tokens * shape.n_heads * shape.head_dim, "queries");
    assert_eq!(out_thd.len(), inputs.q_thd.len(), "output");
    let starts = (first_query..end).step_by(QUERY_TILE);
    let tiles: Vec<TokenTile> =
        starts.map(|first| TokenTile { segment_start: 0, first, end: end.min(first + QUERY_TILE) }).collect();
    let mut lse_ht = vec![0.0; shape.n_heads * tokens];
    let (out, lse) = (Shared::new(out_thd), Shared::new(&mut lse_ht));
    Forward { inputs, shape, first_query, tokens, out, lse }.run(&tiles);
}

struct Forward<'a, E> {
    inputs: &'a AttentionInputs<'a, E>,
    shape: &'a AttentionShape,
    /// Token of the first row of queries and results.
    first_query: usize,
    /// Rows of queries.
    tokens: usize,
    out: Shared<'a, E>,
    lse: Shared<'a, f32>,
}

/// Distance between key rows of a key-major tile of scores.
pub(super) const QUERY_STRIDE: usize = tile_stride(QUERY_TILE);

/// The running softmax of each query of a tile.
struct Running<'a> {
    max: &'a mut [f32],
    sum: &'a mut [f32],
    /// What the newest tile multiplies earlier sums by.
    rescale: &'a mut [f32],
}

impl<E: Element> Forward<'_, E> {
    fn run(&self, tiles: &[TokenTile]) {
        let heads = self.shape.n_heads;
        for_each_task(tiles.len() * heads, |task| self.query_tile(&tiles[task / heads], task % heads));
    }

    fn query_tile(&self, tile: &TokenTile, head: usize) {
        let width = self.shape.head_dim;
        let stride = tile_stride(width);
        let total = width * QUERY_STRIDE + KEY_TILE * (2 * stride + QUERY_STRIDE) + QUERY_TILE * (stride + 3);
        with_floats(total, |mut rest| {
            let rest = &mut rest;
            let queries = carve(rest, width * QUERY_STRIDE);
            let keys = carve(rest, KEY_TILE * stride);
            let values = carve(rest, KEY_TILE * stride);
            let scores = carve(rest, KEY_TILE * QUERY_STRIDE);
            let sums = carve(rest, QUERY_TILE * stride);
            let [max, sum, rescale] = [(); 3].map(|()| carve(rest, QUERY_TILE));
            let mut running = Running { max, sum, rescale };
            // Finite, so that a query that sees nothing of the first tiles does not compute inf - inf.
            running.max.fill(-1e30);
            running.sum.fill(0.0);
            sums.fill(0.0);
            let count = tile.end - tile.first;
            let heads = self.heads(head);
            heads[0].pack_transposed(tile.first - self.first_query, count, queries, QUERY_STRIDE);
            for band in self.bands(tile) {
                let n_keys = band.n_keys;
                heads[1].pack_rows(tile.segment_start + band.first_key, n_keys, keys, stride);
                heads[2].pack_rows(tile.segment_start + band.first_key, n_keys, values, stride);
                let extents = Extents { rows: n_keys, columns: padded(count), depth: width };
                let left = Left { data: keys, row_stride: stride, depth_stride: 1 };
                let right = Right { data: queries, stride: QUERY_STRIDE };
                multiply(left, right, scores, QUERY_STRIDE, extents, Output::Overwrite);
                running_softmax(scores, &band, self.shape.scale, &mut running);
                scale_rows(sums, stride, &running.rescale[..count]);
                let extents = Extents { rows: count, columns: padded(width), depth: n_keys };
                let left = Left { data: scores, row_stride: 1, depth_stride: QUERY_STRIDE };
                multiply(left, Right { data: values, stride }, sums, stride, extents, Output::Accumulate);
            }
            self.finish(tile, head, sums, &running);
        });
    }

    fn heads(&self, head: usize) -> [Head<'_, E>; 3] {
        let AttentionShape { n_heads, n_kv_heads, head_dim, .. } = *self.shape;
        let kv_head = head / (n_heads / n_kv_heads);
        [
            Head::new(self.inputs.q_thd, head, n_heads, head_dim),
            Head::new(self.inputs.k_tgd, kv_head, n_kv_heads, head_dim),
            Head::new(self.inputs.v_tgd, kv_head, n_kv_heads, head_dim),
        ]
    }

    fn bands(&self, tile: &TokenTile) -> impl Iterator<Item = Band> {
        key_bands(tile, self.shape.window)
    }

    fn finish(&self, tile: &TokenTile, head: usize, sums: &[f32], running: &Running<'_>) {
        let width = self.shape.head_dim;
        let (first, count) = (tile.first - self.first_query, tile.end - tile.first);
        // SAFETY: each (query tile, head) is one task, and this is the only place that writes its rows.
        let lse = unsafe { self.lse.part(head * self.tokens + first, count) };
        for (row, sums) in sums.chunks_exact(tile_stride(width)).take(count).enumerate() {
            let offset = ((first + row) * self.shape.n_heads + head) * width;
            // SAFETY: as above.
            let out = unsafe { self.out.part(offset, width) };
            write_scaled(&sums[..width], 1.0 / running.sum[row], out);
            lse[row] = running.max[row] + running.sum[row].ln();
        }
    }
}

/// The tiles of keys that queries of `tile` see, in ascending order.
pub(super) fn key_bands(tile: &TokenTile, window: Option<usize>) -> impl Iterator<Item = Band> {
    let (first_query, end) = (tile.first - tile.segment_start, tile.end - tile.segment_start);
    let bands = (0..end).step_by(KEY_TILE).map(move |first_key| Band {
        first_query,
        n_queries: end - first_query,
        first_key,
        n_keys: KEY_TILE.min(end - first_key),
        window: window.unwrap_or(usize::MAX),
    });
    bands.filter(Band::is_visible)
}

/// Turns a key-major tile of products into weights `exp(scale * s - max)`, 0 where the query does not see the key.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn running_softmax(scores: &mut [f32], band: &Band, scale: f32, running: &mut Running<'_>) {
    let n = band.n_queries;
    let (max, sum, rescale) = (&mut running.max[..n], &mut running.sum[..n], &mut running.rescale[..n]);
    rescale.copy_from_slice(max);
    for (row, scores) in scores.chunks_exact(QUERY_STRIDE).take(band.n_keys).enumerate() {
        let (start, end) = band.queries_of(row);
        for (m, s) in max[start..end].iter_mut().zip(&scores[start..end]) {
            let s = s * scale;
            *m = if s > *m { s } else { *m };
        }
    }
    for ((r, m), l) in rescale.iter_mut().zip(max.iter()).zip(sum.iter_mut()) {
        *r = exp(*r - m);
        *l *= *r;
    }
    for (row, scores) in scores.chunks_exact_mut(QUERY_STRIDE).take(band.n_keys).enumerate() {
        let (start, end) = band.queries_of(row);
        scores[..start].fill(0.0);
        scores[end..n].fill(0.0);
        for ((s, m), l) in scores[start..end].iter_mut().zip(&max[start..end]).zip(&mut sum[start..end]) {
            *s = exp(*s * scale - m);
            *l += *s;
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn scale_rows(rows: &mut [f32], stride: usize, factors: &[f32]) {
    for (row, factor) in rows.chunks_exact_mut(stride).zip(factors) {
        if *factor != 1.0 {
            row.iter_mut().for_each(|x| *x *= factor);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn write_scaled<E: Element>(source: &[f32], factor: f32, target: &mut [E]) {
    for (t, s) in target.iter_mut().zip(source) {
        *t = E::from_f32(s * factor);
    }
}
