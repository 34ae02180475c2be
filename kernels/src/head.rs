//! The language-model head with its loss: cross-entropy that never holds more than one chunk of logits.
//!
//! In:    hidden states of the rows that are trained on, `[r, d]`, the head weight `[v, d]`, target ids.
//! Out:   the sum of losses and, on request, the gradient of a scaled sum for the hidden states and the head.
//! Never: holds logits of more than [`CHUNK_BYTES_MAX`] bytes (one row at least), however many tokens there are; a
//!        second array of the head's size on the CPU; other bits because one more gradient was asked for.
//!
//! The gradient is computed in the same pass as the loss, so logits are made once: `dx = (softmax - onehot) w`.
//! Source of the idea: Hsu et al. 2024, arXiv:2410.10989 (fused linear cross-entropy).

use burn::backend::Flex;
use burn::tensor::{Bytes, DType, Device, Shape, Tensor};
use burn_flex::{FlexTensor, Layout};
use half::bf16;
use rayon::prelude::*;

use crate::cpu;
use crate::gemm::{Operand, Scalar};
use crate::twin;

/// Upper bound of one chunk of f32 logits, bytes.
pub const CHUNK_BYTES_MAX: usize = 64 << 20;

/// Columns of the gradient of logits that are laid side by side before they are multiplied: whole rows of them lie a
/// vocabulary apart, often on the same cache sets (the product took 377 ms, not 181, at 49152 columns). Not a power of
/// two for the same reason.
const BLOCK_COLUMNS: usize = 2064;

/// Result of [`linear_cross_entropy`].
#[derive(Debug)]
pub struct HeadLoss {
    /// Sum of the rows' losses, natural logarithm.
    pub sum: f64,
    /// Gradient of `scale * sum` for the hidden states, where it was asked for.
    pub dx_rd: Option<Tensor<2>>,
}

/// Which gradients [`linear_cross_entropy`] computes besides the loss.
#[derive(Debug)]
pub struct HeadGradients<'a> {
    /// Gradients are those of `scale` times the sum of losses.
    pub scale: f32,
    /// The head's gradient, `[v, d]` in f32, is added to this slice. `None` where the head is frozen.
    pub weight_vd: Option<&'a mut [f32]>,
}

impl HeadGradients<'_> {
    /// The gradient for the hidden states only.
    pub fn of_hidden_states(scale: f32) -> Self {
        HeadGradients { scale, weight_vd: None }
    }
}

/// Cross-entropy of `softmax(x wᵀ)` against `targets`, in chunks of rows.
///
/// - `x_rd`: plain (no autodiff) hidden states of trained rows; `w_vd`: the head; same dtype.
/// - `gradients`: `None` computes the loss only.
///
/// # Panics
/// If a target is not below the vocabulary (datasets checks ids) or the gradient slice has another size than the head
/// (it is planned): our bugs.
pub fn linear_cross_entropy(
    x_rd: Tensor<2>,
    w_vd: Tensor<2>,
    targets: &[u32],
    gradients: Option<HeadGradients<'_>>,
) -> HeadLoss {
    let [rows, _] = x_rd.dims();
    assert_eq!(rows, targets.len(), "one target a row");
    if let Some(HeadGradients { weight_vd: Some(sum), .. }) = &gradients {
        assert_eq!(sum.len(), w_vd.dims().iter().product::<usize>(), "elements of the head's gradient");
    }
    if rows == 0 {
        return HeadLoss { sum: 0.0, dx_rd: gradients.map(|_| x_rd) };
    }
    if x_rd.device().inner() == Device::flex() {
        return match x_rd.dtype() {
            DType::BF16 => on_flex::<bf16>(x_rd, w_vd, targets, gradients),
            _ => on_flex::<f32>(x_rd, w_vd, targets, gradients),
        };
    }
    on_any(x_rd, w_vd, targets, gradients)
}

fn rows_of_chunk(vocabulary: usize) -> usize {
    (CHUNK_BYTES_MAX / (4 * vocabulary)).clamp(1, 512)
}

/// What one chunk of rows adds.
pub(crate) struct Part {
    /// Sum of its losses.
    pub(crate) sum: f64,
    /// Gradient of the scaled sum for its hidden states.
    pub(crate) dx_rd: Option<Tensor<2>>,
    /// And for the head, in f32.
    pub(crate) dw_vd: Option<Tensor<2>>,
}

/// The factor on the sum whose gradients are wanted, and whether the head's is among them.
pub(crate) type Wanted = Option<(f32, bool)>;

/// Chunks on other devices: with kernels where there are some, else with the plain twin and Burn's autodiff. The head's gradient is summed on
/// the device and comes to the host once.
pub(crate) fn on_any(
    x_rd: Tensor<2>,
    w_vd: Tensor<2>,
    targets: &[u32],
    gradients: Option<HeadGradients<'_>>,
) -> HeadLoss {
    #[cfg(feature = "card")]
    if x_rd.device().inner() != Device::flex() {
        return in_chunks(x_rd, w_vd, targets, gradients, crate::card::head_chunk);
    }
    in_chunks(x_rd, w_vd, targets, gradients, twin_chunk)
}

fn in_chunks(
    x_rd: Tensor<2>,
    w_vd: Tensor<2>,
    targets: &[u32],
    gradients: Option<HeadGradients<'_>>,
    of_chunk: impl Fn(Tensor<2>, Tensor<2>, &[u32], Wanted) -> Part,
) -> HeadLoss {
    let [rows, _] = x_rd.dims();
    let chunk = rows_of_chunk(w_vd.dims()[0]);
    let (scale, weight_vd) = match gradients {
        Some(HeadGradients { scale, weight_vd }) => (Some(scale), weight_vd),
        None => (None, None),
    };
    let wanted = scale.map(|scale| (scale, weight_vd.is_some()));
    let (mut sum, mut dx_rd, mut dw_vd) = (0.0, Vec::new(), None::<Tensor<2>>);
    for start in (0..rows).step_by(chunk) {
        let length = chunk.min(rows - start);
        let x = x_rd.clone().narrow(0, start, length);
        let part = of_chunk(x, w_vd.clone(), &targets[start..start + length], wanted);
        sum += part.sum;
        dx_rd.extend(part.dx_rd);
        dw_vd = match (dw_vd, part.dw_vd) {
            (Some(sum), Some(dw)) => Some(sum + dw),
            (sum, dw) => sum.or(dw),
        };
    }
    if let (Some(dw), Some(sum)) = (dw_vd, weight_vd) {
        let dw: Vec<f32> = dw.into_data().try_into_vec().expect("the head's gradient is f32");
        cpu::add_in_place(sum, &dw);
    }
    HeadLoss { sum, dx_rd: scale.map(|_| Tensor::cat(dx_rd, 0)) }
}

fn twin_chunk(x: Tensor<2>, w: Tensor<2>, targets: &[u32], wanted: Wanted) -> Part {
    let Some((scale, trained)) = wanted else {
        let loss = twin::cross_entropy_sum(x, w, targets);
        return Part { sum: f64::from(loss.into_scalar::<f32>()), dx_rd: None, dw_vd: None };
    };
    let x = Tensor::<2>::from_inner(x).require_grad();
    let w = Tensor::<2>::from_inner(w).set_require_grad(trained);
    let loss = twin::cross_entropy_sum(x.clone(), w.clone(), targets);
    let mut graph = (loss.clone() * scale).backward();
    Part {
        sum: f64::from(loss.inner().into_scalar::<f32>()),
        dx_rd: Some(x.grad_remove(&mut graph).expect("the loss depends on x")),
        dw_vd: w.grad_remove(&mut graph).map(|dw| dw.cast(DType::F32)),
    }
}

fn flex(tensor: Tensor<2>) -> FlexTensor {
    tensor.try_into_primitive::<Flex>().expect("a plain tensor on the Flex device").to_contiguous()
}

fn on_flex<E: Scalar + burn::tensor::Element>(
    x_rd: Tensor<2>,
    w_vd: Tensor<2>,
    targets: &[u32],
    gradients: Option<HeadGradients<'_>>,
) -> HeadLoss {
    let ([rows, width], [vocabulary, _]) = (x_rd.dims(), w_vd.dims());
    let (x, w) = (flex(x_rd), flex(w_vd));
    let x = x.as_slice::<E>().expect("dtype was looked at");
    let w = Operand::new(w.as_slice::<E>().expect("head and hidden states share a dtype"), vocabulary, width);
    let chunk = rows_of_chunk(vocabulary).min(rows);
    let logits = vec![0.0; chunk * vocabulary];
    let mut chunks = Chunks { w, logits, stored: Vec::new(), block: Vec::new(), losses: vec![0.0; chunk] };
    let (scale, mut weight_vd) = gradients.map(|wanted| (wanted.scale, wanted.weight_vd)).unzip();
    let mut dx = vec![E::default(); if scale.is_some() { rows * width } else { 0 }];
    let mut sum = 0.0;
    for start in (0..rows).step_by(chunk) {
        let end = (start + chunk).min(rows);
        let x = Operand::new(&x[start * width..end * width], end - start, width);
        let wanted = scale.map(|scale| ChunkGradients {
            scale,
            dx: &mut dx[start * width..end * width],
            dw: weight_vd.as_mut().and_then(|sum| sum.as_deref_mut()),
        });
        sum += chunks.run(x, &targets[start..end], wanted);
    }
    let shape = Layout::contiguous(Shape::from([rows, width]));
    let dx_rd =
        scale.map(|_| Tensor::from_primitive::<Flex>(FlexTensor::new(Bytes::from_elems(dx), shape, E::dtype())));
    HeadLoss { sum, dx_rd }
}

/// Where one chunk's gradients go: `dx` is overwritten, `dw` added to.
struct ChunkGradients<'a, E> {
    scale: f32,
    dx: &'a mut [E],
    dw: Option<&'a mut [f32]>,
}

/// Buffers that every chunk of one call shares.
struct Chunks<'a, E> {
    w: Operand<'a, E>,
    logits: Vec<f32>,
    stored: Vec<E>,
    block: Vec<E>,
    losses: Vec<f32>,
}

impl<E: Scalar> Chunks<'_, E> {
    /// Sum of the chunk's losses; fills the gradients asked for.
    fn run(&mut self, x: Operand<'_, E>, targets: &[u32], wanted: Option<ChunkGradients<'_, E>>) -> f64 {
        let (rows, vocabulary) = (targets.len(), self.logits.len() / self.losses.len());
        let mut logits = std::mem::take(&mut self.logits);
        self.multiply(x, &mut logits[..rows * vocabulary]);
        let (chunk, losses) = (&mut logits[..rows * vocabulary], &mut self.losses[..rows]);
        match wanted {
            None => cpu::cross_entropy_rows(chunk, vocabulary, targets, losses),
            Some(wanted) => {
                cpu::softmax_cross_entropy_rows(chunk, vocabulary, targets, wanted.scale, losses);
                self.multiply_back(chunk, rows, x, wanted);
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

    fn multiply_back(&mut self, dlogits: &[f32], rows: usize, x: Operand<'_, E>, wanted: ChunkGradients<'_, E>) {
        let dlogits = match bytemuck::try_cast_slice::<f32, E>(dlogits) {
            Ok(dlogits) if size_of::<E>() == 4 => dlogits,
            _ => {
                self.stored.resize(dlogits.len(), E::default());
                cpu::narrow(dlogits, &mut self.stored);
                &self.stored
            }
        };
        let vocabulary = dlogits.len() / rows;
        E::product(1.0, Operand::new(dlogits, rows, vocabulary), self.w, 0.0, wanted.dx);
        let Some(sum) = wanted.dw else { return };
        for (at, sum) in sum.chunks_mut(BLOCK_COLUMNS * x.columns()).enumerate() {
            let (start, columns) = (at * BLOCK_COLUMNS, sum.len() / x.columns());
            self.block.resize(rows * columns, E::default());
            let pairs = self.block.par_chunks_exact_mut(columns).zip(dlogits.par_chunks_exact(vocabulary));
            pairs.for_each(|(block, dlogits)| block.copy_from_slice(&dlogits[start..start + columns]));
            E::add_outer(Operand::new(&self.block, rows, columns), x, sum);
        }
    }
}
