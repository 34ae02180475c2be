//! Transcendental functions written to vectorise: no branches, no tables, no libm.
//!
//! In:    one `f32`.
//! Out:   one `f32`, within about 2 units in the last place; NaN in, NaN out.
//! Never: depends on the instruction set beyond what fused multiply-add gives everywhere.

/// Below this `exp` returns 0 instead of a denormal.
const EXP_MIN: f32 = -87.336;
/// Above this `exp` returns infinity.
const EXP_MAX: f32 = 88.02;

/// `e^x` (Cephes `expf`: degree 5 after reduction by `ln 2`).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_1e-4_f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_6e-1);
    let p = p.mul_add(r, 5.0e-1);
    let y = p.mul_add(r * r, r) + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    let value = y * power;
    let value = if x > EXP_MAX { f32::INFINITY } else { value };
    if x < EXP_MIN { 0.0 } else { value }
}

/// `1 / (1 + e^-x)` and its complement `1 / (1 + e^x)`, both with full relative precision.
#[inline(always)]
pub fn sigmoid_and_complement(x: f32) -> (f32, f32) {
    let e = exp(-x.abs());
    let large = 1.0 / (1.0 + e);
    let small = e * large;
    if x < 0.0 { (small, large) } else { (large, small) }
}

/// Sums in a fixed order that vectorises: 32 interleaved partial sums, then a fixed tree.
#[inline(always)]
pub fn sum_lanes(mut lanes: [f32; 32]) -> f32 {
    let mut half = 16;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}
