//! How much memory a run needs: phase by phase, term by term, tier by tier.
//!
//! In:    the network, what is trained, where the classes live, the shape of a micro-batch, what each block keeps.
//! Out:   a [`MemoryPlan`]: what is alive in each [`Phase`], and what lies in files.
//! Never: measures. `tests/memory_grid.rs` holds it against the peaks of real runs.
//!
//! The peak of a run is a sum of tensors because the program's heap keeps no more than was ever in use (`offload::heap`). Notation: `T`
//! tokens of a micro-batch, `h` hidden, `f` intermediate, `q` and `kv` widths of all query and key/value heads, `V` vocabulary, `L` blocks,
//! `b` bytes of a number in `model.precision`, `E` trained elements (each tensor padded to 256), `B` those of one block, `O` those outside of
//! blocks, `D` trained numbers on the device (LoRA).
//!
//! | always | bytes | tier |
//! |---|---|---|
//! | weights | on the device: every tensor once x b; a tied head is the embedding; packed: linear layers of blocks as below. Else those around the blocks | device |
//! | streamed blocks | weights elsewhere: two blocks, the live one and the next | device |
//! | stored weights | weights elsewhere: LoRA all blocks; full in bf16 2 E; full in f32 none, the masters serve | weights |
//! | adapters, masters | 4 E; with the weights if full, f32 and weights not on the device, else with the optimizer | see left |
//! | optimizer states | AdamW 8 E, 8 bits 520/256 E, bf16 4 E; Lion 4 E; SGD 4 E with momentum | optimizer |
//! | | Adafactor 4 (rows + columns), vectors whole; in memory even if the optimizer is on NVMe | optimizer |
//! | gradients | 4 E; none if the update runs during backward and one micro-batch is a step | gradients |
//! | adapters in use | LoRA: 4 D, the copy that computes | device |
//! | I/O buffers | buffers x chunk, if any class is on NVMe; pinned | dram |
//! | text | 400 V: the tokenizer | host |
//! | packing | on the CPU: panels of one product (below) | device |
//! | staging | beside a card: the largest tensor, on its way through host memory | dram |
//! | movers | 3 MB for each thread that pages weights, moves block inputs, drives the disks; three that save | host |
//! | runtime | code, threads, small blocks: 54 MB and 2 MB a core; 600 MB with a CUDA context, 270 MB with a Vulkan device | device |
//!
//! | phase | terms besides, all on the device unless said |
//! |---|---|
//! | load | reading: the largest linear layer in f32 while it is converted (bf16), or the embedding, less the blocks that come after it; |
//! | | or 1600 V while the tokenizer is parsed, less what comes after it |
//! | forward | block inputs T h b each: the tier's L, and two live ones if that is not the device; kept graphs; one block's tensors |
//! | backward start | block inputs, kept graphs, outer gradients 4 O (full), gradient of the last output T h b, loss |
//! | backward | block inputs, the other blocks' kept graphs and their weights, one block going backward, outer gradients, block gradients |
//! | update | one renewed block (full) or renewed adapters 4 D |
//! | evaluation | one block's tensors without graph and the logits of one chunk for up to 2048 tokens; answers (below) |
//! | save, export | two pieces of 4 MiB; LoRA's export 4 E; a frozen tensor of a trained model in f32 and as it is written |
//!
//! graph = T (3h + 2q + 2kv + 3f) b + 8 T heads, the tensors that a block's backward reads besides its input: norm 1, (q, k, v) after
//! rotation, attention output, residual, norm 2, gate, up, product; with norms on q and k also their inputs, (q + kv) b; with norms after
//! attention and feed-forward also theirs, 2h b. LoRA: product only if `down_proj` is adapted, and for each target `rank` numbers. One
//! block going backward holds the most at its gate: its graph without the product, three gradients of width f and one of width h; or, with
//! few tokens, at its end: all gradients of its weights in f32 and their flat copy, 8 B.
//!
//! loss = logits of one chunk, c V 4 with c = min(T, 512, 64 MiB / 4 V) (bf16: 6), 3 T h b, and in full training 2064 columns of them.
//!
//! packing: gemmkit packs the right operand, n columns of k numbers, if the result has more than 2048 rows: for f32 512 of the k at a time,
//! at most 30 MiB of them; for bf16 all k. With 16 threads or more also the left operand of large products. Buffers grow to powers of two.
//!
//! answers: rows x tokens x (8 kv L + (2h + 3f) b), f32 caches and the forward pass of the prompts, and rows x V x 8. As many rows are
//! answered at once as fit into what training needs anyway, so only a single very long row makes evaluation the peak.
//!
//! packed: nf4 4 bits a number, 8 for each 64, 32 for each 64 x 256 = 0.5159 bytes (arXiv:2305.14314); int8 8 bits, 32 for each 64 = 1.0625
//! bytes; and one linear layer as computed.
//!
//! attention scores, on a card in bf16: heads x min(T, 512) x T x 4, at most 128 MiB, and half as much for probabilities; backward twice both.

mod answers;
mod fixed;
mod inference;
mod phases;
mod sizes;

use crate::architecture::{DecoderSpec, Linear};
use crate::plan::{
    DeviceChoice, Keep, MemoryPlan, MemoryTerm, MethodPlan, OptimizerPlan, Phase, PhaseMemory, Precision, Tier,
};

pub use inference::Work;
pub use phases::EVALUATION_TOKENS_MAX;
pub use sizes::Sizes;

/// Every phase, in the order of a run.
const PHASES: [Phase; 8] = [
    Phase::Load,
    Phase::Forward,
    Phase::BackwardStart,
    Phase::Backward,
    Phase::Update,
    Phase::Evaluation,
    Phase::Save,
    Phase::Export,
];

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

impl Placement {
    /// Each class as `[offload]` names it, with its tier.
    pub fn classes(&self) -> [(&'static str, Tier); 4] {
        [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
        ]
    }

    /// How many classes live in `tier`.
    pub fn count(&self, tier: Tier) -> usize {
        self.classes().iter().filter(|(_, of_class)| *of_class == tier).count()
    }
}

/// What the estimate depends on.
#[derive(Debug, Clone)]
pub struct Shape<'a> {
    /// The network.
    pub spec: &'a DecoderSpec,
    /// Where it computes.
    pub device: DeviceChoice,
    /// Cores of the machine.
    pub cores: usize,
    /// The processor multiplies bfloat16 in hardware: such products pack both operands.
    pub fast_bf16: bool,
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
    /// Answers generated at once at most, and tokens of the longest, prompt included; `None` without generation.
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

/// A term before it is named for people: a search makes thousands of them.
#[derive(Debug, Clone, Copy)]
struct Term {
    name: &'static str,
    tier: Tier,
    bytes: u64,
    pinned: bool,
}

/// Sums of the terms of one phase.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    device: u64,
    dram: u64,
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

/// Key/value bytes that one token costs while answers are generated, in `precision`.
pub fn cache_bytes_per_token(spec: &DecoderSpec, precision: Precision) -> u64 {
    2 * (spec.n_kv_heads * spec.head_dim) as u64 * spec.n_layers() as u64 * precision.bytes()
}

impl Shape<'_> {
    /// The most that any phase needs.
    pub fn needs(&self) -> Needs {
        let fixed = Sums::of(&self.fixed());
        let phases = PHASES.map(|phase| fixed.and(Sums::of(&self.besides(phase))));
        let most = |count: &dyn Fn(&Sums) -> u64| phases.iter().map(count).max().unwrap_or(0);
        Needs {
            memory_bytes: most(&|sums| self.counted(*sums)),
            device_bytes: most(&|sums| sums.device),
            dram_bytes: most(&|sums| sums.dram),
        }
    }

    /// Terms of every phase, and of the one that needs most.
    pub fn plan(&self, budget_bytes: u64) -> MemoryPlan {
        let phases: Vec<PhaseMemory> = PHASES.into_iter().map(|phase| self.phase(phase)).collect();
        let nvme = self.files();
        let peak = phases.iter().max_by_key(|phase| phase.counted_bytes).expect("a run has phases").clone();
        let pinned =
            peak.terms.iter().filter(|term| term.pinned).fold(0, |sum: u64, term| sum.saturating_add(term.bytes));
        MemoryPlan {
            peak_phase: peak.phase,
            peak_bytes: peak.counted_bytes,
            budget_bytes,
            dram_bytes: phases.iter().map(|phase| phase.dram_bytes).max().unwrap_or(0),
            pinned_bytes: pinned,
            nvme_bytes: total(&nvme),
            terms: peak.terms,
            nvme,
            phases,
        }
    }

    fn phase(&self, phase: Phase) -> PhaseMemory {
        let mut terms = self.fixed();
        terms.extend(self.besides(phase));
        terms.retain(|term| term.tier != Tier::Nvme && term.bytes > 0);
        self.summed(phase, &terms)
    }

    fn summed(&self, phase: Phase, terms: &[Term]) -> PhaseMemory {
        let sums = Sums::of(terms);
        PhaseMemory {
            phase,
            device_bytes: sums.device,
            dram_bytes: sums.dram,
            counted_bytes: self.counted(sums),
            terms: terms.iter().map(named).collect(),
        }
    }

    /// What lies in files while training; other phases have no file of their own.
    fn files(&self) -> Vec<MemoryTerm> {
        let mut terms = self.fixed();
        terms.extend(self.besides(Phase::Backward));
        terms.iter().filter(|term| term.tier == Tier::Nvme && term.bytes > 0).map(named).collect()
    }

    fn counted(&self, sums: Sums) -> u64 {
        match self.device.has_own_memory() {
            true => sums.device,
            false => sums.device.saturating_add(sums.dram),
        }
    }

    /// The tier of host memory: beside a card another one, on the CPU the device's own.
    fn host(&self) -> Tier {
        match self.device.is_host() {
            true => Tier::Device,
            false => Tier::Dram,
        }
    }

    /// Widths of all query heads, of all key/value heads, and of the feed-forward part.
    fn widths(&self) -> (u64, u64, u64) {
        let heads = |count: usize| (count * self.spec.head_dim) as u64;
        (heads(self.spec.n_heads), heads(self.spec.n_kv_heads), self.spec.intermediate as u64)
    }

    /// Tokens of a micro-batch times `numbers` in the planned precision.
    fn activations(&self, numbers: u64) -> u64 {
        self.tokens.saturating_mul(numbers).saturating_mul(self.precision.bytes())
    }
}

impl Sums {
    fn of(terms: &[Term]) -> Sums {
        let tier =
            |tier| terms.iter().filter(|term| term.tier == tier).fold(0u64, |sum, t| sum.saturating_add(t.bytes));
        Sums { device: tier(Tier::Device), dram: tier(Tier::Dram) }
    }

    fn and(self, other: Sums) -> Sums {
        Sums { device: self.device.saturating_add(other.device), dram: self.dram.saturating_add(other.dram) }
    }
}

/// Sum of terms.
pub fn total(terms: &[MemoryTerm]) -> u64 {
    terms.iter().fold(0, |sum, term| sum.saturating_add(term.bytes))
}

fn named(term: &Term) -> MemoryTerm {
    MemoryTerm { name: term.name.to_string(), tier: term.tier, bytes: term.bytes, pinned: term.pinned }
}

fn term(name: &'static str, tier: Tier, bytes: u64) -> Term {
    Term { name, tier, bytes, pinned: false }
}

#[cfg(test)]
mod tests;
