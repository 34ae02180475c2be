//! Why no plan exists.
//!
//! In:    what the planner found.
//! Out:   one line each: what, where, the numbers, what to do.
//! Never: more than one line.

use crate::machine::NoSuchDevice;
use crate::plan::Plan;
use crate::report::Shortfall;
use crate::units::bytes_text;

/// Why no plan exists.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The run needs more than the tier has.
    #[error("{}", misfit_text(&.0.shortfall))]
    DoesNotFit(Box<Misfit>),
    /// No row length of `auto` goes with the recipe's other numbers.
    #[error(
        "data.sequence_length = \"auto\" finds no length: train.tokens_per_step = {step} and train.micro_batch = {micro_batch} ask for rows \
         that divide it; take a power of two for both, or name the length"
    )]
    NoRowLength {
        /// Tokens of a step.
        step: usize,
        /// Rows of a pass.
        micro_batch: usize,
    },
    /// A name in `method.targets` is no linear layer.
    #[error("target matches nothing: method.targets \"{name}\"; linear layers of this model: {known}")]
    UnknownTarget {
        /// As written.
        name: String,
        /// All leafs.
        known: String,
    },
    /// The device is not there, or this build cannot use it.
    #[error("hardware.device: {0}")]
    NoSuchDevice(#[from] NoSuchDevice),
    /// More memory was promised than the machine has.
    #[error("more than the machine has: {key} = {}, but there are {}", bytes_text(*asked_bytes), bytes_text(*total_bytes))]
    MemoryBeyondMachine {
        /// The key, dotted.
        key: &'static str,
        /// As written.
        asked_bytes: u64,
        /// What there is.
        total_bytes: u64,
    },
    /// A tier was promised more than the memory it is a part of.
    #[error(
        "budgets disagree: {key} = {}, but hardware.memory allows {}; lower the one or raise the other",
        bytes_text(*asked_bytes), bytes_text(*memory_bytes)
    )]
    BudgetBeyondMemory {
        /// The key, dotted.
        key: &'static str,
        /// As written.
        asked_bytes: u64,
        /// What `hardware.memory` allows.
        memory_bytes: u64,
    },
    /// One of embedding and head is to be trained, but they are one tensor.
    #[error(
        "method.train_embeddings = {embeddings} and method.train_head = {head}, but this model's head is its embedding (tied), one tensor; \
         set both to the same"
    )]
    TiedHead {
        /// `method.train_embeddings`
        embeddings: bool,
        /// `method.train_head`
        head: bool,
    },
    /// A class that the update works on is to live on a card.
    #[error("{key} = \"device\" with a card: the update runs on the host; take \"dram\" or \"nvme\"")]
    UpdateOnHost {
        /// The key, dotted.
        key: &'static str,
    },
    /// `train.keep = N` names more blocks than there are.
    #[error("train.keep = {asked}, but the model has {blocks} blocks; expected 0 to {blocks}")]
    KeepBeyondBlocks {
        /// As written.
        asked: usize,
        /// Blocks of the model.
        blocks: usize,
    },
    /// Rows longer than the model was made for.
    #[error("data.sequence_length = {asked}, but the model's positions end at {positions}; take at most that")]
    SequenceTooLong {
        /// As written.
        asked: usize,
        /// The model's maximum.
        positions: usize,
    },
}

/// What was nearest to fitting, and by how much it does not.
#[derive(Debug, Clone, PartialEq)]
pub struct Misfit {
    /// Which memory, the bytes, what would fit.
    pub shortfall: Shortfall,
    /// The least that the recipe allows.
    pub plan: Plan,
}

fn misfit_text(shortfall: &Shortfall) -> String {
    let Shortfall { tier, needed_bytes, budget_bytes, remedies, advice } = shortfall;
    let short = bytes_text(needed_bytes.saturating_sub(*budget_bytes));
    let changes: Vec<&str> = remedies.iter().map(|remedy| remedy.change.as_str()).collect();
    let changes = if changes.is_empty() { advice.clone() } else { changes.join("; ") };
    let (needed, budget) = (bytes_text(*needed_bytes), bytes_text(*budget_bytes));
    format!("does not fit: {tier}: needs {needed} but its budget is {budget}, {short} short; {changes}")
}

impl PlanError {
    /// The recipe is well formed but this machine is too small for it.
    pub fn is_does_not_fit(&self) -> bool {
        matches!(self, PlanError::DoesNotFit(_))
    }
}
