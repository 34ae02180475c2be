//! The rates of one number format, each kernel timed at the sizes that training has.
//!
//! In:    a format, a bound of time.
//! Out:   [`ComputeRates`] whose kernels are all measured.
//! Never: prints.
//!
//! A product takes `operations / F + weight bytes / W`: measured with many and with few tokens, both follow.

use std::time::Duration;

use kernels::measure::{AttentionSize, Format, LinearSize, Operation, seconds};
use planner::rates::{ComputeRates, KernelRates};

/// Tokens of a micro-batch, and few of them.
const TOKENS: usize = 512;
const FEW_TOKENS: usize = 64;
/// Width, and width inside the feed-forward part.
const WIDTH: usize = 768;
const INNER: usize = 2048;
const RANK: usize = 32;
/// A head that a cache holds, and one that none holds in either format.
const NEAR_HEAD: LinearSize = LinearSize { tokens: 512, inputs: 512, outputs: 8192 };
const FAR_HEAD: LinearSize = LinearSize { tokens: 512, inputs: WIDTH, outputs: 32768 };
const ATTENTION: AttentionSize =
    AttentionSize { tokens: TOKENS, row: TOKENS, n_heads: 12, n_kv_heads: 4, head_dim: 64 };
/// Operations that are measured; each gets an equal part of the time.
const OPERATIONS: u32 = 27;

/// Bytes of one number.
fn bytes(format: Format) -> f64 {
    match format {
        Format::F32 => 4.0,
        Format::Bf16 => 2.0,
    }
}

fn up(tokens: usize) -> LinearSize {
    LinearSize { tokens, inputs: WIDTH, outputs: INNER }
}

fn down(tokens: usize) -> LinearSize {
    LinearSize { tokens, inputs: INNER, outputs: WIDTH }
}

fn flops(size: LinearSize) -> f64 {
    2.0 * (size.tokens * size.inputs * size.outputs) as f64
}

/// Times every kernel for about `time` in all.
pub(super) fn measure(format: Format, time: Duration) -> ComputeRates {
    let limit = time / OPERATIONS;
    let of = |operation| seconds(operation, format, limit);
    let sum = |operations: &[Operation]| operations.iter().map(|&operation| of(operation)).sum::<f64>();
    let products =
        |tokens| [up(tokens), down(tokens)].map(|size| [of(Operation::Linear(size)), of(Operation::LinearInput(size))]);
    let (many, few) = (products(TOKENS), products(FEW_TOKENS));
    let [all_many, all_few] = [many, few].map(|times| times.concat().iter().sum::<f64>());
    let worked = 4.0 * (flops(up(TOKENS)) - flops(up(FEW_TOKENS)));
    let matmul_flops = worked / (all_many - all_few).max(1e-9);
    let weights = 4.0 * (WIDTH * INNER) as f64 * bytes(format);
    let reading = (all_few - 4.0 * flops(up(FEW_TOKENS)) / matmul_flops).max(1e-3 * all_few);
    let weight_bytes_per_second = weights / reading;
    let product = |size: LinearSize| {
        let weight = (size.inputs * size.outputs) as f64 * bytes(format);
        flops(size) / matmul_flops + weight / weight_bytes_per_second
    };

    let weight_seconds = sum(&[Operation::LinearWeight(up(TOKENS)), Operation::LinearWeight(down(TOKENS))]);
    let vector = vector_bytes_per_second(&sum, bytes(format));
    let low_rank_flops = low_rank_flops(&of, &many, vector, bytes(format));

    let keys = (TOKENS as f64 + 128.0) / 2.0;
    let attention = 4.0 * (TOKENS * WIDTH) as f64 * keys;
    let logits_per_second = |size: LinearSize| {
        let beside = of(Operation::Head(size)) - 2.0 * product(size);
        (size.tokens * size.outputs) as f64 / beside.max(1e-6)
    };
    let gate_bytes = 8.0 * (TOKENS * INNER) as f64 * bytes(format);
    ComputeRates {
        matmul_flops,
        attention_flops: attention / of(Operation::Attention(ATTENTION)),
        vector_bytes_per_second: vector,
        measured: Some(KernelRates {
            weight_gradient_flops: 2.0 * flops(up(TOKENS)) / weight_seconds.max(1e-9),
            low_rank_flops,
            weight_bytes_per_second,
            attention_backward_flops: 2.5 * attention / of(Operation::AttentionBackward(ATTENTION)),
            gate_bytes_per_second: gate_bytes
                / sum(&[Operation::Gated(TOKENS, INNER), Operation::GatedBackward(TOKENS, INNER)]),
            logits_per_second: logits_per_second(NEAR_HEAD),
            far_logits_per_second: logits_per_second(FAR_HEAD),
        }),
    }
}

/// Norms forward and backward, a rotation, a sum: bytes read and written a second.
fn vector_bytes_per_second(sum: &dyn Fn(&[Operation]) -> f64, bytes: f64) -> f64 {
    let (tokens, width) = (TOKENS, WIDTH);
    let passes = [
        (Operation::Norm(tokens, width), 2.0),
        (Operation::NormBackward(tokens, width), 3.0),
        (Operation::Rotary(tokens, width), 2.0),
        (Operation::Add(tokens, width), 3.0),
    ];
    let moved: f64 = passes.iter().map(|(_, passes)| passes * (tokens * width) as f64 * bytes).sum();
    moved / sum(&passes.map(|(operation, _)| operation))
}

/// What an adapter adds to a layer's forward and backward pass, less the reading of what it works on. `dense` are the layers' own
/// seconds: forward and for the gradient of the input.
fn low_rank_flops(of: &dyn Fn(Operation) -> f64, dense: &[[f64; 2]; 2], vector: f64, bytes: f64) -> f64 {
    let (mut added, mut moved) = (0.0, 0.0);
    for (size, [forward, input]) in [up(TOKENS), down(TOKENS)].into_iter().zip(dense) {
        added += of(Operation::LoraForward(size, RANK)) - forward;
        added += of(Operation::LoraBackward(size, RANK)) - input;
        moved += 3.0 * (size.tokens * (size.inputs + 2 * size.outputs)) as f64 * bytes;
    }
    let worked = 2.0 * 3.0 * 2.0 * (TOKENS * RANK * (WIDTH + INNER)) as f64;
    worked / (added - moved / vector).max(added / 4.0).max(1e-9)
}

/// What a call costs beside its work: a sum of two small tensors.
pub(super) fn call_seconds() -> f64 {
    seconds(Operation::Add(8, 64), Format::F32, Duration::from_millis(20))
}
