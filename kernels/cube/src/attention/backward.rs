//! The gradients of attention.
//!
//! In:    what the forward pass took and gave, the gradient of its output.
//! Out:   gradients of queries, keys and values.
//! Never: adds into memory that another cube adds into.
//!
//! Source: Dao et al. 2022, arXiv:2205.14135, algorithm 4, with weights made again from the log-sum-exps.

use cubecl::client::Client;
use cubecl::prelude::*;

use super::{Rows, Shape, add_weighted, dot, expect, first_key, grid, load, store, tile, zeros};
use crate::launch::{Buffer, Number, UNITS, cover, launch};

/// `delta[h, t]`: the sum over a head of output times its gradient.
#[cube(launch, create_dummy_kernel)]
fn output_products<F: Float>(
    out: &[F],
    dout: &[F],
    delta: &mut [f32],
    #[comptime] n_heads: usize,
    #[comptime] head_dim: usize,
    #[define(F)] _number: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at >= delta.len() {
        terminate!();
    }
    let tokens = delta.len() / n_heads;
    let start = (at % tokens * n_heads + at / tokens) * head_dim;
    let mut sum = 0.0f32;
    for column in 0..head_dim {
        sum += f32::cast_from(out[start + column]) * f32::cast_from(dout[start + column]);
    }
    delta[at] = sum;
}

#[cube(launch, create_dummy_kernel)]
fn query_gradient<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    dout: &[F],
    lse: &[f32],
    delta: &[f32],
    starts: &[u32],
    dq: &mut [F],
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
    let mut dout_tile = Shared::<[f32]>::new_slice(tile * head_dim);
    let mut kv_tile = Shared::<[f32]>::new_slice(tile * head_dim);
    let mut products = Shared::<[f32]>::new_slice(tile * tile);
    let mut sums = zeros(head_dim, tile);
    load::<F>(q, &mut q_tile, base, tokens, head, n_heads, head_dim, tile);
    load::<F>(dout, &mut dout_tile, base, tokens, head, n_heads, head_dim, tile);
    let known = min(query, tokens - 1usize);
    let from = first_key(known, starts, window);
    let (own_lse, own_delta) = (lse[head * tokens + known], delta[head * tokens + known]);
    let last = min(base + tile, tokens);
    let mut key_base = first_key(base, starts, window);
    while key_base < last {
        sync_cube();
        load::<F>(v, &mut kv_tile, key_base, tokens, kv_head, n_kv_heads, head_dim, tile);
        sync_cube();
        let key = key_base + lane;
        let seen = query < tokens && key <= query && key >= from;
        let along = dot(&dout_tile, mine, &kv_tile, lane, head_dim);
        sync_cube();
        load::<F>(k, &mut kv_tile, key_base, tokens, kv_head, n_kv_heads, head_dim, tile);
        sync_cube();
        let mut product = 0.0f32;
        if seen {
            let weight = (dot(&q_tile, mine, &kv_tile, lane, head_dim) * scale - own_lse).exp();
            product = weight * (along - own_delta) * scale;
        }
        products[unit] = product;
        sync_cube();
        add_weighted(&mut sums, &products, &kv_tile, head_dim, tile);
        key_base += tile;
    }
    if query < tokens {
        store::<F>(&sums, 1.0f32, dq, (query * n_heads + head) * head_dim, head_dim, tile);
    }
}

#[cube(launch, create_dummy_kernel)]
fn key_gradients<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    dout: &[F],
    lse: &[f32],
    delta: &[f32],
    ends: &[u32],
    dk: &mut [F],
    dv: &mut [F],
    scale: f32,
    window: u32,
    #[comptime] n_heads: usize,
    #[comptime] n_kv_heads: usize,
    #[comptime] head_dim: usize,
    #[comptime] tile: usize,
    #[define(F)] _number: ElemType,
) {
    let tokens = ends.len();
    let unit = UNIT_POS as usize;
    let (mine, lane) = (unit / tile, unit % tile);
    let base = CUBE_POS_X as usize * tile;
    let key = base + mine;
    let kv_head = CUBE_POS_Y as usize;
    let group = comptime!(n_heads / n_kv_heads);
    let mut k_tile = Shared::<[f32]>::new_slice(tile * head_dim);
    let mut v_tile = Shared::<[f32]>::new_slice(tile * head_dim);
    let mut other_tile = Shared::<[f32]>::new_slice(tile * head_dim);
    let mut products = Shared::<[f32]>::new_slice(tile * tile);
    let mut key_sums = zeros(head_dim, tile);
    let mut value_sums = zeros(head_dim, tile);
    load::<F>(k, &mut k_tile, base, tokens, kv_head, n_kv_heads, head_dim, tile);
    load::<F>(v, &mut v_tile, base, tokens, kv_head, n_kv_heads, head_dim, tile);
    let known = min(key, tokens - 1usize);
    let end = ends[known];
    let last_key = u32::cast_from(min(base + tile, tokens) - 1usize);
    let mut last = ends[min(base + tile, tokens) - 1usize];
    if last - last_key > window {
        last = last_key + window;
    }
    for member in 0..group {
        let head = kv_head * group + member;
        let mut query_base = base;
        while query_base < usize::cast_from(last) {
            sync_cube();
            load::<F>(q, &mut other_tile, query_base, tokens, head, n_heads, head_dim, tile);
            sync_cube();
            let query = query_base + lane;
            let asked = min(query, tokens - 1usize);
            let position = u32::cast_from(query);
            let seen = key <= query && position < end && position - u32::cast_from(known) < window;
            let mut weight = 0.0f32;
            if seen {
                let score = dot(&k_tile, mine, &other_tile, lane, head_dim) * scale;
                weight = (score - lse[head * tokens + asked]).exp();
            }
            products[unit] = weight;
            sync_cube();
            load::<F>(dout, &mut other_tile, query_base, tokens, head, n_heads, head_dim, tile);
            sync_cube();
            add_weighted(&mut value_sums, &products, &other_tile, head_dim, tile);
            let along = dot(&v_tile, mine, &other_tile, lane, head_dim);
            sync_cube();
            products[unit] = weight * (along - delta[head * tokens + asked]) * scale;
            load::<F>(q, &mut other_tile, query_base, tokens, head, n_heads, head_dim, tile);
            sync_cube();
            add_weighted(&mut key_sums, &products, &other_tile, head_dim, tile);
            query_base += tile;
        }
    }
    if key < tokens {
        let start = (key * n_kv_heads + kv_head) * head_dim;
        store::<F>(&key_sums, 1.0f32, dk, start, head_dim, tile);
        store::<F>(&value_sums, 1.0f32, dv, start, head_dim, tile);
    }
}

/// For each (head, token) the sum over the head of output times its gradient, `[h, t]` in f32.
///
/// # Panics
/// If sizes disagree: our bug.
pub fn attention_delta(client: &Client, out: &Buffer, dout: &Buffer, shape: Shape, number: Number) -> Buffer {
    dout.expect("the outputs' gradients", out.len());
    let (n_heads, head_dim) = (shape.n_heads, shape.head_dim);
    let delta = Buffer::empty(client, out.len() / head_dim, Number::F32);
    if !delta.is_empty() {
        let cube = CubeDim::new_1d(UNITS);
        launch!(
            client,
            output_products,
            cover(delta.len()),
            cube,
            out,
            dout,
            delta,
            n_heads,
            head_dim,
            number.element(),
        );
    }
    delta
}

/// Gradients of [`attention`] for queries, keys and values, from its results and the gradient of its output.
///
/// # Panics
/// If sizes disagree: our bug.
pub fn attention_backward(
    client: &Client,
    qkv: [&Buffer; 3],
    [out, lse, dout]: [&Buffer; 3],
    rows: &Rows,
    shape: Shape,
    number: Number,
) -> [Buffer; 3] {
    expect(&shape, qkv, rows);
    let [q, k, v] = qkv;
    out.expect("outputs", q.len());
    dout.expect("the outputs' gradients", q.len());
    lse.expect("log-sum-exps", rows.tokens() * shape.n_heads);
    let gradients = [q, k, v].map(|x| Buffer::empty(client, x.len(), number));
    if rows.tokens() == 0 {
        return gradients;
    }
    let delta = attention_delta(client, out, dout, shape, number);
    let (n_heads, n_kv_heads, head_dim, tile) = (shape.n_heads, shape.n_kv_heads, shape.head_dim, tile(shape.head_dim));
    let (count, cube) = grid(rows.tokens(), n_heads, &shape);
    launch!(
        client,
        query_gradient,
        count.clone(),
        cube,
        q,
        k,
        v,
        dout,
        lse,
        delta,
        rows.starts,
        gradients[0],
        shape.scale,
        shape.window(),
        n_heads,
        n_kv_heads,
        head_dim,
        tile,
        number.element(),
    );
    let (count, cube) = grid(rows.tokens(), n_kv_heads, &shape);
    launch!(
        client,
        key_gradients,
        count.clone(),
        cube,
        q,
        k,
        v,
        dout,
        lse,
        delta,
        rows.ends,
        gradients[1],
        gradients[2],
        shape.scale,
        shape.window(),
        n_heads,
        n_kv_heads,
        head_dim,
        tile,
        number.element(),
    );
    gradients
}
