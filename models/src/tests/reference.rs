//! The block in plain Burn, f32, from the twins alone.

use burn::tensor::{DType, Device, Tensor};
use kernels::{AttentionGeometry, Gate, twin};
use planner::architecture::{Activation, DecoderSpec, Linear};

use super::{Passed, SEGMENTS, flat, matrix};
use crate::{Block, LinearLayer, RowContext};

/// How `x_ti` is multiplied with `w_oi`.
type Product = fn(Tensor<2>, Tensor<2>) -> Tensor<2>;

/// What a forward pass needs beside the block and its input.
#[derive(Clone, Copy)]
struct Path<'a> {
    spec: &'a DecoderSpec,
    segments: &'a [u32],
    product: Product,
}

/// Each row's product alone, so that its sums do not depend on how many rows there are.
fn row_by_row(x: Tensor<2>, w: Tensor<2>) -> Tensor<2> {
    let rows = (0..x.dims()[0]).map(|row| twin::frozen_linear(x.clone().narrow(0, row, 1), w.clone()));
    Tensor::cat(rows.collect(), 0)
}

fn linear(path: Path<'_>, block: &Block, which: Linear, x: Tensor<2>) -> Tensor<2> {
    let layer = &block.linears[which as usize];
    let y = (path.product)(x, layer.weight.to_dense(DType::F32));
    match &layer.bias {
        Some(bias) => y + bias.clone().unsqueeze::<2>(),
        None => y,
    }
}

fn heads_norm(x: Tensor<2>, weight: &Tensor<1>, spec: &DecoderSpec) -> Tensor<2> {
    let [tokens, width] = x.dims();
    let rows = x.reshape([tokens * width / spec.head_dim, spec.head_dim]);
    twin::rms_norm(rows, weight.clone(), spec.norm_epsilon as f32).reshape([tokens, width])
}

fn forward(path: Path<'_>, block: &Block, x: Tensor<2>) -> Tensor<2> {
    let Path { spec, segments, .. } = path;
    let context = RowContext::packed(spec, segments, 0, &Device::flex());
    let linear = |which, x| linear(path, block, which, x);
    let layer = spec.layers[block.index];
    let norm = |x: Tensor<2>, at: usize| twin::rms_norm(x, block.norms[at].clone(), spec.norm_epsilon as f32);
    let normed = norm(x.clone(), 0);
    let mut q = linear(Linear::Query, normed.clone());
    let mut k = linear(Linear::Key, normed.clone());
    let v = linear(Linear::Value, normed);
    let mut after = 1;
    if spec.qk_norm {
        q = heads_norm(q, &block.norms[1], spec);
        k = heads_norm(k, &block.norms[2], spec);
        after = 3;
    }
    let (cos, sin) = context.tables[layer.rope].clone();
    let geometry = AttentionGeometry {
        n_heads: spec.n_heads,
        n_kv_heads: spec.n_kv_heads,
        head_dim: spec.head_dim,
        scale: spec.attention_scale as f32,
        window: layer.window,
        segments: context.segments,
    };
    let q = twin::rotary(q, cos.clone(), sin.clone(), spec.head_dim);
    let k = twin::rotary(k, cos, sin, spec.head_dim);
    let mut attended = linear(Linear::Output, twin::attention(q, k, v, &geometry));
    if spec.sandwich_norms {
        attended = norm(attended, after);
        after += 1;
    }
    let x = x + attended;
    let normed = norm(x.clone(), after);
    let kind = match spec.activation {
        Activation::Silu => Gate::Silu,
        Activation::GeluTanh => Gate::GeluTanh,
    };
    let gated = twin::gated(linear(Linear::Gate, normed.clone()), linear(Linear::Up, normed), kind);
    let mut fed = linear(Linear::Down, gated);
    if spec.sandwich_norms {
        fed = norm(fed, after + 1);
    }
    x + fed
}

fn wide<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
    tensor.clone().cast(DType::F32)
}

fn widened(block: &Block) -> Block {
    let linear = |layer: &LinearLayer| LinearLayer {
        weight: wide(&layer.weight.to_dense(DType::F32)).into(),
        bias: layer.bias.as_ref().map(wide),
    };
    Block {
        index: block.index,
        linears: block.linears.iter().map(linear).collect(),
        norms: block.norms.iter().map(wide).collect(),
    }
}

/// The block's output in f32.
pub fn output(spec: &DecoderSpec, block: &Block, x: Tensor<2>) -> Vec<f32> {
    flat(forward(whole(spec), &widened(block), x))
}

/// Logits of packed rows after all `blocks`, products row by row.
pub fn logits(spec: &DecoderSpec, blocks: &[Block], head: &Tensor<2>, x: Tensor<2>, segments: &[u32]) -> Vec<f32> {
    let path = Path { spec, segments, product: row_by_row };
    let x = blocks.iter().fold(x, |x, block| forward(path, block, x));
    flat(row_by_row(x, head.clone()))
}

/// The path of the blocks' tests: three packed rows, whole products.
fn whole(spec: &DecoderSpec) -> Path<'_> {
    Path { spec, segments: &SEGMENTS, product: twin::frozen_linear }
}

/// Everything by Burn's own autodiff.
pub fn pass(spec: &DecoderSpec, block: &Block, x: Tensor<2>) -> Passed {
    let block = widened(block).tracked();
    let x = Tensor::<2>::from_inner(x).require_grad();
    let y = forward(whole(spec), &block, x.clone());
    let incoming = matrix(77, y.dims(), DType::F32);
    let mut found = twin::seed_gradient(y.clone(), incoming).backward();
    let mut gradients = Vec::new();
    for layer in &block.linears {
        gradients.push(flat(layer.weight.to_dense(DType::F32).grad_remove(&mut found).unwrap()));
        gradients.extend(layer.bias.as_ref().map(|bias| flat(bias.grad_remove(&mut found).unwrap())));
    }
    gradients.extend(block.norms.iter().map(|norm| flat(norm.grad_remove(&mut found).unwrap())));
    let dx = x.grad_remove(&mut found).map(flat);
    Passed { output: flat(y.inner()), dx, gradients }
}
