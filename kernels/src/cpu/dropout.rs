//! Dropout whose mask is a function of a seed, a stream and the position of an element.
//!
//! In:    values, the probability of dropping, a seed and a stream (unique for each layer, step and use).
//! Out:   `x / (1 - probability)` where kept, else 0. The same call on the gradient is the backward.
//! Never: keeps a mask or a generator state.
//!
//! Source: Steele et al. 2014, "Fast Splittable Pseudorandom Number Generators" (the SplitMix64 finaliser); each 64-bit
//! output serves two elements.

use multiversion::multiversion;
use rayon::prelude::*;

use super::element::Element;
use super::parallel::BLOCK;

/// 2^64 divided by the golden ratio: SplitMix64's step.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Elements that share half as many random numbers: number `i` serves elements `i` and `i + GROUP / 2`.
const GROUP: usize = 64;

/// Which mask a call draws.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of dropping an element, in `0.0 .. 1.0`.
    pub probability: f32,
    /// The run's seed.
    pub seed: u64,
    /// Distinguishes uses under one seed.
    pub stream: u64,
}

impl Dropout {
    /// Applies the mask to `x`.
    ///
    /// # Panics
    /// If lengths differ or the probability is outside `0.0 .. 1.0`: recipes are checked before they get here.
    pub fn apply<E: Element>(&self, x: &[E], y: &mut [E]) {
        assert_eq!(x.len(), y.len(), "dropout lengths");
        assert!((0.0..1.0).contains(&self.probability), "dropout probability {}", self.probability);
        let key = finalise(self.seed ^ finalise(self.stream.wrapping_add(STEP)));
        let threshold = (f64::from(self.probability) * 4_294_967_296.0) as u32;
        let factor = 1.0 / (1.0 - self.probability);
        let blocks = x.par_chunks(BLOCK).zip(y.par_chunks_mut(BLOCK)).enumerate();
        blocks.for_each(|(index, (x, y))| {
            let first = (index * BLOCK / 2) as u64;
            block(x, key.wrapping_add(first.wrapping_mul(STEP)), threshold, factor, y);
        });
    }
}

#[inline(always)]
fn finalise(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn block<E: Element>(x: &[E], counter: u64, threshold: u32, factor: f32, y: &mut [E]) {
    for (index, (x, y)) in x.chunks(GROUP).zip(y.chunks_mut(GROUP)).enumerate() {
        let first = counter.wrapping_add(((index * GROUP / 2) as u64).wrapping_mul(STEP));
        let mut kept = [0u32; GROUP];
        let (low, high) = kept.split_at_mut(GROUP / 2);
        for i in 0..GROUP / 2 {
            let random = finalise(first.wrapping_add((i as u64 + 1).wrapping_mul(STEP)));
            low[i] = u32::from(random as u32 >= threshold).wrapping_neg();
            high[i] = u32::from((random >> 32) as u32 >= threshold).wrapping_neg();
        }
        for ((y, x), kept) in y.iter_mut().zip(x).zip(&kept) {
            *y = E::from_f32(f32::from_bits((x.to_f32() * factor).to_bits() & kept));
        }
    }
}
