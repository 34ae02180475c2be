//! Causal attention over packed rows, forward and backward, by tiles with a running softmax.
//!
//! In:    queries, keys, values `[t, heads * head_dim]`; where each token's row begins and ends.
//! Out:   outputs and the log-sum-exp of each (head, token); gradients.
//! Never: holds scores of more than one tile: memory grows with the number of tokens.
//!
//! Sources: Dao et al. 2022, arXiv:2205.14135, algorithms 1 and 4; Dao 2023, arXiv:2307.08691. Queries' gradients are summed by
//! their own cubes and keys' by theirs, so that no sum depends on who comes first.

use cubecl::client::Client;
use cubecl::prelude::*;

use crate::launch::{Buffer, Number, launch};

mod backward;
mod blocks;
mod tiles;

pub(crate) use blocks::Blocks;
use blocks::{LANES, add_weighted, dots, filled, first_row, load, own_lane, store};

pub use backward::{attention_backward, attention_delta};
pub use tiles::{Tile, add_tile, tile_softmax, tile_softmax_gradient};

/// Below every score.
const LOWEST: f32 = -1.0e30;

/// Sizes of attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Factor on q·k before the softmax.
    pub scale: f32,
    /// A query at `i` sees keys `j <= i` with `i - j < window`.
    pub window: Option<usize>,
}

impl Shape {
    fn window(&self) -> u32 {
        self.window.and_then(|window| u32::try_from(window).ok()).unwrap_or(u32::MAX)
    }
}

/// Where rows lie among the tokens, on the device.
#[derive(Debug, Clone)]
pub struct Rows {
    starts: Buffer,
    ends: Buffer,
}

impl Rows {
    /// Rows with these cumulative bounds: first 0, last the number of tokens.
    pub fn new(client: &Client, segments: &[u32]) -> Rows {
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        for bounds in segments.windows(2) {
            let tokens = (bounds[1] - bounds[0]) as usize;
            starts.resize(starts.len() + tokens, bounds[0]);
            ends.resize(ends.len() + tokens, bounds[1]);
        }
        let upload = |words: Vec<u32>| Buffer::words(client.create_from_slice(u32::as_bytes(&words)), words.len());
        Rows { starts: upload(starts), ends: upload(ends) }
    }

    /// Tokens of all rows.
    pub fn tokens(&self) -> usize {
        self.starts.len()
    }
}

/// The first key that a query sees.
#[cube]
fn first_key(query: usize, starts: &[u32], window: u32) -> usize {
    let start = starts[query];
    let position = u32::cast_from(query);
    let mut first = start;
    if position - start >= window {
        first = position - window + 1u32;
    }
    usize::cast_from(first)
}

/// Whether a query sees a key, `from` being the first that it sees.
#[cube]
fn sees(query: usize, key: usize, from: usize, tokens: usize) -> bool {
    query < tokens && key <= query && key >= from
}

#[cube(launch, create_dummy_kernel)]
fn forward<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    starts: &[u32],
    out: &mut [F],
    lse: &mut [f32],
    scale: f32,
    window: u32,
    #[comptime] n_heads: usize,
    #[comptime] n_kv_heads: usize,
    #[comptime] blocks: Blocks,
    #[define(F)] _number: ElemType,
) {
    let (unit_rows, unit_others, others) = comptime!((blocks.unit_rows, blocks.unit_others(), blocks.others));
    let tokens = starts.len();
    let (first, lane) = (first_row(blocks), own_lane());
    let base = CUBE_POS_X as usize * comptime!(blocks.rows);
    let head = CUBE_POS_Y as usize;
    let kv_head = head / comptime!(n_heads / n_kv_heads);
    let mut q_tile = Shared::<[f32]>::new_slice(comptime!(blocks.rows * blocks.row_stride()));
    let mut kv_tile = Shared::<[f32]>::new_slice(comptime!(others * blocks.row_stride()));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(blocks.rows * blocks.weight_stride()));
    let mut of_lanes = Shared::<[f32]>::new_slice(comptime!(blocks.rows * LANES));
    load::<F>(q, &mut q_tile, base, head, tokens, n_heads, comptime!(blocks.rows), blocks);
    let mut mixed = filled(0.0f32, comptime!(blocks.unit_sums()));
    let mut largest = filled(f32::new(LOWEST), unit_rows);
    let mut sums = filled(0.0f32, unit_rows);
    let mut froms = Array::<u32>::new(unit_rows);
    #[unroll]
    for row in 0..unit_rows {
        froms[row] = u32::cast_from(first_key(min(base + first + row, tokens - 1usize), starts, window));
    }
    let last = min(base + comptime!(blocks.rows), tokens);
    let mut key_base = first_key(base, starts, window);
    while key_base < last {
        sync_cube();
        load::<F>(k, &mut kv_tile, key_base, kv_head, tokens, n_kv_heads, others, blocks);
        sync_cube();
        let mut scores = dots(&q_tile, &kv_tile, first, lane, blocks);
        #[unroll]
        for row in 0..unit_rows {
            let mut highest = f32::new(LOWEST);
            #[unroll]
            for other in 0..unit_others {
                let key = key_base + other * comptime!(LANES) + lane;
                let mut score = f32::new(LOWEST);
                if sees(base + first + row, key, usize::cast_from(froms[row]), tokens) {
                    score = scores[row * unit_others + other] * scale;
                }
                scores[row * unit_others + other] = score;
                highest = max(highest, score);
            }
            of_lanes[(first + row) * comptime!(LANES) + lane] = highest;
        }
        sync_cube();
        load::<F>(v, &mut kv_tile, key_base, kv_head, tokens, n_kv_heads, others, blocks);
        #[unroll]
        for row in 0..unit_rows {
            let mut highest = largest[row];
            #[unroll]
            for other in 0..comptime!(LANES) {
                highest = max(highest, of_lanes[(first + row) * comptime!(LANES) + other]);
            }
            let shrink = (largest[row] - highest).exp();
            largest[row] = highest;
            let mut sum = sums[row] * shrink;
            #[unroll]
            for other in 0..unit_others {
                let place = other * comptime!(LANES) + lane;
                let mut weight = 0.0f32;
                if sees(base + first + row, key_base + place, usize::cast_from(froms[row]), tokens) {
                    weight = (scores[row * unit_others + other] - highest).exp();
                }
                weights[(first + row) * comptime!(blocks.weight_stride()) + place] = weight;
                sum += weight;
            }
            sums[row] = sum;
            #[unroll]
            for column in 0..comptime!(blocks.unit_columns()) {
                mixed[row * comptime!(blocks.unit_columns()) + column] *= shrink;
            }
        }
        sync_cube();
        add_weighted(&mut mixed, &weights, &kv_tile, first, lane, blocks);
        key_base += others;
    }
    sync_cube();
    #[unroll]
    for row in 0..unit_rows {
        of_lanes[(first + row) * comptime!(LANES) + lane] = sums[row];
    }
    sync_cube();
    #[unroll]
    for row in 0..unit_rows {
        let query = base + first + row;
        let mut sum = 0.0f32;
        #[unroll]
        for other in 0..comptime!(LANES) {
            sum += of_lanes[(first + row) * comptime!(LANES) + other];
        }
        if query < tokens {
            let start = (query * n_heads + head) * comptime!(blocks.head_dim);
            store::<F>(&mixed, row, 1.0f32 / sum, out, start, blocks);
            if lane == 0 {
                lse[head * tokens + query] = largest[row] + sum.ln();
            }
        }
    }
}

/// Cubes for tiles of all tokens, by head.
fn grid(tokens: usize, heads: usize, blocks: Blocks) -> (CubeCount, CubeDim) {
    let number = |count: usize| u32::try_from(count).expect("fewer than 2^32 tiles");
    (CubeCount::Static(number(tokens.div_ceil(blocks.rows)), number(heads), 1), CubeDim::new_1d(number(blocks.units())))
}

fn expect(shape: &Shape, [q, k, v]: [&Buffer; 3], rows: &Rows) {
    q.expect("queries", rows.tokens() * shape.n_heads * shape.head_dim);
    k.expect("keys", rows.tokens() * shape.n_kv_heads * shape.head_dim);
    v.expect("values", k.len());
}

/// Attention output as `q`, and the log-sum-exp of each (head, token), `[h, t]` in f32.
///
/// # Panics
/// If sizes disagree: our bug.
pub fn attention(client: &Client, qkv: [&Buffer; 3], rows: &Rows, shape: Shape, number: Number) -> (Buffer, Buffer) {
    expect(&shape, qkv, rows);
    let [q, k, v] = qkv;
    let out = Buffer::empty(client, q.len(), number);
    let lse = Buffer::empty(client, rows.tokens() * shape.n_heads, Number::F32);
    if rows.tokens() > 0 {
        let blocks = Blocks::of_one_tile(shape.head_dim);
        let (count, cube) = grid(rows.tokens(), shape.n_heads, blocks);
        launch!(
            client,
            forward,
            count.clone(),
            cube,
            q,
            k,
            v,
            rows.starts,
            out,
            lse,
            shape.scale,
            shape.window(),
            shape.n_heads,
            shape.n_kv_heads,
            blocks,
            number.element(),
        );
    }
    (out, lse)
}
