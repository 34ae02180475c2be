//! The rule of 20 bytes a parameter, set beside what a plan counts.
//!
//! In:    a plan.
//! Out:   [`RuleOfTwenty`] with the difference explained, line by line.
//! Never: takes the rule for more than it is: mixed-precision AdamW of all weights, without activations.

use super::RuleOfTwenty;
use crate::memory::trained_parameters;
use crate::plan::{MemoryTerm, MethodPlan, OptimizerKind, Plan, Precision};
use crate::units::bytes_text;

/// 2 weights, 2 gradients, 4 master, 4 + 4 moments, 4 gradients in f32.
const RULE_BYTES: u64 = 20;

/// The rule for the plan's model, and why the plan differs.
pub fn rule_of_twenty(plan: &Plan) -> RuleOfTwenty {
    let parameters = plan.model.spec.parameters();
    let planned: Vec<&MemoryTerm> = plan.memory.terms.iter().chain(&plan.memory.nvme).collect();
    let of = |words: &[&str]| -> u64 {
        let matching = planned.iter().filter(|term| words.iter().any(|word| term.name.contains(word)));
        matching.map(|term| term.bytes).sum()
    };
    let states = of(&["optimizer states"]);
    let gradients = of(&["gradients"]);
    let weights = of(&["weights", "streamed blocks", "blocks of kept graphs", "masters", "adapters"]);
    let planned_bytes = planned.iter().map(|term| term.bytes).sum();
    let rest = planned_bytes - states - gradients - weights;
    let per =
        |bytes: u64| format!("{} ({:.2} a parameter)", bytes_text(bytes), bytes as f64 / parameters.max(1) as f64);
    RuleOfTwenty {
        rule_bytes: parameters.saturating_mul(RULE_BYTES),
        planned_bytes,
        why: vec![
            format!("weights {}, 6 by the rule: {}", per(weights), weights_reason(plan)),
            format!("gradients {}, 6 by the rule: {}", per(gradients), gradients_reason(plan)),
            format!("optimizer states {}, 8 by the rule: {}", per(states), states_reason(plan)),
            format!("activations, buffers and runtime {}, which the rule leaves out", bytes_text(rest)),
        ],
    }
}

fn share(plan: &Plan) -> String {
    let trained = trained_parameters(&plan.model.spec, &plan.method) as f64;
    format!("{:.2} %", 100.0 * trained / plan.model.spec.parameters().max(1) as f64)
}

fn weights_reason(plan: &Plan) -> String {
    match (&plan.method, plan.model.precision) {
        (MethodPlan::Lora(lora), precision) => {
            let base = match (lora.base.packed_bits(), precision) {
                (Some(bits), _) => format!("{bits} bits"),
                (None, Precision::Bf16) => "bf16".to_string(),
                (None, Precision::F32) => "f32".to_string(),
            };
            format!("a frozen base in {base}, and adapters of {} in f32", share(plan))
        }
        (MethodPlan::Full(_), Precision::Bf16) => "f32 masters and bf16 copies to compute with".to_string(),
        (MethodPlan::Full(_), Precision::F32) => {
            "f32 throughout: what is computed with is a copy of the masters".to_string()
        }
    }
}

fn gradients_reason(plan: &Plan) -> String {
    match &plan.method {
        MethodPlan::Lora(_) => format!("only {} of the parameters have gradients", share(plan)),
        MethodPlan::Full(_) => "one f32 gradient, added up; no copy in bf16".to_string(),
    }
}

fn states_reason(plan: &Plan) -> String {
    let rule = match plan.optimizer.kind {
        OptimizerKind::Adamw => "two f32 moments",
        OptimizerKind::Adamw8bit => "two moments of one byte",
        OptimizerKind::AdamwBf16 => "two moments of two bytes",
        OptimizerKind::Lion => "one f32 momentum",
        OptimizerKind::Adafactor => "a second moment in rows and columns",
        OptimizerKind::Sgd if plan.optimizer.momentum > 0.0 => "one f32 velocity",
        OptimizerKind::Sgd => "no state",
    };
    match &plan.method {
        MethodPlan::Lora(_) => format!("{rule} for {} of the parameters", share(plan)),
        MethodPlan::Full(_) => rule.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::tests::{machine, plan_of};

    #[test]
    fn parts_of_the_rule_add_up_to_what_is_planned() {
        for set in [vec!["method.kind=full"], vec![], vec!["method.kind=qlora"]] {
            let plan = plan_of(&set, &machine(24_000_000_000)).expect("it fits");
            let rule = rule_of_twenty(&plan);
            assert_eq!(rule.rule_bytes, 134_515_008 * 20);
            assert_eq!(rule.planned_bytes, plan.memory.peak_bytes + plan.memory.nvme_bytes);
            assert_eq!(rule.why.len(), 4);
        }
    }

    #[test]
    fn full_training_in_f32_has_16_bytes_of_states_where_the_rule_has_20() {
        let plan = plan_of(&["method.kind=full", "model.precision=f32"], &machine(24_000_000_000)).expect("it fits");
        let why = rule_of_twenty(&plan).why;
        assert!(why[2].contains("8.00 a parameter"), "{why:?}");
    }
}
