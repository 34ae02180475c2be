//! The gated activation of a decoder's MLP, `activation(gate) * up`, forward and backward.
//!
//! In:    the gate and the up projection, same length.
//! Out:   their gated product, and the gradients of both.
//! Never: keeps the activation: the backward recomputes it.
//!
//! Source: Shazeer 2020, arXiv:2002.05202; Hendrycks and Gimpel 2016, arXiv:1606.08415 (the tanh form).

use multiversion::multiversion;
use rayon::prelude::*;

use super::element::Element;
use super::math::sigmoid_and_complement;
use super::parallel::BLOCK;

/// The activation on the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
}

/// What the backward reads.
#[derive(Clone, Copy, Debug)]
pub struct GatedInputs<'a, E> {
    /// The gate projection.
    pub gate: &'a [E],
    /// The up projection.
    pub up: &'a [E],
}

/// Computes `y = activation(gate) * up`.
///
/// # Panics
/// If lengths differ.
pub fn gated_forward<E: Element>(inputs: GatedInputs<'_, E>, kind: Gate, y: &mut [E]) {
    assert!(inputs.gate.len() == inputs.up.len() && inputs.gate.len() == y.len(), "gated lengths");
    let blocks = inputs.gate.par_chunks(BLOCK).zip(inputs.up.par_chunks(BLOCK)).zip(y.par_chunks_mut(BLOCK));
    blocks.for_each(|((gate, up), y)| match kind {
        Gate::Silu => forward_block::<E, false>(gate, up, y),
        Gate::GeluTanh => forward_block::<E, true>(gate, up, y),
    });
}

/// Computes `dgate = dy * up * activation'(gate)` and `dup = dy * activation(gate)`.
///
/// # Panics
/// If lengths differ.
pub fn gated_backward<E: Element>(inputs: GatedInputs<'_, E>, dy: &[E], kind: Gate, dgate: &mut [E], dup: &mut [E]) {
    let length = inputs.gate.len();
    assert!(inputs.up.len() == length && dy.len() == length, "gated lengths");
    assert!(dgate.len() == length && dup.len() == length, "gated gradient lengths");
    let read = inputs.gate.par_chunks(BLOCK).zip(inputs.up.par_chunks(BLOCK)).zip(dy.par_chunks(BLOCK));
    let written = dgate.par_chunks_mut(BLOCK).zip(dup.par_chunks_mut(BLOCK));
    read.zip(written).for_each(|(((gate, up), dy), (dgate, dup))| match kind {
        Gate::Silu => backward_block::<E, false>(GatedInputs { gate, up }, dy, dgate, dup),
        Gate::GeluTanh => backward_block::<E, true>(GatedInputs { gate, up }, dy, dgate, dup),
    });
}

/// The activation and its derivative. `0.5 * (1 + tanh(u))` is `sigmoid(2u)`, so both kinds are `x * sigmoid(z(x))`.
#[inline(always)]
fn activation<const GELU: bool>(x: f32) -> (f32, f32) {
    // 2 * sqrt(2 / pi)
    const SLOPE: f32 = 1.595_769;
    const CUBIC: f32 = 0.044_715;
    let (z, slope) = match GELU {
        true => (SLOPE * x * (CUBIC * x).mul_add(x, 1.0), SLOPE * (3.0 * CUBIC * x).mul_add(x, 1.0)),
        false => (x, 1.0),
    };
    let (sigmoid, complement) = sigmoid_and_complement(z);
    let value = x * sigmoid;
    // For huge |x| the cubic slope overflows while the product of the sigmoids is 0.
    let bend = sigmoid * complement;
    let bend = if bend == 0.0 { 0.0 } else { x * slope * bend };
    (value, sigmoid + bend)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn forward_block<E: Element, const GELU: bool>(gate: &[E], up: &[E], y: &mut [E]) {
    for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
        *y = E::from_f32(activation::<GELU>(gate.to_f32()).0 * up.to_f32());
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn backward_block<E: Element, const GELU: bool>(inputs: GatedInputs<'_, E>, dy: &[E], dgate: &mut [E], dup: &mut [E]) {
    let read = inputs.gate.iter().zip(inputs.up).zip(dy);
    for ((dgate, dup), ((gate, up), dy)) in dgate.iter_mut().zip(dup.iter_mut()).zip(read) {
        let (value, derivative) = activation::<GELU>(gate.to_f32());
        let dy = dy.to_f32();
        *dgate = E::from_f32(dy * up.to_f32() * derivative);
        *dup = E::from_f32(dy * value);
    }
}
