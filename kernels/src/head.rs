//! The language-model head with its loss: cross-entropy that never holds more than one chunk of logits.
//!
//! In:    hidden states of the rows that are trained on, `[r, d]`, the frozen head weight `[v, d]`, target ids.
//! Out:   the sum of losses and, on request, the gradient of a scaled sum for the hidden states.
//! Never: holds logits of more than [`CHUNK_BYTES_MAX`] bytes (one row at least), however many tokens there are.
//!
//! The gradient is computed in the same pass as the loss, so logits are made once: `dx = (softmax - onehot) w`.
//! Source of the idea: Hsu et al. 2024, arXiv:2410.10989 (fused linear cross-entropy).

use burn::backend::Flex;
use burn::tensor::{Bytes, DType, Device, Shape, Tensor};
use burn_flex::{FlexTensor, Layout};
use half::bf16;

use crate::cpu;
use crate::gemm::{Operand, Scalar};
use crate::twin;

/// Upper bound of one chunk of f32 logits, bytes.
pub const CHUNK_BYTES_MAX: usize = 64 << 20;

/// Result of [`linear_cross_entropy`].
#[derive(Debug)]
pub struct HeadLoss {
    /// Sum of the rows' losses, natural logarithm.
    pub sum: f64,
    /// Gradient of `gradient_scale * sum` for the hidden states, where it was asked for.
    pub dx_rd: Option<Tensor<2>>,
}

/// Cross-entropy of `softmax(x wᵀ)` against `targets`, in chunks of rows.
///
/// - `x_rd`: plain (no autodiff) hidden states of trained rows; `w_vd`: the head; same dtype.
/// - `gradient_scale`: `Some(s)` also returns the gradient of `s` times the sum.
///
/// # Panics
/// If a target is not below the vocabulary: datasets checks ids, so that is our bug.
pub fn linear_cross_entropy(
    x_rd: Tensor<2>,
    w_vd: Tensor<2>,
    targets: &[u32],
    gradient_scale: Option<f32>,
) -> HeadLoss {
    let [rows, _] = x_rd.dims();
    assert_eq!(rows, targets.len(), "one target a row");
    if rows == 0 {
        return HeadLoss { sum: 0.0, dx_rd: gradient_scale.map(|_| x_rd) };
    }
    if x_rd.device().inner() == Device::flex() {
        return match x_rd.dtype() {
            DType::BF16 => on_flex::<bf16>(x_rd, w_vd, targets, gradient_scale),
            _ => on_flex::<f32>(x_rd, w_vd, targets, gradient_scale),
        };
    }
    on_any(x_rd, w_vd, targets, gradient_scale)
}

fn rows_of_chunk(vocabulary: usize) -> usize {
    (CHUNK_BYTES_MAX / (4 * vocabulary)).clamp(1, 512)
}

/// The same chunks with the plain twin and Burn's autodiff.
fn on_any(x_rd: Tensor<2>, w_vd: Tensor<2>, targets: &[u32], gradient_scale: Option<f32>) -> HeadLoss {
    let [rows, _] = x_rd.dims();
    let chunk = rows_of_chunk(w_vd.dims()[0]);
    let (mut sum, mut gradients) = (0.0, Vec::new());
    for start in (0..rows).step_by(chunk) {
        let length = chunk.min(rows - start);
        let x = x_rd.clone().narrow(0, start, length);
        let targets = &targets[start..start + length];
        match gradient_scale {
            None => sum += f64::from(twin::cross_entropy_sum(x, w_vd.clone(), targets).into_scalar::<f32>()),
            Some(scale) => {
                let x = Tensor::<2>::from_inner(x).require_grad();
                let loss = twin::cross_entropy_sum(x.clone(), Tensor::from_inner(w_vd.clone()), targets);
                let mut graph = (loss.clone() * scale).backward();
                sum += f64::from(loss.inner().into_scalar::<f32>());
                gradients.push(x.grad_remove(&mut graph).expect("the loss depends on x"));
            }
        }
    }
    HeadLoss { sum, dx_rd: gradient_scale.map(|_| Tensor::cat(gradients, 0)) }
}

fn flex(tensor: Tensor<2>) -> FlexTensor {
    tensor.try_into_primitive::<Flex>().expect("a plain tensor on the Flex device").to_contiguous()
}

fn on_flex<E: Scalar + burn::tensor::Element>(
    x_rd: Tensor<2>,
    w_vd: Tensor<2>,
    targets: &[u32],
    gradient_scale: Option<f32>,
) -> HeadLoss {
    let ([rows, width], [vocabulary, _]) = (x_rd.dims(), w_vd.dims());
    let (x, w) = (flex(x_rd), flex(w_vd));
    let x = x.as_slice::<E>().expect("dtype was looked at");
    let w = Operand::new(w.as_slice::<E>().expect("head and hidden states share a dtype"), vocabulary, width);
    let chunk = rows_of_chunk(vocabulary).min(rows);
    let mut chunks = Chunks { w, logits: vec![0.0; chunk * vocabulary], stored: Vec::new(), losses: vec![0.0; chunk] };
    let mut dx = vec![E::default(); if gradient_scale.is_some() { rows * width } else { 0 }];
    let mut sum = 0.0;
    for start in (0..rows).step_by(chunk) {
        let end = (start + chunk).min(rows);
        let x = Operand::new(&x[start * width..end * width], end - start, width);
        let dx = gradient_scale.map(|scale| (scale, &mut dx[start * width..end * width]));
        sum += chunks.run(x, &targets[start..end], dx);
    }
    let shape = Layout::contiguous(Shape::from([rows, width]));
    let dx_rd = gradient_scale
        .map(|_| Tensor::from_primitive::<Flex>(FlexTensor::new(Bytes::from_elems(dx), shape, E::dtype())));
    HeadLoss { sum, dx_rd }
}

/// Buffers that every chunk of one call shares.
struct Chunks<'a, E> {
    w: Operand<'a, E>,
    logits: Vec<f32>,
    stored: Vec<E>,
    losses: Vec<f32>,
}

impl<E: Scalar> Chunks<'_, E> {
    /// Sum of the chunk's losses; fills `dx` where asked.
    fn run(&mut self, x: Operand<'_, E>, targets: &[u32], dx: Option<(f32, &mut [E])>) -> f64 {
        let (rows, vocabulary) = (targets.len(), self.logits.len() / self.losses.len());
        let mut logits = std::mem::take(&mut self.logits);
        self.multiply(x, &mut logits[..rows * vocabulary]);
        let (chunk, losses) = (&mut logits[..rows * vocabulary], &mut self.losses[..rows]);
        match dx {
            None => cpu::cross_entropy_rows(chunk, vocabulary, targets, losses),
            Some((scale, dx)) => {
                cpu::softmax_cross_entropy_rows(chunk, vocabulary, targets, scale, losses);
                self.multiply_back(chunk, rows, vocabulary, dx);
            }
        }
        let sum = self.losses[..rows].iter().map(|&loss| f64::from(loss)).sum();
        self.logits = logits;
        sum
    }

    fn multiply(&mut self, x: Operand<'_, E>, logits: &mut [f32]) {
        match bytemuck::try_cast_slice_mut::<f32, E>(logits) {
            Ok(logits) if size_of::<E>() == 4 => E::product(1.0, x, self.w.t(), 0.0, logits),
            _ => {
                self.stored.resize(logits.len(), E::default());
                E::product(1.0, x, self.w.t(), 0.0, &mut self.stored);
                cpu::widen(&self.stored, logits);
            }
        }
    }

    fn multiply_back(&mut self, dlogits: &[f32], rows: usize, vocabulary: usize, dx: &mut [E]) {
        match bytemuck::try_cast_slice::<f32, E>(dlogits) {
            Ok(dlogits) if size_of::<E>() == 4 => {
                E::product(1.0, Operand::new(dlogits, rows, vocabulary), self.w, 0.0, dx);
            }
            _ => {
                self.stored.resize(dlogits.len(), E::default());
                cpu::narrow(dlogits, &mut self.stored);
                E::product(1.0, Operand::new(&self.stored, rows, vocabulary), self.w, 0.0, dx);
            }
        }
    }
}
