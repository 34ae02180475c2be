//! A forward pass without gradients through a whole stack.
//!
//! In:    token ids of rows laid end to end, the bounds of the rows, a [`Stack`].
//! Out:   the residual stream after the last block; from it losses and logits ([`Decoder`]).
//! Never: keeps a block or a graph.

use burn::tensor::Tensor;

use crate::block::BlockAdapters;
use crate::context::RowContext;
use crate::decoder::Decoder;
use crate::source::{BlockSource, BoxedError};

/// The blocks that tokens walk through, each with its adapters.
#[derive(Clone, Copy)]
pub struct Stack<'a> {
    /// Where blocks come from.
    pub blocks: &'a dyn BlockSource,
    /// One entry a block; empty pairs for the base model.
    pub adapters: &'a [BlockAdapters],
}

impl Decoder {
    /// Residual stream after the last block, `[t, d]`. An error is that of a block that could not be fetched.
    pub fn hidden(&self, stack: Stack<'_>, tokens: &[u32], segments: &[u32]) -> Result<Tensor<2>, BoxedError> {
        let context = RowContext::packed(&self.spec, segments, 0, &self.device);
        let mut x_td = self.embed(tokens);
        for (index, pairs) in stack.adapters.iter().enumerate() {
            x_td = stack.blocks.block(index)?.forward(&self.spec, x_td, &context, pairs);
        }
        Ok(x_td)
    }
}
