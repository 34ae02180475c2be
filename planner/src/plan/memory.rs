//! Memory of a run as the plan says it: phase by phase, tier by tier, term by term.
//!
//! In:    made by [`crate::memory`] only.
//! Out:   shown, compared with what the run measured, written to `plan.json`.
//! Never: a sum over phases; the peak is the largest phase.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Tier;

/// What a run does at a time; also the parts of a step's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Weights are read, converted and placed.
    Load,
    /// Blocks run forward.
    Forward,
    /// The head and the loss: all kept block inputs and graphs are there, and the logits of one chunk.
    BackwardStart,
    /// Blocks run backward, last to first.
    Backward,
    /// The optimizer walks the parameters.
    Update,
    /// Held-out loss, and answers if they are asked for.
    Evaluation,
    /// A checkpoint is written.
    Save,
    /// The adapter or model is written.
    Export,
}

/// One term of the memory estimate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryTerm {
    /// What it is.
    pub name: String,
    /// Where it lives.
    pub tier: Tier,
    /// How much.
    pub bytes: u64,
    /// It may not be moved or paged by the system (registered or pinned buffers).
    #[serde(default)]
    pub pinned: bool,
}

/// What is alive in one phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PhaseMemory {
    /// Which.
    pub phase: Phase,
    /// Device and dram terms.
    pub terms: Vec<MemoryTerm>,
    /// Sum of the device terms (of each card).
    pub device_bytes: u64,
    /// Sum of the dram terms.
    pub dram_bytes: u64,
    /// What counts against the budget: on the CPU both, on a card the device terms.
    pub counted_bytes: u64,
}

/// Memory of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryPlan {
    /// The phase that needs most.
    pub peak_phase: Phase,
    /// Device and dram terms alive at the peak.
    pub terms: Vec<MemoryTerm>,
    /// What counts against `budget_bytes`: on the CPU device and dram terms, which share one memory; on a card its device terms.
    pub peak_bytes: u64,
    /// What may be used: the machine's memory on the CPU, the card's on a card.
    pub budget_bytes: u64,
    /// Sum of the dram terms in the phase that needs most of them; on the CPU a part of `peak_bytes`.
    pub dram_bytes: u64,
    /// Of that, what is pinned.
    pub pinned_bytes: u64,
    /// What lies in files.
    pub nvme: Vec<MemoryTerm>,
    /// Their sum.
    pub nvme_bytes: u64,
    /// Every phase, in the order of a run.
    pub phases: Vec<PhaseMemory>,
}
