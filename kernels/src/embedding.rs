//! The gradient of a table of rows that tokens look up.
//!
//! In:    the gradient of the looked-up rows, the tokens that looked them up.
//! Out:   sums added to the table's gradient, f32, on the host.
//! Never: adds in another order than the tokens', so the sum has the same bits on every machine and thread count.

use burn::backend::Flex;
use burn::tensor::{DType, Device, Tensor};
use half::bf16;
use multiversion::multiversion;

use crate::cpu::Element;

/// Adds `scale * dx_td[t]` to row `tokens[t]` of `out_vd`, in token order.
///
/// - `dx_td`: plain (no autodiff), f32 or bf16, `[t, d]`; `out_vd`: `[v, d]`, f32.
/// - `scale`: the factor the forward pass put on embeddings; `None` is 1.
///
/// # Panics
/// If there is not one token a row, or a token is not below the vocabulary: datasets checks ids, so that is our bug.
pub fn embedding_gradient(dx_td: Tensor<2>, tokens: &[u32], scale: Option<f32>, out_vd: &mut [f32]) {
    let [rows, width] = dx_td.dims();
    assert!(rows == tokens.len() && width > 0, "{rows} rows of {width} for {} tokens", tokens.len());
    let scale = scale.unwrap_or(1.0);
    if dx_td.device().inner() != Device::flex() {
        let data = dx_td.into_data().convert::<f32>();
        let values: Vec<f32> = data.try_into_vec().expect("just converted");
        return add_rows(&values, width, tokens, scale, out_vd);
    }
    let bf16_stored = dx_td.dtype() == DType::BF16;
    let dx = dx_td.try_into_primitive::<Flex>().expect("a plain tensor on the Flex device").to_contiguous();
    match bf16_stored {
        true => add_rows(dx.as_slice::<bf16>().expect("dtype was looked at"), width, tokens, scale, out_vd),
        false => add_rows(dx.as_slice::<f32>().expect("gradients are f32 or bf16"), width, tokens, scale, out_vd),
    }
}

/// [`embedding_gradient`] on slices, rows of `width`.
fn add_rows<E: Element>(dx_td: &[E], width: usize, tokens: &[u32], scale: f32, out_vd: &mut [f32]) {
    for (dx, &token) in dx_td.chunks_exact(width).zip(tokens) {
        let start = token as usize * width;
        add_scaled(&mut out_vd[start..start + width], dx, scale);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn add_scaled<E: Element>(sum: &mut [f32], values: &[E], scale: f32) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += value.to_f32() * scale;
    }
}
