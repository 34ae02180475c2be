//! Sums of squares in `f64`, in an order that neither threads nor the cutting into spans can change.
//!
//! In:    `f32` values.
//! Out:   the sum of their squares.
//! Never: lets scheduling decide an order of additions.

use multiversion::multiversion;
use rayon::prelude::*;

/// Blocks of 256 that a thread sums at a time.
const BLOCKS_A_THREAD: usize = 64;

/// The sum of squares, block by block of 256 elements in ascending order.
///
/// Norms of several arrays add up: the global norm is the root of the sum of these, taken in a fixed order of arrays.
/// Spans of multiples of 256 elements give the same sum when the sums of their blocks are added in ascending order.
pub fn squared_norm_by_256(values: &[f32]) -> f64 {
    norms_of_256(values).iter().fold(0.0, |sum, block| sum + block)
}

/// The sums of squares of each 256 elements.
pub(crate) fn norms_of_256(values: &[f32]) -> Vec<f64> {
    let mut norms = vec![0.0; values.len().div_ceil(256)];
    let pieces = norms.par_chunks_mut(BLOCKS_A_THREAD).zip(values.par_chunks(256 * BLOCKS_A_THREAD));
    pieces.for_each(|(norms, values)| {
        for (norm, values) in norms.iter_mut().zip(values.chunks(256)) {
            *norm = squared_norm_of_block(values);
        }
    });
    norms
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn squared_norm_of_block(values: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 16];
    let groups = values.chunks_exact(16);
    for (lane, value) in lanes.iter_mut().zip(groups.remainder()) {
        *lane += f64::from(*value) * f64::from(*value);
    }
    for group in groups {
        for i in 0..16 {
            lanes[i] += f64::from(group[i]) * f64::from(group[i]);
        }
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::super::testing::values;
    use super::*;

    #[test]
    fn the_squared_norm_equals_the_plain_sum() {
        for length in [0, 1, 17, 16_384, 53_473] {
            let x = values(length, 9);
            let plain: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            assert!((squared_norm_by_256(&x) - plain).abs() <= 1e-12 * plain, "{length}");
        }
        assert!(squared_norm_by_256(&[1.0, f32::NAN]).is_nan());
    }

    #[test]
    fn sums_of_256_add_up_to_the_same_bits_for_every_span() {
        let x = values(256 * 500, 3);
        for span in [256, 256 * 7, 256 * 64] {
            let sum = x.chunks(span).flat_map(norms_of_256).fold(0.0, |sum, block| sum + block);
            assert_eq!(sum.to_bits(), squared_norm_by_256(&x).to_bits(), "spans of {span}");
        }
    }
}
