//! Time of a run as the plan says it: each phase of a step, what bounds it, and what would make it faster.
//!
//! In:    made by [`crate::time`] only.
//! Out:   shown, compared with what the run measured, written to `plan.json`.
//! Never: a promise: `low` and `high` are part of every figure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Phase;
use crate::rates::RatesOrigin;

/// What a phase may be bound by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Arithmetic of the computing device.
    Compute,
    /// Memory of the computing device.
    DeviceMemory,
    /// The link between host and card.
    HostLink,
    /// Host memory.
    Dram,
    /// Reads from the drives.
    NvmeRead,
    /// Writes to the drives.
    NvmeWrite,
    /// The optimizer on the host's cores.
    CpuOptimizer,
    /// Gradients added up between cards.
    AllReduce,
}

/// Work for one resource.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceTime {
    /// Which.
    pub resource: Resource,
    /// Floating-point operations for [`Resource::Compute`], else bytes.
    pub amount: f64,
    /// Seconds if nothing else bounds it.
    pub seconds: f64,
}

/// One phase of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PhaseTime {
    /// Which.
    pub phase: Phase,
    /// Seconds: resources that the engine overlaps count as the longest of them.
    pub seconds: f64,
    /// What takes longest.
    pub bottleneck: Resource,
    /// Each resource.
    pub resources: Vec<ResourceTime>,
}

/// What a change would buy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Remedy {
    /// What to do, in one line.
    pub change: String,
    /// Seconds of a step with it.
    pub step_seconds: f64,
}

/// Time of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TimePlan {
    /// Phases of one optimizer step.
    pub phases: Vec<PhaseTime>,
    /// Seconds of one step.
    pub step_seconds: f64,
    /// At best.
    pub step_seconds_low: f64,
    /// At worst.
    pub step_seconds_high: f64,
    /// Tokens of a step a second, padding included.
    pub tokens_per_second: f64,
    /// What bounds the step.
    pub bottleneck: Resource,
    /// Steps of the run, where the recipe names them or the data was counted.
    pub steps: Option<u64>,
    /// Seconds of the whole run without evaluation; `None` where the steps are not known.
    pub run_seconds: Option<f64>,
    /// What would make it faster, the best first.
    pub remedies: Vec<Remedy>,
    /// Where the rates come from.
    pub origin: RatesOrigin,
}

impl TimePlan {
    /// The same for a run whose steps were counted.
    pub fn with_steps(self, steps: u64) -> TimePlan {
        TimePlan { steps: Some(steps), run_seconds: Some(steps as f64 * self.step_seconds), ..self }
    }
}
