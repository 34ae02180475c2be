//! Where bytes live and how they move, as the plan says it.
//!
//! In:    made by the planner only.
//! Out:   read by offload and trainer.
//! Never: a path that was looked at.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A memory that tensors may live in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Memory of the device that computes.
    Device,
    /// Host memory.
    Dram,
    /// Files on NVMe drives.
    Nvme,
}

/// How files are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IoEngine {
    /// io_uring where the kernel allows it, else threads; found out at the start of the run.
    Auto,
    /// io_uring, or an error.
    IoUring,
    /// A pool of threads with pread and pwrite.
    Threads,
}

/// Where the classes of a run live and how bytes move to NVMe. No number of the training depends on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OffloadPlan {
    /// Weights of blocks. With f32 compute, full training and a tier other than the device: also the f32 masters, from which blocks are made.
    pub weights: Tier,
    /// Gradient arrays.
    pub gradients: Tier,
    /// Optimizer states, and trained f32 parameters that do not live with the weights.
    pub optimizer: Tier,
    /// Block inputs between forward and backward.
    pub activations: Tier,
    /// Directories for files; there are some if any class needs them.
    pub nvme: Vec<PathBuf>,
    /// How they are read and written.
    pub engine: IoEngine,
    /// f32 parameters of one transfer; a multiple of 1024.
    pub span_elements: usize,
    /// Transfers in flight per path at most.
    pub queue_depth: usize,
    /// I/O buffers, each of `4 * span_elements` bytes.
    pub buffers: usize,
    /// What the device tier may hold, bytes.
    pub device_budget_bytes: u64,
    /// What the dram tier may hold, bytes.
    pub dram_budget_bytes: u64,
    /// What the run may write to NVMe, bytes; `None` without a bound.
    pub write_budget_bytes: Option<u64>,
    /// Parameters are updated as soon as their gradients are complete, instead of after the backward pass.
    pub update_during_backward: bool,
}

impl OffloadPlan {
    /// Bytes of one I/O buffer.
    pub fn buffer_bytes(&self) -> u64 {
        self.span_elements as u64 * 4
    }

    /// Any class lives on NVMe.
    pub fn uses_nvme(&self) -> bool {
        [self.weights, self.gradients, self.optimizer, self.activations].contains(&Tier::Nvme)
    }
}
