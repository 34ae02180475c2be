//! What goes into a run and what it tells on the way.
//!
//! In:    plain values.
//! Out:   plain values; `cli/` turns them into text.
//! Never: text for people beyond short notes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use checkpoints::weights::Weights;
use kernels::devices::{Reading, Throttle};
use planner::plan::Plan;
use serde::Serialize;

use crate::saver::SaveReport;
use crate::stalls::StallReport;

/// One run, planned and with its weights opened.
#[derive(Debug)]
pub struct Job {
    /// What to do.
    pub plan: Plan,
    /// Model files.
    pub weights: Weights,
    /// Where everything is written; locked by the caller.
    pub run_directory: PathBuf,
    /// Whether the run goes on, and from where.
    pub resume: Resume,
    /// Begin with the weights of this checkpoint, or of the newest of this run directory.
    pub from: Option<PathBuf>,
    /// The resolved recipe, TOML: every checkpoint holds it.
    pub recipe: String,
    /// Set from outside to ask for a checkpoint after the step that is under way; unset when it has begun.
    pub save_asked: Arc<AtomicBool>,
    /// Written as `base_model_name_or_path` into the adapter.
    pub base_name: String,
    /// Folder of prepared rows, shared by all runs.
    pub token_cache: PathBuf,
}

/// Where a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// It begins.
    No,
    /// After the newest complete checkpoint.
    Newest,
    /// After the checkpoint of this step; later ones are set aside.
    Step(u64),
}

/// Something happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Worth a line.
    Note(String),
    /// Rows are being prepared.
    Preparing(datasets::Progress),
    /// The model is on the device.
    Loaded {
        /// Weights of the model.
        parameters: u64,
        /// Weights that are trained.
        trainable: u64,
        /// Time of loading.
        seconds: f64,
    },
    /// The data set is tokenised; one line of counts.
    Data(String),
    /// Part of an evaluation is done.
    Evaluating {
        /// What is measured.
        what: &'static str,
        /// Parts done.
        done: usize,
        /// Parts in all.
        of: usize,
    },
    /// An evaluation is done.
    Evaluated {
        /// Optimizer updates before it.
        step: u64,
        /// The figures.
        report: EvaluationReport,
    },
    /// Training begins.
    Started {
        /// Updates of the whole run.
        steps: u64,
        /// Number of the first update that this process makes, from 1.
        first_step: u64,
    },
    /// One optimizer update is done.
    Step(Box<StepMetrics>),
    /// A checkpoint is complete.
    Checkpoint {
        /// Optimizer updates in it.
        step: u64,
        /// Its folder.
        path: PathBuf,
        /// Figures of the save.
        saved: SaveReport,
    },
    /// A checkpoint could not be written; what was there before is untouched, and the run goes on.
    SaveFailed {
        /// Optimizer updates in it.
        step: u64,
        /// Why not.
        problem: String,
    },
}

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepMetrics {
    /// Number of the update, from 1.
    pub step: u64,
    /// Updates of the whole run.
    pub steps: u64,
    /// Passes over the data when the step ended.
    pub epoch: f64,
    /// Mean loss of the step's trained tokens, natural logarithm.
    pub loss: f64,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Tokens that went through the model.
    pub tokens: u64,
    /// Tokens that the loss counts.
    pub trained_tokens: u64,
    /// `tokens` over the step's time.
    pub tokens_per_second: f64,
    /// Time of the step.
    pub step_ms: f64,
    /// Most memory the process ever held.
    pub peak_rss_bytes: u64,
    /// Bytes that tensors hold on a device with its own memory; 0 on the CPU.
    pub device_bytes: u64,
    /// Bytes in host slabs of the offload engine.
    pub dram_tier_bytes: u64,
    /// Bytes read from NVMe since the last step: what a checkpoint or an evaluation between the two read is among them.
    pub nvme_read_bytes: u64,
    /// Bytes written to NVMe by the step. What placing the arrays wrote counts for the run, not for its first step.
    pub nvme_write_bytes: u64,
    /// Bytes that the run wrote to NVMe so far, placing the arrays and earlier processes included.
    pub nvme_written_bytes: u64,
    /// Bytes of the step for each NVMe path.
    pub nvme: Vec<PathBytes>,
    /// Time the compute waited for bytes.
    pub stall_ms: f64,
    /// The same for each cause.
    pub stalls: StallReport,
    /// The pool that tensors of a device with its own allocator lie in; absent on the CPU.
    #[serde(flatten)]
    pub pool: Option<PoolMetrics>,
    /// What the card told during the step; absent where none tells.
    #[serde(flatten)]
    pub card: Option<CardMetrics>,
}

/// Memory that a device's allocator holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PoolMetrics {
    /// Taken from the device: what others cannot have.
    pub pool_reserved_bytes: u64,
    /// Of that, in tensors when the step ended.
    pub pool_used_bytes: u64,
    /// Of that, lost between and behind tensors.
    pub pool_padding_bytes: u64,
    /// Tensors in it.
    pub pool_tensors: u64,
}

/// What a card told over a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CardMetrics {
    /// The hottest it was, degrees Celsius.
    pub gpu_celsius: Option<f64>,
    /// What it drew on average, W.
    pub gpu_watts: Option<f64>,
    /// The slowest that its arithmetic ran, MHz.
    pub gpu_mhz: Option<u32>,
    /// Every reason there was for lower clocks.
    pub throttle: Vec<Throttle>,
}

impl From<Reading> for CardMetrics {
    fn from(reading: Reading) -> CardMetrics {
        let Reading { celsius, watts, mhz, throttle } = reading;
        CardMetrics { gpu_celsius: celsius, gpu_watts: watts, gpu_mhz: mhz, throttle }
    }
}

/// Bytes moved on one NVMe path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathBytes {
    /// As the recipe names it.
    pub path: PathBuf,
    /// Read from it.
    pub read_bytes: u64,
    /// Written to it.
    pub written_bytes: u64,
}

/// Held-out figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvaluationReport {
    /// Mean loss of trained tokens.
    pub loss: f64,
    /// `exp(loss)`.
    pub perplexity: f64,
    /// Rows measured.
    pub rows: usize,
    /// Rows answered exactly by greedy decoding, and rows asked.
    pub exact: Option<(usize, usize)>,
    /// Time it took.
    pub seconds: f64,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// All steps are done.
    Finished(Summary),
    /// Stopped on request after a whole step.
    Interrupted {
        /// Updates done.
        step: u64,
        /// What `--resume` goes on from.
        checkpoint: PathBuf,
    },
}

/// Figures of a finished run.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Held-out figures before the first update; `None` without evaluation, or after a resume.
    pub before: Option<EvaluationReport>,
    /// Held-out figures at the end.
    pub after: Option<EvaluationReport>,
    /// Updates of the run.
    pub steps: u64,
    /// Time of the steps of this process.
    pub seconds: f64,
    /// Tokens of the steps of this process.
    pub tokens: u64,
    /// Most memory the process ever held.
    pub peak_rss_bytes: u64,
    /// The most that the device's allocator took, where it has one of its own.
    pub pool_reserved_bytes_max: Option<u64>,
    /// Bytes that the run wrote to NVMe tiers, earlier processes included.
    pub nvme_written_bytes: u64,
    /// What people use: the PEFT adapter folder, or the model folder of full training.
    pub result: PathBuf,
}
