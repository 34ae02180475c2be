//! `[optimizer]` and `[schedule]`: both tools hand their words to transformers' Trainer.
//!
//! In:    names of update rules and schedules, the numbers of Adam.
//! Out:   lines of the draft.
//! Never: a number that the rule does not know.

use toml::Value;

use super::draft::{Draft, whole, word};
use super::ledger::Ledger;
use super::scope::Scope;
use super::{MigrateError, What};
use crate::recipe::OptimizerKind;

/// What a name there stands for: the kind here, and what differs.
struct Rule {
    names: &'static [&'static str],
    kind: OptimizerKind,
    differs: Option<&'static str>,
}

/// Update rules by their names there. Source: transformers' `OptimizerNames`, Axolotl's `CustomSupportedOptimizers`.
const RULES: [Rule; 10] = [
    Rule {
        names: &[
            "adamw_torch",
            "adamw_torch_fused",
            "adamw_hf",
            "adamw_apex_fused",
            "adamw_torch_xla",
            "adamw_torch_npu_fused",
            "adamw",
        ],
        kind: OptimizerKind::Adamw,
        differs: None,
    },
    Rule {
        names: &["paged_adamw", "paged_adamw_32bit"],
        kind: OptimizerKind::Adamw,
        differs: Some("the same rule; instead of paging, [offload] decides where its states live"),
    },
    Rule { names: &["optimi_adamw"], kind: OptimizerKind::Adamw, differs: Some("AdamW without Kahan summation") },
    Rule {
        names: &["adamw_bnb_8bit", "adamw_8bit", "ao_adamw_8bit", "adamw_torch_8bit"],
        kind: OptimizerKind::Adamw8bit,
        differs: None,
    },
    Rule {
        names: &["paged_adamw_8bit"],
        kind: OptimizerKind::Adamw8bit,
        differs: Some("the same rule; instead of paging, [offload] decides where its states live"),
    },
    Rule {
        names: &["ao_adamw_4bit", "ao_adamw_fp8", "adamw_torch_4bit"],
        kind: OptimizerKind::Adamw8bit,
        differs: Some("states in 8 bits, one scale per 256 numbers"),
    },
    Rule {
        names: &["lion", "lion_32bit", "paged_lion_32bit", "lion_pytorch"],
        kind: OptimizerKind::Lion,
        differs: None,
    },
    Rule {
        names: &["lion_8bit", "paged_lion_8bit"],
        kind: OptimizerKind::Lion,
        differs: Some("Lion with its momentum in f32 instead of 8 bits"),
    },
    Rule { names: &["adafactor"], kind: OptimizerKind::Adafactor, differs: None },
    Rule { names: &["sgd"], kind: OptimizerKind::Sgd, differs: None },
];

/// Keys that become `[optimizer]` and `[schedule]`, of either tool.
#[cfg(test)]
pub(super) const KEYS: [&str; 7] =
    ["adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "warmup_steps", "warmup_ratio", "max_steps"];

/// `optimizer.kind` and its numbers.
pub(super) fn optimizer(scope: &Scope, key: &str, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    let kind = match scope.text(key)? {
        None => {
            draft.put_default("optimizer.kind", word("adamw"));
            OptimizerKind::Adamw
        }
        Some(found) => match RULES.iter().find(|rule| rule.names.contains(&found.value.as_str())) {
            Some(Rule { kind, differs: None, .. }) => {
                draft.put("optimizer.kind", word(kind.word()));
                ledger.carry(&found.at, "optimizer.kind");
                *kind
            }
            Some(Rule { kind, differs: Some(differs), .. }) => {
                draft.put_because("optimizer.kind", word(kind.word()), format!("{} there; {differs}", found.value));
                ledger.note(
                    &found.at,
                    What::CarriedDifferently,
                    format!("optimizer.kind = \"{}\": {differs}", kind.word()),
                );
                *kind
            }
            None => {
                draft.put_because(
                    "optimizer.kind",
                    word("adamw"),
                    format!("{} there, which does not exist here: set the learning rate anew", found.value),
                );
                let why = "this update rule does not exist here; the recipe says \"adamw\", whose learning rate is another: adamw, adamw8bit, adamw_bf16, lion, adafactor and sgd exist";
                ledger.note(&found.at, What::NoCounterpart, why);
                OptimizerKind::Adamw
            }
        },
    };
    numbers(scope, kind, draft, ledger)
}

fn numbers(scope: &Scope, kind: OptimizerKind, draft: &mut Draft, ledger: &mut Ledger) -> Result<(), MigrateError> {
    let without = format!("no effect with optimizer.kind = \"{}\"", kind.word());
    let (first, second) = (scope.number("adam_beta1")?, scope.number("adam_beta2")?);
    for found in [&first, &second].into_iter().flatten() {
        match kind.has_betas() {
            true => ledger.carry(&found.at, "optimizer.betas"),
            false => ledger.note(&found.at, What::NotNeeded, without.clone()),
        }
    }
    // transformers hands Adam's betas to Lion too, whose own default here is [0.9, 0.99].
    if kind.has_betas() && (first.is_some() || second.is_some() || kind == OptimizerKind::Lion) {
        let betas = [first.map_or(0.9, |found| found.value), second.map_or(0.999, |found| found.value)];
        draft.put("optimizer.betas", Value::Array(betas.into_iter().map(Value::Float).collect()));
    }
    if let Some(epsilon) = scope.number("adam_epsilon")? {
        match kind.has_epsilon() && kind != OptimizerKind::Adafactor {
            true => {
                draft.put("optimizer.epsilon", Value::Float(epsilon.value));
                ledger.carry(&epsilon.at, "optimizer.epsilon");
            }
            false => ledger.note(&epsilon.at, What::NotNeeded, without),
        }
    }
    if let Some(norm) = scope.number("max_grad_norm")? {
        // 0 switches clipping off in transformers' Trainer.
        let value = if norm.value == 0.0 { word("none") } else { Value::Float(norm.value) };
        draft.put("optimizer.max_grad_norm", value);
        ledger.carry(&norm.at, "optimizer.max_grad_norm");
    }
    Ok(())
}

/// `schedule.kind` and `schedule.warmup`; `default` is what the tool takes where the file is silent.
pub(super) fn schedule(
    scope: &Scope,
    key: &str,
    default: &str,
    draft: &mut Draft,
    ledger: &mut Ledger,
) -> Result<Warmup, MigrateError> {
    let Some(found) = scope.text(key)? else {
        draft.put_default("schedule.kind", word(default));
        return Ok(Warmup::Used);
    };
    match found.value.as_str() {
        name @ ("cosine" | "linear" | "constant") => {
            draft.put("schedule.kind", word(name));
            ledger.carry(&found.at, "schedule.kind");
        }
        "constant_with_warmup" => {
            draft.put("schedule.kind", word("constant"));
            ledger.carry(&found.at, "schedule.kind");
        }
        other => {
            let nearest = if other.starts_with("polynomial") { "linear" } else { "cosine" };
            draft.put_because("schedule.kind", word(nearest), format!("{other} there, which does not exist here"));
            let why = format!(
                "this schedule does not exist here; the recipe says \"{nearest}\": constant, linear and cosine exist"
            );
            ledger.note(&found.at, What::NoCounterpart, why);
        }
    }
    Ok(if found.value == "constant" { Warmup::Ignored } else { Warmup::Used })
}

/// Whether the schedule there has a warmup at all: transformers' `constant` has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Warmup {
    Used,
    Ignored,
}

/// `schedule.warmup`; `default` is the tool's share of all steps.
pub(super) fn warmup(
    scope: &Scope,
    used: Warmup,
    default: Option<f64>,
    draft: &mut Draft,
    ledger: &mut Ledger,
) -> Result<(), MigrateError> {
    let (steps, ratio) = (scope.number("warmup_steps")?, scope.number("warmup_ratio")?);
    if used == Warmup::Ignored {
        let why = "the schedule `constant` has no warmup there; for one, write schedule.warmup";
        [steps, ratio].iter().flatten().for_each(|found| ledger.note(&found.at, What::NotNeeded, why));
        return Ok(());
    }
    let by_steps = steps.as_ref().is_some_and(|steps| steps.value > 0.0) || ratio.is_none();
    match (steps, ratio) {
        (Some(steps), ratio) if by_steps => {
            let share = steps.value > 0.0 && steps.value < 1.0;
            let value = if share {
                Value::Float(steps.value)
            } else {
                whole(scope.count("warmup_steps")?.map_or(0, |f| f.value))
            };
            draft.put("schedule.warmup", value);
            ledger.carry(&steps.at, "schedule.warmup");
            ratio.iter().for_each(|ratio| ledger.note(&ratio.at, What::NotNeeded, "warmup_steps wins there"));
        }
        (steps, Some(ratio)) => {
            draft.put("schedule.warmup", Value::Float(ratio.value));
            ledger.carry(&ratio.at, "schedule.warmup");
            steps.iter().for_each(|steps| ledger.note(&steps.at, What::NotNeeded, "warmup_ratio wins there"));
        }
        _ => default.into_iter().for_each(|share| draft.put_default("schedule.warmup", Value::Float(share))),
    }
    Ok(())
}
