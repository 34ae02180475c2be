//! What each change of a recipe or of a machine would buy, by counting the step again with that change.
//!
//! In:    the step, the rates.
//! Out:   [`Improvement`]s, the best first, each with its [`Change`] so that a caller drops those that do not fit its budget.
//! Never: looks at memory; names a change that buys less than 3 %.

use super::{Work, step_seconds};
use crate::memory::{Placement, Shape};
use crate::plan::{Keep, OptimizerKind, OptimizerPlan, Precision, Remedy, Tier};
use crate::rates::Rates;

/// A change has to buy so much of a step.
const WORTH: f64 = 0.03;

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Every block keeps its graph.
    Retain,
    /// Compute in bf16.
    Bf16,
    /// Twice the rows of a micro-batch, half the micro-batches.
    LargerMicroBatch,
    /// The update runs while gradients are still made; the norm is not clipped.
    UpdateDuringBackward,
    /// Optimizer states in 8 bits.
    States8Bit,
    /// Optimizer states, and masters with them, in host memory.
    OptimizerInDram,
    /// Weights of blocks in host memory.
    WeightsInDram,
    /// Weights of blocks on the device.
    WeightsOnDevice,
    /// Block inputs on the device.
    ActivationsOnDevice,
    /// Gradients in host memory.
    GradientsInDram,
    /// A second drive like those there are.
    SecondDrive,
    /// Twice the lanes between host and card.
    WiderLink,
}

const CHANGES: [Change; 12] = [
    Change::Retain,
    Change::Bf16,
    Change::LargerMicroBatch,
    Change::UpdateDuringBackward,
    Change::States8Bit,
    Change::OptimizerInDram,
    Change::WeightsInDram,
    Change::WeightsOnDevice,
    Change::ActivationsOnDevice,
    Change::GradientsInDram,
    Change::SecondDrive,
    Change::WiderLink,
];

impl Change {
    /// What to write in the recipe, or to buy.
    pub fn text(self) -> &'static str {
        match self {
            Change::Retain => "train.keep = \"retain\": no block runs forward twice",
            Change::Bf16 => "model.precision = \"bf16\"",
            Change::LargerMicroBatch => "twice the rows in train.micro_batch",
            Change::UpdateDuringBackward => {
                "optimizer.max_grad_norm = \"none\": the update runs during the backward pass"
            }
            Change::States8Bit => "optimizer.kind = \"adamw8bit\"",
            Change::OptimizerInDram => "offload.optimizer = \"dram\"",
            Change::WeightsInDram => "offload.weights = \"dram\"",
            Change::WeightsOnDevice => "offload.weights = \"device\"",
            Change::ActivationsOnDevice => "offload.activations = \"device\"",
            Change::GradientsInDram => "offload.gradients = \"dram\"",
            Change::SecondDrive => "a second drive like the first, in offload.nvme too",
            Change::WiderLink => "twice the PCIe lanes between host and card",
        }
    }
}

/// A change and the step with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Improvement {
    /// What is changed.
    pub change: Change,
    /// Seconds of a step with it; of as many tokens as before.
    pub step_seconds: f64,
}

impl Improvement {
    /// As a plan shows it.
    pub fn remedy(&self) -> Remedy {
        Remedy { change: self.change.text().to_string(), step_seconds: self.step_seconds }
    }
}

/// Every change that makes the step shorter by 3 % or more, the best first.
pub fn improvements(work: &Work, rates: &Rates) -> Vec<Improvement> {
    let now = step_seconds(work, rates);
    let tried = CHANGES.into_iter().filter_map(|change| {
        let step_seconds = with(change, work, rates)?;
        Some(Improvement { change, step_seconds })
    });
    let mut worth: Vec<Improvement> = tried.filter(|tried| tried.step_seconds < (1.0 - WORTH) * now).collect();
    worth.sort_by(|a, b| a.step_seconds.total_cmp(&b.step_seconds));
    worth
}

/// Seconds of a step with `change`; `None` where it changes nothing.
fn with(change: Change, work: &Work, rates: &Rates) -> Option<f64> {
    let shape = work.shape;
    let placed = |placement: Placement| shape_seconds(work, rates, &Shape { placement, ..shape.clone() });
    let placement = shape.placement;
    match change {
        Change::Retain => {
            let keep = vec![Keep::Retain; shape.keep.len()];
            (keep != shape.keep).then(|| shape_seconds(work, rates, &Shape { keep, ..shape.clone() }))
        }
        Change::Bf16 => (shape.precision == Precision::F32)
            .then(|| shape_seconds(work, rates, &Shape { precision: Precision::Bf16, ..shape.clone() })),
        Change::LargerMicroBatch => (work.micro_batches / u64::from(work.cards.max(1)) >= 2).then(|| {
            let larger = Shape { tokens: shape.tokens * 2, ..shape.clone() };
            step_seconds(&Work { shape: &larger, micro_batches: work.micro_batches.div_ceil(2), ..*work }, rates)
        }),
        Change::UpdateDuringBackward => {
            (!work.update_during_backward).then(|| step_seconds(&Work { update_during_backward: true, ..*work }, rates))
        }
        Change::States8Bit => (shape.optimizer.kind == OptimizerKind::Adamw).then(|| {
            let optimizer = OptimizerPlan { kind: OptimizerKind::Adamw8bit, ..*shape.optimizer };
            shape_seconds(work, rates, &Shape { optimizer: &optimizer, ..shape.clone() })
        }),
        Change::OptimizerInDram => {
            (placement.optimizer == Tier::Nvme).then(|| placed(Placement { optimizer: Tier::Dram, ..placement }))
        }
        Change::WeightsInDram => {
            (placement.weights == Tier::Nvme).then(|| placed(Placement { weights: Tier::Dram, ..placement }))
        }
        Change::WeightsOnDevice => {
            (placement.weights != Tier::Device).then(|| placed(Placement { weights: Tier::Device, ..placement }))
        }
        Change::ActivationsOnDevice => (placement.activations != Tier::Device)
            .then(|| placed(Placement { activations: Tier::Device, ..placement })),
        Change::GradientsInDram => (placement.gradients == Tier::Nvme && shape.has_gradient_arrays)
            .then(|| placed(Placement { gradients: Tier::Dram, ..placement })),
        Change::SecondDrive => uses_nvme(&placement).then(|| step_seconds(work, &second_drive(rates))),
        Change::WiderLink => rates
            .host_link_bytes_per_second
            .map(|rate| step_seconds(work, &Rates { host_link_bytes_per_second: Some(2.0 * rate), ..*rates })),
    }
}

fn shape_seconds(work: &Work, rates: &Rates, shape: &Shape) -> f64 {
    step_seconds(&Work { shape, ..*work }, rates)
}

fn uses_nvme(placement: &Placement) -> bool {
    [placement.weights, placement.gradients, placement.optimizer, placement.activations].contains(&Tier::Nvme)
}

fn second_drive(rates: &Rates) -> Rates {
    let mut drives = rates.drives();
    drives.read_bytes_per_second *= 2.0;
    drives.write_bytes_per_second *= 2.0;
    Rates { nvme: Some(drives), ..*rates }
}
