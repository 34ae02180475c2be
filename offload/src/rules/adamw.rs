//! The AdamW update, fused into one pass over its four arrays.
//!
//! In:    parameters, gradients and the two moments, all `f32`; the step, learning rate and gradient scale.
//! Out:   parameters and moments updated in place, with the arithmetic of PyTorch's `torch.optim.AdamW`.
//! Never: lets the number of threads or the way an array is cut into calls change a bit of the result.
//!
//! Source: Loshchilov and Hutter 2017, arXiv:1711.05101; PyTorch 2 `_single_tensor_adamw`. The weight decay comes first,
//! bias corrections are computed in `f64` and folded into two `f32` scalars.

use multiversion::multiversion;

use super::blocks::{Block, TILE, for_each_block};
use super::{Rule, Span, SpanContext, Step, round_to_bf16};

/// The constants of AdamW. PyTorch's defaults are 0.9, 0.999, 1e-8 and 1e-2; here every one is stated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator, after the square root.
    pub epsilon: f64,
    /// Decoupled weight decay: the parameter shrinks by `learning_rate * weight_decay` each step.
    pub weight_decay: f64,
}

/// What one step multiplies by.
#[derive(Clone, Copy)]
pub(super) struct Scalars {
    gradient_scale: f32,
    decay: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    /// `sqrt(1 - beta2^step)`.
    second_correction_root: f32,
    epsilon: f32,
    /// `learning_rate / (1 - beta1^step)`.
    step_size: f32,
}

impl Scalars {
    /// The same step for a tensor with or without weight decay.
    pub fn with_decay(self, decay: bool) -> Scalars {
        // Multiplying by 1 changes no bit.
        Scalars { decay: if decay { self.decay } else { 1.0 }, ..self }
    }
}

impl AdamW {
    pub(super) fn scalars(&self, step: &Step) -> Scalars {
        let correction = |beta: f64| 1.0 - beta.powf(step.number as f64);
        Scalars {
            gradient_scale: step.gradient_scale,
            decay: (1.0 - step.learning_rate * self.weight_decay) as f32,
            one_minus_beta1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            one_minus_beta2: (1.0 - self.beta2) as f32,
            second_correction_root: correction(self.beta2).sqrt() as f32,
            epsilon: self.epsilon as f32,
            step_size: (step.learning_rate / correction(self.beta1)) as f32,
        }
    }
}

/// [`Rule::AdamW`] over one span.
pub(super) fn update_span(adamw: &AdamW, context: &SpanContext<'_>, span: Span<'_>) {
    let scalars = adamw.scalars(&context.step);
    for_each_block(Rule::AdamW(*adamw).states(), context, span, |block| {
        update_block(block, scalars);
    });
}

fn update_block(block: Block<'_>, scalars: Scalars) {
    let scalars = scalars.with_decay(block.decay);
    let Block { parameters, gradients, states: [m, v, ..], working, .. } = block;
    let (m, v): (&mut [f32], &mut [f32]) = (bytemuck::cast_slice_mut(m), bytemuck::cast_slice_mut(v));
    let Some(working) = working else {
        return update_elements(parameters, gradients, m, v, scalars);
    };
    let tiles = parameters.chunks_mut(TILE).zip(gradients.chunks(TILE)).zip(m.chunks_mut(TILE).zip(v.chunks_mut(TILE)));
    for (((p, g), (m, v)), w) in tiles.zip(working.chunks_mut(TILE)) {
        update_elements(p, g, m, v, scalars);
        round_to_bf16(p, w);
    }
}

/// One update of parameter `p` with moments `m` and `v`: plain multiplications and additions, no fused ones, so that the bits are
/// the same on every instruction set.
#[inline(always)]
pub(super) fn update_one(p: &mut f32, g: f32, m: &mut f32, v: &mut f32, s: Scalars) {
    let gradient = g * s.gradient_scale;
    // torch's `lerp`: start + weight * (end - start).
    *m += s.one_minus_beta1 * (gradient - *m);
    *v = *v * s.beta2 + s.one_minus_beta2 * gradient * gradient;
    let denominator = v.sqrt() / s.second_correction_root + s.epsilon;
    *p = *p * s.decay - s.step_size * *m / denominator;
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub(super) fn update_elements(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], s: Scalars) {
    for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
        update_one(p, *g, m, v, s);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::testing::values;
    use super::*;

    const ADAMW: AdamW = AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };
    const LENGTH: usize = 4_321;

    fn update(
        adamw: AdamW,
        number: u64,
        learning_rate: f64,
        gradient_scale: f32,
        [p, m, v]: [&mut [f32]; 3],
        g: &[f32],
    ) {
        let step = Step { number, learning_rate, gradient_scale, seed: 0 };
        update_elements(p, g, m, v, adamw.scalars(&step));
    }

    #[test]
    fn ten_updates_equal_the_same_updates_in_f64() {
        let (mut found, mut m32, mut v32) = (values(LENGTH, 1), vec![0.0; LENGTH], vec![0.0; LENGTH]);
        let (mut m, mut v) = (vec![0.0f64; LENGTH], vec![0.0f64; LENGTH]);
        let mut parameters: Vec<f64> = found.iter().copied().map(f64::from).collect();
        for step in 1..=10u64 {
            let rate = 1e-2 / step as f64;
            update(ADAMW, step, rate, 0.5, [&mut found, &mut m32, &mut v32], &values(LENGTH, 100 + step));
            for (i, g) in values(LENGTH, 100 + step).iter().enumerate() {
                let g = f64::from(*g) * 0.5;
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.95 * v[i] + 0.05 * g * g;
                let (m_hat, v_hat) =
                    (m[i] / (1.0 - 0.9f64.powi(step as i32)), v[i] / (1.0 - 0.95f64.powi(step as i32)));
                parameters[i] -= rate * 0.1 * parameters[i];
                parameters[i] -= rate * m_hat / (v_hat.sqrt() + 1e-8);
            }
        }
        for (i, (f, e)) in found.iter().zip(&parameters).enumerate() {
            assert!((f64::from(*f) - e).abs() < 1e-6, "parameter {i}: {f} instead of {e}");
        }
    }

    #[test]
    fn the_first_step_moves_by_the_learning_rate_against_the_sign_of_the_gradient() {
        let adamw = AdamW { weight_decay: 0.0, ..ADAMW };
        let (mut p, mut m, mut v) = ([1.0f32, 1.0], [0.0f32; 2], [0.0f32; 2]);
        update(adamw, 1, 0.25, 1.0, [&mut p, &mut m, &mut v], &[3.0, -0.2]);
        assert!((p[0] - 0.75).abs() < 1e-6 && (p[1] - 1.25).abs() < 1e-6, "{p:?}");
    }
}
