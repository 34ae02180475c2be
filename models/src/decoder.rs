//! The parts around the blocks: embedding, final norm, head.
//!
//! In:    token ids; hidden states of rows.
//! Out:   the first residual stream; losses and the gradient that starts the backward pass; logits of chosen rows.
//! Never: holds logits of more rows than asked for.

use burn::tensor::{Device, Int, Tensor, TensorData};
use kernels::head::{HeadLoss, linear_cross_entropy};
use planner::architecture::DecoderSpec;

use crate::block::Block;

/// A whole decoder on one device.
#[derive(Debug)]
pub struct Decoder {
    /// What it is.
    pub spec: DecoderSpec,
    /// `[v, d]` in the planned precision.
    pub embedding: Tensor<2>,
    /// `[v, d]`; shares storage with the embedding where they are tied.
    pub head: Tensor<2>,
    /// f32, `[d]`, offset already added.
    pub final_norm: Tensor<1>,
    /// The stack.
    pub blocks: Vec<Block>,
    /// Where it lives.
    pub device: Device,
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

    /// Loss of the rows that are trained on, and with `gradient_scale` the gradient for the residual stream `x_td`.
    pub fn loss(&self, x_td: Tensor<2>, rows: &[u32], targets: &[u32], gradient_scale: Option<f32>) -> HeadLoss {
        let [tokens, width] = x_td.dims();
        let indices = self.indices(rows.iter().map(|&row| row as i32).collect());
        let x_rd = x_td.clone().select(0, indices.clone());
        let epsilon = self.spec.norm_epsilon as f32;
        let Some(scale) = gradient_scale else {
            let normed = kernels::rms_norm(x_rd, self.final_norm.clone(), epsilon);
            return linear_cross_entropy(normed, self.head.clone(), targets, None);
        };
        let x_rd = Tensor::<2>::from_inner(x_rd).require_grad();
        let normed = kernels::rms_norm(x_rd.clone(), self.final_norm.clone(), epsilon);
        let loss = linear_cross_entropy(normed.clone().inner(), self.head.clone(), targets, Some(scale));
        let gradient = loss.dx_rd.expect("asked for with a scale");
        let mut graph = kernels::seed_gradient(normed, gradient).backward();
        let dx_rd = x_rd.grad_remove(&mut graph).expect("the norm depends on x");
        let zeros = Tensor::<2>::zeros([tokens, width], (&self.device, dx_rd.dtype()));
        let dx_td = zeros.select_assign(0, indices, dx_rd, burn::tensor::IndexingUpdateOp::Add);
        HeadLoss { sum: loss.sum, dx_rd: Some(dx_td) }
    }

    /// Logits of chosen rows of the residual stream, `[r, v]`.
    pub fn logits(&self, x_td: Tensor<2>, rows: &[u32]) -> Tensor<2> {
        let indices = self.indices(rows.iter().map(|&row| row as i32).collect());
        let normed = kernels::rms_norm(x_td.select(0, indices), self.final_norm.clone(), self.spec.norm_epsilon as f32);
        kernels::frozen_linear(normed, self.head.clone())
    }

    pub(crate) fn indices(&self, ids: Vec<i32>) -> Tensor<1, Int> {
        let length = ids.len();
        Tensor::from_data(TensorData::new(ids, [length]), &self.device)
    }
}
