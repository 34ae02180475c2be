//! A row added to every row, and its gradient.
//!
//! Shape letters: `t` tokens, `w` width (the length of the bias). All arrays are row-major.
//!
//! In:    `x_tw`, a row of `w` elements.
//! Out:   `y_tw = x + row`, rounded once; column sums in `f32`.
//! Never: sums in an order that depends on the number of threads.

use multiversion::multiversion;
use rayon::prelude::*;

use super::element::Element;
use super::parallel::rows_per_block;
use super::scratch::with_floats;

/// Rows whose columns are summed before the sums are added up, in ascending order.
const BLOCK_ROWS: usize = 64;

/// Writes `y = x + row`, row by row.
///
/// # Panics
/// If lengths disagree.
pub fn add_row<E: Element>(x_tw: &[E], row_w: &[E], y_tw: &mut [E]) {
    let width = row_w.len();
    assert!(width > 0 && x_tw.len() == y_tw.len() && x_tw.len().is_multiple_of(width), "bias lengths");
    let span = rows_per_block(width) * width;
    x_tw.par_chunks(span).zip(y_tw.par_chunks_mut(span)).for_each(|(x, y)| add_row_block(x, row_w, y));
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn add_row_block<E: Element>(x: &[E], row: &[E], y: &mut [E]) {
    for (x, y) in x.chunks_exact(row.len()).zip(y.chunks_exact_mut(row.len())) {
        for ((y, x), b) in y.iter_mut().zip(x).zip(row) {
            *y = E::from_f32(x.to_f32() + b.to_f32());
        }
    }
}

/// Overwrites `sums` with the sum of every column: the gradient of a bias.
///
/// # Panics
/// If lengths disagree.
pub fn column_sums<E: Element>(dy_tw: &[E], sums_w: &mut [f32]) {
    let width = sums_w.len();
    assert!(width > 0 && dy_tw.len().is_multiple_of(width), "bias lengths");
    let span = BLOCK_ROWS * width;
    with_floats(dy_tw.len().div_ceil(span) * width, |partial| {
        partial.fill(0.0);
        let tasks = dy_tw.par_chunks(span).zip(partial.par_chunks_mut(width));
        tasks.for_each(|(dy, sums)| add_rows(dy, sums));
        sums_w.fill(0.0);
        add_rows(partial, sums_w);
    });
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn add_rows<E: Element>(rows: &[E], sums: &mut [f32]) {
    for row in rows.chunks_exact(sums.len()) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value.to_f32();
        }
    }
}
