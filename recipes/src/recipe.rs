//! The shape of a recipe: one struct a section.
//!
//! In:    TOML, through serde.
//! Out:   typed sections; `auto` is a value of its own.
//! Never: accepts a key it does not know.

use serde::{Deserialize, Serialize};

use crate::defaults;
use crate::values::{DeviceName, KeepChoice, MemorySize, MicroBatch, Sources, TokenCount, WarmupLength};

mod data;
pub(crate) mod method;
mod offload;
pub(crate) mod optimizer;

pub use data::{
    CleanSection, DataSection, Deduplicate, Field, FileFormat, Gate, RowFormat, SourceSection, TemplateChoice, TooLong,
    TrainOn,
};
pub use method::{BaseChoice, FullSection, LoraSection, MethodSection};
pub use offload::{ChunkSize, EngineChoice, OffloadSection, QueueDepth, TierChoice, UpdateDuringBackward};
pub use optimizer::{OptimizerKind, OptimizerSection};

/// A whole recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the run; also of its directory under `runs/`.
    pub name: String,
    /// What is tuned.
    pub model: ModelSection,
    /// How it is tuned.
    pub method: MethodSection,
    /// On which rows.
    pub data: DataSection,
    /// For how long, in which portions.
    pub train: TrainSection,
    /// By which update rule.
    pub optimizer: OptimizerSection,
    /// The learning rate over steps.
    pub schedule: ScheduleSection,
    /// Where bytes live.
    #[serde(default)]
    pub offload: OffloadSection,
    /// What survives a kill.
    #[serde(default)]
    pub checkpoint: CheckpointSection,
    /// Held-out measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<EvalSection>,
    /// What is written per step.
    #[serde(default)]
    pub log: LogSection,
    /// Where it runs.
    #[serde(default)]
    pub hardware: HardwareSection,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// A place, or a list of places that hold the same file.
    pub source: Sources,
    /// SHA-256 of a single-file source, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Number format of base weights and activations.
    #[serde(default)]
    pub precision: PrecisionChoice,
}

/// `model.precision`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// The planner answers.
    #[default]
    Auto,
    /// 32-bit float.
    F32,
    /// bfloat16 with f32 accumulation.
    Bf16,
}

/// `[train]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSection {
    /// Passes over the data; either this or `steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Optimizer updates; either this or `epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Tokens of one optimizer step: rows x `data.sequence_length`.
    pub tokens_per_step: TokenCount,
    /// Rows of one forward/backward pass.
    #[serde(default = "defaults::micro_batch")]
    pub micro_batch: MicroBatch,
    /// What blocks keep between forward and backward: no result depends on it.
    #[serde(default = "defaults::keep")]
    pub keep: KeepChoice,
    /// Seed of shuffle, adapter initialisation and dropout.
    #[serde(default = "defaults::seed")]
    pub seed: u64,
}

/// `[schedule]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSection {
    /// Shape after warmup.
    pub kind: ScheduleChoice,
    /// An integer is steps, a float a share of all steps.
    #[serde(default = "defaults::warmup")]
    pub warmup: WarmupLength,
}

/// `schedule.kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleChoice {
    /// Peak rate throughout.
    Constant,
    /// Straight line to zero.
    Linear,
    /// Half a cosine to zero.
    Cosine,
}

/// `[checkpoint]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointSection {
    /// Steps between checkpoints; without this and `every_minutes`: at the end only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_steps: Option<u64>,
    /// Minutes between checkpoints, looked at after each step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_minutes: Option<f64>,
    /// How many of the last to keep.
    #[serde(default = "defaults::keep_last")]
    pub keep_last: usize,
    /// How many of those with the least held-out loss to keep besides.
    #[serde(default)]
    pub keep_best: usize,
}

impl Default for CheckpointSection {
    fn default() -> Self {
        CheckpointSection { every_steps: None, every_minutes: None, keep_last: defaults::keep_last(), keep_best: 0 }
    }
}

/// `[eval]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalSection {
    /// Steps between evaluations of the loss; absent: before and after only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_steps: Option<u64>,
    /// Answer the rows greedily before and after and count exact answers.
    #[serde(default)]
    pub exact_match: bool,
    /// Longest generated answer, tokens.
    #[serde(default = "defaults::max_new_tokens")]
    pub max_new_tokens: usize,
    /// At most so many rows; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<usize>,
    /// Held-out rows; either this or `share`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceSection>,
    /// Share of the training rows that is held out instead, chosen by what a row says: 0.02 is two of a hundred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    /// TensorBoard event file beside `metrics.jsonl`.
    #[serde(default = "defaults::tensorboard")]
    pub tensorboard: bool,
}

impl Default for LogSection {
    fn default() -> Self {
        LogSection { tensorboard: defaults::tensorboard() }
    }
}

/// `[hardware]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HardwareSection {
    /// Where the network computes.
    #[serde(default)]
    pub device: DeviceName,
    /// Memory the run may use on that device.
    #[serde(default)]
    pub memory: MemorySize,
}
