//! Sums and multiples of whole arrays.
//!
//! In:    arrays of one length.
//! Out:   each element from the elements at the same place, rounded once.
//! Never: reads an element twice from memory.

use multiversion::multiversion;
use rayon::prelude::*;

use super::element::Element;
use super::parallel::BLOCK;

/// Computes `target += source`.
///
/// # Panics
/// If lengths differ.
pub fn add_in_place<E: Element>(target: &mut [E], source: &[E]) {
    add_scaled_in_place(target, source, 1.0);
}

/// Computes `target += source * factor`.
///
/// # Panics
/// If lengths differ.
pub fn add_scaled_in_place<E: Element>(target: &mut [E], source: &[E], factor: f32) {
    assert_eq!(target.len(), source.len(), "lengths of a sum");
    let blocks = target.par_chunks_mut(BLOCK).zip(source.par_chunks(BLOCK));
    blocks.for_each(|(target, source)| add_scaled_block(target, source, factor));
}

/// Computes `target *= factor`.
pub fn scale_in_place<E: Element>(target: &mut [E], factor: f32) {
    target.par_chunks_mut(BLOCK).for_each(|target| scale_block(target, factor));
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn add_scaled_block<E: Element>(target: &mut [E], source: &[E], factor: f32) {
    for (t, s) in target.iter_mut().zip(source) {
        *t = E::from_f32(s.to_f32().mul_add(factor, t.to_f32()));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn scale_block<E: Element>(target: &mut [E], factor: f32) {
    for t in target {
        *t = E::from_f32(t.to_f32() * factor);
    }
}
