//! The plan's update rule as the offload engine knows it.
//!
//! In:    the optimizer part of the plan.
//! Out:   a [`Rule`].
//! Never: decides a constant that the recipe can state.

use offload::rules::{Adafactor, AdamW, Lion, Rule, Sgd};
use planner::plan::{OptimizerKind, OptimizerPlan};

/// The rule with its constants.
pub(crate) fn rule(plan: &OptimizerPlan) -> Rule {
    let OptimizerPlan { beta1, beta2, epsilon, weight_decay, momentum, .. } = *plan;
    let adamw = AdamW { beta1, beta2, epsilon, weight_decay };
    match plan.kind {
        OptimizerKind::Adamw => Rule::AdamW(adamw),
        OptimizerKind::Adamw8bit => Rule::AdamW8bit(adamw),
        OptimizerKind::AdamwBf16 => Rule::AdamWBf16(adamw),
        OptimizerKind::Lion => Rule::Lion(Lion { beta1, beta2, weight_decay }),
        OptimizerKind::Sgd => Rule::Sgd(Sgd { momentum, weight_decay }),
        OptimizerKind::Adafactor => Rule::Adafactor(Adafactor { weight_decay }),
    }
}
