//! The kernels of [`cube`] under Burn's CubeCL backend: CUDA cards, and Vulkan devices.
//!
//! In:    tensors of one device in f32 or bf16; views are made contiguous first.
//! Out:   fresh contiguous tensors, enqueued.
//! Never: keeps a packed matrix as numbers longer than its product takes.
//!
//! Products are Burn's own, large ones with tensor cores tried out for each size.

mod attention;
mod product;

use std::cell::RefCell;
use std::sync::Arc;

use burn::backend::ops::FloatTensorOps;
use burn::backend::{Shape, TensorMetadata};
use burn::tensor::{DType, FloatDType, Tensor, TensorData};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use cube::{AttentionShape, Buffer, Nf4, Number, Rows};

use crate::head::{Part, Wanted};
use crate::int8;
use crate::nf4::{self, Layout};
use crate::ops::{AttentionGeometry, BlockOps, Dropout, Gate, Lora, Rotation};
use crate::packed::PackedFormat;
use crate::twin;
use crate::weight::BackendWeight;
use attention::Tiling;
use product::product;

type Weight = BackendWeight<CubeBackend>;

/// What many calls of a pass read, sent to a device once.
#[derive(Default)]
struct Sent {
    /// Numbers of 4-bit codes and of their scales.
    tables: Option<Buffer>,
    /// The rows of the micro-batch that was seen last.
    rows: Option<(Arc<Vec<u32>>, Rows)>,
}

thread_local! {
    /// By device; a thread has a stream of its own, whose memory pool holds what it sent.
    static SENT: RefCell<Vec<(CubeDevice, Sent)>> = const { RefCell::new(Vec::new()) };
}

fn with_sent<R>(device: &CubeDevice, work: impl FnOnce(&mut Sent) -> R) -> R {
    SENT.with_borrow_mut(|all| {
        let at = all.iter().position(|(known, _)| known == device).unwrap_or_else(|| {
            all.push((device.clone(), Sent::default()));
            all.len() - 1
        });
        work(&mut all[at].1)
    })
}

/// Where rows lie, on the device of a tensor: all blocks of a pass share them.
fn rows_beside(beside: &CubeTensor, segments: &Arc<Vec<u32>>) -> Rows {
    with_sent(&beside.device, |sent| match &sent.rows {
        Some((known, rows)) if Arc::ptr_eq(known, segments) => rows.clone(),
        _ => {
            let rows = Rows::new(&beside.client, segments);
            sent.rows = Some((segments.clone(), rows.clone()));
            rows
        }
    })
}

fn tables_beside(beside: &CubeTensor) -> Buffer {
    with_sent(&beside.device, |sent| {
        let made = || {
            let tables = nf4::tables();
            Buffer::words(beside.client.create_from_slice(bytemuck::cast_slice(&tables)), tables.len())
        };
        sent.tables.get_or_insert_with(made).clone()
    })
}

/// The format of numbers.
fn number(dtype: DType) -> Number {
    match dtype {
        DType::F32 => Number::F32,
        DType::BF16 => Number::Bf16,
        other => panic!("kernels compute in f32 and bf16, not in {other:?}"),
    }
}

/// A contiguous tensor's numbers.
fn buffer(tensor: CubeTensor) -> Buffer {
    let tensor = into_contiguous(tensor);
    let (len, number) = (tensor.shape().num_elements(), number(tensor.dtype));
    Buffer::new(tensor.handle, len, number)
}

/// A tensor on the device of another.
fn tensor(buffer: &Buffer, shape: impl Into<Shape>, dtype: DType, beside: &CubeTensor) -> CubeTensor {
    let (client, device) = (beside.client.clone(), beside.device.clone());
    CubeTensor::new_contiguous(client, device, shape.into(), buffer.handle().clone(), dtype)
}

fn rows_columns(tensor: &CubeTensor) -> [usize; 2] {
    let shape = tensor.shape();
    [shape[0], shape[1]]
}

fn gate(kind: Gate) -> cube::Gate {
    match kind {
        Gate::Silu => cube::Gate::Silu,
        Gate::GeluTanh => cube::Gate::GeluTanh,
    }
}

fn attention_shape(geometry: &AttentionGeometry) -> AttentionShape {
    AttentionShape {
        n_heads: geometry.n_heads,
        n_kv_heads: geometry.n_kv_heads,
        head_dim: geometry.head_dim,
        scale: geometry.scale,
        window: geometry.window,
    }
}

fn cast(tensor: CubeTensor, dtype: DType) -> CubeTensor {
    let wanted = match dtype {
        DType::BF16 => FloatDType::BF16,
        _ => FloatDType::F32,
    };
    if tensor.dtype == dtype { tensor } else { CubeBackend::float_cast(tensor, wanted) }
}

fn matmul(a: CubeTensor, b: CubeTensor) -> CubeTensor {
    let dtype = a.dtype;
    product(a, b, dtype)
}

/// A product whose sums are not rounded to the operands' format.
fn product_in_f32(a: CubeTensor, b: CubeTensor) -> CubeTensor {
    product(a, b, DType::F32)
}

fn transposed(tensor: CubeTensor) -> CubeTensor {
    CubeBackend::float_transpose(tensor)
}

fn scaled(tensor: CubeTensor, factor: f32) -> CubeTensor {
    CubeBackend::float_mul_scalar(tensor, factor.into())
}

/// The matrix as a product in `dtype` takes it; a packed one is decoded, and goes when the product has been enqueued.
fn dense(weight: Weight, dtype: DType) -> CubeTensor {
    let (packed, shape, format) = match weight {
        BackendWeight::Dense(dense) => return dense,
        BackendWeight::Packed { packed, shape, format } => (into_contiguous(packed), shape, format),
    };
    let (elements, number) = (shape[0] * shape[1], number(dtype));
    let words = Buffer::words(packed.handle.clone(), format.bytes(elements) / 4);
    let numbers = match format {
        PackedFormat::Nf4 => from_4_bits(&packed, words, elements, number),
        PackedFormat::Int8 => cube::decode_int8(&packed.client, &words, elements, int8::scales_at(elements), number),
    };
    tensor(&numbers, shape, dtype, &packed)
}

fn from_4_bits(beside: &CubeTensor, packed: Buffer, elements: usize, number: Number) -> Buffer {
    let layout = Layout::of(elements);
    let [scales_at, groups_at, mean_at] = layout.starts();
    let matrix = Nf4 { packed, tables: tables_beside(beside), elements, scales_at, groups_at, mean_at };
    cube::decode(&beside.client, &matrix, 0, elements, number)
}

/// Burn's tensor of a backend's.
fn wrapped<const D: usize>(tensor: CubeTensor) -> Tensor<D> {
    Tensor::from_primitive::<CubeBackend>(tensor)
}

fn unwrapped(tensor: Tensor<2>) -> CubeTensor {
    tensor.try_into_primitive::<CubeBackend>().expect("a plain tensor of a card")
}

/// The twin's dropout: its mask is made on the host.
fn dropped(x: CubeTensor, dropout: Option<Dropout>) -> CubeTensor {
    match dropout {
        Some(numbers) => unwrapped(twin::dropout(wrapped(x), numbers)),
        None => x,
    }
}

/// One chunk of [`crate::head`]: logits in f32, turned into their gradient where they are.
pub(crate) fn head_chunk(x: Tensor<2>, w: Tensor<2>, targets: &[u32], wanted: Wanted) -> Part {
    let (x, w) = (unwrapped(x), unwrapped(w));
    let dtype = x.dtype;
    let logits = into_contiguous(product_in_f32(x.clone(), transposed(w.clone())));
    let client = logits.client.clone();
    let places = Buffer::words(client.create_from_slice(bytemuck::cast_slice(targets)), targets.len());
    let scale = wanted.map(|(scale, _)| scale);
    let losses = cube::cross_entropy(&client, &buffer(logits.clone()), &places, scale, Number::F32);
    let losses = wrapped::<1>(tensor(&losses, [targets.len()], DType::F32, &logits));
    let losses: Vec<f32> = losses.into_data().try_into_vec().expect("losses are f32");
    let sum = losses.iter().map(|&loss| f64::from(loss)).sum();
    let Some((_, trained)) = wanted else { return Part { sum, dx_rd: None, dw_vd: None } };
    let dw_vd = trained.then(|| matmul(transposed(logits.clone()), cast(x, DType::F32)));
    let dx = matmul(cast(logits, dtype), w);
    Part { sum, dx_rd: Some(wrapped(dx)), dw_vd: dw_vd.map(wrapped) }
}

impl BlockOps for CubeBackend {
    fn rms_norm(x: CubeTensor, w: CubeTensor, epsilon: f32) -> (CubeTensor, CubeTensor) {
        let [rows, width] = rows_columns(&x);
        let (like, format) = (x.clone(), number(x.dtype));
        let (y, rstd) = cube::rms_norm(&like.client, &buffer(x), &buffer(w), epsilon, format);
        (tensor(&y, [rows, width], like.dtype, &like), tensor(&rstd, [rows], DType::F32, &like))
    }

    fn rms_norm_dx(x: CubeTensor, w: CubeTensor, rstd: CubeTensor, dy: CubeTensor) -> CubeTensor {
        let (like, format) = (x.clone(), number(x.dtype));
        let dx = cube::rms_norm_dx(&like.client, &buffer(x), &buffer(w), &buffer(rstd), &buffer(dy), format);
        tensor(&dx, rows_columns(&like), like.dtype, &like)
    }

    fn rotary(x: CubeTensor, cos: CubeTensor, sin: CubeTensor, head_dim: usize, rotation: Rotation) -> CubeTensor {
        let (like, format) = (x.clone(), number(x.dtype));
        let rotation = match rotation {
            Rotation::Forward => cube::Rotation::Forward,
            Rotation::Inverse => cube::Rotation::Inverse,
        };
        let (cos, sin) = (buffer(cos), buffer(sin));
        let y = cube::rotary(&like.client, &buffer(x), [&cos, &sin], head_dim, rotation, format);
        tensor(&y, rows_columns(&like), like.dtype, &like)
    }

    fn gated(gate_td: CubeTensor, up: CubeTensor, kind: Gate) -> CubeTensor {
        let (like, format) = (gate_td.clone(), number(gate_td.dtype));
        let y = cube::gated(&like.client, &buffer(gate_td), &buffer(up), gate(kind), format);
        tensor(&y, rows_columns(&like), like.dtype, &like)
    }

    fn gated_backward(gate_td: CubeTensor, up: CubeTensor, dy: CubeTensor, kind: Gate) -> (CubeTensor, CubeTensor) {
        let (like, format) = (gate_td.clone(), number(gate_td.dtype));
        let inputs = [buffer(gate_td), buffer(up), buffer(dy)];
        let (dgate, dup) = cube::gated_backward(&like.client, inputs.each_ref(), gate(kind), format);
        let shape = rows_columns(&like);
        (tensor(&dgate, shape, like.dtype, &like), tensor(&dup, shape, like.dtype, &like))
    }

    fn attention(q: CubeTensor, k: CubeTensor, v: CubeTensor, geometry: AttentionGeometry) -> (CubeTensor, CubeTensor) {
        if attention::is_faster(&q, &geometry) {
            return attention::forward([q, k, v], &geometry, Tiling::default());
        }
        let (like, format) = (q.clone(), number(q.dtype));
        let [tokens, width] = rows_columns(&q);
        let rows = rows_beside(&like, &geometry.segments);
        let qkv = [q, k, v].map(buffer);
        let shape = attention_shape(&geometry);
        let (out, lse) = cube::attention(&like.client, qkv.each_ref(), &rows, shape, format);
        let lse = tensor(&lse, [geometry.n_heads, tokens], DType::F32, &like);
        (tensor(&out, [tokens, width], like.dtype, &like), lse)
    }

    fn attention_backward(
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
        out: CubeTensor,
        lse: CubeTensor,
        dout: CubeTensor,
        geometry: AttentionGeometry,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        if attention::is_faster(&q, &geometry) {
            let [dq, dk, dv] = attention::backward([q, k, v], [out, lse, dout], &geometry, Tiling::default());
            return (dq, dk, dv);
        }
        let (like, format) = (q.clone(), number(q.dtype));
        let shapes = [&q, &k, &v].map(rows_columns);
        let rows = rows_beside(&like, &geometry.segments);
        let (qkv, results) = ([q, k, v].map(buffer), [out, lse, dout].map(buffer));
        let shape = attention_shape(&geometry);
        let [dq, dk, dv] =
            cube::attention_backward(&like.client, qkv.each_ref(), results.each_ref(), &rows, shape, format);
        let of = |gradient: &Buffer, shape| tensor(gradient, shape, like.dtype, &like);
        (of(&dq, shapes[0]), of(&dk, shapes[1]), of(&dv, shapes[2]))
    }

    fn linear(x: CubeTensor, w: Weight) -> CubeTensor {
        let w = dense(w, x.dtype);
        matmul(x, transposed(w))
    }

    fn linear_dx(w: Weight, dy: CubeTensor) -> CubeTensor {
        let w = dense(w, dy.dtype);
        matmul(dy, w)
    }

    fn lora_linear(x: CubeTensor, w: Weight, a: CubeTensor, b: CubeTensor, lora: Lora) -> (CubeTensor, CubeTensor) {
        let dtype = x.dtype;
        let y = Self::linear(x.clone(), w);
        let u = matmul(dropped(x, lora.dropout), transposed(cast(a, dtype)));
        let update = scaled(matmul(u.clone(), transposed(cast(b, dtype))), lora.scale);
        (CubeBackend::float_add(y, update), u)
    }

    fn adapted_linear(x: CubeTensor, w: Weight, a: CubeTensor, b: CubeTensor, scale: f32) -> CubeTensor {
        let y = Self::linear(x.clone(), w);
        let update = matmul(matmul(x, transposed(a)), b);
        CubeBackend::float_add(y, scaled(update, scale))
    }

    fn lora_du(dy: CubeTensor, b: CubeTensor, lora: Lora) -> CubeTensor {
        let b = cast(b, dy.dtype);
        scaled(matmul(dy, b), lora.scale)
    }

    fn lora_dx(dy: CubeTensor, w: Weight, du: CubeTensor, a: CubeTensor, lora: Lora) -> CubeTensor {
        let a = cast(a, dy.dtype);
        let dx = Self::linear_dx(w, dy);
        CubeBackend::float_add(dx, dropped(matmul(du, a), lora.dropout))
    }

    fn lora_da(du: CubeTensor, x: CubeTensor, lora: Lora) -> CubeTensor {
        product_in_f32(transposed(du), dropped(x, lora.dropout))
    }

    fn lora_db(dy: CubeTensor, u: CubeTensor, lora: Lora) -> CubeTensor {
        scaled(product_in_f32(transposed(dy), u), lora.scale)
    }

    fn trainable_rms_norm(x: CubeTensor, w: CubeTensor, epsilon: f32) -> (CubeTensor, CubeTensor) {
        Self::rms_norm(x, w, epsilon)
    }

    fn rms_norm_dw(x: CubeTensor, rstd: CubeTensor, dy: CubeTensor) -> CubeTensor {
        let ([_, width], like, format) = (rows_columns(&x), x.clone(), number(x.dtype));
        let dw = cube::rms_norm_dw(&like.client, &buffer(x), &buffer(rstd), &buffer(dy), format);
        tensor(&dw, [width], DType::F32, &like)
    }

    fn trainable_linear(x: CubeTensor, w: CubeTensor) -> CubeTensor {
        Self::linear(x, BackendWeight::Dense(w))
    }

    fn linear_dw(x: CubeTensor, dy: CubeTensor) -> CubeTensor {
        product_in_f32(transposed(dy), x)
    }

    fn add_bias(y: CubeTensor, b: CubeTensor) -> CubeTensor {
        let width = b.shape().num_elements();
        CubeBackend::float_add(y, CubeBackend::float_reshape(b, Shape::from([1, width])))
    }

    fn bias_gradient(dy: CubeTensor) -> CubeTensor {
        let [_, width] = rows_columns(&dy);
        let sums = CubeBackend::float_sum_dim(cast(dy, DType::F32), 0);
        CubeBackend::float_reshape(sums, Shape::from([width]))
    }

    fn seed_gradient(y: CubeTensor, _g: CubeTensor) -> CubeTensor {
        CubeBackend::float_from_data(TensorData::new(vec![0.0f32], [1]), &y.device)
    }
}

/// Output, log-sum-exps and gradients of attention by products in small tiles, and by the kernels.
#[cfg(test)]
pub(crate) fn attention_both_ways(
    qkv: [Tensor<2>; 3],
    dout: Tensor<2>,
    geometry: &AttentionGeometry,
) -> [Vec<Tensor<2>>; 2] {
    let [q, k, v] = qkv.map(unwrapped);
    let (qkv, dout) = ([q.clone(), k.clone(), v.clone()], unwrapped(dout));
    let tiling = Tiling { queries: 32, score_bytes: 40_000 };
    let (out, lse) = attention::forward(qkv.clone(), geometry, tiling);
    let gradients = attention::backward(qkv, [out.clone(), lse.clone(), dout.clone()], geometry, tiling);
    let by_products = [vec![out, lse], gradients.to_vec()].concat();
    let (out, lse) = <CubeBackend as BlockOps>::attention(q.clone(), k.clone(), v.clone(), geometry.clone());
    let (dq, dk, dv) = CubeBackend::attention_backward(q, k, v, out.clone(), lse.clone(), dout, geometry.clone());
    [by_products, vec![out, lse, dq, dk, dv]].map(|results| results.into_iter().map(wrapped).collect())
}
