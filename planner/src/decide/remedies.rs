//! What would make a run fit that does not: changes of the recipe, each searched like any other recipe.
//!
//! In:    a recipe that does not fit.
//! Out:   at most three changes that do, the fastest first, as `--set` arguments.
//! Never: a change that was not searched.

use recipes::recipe::{
    BaseChoice, LoraSection, MethodSection, OffloadSection, OptimizerKind, PrecisionChoice, TierChoice,
};
use recipes::{KeepChoice, MemorySize, MicroBatch, Recipe, TargetNames, TokenCount};

use super::alternatives::{keep_setting, word};
use super::ground::{Choice, Ground};
use super::search::{Candidate, best};
use crate::architecture::DecoderSpec;
use crate::machine::Machine;
use crate::memory::Placement;
use crate::plan::{Remedy, Tier};
use crate::units::bytes_text;

/// So many remedies are named.
const REMEDIES_MAX: usize = 3;
/// Rows are not cut shorter than this to fit, tokens.
const SEQUENCE_MIN: usize = 256;
/// Stands for a directory that the user names.
const DIRECTORY: &str = "DIRECTORY";

/// What may be changed, from what costs no quality to what does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Passes,
    Tiers,
    Budgets,
    Bf16,
    States8bit,
    Rows,
    Lora,
}

const CHANGES: [Change; 7] =
    [Change::Passes, Change::Tiers, Change::Budgets, Change::Bf16, Change::States8bit, Change::Rows, Change::Lora];

/// Changes that fit, the fastest first; one that is a part of another makes the other one needless.
pub(super) fn remedies(recipe: &Recipe, spec: &DecoderSpec, machine: &Machine) -> Vec<Remedy> {
    let possible: Vec<Change> = CHANGES.into_iter().filter(|&change| changed(recipe, change).is_some()).collect();
    let mut found: Vec<(Vec<Change>, Candidate)> = Vec::new();
    for count in 1..=possible.len() {
        for set in subsets(&possible, count) {
            let contains = |smaller: &Vec<Change>| smaller.iter().all(|change| set.contains(change));
            if found.iter().any(|(smaller, _)| contains(smaller)) {
                continue;
            }
            if let Some(candidate) = searched(recipe, &set, spec, machine) {
                found.push((set, candidate));
            }
        }
        if found.len() >= REMEDIES_MAX {
            break;
        }
    }
    found.sort_by(|(_, a), (_, b)| a.seconds_per_token().total_cmp(&b.seconds_per_token()));
    let remedy = |(set, candidate): &(Vec<Change>, Candidate)| Remedy {
        change: format!(
            "{} needs {}",
            settings(recipe, set, &candidate.choice, spec),
            bytes_text(candidate.needs.memory_bytes)
        ),
        step_seconds: candidate.step_seconds,
    };
    found.iter().take(REMEDIES_MAX).map(remedy).collect()
}

/// All sets of `count` of them, in their order.
fn subsets(of: &[Change], count: usize) -> Vec<Vec<Change>> {
    match (count, of.split_first()) {
        (0, _) => vec![Vec::new()],
        (_, None) => Vec::new(),
        (_, Some((first, rest))) => {
            let with = subsets(rest, count - 1).into_iter().map(|set| [vec![*first], set].concat());
            with.chain(subsets(rest, count)).collect()
        }
    }
}

fn searched(recipe: &Recipe, set: &[Change], spec: &DecoderSpec, machine: &Machine) -> Option<Candidate> {
    let recipe = set.iter().try_fold(recipe.clone(), |recipe, &change| changed(&recipe, change))?;
    let ground = Ground::of(&recipe, spec, machine).ok()?;
    best(&ground.search().ok()?).cloned()
}

/// The recipe with the change; `None` if it would change nothing.
fn changed(recipe: &Recipe, change: Change) -> Option<Recipe> {
    let mut out = recipe.clone();
    match change {
        Change::Passes => {
            out.train.micro_batch = MicroBatch::Auto;
            out.train.keep = KeepChoice::Auto;
        }
        Change::Tiers => {
            let offload = &mut out.offload;
            for tier in [&mut offload.weights, &mut offload.gradients, &mut offload.optimizer, &mut offload.activations]
            {
                *tier = TierChoice::Auto;
            }
            if offload.nvme.is_empty() {
                offload.nvme = vec![DIRECTORY.into()];
            }
        }
        Change::Budgets => {
            out.hardware.memory = MemorySize::Auto;
            out.offload = OffloadSection {
                device_budget: MemorySize::Auto,
                dram_budget: MemorySize::Auto,
                ..out.offload.clone()
            };
        }
        Change::Bf16 => out.model.precision = PrecisionChoice::Bf16,
        Change::States8bit if out.optimizer.kind == OptimizerKind::Adamw => {
            out.optimizer.kind = OptimizerKind::Adamw8bit
        }
        Change::States8bit => return None,
        Change::Rows => {
            let length = out.data.sequence_length.fixed().filter(|length| length / 2 >= SEQUENCE_MIN)?;
            out.data.sequence_length = TokenCount::Tokens(length / 2);
            out.train.micro_batch = MicroBatch::Auto;
        }
        Change::Lora => match out.method {
            MethodSection::Lora(_) => return None,
            MethodSection::Full(_) => out.method = MethodSection::Lora(usual_lora()),
        },
    }
    (out != *recipe).then_some(out)
}

fn usual_lora() -> LoraSection {
    LoraSection {
        rank: 16,
        alpha: 32.0,
        dropout: 0.0,
        targets: TargetNames::AllLinear,
        rank_stabilized: false,
        start_from: None,
        base: BaseChoice::Dense,
    }
}

/// The changes as `--set` arguments, with what the search chose.
fn settings(recipe: &Recipe, set: &[Change], choice: &Choice, spec: &DecoderSpec) -> String {
    let words = set.iter().flat_map(|change| match change {
        Change::Passes => passes(recipe, choice, spec),
        Change::Tiers => tiers(recipe, &choice.placement),
        Change::Budgets => vec!["hardware.memory=auto".to_string(), "offload.*_budget=auto".to_string()],
        Change::Bf16 => vec!["model.precision=bf16".to_string()],
        Change::States8bit => vec!["optimizer.kind=adamw8bit".to_string()],
        Change::Rows => vec![format!("data.sequence_length={}", choice.lengths.sequence)],
        Change::Lora => vec!["method.kind=lora method.rank=16 method.alpha=32".to_string()],
    });
    words.collect::<Vec<String>>().join(" ")
}

fn passes(recipe: &Recipe, choice: &Choice, spec: &DecoderSpec) -> Vec<String> {
    let micro_batch = (recipe.train.micro_batch != MicroBatch::Rows(choice.micro_batch))
        .then(|| format!("train.micro_batch={}", choice.micro_batch));
    micro_batch.into_iter().chain([keep_setting(choice.retained, spec.n_layers())]).collect()
}

fn tiers(recipe: &Recipe, placement: &Placement) -> Vec<String> {
    let asked = &recipe.offload;
    let asked_of = [asked.weights, asked.gradients, asked.optimizer, asked.activations];
    let classes = placement.classes().into_iter().zip(asked_of);
    let differs = |asked: TierChoice, chosen: Tier| match asked {
        TierChoice::Auto | TierChoice::Device => chosen != Tier::Device,
        TierChoice::Dram => chosen != Tier::Dram,
        TierChoice::Nvme => chosen != Tier::Nvme,
    };
    let changed = classes.filter(|((_, chosen), asked)| differs(*asked, *chosen));
    let mut words: Vec<String> =
        changed.map(|((class, chosen), _)| format!("offload.{class}={}", word(chosen))).collect();
    if placement.count(Tier::Nvme) > 0 && asked.nvme.is_empty() {
        words.push(format!("'offload.nvme=[\"{DIRECTORY}\"]'"));
    }
    words
}
