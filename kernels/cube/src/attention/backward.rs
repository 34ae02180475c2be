//! The gradients of attention.
//!
//! In:    what the forward pass took and gave, the gradient of its output.
//! Out:   gradients of queries, keys and values.
//! Never: adds into memory that another cube adds into.
//!
//! Source: Dao et al. 2022, arXiv:2205.14135, algorithm 4, with weights made again from the log-sum-exps.

use cubecl::client::Client;
use cubecl::prelude::*;

use super::blocks::{Blocks, LANES, add_weighted, dots, filled, first_row, load, own_lane, store};
use super::{Rows, Shape, expect, first_key, grid, sees};
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
    #[comptime] blocks: Blocks,
    #[define(F)] _number: ElemType,
) {
    let (unit_rows, unit_others, others) = comptime!((blocks.unit_rows, blocks.unit_others(), blocks.others));
    let own_rows = comptime!(blocks.rows);
    let tokens = starts.len();
    let (first, lane) = (first_row(blocks), own_lane());
    let base = CUBE_POS_X as usize * own_rows;
    let head = CUBE_POS_Y as usize;
    let kv_head = head / comptime!(n_heads / n_kv_heads);
    let mut q_tile = Shared::<[f32]>::new_slice(comptime!(own_rows * blocks.row_stride()));
    let mut dout_tile = Shared::<[f32]>::new_slice(comptime!(own_rows * blocks.row_stride()));
    let mut kv_tile = Shared::<[f32]>::new_slice(comptime!(others * blocks.row_stride()));
    let mut products = Shared::<[f32]>::new_slice(comptime!(own_rows * blocks.weight_stride()));
    load::<F>(q, &mut q_tile, base, head, tokens, n_heads, own_rows, blocks);
    load::<F>(dout, &mut dout_tile, base, head, tokens, n_heads, own_rows, blocks);
    let mut sums = filled(0.0f32, comptime!(blocks.unit_sums()));
    let mut froms = Array::<u32>::new(unit_rows);
    let mut lses = filled(0.0f32, unit_rows);
    let mut deltas = filled(0.0f32, unit_rows);
    #[unroll]
    for row in 0..unit_rows {
        let known = min(base + first + row, tokens - 1usize);
        froms[row] = u32::cast_from(first_key(known, starts, window));
        lses[row] = lse[head * tokens + known];
        deltas[row] = delta[head * tokens + known];
    }
    let last = min(base + own_rows, tokens);
    let mut key_base = first_key(base, starts, window);
    while key_base < last {
        sync_cube();
        load::<F>(v, &mut kv_tile, key_base, kv_head, tokens, n_kv_heads, others, blocks);
        sync_cube();
        let along = dots(&dout_tile, &kv_tile, first, lane, blocks);
        sync_cube();
        load::<F>(k, &mut kv_tile, key_base, kv_head, tokens, n_kv_heads, others, blocks);
        sync_cube();
        let scores = dots(&q_tile, &kv_tile, first, lane, blocks);
        #[unroll]
        for row in 0..unit_rows {
            #[unroll]
            for other in 0..unit_others {
                let (at, place) = (row * unit_others + other, other * comptime!(LANES) + lane);
                let mut product = 0.0f32;
                if sees(base + first + row, key_base + place, usize::cast_from(froms[row]), tokens) {
                    let weight = (scores[at] * scale - lses[row]).exp();
                    product = weight * (along[at] - deltas[row]) * scale;
                }
                products[(first + row) * comptime!(blocks.weight_stride()) + place] = product;
            }
        }
        sync_cube();
        add_weighted(&mut sums, &products, &kv_tile, first, lane, blocks);
        key_base += others;
    }
    #[unroll]
    for row in 0..unit_rows {
        let query = base + first + row;
        if query < tokens {
            let start = (query * n_heads + head) * comptime!(blocks.head_dim);
            store::<F>(&sums, row, 1.0f32, dq, start, blocks);
        }
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
    #[comptime] blocks: Blocks,
    #[define(F)] _number: ElemType,
) {
    let (unit_rows, unit_others, others) = comptime!((blocks.unit_rows, blocks.unit_others(), blocks.others));
    let own_rows = comptime!(blocks.rows);
    let tokens = ends.len();
    let (first, lane) = (first_row(blocks), own_lane());
    let base = CUBE_POS_X as usize * own_rows;
    let kv_head = CUBE_POS_Y as usize;
    let group = comptime!(n_heads / n_kv_heads);
    let mut k_tile = Shared::<[f32]>::new_slice(comptime!(own_rows * blocks.row_stride()));
    let mut v_tile = Shared::<[f32]>::new_slice(comptime!(own_rows * blocks.row_stride()));
    let mut other_tile = Shared::<[f32]>::new_slice(comptime!(others * blocks.row_stride()));
    let mut shares = Shared::<[f32]>::new_slice(comptime!(own_rows * blocks.weight_stride()));
    load::<F>(k, &mut k_tile, base, kv_head, tokens, n_kv_heads, own_rows, blocks);
    load::<F>(v, &mut v_tile, base, kv_head, tokens, n_kv_heads, own_rows, blocks);
    let mut key_sums = filled(0.0f32, comptime!(blocks.unit_sums()));
    let mut value_sums = filled(0.0f32, comptime!(blocks.unit_sums()));
    let mut row_ends = Array::<u32>::new(unit_rows);
    #[unroll]
    for row in 0..unit_rows {
        row_ends[row] = ends[min(base + first + row, tokens - 1usize)];
    }
    let last_key = u32::cast_from(min(base + own_rows, tokens) - 1usize);
    let mut last = ends[min(base + own_rows, tokens) - 1usize];
    if last - last_key > window {
        last = last_key + window;
    }
    for member in 0..group {
        let head = kv_head * group + member;
        let mut query_base = base;
        while query_base < usize::cast_from(last) {
            sync_cube();
            load::<F>(q, &mut other_tile, query_base, head, tokens, n_heads, others, blocks);
            sync_cube();
            let mut weights = dots(&k_tile, &other_tile, first, lane, blocks);
            #[unroll]
            for other in 0..unit_others {
                let place = other * comptime!(LANES) + lane;
                let query = query_base + place;
                let position = u32::cast_from(query);
                let query_lse = lse[head * tokens + min(query, tokens - 1usize)];
                #[unroll]
                for row in 0..unit_rows {
                    let (key, at) = (base + first + row, row * unit_others + other);
                    let mut weight = 0.0f32;
                    // A key past the last has no row's end beyond it.
                    if key <= query && position < row_ends[row] && position - u32::cast_from(key) < window {
                        weight = (weights[at] * scale - query_lse).exp();
                    }
                    weights[at] = weight;
                    shares[(first + row) * comptime!(blocks.weight_stride()) + place] = weight;
                }
            }
            sync_cube();
            load::<F>(dout, &mut other_tile, query_base, head, tokens, n_heads, others, blocks);
            sync_cube();
            add_weighted(&mut value_sums, &shares, &other_tile, first, lane, blocks);
            let along = dots(&v_tile, &other_tile, first, lane, blocks);
            sync_cube();
            #[unroll]
            for other in 0..unit_others {
                let place = other * comptime!(LANES) + lane;
                let query_delta = delta[head * tokens + min(query_base + place, tokens - 1usize)];
                #[unroll]
                for row in 0..unit_rows {
                    let at = row * unit_others + other;
                    let product = weights[at] * (along[at] - query_delta) * scale;
                    shares[(first + row) * comptime!(blocks.weight_stride()) + place] = product;
                }
            }
            load::<F>(q, &mut other_tile, query_base, head, tokens, n_heads, others, blocks);
            sync_cube();
            add_weighted(&mut key_sums, &shares, &other_tile, first, lane, blocks);
            query_base += others;
        }
    }
    #[unroll]
    for row in 0..unit_rows {
        let key = base + first + row;
        if key < tokens {
            let start = (key * n_kv_heads + kv_head) * comptime!(blocks.head_dim);
            store::<F>(&key_sums, row, 1.0f32, dk, start, blocks);
            store::<F>(&value_sums, row, 1.0f32, dv, start, blocks);
        }
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
    let (n_heads, n_kv_heads, blocks) = (shape.n_heads, shape.n_kv_heads, Blocks::of_two_tiles(shape.head_dim));
    let (count, cube) = grid(rows.tokens(), n_heads, blocks);
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
        blocks,
        number.element(),
    );
    let (count, cube) = grid(rows.tokens(), n_kv_heads, blocks);
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
        blocks,
        number.element(),
    );
    gradients
}
