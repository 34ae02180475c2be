//! Rotary position embedding, rotate-half layout (Hugging Face), not interleaved.
//!
//! Shape letters: `t` tokens, `h` heads, `d` head width, `r` = `d / 2`. All arrays are row-major.
//!
//! In:    `x_thd` and the tables `cos_tr`, `sin_tr`, one row a token (so packed segments restart at position 0).
//! Out:   every head rotated; the inverse rotation is the backward.
//! Never: computes angles.
//!
//! Source: Su et al. 2021, arXiv:2104.09864.

use multiversion::multiversion;
use rayon::prelude::*;

use super::element::Element;
use super::parallel::rows_per_block;

/// The direction of the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// By the table's angle.
    Forward,
    /// By minus the table's angle: the gradient of the forward.
    Inverse,
}

/// Cosine and sine of every token's angles, `[t, head_dim / 2]` each.
#[derive(Clone, Copy, Debug)]
pub struct RotaryTable<'a> {
    /// Cosines.
    pub cos_tr: &'a [f32],
    /// Sines.
    pub sin_tr: &'a [f32],
    /// Width of a head, even.
    pub head_dim: usize,
}

/// Rotates each head of `x_thd` into `y_thd`.
///
/// # Panics
/// If lengths disagree.
pub fn rotate<E: Element>(x_thd: &[E], table: &RotaryTable<'_>, rotation: Rotation, y_thd: &mut [E]) {
    let half = table.head_dim / 2;
    assert!(half > 0 && table.head_dim == 2 * half, "head width {} must be even", table.head_dim);
    assert!(table.cos_tr.len() == table.sin_tr.len() && table.cos_tr.len().is_multiple_of(half), "rotary tables");
    assert_eq!(x_thd.len(), y_thd.len(), "rotary lengths");
    let tokens = table.cos_tr.len() / half;
    if tokens == 0 {
        assert!(x_thd.is_empty(), "rotary tables are empty");
        return;
    }
    assert!(x_thd.len().is_multiple_of(tokens * table.head_dim), "rotary width");
    let width = x_thd.len() / tokens;
    let rows = rows_per_block(width);
    let tables = table.cos_tr.par_chunks(rows * half).zip(table.sin_tr.par_chunks(rows * half));
    let blocks = x_thd.par_chunks((rows * width).max(1)).zip(y_thd.par_chunks_mut((rows * width).max(1))).zip(tables);
    let sign = match rotation {
        Rotation::Forward => 1.0,
        Rotation::Inverse => -1.0,
    };
    blocks.for_each(|((x, y), (cos, sin))| {
        for (((x, y), cos), sin) in
            x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(cos.chunks_exact(half)).zip(sin.chunks_exact(half))
        {
            rotate_token(x, cos, sin, sign, y);
        }
    });
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn rotate_token<E: Element>(x: &[E], cos: &[f32], sin: &[f32], sign: f32, y: &mut [E]) {
    let half = cos.len();
    let sin = &sin[..half];
    for (x, y) in x.chunks_exact(2 * half).zip(y.chunks_exact_mut(2 * half)) {
        let (x1, x2) = x.split_at(half);
        let (y1, y2) = y.split_at_mut(half);
        for i in 0..half {
            let (a, b, c, s) = (x1[i].to_f32(), x2[i].to_f32(), cos[i], sin[i] * sign);
            y1[i] = E::from_f32(a.mul_add(c, -(b * s)));
            y2[i] = E::from_f32(b.mul_add(c, a * s));
        }
    }
}
