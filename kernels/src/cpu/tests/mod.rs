//! Every kernel against a slow twin in `f64`, on odd shapes, and for one against several threads.
#![allow(clippy::unwrap_used)]

mod attention;
mod pointwise;
mod rows;

use half::bf16;

use super::element::Element;

/// A repeatable stream of numbers.
pub struct Source(pub u64);

impl Source {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Roughly normal values (a sum of four uniform ones), rounded to `E`.
    pub fn values<E: Element>(&mut self, count: usize) -> Vec<E> {
        let uniform = |bits: u64| (bits >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
        (0..count).map(|_| E::from_f32((0..4).map(|_| uniform(self.bits())).sum::<f32>() * 1.7)).collect()
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() >> 33) as usize % end
    }
}

/// The values in `f64`.
pub fn exact<E: Element>(values: &[E]) -> Vec<f64> {
    values.iter().map(|x| f64::from(x.to_f32())).collect()
}

/// Asserts that `found` equals `expected` within `tolerance` times the largest expected magnitude.
#[track_caller]
pub fn assert_close<E: Element>(what: &str, found: &[E], expected: &[f64], tolerance: f64) {
    let size = expected.iter().fold(0.05f64, |a, b| a.max(b.abs()));
    assert_within(what, found, expected, tolerance * size);
}

/// Asserts that `found` equals `expected` within `bound`.
#[track_caller]
pub fn assert_within<E: Element>(what: &str, found: &[E], expected: &[f64], bound: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: lengths");
    for (index, (f, e)) in exact(found).iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= bound, "{what}[{index}]: {f} instead of {e}");
    }
}

/// How far a result stored as `E` may be off, relative to the largest value.
pub fn tolerance<E: Element>() -> f64 {
    if size_of::<E>() == size_of::<bf16>() { 6e-3 } else { 4e-6 }
}

/// Runs `work` on a pool of `threads`.
pub fn with_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}
