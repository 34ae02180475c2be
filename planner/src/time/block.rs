//! The arithmetic of one block and of the head on one micro-batch.
//!
//! In:    the network's sizes, what is trained, the device's rates.
//! Out:   [`Load`]s of a forward and of a backward pass.
//! Never: counts what moves between tiers; that is [`super::step`]'s.
//!
//! A product of `t` tokens takes `2 t inputs outputs` operations forward, as many for the gradient of its input, and as many again for
//! the gradient of its weight where that is trained. Attention takes `4 t width keys` forward and 2.5 times that backward: five products
//! instead of two. Source: Dao et al. 2022, arXiv:2205.14135.

use super::load::Load;
use crate::architecture::Linear;
use crate::memory::Shape;
use crate::plan::{LoraPlan, MethodPlan, Precision, Resource};
use crate::rates::{ComputeRates, FAR_HEAD_BYTES, KernelRates, Rates};

/// Keys are read in tiles of so many: a query at the start of a tile pays for all of it (kernels' `KEY_TILE`).
const KEY_TILE: f64 = 128.0;
/// Products of attention's backward pass for each of the forward's: five for two.
const ATTENTION_BACKWARD: f64 = 2.5;
/// Rows of logits at once: as many as 64 MiB of f32 hold, at most 512 (kernels' `rows_of_chunk`).
const LOGIT_CHUNK_BYTES: u64 = 64 << 20;
const LOGIT_ROWS_MAX: u64 = 512;
/// Operations called for a block: forward, backward, and for each adapter on top of them.
const CALLS_FORWARD: f64 = 16.0;
const CALLS_BACKWARD: f64 = 32.0;
const CALLS_ADAPTER: f64 = 2.0;
/// Bytes that turning one number of a factor costs one thread, scattered as they are.
const TURN_BYTES: f64 = 16.0;

/// Counts work and divides it by the device's rates.
#[derive(Debug)]
pub(super) struct Arithmetic<'a> {
    shape: &'a Shape<'a>,
    rates: ComputeRates,
    kernels: KernelRates,
    device_bytes_per_second: f64,
    call_seconds: f64,
    copy_bytes_per_second: f64,
    tokens: f64,
    /// Bytes of one number.
    bytes: f64,
    hidden: f64,
    query: f64,
    key: f64,
    intermediate: f64,
}

impl<'a> Arithmetic<'a> {
    pub(super) fn new(shape: &'a Shape<'a>, rates: &Rates) -> Arithmetic<'a> {
        let compute = match shape.precision {
            Precision::F32 => rates.f32,
            Precision::Bf16 => rates.bf16,
        };
        let spec = shape.spec;
        Arithmetic {
            shape,
            rates: compute,
            kernels: compute.kernels(),
            device_bytes_per_second: rates.device_bytes_per_second,
            call_seconds: rates.host().call_seconds,
            copy_bytes_per_second: rates.host().copy_bytes_per_second,
            tokens: shape.tokens as f64,
            bytes: shape.precision.bytes() as f64,
            hidden: spec.hidden as f64,
            query: (spec.n_heads * spec.head_dim) as f64,
            key: (spec.n_kv_heads * spec.head_dim) as f64,
            intermediate: spec.intermediate as f64,
        }
    }

    /// A block's forward pass without attention.
    pub(super) fn forward(&self) -> Load {
        let mut load = Load::default();
        let lora = self.shape.method.lora();
        for linear in Linear::ALL {
            self.dense(&mut load, linear);
            if let Some(lora) = lora.filter(|lora| lora.targets.contains(&linear)) {
                self.low_rank(&mut load, linear, lora, 1.0);
            }
        }
        self.unpack(&mut load);
        self.vector(&mut load, self.element_wise_width([2.0, 2.0]) + 6.0 * self.hidden + self.dropped(2.0));
        self.gate(&mut load, 3.0);
        self.calls(&mut load, CALLS_FORWARD);
        load
    }

    /// A block's backward pass without attention. In the first block of a network whose embedding is frozen nothing lies below the q, k
    /// and v layers, so their input's gradient is left out.
    pub(super) fn backward(&self, is_first: bool) -> Load {
        let mut load = Load::default();
        let lora = self.shape.method.lora();
        for linear in Linear::ALL {
            let is_lowest = matches!(linear, Linear::Query | Linear::Key | Linear::Value);
            let wants_input = !(is_first && is_lowest && lora.is_some());
            if wants_input {
                self.dense(&mut load, linear);
            }
            if lora.is_none() {
                self.weight_gradient(&mut load, linear);
            }
            if let Some(lora) = lora.filter(|lora| lora.targets.contains(&linear)) {
                self.low_rank(&mut load, linear, lora, 2.0);
            }
        }
        self.unpack(&mut load);
        // Norms, and with trained weights their gradients; rotations; five sums where branches meet.
        let norms = if lora.is_none() { 5.0 } else { 3.0 };
        self.vector(&mut load, self.element_wise_width([norms, 2.0]) + 15.0 * self.hidden + self.dropped(8.0));
        self.gate(&mut load, 5.0);
        self.calls(&mut load, CALLS_BACKWARD);
        load
    }

    /// Attention of one layer, forward and backward, over rows of `row` tokens.
    pub(super) fn attention(&self, window: Option<usize>, row: f64) -> [Load; 2] {
        let row = row.min(self.tokens);
        let keys = match window.map(|window| window as f64).filter(|&window| window < row) {
            None => (row + KEY_TILE) / 2.0,
            Some(window) => window - window * window / (2.0 * row) + KEY_TILE,
        };
        let flops = 4.0 * self.tokens * self.query * keys;
        let (mut forward, mut backward) = (Load::default(), Load::default());
        forward.add(Resource::Compute, flops, flops / self.rates.attention_flops);
        let flops = ATTENTION_BACKWARD * flops;
        backward.add(Resource::Compute, flops, flops / self.kernels.attention_backward_flops);
        [forward, backward]
    }

    /// The embedding, the head and the loss with the gradients that start the backward pass; `share` of the rows is trained on.
    pub(super) fn head(&self, share: f64) -> Load {
        let mut load = Load::default();
        let vocabulary = self.shape.spec.vocabulary as f64;
        let rows = self.tokens * share;
        let chunk = (LOGIT_CHUNK_BYTES / (4 * self.shape.spec.vocabulary as u64).max(1)).clamp(1, LOGIT_ROWS_MAX);
        let reads = (rows / chunk as f64).ceil();
        let flops = 2.0 * rows * self.hidden * vocabulary;
        let weight = reads * self.hidden * vocabulary * self.bytes;
        let logits = rows * vocabulary * 4.0;
        for _ in 0..2 {
            self.product(&mut load, (flops, self.rates.matmul_flops), weight, logits);
        }
        if self.shape.method.full().is_some_and(|full| full.head) {
            self.product(&mut load, (flops, self.kernels.weight_gradient_flops), 0.0, weight + logits);
        }
        let logits_per_second = match self.hidden * vocabulary * self.bytes > FAR_HEAD_BYTES {
            true => self.kernels.far_logits_per_second,
            false => self.kernels.logits_per_second,
        };
        load.add(Resource::DeviceMemory, 4.0 * logits, rows * vocabulary / logits_per_second);
        self.vector(&mut load, 14.0 * self.hidden);
        load
    }

    fn dense(&self, load: &mut Load, linear: Linear) {
        let [outputs, inputs] = self.shape.spec.linear_shape(linear).map(|side| side as f64);
        let flops = 2.0 * self.tokens * inputs * outputs;
        let activations = self.tokens * (inputs + outputs) * self.bytes;
        self.product(load, (flops, self.rates.matmul_flops), inputs * outputs * self.bytes, activations);
    }

    /// Reads no weight: both operands are activations. Writing the result is counted with the gradient's way to the host.
    fn weight_gradient(&self, load: &mut Load, linear: Linear) {
        let [outputs, inputs] = self.shape.spec.linear_shape(linear).map(|side| side as f64);
        let flops = 2.0 * self.tokens * inputs * outputs;
        let moved = (self.tokens * (inputs + outputs) + inputs * outputs) * self.bytes;
        self.product(load, (flops, self.kernels.weight_gradient_flops), 0.0, moved);
    }

    /// The short products of an adapter: `times` the two of its forward pass. So short a sum is bound by what it reads as much as by
    /// arithmetic; the factor `b` is turned by one thread in each forward pass.
    fn low_rank(&self, load: &mut Load, linear: Linear, lora: &LoraPlan, times: f64) {
        let [outputs, inputs] = self.shape.spec.linear_shape(linear).map(|side| side as f64);
        let rank = lora.rank as f64;
        let flops = times * 2.0 * self.tokens * rank * (inputs + outputs);
        let moved = times * self.tokens * (inputs + 2.0 * outputs) * self.bytes;
        if !self.kernels.weight_bytes_per_second.is_finite() {
            return self.product(load, (flops, self.kernels.low_rank_flops), 0.0, moved);
        }
        let turned = TURN_BYTES * rank * outputs / self.copy_bytes_per_second;
        let seconds = flops / self.kernels.low_rank_flops + turned + times * CALLS_ADAPTER * self.call_seconds;
        load.add(Resource::Compute, flops, seconds);
        load.add(Resource::DeviceMemory, moved, moved / self.rates.vector_bytes_per_second);
    }

    /// A product: its weight's reading comes on top where that was measured, else the longer of arithmetic and memory counts.
    fn product(&self, load: &mut Load, (flops, flops_per_second): (f64, f64), weight_bytes: f64, moved_bytes: f64) {
        let arithmetic = flops / flops_per_second;
        if self.kernels.weight_bytes_per_second.is_finite() {
            let seconds = arithmetic + weight_bytes / self.kernels.weight_bytes_per_second;
            return load.add(Resource::Compute, flops, seconds);
        }
        let bytes = weight_bytes + moved_bytes;
        let memory = bytes / self.device_bytes_per_second;
        match arithmetic >= memory {
            true => load.add(Resource::Compute, flops, arithmetic),
            false => load.add(Resource::DeviceMemory, bytes, memory),
        }
    }

    /// A packed base is written out in the format that is computed in before each pass.
    fn unpack(&self, load: &mut Load) {
        let numbers = self.shape.sizes.block_parameters;
        if let Some(packed) = self.shape.method.base().packed_bytes(numbers) {
            let bytes = packed as f64 + numbers as f64 * self.bytes;
            load.add(Resource::DeviceMemory, bytes, bytes / self.rates.vector_bytes_per_second);
        }
    }

    /// Numbers that norms and rotations read and write for one token, `[norms, rotations]` times over their widths.
    fn element_wise_width(&self, [norms, rotations]: [f64; 2]) -> f64 {
        let spec = self.shape.spec;
        let heads = self.query + self.key;
        let wide = if spec.sandwich_norms { 4.0 } else { 2.0 };
        let of_heads = if spec.qk_norm { heads } else { 0.0 };
        norms * (wide * self.hidden + of_heads) + rotations * heads
    }

    /// Numbers that dropout reads and writes for one token, `passes` over every adapter's input.
    fn dropped(&self, passes: f64) -> f64 {
        let Some(lora) = self.shape.method.lora().filter(|lora| lora.dropout > 0.0) else { return 0.0 };
        passes * lora.targets.iter().map(|&linear| self.shape.spec.linear_shape(linear)[1] as f64).sum::<f64>()
    }

    fn vector(&self, load: &mut Load, numbers_per_token: f64) {
        let bytes = self.tokens * numbers_per_token * self.bytes;
        load.add(Resource::DeviceMemory, bytes, bytes / self.rates.vector_bytes_per_second);
    }

    fn gate(&self, load: &mut Load, passes: f64) {
        let bytes = self.tokens * passes * self.intermediate * self.bytes;
        load.add(Resource::DeviceMemory, bytes, bytes / self.kernels.gate_bytes_per_second);
    }

    fn calls(&self, load: &mut Load, calls: f64) {
        load.add(Resource::Compute, 0.0, calls * self.call_seconds);
    }
}

/// Bytes of one block as it is stored outside of the device.
pub(super) fn stored_block_bytes(shape: &Shape) -> f64 {
    let bytes = shape.precision.bytes() as f64;
    match shape.method {
        MethodPlan::Full(_) => shape.sizes.block_elements as f64 * bytes,
        MethodPlan::Lora(lora) => {
            let numbers = shape.sizes.block_parameters;
            lora.base.packed_bytes(numbers).map_or(numbers as f64 * bytes, |packed| packed as f64)
        }
    }
}
