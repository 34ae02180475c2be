//! The two storage types of the CPU kernels and their conversions.
//!
//! In:    values stored as `f32` or `bf16`.
//! Out:   `f32` for arithmetic, and back with round-to-nearest-even.
//! Never: allocates, branches on data (so that the loops vectorise).

use half::bf16;
use multiversion::multiversion;

/// A type tensors are stored in. Arithmetic is always done in `f32`.
pub trait Element: Copy + Send + Sync + Default + 'static {
    /// The exact value.
    fn to_f32(self) -> f32;
    /// The nearest storable value, ties to even; a NaN stays a NaN.
    fn from_f32(value: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        // Adding 0x7fff plus the lowest kept bit rounds to nearest, ties to even; the carry reaches infinity correctly.
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        // Selected with a mask: a branch here keeps loops from vectorising.
        let nan = u32::from(bits & 0x7fff_ffff > 0x7f80_0000).wrapping_neg();
        let quiet_nan = (bits >> 16) | 0x40;
        bf16::from_bits(((rounded & !nan) | (quiet_nan & nan)) as u16)
    }
}

/// Copies `source` into `target` as `f32`.
///
/// # Panics
/// If the lengths differ.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn widen<E: Element>(source: &[E], target: &mut [f32]) {
    assert_eq!(source.len(), target.len(), "widen: lengths differ");
    for (t, s) in target.iter_mut().zip(source) {
        *t = s.to_f32();
    }
}

/// Copies `source` into `target`, rounding to the nearest storable value.
///
/// # Panics
/// If the lengths differ.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn narrow<E: Element>(source: &[f32], target: &mut [E]) {
    assert_eq!(source.len(), target.len(), "narrow: lengths differ");
    for (t, s) in target.iter_mut().zip(source) {
        *t = E::from_f32(*s);
    }
}
