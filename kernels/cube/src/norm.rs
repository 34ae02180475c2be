//! Root-mean-square norm and its gradients.
//!
//! In:    rows `[t, width]`, a weight `[width]` in f32.
//! Out:   rows, the reciprocal root mean square of each, gradients.
//! Never: reads a row more than twice.

use cubecl::client::Client;
use cubecl::prelude::*;

use crate::launch::{Buffer, Number, UNITS, cover, cubes, launch, sum_over_cube};

#[cube(launch, create_dummy_kernel)]
fn forward<F: Float>(
    x: &[F],
    weight: &[f32],
    y: &mut [F],
    rstd: &mut [f32],
    epsilon: f32,
    #[comptime] width: usize,
    #[define(F)] _number: ElemType,
) {
    let row = CUBE_POS;
    if row >= rstd.len() {
        terminate!();
    }
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let unit = UNIT_POS as usize;
    let start = row * width;
    let mut squares = 0.0f32;
    let mut at = unit;
    while at < width {
        let value = f32::cast_from(x[start + at]);
        squares += value * value;
        at += comptime!(UNITS as usize);
    }
    let mean = sum_over_cube(squares, &mut scratch) / f32::cast_from(width);
    let scale = 1.0f32 / (mean + epsilon).sqrt();
    let mut at = unit;
    while at < width {
        y[start + at] = F::cast_from(f32::cast_from(x[start + at]) * scale * weight[at]);
        at += comptime!(UNITS as usize);
    }
    if unit == 0 {
        rstd[row] = scale;
    }
}

#[cube(launch, create_dummy_kernel)]
fn input_gradient<F: Float>(
    x: &[F],
    weight: &[f32],
    rstd: &[f32],
    dy: &[F],
    dx: &mut [F],
    #[comptime] width: usize,
    #[define(F)] _number: ElemType,
) {
    let row = CUBE_POS;
    if row >= rstd.len() {
        terminate!();
    }
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let unit = UNIT_POS as usize;
    let start = row * width;
    let mut product = 0.0f32;
    let mut at = unit;
    while at < width {
        product += f32::cast_from(x[start + at]) * f32::cast_from(dy[start + at]) * weight[at];
        at += comptime!(UNITS as usize);
    }
    let scale = rstd[row];
    let along = sum_over_cube(product, &mut scratch) * scale * scale / f32::cast_from(width);
    let mut at = unit;
    while at < width {
        let own = f32::cast_from(dy[start + at]) * weight[at];
        dx[start + at] = F::cast_from(scale * (own - f32::cast_from(x[start + at]) * along));
        at += comptime!(UNITS as usize);
    }
}

/// A unit for each column: neighbours read neighbours.
#[cube(launch, create_dummy_kernel)]
fn weight_gradient<F: Float>(x: &[F], rstd: &[f32], dy: &[F], dw: &mut [f32], #[define(F)] _number: ElemType) {
    let column = ABSOLUTE_POS;
    if column >= dw.len() {
        terminate!();
    }
    let width = dw.len();
    let mut sum = 0.0f32;
    let mut row = 0usize;
    while row < rstd.len() {
        let at = row * width + column;
        sum += f32::cast_from(x[at]) * f32::cast_from(dy[at]) * rstd[row];
        row += 1usize;
    }
    dw[column] = sum;
}

/// `y = x * rstd * w` with `rstd = 1 / sqrt(mean(x^2) + epsilon)`; returns both, `rstd` as `[t]` in f32.
///
/// # Panics
/// If sizes disagree: our bug.
pub fn rms_norm(client: &Client, x: &Buffer, weight: &Buffer, epsilon: f32, number: Number) -> (Buffer, Buffer) {
    let width = weight.len();
    let rows = x.len() / width;
    x.expect("rows of a norm", rows * width);
    let (y, rstd) = (Buffer::empty(client, x.len(), number), Buffer::empty(client, rows, Number::F32));
    if rows > 0 {
        let cube = CubeDim::new_1d(UNITS);
        launch!(client, forward, cubes(rows), cube, x, weight, y, rstd, epsilon, width, number.element());
    }
    (y, rstd)
}

/// Gradient of [`rms_norm`] for `x`.
///
/// # Panics
/// If sizes disagree: our bug.
pub fn rms_norm_dx(client: &Client, x: &Buffer, weight: &Buffer, rstd: &Buffer, dy: &Buffer, number: Number) -> Buffer {
    let width = weight.len();
    x.expect("rows of a norm", rstd.len() * width);
    dy.expect("gradients of a norm", x.len());
    let dx = Buffer::empty(client, x.len(), number);
    if !rstd.is_empty() {
        let cube = CubeDim::new_1d(UNITS);
        launch!(client, input_gradient, cubes(rstd.len()), cube, x, weight, rstd, dy, dx, width, number.element());
    }
    dx
}

/// Gradient of [`rms_norm`] for the weight, `[width]` in f32.
///
/// # Panics
/// If sizes disagree: our bug.
pub fn rms_norm_dw(client: &Client, x: &Buffer, rstd: &Buffer, dy: &Buffer, number: Number) -> Buffer {
    let width = x.len() / rstd.len().max(1);
    x.expect("rows of a norm", rstd.len() * width);
    dy.expect("gradients of a norm", x.len());
    let dw = Buffer::empty(client, width, Number::F32);
    if width > 0 {
        let cube = CubeDim::new_1d(UNITS);
        launch!(client, weight_gradient, cover(width), cube, x, rstd, dy, dw, number.element());
    }
    dw
}
