//! What lies between the products of attention where products are a device's fastest arithmetic: tensor cores.
//!
//! In:    scores of some heads for a tile of queries, `[heads, queries, keys]` in f32, as products gave them.
//! Out:   probabilities and log-sum-exps; in the backward pass probabilities again, and the scores' gradients.
//! Never: multiplies matrices: that is the caller's.
//!
//! Source: Dao 2023, arXiv:2307.08691, algorithms 1 and 2, with a tile's scores in memory instead of registers.

use cubecl::client::Client;
use cubecl::prelude::*;

use super::{Rows, Shape, first_key};
use crate::launch::{Buffer, Number, UNITS, cover, cubes, launch, max_over_cube, sum_over_cube};

/// A tile: some heads, queries in a row, and every key that one of them sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// The first of the heads.
    pub first_head: usize,
    /// Token of the first query.
    pub first_query: usize,
    /// Queries.
    pub queries: usize,
    /// Token of the first key.
    pub first_key: usize,
    /// Keys.
    pub keys: usize,
}

#[cube(launch, create_dummy_kernel)]
fn softmax<F: Float>(
    scores: &[f32],
    starts: &[u32],
    out: &mut [F],
    lse: &mut [f32],
    scale: f32,
    window: u32,
    first_head: usize,
    first_query: usize,
    queries: usize,
    tile_key: usize,
    keys: usize,
    #[define(F)] _number: ElemType,
) {
    let row = CUBE_POS;
    if row * keys >= scores.len() {
        terminate!();
    }
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let query = first_query + row % queries;
    let start = row * keys;
    let (from, to) = (first_key(query, starts, window) - tile_key, query + 1usize - tile_key);
    let unit = UNIT_POS as usize;
    let mut largest = scores[start + from] * scale;
    let mut at = from + unit;
    while at < to {
        largest = max(largest, scores[start + at] * scale);
        at += comptime!(UNITS as usize);
    }
    let largest = max_over_cube(largest, &mut scratch);
    let mut exponentials = 0.0f32;
    let mut at = from + unit;
    while at < to {
        exponentials += (scores[start + at] * scale - largest).exp();
        at += comptime!(UNITS as usize);
    }
    let sum = sum_over_cube(exponentials, &mut scratch);
    let mut at = unit;
    while at < keys {
        let mut probability = 0.0f32;
        if at >= from && at < to {
            probability = (scores[start + at] * scale - largest).exp() / sum;
        }
        out[start + at] = F::cast_from(probability);
        at += comptime!(UNITS as usize);
    }
    if unit == 0 {
        lse[(first_head + row / queries) * starts.len() + query] = largest + sum.ln();
    }
}

/// A unit for each score.
#[cube(launch, create_dummy_kernel)]
fn softmax_gradient<F: Float>(
    scores: &[f32],
    along: &[f32],
    starts: &[u32],
    lse: &[f32],
    delta: &[f32],
    probabilities: &mut [F],
    gradients: &mut [F],
    scale: f32,
    window: u32,
    first_head: usize,
    first_query: usize,
    queries: usize,
    tile_key: usize,
    keys: usize,
    #[define(F)] _number: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at >= scores.len() {
        terminate!();
    }
    let row = at / keys;
    let (query, key) = (first_query + row % queries, tile_key + at % keys);
    let of_row = (first_head + row / queries) * starts.len() + query;
    let mut probability = 0.0f32;
    if key <= query && key >= first_key(query, starts, window) {
        probability = (scores[at] * scale - lse[of_row]).exp();
    }
    probabilities[at] = F::cast_from(probability);
    gradients[at] = F::cast_from(probability * (along[at] - delta[of_row]) * scale);
}

/// Adds a tile's part to a sum over all tokens; a unit for each number of the part.
#[cube(launch, create_dummy_kernel)]
fn add_part(
    part: &[f32],
    sums: &mut [f32],
    first_head: usize,
    tile_key: usize,
    keys: usize,
    tokens: usize,
    head_dim: usize,
) {
    let at = ABSOLUTE_POS;
    if at >= part.len() {
        terminate!();
    }
    let (column, row) = (at % head_dim, at / head_dim);
    let (head, key) = (first_head + row / keys, tile_key + row % keys);
    sums[(head * tokens + key) * head_dim + column] += part[at];
}

/// Probabilities of a tile's scores, zero where a query does not see a key; fills the tile's part of `lse`, `[h, t]`.
///
/// # Panics
/// If sizes disagree: our bug.
pub fn tile_softmax(
    client: &Client,
    scores: &Buffer,
    rows: &Rows,
    lse: &Buffer,
    tile: Tile,
    shape: Shape,
    number: Number,
) -> Buffer {
    let Tile { first_head, first_query, queries, first_key, keys } = tile;
    assert!(scores.len().is_multiple_of(queries * keys), "scores of whole heads");
    lse.expect("log-sum-exps", shape.n_heads * rows.tokens());
    let out = Buffer::empty(client, scores.len(), number);
    let (cube, scale, window) = (CubeDim::new_1d(UNITS), shape.scale, shape.window());
    let starts = &rows.starts;
    launch!(
        client,
        softmax,
        cubes(scores.len() / keys),
        cube,
        scores,
        starts,
        out,
        lse,
        scale,
        window,
        first_head,
        first_query,
        queries,
        first_key,
        keys,
        number.element(),
    );
    out
}

/// What the backward pass makes of a tile: probabilities again, and the gradients of the scores before their scale. `along` is the
/// gradient's product with the values, as `scores`; `delta` is that of [`attention_delta`].
///
/// # Panics
/// If sizes disagree: our bug.
pub fn tile_softmax_gradient(
    client: &Client,
    [scores, along]: [&Buffer; 2],
    rows: &Rows,
    [lse, delta]: [&Buffer; 2],
    tile: Tile,
    shape: Shape,
    number: Number,
) -> [Buffer; 2] {
    let Tile { first_head, first_query, queries, first_key, keys } = tile;
    along.expect("products with the values", scores.len());
    lse.expect("log-sum-exps", shape.n_heads * rows.tokens());
    delta.expect("sums of outputs times gradients", lse.len());
    let [probabilities, gradients] = [0, 1].map(|_| Buffer::empty(client, scores.len(), number));
    let (cube, scale, window) = (CubeDim::new_1d(UNITS), shape.scale, shape.window());
    let starts = &rows.starts;
    launch!(
        client,
        softmax_gradient,
        cover(scores.len()),
        cube,
        scores,
        along,
        starts,
        lse,
        delta,
        probabilities,
        gradients,
        scale,
        window,
        first_head,
        first_query,
        queries,
        first_key,
        keys,
        number.element(),
    );
    [probabilities, gradients]
}

/// Adds `part`, `[heads, keys, head_dim]` of a tile's key/value heads in f32, to `sums`, `[n_kv_heads, tokens, head_dim]`.
///
/// # Panics
/// If sizes disagree: our bug.
pub fn add_tile(client: &Client, part: &Buffer, sums: &Buffer, (first_head, tile): (usize, Tile), shape: Shape) {
    let (tokens, head_dim) = (sums.len() / (shape.n_kv_heads * shape.head_dim), shape.head_dim);
    let (first_key, keys) = (tile.first_key, tile.keys);
    assert!(part.len().is_multiple_of(keys * head_dim) && first_key + keys <= tokens, "a part of the sums");
    let cube = CubeDim::new_1d(UNITS);
    launch!(client, add_part, cover(part.len()), cube, part, sums, first_head, first_key, keys, tokens, head_dim);
}
