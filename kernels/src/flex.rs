//! CPU kernels under Burn's Flex backend.
//!
//! In:    Flex tensors in f32 or bf16; views are made contiguous first.
//! Out:   fresh contiguous Flex tensors.
//! Never: mixes dtypes silently: base tensors share one dtype, adapters and norm weights are f32.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use half::bf16;

use crate::cpu::{self, AttentionGradients, AttentionInputs, AttentionOutputs, GatedInputs, RotaryTable};
use crate::gemm::{Operand, Scalar, product};
use crate::ops::{AttentionGeometry, BlockOps, Dropout, Gate, Lora, Rotation};
use crate::weight::BackendWeight;

type Weight = BackendWeight<Flex>;

mod products;
mod weights;
use weights::{bias_gradient, linear_dw, lora_da, lora_db, rms_norm_dw};

fn tensor<E: Scalar>(values: Vec<E>, shape: [usize; 2]) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(Shape::from(shape)), dtype::<E>())
}

fn vector(values: Vec<f32>) -> FlexTensor {
    let shape = Shape::from([values.len()]);
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}

fn dtype<E: Scalar>() -> DType {
    if size_of::<E>() == 2 { DType::BF16 } else { DType::F32 }
}

fn contiguous(tensor: &FlexTensor) -> FlexTensor {
    tensor.to_contiguous()
}

/// The values of a contiguous tensor. Dtypes come from the plan, so a mismatch is our bug.
fn slice<E: burn::tensor::Element + bytemuck::Pod>(tensor: &FlexTensor) -> &[E] {
    tensor.as_slice::<E>().unwrap_or_else(|| panic!("kernel got a {:?} tensor, planned otherwise", tensor.dtype()))
}

fn rows_columns(tensor: &FlexTensor) -> [usize; 2] {
    let shape = tensor.shape();
    [shape[0], shape[1]]
}

/// Runs the body once for the dtype of the tensor.
macro_rules! by_dtype {
    ($tensor:expr, $function:ident ( $($argument:expr),* )) => {
        match $tensor.dtype() {
            DType::F32 => $function::<f32>($($argument),*),
            DType::BF16 => $function::<bf16>($($argument),*),
            other => panic!("CPU kernels compute in f32 and bf16, not in {other:?}"),
        }
    };
}

/// What a generic body needs of an element: gemm, kernels and Burn's storage.
trait Stored: Scalar + burn::tensor::Element {}
impl Stored for f32 {}
impl Stored for bf16 {}

fn narrowed<E: Stored>(values: &[f32]) -> Vec<E> {
    let mut narrow = vec![E::default(); values.len()];
    cpu::narrow(values, &mut narrow);
    narrow
}

fn transposed<E: Stored>(values: &[E], rows: usize, columns: usize) -> Vec<E> {
    (0..rows * columns).map(|at| values[(at % rows) * columns + at / rows]).collect()
}

fn dropped<E: Stored>(x: &[E], dropout: Option<Dropout>) -> Option<Vec<E>> {
    let dropout = dropout?;
    let mut y = vec![E::default(); x.len()];
    dropout.apply(x, &mut y);
    Some(y)
}

fn rms_norm<E: Stored>(x: &FlexTensor, w: &FlexTensor, epsilon: f32) -> (FlexTensor, FlexTensor) {
    let [tokens, width] = rows_columns(x);
    let (mut y, mut rstd) = (vec![E::default(); tokens * width], vec![0.0; tokens]);
    cpu::rms_norm_forward(slice::<E>(x), slice(w), epsilon, &mut y, &mut rstd);
    (tensor(y, [tokens, width]), vector(rstd))
}

fn rms_norm_dx<E: Stored>(x: &FlexTensor, w: &FlexTensor, rstd: &FlexTensor, dy: &FlexTensor) -> FlexTensor {
    let mut dx = vec![E::default(); slice::<E>(x).len()];
    cpu::rms_norm_backward(slice::<E>(x), slice(w), slice(rstd), slice(dy), &mut dx);
    tensor(dx, rows_columns(x))
}

fn rotary<E: Stored>(
    x: &FlexTensor,
    tables: (&FlexTensor, &FlexTensor),
    head_dim: usize,
    rotation: Rotation,
) -> FlexTensor {
    let mut y = vec![E::default(); slice::<E>(x).len()];
    let table = RotaryTable { cos_tr: slice(tables.0), sin_tr: slice(tables.1), head_dim };
    cpu::rotate(slice::<E>(x), &table, rotation, &mut y);
    tensor(y, rows_columns(x))
}

fn gated<E: Stored>(gate: &FlexTensor, up: &FlexTensor, kind: Gate) -> FlexTensor {
    let mut y = vec![E::default(); slice::<E>(gate).len()];
    cpu::gated_forward(GatedInputs { gate: slice::<E>(gate), up: slice(up) }, kind, &mut y);
    tensor(y, rows_columns(gate))
}

fn gated_backward<E: Stored>(
    gate: &FlexTensor,
    up: &FlexTensor,
    dy: &FlexTensor,
    kind: Gate,
) -> (FlexTensor, FlexTensor) {
    let n = slice::<E>(gate).len();
    let (mut dgate, mut dup) = (vec![E::default(); n], vec![E::default(); n]);
    let inputs = GatedInputs { gate: slice::<E>(gate), up: slice(up) };
    cpu::gated_backward(inputs, slice(dy), kind, &mut dgate, &mut dup);
    (tensor(dgate, rows_columns(gate)), tensor(dup, rows_columns(gate)))
}

fn inputs<'a, E: Stored>(qkv: [&'a FlexTensor; 3], geometry: &'a AttentionGeometry) -> AttentionInputs<'a, E> {
    let [q, k, v] = qkv;
    AttentionInputs { q_thd: slice(q), k_tgd: slice(k), v_tgd: slice(v), segments: &geometry.segments }
}

fn attention<E: Stored>(qkv: [&FlexTensor; 3], geometry: &AttentionGeometry) -> (FlexTensor, FlexTensor) {
    let [tokens, width] = rows_columns(qkv[0]);
    let (mut out, mut lse) = (vec![E::default(); tokens * width], vec![0.0; geometry.n_heads * tokens]);
    cpu::attention_forward(&inputs::<E>(qkv, geometry), &geometry.shape(), &mut out, &mut lse);
    (tensor(out, [tokens, width]), tensor(lse, [geometry.n_heads, tokens]))
}

fn attention_backward<E: Stored>(
    qkv: [&FlexTensor; 3],
    results: [&FlexTensor; 2],
    dout: &FlexTensor,
    geometry: &AttentionGeometry,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let [q, k, v] = qkv;
    let zeros = |like: &FlexTensor| vec![E::default(); slice::<E>(like).len()];
    let (mut dq, mut dk, mut dv) = (zeros(q), zeros(k), zeros(v));
    let [out, lse] = results;
    let outputs = AttentionOutputs { out_thd: slice(out), lse_ht: slice(lse), dout_thd: slice(dout) };
    let gradients = AttentionGradients { dq_thd: &mut dq, dk_tgd: &mut dk, dv_tgd: &mut dv };
    cpu::attention_backward(&inputs::<E>(qkv, geometry), &outputs, &geometry.shape(), gradients);
    (tensor(dq, rows_columns(q)), tensor(dk, rows_columns(k)), tensor(dv, rows_columns(v)))
}

fn linear<E: Stored>(x: &FlexTensor, w: &Weight) -> FlexTensor {
    let ([tokens, inputs], [outputs, _]) = (rows_columns(x), products::shape_of(w));
    tensor(products::forward(Operand::new(slice::<E>(x), tokens, inputs), w), [tokens, outputs])
}

fn linear_dx<E: Stored>(w: &Weight, dy: &FlexTensor) -> FlexTensor {
    let ([tokens, outputs], [_, inputs]) = (rows_columns(dy), products::shape_of(w));
    tensor(products::backward(Operand::new(slice::<E>(dy), tokens, outputs), w), [tokens, inputs])
}

fn add_bias<E: Stored>(y: &FlexTensor, b: &FlexTensor) -> FlexTensor {
    let mut sum = vec![E::default(); slice::<E>(y).len()];
    cpu::add_row(slice::<E>(y), slice(b), &mut sum);
    tensor(sum, rows_columns(y))
}

fn lora_linear<E: Stored>(
    x: &FlexTensor,
    w: &Weight,
    a: &FlexTensor,
    b: &FlexTensor,
    lora: Lora,
) -> (FlexTensor, FlexTensor) {
    let ([tokens, inputs], [outputs, _], [rank, _]) = (rows_columns(x), products::shape_of(w), rows_columns(a));
    let x = slice::<E>(x);
    let mut y = products::forward(Operand::new(x, tokens, inputs), w);
    let x_dropped = dropped(x, lora.dropout);
    let x = x_dropped.as_deref().unwrap_or(x);
    let (a, b) = (narrowed::<E>(slice(a)), narrowed::<E>(slice(b)));
    let u = product(1.0, Operand::new(x, tokens, inputs), Operand::new(&a, rank, inputs).t());
    // Row-major [rank, outputs]: with so short a sum the transposed read costs 1.5-4x (docs/LOG.md).
    let b = transposed(&b, outputs, rank);
    E::product(lora.scale, Operand::new(&u, tokens, rank), Operand::new(&b, rank, outputs), 1.0, &mut y);
    (tensor(y, [tokens, outputs]), tensor(u, [tokens, rank]))
}

fn adapted_linear<E: Stored>(x: &FlexTensor, w: &Weight, a: &FlexTensor, b: &FlexTensor, scale: f32) -> FlexTensor {
    let ([tokens, inputs], [outputs, _], [rank, _]) = (rows_columns(x), products::shape_of(w), rows_columns(a));
    let x = Operand::new(slice::<E>(x), tokens, inputs);
    let mut y = products::forward(x, w);
    let u = product(1.0, x, Operand::new(slice(a), rank, inputs).t());
    E::product(scale, Operand::new(&u, tokens, rank), Operand::new(slice(b), rank, outputs), 1.0, &mut y);
    tensor(y, [tokens, outputs])
}

fn lora_du<E: Stored>(dy: &FlexTensor, b: &FlexTensor, lora: Lora) -> FlexTensor {
    let ([tokens, outputs], [_, rank]) = (rows_columns(dy), rows_columns(b));
    let b = narrowed::<E>(slice(b));
    let dy = Operand::new(slice::<E>(dy), tokens, outputs);
    tensor(product(lora.scale, dy, Operand::new(&b, outputs, rank)), [tokens, rank])
}

fn lora_dx<E: Stored>(dy: &FlexTensor, w: &Weight, du: &FlexTensor, a: &FlexTensor, lora: Lora) -> FlexTensor {
    let ([tokens, outputs], [_, inputs], [rank, _]) = (rows_columns(dy), products::shape_of(w), rows_columns(a));
    let dy = Operand::new(slice::<E>(dy), tokens, outputs);
    let mut dx = products::backward(dy, w);
    let a = narrowed::<E>(slice(a));
    let (du, a) = (Operand::new(slice::<E>(du), tokens, rank), Operand::new(&a, rank, inputs));
    if lora.dropout.is_none() {
        E::product(1.0, du, a, 1.0, &mut dx);
    } else {
        let through = dropped(&product(1.0, du, a), lora.dropout).unwrap_or_default();
        cpu::add_in_place(&mut dx, &through);
    }
    tensor(dx, [tokens, inputs])
}

impl BlockOps for Flex {
    fn rms_norm(x: FlexTensor, w: FlexTensor, epsilon: f32) -> (FlexTensor, FlexTensor) {
        by_dtype!(x, rms_norm(&contiguous(&x), &contiguous(&w), epsilon))
    }

    fn rms_norm_dx(x: FlexTensor, w: FlexTensor, rstd: FlexTensor, dy: FlexTensor) -> FlexTensor {
        by_dtype!(x, rms_norm_dx(&contiguous(&x), &contiguous(&w), &rstd, &contiguous(&dy)))
    }

    fn rotary(x: FlexTensor, cos: FlexTensor, sin: FlexTensor, head_dim: usize, rotation: Rotation) -> FlexTensor {
        by_dtype!(x, rotary(&contiguous(&x), (&contiguous(&cos), &contiguous(&sin)), head_dim, rotation))
    }

    fn gated(gate: FlexTensor, up: FlexTensor, kind: Gate) -> FlexTensor {
        by_dtype!(gate, gated(&contiguous(&gate), &contiguous(&up), kind))
    }

    fn gated_backward(gate: FlexTensor, up: FlexTensor, dy: FlexTensor, kind: Gate) -> (FlexTensor, FlexTensor) {
        by_dtype!(gate, gated_backward(&contiguous(&gate), &contiguous(&up), &contiguous(&dy), kind))
    }

    fn attention(q: FlexTensor, k: FlexTensor, v: FlexTensor, geometry: AttentionGeometry) -> (FlexTensor, FlexTensor) {
        by_dtype!(q, attention([&contiguous(&q), &contiguous(&k), &contiguous(&v)], &geometry))
    }

    fn attention_backward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        out: FlexTensor,
        lse: FlexTensor,
        dout: FlexTensor,
        geometry: AttentionGeometry,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let qkv = [&contiguous(&q), &contiguous(&k), &contiguous(&v)];
        by_dtype!(q, attention_backward(qkv, [&out, &lse], &contiguous(&dout), &geometry))
    }

    fn linear(x: FlexTensor, w: Weight) -> FlexTensor {
        by_dtype!(x, linear(&contiguous(&x), &w))
    }

    fn linear_dx(w: Weight, dy: FlexTensor) -> FlexTensor {
        by_dtype!(dy, linear_dx(&w, &contiguous(&dy)))
    }

    fn lora_linear(x: FlexTensor, w: Weight, a: FlexTensor, b: FlexTensor, lora: Lora) -> (FlexTensor, FlexTensor) {
        by_dtype!(x, lora_linear(&contiguous(&x), &w, &contiguous(&a), &contiguous(&b), lora))
    }

    fn adapted_linear(x: FlexTensor, w: Weight, a: FlexTensor, b: FlexTensor, scale: f32) -> FlexTensor {
        by_dtype!(x, adapted_linear(&contiguous(&x), &w, &contiguous(&a), &contiguous(&b), scale))
    }

    fn lora_du(dy: FlexTensor, b: FlexTensor, lora: Lora) -> FlexTensor {
        by_dtype!(dy, lora_du(&contiguous(&dy), &contiguous(&b), lora))
    }

    fn lora_dx(dy: FlexTensor, w: Weight, du: FlexTensor, a: FlexTensor, lora: Lora) -> FlexTensor {
        by_dtype!(dy, lora_dx(&contiguous(&dy), &w, &du, &contiguous(&a), lora))
    }

    fn lora_da(du: FlexTensor, x: FlexTensor, lora: Lora) -> FlexTensor {
        by_dtype!(x, lora_da(&du, &contiguous(&x), lora))
    }

    fn lora_db(dy: FlexTensor, u: FlexTensor, lora: Lora) -> FlexTensor {
        by_dtype!(dy, lora_db(&contiguous(&dy), &u, lora))
    }

    fn trainable_rms_norm(x: FlexTensor, w: FlexTensor, epsilon: f32) -> (FlexTensor, FlexTensor) {
        <Flex as BlockOps>::rms_norm(x, w, epsilon)
    }

    fn rms_norm_dw(x: FlexTensor, rstd: FlexTensor, dy: FlexTensor) -> FlexTensor {
        by_dtype!(x, rms_norm_dw(&contiguous(&x), &rstd, &contiguous(&dy)))
    }

    fn trainable_linear(x: FlexTensor, w: FlexTensor) -> FlexTensor {
        <Flex as BlockOps>::linear(x, Weight::Dense(w))
    }

    fn linear_dw(x: FlexTensor, dy: FlexTensor) -> FlexTensor {
        by_dtype!(x, linear_dw(&contiguous(&x), &contiguous(&dy)))
    }

    fn add_bias(y: FlexTensor, b: FlexTensor) -> FlexTensor {
        by_dtype!(y, add_bias(&contiguous(&y), &contiguous(&b)))
    }

    fn bias_gradient(dy: FlexTensor) -> FlexTensor {
        by_dtype!(dy, bias_gradient(&contiguous(&dy)))
    }

    fn seed_gradient(_y: FlexTensor, _g: FlexTensor) -> FlexTensor {
        vector(vec![0.0])
    }
}
