//! AdamW with bf16 moments that are rounded stochastically.
//!
//! In:    `f32` parameters and gradients, moments as bf16 bit patterns; seed, step, group and element for the random bits.
//! Out:   the same, updated; the parameters move by the moments before they are rounded.
//! Never: draws from a shared generator: the same element of the same step rounds the same way in every span and thread.
//!
//! Rounding to nearest would lose a second moment's changes below one part in 256, beta2 = 0.999 among them; rounding up with the
//! probability of what is cut off keeps the moment right on average (Gupta et al. 2015, arXiv:1502.02551).

use multiversion::multiversion;

use super::adamw::{Scalars, update_one};
use super::blocks::{Block, for_each_block};
use super::round::{mix, random_bits, round_stochastically, widen};
use super::{AdamW, Rule, Span, SpanContext, round_to_bf16};

const BLOCK_256: usize = 256;

/// [`Rule::AdamWBf16`] over one span.
pub(super) fn update_span(adamw: &AdamW, context: &SpanContext<'_>, span: Span<'_>) {
    let scalars = adamw.scalars(&context.step);
    let key = mix(mix(mix(context.step.seed) ^ context.step.number) ^ context.key);
    for_each_block(Rule::AdamWBf16(*adamw).states(), context, span, |block| update_block(block, scalars, key));
}

fn update_block(block: Block<'_>, scalars: Scalars, key: u64) {
    let scalars = scalars.with_decay(block.decay);
    let Block { first_element, parameters, gradients, states: [m, v, ..], mut working, .. } = block;
    let (m, v): (&mut [u16], &mut [u16]) = (bytemuck::cast_slice_mut(m), bytemuck::cast_slice_mut(v));
    let (p, _) = parameters.as_chunks_mut::<BLOCK_256>();
    let (g, _) = gradients.as_chunks::<BLOCK_256>();
    let ((m, _), (v, _)) = (m.as_chunks_mut::<BLOCK_256>(), v.as_chunks_mut::<BLOCK_256>());
    let first_block = first_element / BLOCK_256 as u64;
    for (i, ((p, g), (m, v))) in p.iter_mut().zip(g).zip(m.iter_mut().zip(v)).enumerate() {
        update_256(p, g, (m, v), scalars, mix(key ^ (first_block + i as u64)) as u32);
        if let Some(working) = &mut working {
            round_to_bf16(p, &mut working[i * BLOCK_256..][..BLOCK_256]);
        }
    }
}

/// The moments of 256 parameters, bf16 bit patterns.
type Moments<'a> = (&'a mut [u16; BLOCK_256], &'a mut [u16; BLOCK_256]);

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn update_256(p: &mut [f32; BLOCK_256], g: &[f32; BLOCK_256], moments: Moments<'_>, s: Scalars, key: u32) {
    let (m_bf16, v_bf16) = moments;
    for i in 0..BLOCK_256 {
        let (mut m, mut v) = (widen(m_bf16[i]), widen(v_bf16[i]));
        update_one(&mut p[i], g[i], &mut m, &mut v, s);
        // One hash serves both moments: its two halves are independent.
        let random = random_bits(key, i as u32);
        m_bf16[i] = round_stochastically(m, random & 0xffff);
        v_bf16[i] = round_stochastically(v, random >> 16);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{GROUP, elements, run_with_seed, values};
    use super::*;

    const ADAMW: AdamW = AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };

    #[test]
    fn moments_stay_within_their_roundings_of_the_updates_in_f64() {
        let found = run_with_seed(&Rule::AdamWBf16(ADAMW), 5, GROUP, 7);
        let mut p: Vec<f64> = values(GROUP, 1).into_iter().map(f64::from).collect();
        let (mut m, mut v) = (vec![0.0f64; GROUP], vec![0.0f64; GROUP]);
        for step in 1..=5u64 {
            let (g, rate) = (values(GROUP, 100 + step), 1e-2 / step as f64);
            for (i, decay) in elements() {
                let g = f64::from(g[i]) * 0.5;
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.95 * v[i] + 0.05 * g * g;
                let (m_hat, v_hat) =
                    (m[i] / (1.0 - 0.9f64.powi(step as i32)), v[i] / (1.0 - 0.95f64.powi(step as i32)));
                p[i] -= if decay { rate * 0.1 * p[i] } else { 0.0 };
                p[i] -= rate * m_hat / (v_hat.sqrt() + 1e-8);
            }
        }
        let found_v: &[u16] = bytemuck::cast_slice(&found.states[1]);
        let mut bias = 0.0;
        for (i, _) in elements() {
            // Five roundings of at most one part in 128 each.
            assert!((f64::from(widen(found_v[i])) - v[i]).abs() <= 5.0 / 128.0 * v[i], "second moment {i}");
            assert!((f64::from(found.parameters[i]) - p[i]).abs() < 2e-3, "{i}: {} not {}", found.parameters[i], p[i]);
            bias += f64::from(widen(found_v[i])) / v[i] - 1.0;
        }
        assert!((bias / GROUP as f64).abs() < 2e-4, "stochastic rounding is right on average: {}", bias / GROUP as f64);
    }

    #[test]
    fn another_seed_rounds_otherwise_and_the_same_seed_the_same() {
        let states = |seed| run_with_seed(&Rule::AdamWBf16(ADAMW), 2, GROUP, seed).states;
        assert!(states(1) == states(1) && states(1) != states(2));
    }
}
