//! Root-mean-square normalisation, forward and backward.
//!
//! Shape letters: `t` tokens, `w` width (the length of the weight). All arrays are row-major.
//!
//! In:    `x_tw`, a weight of `w` floats, epsilon.
//! Out:   `y_tw = x / sqrt(mean(x^2) + epsilon) * weight`, and the gradients.
//! Never: keeps statistics in less than `f32`, sums in an order that depends on the number of threads.
//!
//! Source: Zhang and Sennrich 2019, arXiv:1910.07467.

use multiversion::multiversion;
use rayon::prelude::*;

use super::element::Element;
use super::math::sum_lanes;
use super::parallel::rows_per_block;
use super::scratch::with_floats;

/// Rows whose weight gradients are summed before the sums are added up, in ascending order.
const GRADIENT_BLOCK_ROWS: usize = 64;

/// Normalises every row of `x_tw`; `rstd_t` receives `1 / sqrt(mean(x^2) + epsilon)` for the backward.
///
/// # Panics
/// If lengths disagree.
pub fn rms_norm_forward<E: Element>(x_tw: &[E], weight: &[f32], epsilon: f32, y_tw: &mut [E], rstd_t: &mut [f32]) {
    let width = weight.len();
    assert!(width > 0 && x_tw.len() == y_tw.len() && x_tw.len() == rstd_t.len() * width, "rms norm lengths");
    let rows = rows_per_block(width);
    let blocks = x_tw.par_chunks(rows * width).zip(y_tw.par_chunks_mut(rows * width)).zip(rstd_t.par_chunks_mut(rows));
    blocks.for_each(|((x, y), rstd)| forward_rows(x, weight, epsilon, y, rstd));
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn forward_rows<E: Element>(x: &[E], weight: &[f32], epsilon: f32, y: &mut [E], rstd: &mut [f32]) {
    let width = weight.len();
    for ((x, y), rstd) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(rstd) {
        let mean = lane_sum(x, x, |a, b| a.to_f32() * b.to_f32()) / width as f32;
        *rstd = 1.0 / (mean + epsilon).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            *y = E::from_f32(x.to_f32() * *rstd * w);
        }
    }
}

/// Sums `term(a[i], b[i])` in a fixed order that vectorises.
#[inline(always)]
fn lane_sum<A: Copy, B: Copy>(a: &[A], b: &[B], term: impl Fn(A, B) -> f32) -> f32 {
    let mut lanes = [0.0f32; 32];
    let (a_blocks, b_blocks) = (a.chunks_exact(32), b.chunks_exact(32));
    let rest = a_blocks.remainder().iter().zip(b_blocks.remainder());
    for (a, b) in a_blocks.clone().zip(b_blocks) {
        for i in 0..32 {
            lanes[i] += term(a[i], b[i]);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(rest) {
        *lane += term(*a, *b);
    }
    sum_lanes(lanes)
}

/// The gradient of the input: `dx = rstd * (w * dy - x * rstd^2 * mean(w * dy * x))`.
///
/// # Panics
/// If lengths disagree.
pub fn rms_norm_backward<E: Element>(x_tw: &[E], weight: &[f32], rstd_t: &[f32], dy_tw: &[E], dx_tw: &mut [E]) {
    let width = weight.len();
    assert!(width > 0 && x_tw.len() == dy_tw.len() && x_tw.len() == dx_tw.len(), "rms norm lengths");
    assert_eq!(x_tw.len(), rstd_t.len() * width, "rms norm statistics");
    let rows = rows_per_block(width);
    let inputs = x_tw.par_chunks(rows * width).zip(dy_tw.par_chunks(rows * width));
    let blocks = inputs.zip(dx_tw.par_chunks_mut(rows * width)).zip(rstd_t.par_chunks(rows));
    blocks.for_each(|(((x, dy), dx), rstd)| backward_rows(x, weight, rstd, dy, dx));
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn backward_rows<E: Element>(x: &[E], weight: &[f32], rstd: &[f32], dy: &[E], dx: &mut [E]) {
    let width = weight.len();
    let rows = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width)).zip(rstd);
    for (((x, dy), dx), rstd) in rows {
        // The products `w * dy` wait in no buffer: they are recomputed, as the row sits in the first-level cache.
        let mut lanes = [0.0f32; 32];
        let whole = width / 32 * 32;
        for start in (0..whole).step_by(32) {
            let (x, dy, w) = (&x[start..start + 32], &dy[start..start + 32], &weight[start..start + 32]);
            for i in 0..32 {
                lanes[i] += w[i] * dy[i].to_f32() * x[i].to_f32();
            }
        }
        for (i, lane) in (whole..width).zip(lanes.iter_mut()) {
            *lane += weight[i] * dy[i].to_f32() * x[i].to_f32();
        }
        let correction = rstd * rstd * (sum_lanes(lanes) / width as f32);
        for (((dx, x), dy), w) in dx.iter_mut().zip(x).zip(dy).zip(weight) {
            *dx = E::from_f32(rstd * (w * dy.to_f32() - x.to_f32() * correction));
        }
    }
}

/// The gradient of the weight, `sum over t of dy * x * rstd`; overwrites `dweight`.
///
/// # Panics
/// If lengths disagree.
pub fn rms_norm_weight_gradient<E: Element>(x_tw: &[E], rstd_t: &[f32], dy_tw: &[E], dweight: &mut [f32]) {
    let width = dweight.len();
    assert!(width > 0 && x_tw.len() == dy_tw.len() && x_tw.len() == rstd_t.len() * width, "rms norm lengths");
    let blocks = rstd_t.len().div_ceil(GRADIENT_BLOCK_ROWS);
    with_floats(blocks * width, |partial| {
        partial.fill(0.0);
        let span = GRADIENT_BLOCK_ROWS * width;
        let inputs = x_tw.par_chunks(span).zip(dy_tw.par_chunks(span)).zip(rstd_t.par_chunks(GRADIENT_BLOCK_ROWS));
        let tasks = inputs.zip(partial.par_chunks_mut(width));
        tasks.for_each(|(((x, dy), rstd), sums)| weight_gradient_rows(x, dy, rstd, sums));
        dweight.fill(0.0);
        for sums in partial.chunks_exact(width) {
            dweight.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        }
    });
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn weight_gradient_rows<E: Element>(x: &[E], dy: &[E], rstd: &[f32], sums: &mut [f32]) {
    let width = sums.len();
    for ((x, dy), rstd) in x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(rstd) {
        for ((sum, x), dy) in sums.iter_mut().zip(x).zip(dy) {
            *sum += dy.to_f32() * (x.to_f32() * rstd);
        }
    }
}
