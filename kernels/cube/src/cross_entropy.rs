//! Softmax cross-entropy of rows of logits, and its gradient in their place.
//!
//! In:    logits `[rows, vocabulary]`, a target for each row.
//! Out:   each row's loss in f32; the logits, turned into their gradient.
//! Never: needs memory besides: what a chunk of the head's product gave is what its gradient takes.

use cubecl::client::Client;
use cubecl::prelude::*;

use crate::launch::{Buffer, Number, UNITS, cubes, launch, max_over_cube, sum_over_cube};

#[cube(launch, create_dummy_kernel)]
fn rows_loss<F: Float>(
    logits: &mut [F],
    targets: &[u32],
    losses: &mut [f32],
    scale: f32,
    #[comptime] gradient: bool,
    #[define(F)] _number: ElemType,
) {
    let row = CUBE_POS;
    if row >= losses.len() {
        terminate!();
    }
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let width = logits.len() / losses.len();
    let start = row * width;
    let unit = UNIT_POS as usize;
    let target = usize::cast_from(targets[row]);
    let mut largest = f32::cast_from(logits[start]);
    let mut at = unit;
    while at < width {
        largest = max(largest, f32::cast_from(logits[start + at]));
        at += comptime!(UNITS as usize);
    }
    let largest = max_over_cube(largest, &mut scratch);
    let mut exponentials = 0.0f32;
    let mut at = unit;
    while at < width {
        exponentials += (f32::cast_from(logits[start + at]) - largest).exp();
        at += comptime!(UNITS as usize);
    }
    let sum = sum_over_cube(exponentials, &mut scratch);
    if unit == 0 {
        losses[row] = largest + sum.ln() - f32::cast_from(logits[start + target]);
    }
    if comptime!(gradient) {
        // The target's logit has been read by now.
        sync_cube();
        let mut at = unit;
        while at < width {
            let mut probability = (f32::cast_from(logits[start + at]) - largest).exp() / sum;
            if at == target {
                probability -= 1.0f32;
            }
            logits[start + at] = F::cast_from(probability * scale);
            at += comptime!(UNITS as usize);
        }
    }
}

/// Losses of the rows, `[rows]` in f32; with a scale, `logits` become their gradient times it.
///
/// # Panics
/// If sizes disagree: our bug.
pub fn cross_entropy(client: &Client, logits: &Buffer, targets: &Buffer, scale: Option<f32>, number: Number) -> Buffer {
    let rows = targets.len();
    let losses = Buffer::empty(client, rows, Number::F32);
    if rows > 0 {
        assert!(logits.len().is_multiple_of(rows) && !logits.is_empty(), "whole rows of logits");
        let cube = CubeDim::new_1d(UNITS);
        let (factor, gradient) = (scale.unwrap_or(0.0), scale.is_some());
        launch!(client, rows_loss, cubes(rows), cube, logits, targets, losses, factor, gradient, number.element(),);
    }
    losses
}
