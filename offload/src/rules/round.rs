//! Rounding `f32` to bf16: to nearest for the copy that computes, stochastically for optimizer states.
//!
//! In:    values; for stochastic rounding 16 random bits each.
//! Out:   bf16 bit patterns; NaN stays NaN, infinity stays infinity.
//! Never: draws its own random numbers from a shared source: they are a function of where the value is.

use multiversion::multiversion;

/// Rounds `values` to bf16, ties to even, as PyTorch and the hardware do.
///
/// # Panics
/// If the lengths differ: our bug.
pub fn round_to_bf16(values: &[f32], out: &mut [u16]) {
    assert_eq!(values.len(), out.len(), "values and their bf16 copies");
    round(values, out);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn round(values: &[f32], out: &mut [u16]) {
    for (value, out) in values.iter().zip(out) {
        let bits = value.to_bits();
        let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        *out = (if value.is_nan() { bits | 0x0040_0000 } else { nearest } >> 16) as u16;
    }
}

/// The value of a bf16 bit pattern.
#[inline(always)]
pub(crate) fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Rounds up with the probability of the part cut off. `random` is uniform below 65536.
#[inline(always)]
pub(crate) fn round_stochastically(value: f32, random: u32) -> u16 {
    let bits = value.to_bits();
    // Infinity and NaN have a full exponent; adding would turn one into the other.
    let special = bits & 0x7f80_0000 == 0x7f80_0000;
    let quiet = if value.is_nan() { bits | 0x0040_0000 } else { bits };
    (if special { quiet } else { bits.wrapping_add(random) } >> 16) as u16
}

/// A 64-bit mixing step (splitmix64's finaliser).
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// 32 random bits for element `i` of 256 under `key` (Wellons' `lowbias32`).
#[inline(always)]
pub(crate) fn random_bits(key: u32, i: u32) -> u32 {
    let mut x = key.wrapping_add(i.wrapping_mul(0x9e37_79b9));
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_to_nearest_is_that_of_the_half_crate_for_every_upper_half_and_kind_of_tail() {
        let tails = [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
        let bits = (0..=0xffffu32).flat_map(|high| tails.map(|tail| high << 16 | tail));
        let values: Vec<f32> = bits.map(f32::from_bits).collect();
        let mut found = vec![0; values.len()];
        round_to_bf16(&values, &mut found);
        for (value, found) in values.iter().zip(&found) {
            assert_eq!(*found, half::bf16::from_f32(*value).to_bits(), "{:08x}", value.to_bits());
        }
    }

    #[test]
    fn stochastic_rounding_is_right_on_average_and_exact_where_nothing_is_cut_off() {
        let value = f32::from_bits(0x3f80_4000); // a quarter of the way from 1 to the next bf16
        let up = (0..65_536).filter(|i| round_stochastically(value, random_bits(77, *i) & 0xffff) == 0x3f81).count();
        assert!((up as f64 / 65_536.0 - 0.25).abs() < 0.01, "{up}");
        for random in [0, 1, 0xffff] {
            assert_eq!(round_stochastically(1.0, random), 0x3f80);
            assert_eq!(round_stochastically(0.0, random), 0);
            assert_eq!(round_stochastically(f32::NEG_INFINITY, random), 0xff80);
            assert!(widen(round_stochastically(f32::NAN, random)).is_nan());
            assert!(widen(round_stochastically(f32::from_bits(0x7f80_0001), random)).is_nan());
        }
    }
}
