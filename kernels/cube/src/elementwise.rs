//! Rotary embedding and gated activation.
//!
//! In:    rows of heads, angles' cosines and sines; gate and up projections.
//! Out:   rows of the same shape; gradients.
//! Never: keeps an intermediate tensor.
//!
//! Sources: Su et al. 2021, arXiv:2104.09864, in the rotate-half form; Shazeer 2020, arXiv:2002.05202.

use cubecl::client::Client;
use cubecl::prelude::*;

use crate::launch::{Buffer, Number, UNITS, cover, launch};

/// Direction of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// As the model rotates.
    Forward,
    /// Back: what gradients take.
    Inverse,
}

/// Activation of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gate {
    /// `x * sigmoid(x)`
    Silu,
    /// GELU in its tanh form.
    GeluTanh,
}

/// A unit turns one pair.
#[cube(launch, create_dummy_kernel)]
fn rotate<F: Float>(
    x: &[F],
    cos: &[f32],
    sin: &[f32],
    y: &mut [F],
    direction: f32,
    #[comptime] heads: usize,
    #[comptime] half: usize,
    #[define(F)] _number: ElemType,
) {
    let pair = ABSOLUTE_POS;
    if pair >= x.len() / 2usize {
        terminate!();
    }
    let (at, head) = (pair % half, pair / half);
    let angle = head / heads * half + at;
    let first = head * half * 2usize + at;
    let second = first + half;
    let (a, b) = (f32::cast_from(x[first]), f32::cast_from(x[second]));
    let (cosine, sine) = (cos[angle], sin[angle] * direction);
    y[first] = F::cast_from(a * cosine - b * sine);
    y[second] = F::cast_from(b * cosine + a * sine);
}

/// The activation and its derivative.
#[cube]
fn activation(x: f32, #[comptime] gelu: bool) -> (f32, f32) {
    if comptime!(gelu) {
        let root = 0.797_884_6f32;
        let square = x * x;
        // Beyond 10 the tangent is 1 in f32; some devices overflow on the way there.
        let inner = clamp(root * x * (1.0f32 + 0.044_715f32 * square), -10.0f32, 10.0f32);
        let tangent = inner.tanh();
        let slope = root * (1.0f32 + 0.134_145f32 * square);
        let derivative = 0.5f32 * (1.0f32 + tangent) + 0.5f32 * x * (1.0f32 - tangent * tangent) * slope;
        (0.5f32 * x * (1.0f32 + tangent), derivative)
    } else {
        let sigmoid = 1.0f32 / (1.0f32 + (-x).exp());
        (x * sigmoid, sigmoid * (1.0f32 + x * (1.0f32 - sigmoid)))
    }
}

#[cube(launch, create_dummy_kernel)]
fn gate_forward<F: Float>(gate: &[F], up: &[F], y: &mut [F], #[comptime] gelu: bool, #[define(F)] _number: ElemType) {
    let at = ABSOLUTE_POS;
    if at >= y.len() {
        terminate!();
    }
    let (active, _) = activation(f32::cast_from(gate[at]), gelu);
    y[at] = F::cast_from(active * f32::cast_from(up[at]));
}

#[cube(launch, create_dummy_kernel)]
fn gate_backward<F: Float>(
    gate: &[F],
    up: &[F],
    dy: &[F],
    dgate: &mut [F],
    dup: &mut [F],
    #[comptime] gelu: bool,
    #[define(F)] _number: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at >= dup.len() {
        terminate!();
    }
    let (active, derivative) = activation(f32::cast_from(gate[at]), gelu);
    let gradient = f32::cast_from(dy[at]);
    dgate[at] = F::cast_from(gradient * f32::cast_from(up[at]) * derivative);
    dup[at] = F::cast_from(gradient * active);
}

/// Rotates every head of `x` `[t, heads * head_dim]`; `cos`, `sin`: `[t, head_dim / 2]` in f32.
///
/// # Panics
/// If sizes disagree: our bug.
pub fn rotary(
    client: &Client,
    x: &Buffer,
    [cos, sin]: [&Buffer; 2],
    head_dim: usize,
    rotation: Rotation,
    number: Number,
) -> Buffer {
    let y = Buffer::empty(client, x.len(), number);
    if x.is_empty() {
        return y;
    }
    let half = head_dim / 2;
    let tokens = cos.len() / half;
    let heads = x.len() / (tokens * head_dim);
    x.expect("rows of heads", tokens * heads * head_dim);
    sin.expect("sines", cos.len());
    let direction = match rotation {
        Rotation::Forward => 1.0f32,
        Rotation::Inverse => -1.0,
    };
    let cube = CubeDim::new_1d(UNITS);
    launch!(client, rotate, cover(y.len() / 2), cube, x, cos, sin, y, direction, heads, half, number.element());
    y
}

/// `activation(gate) * up`.
///
/// # Panics
/// If sizes disagree: our bug.
pub fn gated(client: &Client, gate: &Buffer, up: &Buffer, kind: Gate, number: Number) -> Buffer {
    up.expect("the up projection", gate.len());
    let y = Buffer::empty(client, gate.len(), number);
    if !y.is_empty() {
        let cube = CubeDim::new_1d(UNITS);
        let gelu = kind == Gate::GeluTanh;
        launch!(client, gate_forward, cover(y.len()), cube, gate, up, y, gelu, number.element(),);
    }
    y
}

/// Gradients of [`gated`] for gate and up.
///
/// # Panics
/// If sizes disagree: our bug.
pub fn gated_backward(client: &Client, [gate, up, dy]: [&Buffer; 3], kind: Gate, number: Number) -> (Buffer, Buffer) {
    up.expect("the up projection", gate.len());
    dy.expect("the gradient", gate.len());
    let (dgate, dup) = (Buffer::empty(client, gate.len(), number), Buffer::empty(client, gate.len(), number));
    if !dup.is_empty() {
        let cube = CubeDim::new_1d(UNITS);
        let gelu = kind == Gate::GeluTanh;
        launch!(client, gate_backward, cover(dup.len()), cube, gate, up, dy, dgate, dup, gelu, number.element(),);
    }
    (dgate, dup)
}
