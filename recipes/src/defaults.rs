//! Every value that a recipe may leave out, in one place. `recipe.toml` of a run shows them all written out.
//!
//! In:    nothing.
//! Out:   functions that serde calls for an absent key.
//! Never: a default for a key that has no usual value (rank, alpha, learning rate, sequence length, tokens per step, length of the run):
//!        those must be written.
//!
//! | key | default | why |
//! |---|---|---|
//! | `model.precision` | `"auto"` | bf16 where the machine multiplies it fast, f32 elsewhere |
//! | `method.dropout` | 0 | PEFT's default |
//! | `method.targets` | `"all-linear"` | every linear layer of a block, never the head |
//! | `method.rank_stabilized` | false | scale `alpha / rank`, PEFT's default |
//! | `method.train_embeddings`, `method.train_head` | true | full means all |
//! | `data.packing` | true | no result changes but the rows that share a step; padding costs time |
//! | `data.group_by_length` | false | order is a plain shuffle |
//! | `data.too_long` | `"error"` | nothing is left out unasked |
//! | `data.chat_template` | `"model"` | what the model was trained with; ChatML where it has none |
//! | `data.template_date` | 2024-07-26 | what Llama 3's template says without a clock |
//! | `data.train_on` | `"all"` | every answer |
//! | `data.allow` | [] | every gate refuses |
//! | `data.clean` | no rule | nothing is removed unasked |
//! | a source's `weight` | 1 | every row once an epoch |
//! | `train.micro_batch`, `train.keep` | `"auto"` | change speed and memory only |
//! | `train.seed` | 42 | |
//! | `optimizer.betas` | [0.9, 0.999]; lion [0.9, 0.99] | PyTorch; arXiv:2302.06675 |
//! | `optimizer.epsilon` | 1e-8; adafactor 1e-30 | PyTorch; arXiv:1804.04235 |
//! | `optimizer.momentum` | 0 | PyTorch |
//! | `optimizer.weight_decay` | 0 | transformers' Trainer |
//! | `optimizer.max_grad_norm` | 1.0 | transformers' Trainer; `"none"` does not clip |
//! | `schedule.warmup` | 0 | |
//! | `offload.weights`, `.gradients`, `.optimizer`, `.activations` | `"auto"` | the device if all fits there |
//! | `offload.nvme` | [] | no drive is written to unasked |
//! | `offload.dram_budget`, `offload.device_budget`, `offload.engine` | `"auto"` | |
//! | `offload.chunk`, `offload.queue_depth` | `"auto"` | what was measured on the drives |
//! | `offload.update_during_backward` | `"auto"` | yes where gradients are not clipped |
//! | `checkpoint.keep_last` | 2 | |
//! | `checkpoint.keep_best` | 0 | only the last |
//! | `eval.exact_match` | false | |
//! | `eval.max_new_tokens` | 64 | |
//! | `log.tensorboard` | true | |
//! | `hardware.device`, `hardware.memory` | `"auto"` | |
//!
//! Absent without a default value: `model.sha256` (not checked), `method.start_from` (a fresh adapter), `offload.write_budget_tb` (no
//! bound), `checkpoint.every_steps` and `checkpoint.every_minutes` (at the end only), `[eval]` (no evaluation), `eval.every_steps` (before
//! and after only), `eval.max_rows` (all rows), a source's `file_format` (by its name), `format` (decided by the first row), `columns`
//! (called as the format calls them), `max_rows` (all rows), `data.clean.near_similarity` (0.8).

use crate::recipe::OptimizerKind;
use crate::values::{KeepChoice, MaxGradNorm, MicroBatch, TargetNames, WarmupLength};

pub(crate) fn targets() -> TargetNames {
    TargetNames::AllLinear
}

pub(crate) fn weight() -> f64 {
    1.0
}

/// The day that Llama 3's own template falls back to.
pub(crate) fn template_date() -> String {
    "2024-07-26".to_string()
}

pub(crate) fn packing() -> bool {
    true
}

pub(crate) fn micro_batch() -> MicroBatch {
    MicroBatch::Auto
}

pub(crate) fn keep() -> KeepChoice {
    KeepChoice::Auto
}

pub(crate) fn seed() -> u64 {
    42
}

pub(crate) fn trained() -> bool {
    true
}

/// Zeros where betas have no meaning.
pub(crate) fn betas(kind: OptimizerKind) -> [f64; 2] {
    match kind {
        OptimizerKind::Lion => [0.9, 0.99],
        kind if kind.has_betas() => [0.9, 0.999],
        _ => [0.0, 0.0],
    }
}

/// Zero where epsilon has no meaning.
pub(crate) fn epsilon(kind: OptimizerKind) -> f64 {
    match kind {
        OptimizerKind::Adafactor => 1e-30,
        kind if kind.has_epsilon() => 1e-8,
        _ => 0.0,
    }
}

pub(crate) fn max_grad_norm() -> MaxGradNorm {
    MaxGradNorm::Bound(1.0)
}

pub(crate) fn warmup() -> WarmupLength {
    WarmupLength::Steps(0)
}

pub(crate) fn keep_last() -> usize {
    2
}

pub(crate) fn max_new_tokens() -> usize {
    64
}

pub(crate) fn tensorboard() -> bool {
    true
}
