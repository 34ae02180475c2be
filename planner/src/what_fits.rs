//! The largest models that a machine can train, by method and by how far bytes may leave the device.
//!
//! In:    a machine, models by name, the length of a row.
//! Out:   [`FitRow`]s: for each method and reach the largest models whose plan fits, with what the plan says of them.
//! Never: an estimate of its own; every row is a plan as `tune run` would make it.

use std::fmt;
use std::path::PathBuf;

use recipes::Recipe;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::architecture::DecoderSpec;
use crate::machine::Machine;
use crate::plan::{BaseStorage, MethodPlan, OptimizerKind, Plan, Tier};

/// Models named for one method and reach.
const MODELS_MAX: usize = 3;
/// Numbers of parameters that differ by less than this share are one size.
const SAME_SIZE_PERCENT: u64 = 10;
/// Tokens of one optimizer step in every plan here.
const TOKENS_PER_STEP: usize = 65_536;

/// How a model is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FitMethod {
    /// Rank 16 on all linear layers, base in bf16.
    Lora,
    /// The same over a base in 4 bits.
    Qlora,
    /// All weights, AdamW with f32 moments.
    Full,
    /// All weights, AdamW with 8-bit moments.
    FullAdamw8bit,
}

impl FitMethod {
    /// In the order of the table.
    pub const ALL: [FitMethod; 4] = [FitMethod::Lora, FitMethod::Qlora, FitMethod::Full, FitMethod::FullAdamw8bit];

    fn text(self) -> (&'static str, &'static str) {
        match self {
            FitMethod::Lora => ("{ kind = \"lora\", rank = 16, alpha = 32 }", "adamw"),
            FitMethod::Qlora => ("{ kind = \"qlora\", rank = 16, alpha = 32 }", "adamw"),
            FitMethod::Full => ("{ kind = \"full\" }", "adamw"),
            FitMethod::FullAdamw8bit => ("{ kind = \"full\" }", "adamw8bit"),
        }
    }

    /// Least bytes of a parameter that any plan holds: in all memories, and of the weights alone. Models that cannot fit by that are not
    /// planned, which is most of them.
    fn bytes_per_parameter_min(self) -> (f64, f64) {
        match self {
            FitMethod::Lora => (2.0, 2.0),
            FitMethod::Qlora => (0.5, 0.5),
            // Masters and two moments; with moments of one byte.
            FitMethod::Full => (12.0, 2.0),
            FitMethod::FullAdamw8bit => (6.0, 2.0),
        }
    }

    /// Whether a plan is one of this method: recipes and rows cannot drift apart unseen.
    fn is_of(self, plan: &Plan) -> bool {
        let kind = plan.optimizer.kind;
        match (self, &plan.method) {
            (FitMethod::Lora, MethodPlan::Lora(lora)) => lora.base == BaseStorage::Dense,
            (FitMethod::Qlora, MethodPlan::Lora(lora)) => lora.base == BaseStorage::Nf4,
            (FitMethod::Full, MethodPlan::Full(_)) => kind == OptimizerKind::Adamw,
            (FitMethod::FullAdamw8bit, MethodPlan::Full(_)) => kind == OptimizerKind::Adamw8bit,
            _ => false,
        }
    }
}

impl fmt::Display for FitMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FitMethod::Lora => "lora, rank 16",
            FitMethod::Qlora => "qlora, rank 16",
            FitMethod::Full => "full, adamw",
            FitMethod::FullAdamw8bit => "full, adamw8bit",
        })
    }
}

/// How far weights and activations may leave the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// They stay on the device; gradients and optimizer states, which a card's host updates, may be in host memory.
    Device,
    /// Host memory too.
    Dram,
    /// Host memory and drives.
    Nvme,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reach::Device => "device",
            Reach::Dram => "with dram",
            Reach::Nvme => "with nvme",
        })
    }
}

/// What is asked of every model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Tokens of a row; models with fewer positions are left out.
    pub sequence_length: usize,
    /// Directories on drives; none leaves [`Reach::Nvme`] out.
    pub nvme: Vec<PathBuf>,
    /// Room on those drives, bytes; `None` where it is not known.
    pub nvme_bytes: Option<u64>,
}

/// A model that fits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FitRow {
    /// How it is trained.
    pub method: FitMethod,
    /// How far bytes may go.
    pub reach: Reach,
    /// Its name.
    pub model: String,
    /// All parameters.
    pub parameters: u64,
    /// Where the classes live in the plan: `weights dram, optimizer nvme`; classes on the device are not named.
    pub placement: String,
    /// Rows of one pass.
    pub micro_batch: usize,
    /// Tokens of a row.
    pub sequence_length: usize,
    /// Tokens a second.
    pub tokens_per_second: f64,
    /// Seconds of a step of 65,536 tokens, rounded down to whole rows.
    pub step_seconds: f64,
    /// What counts against the budget of the device, bytes.
    pub peak_bytes: u64,
    /// Host memory, bytes; on a processor a part of `peak_bytes`.
    pub dram_bytes: u64,
    /// Files, bytes.
    pub nvme_bytes: u64,
}

/// The largest models of distinct sizes for each method and reach, the largest first. Empty if nothing fits.
///
/// # Errors
/// If the question makes no recipe: a sequence length of 0 or beyond the tokens of a step.
pub fn what_fits(
    machine: &Machine,
    models: &[(String, DecoderSpec)],
    question: &Question,
) -> Result<Vec<FitRow>, recipes::RecipeError> {
    let mut sized: Vec<(u64, &(String, DecoderSpec))> =
        models.iter().map(|model| (model.1.parameters(), model)).collect();
    // By name where sizes are equal, so that the order of the list does not matter.
    sized.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.0.cmp(&b.1.0)));
    let mut rows = Vec::new();
    for method in FitMethod::ALL {
        for reach in reaches(machine, question) {
            let recipe = recipe(method, reach, question)?;
            let most = parameters_max(method, reach, machine, question);
            let candidates = sized.iter().filter(|(parameters, _)| *parameters as f64 <= most);
            rows.extend(largest(candidates, |name, spec| row((method, reach), name, spec, &recipe, machine, question)));
        }
    }
    Ok(rows)
}

/// On a processor device and host memory are one.
fn reaches(machine: &Machine, question: &Question) -> Vec<Reach> {
    let has_card = !machine.cuda.is_empty();
    let dram = has_card.then_some(Reach::Dram);
    let nvme = (!question.nvme.is_empty()).then_some(Reach::Nvme);
    [Some(Reach::Device), dram, nvme].into_iter().flatten().collect()
}

fn recipe(method: FitMethod, reach: Reach, question: &Question) -> Result<Recipe, recipes::RecipeError> {
    let (kind, optimizer) = method.text();
    let length = question.sequence_length;
    let tokens = TOKENS_PER_STEP / length.max(1) * length;
    let nvme: Vec<String> = question.nvme.iter().map(|path| format!("{:?}", path.display().to_string())).collect();
    let offload = match reach {
        Reach::Device => "weights = \"device\", activations = \"device\"".to_string(),
        Reach::Dram => String::new(),
        Reach::Nvme => format!("nvme = [{}]", nvme.join(", ")),
    };
    let text = format!(
        "name = \"what-fits\"\nmodel = {{ source = \"by-name\", precision = \"bf16\" }}\nmethod = {kind}\n\
         data = {{ sequence_length = {length}, sources = [{{ path = \"rows.jsonl\" }}] }}\n\
         train = {{ steps = 1000, tokens_per_step = {tokens} }}\n\
         optimizer = {{ kind = \"{optimizer}\", learning_rate = 1e-4 }}\nschedule = {{ kind = \"constant\" }}\n\
         offload = {{ {offload} }}\n"
    );
    recipes::parse(&text, "the question what fits", &[])
}

/// More parameters than that cannot fit, whatever else a plan holds.
fn parameters_max(method: FitMethod, reach: Reach, machine: &Machine, question: &Question) -> f64 {
    let (all_min, weights_min) = method.bytes_per_parameter_min();
    let host = machine.memory_total_bytes as f64;
    let card = machine.cuda.iter().map(|card| card.available_bytes).max().map(|bytes| bytes as f64);
    let nvme = if reach == Reach::Nvme { question.nvme_bytes.map_or(f64::INFINITY, |bytes| bytes as f64) } else { 0.0 };
    let everywhere = (host + card.unwrap_or(0.0) + nvme) / all_min;
    match reach {
        Reach::Device => everywhere.min(card.unwrap_or(host) / weights_min),
        Reach::Dram | Reach::Nvme => everywhere,
    }
}

fn largest<'a>(
    candidates: impl Iterator<Item = &'a (u64, &'a (String, DecoderSpec))>,
    fit: impl Fn(&str, &DecoderSpec) -> Option<FitRow>,
) -> Vec<FitRow> {
    let mut rows: Vec<FitRow> = Vec::new();
    for (parameters, (name, spec)) in candidates {
        let is_new_size =
            rows.last().is_none_or(|row| parameters.saturating_mul(100) < row.parameters * (100 - SAME_SIZE_PERCENT));
        if is_new_size {
            rows.extend(fit(name, spec));
        }
        if rows.len() == MODELS_MAX {
            break;
        }
    }
    rows
}

fn row(
    (method, reach): (FitMethod, Reach),
    name: &str,
    spec: &DecoderSpec,
    recipe: &Recipe,
    machine: &Machine,
    question: &Question,
) -> Option<FitRow> {
    let plan = crate::plan(recipe, spec.clone(), machine).ok().filter(|plan| method.is_of(plan))?;
    let has_room = question.nvme_bytes.is_none_or(|room| plan.memory.nvme_bytes <= room);
    has_room.then(|| FitRow {
        method,
        reach,
        model: name.to_string(),
        parameters: spec.parameters(),
        placement: placement(&plan),
        micro_batch: plan.train.micro_batch,
        sequence_length: plan.data.sequence_length,
        tokens_per_second: plan.time.tokens_per_second,
        step_seconds: plan.time.step_seconds,
        peak_bytes: plan.memory.peak_bytes,
        dram_bytes: plan.memory.dram_bytes,
        nvme_bytes: plan.memory.nvme_bytes,
    })
}

fn placement(plan: &Plan) -> String {
    let offload = &plan.offload;
    let classes = [
        ("weights", offload.weights),
        ("gradients", offload.gradients),
        ("optimizer", offload.optimizer),
        ("activations", offload.activations),
    ];
    let of = |wanted: Tier, name: &str| {
        let names: Vec<&str> = classes.iter().filter(|(_, tier)| *tier == wanted).map(|(class, _)| *class).collect();
        (!names.is_empty()).then(|| format!("{name}: {}", names.join(", ")))
    };
    let moved: Vec<String> = [of(Tier::Dram, "dram"), of(Tier::Nvme, "nvme")].into_iter().flatten().collect();
    if moved.is_empty() { "all on the device".to_string() } else { moved.join("; ") }
}

#[cfg(test)]
mod tests;
