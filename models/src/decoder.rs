//! The parts around the blocks: embedding, final norm, head.
//!
//! In:    token ids; hidden states of rows.
//! Out:   the first residual stream; losses and the gradient that starts the backward pass; gradients of these parts
//!        themselves; logits of chosen rows.
//! Never: holds logits of more rows than asked for, or a block.

use burn::tensor::{Device, Int, Tensor, TensorData};
use kernels::embedding::embedding_gradient;
use kernels::head::{HeadGradients, HeadLoss, linear_cross_entropy};
use planner::architecture::DecoderSpec;

use crate::block::norm;
use crate::host::with_values;

/// A decoder without its blocks (see [`crate::BlockSource`]) on one device. An update replaces the tensors.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// What it is.
    pub spec: DecoderSpec,
    /// `[v, d]` in the planned precision.
    pub embedding: Tensor<2>,
    /// `[v, d]`; shares storage with the embedding where they are tied.
    pub head: Tensor<2>,
    /// f32, `[d]`, offset already added.
    pub final_norm: Tensor<1>,
    /// Where it lives.
    pub device: Device,
}

/// What [`Decoder::loss_training`] computes besides the loss.
#[derive(Debug)]
pub struct OuterGradients<'a> {
    /// Gradients are those of `scale` times the sum of losses.
    pub scale: f32,
    /// The head's gradient, `[v, d]` in f32, is added to this slice: the embedding's where they are tied. `None` where
    /// the head is frozen.
    pub head_vd: Option<&'a mut [f32]>,
    /// Whether the final norm is trained.
    pub final_norm: NormTraining,
}

/// Whether a norm is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormTraining {
    /// No gradient.
    Frozen,
    /// A gradient.
    Trained,
}

/// Loss of a micro-batch and the gradients that start its backward pass.
#[derive(Debug)]
pub struct TrainingLoss {
    /// Sum of the rows' losses, natural logarithm.
    pub sum: f64,
    /// Gradient for the residual stream after the last block, `[t, d]`; zero in rows without a target.
    pub dx_td: Tensor<2>,
    /// Gradient of the final norm's weight, `[d]`, where it is trained.
    pub final_norm_d: Option<Vec<f32>>,
}

impl Decoder {
    /// Residual stream before the first block, `[t, d]`.
    pub fn embed(&self, tokens: &[u32]) -> Tensor<2> {
        let ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
        let x_td = self.embedding.clone().select(0, self.indices(ids));
        match self.spec.embedding_scale {
            Some(scale) => x_td * scale,
            None => x_td,
        }
    }

    /// Adds the embedding's gradient, given that of [`Decoder::embed`]'s result, to `out_vd`, `[v, d]` in f32.
    pub fn embedding_gradient(&self, dx_td: Tensor<2>, tokens: &[u32], out_vd: &mut [f32]) {
        embedding_gradient(dx_td, tokens, self.spec.embedding_scale.map(|scale| scale as f32), out_vd);
    }

    /// Loss of the rows that are trained on, and with `gradient_scale` the gradient for the residual stream `x_td`.
    pub fn loss(&self, x_td: Tensor<2>, rows: &[u32], targets: &[u32], gradient_scale: Option<f32>) -> HeadLoss {
        let Some(scale) = gradient_scale else {
            let normed = norm(x_td.select(0, self.row_indices(rows)), &self.final_norm, &self.spec);
            return linear_cross_entropy(normed, self.head.clone(), targets, None);
        };
        let wanted = OuterGradients { scale, head_vd: None, final_norm: NormTraining::Frozen };
        let loss = self.loss_training(x_td, rows, targets, wanted);
        HeadLoss { sum: loss.sum, dx_rd: Some(loss.dx_td) }
    }

    /// Loss of the rows that are trained on, the gradient for the residual stream `x_td` (plain), and those of the
    /// final norm and the head where they are trained. What is asked for changes no bit of the rest.
    pub fn loss_training(
        &self,
        x_td: Tensor<2>,
        rows: &[u32],
        targets: &[u32],
        wanted: OuterGradients<'_>,
    ) -> TrainingLoss {
        let indices = self.row_indices(rows);
        let dx_td = x_td.zeros_like();
        let x_rd = Tensor::<2>::from_inner(x_td.select(0, indices.clone())).require_grad();
        let trained = wanted.final_norm == NormTraining::Trained;
        let weight = Tensor::<1>::from_inner(self.final_norm.clone()).set_require_grad(trained);
        let normed = norm(x_rd.clone(), &weight, &self.spec);
        let head = HeadGradients { scale: wanted.scale, weight_vd: wanted.head_vd };
        let loss = linear_cross_entropy(normed.clone().inner(), self.head.clone(), targets, Some(head));
        let gradient = loss.dx_rd.expect("asked for with a scale");
        let mut graph = kernels::seed_gradient(normed, gradient).backward();
        let dx_rd = x_rd.grad_remove(&mut graph).expect("the norm depends on x");
        let dx_td = dx_td.select_assign(0, indices, dx_rd, burn::tensor::IndexingUpdateOp::Add);
        let final_norm_d = weight.grad_remove(&mut graph).map(|gradient| with_values(gradient, <[f32]>::to_vec));
        TrainingLoss { sum: loss.sum, dx_td, final_norm_d }
    }

    /// Logits of chosen rows of the residual stream, `[r, v]`.
    pub fn logits(&self, x_td: Tensor<2>, rows: &[u32]) -> Tensor<2> {
        let normed = norm(x_td.select(0, self.row_indices(rows)), &self.final_norm, &self.spec);
        kernels::frozen_linear(normed, self.head.clone())
    }

    fn row_indices(&self, rows: &[u32]) -> Tensor<1, Int> {
        self.indices(rows.iter().map(|&row| row as i32).collect())
    }

    pub(crate) fn indices(&self, ids: Vec<i32>) -> Tensor<1, Int> {
        let length = ids.len();
        Tensor::from_data(TensorData::new(ids, [length]), &self.device)
    }
}
