//! How much memory a run needs, term by term and tier by tier.
//!
//! In:    the network, what is trained, where the classes live, the shape of a micro-batch, what each block keeps.
//! Out:   [`MemoryTerm`]s of the phase that needs most, and of what lies in files.
//! Never: measures. The measured peak is compared with this sum after the run.
//!
//! Notation: `T` tokens of a micro-batch, `h` hidden, `f` intermediate, `q` and `kv` widths of all query and key/value heads, `L` blocks,
//! `b` bytes of a number in `model.precision`, `E` trained elements (each tensor padded to 256), `B` those of one block, `O` those outside
//! of blocks.
//!
//! | term | bytes | tier | alive |
//! |---|---|---|---|
//! | weights | weights on the device: every tensor once x b; a tied head is the embedding. Else embedding, head and last norm x b | device | always |
//! | streamed blocks | weights elsewhere: two blocks x b, the live one and the next | device | always |
//! | renewed weights | full: embedding, head and last norm x b once more, while the updated ones replace them | device | always |
//! | blocks of kept graphs | weights elsewhere: one block x b for each block that retains, no more than there are | device | training |
//! | stored weights | weights elsewhere: LoRA blocks x b; full in bf16 2 E; full in f32 none, the masters serve | weights | always |
//! | adapters, masters | 4 E; with the weights if full, f32 and weights not on the device, else with the optimizer | see left | always |
//! | optimizer states | AdamW 8 E, 8 bits 520/256 E, bf16 4 E; Lion 4 E; SGD 4 E with momentum | optimizer | always |
//! | | Adafactor 4 (rows + columns), vectors whole; in memory even if the optimizer is on NVMe | optimizer | always |
//! | gradients | 4 E; none if the update runs during backward and one micro-batch is a step | gradients | always |
//! | block gradients | 4 B, the tensors of one block | device | training |
//! | flat gradients | 8 B + 4 O: one block's while the optimizer works on the one before | host | training |
//! | I/O buffers | buffers x chunk, if any class is on NVMe | dram | always |
//! | block inputs | (L + 1) T h b: also the embedding lookup | activations | training |
//! | live block inputs | 2 T h b, if block inputs are not on the device | device | training |
//! | kept graphs | retained blocks x graph | device | training |
//! | live graph | one graph, if any block recomputes | device | training |
//! | gradients in flight | T (3h + q + 2kv + 3f) b: of one block's intermediates | device | training |
//! | loss | 64 MiB: logits of one chunk, and T h x 4 for the gradient of the head's input | device | training |
//! | batch | T x 32: ids, positions, row numbers, labels | device | training |
//! | answers | rows x (longest prompt + answer) x 2 kv x L x b, and rows x vocabulary x 4 | device | evaluation |
//! | reading | the largest tensor in f32, while it is converted | device | loading |
//! | runtime | 300 MB: code, thread pool, tokenizer, data, freed pages the allocator keeps; 600 MB with a CUDA context | device | always |
//!
//! "host" is the dram tier beside a card; on the CPU it is the device itself.
//!
//! graph = T ((5h + 2q + 2kv + 3f) b + 4 heads + low rank), the tensors that a block's backward reads:
//! input, norm 1, (q, k, v) after rotation, attention output and its log-sum-exp, residual, norm 2, gate, up, product, output; with norms on
//! q and k also their inputs, (q + kv) b; with norms after attention and feed-forward also theirs, 2h b. Full training reads no other
//! tensors: the input of every linear layer is among these. LoRA: low rank = linears x rank x 4, each adapter's low-rank value; with
//! dropout also the dropped adapter inputs, (sum of the adapted layers' inputs) b.

mod sizes;

use crate::architecture::{DecoderSpec, Linear};
use crate::plan::{
    DeviceChoice, Keep, LoraPlan, MemoryPlan, MemoryTerm, MethodPlan, OptimizerKind, OptimizerPlan, Phase, PhaseMemory,
    Precision, Tier,
};

pub use sizes::Sizes;

/// Largest block of logits that the loss holds at once, bytes.
const LOSS_CHUNK_BYTES: u64 = 64 << 20;
/// What the process needs before it holds a tensor, bytes.
const RUNTIME_CPU_BYTES: u64 = 300_000_000;
const RUNTIME_CUDA_BYTES: u64 = 600_000_000;
const BATCH_BYTES_PER_TOKEN: u64 = 32;
/// Blocks of streamed weights at once: the live one and the next.
const STREAMED_BLOCKS: u64 = 2;
/// Block inputs at once where they live in another tier.
const LIVE_INPUTS: u64 = 2;

/// Where the classes live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Weights of blocks.
    pub weights: Tier,
    /// Gradient arrays.
    pub gradients: Tier,
    /// Optimizer states, and masters that do not live with the weights.
    pub optimizer: Tier,
    /// Block inputs.
    pub activations: Tier,
}

/// What the estimate depends on.
#[derive(Debug, Clone)]
pub struct Shape<'a> {
    /// The network.
    pub spec: &'a DecoderSpec,
    /// Where it computes.
    pub device: DeviceChoice,
    /// Number format of weights and activations.
    pub precision: Precision,
    /// What is trained.
    pub method: &'a MethodPlan,
    /// Their numbers of elements.
    pub sizes: Sizes,
    /// The update rule.
    pub optimizer: &'a OptimizerPlan,
    /// Where the classes live.
    pub placement: Placement,
    /// Gradients are added up in arrays: there are several micro-batches, or the update waits for the whole backward pass.
    pub has_gradient_arrays: bool,
    /// All I/O buffers together, taken if any class is on NVMe.
    pub buffers_bytes: u64,
    /// Tokens of one micro-batch.
    pub tokens: u64,
    /// Per block: graph or input.
    pub keep: Vec<Keep>,
    /// Answers generated at once and tokens of the longest, prompt included; `None` without generation.
    pub answers: Option<(u64, u64)>,
}

/// The most that any phase needs, tier by tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// What counts against the device's memory: on the CPU both tiers, in one phase.
    pub memory_bytes: u64,
    /// Device terms.
    pub device_bytes: u64,
    /// Dram terms.
    pub dram_bytes: u64,
}

/// Trainable numbers of rank-`rank` adapters on `targets` of every block.
pub fn lora_parameters(spec: &DecoderSpec, targets: &[Linear], rank: usize) -> u64 {
    let sides = |linear: &Linear| spec.linear_shape(*linear).iter().map(|&side| side as u64).sum::<u64>();
    spec.n_layers() as u64 * rank as u64 * targets.iter().map(sides).sum::<u64>()
}

/// Numbers that `method` trains, each once.
pub fn trained_parameters(spec: &DecoderSpec, method: &MethodPlan) -> u64 {
    Sizes::of(spec, method).trained
}

/// Key/value bytes that one token costs while answers are generated.
pub fn cache_bytes_per_token(spec: &DecoderSpec, precision: Precision) -> u64 {
    2 * (spec.n_kv_heads * spec.head_dim) as u64 * spec.n_layers() as u64 * precision.bytes()
}

impl Shape<'_> {
    /// The most that any phase needs.
    pub fn needs(&self) -> Needs {
        let phases = self.phases();
        let most = |count: &dyn Fn(&PhaseMemory) -> u64| phases.iter().map(count).max().unwrap_or(0);
        Needs {
            memory_bytes: most(&|phase| phase.counted_bytes),
            device_bytes: most(&|phase| phase.device_bytes),
            dram_bytes: most(&|phase| phase.dram_bytes),
        }
    }

    /// Terms of the phase that needs most.
    pub fn plan(&self, budget_bytes: u64) -> MemoryPlan {
        let (phases, nvme) = (self.phases(), self.files());
        let peak = phases.iter().max_by_key(|phase| phase.counted_bytes).expect("a run has phases").clone();
        let pinned =
            peak.terms.iter().filter(|term| term.pinned).fold(0, |sum: u64, term| sum.saturating_add(term.bytes));
        MemoryPlan {
            peak_phase: peak.phase,
            peak_bytes: peak.counted_bytes,
            budget_bytes,
            dram_bytes: peak.dram_bytes,
            pinned_bytes: pinned,
            nvme_bytes: total(&nvme),
            terms: peak.terms,
            nvme,
            phases,
        }
    }

    /// What lies in files while training; other phases have no file of their own.
    fn files(&self) -> Vec<MemoryTerm> {
        self.training().into_iter().filter(|term| term.tier == Tier::Nvme).collect()
    }

    /// Loading, training, evaluation; without what lies in files.
    fn phases(&self) -> Vec<PhaseMemory> {
        let phases =
            [(Phase::Load, self.loading()), (Phase::Backward, self.training()), (Phase::Evaluation, self.answering())];
        let phases = phases.into_iter().map(|(phase, mut terms)| {
            terms.retain(|term| term.tier != Tier::Nvme);
            PhaseMemory {
                phase,
                device_bytes: in_tier(&terms, Tier::Device),
                dram_bytes: in_tier(&terms, Tier::Dram),
                counted_bytes: self.memory_bytes(&terms),
                terms,
            }
        });
        phases.collect()
    }

    fn memory_bytes(&self, terms: &[MemoryTerm]) -> u64 {
        match self.device {
            DeviceChoice::Cpu => in_tier(terms, Tier::Device).saturating_add(in_tier(terms, Tier::Dram)),
            DeviceChoice::Cuda(_) => in_tier(terms, Tier::Device),
        }
    }

    /// The tier of host memory: beside a card another one, on the CPU the device's own.
    fn host(&self) -> Tier {
        match self.device {
            DeviceChoice::Cpu => Tier::Device,
            DeviceChoice::Cuda(_) => Tier::Dram,
        }
    }

    fn always(&self) -> Vec<MemoryTerm> {
        let runtime = match self.device {
            DeviceChoice::Cpu => RUNTIME_CPU_BYTES,
            DeviceChoice::Cuda(_) => RUNTIME_CUDA_BYTES,
        };
        let mut terms = self.weights();
        if matches!(self.method, MethodPlan::Full(_)) {
            let outer = self.sizes.outer_elements.saturating_mul(self.precision.bytes());
            terms.push(term("renewed weights", Tier::Device, outer));
        }
        terms.extend(self.arrays());
        let Placement { weights, gradients, optimizer, activations } = self.placement;
        if [weights, gradients, optimizer, activations].contains(&Tier::Nvme) {
            terms.push(term("I/O buffers", Tier::Dram, self.buffers_bytes));
        }
        terms.push(term("runtime", Tier::Device, runtime));
        terms
    }

    fn weights(&self) -> Vec<MemoryTerm> {
        let (b, tier) = (self.precision.bytes(), self.placement.weights);
        let all = self.sizes.parameters;
        if tier == Tier::Device {
            return vec![term("weights", Tier::Device, all.saturating_mul(b))];
        }
        let (block, blocks) = (self.sizes.block_parameters, self.spec.n_layers() as u64);
        let mut terms = vec![
            term("weights", Tier::Device, (all - blocks * block).saturating_mul(b)),
            term("streamed blocks", Tier::Device, (STREAMED_BLOCKS.min(blocks) * block).saturating_mul(b)),
        ];
        match (self.method, self.precision) {
            (MethodPlan::Lora(_), _) => terms.push(term("stored weights", tier, (blocks * block).saturating_mul(b))),
            (MethodPlan::Full(_), Precision::Bf16) => {
                terms.push(term("stored weights", tier, self.sizes.elements.saturating_mul(b)));
            }
            (MethodPlan::Full(_), Precision::F32) => {}
        }
        terms
    }

    /// Trained parameters, optimizer states and gradients, flat and in f32 where the rule does not say otherwise.
    fn arrays(&self) -> Vec<MemoryTerm> {
        let (elements, placement) = (self.sizes.elements, self.placement);
        let serve_as_weights = self.precision == Precision::F32 && placement.weights != Tier::Device;
        let (name, tier) = match self.method {
            MethodPlan::Lora(_) => ("adapters", placement.optimizer),
            MethodPlan::Full(_) if serve_as_weights => ("masters", placement.weights),
            MethodPlan::Full(_) => ("masters", placement.optimizer),
        };
        let (states_tier, states) = self.states();
        let mut terms =
            vec![term(name, tier, elements.saturating_mul(4)), term("optimizer states", states_tier, states)];
        if self.has_gradient_arrays {
            terms.push(term("gradients", placement.gradients, elements.saturating_mul(4)));
        }
        terms
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

    fn loading(&self) -> Vec<MemoryTerm> {
        let mut terms = self.always();
        terms.push(term("reading", Tier::Device, self.sizes.largest_tensor.saturating_mul(4)));
        terms
    }

    fn training(&self) -> Vec<MemoryTerm> {
        let (b, h) = (self.precision.bytes(), self.spec.hidden as u64);
        let (q, kv, f) = self.widths();
        let blocks = self.keep.len() as u64;
        let retained = self.keep.iter().filter(|&&keep| keep == Keep::Retain).count() as u64;
        let live = u64::from(retained < blocks);
        let mut terms = self.always();
        terms.extend(self.trained_gradients());
        terms.push(term("block inputs", self.placement.activations, self.for_tokens(h * b).saturating_mul(blocks + 1)));
        if self.placement.activations != Tier::Device {
            terms.push(term("live block inputs", Tier::Device, self.for_tokens(LIVE_INPUTS * h * b)));
        }
        if self.placement.weights != Tier::Device {
            let held = retained.min(blocks.saturating_sub(STREAMED_BLOCKS)) * self.sizes.block_parameters;
            terms.push(term("blocks of kept graphs", Tier::Device, held.saturating_mul(b)));
        }
        let device = |name, bytes| term(name, Tier::Device, bytes);
        terms.push(device("kept graphs", self.graph_bytes().saturating_mul(retained)));
        terms.push(device("live graph", self.graph_bytes().saturating_mul(live)));
        terms.push(device("gradients in flight", self.for_tokens((3 * h + q + 2 * kv + 3 * f) * b)));
        terms.push(device("loss", LOSS_CHUNK_BYTES.saturating_add(self.for_tokens(h * 4))));
        terms.push(device("batch", self.for_tokens(BATCH_BYTES_PER_TOKEN)));
        terms
    }

    /// Gradients of trained tensors on their way from the backward pass to their array or to the update.
    fn trained_gradients(&self) -> [MemoryTerm; 2] {
        let (block, outer) = (self.sizes.block_elements, self.sizes.outer_elements);
        [
            term("block gradients", Tier::Device, block.saturating_mul(4)),
            term("flat gradients", self.host(), block.saturating_mul(2).saturating_add(outer).saturating_mul(4)),
        ]
    }

    fn answering(&self) -> Vec<MemoryTerm> {
        let mut terms = self.always();
        if let Some((rows, tokens)) = self.answers {
            let cache = rows.saturating_mul(tokens).saturating_mul(cache_bytes_per_token(self.spec, self.precision));
            let logits = rows.saturating_mul(self.spec.vocabulary as u64 * 4);
            terms.push(term("answers", Tier::Device, cache.saturating_add(logits)));
        }
        terms
    }

    /// What a block's backward reads, bytes (the formula is in the head of this file).
    fn graph_bytes(&self) -> u64 {
        let (spec, b, h, (q, kv, f)) = (self.spec, self.precision.bytes(), self.spec.hidden as u64, self.widths());
        let head_norms = if spec.qk_norm { q + kv } else { 0 };
        let late_norms = if spec.sandwich_norms { 2 * h } else { 0 };
        let tensors = (5 * h + 2 * q + 2 * kv + 3 * f + head_norms + late_norms) * b;
        let sums = 4 * spec.n_heads as u64;
        self.for_tokens(tensors + sums + self.method.lora().map_or(0, |lora| self.adapter_bytes_per_token(lora)))
    }

    fn adapter_bytes_per_token(&self, lora: &LoraPlan) -> u64 {
        let inputs: u64 = lora.targets.iter().map(|&linear| self.spec.linear_shape(linear)[1] as u64).sum();
        let dropped = if lora.dropout > 0.0 { inputs * self.precision.bytes() } else { 0 };
        4 * lora.targets.len() as u64 * lora.rank as u64 + dropped
    }

    fn widths(&self) -> (u64, u64, u64) {
        let heads = |count: usize| (count * self.spec.head_dim) as u64;
        (heads(self.spec.n_heads), heads(self.spec.n_kv_heads), self.spec.intermediate as u64)
    }

    fn for_tokens(&self, bytes_per_token: u64) -> u64 {
        self.tokens.saturating_mul(bytes_per_token)
    }
}

/// Sum of terms.
pub fn total(terms: &[MemoryTerm]) -> u64 {
    terms.iter().fold(0, |sum, term| sum.saturating_add(term.bytes))
}

fn in_tier(terms: &[MemoryTerm], tier: Tier) -> u64 {
    terms.iter().filter(|term| term.tier == tier).fold(0, |sum, term| sum.saturating_add(term.bytes))
}

fn term(name: &str, tier: Tier, bytes: u64) -> MemoryTerm {
    MemoryTerm { name: name.to_string(), tier, bytes, pinned: false }
}

#[cfg(test)]
mod tests;
