//! What is alive from the first step to the last: weights, arrays, buffers, the process itself.
//!
//! In:    a [`Shape`].
//! Out:   terms, those in files too.
//! Never: anything that depends on the tokens of a micro-batch, but for the buffers that products keep.

use super::{Shape, Term, term};
use crate::plan::{DeviceChoice, MethodPlan, OptimizerKind, Precision, Tier};

/// Code, thread stacks and small blocks of a process on the CPU, bytes: measured with no model, and what each core adds.
const RUNTIME_CPU_BYTES: u64 = 54_000_000;
const RUNTIME_CORE_BYTES: u64 = 2_000_000;
/// What a thread takes that pages weights, moves block inputs, drives the disks, or writes a checkpoint while training goes on: its stack and
/// small blocks.
const MOVER_BYTES: u64 = 3_000_000;
/// The process with a CUDA context.
const RUNTIME_CUDA_BYTES: u64 = 600_000_000;
/// The process with a Vulkan device.
const RUNTIME_VULKAN_BYTES: u64 = 270_000_000;
/// A tokenizer's maps both ways and its merges for each entry of the vocabulary, bytes: measured 200 from a folder, 600 with the metadata
/// of a GGUF file.
const TEXT_BYTES_PER_ENTRY: u64 = 440;
/// Blocks of streamed weights at once: the live one and the next.
pub(super) const STREAMED_BLOCKS: u64 = 2;
/// Results with more rows than this have their right operand packed (gemmkit's default on x86).
const PACKED_FROM_ROWS: u64 = 2048;
/// Depth of a panel of f32 numbers.
const PANEL_DEPTH: u64 = 512;
/// What panels of f32 numbers fill at most: 15 of 16 ways of a last-level cache of 32 MiB.
const PANELS_BYTES_MAX: u64 = 30 << 20;
/// Rows of the left operand packed at once for each thread; in bf16, whose panels are as deep as the sum is long, half as many.
const PACKED_ROWS: u64 = 256;
/// From so many threads on the left operand is packed whole.
const PACKED_WHOLE_FROM_CORES: usize = 16;

/// Numbers of a matrix in 4 bits that products on the processor decode at once.
const PANEL_NUMBERS: u64 = 1 << 19;

impl Shape<'_> {
    /// Terms of every phase.
    pub(super) fn fixed(&self) -> Vec<Term> {
        let mut terms = Vec::with_capacity(16);
        self.weights(&mut terms);
        self.arrays(&mut terms);
        let placement = self.placement;
        let classes = [placement.weights, placement.gradients, placement.optimizer, placement.activations];
        if classes.contains(&Tier::Nvme) {
            terms.push(Term { pinned: true, ..term("I/O buffers", Tier::Dram, self.buffers_bytes) });
        }
        let text = (self.spec.vocabulary as u64).saturating_mul(TEXT_BYTES_PER_ENTRY);
        terms.push(term("text", self.host(), text));
        let runtime = match self.device {
            DeviceChoice::Cpu => RUNTIME_CPU_BYTES.saturating_add(self.cores as u64 * RUNTIME_CORE_BYTES),
            DeviceChoice::Cuda(_) => RUNTIME_CUDA_BYTES,
            DeviceChoice::Vulkan { shares_memory: false, .. } => RUNTIME_VULKAN_BYTES,
            DeviceChoice::Vulkan { shares_memory: true, .. } => RUNTIME_VULKAN_BYTES.saturating_add(RUNTIME_CPU_BYTES),
        };
        match self.device.is_host() {
            true => terms.push(term("packing", Tier::Device, self.packing())),
            // What goes to a card passes through host memory, which the driver keeps: as much as the largest tensor.
            false => terms.push(term(
                "staging",
                Tier::Dram,
                self.sizes.largest_tensor.saturating_mul(self.precision.bytes()),
            )),
        }
        let elsewhere = [placement.weights != Tier::Device, placement.activations != Tier::Device];
        // Every run saves: one thread reads, one hashes, one writes.
        let movers =
            3 + elsewhere.into_iter().filter(|&moves| moves).count() + usize::from(classes.contains(&Tier::Nvme));
        terms.push(term("movers", self.host(), movers as u64 * MOVER_BYTES));
        terms.push(term("runtime", Tier::Device, runtime));
        terms
    }

    /// Bytes of one block's weights as they are kept.
    pub(super) fn block_bytes(&self) -> u64 {
        let (b, sizes) = (self.precision.bytes(), self.sizes);
        match self.method.base().packed_bytes(sizes.block_linear) {
            Some(packed) => packed.saturating_add((sizes.block_parameters - sizes.block_linear).saturating_mul(b)),
            None => sizes.block_parameters.saturating_mul(b),
        }
    }

    fn weights(&self, terms: &mut Vec<Term>) {
        let (b, tier, blocks) = (self.precision.bytes(), self.placement.weights, self.spec.n_layers() as u64);
        let outer = (self.sizes.parameters - blocks * self.sizes.block_parameters).saturating_mul(b);
        let all_blocks = self.block_bytes().saturating_mul(blocks);
        if self.method.base().packed_bits().is_some() {
            let decoded = match self.device.is_host() {
                true => self.sizes.largest_linear.min(PANEL_NUMBERS),
                false => self.sizes.largest_linear,
            };
            terms.push(term("decoded weights", Tier::Device, decoded.saturating_mul(b)));
        }
        if tier == Tier::Device {
            terms.push(term("weights", Tier::Device, all_blocks.saturating_add(outer)));
            return;
        }
        terms.push(term("weights", Tier::Device, outer));
        let streamed = self.block_bytes().saturating_mul(STREAMED_BLOCKS.min(blocks));
        terms.push(term("streamed blocks", Tier::Device, streamed));
        match (self.method, self.precision) {
            (MethodPlan::Lora(_), _) => terms.push(term("stored weights", tier, all_blocks)),
            (MethodPlan::Full(_), Precision::Bf16) => {
                terms.push(term("stored weights", tier, self.sizes.elements.saturating_mul(b)));
            }
            (MethodPlan::Full(_), Precision::F32) => {}
        }
    }

    /// Trained parameters, optimizer states and gradients, flat and in f32 where the rule does not say otherwise.
    fn arrays(&self, terms: &mut Vec<Term>) {
        let (elements, placement) = (self.sizes.elements, self.placement);
        let serve_as_weights = self.precision == Precision::F32 && placement.weights != Tier::Device;
        let (name, tier) = match self.method {
            MethodPlan::Lora(_) => ("adapters", placement.optimizer),
            MethodPlan::Full(_) if serve_as_weights => ("masters", placement.weights),
            MethodPlan::Full(_) => ("masters", placement.optimizer),
        };
        let (states_tier, states) = self.states();
        terms.push(term(name, tier, elements.saturating_mul(4)));
        terms.push(term("optimizer states", states_tier, states));
        if self.has_gradient_arrays {
            terms.push(term("gradients", placement.gradients, elements.saturating_mul(4)));
        }
        terms.push(term("adapters in use", Tier::Device, self.adapters_in_use()));
    }

    /// The copy of trained adapters that computes.
    pub(super) fn adapters_in_use(&self) -> u64 {
        self.method.lora().map_or(0, |_| self.sizes.trained.saturating_mul(4))
    }

    fn states(&self) -> (Tier, u64) {
        let (elements, tier) = (self.sizes.elements, self.placement.optimizer);
        match self.optimizer.kind {
            OptimizerKind::Adamw => (tier, elements.saturating_mul(8)),
            // Two moments of one byte, and of each 256 numbers two f32 scales.
            OptimizerKind::Adamw8bit => (tier, (elements / 256).saturating_mul(2 * (256 + 4))),
            OptimizerKind::AdamwBf16 | OptimizerKind::Lion => (tier, elements.saturating_mul(4)),
            OptimizerKind::Sgd if self.optimizer.momentum > 0.0 => (tier, elements.saturating_mul(4)),
            OptimizerKind::Sgd => (tier, 0),
            OptimizerKind::Adafactor => {
                let tier = if tier == Tier::Nvme { Tier::Dram } else { tier };
                (tier, self.sizes.factored.saturating_mul(4))
            }
        }
    }

    /// Buffers in which the products of a block and of the head pack their operands; they grow to the largest, a power of two.
    fn packing(&self) -> u64 {
        let (h, (q, _, f)) = (self.spec.hidden as u64, self.widths());
        let widest = h.max(q).max(f);
        let b = self.precision.bytes();
        let (depth, packed_rows) = match self.precision {
            Precision::F32 => (PANEL_DEPTH, PACKED_ROWS),
            Precision::Bf16 => (widest, PACKED_ROWS / 2),
        };
        let left_rows = match self.cores >= PACKED_WHOLE_FROM_CORES {
            true => widest,
            false => packed_rows * self.cores as u64,
        };
        let left = left_rows.saturating_mul(depth).saturating_mul(b);
        let right = match self.precision {
            Precision::F32 if widest <= PACKED_FROM_ROWS => 0,
            Precision::F32 => (self.tokens.max(widest)).saturating_mul(depth * b).min(PANELS_BYTES_MAX),
            Precision::Bf16 if widest <= PACKED_FROM_ROWS && !self.fast_bf16 => 0,
            Precision::Bf16 => self.tokens.saturating_mul(depth).saturating_mul(b),
        };
        left.saturating_add(right).checked_next_power_of_two().unwrap_or(u64::MAX)
    }
}
