//! Softmax cross-entropy over one chunk of logits.
//!
//! Shape letters: `r` rows, `v` vocabulary. All arrays are row-major.
//!
//! In:    `logits_rv` in `f32`, one target a row.
//! Out:   one loss a row, and, on request, the gradient in place of the logits.
//! Never: keeps a second array of the size of the logits.

use multiversion::multiversion;
use rayon::prelude::*;

use super::math::{exp, sum_lanes};

/// The target of a row that does not count: its loss and its gradient are 0.
pub const IGNORED_TARGET: u32 = u32::MAX;

/// Logits summed in `f32` before the sum continues in `f64`.
const SUM_BLOCK: usize = 1024;

/// Writes `losses_r = logsumexp - logit[target]` and overwrites the logits with `(softmax - onehot) * gradient_scale`.
///
/// # Panics
/// If lengths disagree or a target is neither below `vocabulary` nor [`IGNORED_TARGET`].
pub fn softmax_cross_entropy_rows(
    logits_rv: &mut [f32],
    vocabulary: usize,
    targets_r: &[u32],
    gradient_scale: f32,
    losses_r: &mut [f32],
) {
    check(logits_rv.len(), vocabulary, targets_r, losses_r.len());
    let rows = logits_rv.par_chunks_exact_mut(vocabulary.max(1)).zip(targets_r).zip(losses_r);
    rows.for_each(|((logits, &target), loss)| {
        if target == IGNORED_TARGET {
            logits.fill(0.0);
            *loss = 0.0;
            return;
        }
        let max = maximum(logits);
        let chosen = logits[target as usize];
        let sum = exponentials_in_place(logits, max);
        *loss = loss_of(max, sum, chosen);
        let factor = (f64::from(gradient_scale) / sum) as f32;
        scale_in_place(logits, factor);
        logits[target as usize] -= gradient_scale;
    });
}

/// Writes the losses only.
///
/// # Panics
/// As [`softmax_cross_entropy_rows`].
pub fn cross_entropy_rows(logits_rv: &[f32], vocabulary: usize, targets_r: &[u32], losses_r: &mut [f32]) {
    check(logits_rv.len(), vocabulary, targets_r, losses_r.len());
    let rows = logits_rv.par_chunks_exact(vocabulary.max(1)).zip(targets_r).zip(losses_r);
    rows.for_each(|((logits, &target), loss)| {
        *loss = 0.0;
        if target != IGNORED_TARGET {
            let max = maximum(logits);
            *loss = loss_of(max, sum_of_exponentials(logits, max), logits[target as usize]);
        }
    });
}

fn check(logits: usize, vocabulary: usize, targets: &[u32], losses: usize) {
    assert!(targets.len() == losses && logits == losses * vocabulary, "cross entropy lengths");
    let valid = |&target: &u32| target == IGNORED_TARGET || (target as usize) < vocabulary;
    assert!(targets.iter().all(valid), "a target lies outside the vocabulary of {vocabulary}");
}

fn loss_of(max: f32, sum: f64, chosen: f32) -> f32 {
    (f64::from(max) - f64::from(chosen) + sum.ln()) as f32
}

/// The largest value; a NaN among them is found later, by the sum.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn maximum(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 32];
    let blocks = values.chunks_exact(32);
    let rest = blocks.remainder();
    for block in blocks {
        for i in 0..32 {
            lanes[i] = if block[i] > lanes[i] { block[i] } else { lanes[i] };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| a.max(b))
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn exponentials_in_place(values: &mut [f32], max: f32) -> f64 {
    let mut total = 0.0;
    for block in values.chunks_mut(SUM_BLOCK) {
        let mut lanes = [0.0f32; 32];
        let mut groups = block.chunks_exact_mut(32);
        for group in groups.by_ref() {
            for i in 0..32 {
                group[i] = exp(group[i] - max);
                lanes[i] += group[i];
            }
        }
        for (value, lane) in groups.into_remainder().iter_mut().zip(&mut lanes) {
            *value = exp(*value - max);
            *lane += *value;
        }
        total += f64::from(sum_lanes(lanes));
    }
    total
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn sum_of_exponentials(values: &[f32], max: f32) -> f64 {
    let mut total = 0.0;
    for block in values.chunks(SUM_BLOCK) {
        let mut lanes = [0.0f32; 32];
        let groups = block.chunks_exact(32);
        let rest = groups.remainder();
        for group in groups {
            for i in 0..32 {
                lanes[i] += exp(group[i] - max);
            }
        }
        for (value, lane) in rest.iter().zip(&mut lanes) {
            *lane += exp(value - max);
        }
        total += f64::from(sum_lanes(lanes));
    }
    total
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn scale_in_place(values: &mut [f32], factor: f32) {
    values.iter_mut().for_each(|value| *value *= factor);
}
