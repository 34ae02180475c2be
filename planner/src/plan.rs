//! What a run will do: the recipe with every `auto` answered, split into the part each room may see.
//!
//! In:    made by the planner only.
//! Out:   read by datasets, models, offload, checkpoints and trainer; written to `plan.json`.
//! Never: holds anything that was not decided before loading.

mod device;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::architecture::{DecoderSpec, Linear};

pub use device::DeviceChoice;

/// Words of `[data]` that are never `auto`: the plan hands them on as they stand in the recipe.
pub use recipes::recipe::{
    CleanSection as CleanRules, Deduplicate, Field, FileFormat, Gate, RowFormat, SourceSection as DataSource,
    TemplateChoice, TooLong, TrainOn,
};

mod memory;
mod tiers;
mod time;

pub use memory::{MemoryPlan, MemoryTerm, Phase, PhaseMemory};
pub use tiers::{IoEngine, OffloadPlan, Tier};
pub use time::{PhaseTime, Remedy, Resource, ResourceTime, TimePlan};

/// The whole plan of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// Run name.
    pub name: String,
    /// Device string as Burn knows it: `cpu` or `cuda:0`.
    pub device: DeviceChoice,
    /// The network and its storage.
    pub model: ModelPlan,
    /// What is trained.
    pub method: MethodPlan,
    /// Where batches come from.
    pub data: DataPlan,
    /// The loop.
    pub train: TrainPlan,
    /// The update rule.
    pub optimizer: OptimizerPlan,
    /// The learning rate over steps.
    pub schedule: SchedulePlan,
    /// Where bytes live.
    pub offload: OffloadPlan,
    /// What survives.
    pub checkpoint: CheckpointPlan,
    /// Held-out measurement; `None` where no evaluation source is given.
    pub evaluation: Option<EvaluationPlan>,
    /// What is written per step.
    pub log: LogPlan,
    /// Memory by term and by phase.
    pub memory: MemoryPlan,
    /// Time of a step and of the run.
    pub time: TimePlan,
}

/// Number format of base weights and activations; sums are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit IEEE float.
    F32,
    /// bfloat16 storage, f32 accumulation.
    Bf16,
}

impl Precision {
    /// Bytes of one number.
    pub fn bytes(self) -> u64 {
        match self {
            Precision::F32 => 4,
            Precision::Bf16 => 2,
        }
    }
}

/// What is kept of a block between forward and backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The block's graph with all that its backward needs.
    Retain,
    /// Only the block's input; the block runs forward again in the backward pass.
    Recompute,
}

/// The network part of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelPlan {
    /// What the network is.
    pub spec: DecoderSpec,
    /// Storage and compute format.
    pub precision: Precision,
    /// Per block: graph or input.
    pub keep: Vec<Keep>,
}

/// What is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MethodPlan {
    /// Adapters on a frozen base.
    Lora(LoraPlan),
    /// The weights themselves.
    Full(FullPlan),
}

impl MethodPlan {
    /// The adapters' plan, if that is the method.
    pub fn lora(&self) -> Option<&LoraPlan> {
        match self {
            MethodPlan::Lora(lora) => Some(lora),
            MethodPlan::Full(_) => None,
        }
    }

    /// How the blocks' matrices are stored while they are frozen; full training keeps them dense.
    pub fn base(&self) -> BaseStorage {
        self.lora().map_or(BaseStorage::Dense, |lora| lora.base)
    }

    /// The full training's plan, if that is the method.
    pub fn full(&self) -> Option<&FullPlan> {
        match self {
            MethodPlan::Lora(_) => None,
            MethodPlan::Full(full) => Some(full),
        }
    }
}

/// Full training: every weight of every block and every norm; embedding and head by choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FullPlan {
    /// The embedding is trained.
    pub embeddings: bool,
    /// The head is trained; with a tied head equal to `embeddings`.
    pub head: bool,
}

/// Low-rank adapters on frozen linear layers. Source: Hu et al. 2021, arXiv:2106.09685.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoraPlan {
    /// Rank of the factors.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// `alpha / rank`, or `alpha / sqrt(rank)` with rsLoRA (arXiv:2312.03732).
    pub scale: f64,
    /// Whether the scale is rsLoRA's (written into `adapter_config.json`).
    pub rank_stabilized: bool,
    /// Probability that an input of the adapter is dropped.
    pub dropout: f64,
    /// Adapted linear layers, in forward order; every block has the same.
    pub targets: Vec<Linear>,
    /// PEFT adapter folder to start from; otherwise A is random and B zero.
    pub start_from: Option<PathBuf>,
    /// How the frozen base is stored.
    pub base: BaseStorage,
}

/// How a frozen base is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BaseStorage {
    /// In the format that is computed in.
    Dense,
    /// Linear layers of blocks as 4-bit NormalFloat in blocks of 64, scales in 8 bits with an f32 for each 256 of them; embedding, head
    /// and norms as computed. Source: Dettmers et al. 2023, arXiv:2305.14314, section 3.
    Nf4,
    /// Linear layers of blocks in 8-bit integers with an f32 scale for each 64 of them; embedding, head and norms as computed.
    Int8,
}

impl BaseStorage {
    /// Bits of a code, where matrices are kept in fewer than they are computed in.
    pub fn packed_bits(self) -> Option<u32> {
        match self {
            BaseStorage::Dense => None,
            BaseStorage::Nf4 => Some(4),
            BaseStorage::Int8 => Some(8),
        }
    }

    /// Bytes of so many packed numbers, scales included; `None` where they are not packed.
    pub fn packed_bytes(self, numbers: u64) -> Option<u64> {
        match self {
            BaseStorage::Dense => None,
            BaseStorage::Nf4 => Some(numbers / 2 + numbers / 64 + numbers / (64 * 256) * 4),
            BaseStorage::Int8 => Some(numbers + numbers / 64 * 4),
        }
    }
}

/// Where batches come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DataPlan {
    /// Training files, in order.
    pub sources: Vec<DataSource>,
    /// Longest row, tokens; also the length of a packed row.
    pub sequence_length: usize,
    /// Several rows share one packed row, without seeing each other.
    pub packing: bool,
    /// Without packing: micro-batches of rows of like length.
    pub group_by_length: bool,
    /// Policy for rows beyond `sequence_length`.
    pub too_long: TooLong,
    /// The recipe's word on the chat template.
    pub chat_template: TemplateChoice,
    /// The day that `strftime_now` tells, `YYYY-MM-DD`.
    pub template_date: String,
    /// Which turns are trained on.
    pub train_on: TrainOn,
    /// Gates that count and do not refuse.
    pub allow: Vec<Gate>,
    /// What is removed before training.
    pub clean: CleanRules,
    /// Rows that are measured, never trained on.
    pub held_out: Option<HeldOut>,
    /// Seed of the shuffle; order is a function of (seed, epoch).
    pub seed: u64,
}

impl DataPlan {
    /// All rows of `sources` as they are, no longer than `sequence_length` tokens, not packed; every gate refuses.
    pub fn of(sources: Vec<DataSource>, sequence_length: usize) -> DataPlan {
        DataPlan {
            sources,
            sequence_length,
            packing: false,
            group_by_length: false,
            too_long: TooLong::Error,
            chat_template: TemplateChoice::Model,
            template_date: "2024-07-26".to_string(),
            train_on: TrainOn::All,
            allow: Vec::new(),
            clean: CleanRules::default(),
            held_out: None,
            seed: 0,
        }
    }
}

/// Where held-out rows come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeldOut {
    /// A source of their own.
    Source(DataSource),
    /// This share of the training rows, chosen by what a row says and the seed.
    Share(f64),
}

/// How long a run lasts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Duration {
    /// Passes over the data.
    Epochs(f64),
    /// Optimizer updates.
    Steps(u64),
}

/// The loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrainPlan {
    /// Length of the run.
    pub duration: Duration,
    /// Rows (packed rows with packing) of one optimizer step.
    pub rows_per_step: usize,
    /// Rows of one forward/backward pass; divides `rows_per_step`.
    pub micro_batch: usize,
    /// Seed of adapter initialisation, dropout and stochastic rounding.
    pub seed: u64,
}

/// Update rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// AdamW, moments in f32. Source: Loshchilov & Hutter 2017, arXiv:1711.05101; decoupled decay as in PyTorch.
    Adamw,
    /// AdamW, moments in 8 bits with one scale per 256 numbers. Source: Dettmers et al. 2021, arXiv:2110.02861.
    Adamw8bit,
    /// AdamW, moments in bf16 with stochastic rounding.
    AdamwBf16,
    /// Sign of a blend of gradient and momentum. Source: Chen et al. 2023, arXiv:2302.06675.
    Lion,
    /// Second moment factored into rows and columns, no first moment. Source: Shazeer & Stern 2018, arXiv:1804.04235.
    Adafactor,
    /// Gradient descent, with momentum as in PyTorch.
    Sgd,
}

/// The update rule with its numbers; those without a meaning for `kind` are 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OptimizerPlan {
    /// Update rule.
    pub kind: OptimizerKind,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment (AdamW), weight of the momentum in the update (Lion).
    pub beta1: f64,
    /// Decay of the second moment (AdamW), decay of the momentum (Lion).
    pub beta2: f64,
    /// Added to the root of the second moment (AdamW), to squared gradients (Adafactor).
    pub epsilon: f64,
    /// Decay of the velocity (SGD); 0 keeps no state.
    pub momentum: f64,
    /// Decoupled weight decay of matrices; norms and biases do not decay.
    pub weight_decay: f64,
    /// Bound of the global gradient norm; `None` does not clip.
    pub max_grad_norm: Option<f64>,
}

/// Shape of the learning rate after warmup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Peak rate throughout.
    Constant,
    /// Straight line to zero.
    Linear,
    /// Half a cosine to zero.
    Cosine,
}

/// The learning rate over steps; same arithmetic as transformers' schedulers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SchedulePlan {
    /// Shape after warmup.
    pub kind: ScheduleKind,
    /// Steps of linear rise from zero, or a share of all steps.
    pub warmup: Warmup,
}

/// Length of the warmup.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Warmup {
    /// Number of steps.
    Steps(u64),
    /// Share of all steps, 0..=1 (steps = ceil(share * all)).
    Ratio(f64),
}

/// What survives a kill.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointPlan {
    /// Steps between checkpoints; `None` writes none because of them.
    pub every_steps: Option<u64>,
    /// Minutes between checkpoints; with neither, one is written at the end (and on Ctrl-C) only.
    #[serde(default)]
    pub every_minutes: Option<f64>,
    /// How many of the last to keep.
    pub keep_last: usize,
    /// How many of those with the least held-out loss to keep besides.
    #[serde(default)]
    pub keep_best: usize,
}

/// Held-out measurement before and after training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EvaluationPlan {
    /// Steps between evaluations of the loss; `None` measures before and after only.
    pub every_steps: Option<u64>,
    /// Also answer the rows greedily before and after, and count exact answers.
    pub exact_match: bool,
    /// Longest generated answer, tokens.
    pub max_new_tokens: usize,
    /// Rows answered at once at most.
    pub batch_rows: usize,
    /// Tokens of rows answered at once at most, each row counted as long as the longest with its answer; one row always.
    #[serde(default)]
    pub batch_tokens: usize,
    /// At most so many rows; `None` takes all.
    pub max_rows: Option<usize>,
}

/// What is written per step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogPlan {
    /// TensorBoard event file beside `metrics.jsonl`.
    pub tensorboard: bool,
}
