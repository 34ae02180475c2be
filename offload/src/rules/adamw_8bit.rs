//! AdamW with moments of 8 bits, quantised in blocks of 256 elements.
//!
//! In:    parameters, gradients, and for each moment 256 codes and one `f32` magnitude a block.
//! Out:   the same, updated; the parameters move by the moments before they are rounded to codes.
//! Never: sees less than a whole block of 256, so spans cannot change a code.
//!
//! Source: Dettmers et al. 2021, arXiv:2110.02861; bitsandbytes' `Adam8bit` with block-wise states. Differs from its CUDA kernel in one
//! point: a tiny first moment may round to zero, there it keeps the smallest code of its sign.

use multiversion::multiversion;

use super::adamw::{Scalars, update_one};
use super::blocks::{Block, for_each_block};
use super::dynamic_map::Quantizer;
use super::{AdamW, Rule, Span, SpanContext, round_to_bf16};

const BLOCK_256: usize = 256;

/// [`Rule::AdamW8bit`] over one span.
pub(super) fn update_span(adamw: &AdamW, context: &SpanContext<'_>, span: Span<'_>) {
    let scalars = adamw.scalars(&context.step);
    for_each_block(Rule::AdamW8bit(*adamw).states(), context, span, |block| update_block(block, scalars));
}

fn update_block(block: Block<'_>, scalars: Scalars) {
    let scalars = scalars.with_decay(block.decay);
    let Block { parameters, gradients, states: [m, m_absmax, v, v_absmax], mut working, .. } = block;
    let m_absmax: &mut [f32] = bytemuck::cast_slice_mut(m_absmax);
    let v_absmax: &mut [f32] = bytemuck::cast_slice_mut(v_absmax);
    let (p, _) = parameters.as_chunks_mut::<BLOCK_256>();
    let (g, _) = gradients.as_chunks::<BLOCK_256>();
    let ((m, _), (v, _)) = (m.as_chunks_mut::<BLOCK_256>(), v.as_chunks_mut::<BLOCK_256>());
    let moments = m.iter_mut().zip(m_absmax).zip(v.iter_mut().zip(v_absmax));
    for (i, ((p, g), ((m, m_absmax), (v, v_absmax)))) in p.iter_mut().zip(g).zip(moments).enumerate() {
        let moments = Codes { first: m, first_absmax: m_absmax, second: v, second_absmax: v_absmax };
        update_256(p, g, moments, scalars);
        if let Some(working) = &mut working {
            round_to_bf16(p, &mut working[i * BLOCK_256..][..BLOCK_256]);
        }
    }
}

/// The quantised moments of 256 parameters.
struct Codes<'a> {
    first: &'a mut [u8; BLOCK_256],
    first_absmax: &'a mut f32,
    second: &'a mut [u8; BLOCK_256],
    second_absmax: &'a mut f32,
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn update_256(p: &mut [f32; BLOCK_256], g: &[f32; BLOCK_256], codes: Codes<'_>, s: Scalars) {
    let (signed, unsigned) = (Quantizer::signed(), Quantizer::unsigned());
    let mut m: [f32; BLOCK_256] =
        std::array::from_fn(|i| signed.map[usize::from(codes.first[i])] * *codes.first_absmax);
    let mut v: [f32; BLOCK_256] =
        std::array::from_fn(|i| unsigned.map[usize::from(codes.second[i])] * *codes.second_absmax);
    for (((p, g), m), v) in p.iter_mut().zip(g).zip(&mut m).zip(&mut v) {
        update_one(p, *g, m, v, s);
    }
    *codes.first_absmax = quantize(signed, &mut m, codes.first);
    *codes.second_absmax = quantize(unsigned, &mut v, codes.second);
}

/// Writes the codes of `values` and returns their largest magnitude: NaN if one is NaN.
#[inline(always)]
fn quantize(quantizer: &Quantizer, values: &mut [f32; BLOCK_256], codes: &mut [u8; BLOCK_256]) -> f32 {
    // As integers, magnitudes compare like numbers, and NaN is above infinity.
    let largest = values.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff));
    let absmax = f32::from_bits(largest);
    let divisor = if absmax == 0.0 { 1.0 } else { absmax };
    for value in values.iter_mut() {
        *value /= divisor;
    }
    quantizer.codes(values, codes);
    absmax
}

#[cfg(test)]
mod tests {
    use super::super::dynamic_map;
    use super::super::testing::{GROUP, elements, run, values};
    use super::*;

    const ADAMW: AdamW = AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };

    fn requantize(values: &mut [f64], map: &[f32; 256]) {
        for block in values.chunks_mut(256) {
            let absmax = block.iter().fold(0.0f64, |a, b| a.max(b.abs()));
            for value in block.iter_mut().filter(|_| absmax > 0.0) {
                let distance = |entry: &f32| (f64::from(*entry) - *value / absmax).abs();
                let nearest = map.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
                *value = f64::from(*nearest.unwrap_or(&0.0)) * absmax;
            }
        }
    }

    #[test]
    fn three_updates_equal_the_same_updates_in_f64_but_for_values_between_two_codes() {
        let found = run(&Rule::AdamW8bit(ADAMW), 3, GROUP);
        let mut p: Vec<f64> = values(GROUP, 1).into_iter().map(f64::from).collect();
        let (mut m, mut v) = (vec![0.0f64; GROUP], vec![0.0f64; GROUP]);
        let mut off = 0;
        for step in 1..=3 {
            let g = values(GROUP, 100 + step);
            for (i, decay) in elements() {
                let g = f64::from(g[i]) * 0.5;
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.95 * v[i] + 0.05 * g * g;
                let (m_hat, v_hat) =
                    (m[i] / (1.0 - 0.9f64.powi(step as i32)), v[i] / (1.0 - 0.95f64.powi(step as i32)));
                p[i] -= if decay { 1e-2 / step as f64 * 0.1 * p[i] } else { 0.0 };
                p[i] -= 1e-2 / step as f64 * m_hat / (v_hat.sqrt() + 1e-8);
            }
            requantize(&mut m, &dynamic_map(true));
            requantize(&mut v, &dynamic_map(false));
        }
        for (i, _) in elements() {
            let difference = (f64::from(found.parameters[i]) - p[i]).abs();
            off += usize::from(difference > 1e-6);
            assert!(difference < 5e-3, "parameter {i}: {} instead of {}", found.parameters[i], p[i]);
        }
        // A moment that lies within an f32 rounding of a border may take the other code.
        assert!(off * 1000 < GROUP, "{off} of {GROUP} parameters differ");
    }

    #[test]
    fn a_nan_gradient_spoils_its_block_of_256_and_no_other() {
        let (mut p, mut g) = (vec![1.0f32; 512], vec![0.5f32; 512]);
        g[3] = f32::NAN;
        let (mut codes, mut absmax) = ([vec![0u8; 512], vec![0u8; 512]], [vec![0.0f32; 2], vec![0.0f32; 2]]);
        for _ in 0..2 {
            let [m, v] = &mut codes;
            let [m_absmax, v_absmax] = &mut absmax;
            let states =
                vec![&mut m[..], bytemuck::cast_slice_mut(m_absmax), &mut v[..], bytemuck::cast_slice_mut(v_absmax)];
            let span = Span { first_element: 0, parameters: &mut p, gradients: &g, states, working: None };
            let step = super::super::Step { number: 1, learning_rate: 0.1, gradient_scale: 1.0, seed: 0 };
            Rule::AdamW8bit(ADAMW).update_span(&SpanContext { slots: &[], key: 0, step }, span);
        }
        assert!(absmax[0][0].is_nan() && p[..256].iter().all(|p| p.is_nan()));
        assert!(p[256..].iter().all(|p| p.is_finite()));
    }
}
