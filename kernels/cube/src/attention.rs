//! Causal attention over packed rows, forward and backward, by tiles with a running softmax.
//!
//! In:    queries, keys, values `[t, heads * head_dim]`; where each token's row begins and ends.
//! Out:   outputs and the log-sum-exp of each (head, token); gradients.
//! Never: holds scores of more than one tile: memory grows with the number of tokens.
//!
//! Sources: Dao et al. 2022, arXiv:2205.14135, algorithms 1 and 4; Dao 2023, arXiv:2307.08691. A cube has [`tile`] rows and as many lanes:
//! a unit computes the score of its row with its lane's key, then its lane's share of the row's output. Queries' gradients are summed by
//! their own cubes and keys' by theirs, so that no sum depends on who comes first.

use cubecl::client::Client;
use cubecl::prelude::*;

use crate::launch::{Buffer, Number, launch};

mod backward;
mod tiles;

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

/// Rows and lanes of a cube: three tiles of f32 fit into the 32 KB that every device shares.
fn tile(head_dim: usize) -> usize {
    if head_dim <= 128 { 16 } else { 8 }
}

/// Copies the rows from `token` on of one head into shared memory; zeros where there are none.
#[cube]
fn load<F: Float>(
    from: &[F],
    to: &mut Shared<[f32]>,
    token: usize,
    tokens: usize,
    head: usize,
    #[comptime] heads: usize,
    #[comptime] head_dim: usize,
    #[comptime] tile: usize,
) {
    let mut at = UNIT_POS as usize;
    while at < tile * head_dim {
        let row = token + at / head_dim;
        let mut value = 0.0f32;
        if row < tokens {
            value = f32::cast_from(from[(row * heads + head) * head_dim + at % head_dim]);
        }
        to[at] = value;
        at += tile * tile;
    }
}

/// The product of a row of one tile with a row of another.
#[cube]
fn dot(a: &Shared<[f32]>, row: usize, b: &Shared<[f32]>, other: usize, #[comptime] head_dim: usize) -> f32 {
    let mut sum = 0.0f32;
    for at in 0..head_dim {
        sum += a[row * head_dim + at] * b[other * head_dim + at];
    }
    sum
}

/// Adds to a unit's share of its row, a column every `tile`: weights of its row times the rows of a tile.
#[cube]
fn add_weighted(
    sums: &mut Array<f32>,
    weights: &Shared<[f32]>,
    rows: &Shared<[f32]>,
    #[comptime] head_dim: usize,
    #[comptime] tile: usize,
) {
    let unit = UNIT_POS as usize;
    let (mine, lane) = (unit / tile, unit % tile);
    for part in 0..comptime!(head_dim.div_ceil(tile)) {
        let column = part * tile + lane;
        if column < head_dim {
            let mut value = sums[part];
            for other in 0..tile {
                value += weights[mine * tile + other] * rows[other * head_dim + column];
            }
            sums[part] = value;
        }
    }
}

/// Writes a unit's share of its row, times a factor, to the head that begins at `start`.
#[cube]
fn store<F: Float>(
    sums: &Array<f32>,
    factor: f32,
    out: &mut [F],
    start: usize,
    #[comptime] head_dim: usize,
    #[comptime] tile: usize,
) {
    let lane = UNIT_POS as usize % tile;
    for part in 0..comptime!(head_dim.div_ceil(tile)) {
        let column = part * tile + lane;
        if column < head_dim {
            out[start + column] = F::cast_from(sums[part] * factor);
        }
    }
}

/// Zeros for a unit's share of its row.
#[cube]
fn zeros(#[comptime] head_dim: usize, #[comptime] tile: usize) -> Array<f32> {
    let parts = comptime!(head_dim.div_ceil(tile));
    let mut sums = Array::<f32>::new(parts);
    for part in 0..parts {
        sums[part] = 0.0f32;
    }
    sums
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
    #[comptime] head_dim: usize,
    #[comptime] tile: usize,
    #[define(F)] _number: ElemType,
) {
    let tokens = starts.len();
    let unit = UNIT_POS as usize;
    let (mine, lane) = (unit / tile, unit % tile);
    let base = CUBE_POS_X as usize * tile;
    let query = base + mine;
    let head = CUBE_POS_Y as usize;
    let kv_head = head / (n_heads / n_kv_heads);
    let mut q_tile = Shared::<[f32]>::new_slice(tile * head_dim);
    let mut k_tile = Shared::<[f32]>::new_slice(tile * head_dim);
    let mut v_tile = Shared::<[f32]>::new_slice(tile * head_dim);
    let mut scores = Shared::<[f32]>::new_slice(tile * tile);
    let mut mixed = zeros(head_dim, tile);
    load::<F>(q, &mut q_tile, base, tokens, head, n_heads, head_dim, tile);
    let mut largest = f32::new(LOWEST);
    let mut sum = 0.0f32;
    let known = min(query, tokens - 1usize);
    let from = first_key(known, starts, window);
    let last = min(base + tile, tokens);
    let mut key_base = first_key(base, starts, window);
    while key_base < last {
        sync_cube();
        load::<F>(k, &mut k_tile, key_base, tokens, kv_head, n_kv_heads, head_dim, tile);
        load::<F>(v, &mut v_tile, key_base, tokens, kv_head, n_kv_heads, head_dim, tile);
        sync_cube();
        let key = key_base + lane;
        let seen = query < tokens && key <= query && key >= from;
        let mut score = f32::new(LOWEST);
        if seen {
            score = dot(&q_tile, mine, &k_tile, lane, head_dim) * scale;
        }
        scores[unit] = score;
        sync_cube();
        let mut highest = largest;
        for other in 0..tile {
            highest = max(highest, scores[mine * tile + other]);
        }
        sync_cube();
        let mut weight = 0.0f32;
        if seen {
            weight = (score - highest).exp();
        }
        scores[unit] = weight;
        sync_cube();
        let shrink = (largest - highest).exp();
        let mut weights = 0.0f32;
        for other in 0..tile {
            weights += scores[mine * tile + other];
        }
        sum = sum * shrink + weights;
        for part in 0..comptime!(head_dim.div_ceil(tile)) {
            mixed[part] *= shrink;
        }
        add_weighted(&mut mixed, &scores, &v_tile, head_dim, tile);
        largest = highest;
        key_base += tile;
    }
    if query < tokens {
        store::<F>(&mixed, 1.0f32 / sum, out, (query * n_heads + head) * head_dim, head_dim, tile);
        if lane == 0 {
            lse[head * tokens + query] = largest + sum.ln();
        }
    }
}

/// Cubes for tiles of all tokens, by head.
fn grid(tokens: usize, heads: usize, shape: &Shape) -> (CubeCount, CubeDim) {
    let tile = tile(shape.head_dim);
    let number = |count: usize| u32::try_from(count).expect("fewer than 2^32 tiles");
    (CubeCount::Static(number(tokens.div_ceil(tile)), number(heads), 1), CubeDim::new_1d(number(tile * tile)))
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
        let (count, cube) = grid(rows.tokens(), shape.n_heads, &shape);
        let tile = tile(shape.head_dim);
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
            shape.head_dim,
            tile,
            number.element(),
        );
    }
    (out, lse)
}
