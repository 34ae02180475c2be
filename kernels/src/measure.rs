//! What the CPU kernels sustain on this machine: each operation timed by itself, as a training step calls it.
//!
//! In:    an operation with its sizes, a number format, a bound of time.
//! Out:   seconds of one call.
//! Never: keeps tensors between calls; measures another device than the host's processor, but for [`product_flops`].
//!
//! Weights come from memory in training, because a step reads all of them once, and activations from the cache. So every call takes
//! another copy of the weight, and the same activations.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::backend::Flex;
use burn::tensor::{Bytes, DType, Device, Shape, Tensor};
use burn_flex::{FlexTensor, Layout};
use half::bf16;

use crate::check::values;
use crate::head::{HeadGradients, linear_cross_entropy};
use crate::nf4::quantise;
use crate::ops::{AttentionGeometry, BlockOps, Gate, Lora, Rotation};
use crate::packed::PackedFormat;
use crate::weight::BackendWeight;

/// Copies of a weight are made until they hold so many bytes: more than a processor's last cache.
const WEIGHTS_BYTES_MIN: usize = 48 << 20;
/// Calls that count, at least and at most.
const CALLS_MIN: usize = 3;
const CALLS_MAX: usize = 200;

/// Number format of activations and weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 32-bit IEEE float.
    F32,
    /// bfloat16 storage, f32 sums.
    Bf16,
}

impl Format {
    pub(crate) fn dtype(self) -> DType {
        match self {
            Format::F32 => DType::F32,
            Format::Bf16 => DType::BF16,
        }
    }
}

/// Sides of the square products that [`product_flops`] tries, and how long one call may take before a larger one is not tried.
const SIDES: [usize; 6] = [256, 512, 1024, 2048, 4096, 8192];
const CALL_SECONDS_MAX: f64 = 0.05;

/// What square products of `x wᵀ` reach on a device: the best side, floating-point operations a second.
pub fn product_flops(device: &Device, format: Format) -> (usize, f64) {
    let mut best = (SIDES[0], 0.0);
    for side in SIDES {
        let matrix = || {
            let values = Tensor::<1>::from_data(numbers(side * side).as_slice(), (device, DType::F32));
            values.reshape([side, side]).cast(format.dtype())
        };
        let (x, w) = (matrix(), matrix());
        // Only what is looked at is waited for.
        let finish = |y: Tensor<2>| drop(black_box(values(y.slice([0..1, 0..1]))));
        let call = || crate::frozen_linear(x.clone(), w.clone());
        // The first call compiles, and tries what is fastest.
        finish(call());
        let begun = Instant::now();
        finish(call());
        let once = begun.elapsed().as_secs_f64();
        let calls = ((0.2 / once.max(1e-6)) as usize).clamp(CALLS_MIN, CALLS_MAX);
        let begun = Instant::now();
        (1..calls).for_each(|_| drop(call()));
        finish(call());
        let flops = 2.0 * (side as f64).powi(3) * calls as f64 / begun.elapsed().as_secs_f64();
        if flops > best.1 {
            best = (side, flops);
        }
        if once > CALL_SECONDS_MAX {
            break;
        }
    }
    best
}

/// Sizes of a linear layer on a micro-batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearSize {
    /// Tokens of a micro-batch.
    pub tokens: usize,
    /// Width of the input.
    pub inputs: usize,
    /// Width of the output.
    pub outputs: usize,
}

/// Sizes of attention on a micro-batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionSize {
    /// Tokens of a micro-batch.
    pub tokens: usize,
    /// Tokens of a row.
    pub row: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// One operation of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `x wᵀ`.
    Linear(LinearSize),
    /// `dy w`.
    LinearInput(LinearSize),
    /// `dyᵀ x` in f32.
    LinearWeight(LinearSize),
    /// [`Operation::Linear`] with a weight in 4 bits ([`crate::nf4`]).
    Nf4(LinearSize),
    /// [`Operation::LinearInput`] with a weight in 4 bits.
    Nf4Input(LinearSize),
    /// [`Operation::Linear`] and a low-rank update of this rank.
    LoraForward(LinearSize, usize),
    /// All gradients of [`Operation::LoraForward`]: the factors' and the input's.
    LoraBackward(LinearSize, usize),
    /// Causal attention.
    Attention(AttentionSize),
    /// Its gradients.
    AttentionBackward(AttentionSize),
    /// Root-mean-square norm of `[tokens, width]`.
    Norm(usize, usize),
    /// Its gradient for the input.
    NormBackward(usize, usize),
    /// Rotation of `[tokens, width]`, heads of 64.
    Rotary(usize, usize),
    /// Gated activation of `[tokens, width]`.
    Gated(usize, usize),
    /// Its gradients.
    GatedBackward(usize, usize),
    /// Sum of two tensors `[tokens, width]`.
    Add(usize, usize),
    /// Loss of `tokens` rows over `outputs` words, and the gradient of the hidden states.
    Head(LinearSize),
    /// [`Operation::Head`] and the gradient of the head.
    HeadTrained(LinearSize),
}

/// Seconds of one call: the median of those that fit in `limit`. Training meets the same neighbours, so the fastest call would promise
/// what no step reaches (docs/LOG.md). Runs on the pool's workers, as training does.
pub fn seconds(operation: Operation, format: Format, limit: Duration) -> f64 {
    let mut calls = Vec::with_capacity(CALLS_MAX);
    rayon::scope(|_| {
        let mut call = prepare(operation, format.dtype());
        call();
        let begun = Instant::now();
        for number in 1..=CALLS_MAX {
            let started = Instant::now();
            call();
            calls.push(started.elapsed().as_secs_f64());
            if number >= CALLS_MIN && begun.elapsed() > limit {
                break;
            }
        }
    });
    calls.sort_by(f64::total_cmp);
    calls[calls.len() / 2]
}

/// Bytes a second at which one thread copies memory that no cache holds: read and written bytes both count.
pub fn copy_bytes_per_second() -> f64 {
    const WORDS: usize = 32 << 20;
    let source = vec![1.0f32; WORDS];
    let mut target = vec![0.0f32; WORDS];
    let mut best = f64::INFINITY;
    for _ in 0..4 {
        let started = Instant::now();
        black_box(&mut target).copy_from_slice(black_box(&source));
        best = best.min(started.elapsed().as_secs_f64());
    }
    8.0 * WORDS as f64 / best
}

/// Numbers between -1 and 1, the same every time.
fn numbers(count: usize) -> Vec<f32> {
    // Knuth's multiplicative hash; 24 bits are what an f32 holds.
    let unit = |at: usize| ((at as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1u32 << 23) as f32;
    (0..count).map(|at| unit(at) - 1.0).collect()
}

fn tensor(values: &[f32], shape: [usize; 2], dtype: DType) -> FlexTensor {
    let bytes = match dtype {
        DType::BF16 => Bytes::from_elems(values.iter().map(|&value| bf16::from_f32(value)).collect::<Vec<bf16>>()),
        _ => Bytes::from_elems(values.to_vec()),
    };
    FlexTensor::new(bytes, Layout::contiguous(Shape::from(shape)), dtype)
}

fn random(rows: usize, columns: usize, dtype: DType) -> FlexTensor {
    tensor(&numbers(rows * columns), [rows, columns], dtype)
}

/// Copies of a weight, handed out in turn.
struct Turns {
    copies: Vec<BackendWeight<Flex>>,
    next: usize,
}

impl Turns {
    fn of(rows: usize, columns: usize, dtype: DType) -> Turns {
        let bytes = rows * columns * if dtype == DType::BF16 { 2 } else { 4 };
        let copies = WEIGHTS_BYTES_MIN.div_ceil(bytes).clamp(2, 64);
        let values = numbers(rows * columns);
        let copy = |_| BackendWeight::Dense(tensor(&values, [rows, columns], dtype));
        Turns { copies: (0..copies).map(copy).collect(), next: 0 }
    }

    fn in_4_bits(rows: usize, columns: usize) -> Turns {
        let packed = quantise(&numbers(rows * columns)).expect("finite numbers");
        let copies = WEIGHTS_BYTES_MIN.div_ceil(packed.len()).clamp(2, 64);
        let shape = Shape::from([packed.len()]);
        let copy = |_| {
            let packed =
                FlexTensor::new(Bytes::from_elems(packed.clone()), Layout::contiguous(shape.clone()), DType::U8);
            BackendWeight::Packed { packed, shape: [rows, columns], format: PackedFormat::Nf4 }
        };
        Turns { copies: (0..copies).map(copy).collect(), next: 0 }
    }

    fn take(&mut self) -> BackendWeight<Flex> {
        self.next = (self.next + 1) % self.copies.len();
        self.copies[self.next].clone()
    }
}

type Call = Box<dyn FnMut()>;

fn prepare(operation: Operation, dtype: DType) -> Call {
    match operation {
        Operation::Linear(size) | Operation::LinearInput(size) | Operation::LinearWeight(size) => {
            linear(operation, size, Turns::of(size.outputs, size.inputs, dtype), dtype)
        }
        Operation::Nf4(size) | Operation::Nf4Input(size) => {
            linear(operation, size, Turns::in_4_bits(size.outputs, size.inputs), dtype)
        }
        Operation::LoraForward(size, rank) => lora_forward(size, rank, dtype),
        Operation::LoraBackward(size, rank) => lora_backward(size, rank, dtype),
        Operation::Attention(size) => attention(size, dtype),
        Operation::AttentionBackward(size) => attention_backward(size, dtype),
        Operation::Head(size) => head(size, dtype, None),
        Operation::HeadTrained(size) => head(size, dtype, Some(vec![0.0; size.inputs * size.outputs])),
        Operation::Norm(tokens, width)
        | Operation::NormBackward(tokens, width)
        | Operation::Rotary(tokens, width)
        | Operation::Gated(tokens, width)
        | Operation::GatedBackward(tokens, width)
        | Operation::Add(tokens, width) => element_wise(operation, [tokens, width], dtype),
    }
}

fn linear(operation: Operation, size: LinearSize, mut weights: Turns, dtype: DType) -> Call {
    let LinearSize { tokens, inputs, outputs } = size;
    let (x, dy) = (random(tokens, inputs, dtype), random(tokens, outputs, dtype));
    match operation {
        Operation::Linear(_) | Operation::Nf4(_) => {
            Box::new(move || drop(black_box(Flex::linear(x.clone(), weights.take()))))
        }
        Operation::LinearInput(_) | Operation::Nf4Input(_) => {
            Box::new(move || drop(black_box(Flex::linear_dx(weights.take(), dy.clone()))))
        }
        _ => Box::new(move || drop(black_box(Flex::linear_dw(x.clone(), dy.clone())))),
    }
}

const LORA: Lora = Lora { scale: 2.0, dropout: None };

fn lora_forward(LinearSize { tokens, inputs, outputs }: LinearSize, rank: usize, dtype: DType) -> Call {
    let (a, b) = (random(rank, inputs, DType::F32), random(outputs, rank, DType::F32));
    let (x, mut weights) = (random(tokens, inputs, dtype), Turns::of(outputs, inputs, dtype));
    Box::new(move || drop(black_box(Flex::lora_linear(x.clone(), weights.take(), a.clone(), b.clone(), LORA))))
}

fn lora_backward(LinearSize { tokens, inputs, outputs }: LinearSize, rank: usize, dtype: DType) -> Call {
    let (a, b) = (random(rank, inputs, DType::F32), random(outputs, rank, DType::F32));
    let (x, dy) = (random(tokens, inputs, dtype), random(tokens, outputs, dtype));
    let (u, mut weights) = (random(tokens, rank, dtype), Turns::of(outputs, inputs, dtype));
    Box::new(move || {
        let du = Flex::lora_du(dy.clone(), b.clone(), LORA);
        black_box(Flex::lora_da(du.clone(), x.clone(), LORA));
        black_box(Flex::lora_db(dy.clone(), u.clone(), LORA));
        black_box(Flex::lora_dx(dy.clone(), weights.take(), du, a.clone(), LORA));
    })
}

fn geometry(size: &AttentionSize) -> AttentionGeometry {
    let bounds = (0..size.tokens).step_by(size.row).chain([size.tokens]);
    AttentionGeometry {
        n_heads: size.n_heads,
        n_kv_heads: size.n_kv_heads,
        head_dim: size.head_dim,
        scale: (size.head_dim as f32).powf(-0.5),
        window: None,
        segments: Arc::new(bounds.map(|bound| bound as u32).collect()),
    }
}

fn projections(size: &AttentionSize, dtype: DType) -> [FlexTensor; 3] {
    let heads = |count: usize| random(size.tokens, count * size.head_dim, dtype);
    [heads(size.n_heads), heads(size.n_kv_heads), heads(size.n_kv_heads)]
}

fn attention(size: AttentionSize, dtype: DType) -> Call {
    let ([q, k, v], geometry) = (projections(&size, dtype), geometry(&size));
    let call = move || <Flex as BlockOps>::attention(q.clone(), k.clone(), v.clone(), geometry.clone());
    Box::new(move || drop(black_box(call())))
}

fn attention_backward(size: AttentionSize, dtype: DType) -> Call {
    let ([q, k, v], geometry) = (projections(&size, dtype), geometry(&size));
    let (out, lse) = <Flex as BlockOps>::attention(q.clone(), k.clone(), v.clone(), geometry.clone());
    let dout = random(size.tokens, size.n_heads * size.head_dim, dtype);
    Box::new(move || {
        let inputs = (q.clone(), k.clone(), v.clone());
        let (out, lse, dout) = (out.clone(), lse.clone(), dout.clone());
        black_box(Flex::attention_backward(inputs.0, inputs.1, inputs.2, out, lse, dout, geometry.clone()));
    })
}

fn vector(width: usize) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(vec![1.0f32; width]), Layout::contiguous(Shape::from([width])), DType::F32)
}

fn element_wise(operation: Operation, [tokens, width]: [usize; 2], dtype: DType) -> Call {
    let (x, y, dy) = (random(tokens, width, dtype), random(tokens, width, dtype), random(tokens, width, dtype));
    let weight = vector(width);
    match operation {
        Operation::Norm(..) => Box::new(move || drop(black_box(Flex::rms_norm(x.clone(), weight.clone(), 1e-5)))),
        Operation::NormBackward(..) => {
            let rstd = vector(tokens);
            let call = move || Flex::rms_norm_dx(x.clone(), weight.clone(), rstd.clone(), dy.clone());
            Box::new(move || drop(black_box(call())))
        }
        Operation::Rotary(..) => {
            let (cos, sin) = (random(tokens, 32, DType::F32), random(tokens, 32, DType::F32));
            let call = move || Flex::rotary(x.clone(), cos.clone(), sin.clone(), 64, Rotation::Forward);
            Box::new(move || drop(black_box(call())))
        }
        Operation::Gated(..) => Box::new(move || drop(black_box(Flex::gated(x.clone(), y.clone(), Gate::Silu)))),
        Operation::GatedBackward(..) => {
            Box::new(move || drop(black_box(Flex::gated_backward(x.clone(), y.clone(), dy.clone(), Gate::Silu))))
        }
        _ => {
            let [x, y] = [x, y].map(Tensor::<2>::from_primitive::<Flex>);
            Box::new(move || drop(black_box(x.clone() + y.clone())))
        }
    }
}

fn head(LinearSize { tokens, inputs, outputs }: LinearSize, dtype: DType, mut gradient: Option<Vec<f32>>) -> Call {
    let [x, weight] =
        [random(tokens, inputs, dtype), random(outputs, inputs, dtype)].map(Tensor::<2>::from_primitive::<Flex>);
    let targets: Vec<u32> = (0..tokens).map(|at| (at % outputs) as u32).collect();
    Box::new(move || {
        let wanted = HeadGradients { scale: 1.0, weight_vd: gradient.as_deref_mut() };
        black_box(linear_cross_entropy(x.clone(), weight.clone(), &targets, Some(wanted)).sum);
    })
}
