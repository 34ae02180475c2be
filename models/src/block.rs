//! One transformer block, any family, as its [`DecoderSpec`] describes it.
//!
//! In:    the residual stream `x_td`, adapters, the rows' context.
//! Out:   the residual stream after the block.
//! Never: branches on a family's name: only on what the description says.
//!
//! Shapes: `t` tokens of all rows, `d` hidden, `h` query heads times head width.

use burn::tensor::{DType, Tensor};
use kernels::{AttentionGeometry, Dropout, Gate, Lora, Weight};
use planner::architecture::{Activation, DecoderSpec, Linear};

use crate::context::RowContext;

/// A linear layer: `[outputs, inputs]` and an optional bias `[outputs]`. Frozen where its tensors are plain, trained
/// where they are tracked ([`Block::tracked`]).
#[derive(Debug, Clone)]
pub struct LinearLayer {
    /// Weight as transformers stores it, or that in 4 bits.
    pub weight: Weight,
    /// Bias in the weight's dtype.
    pub bias: Option<Tensor<1>>,
}

/// The two factors of one low-rank update, f32.
#[derive(Debug, Clone)]
pub struct AdapterPair {
    /// `[rank, inputs]`.
    pub a: Tensor<2>,
    /// `[outputs, rank]`.
    pub b: Tensor<2>,
}

/// The adapters of one block: a pair for each adapted linear layer.
#[derive(Debug, Clone, Default)]
pub struct BlockAdapters {
    /// In the order of [`Linear::ALL`].
    pub pairs: [Option<AdapterPair>; 7],
    /// Factor on every adapter's output.
    pub scale: f32,
    /// Dropout probability and seed while training.
    pub dropout: Option<(f32, u64)>,
    /// Factors that are not trained, in the place of `pairs` (see [`BlockAdapters::ready`]).
    pub ready: [Option<ReadyPair>; 7],
}

/// The two factors of a low-rank update that is not trained, in the format of activations.
#[derive(Debug, Clone)]
pub struct ReadyPair {
    /// `[rank, inputs]`.
    a_ri: Tensor<2>,
    /// `[rank, outputs]`.
    b_ro: Tensor<2>,
}

impl BlockAdapters {
    /// The same adapters for many forward passes in `dtype` without training: converted once instead of at every token. Results have the
    /// same bits.
    pub fn ready(&self, dtype: DType) -> BlockAdapters {
        let ready = self.pairs.each_ref().map(|pair| {
            let AdapterPair { a, b } = pair.as_ref()?.clone();
            let (a_ri, b_ro) = kernels::ready_factors(a, b, dtype);
            Some(ReadyPair { a_ri, b_ro })
        });
        BlockAdapters { ready, scale: self.scale, ..BlockAdapters::default() }
    }
}

/// Weights of one block on the device. A clone shares them.
#[derive(Debug, Clone)]
pub struct Block {
    /// Position in the stack.
    pub index: usize,
    /// In the order of [`Linear::ALL`].
    pub linears: Vec<LinearLayer>,
    /// f32, in the order of [`DecoderSpec::block_norms`], offset already added.
    pub norms: Vec<Tensor<1>>,
}

/// Rotated queries and keys, and values, of one block.
pub struct Projections {
    /// `[t, n_heads * head_dim]`
    pub q: Tensor<2>,
    /// `[t, n_kv_heads * head_dim]`
    pub k: Tensor<2>,
    /// `[t, n_kv_heads * head_dim]`
    pub v: Tensor<2>,
}

impl From<Projections> for [Tensor<2>; 3] {
    fn from(Projections { q, k, v }: Projections) -> [Tensor<2>; 3] {
        [q, k, v]
    }
}

/// Which norm of a block; the position in [`Block::norms`] depends on what the family has.
#[derive(Clone, Copy)]
enum Norm {
    Input,
    Query,
    Key,
    PostAttention,
    PreFeedForward,
    PostFeedForward,
}

impl Block {
    /// The block on rows laid end to end. With autodiff inputs this builds the block's own graph.
    pub fn forward(
        &self,
        spec: &DecoderSpec,
        x_td: Tensor<2>,
        context: &RowContext,
        adapters: &BlockAdapters,
    ) -> Tensor<2> {
        let Projections { q, k, v } = self.project(spec, x_td.clone(), context, adapters);
        let mixed_th = kernels::attention(q, k, v, self.geometry(spec, context));
        self.after_attention(spec, x_td, mixed_th, context, adapters)
    }

    /// Who sees whom in this block's attention.
    pub fn geometry(&self, spec: &DecoderSpec, context: &RowContext) -> AttentionGeometry {
        AttentionGeometry {
            n_heads: spec.n_heads,
            n_kv_heads: spec.n_kv_heads,
            head_dim: spec.head_dim,
            scale: spec.attention_scale as f32,
            window: spec.layers[self.index].window,
            segments: context.segments.clone(),
        }
    }

    /// Input norm, q/k/v projections, q/k norms and rotation.
    pub fn project(
        &self,
        spec: &DecoderSpec,
        x_td: Tensor<2>,
        context: &RowContext,
        adapters: &BlockAdapters,
    ) -> Projections {
        let normed = self.norm(spec, Norm::Input, x_td);
        let linear = |which, x| self.linear(which, x, context, adapters);
        let mut q = linear(Linear::Query, normed.clone());
        let mut k = linear(Linear::Key, normed.clone());
        let v = linear(Linear::Value, normed);
        if spec.qk_norm {
            q = self.head_norm(spec, Norm::Query, q);
            k = self.head_norm(spec, Norm::Key, k);
        }
        let (cos, sin) = context.tables[spec.layers[self.index].rope].clone();
        let q = kernels::rotary(q, cos.clone(), sin.clone(), spec.head_dim);
        let k = kernels::rotary(k, cos, sin, spec.head_dim);
        Projections { q, k, v }
    }

    /// Output projection, residual, feed-forward part, residual.
    pub fn after_attention(
        &self,
        spec: &DecoderSpec,
        x_td: Tensor<2>,
        mixed_th: Tensor<2>,
        context: &RowContext,
        adapters: &BlockAdapters,
    ) -> Tensor<2> {
        let linear = |which, x| self.linear(which, x, context, adapters);
        let mut attended = linear(Linear::Output, mixed_th);
        if spec.sandwich_norms {
            attended = self.norm(spec, Norm::PostAttention, attended);
        }
        let x_td = x_td + attended;
        let before = if spec.sandwich_norms { Norm::PreFeedForward } else { Norm::PostAttention };
        let normed = self.norm(spec, before, x_td.clone());
        let gate = linear(Linear::Gate, normed.clone());
        let up = linear(Linear::Up, normed);
        let mut fed = linear(Linear::Down, kernels::gated(gate, up, gate_kind(spec.activation)));
        if spec.sandwich_norms {
            fed = self.norm(spec, Norm::PostFeedForward, fed);
        }
        x_td + fed
    }

    fn linear(&self, which: Linear, x_ti: Tensor<2>, context: &RowContext, adapters: &BlockAdapters) -> Tensor<2> {
        let layer = &self.linears[which as usize];
        let y = match (&adapters.pairs[which as usize], &adapters.ready[which as usize]) {
            (_, Some(ReadyPair { a_ri, b_ro })) => {
                kernels::adapted_linear(x_ti, &layer.weight, a_ri.clone(), b_ro.clone(), adapters.scale)
            }
            (None, None) => match &layer.weight {
                Weight::Dense(weight) if weight.is_require_grad() => kernels::trainable_linear(x_ti, weight.clone()),
                weight => kernels::frozen_linear(x_ti, weight),
            },
            (Some(pair), None) => {
                let dropout = adapters.dropout.map(|(probability, seed)| Dropout {
                    probability,
                    seed,
                    stream: (context.stream << 20) | (self.index as u64 * 8 + which as u64),
                });
                let lora = Lora { scale: adapters.scale, dropout };
                kernels::lora_linear(x_ti, &layer.weight, pair.a.clone(), pair.b.clone(), lora)
            }
        };
        match &layer.bias {
            None => y,
            Some(bias) => kernels::add_bias(y, bias.clone()),
        }
    }

    fn norm(&self, spec: &DecoderSpec, which: Norm, x: Tensor<2>) -> Tensor<2> {
        let skipped = if spec.qk_norm { 0 } else { 2 };
        let at = match which {
            Norm::Input => 0,
            Norm::Query => 1,
            Norm::Key => 2,
            Norm::PostAttention => 3 - skipped,
            Norm::PreFeedForward => 4 - skipped,
            Norm::PostFeedForward => 5 - skipped,
        };
        norm(x, &self.norms[at], spec)
    }

    /// The norm of each head by itself: heads become rows.
    fn head_norm(&self, spec: &DecoderSpec, which: Norm, x_th: Tensor<2>) -> Tensor<2> {
        let [tokens, width] = x_th.dims();
        let heads = x_th.reshape([tokens * width / spec.head_dim, spec.head_dim]);
        self.norm(spec, which, heads).reshape([tokens, width])
    }
}

/// The norm over the last dimension, with a gradient for its weight where that is tracked.
pub(crate) fn norm(x: Tensor<2>, weight: &Tensor<1>, spec: &DecoderSpec) -> Tensor<2> {
    let epsilon = spec.norm_epsilon as f32;
    match weight.is_require_grad() {
        true => kernels::trainable_rms_norm(x, weight.clone(), epsilon),
        false => kernels::rms_norm(x, weight.clone(), epsilon),
    }
}

fn gate_kind(activation: Activation) -> Gate {
    match activation {
        Activation::Silu => Gate::Silu,
        Activation::GeluTanh => Gate::GeluTanh,
    }
}
