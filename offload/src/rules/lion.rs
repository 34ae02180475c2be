//! Lion: the sign of an interpolated momentum.
//!
//! In:    parameters, gradients and one momentum, all `f32`.
//! Out:   parameters and momentum updated in place.
//! Never: lets spans or threads change a bit.
//!
//! Source: Chen et al. 2023, arXiv:2302.06675, algorithm 2. The weight decay is decoupled; the sign of 0 is 0.

use multiversion::multiversion;

use super::blocks::{Block, TILE, for_each_block};
use super::{Rule, Span, SpanContext, round_to_bf16};

/// The constants of Lion. The paper's defaults are 0.9 and 0.99; its weight decay is 3 to 10 times AdamW's, its learning rate as much
/// smaller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lion {
    /// Weight of the momentum in the direction.
    pub beta1: f64,
    /// Decay of the momentum.
    pub beta2: f64,
    /// Decoupled weight decay: the parameter shrinks by `learning_rate * weight_decay` each step.
    pub weight_decay: f64,
}

#[derive(Clone, Copy)]
struct Scalars {
    gradient_scale: f32,
    decay: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    learning_rate: f32,
}

/// [`Rule::Lion`] over one span.
pub(super) fn update_span(lion: &Lion, context: &SpanContext<'_>, span: Span<'_>) {
    let step = &context.step;
    let scalars = Scalars {
        gradient_scale: step.gradient_scale,
        decay: (1.0 - step.learning_rate * lion.weight_decay) as f32,
        beta1: lion.beta1 as f32,
        one_minus_beta1: (1.0 - lion.beta1) as f32,
        beta2: lion.beta2 as f32,
        one_minus_beta2: (1.0 - lion.beta2) as f32,
        learning_rate: step.learning_rate as f32,
    };
    for_each_block(Rule::Lion(*lion).states(), context, span, |block| update_block(block, scalars));
}

fn update_block(block: Block<'_>, scalars: Scalars) {
    let scalars = Scalars { decay: if block.decay { scalars.decay } else { 1.0 }, ..scalars };
    let Block { parameters, gradients, states: [m, ..], mut working, .. } = block;
    let m: &mut [f32] = bytemuck::cast_slice_mut(m);
    for (i, ((p, g), m)) in parameters.chunks_mut(TILE).zip(gradients.chunks(TILE)).zip(m.chunks_mut(TILE)).enumerate()
    {
        update_elements(p, g, m, scalars);
        if let Some(working) = &mut working {
            round_to_bf16(p, &mut working[i * TILE..][..p.len()]);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn update_elements(p: &mut [f32], g: &[f32], m: &mut [f32], s: Scalars) {
    for ((p, g), m) in p.iter_mut().zip(g).zip(m) {
        let gradient = g * s.gradient_scale;
        let direction = s.beta1 * *m + s.one_minus_beta1 * gradient;
        // `signum` of 0 is 1; here it is 0, and NaN stays NaN.
        let sign = if direction == 0.0 { 0.0 } else { direction.signum() };
        *p = *p * s.decay - s.learning_rate * sign;
        *m = s.beta2 * *m + s.one_minus_beta2 * gradient;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{GROUP, elements, run, values};
    use super::*;

    #[test]
    fn five_updates_equal_the_same_updates_in_f64() {
        let lion = Lion { beta1: 0.9, beta2: 0.99, weight_decay: 0.3 };
        let found = run(&Rule::Lion(lion), 5, GROUP);
        let mut p: Vec<f64> = values(GROUP, 1).into_iter().map(f64::from).collect();
        let (mut m, mut close) = (vec![0.0f64; GROUP], vec![false; GROUP]);
        for step in 1..=5u64 {
            let (g, rate) = (values(GROUP, 100 + step), 1e-2 / step as f64);
            for (i, decay) in elements() {
                let g = f64::from(g[i]) * 0.5;
                let direction = 0.9 * m[i] + 0.1 * g;
                close[i] |= direction.abs() < 1e-7;
                p[i] -= if decay { rate * 0.3 * p[i] } else { 0.0 };
                p[i] -= rate * direction.signum();
                m[i] = 0.99 * m[i] + 0.01 * g;
            }
        }
        assert!(close.iter().filter(|close| **close).count() < 10);
        for (i, _) in elements().filter(|(i, _)| !close[*i]) {
            assert!((f64::from(found.parameters[i]) - p[i]).abs() < 1e-6, "{i}: {} not {}", found.parameters[i], p[i]);
        }
    }
}
