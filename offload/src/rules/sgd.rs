//! Stochastic gradient descent, with or without momentum.
//!
//! In:    parameters, gradients and, with momentum, its buffer, all `f32`.
//! Out:   parameters and buffer updated in place.
//! Never: lets spans or threads change a bit.
//!
//! Source: PyTorch 2 `torch.optim.SGD` with dampening 0 and without Nesterov's variant. Its weight decay is not decoupled: it is added to
//! the gradient and enters the momentum.

use multiversion::multiversion;

use super::blocks::{Block, TILE, for_each_block};
use super::{Rule, Span, SpanContext, round_to_bf16};

/// The constants of gradient descent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Weight of the previous direction; 0 keeps no state.
    pub momentum: f64,
    /// Added to the gradient, times the parameter.
    pub weight_decay: f64,
}

#[derive(Clone, Copy)]
struct Scalars {
    gradient_scale: f32,
    weight_decay: f32,
    momentum: f32,
    learning_rate: f32,
}

/// [`Rule::Sgd`] over one span.
pub(super) fn update_span(sgd: &Sgd, context: &SpanContext<'_>, span: Span<'_>) {
    let scalars = Scalars {
        gradient_scale: context.step.gradient_scale,
        weight_decay: sgd.weight_decay as f32,
        momentum: sgd.momentum as f32,
        learning_rate: context.step.learning_rate as f32,
    };
    for_each_block(Rule::Sgd(*sgd).states(), context, span, |block| update_block(block, scalars));
}

fn update_block(block: Block<'_>, scalars: Scalars) {
    let scalars = Scalars { weight_decay: if block.decay { scalars.weight_decay } else { 0.0 }, ..scalars };
    let Block { parameters, gradients, states: [m, ..], mut working, .. } = block;
    // An empty slice has no alignment, which a cast would miss.
    let m: &mut [f32] = if m.is_empty() { &mut [] } else { bytemuck::cast_slice_mut(m) };
    for (i, (p, g)) in parameters.chunks_mut(TILE).zip(gradients.chunks(TILE)).enumerate() {
        if m.is_empty() {
            update_plain(p, g, scalars);
        } else {
            update_momentum(p, g, &mut m[i * TILE..][..p.len()], scalars);
        }
        if let Some(working) = &mut working {
            round_to_bf16(p, &mut working[i * TILE..][..p.len()]);
        }
    }
}

/// The gradient with its weight decay. Without decay nothing is added: 0 times an infinite parameter would be NaN.
#[inline(always)]
fn decayed(p: f32, g: f32, s: Scalars) -> f32 {
    let gradient = g * s.gradient_scale;
    if s.weight_decay == 0.0 { gradient } else { gradient + s.weight_decay * p }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn update_plain(p: &mut [f32], g: &[f32], s: Scalars) {
    for (p, g) in p.iter_mut().zip(g) {
        *p -= s.learning_rate * decayed(*p, *g, s);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn update_momentum(p: &mut [f32], g: &[f32], m: &mut [f32], s: Scalars) {
    for ((p, g), m) in p.iter_mut().zip(g).zip(m) {
        *m = *m * s.momentum + decayed(*p, *g, s);
        *p -= s.learning_rate * *m;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{GROUP, elements, run, values};
    use super::*;

    #[test]
    fn five_updates_equal_the_same_updates_in_f64_with_and_without_momentum() {
        for momentum in [0.0, 0.9] {
            let found = run(&Rule::Sgd(Sgd { momentum, weight_decay: 0.1 }), 5, GROUP);
            let mut p: Vec<f64> = values(GROUP, 1).into_iter().map(f64::from).collect();
            let mut m = vec![0.0f64; GROUP];
            for step in 1..=5u64 {
                let g = values(GROUP, 100 + step);
                for (i, decay) in elements() {
                    let decay = if decay { 0.1 * p[i] } else { 0.0 };
                    m[i] = momentum * m[i] + f64::from(g[i]) * 0.5 + decay;
                    p[i] -= 1e-2 / step as f64 * m[i];
                }
            }
            for (i, _) in elements() {
                assert!((f64::from(found.parameters[i]) - p[i]).abs() < 1e-6, "momentum {momentum}, parameter {i}");
            }
        }
    }
}
