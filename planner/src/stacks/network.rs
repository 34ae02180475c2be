//! Sizes of the networks that published runs trained: enough to count parameters and activations, no more.
//!
//! In:    `rows/networks.toml`.
//! Out:   [`Network`], and its numbers of parameters.
//! Never: biases (below 0.1 % of the parameters of every network listed).

use serde::Deserialize;

use crate::architecture::Linear;

/// Where the head's weight is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// The embedding, transposed.
    Tied,
    /// A matrix of its own.
    Separate,
}

/// Shape of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedForward {
    /// Three matrices, gate times up.
    Gated,
    /// Two matrices with GELU between.
    Plain,
}

/// Kind of normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// RMSNorm, computed in f32 by element-wise operations: its f32 input is kept.
    Rms,
    /// LayerNorm, one fused operation: its bf16 input is kept.
    Layer,
}

/// How attention and feed-forward join the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Residual {
    /// One after the other, a norm each.
    Serial,
    /// Side by side, a norm each.
    Parallel,
    /// Side by side behind one norm.
    SharedNorm,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// As rows name it.
    pub name: String,
    /// Blocks.
    pub layers: u64,
    /// Width of the residual stream, also of all query heads together.
    pub hidden: u64,
    /// Width inside the feed-forward part.
    pub intermediate: u64,
    /// Width of all key heads together.
    pub kv: u64,
    /// Rows of the embedding as stored (padded where the program pads); of an image model 0.
    pub vocabulary: u64,
    /// Where the head is.
    pub head: Head,
    /// Feed-forward part.
    #[serde(default = "gated")]
    pub feed_forward: FeedForward,
    /// Normalisation.
    #[serde(default = "rms")]
    pub norm: Norm,
    /// Joining.
    #[serde(default = "serial")]
    pub residual: Residual,
}

fn gated() -> FeedForward {
    FeedForward::Gated
}

fn rms() -> Norm {
    Norm::Rms
}

fn serial() -> Residual {
    Residual::Serial
}

impl Network {
    /// `[inputs, outputs]` of a linear layer; a plain feed-forward part has no gate: `[0, 0]`.
    pub fn linear_shape(&self, linear: Linear) -> [u64; 2] {
        let (hidden, intermediate) = (self.hidden, self.intermediate);
        match linear {
            Linear::Query | Linear::Output => [hidden, hidden],
            Linear::Key | Linear::Value => [hidden, self.kv],
            Linear::Gate if self.feed_forward == FeedForward::Plain => [0, 0],
            Linear::Gate | Linear::Up => [hidden, intermediate],
            Linear::Down => [intermediate, hidden],
        }
    }

    /// Weights of the linear layers of one block.
    pub fn block_linear(&self) -> u64 {
        Linear::ALL.iter().map(|&linear| self.linear_shape(linear)).map(|[inputs, outputs]| inputs * outputs).sum()
    }

    /// Weights of the linear layers of all blocks.
    pub fn linear(&self) -> u64 {
        self.layers * self.block_linear()
    }

    /// Weights of the embedding.
    pub fn embedding(&self) -> u64 {
        self.vocabulary * self.hidden
    }

    /// Weights of the head, 0 where it is the embedding.
    pub fn head_own(&self) -> u64 {
        if self.head == Head::Separate { self.embedding() } else { 0 }
    }

    /// All weights, a tied head once.
    pub fn parameters(&self) -> u64 {
        self.linear() + self.embedding() + self.head_own() + (2 * self.layers + 1) * self.hidden
    }

    /// Weights of matrix products that one token passes: blocks and head.
    pub fn multiplied(&self) -> u64 {
        self.linear() + self.embedding()
    }

    /// Weights of the largest matrix.
    pub fn largest(&self) -> u64 {
        self.largest_in_block().max(self.embedding())
    }

    /// Weights of the largest matrix of a block.
    pub fn largest_in_block(&self) -> u64 {
        self.hidden * self.intermediate.max(self.hidden)
    }

    /// Weights of adapters: `rank * (inputs + outputs)` for each adapted layer of each block.
    pub fn adapters(&self, rank: u64, targets: &[Linear]) -> u64 {
        let widths: u64 = targets.iter().flat_map(|&linear| self.linear_shape(linear)).sum();
        self.layers * rank * widths
    }
}
