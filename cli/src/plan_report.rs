//! Everything `tune plan` says about one recipe on one machine.
//!
//! In:    a recipe, a [`Target`], what is known about the model.
//! Out:   a [`Report`]; also for what does not fit.
//! Never: prints.

use std::path::PathBuf;

use anyhow::anyhow;
use checkpoints::weights::Weights;
use planner::costs::costs;
use planner::plan::Plan;
use planner::report::{Report, SCHEMA, rule_of_twenty};
use planner::serving::serving;
use planner::{Decision, Machine, PlanError};
use recipes::{DeviceName, Recipe};

use crate::described::Target;
use crate::failure::{Failure, OrFail};
use crate::subject::Subject;
use crate::{io_profile, prepare};

/// Stands for the drives of a described machine where no directory is named.
pub const DRIVE: &str = "DRIVE";

/// Plans `recipe` for `target`.
pub fn report(recipe: &Recipe, target: &Target, subject: &Subject) -> Result<Report, Failure> {
    let Some(spec) = subject.inventory.spec.clone() else { return Err(untrainable(subject)) };
    let (recipe, mut notes) = on_the_parts(recipe, target);
    notes.extend(subject.note.clone());
    notes.extend(target.notes.iter().cloned());
    let io = if target.described.is_some() { Vec::new() } else { io_profile::known(&recipe) };
    let machine = target.machine(&recipe.offload.nvme, io, recipe.hardware.device)?;
    let (plan, alternatives, shortfall) = match planner::decide(&recipe, spec, &machine) {
        Ok(Decision { plan, alternatives }) => (plan, alternatives, None),
        Err(PlanError::DoesNotFit(misfit)) => (misfit.plan, Vec::new(), Some(misfit.shortfall)),
        Err(error) => return Err(error).or_input(),
    };
    let plan = with_steps(plan, subject, &mut notes);
    notes.extend(limits(&machine, target));
    let context = plan.data.sequence_length as u64;
    let costs = match &target.described {
        Some(described) => Some(costs(&plan, described, &target.prices).or_input()?),
        None => None,
    };
    Ok(Report {
        schema: SCHEMA,
        shortfall,
        alternatives,
        machine: target.described.clone(),
        rule_of_twenty: rule_of_twenty(&plan),
        serving: serving(&subject.inventory, context.max(SERVING_CONTEXT.min(subject.inventory.max_positions))),
        costs,
        notes,
        plan,
    })
}

/// The result is shown serving at least this context, tokens.
const SERVING_CONTEXT: u64 = 8192;

/// A described machine's drives stand for the recipe's directories; without a card the recipe's card is its processor.
fn on_the_parts(recipe: &Recipe, target: &Target) -> (Recipe, Vec<String>) {
    let mut recipe = recipe.clone();
    let mut notes = Vec::new();
    if let Some(described) = &target.described {
        match (recipe.offload.nvme.is_empty(), described.ssds.is_empty()) {
            (true, false) => {
                recipe.offload.nvme = vec![PathBuf::from(DRIVE)];
                notes.push(format!(
                    "offload.nvme names no directory; the described drives are planned with as {DRIVE:?}"
                ));
            }
            (false, true) => {
                notes.push("no drive was described; one of usual speed is taken for offload.nvme".to_string());
            }
            _ => {}
        }
        let has_card = described.gpu.as_ref().is_some_and(|(gpu, _)| !gpu.unified);
        let named = recipe.hardware.device;
        match named {
            DeviceName::Cuda(_) if has_card => {}
            DeviceName::Vulkan(index) if has_card => recipe.hardware.device = DeviceName::Cuda(index),
            DeviceName::Cuda(index) | DeviceName::Vulkan(index) => {
                recipe.hardware.device = DeviceName::Cpu;
                notes
                    .push(format!("card {index} of hardware.device is not in this machine; planned in its one memory"));
            }
            DeviceName::Auto | DeviceName::Cpu => {}
        }
    }
    (recipe, notes)
}

/// With the data and the tokenizer at hand the steps are counted, not guessed.
fn with_steps(mut plan: Plan, subject: &Subject, notes: &mut Vec<String>) -> Plan {
    if plan.time.steps.is_some() {
        return plan;
    }
    let there = plan.data.sources.iter().all(|source| datasets::files_of(source).is_ok());
    match &subject.weights {
        Some(weights) if there => match counted(&plan, weights) {
            Ok(steps) => plan.time = plan.time.with_steps(steps),
            Err(error) => notes.push(format!("steps are not known: {error}")),
        },
        _ => notes.push("steps are not known before the data is read with the model's tokenizer".to_string()),
    }
    plan
}

fn counted(plan: &Plan, weights: &Weights) -> anyhow::Result<u64> {
    Ok(trainer::steps(plan, weights, &prepare::token_cache()?)?)
}

/// What was planned and this version cannot do.
fn limits(machine: &Machine, target: &Target) -> Vec<String> {
    let mut notes = Vec::new();
    if machine.cards > 1 {
        notes.push(format!(
            "{} cards share the rows of a step in this plan; this version trains on one of them",
            machine.cards
        ));
    }
    let vendor = target.described.as_ref().and_then(|described| described.gpu.as_ref()).map(|(gpu, _)| gpu.vendor);
    if vendor.is_some_and(|vendor| vendor != planner::hardware::Vendor::Nvidia) {
        notes.push(
            "cards that are not NVIDIA's train here through Vulkan in f32 (hardware.device = \"vulkan:0\", a build with --features wgpu); \
             these times are those of their makers' own kernels"
                .to_string(),
        );
    }
    notes
}

/// A model that can be counted but not trained.
fn untrainable(subject: &Subject) -> Failure {
    let inventory = &subject.inventory;
    Failure::Input(anyhow!(
        "{}: {:.1} B parameters ({:.1} B active) are counted, but this version cannot train its architecture; training all of them with AdamW \
         would take about {} by the rule of 20 bytes",
        inventory.name,
        inventory.parameters as f64 / 1e9,
        inventory.active_parameters as f64 / 1e9,
        planner::units::bytes_text(inventory.parameters.saturating_mul(20))
    ))
}
