//! Why a run failed.
//!
//! In:    errors of the rooms below, and the loop's own.
//! Out:   one line each, with numbers and what to do.
//! Never: prints.

use std::path::PathBuf;

use checkpoints::checkpoint::CheckpointError;
use checkpoints::gguf::GgufError;
use checkpoints::peft::PeftError;
use checkpoints::weights::WeightsError;
use datasets::DataError;
use models::BoxedError;
use offload::durable::DurableError;
use offload::error::TierError;
use planner::units::bytes_text;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Evaluation without rows to evaluate: the planner gives both or neither.
    #[error("the plan evaluates but names no held-out rows")]
    NoHeldOut,
    /// The data set cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model files cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The tokenizer in the GGUF metadata cannot be used.
    #[error("tokenizer in the GGUF file: {0}")]
    Gguf(#[from] GgufError),
    /// An adapter cannot be read or written.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The adapter to start from does not fit the plan.
    #[error("method.start_from: {folder}: {problem}", folder = folder.display())]
    StartFrom {
        /// The adapter's folder.
        folder: PathBuf,
        /// What differs, with both values.
        problem: String,
    },
    /// The device is not there.
    #[error("hardware.device: {wanted} cannot be used: {reason}")]
    Device {
        /// What the plan asks for.
        wanted: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The loss is not a number any more; nothing was updated.
    #[error(
        "step {step}: the loss is {loss}; stopped before the update. Lower optimizer.learning_rate ({learning_rate:e}), \
         or set optimizer.max_grad_norm"
    )]
    LossNotFinite {
        /// The step.
        step: u64,
        /// The loss.
        loss: f64,
        /// The rate of the step.
        learning_rate: f64,
    },
    /// A gradient is not a number; nothing was updated.
    #[error(
        "step {step}: the gradient norm is {norm}; stopped before the update. Lower optimizer.learning_rate \
         ({learning_rate:e})"
    )]
    GradientNotFinite {
        /// The step.
        step: u64,
        /// The norm.
        norm: f64,
        /// The rate of the step.
        learning_rate: f64,
    },
    /// There is nothing to go on from.
    #[error("{folder}: no complete checkpoint to resume from{damaged}", folder = folder.display())]
    NothingToResume {
        /// The run directory.
        folder: PathBuf,
        /// Damaged checkpoints, named.
        damaged: String,
    },
    /// A base in 4 bits has no place for such a number.
    #[error("tensor `{tensor}` of the model: {source}; take method.kind = \"lora\", or mend the file")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The number and its place.
        #[source]
        source: kernels::nf4::NotFinite,
    },
    /// The checkpoint belongs to another plan.
    #[error("{checkpoint}: made by another plan: {problem}; use the recipe that the run directory holds", checkpoint = checkpoint.display())]
    OtherPlan {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// What differs.
        problem: String,
    },
    /// The checkpoint whose weights a new run should begin with has other tensors than the recipe trains.
    #[error("--from: {checkpoint}: {problem}; set the recipe's method to it, or begin from another checkpoint", checkpoint = checkpoint.display())]
    BeginFrom {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// What differs, with both values.
        problem: String,
    },
    /// A tier cannot hold, read or write what the plan put there.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// A folder cannot be published.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A thread of the engine cannot be started, or ended before its work was done.
    #[error("a thread of the engine failed: {reason}")]
    Thread {
        /// What happened.
        reason: String,
    },
    /// The next step would write more to NVMe than the recipe allows.
    #[error(
        "stopped after step {step}: {} of offload.write_budget_tb's {} are written, and a step writes {}; \
         {} is complete: raise offload.write_budget_tb and go on with --resume",
        bytes_text(*written_bytes), bytes_text(*budget_bytes), bytes_text(*step_bytes), checkpoint.display()
    )]
    WriteBudget {
        /// Updates done.
        step: u64,
        /// What `--resume` goes on from.
        checkpoint: PathBuf,
        /// The recipe's bound.
        budget_bytes: u64,
        /// Written so far by all processes of the run.
        written_bytes: u64,
        /// Written by the last step.
        step_bytes: u64,
    },
    /// The write budget does not cover the next step. Nothing was trained in this process.
    #[error(
        "does not fit: offload.write_budget_tb allows {} in all: {} are written and a step writes {}; raise it, or keep more in memory",
        bytes_text(*budget_bytes), bytes_text(*written_bytes), bytes_text(*step_bytes)
    )]
    WriteBudgetTooSmall {
        /// The recipe's bound.
        budget_bytes: u64,
        /// Written by earlier processes of the run, and by placing its arrays.
        written_bytes: u64,
        /// What one step writes.
        step_bytes: u64,
    },
    /// A tier cannot be had as planned. Nothing was trained in this process.
    #[error(transparent)]
    NoTier(TierError),
    /// A budget is too small for what the plan puts there. Nothing was trained in this process.
    #[error("does not fit: {0}")]
    TierTooSmall(#[source] TierError),
    /// A disk is too small for what the plan puts there. Nothing was trained in this process.
    #[error("does not fit: {source}; the files of this run need {} in all", bytes_text(*nvme_bytes))]
    DiskTooSmall {
        /// Planned size of all files.
        nvme_bytes: u64,
        /// What was placed when it happened.
        #[source]
        source: TierError,
    },
    /// Nothing that can be opened.
    #[error("{path}: {problem}", path = path.display())]
    Subject {
        /// What was given.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A prompt that leaves no room for an answer, or none at all.
    #[error(
        "the prompt has {prompt} tokens, the context ends at {context}: it must have at least one and leave room for an answer"
    )]
    Context {
        /// Tokens of the whole conversation.
        prompt: usize,
        /// Tokens that prompt and answer may have together.
        context: usize,
    },
    /// An adapter that does not fit the network it is laid over.
    #[error("the adapter does not fit the model: {problem}")]
    Adapter {
        /// Which layer, with both shapes.
        problem: String,
    },
    /// Metrics cannot be written.
    #[error("{path}: cannot be written: {source}", path = path.display())]
    Metrics {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

impl TrainError {
    /// Whether the user's input is at fault (exit code 2), found before anything was trained.
    pub fn is_bad_input(&self) -> bool {
        if let TrainError::Checkpoint(error) = self {
            return error.is_bad_input();
        }
        matches!(
            self,
            TrainError::Data(_)
                | TrainError::Weights(_)
                | TrainError::NotFinite { .. }
                | TrainError::Gguf(_)
                | TrainError::StartFrom { .. }
                | TrainError::Device { .. }
                | TrainError::NothingToResume { .. }
                | TrainError::OtherPlan { .. }
                | TrainError::BeginFrom { .. }
                | TrainError::NoTier(_)
                | TrainError::Subject { .. }
                | TrainError::Adapter { .. }
                | TrainError::Context { .. }
        )
    }

    /// Whether this machine, or the write budget, is too small for the plan (exit code 3), found before anything was trained.
    pub fn is_does_not_fit(&self) -> bool {
        matches!(
            self,
            TrainError::TierTooSmall(_) | TrainError::DiskTooSmall { .. } | TrainError::WriteBudgetTooSmall { .. }
        )
    }

    /// The same error, met while tiers and arrays were made and filled. `nvme_bytes` are planned for files.
    pub(crate) fn before_training(self, nvme_bytes: u64) -> TrainError {
        match self {
            TrainError::Tier(source @ TierError::NoSpace { .. }) => TrainError::DiskTooSmall { nvme_bytes, source },
            TrainError::Tier(
                source @ (TierError::OverBudget { .. } | TierError::Memory { .. } | TierError::WriteBudget { .. }),
            ) => TrainError::TierTooSmall(source),
            TrainError::Tier(source) => TrainError::NoTier(source),
            other => other,
        }
    }
}

/// The error of a block that could not be fetched, as the residency made it.
pub(crate) fn fetched(error: BoxedError) -> TrainError {
    match error.downcast::<TrainError>() {
        Ok(error) => *error,
        Err(error) => TrainError::Thread { reason: error.to_string() },
    }
}
