//! Answers every `auto` of a recipe and splits it into each room's part of the plan.
//!
//! In:    a checked [`Recipe`], the network's [`DecoderSpec`], the [`Machine`]'s numbers.
//! Out:   a [`Plan`], or a [`PlanError`] with the numbers and what would fit.
//! Never: opens a file, touches a device. What the recipe says wins over `auto`, or is refused.

mod alternatives;
mod budgets;
mod error;
mod ground;
mod lengths;
mod remedies;
mod search;
mod transfers;

use recipes::recipe::{ChunkSize, MethodSection, QueueDepth, TierChoice, UpdateDuringBackward};
use recipes::{KeepChoice, MaxGradNorm, MemorySize, MicroBatch, Recipe, TargetNames, TokenCount, WarmupLength, recipe};

use crate::architecture::{DecoderSpec, Linear};
use crate::machine::Machine;
use crate::memory::Placement;
use crate::plan::*;
use crate::report::{Alternative, Shortfall};
use crate::time;
use alternatives::alternatives;
use budgets::Budgets;
use ground::{Choice, Ground};
use remedies::remedies;
use search::best;
use transfers::Transfers;

pub use error::{Misfit, PlanError};

/// I/O buffers of the whole run: for each of the arrays of an update one that is read ahead, one in work and one that is written behind.
const IO_BUFFERS: usize = 24;

/// A plan, and what else would fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What will be done.
    pub plan: Plan,
    /// The next best.
    pub alternatives: Vec<Alternative>,
}

/// Makes the plan of a run.
pub fn plan(recipe: &Recipe, spec: DecoderSpec, machine: &Machine) -> Result<Plan, PlanError> {
    let ground = Ground::of(recipe, &spec, machine)?;
    let candidates = ground.search()?;
    match best(&candidates) {
        Some(chosen) => Ok(written(&ground, &chosen.choice)),
        None => Err(misfit(&ground)?),
    }
}

/// Makes the plan of a run and says what else would fit.
pub fn decide(recipe: &Recipe, spec: DecoderSpec, machine: &Machine) -> Result<Decision, PlanError> {
    let ground = Ground::of(recipe, &spec, machine)?;
    let candidates = ground.search()?;
    match best(&candidates) {
        Some(chosen) => Ok(Decision {
            plan: written(&ground, &chosen.choice),
            alternatives: alternatives(&ground, &candidates, chosen),
        }),
        None => Err(misfit(&ground)?),
    }
}

/// Why nothing fits, with the least that the recipe allows and what would fit.
fn misfit(ground: &Ground) -> Result<PlanError, PlanError> {
    let least = ground.least(lengths::least(ground)?);
    let (tier, needed_bytes, budget_bytes) = ground.budgets.tightest(&least.needs, ground.device);
    let advice = "no setting that was tried makes it fit: take a smaller model, a smaller data.sequence_length, or a machine with more memory";
    let shortfall = Shortfall {
        tier,
        needed_bytes,
        budget_bytes,
        remedies: remedies(ground.recipe, ground.spec, ground.machine),
        advice: advice.to_string(),
    };
    Ok(PlanError::DoesNotFit(Box::new(Misfit { shortfall, plan: written(ground, &least.choice) })))
}

/// The plan that carries out `choice`.
fn written(ground: &Ground, choice: &Choice) -> Plan {
    let (recipe, budgets) = (ground.recipe, &ground.budgets);
    let shape = ground.shape(choice);
    Plan {
        name: recipe.name.clone(),
        device: ground.device,
        data: data(recipe, choice.lengths.sequence),
        train: train(recipe, choice),
        schedule: schedule(recipe),
        offload: offload(recipe, choice, budgets, ground.transfers),
        checkpoint: CheckpointPlan {
            every_steps: recipe.checkpoint.every_steps,
            every_minutes: recipe.checkpoint.every_minutes,
            keep_last: recipe.checkpoint.keep_last,
            keep_best: recipe.checkpoint.keep_best,
        },
        evaluation: recipe.eval.as_ref().map(|eval| ground.evaluation(eval, &shape)),
        log: LogPlan { tensorboard: recipe.log.tensorboard },
        memory: shape.plan(budgets.memory_bytes),
        time: time::estimate(&ground.work(choice, &shape), ground.machine.rates_of(ground.device), recipe.train.steps),
        model: ModelPlan { precision: choice.precision, keep: ground.keep(choice.retained), spec: ground.spec.clone() },
        method: ground.method.clone(),
        optimizer: ground.optimizer,
    }
}

/// The recipe with every `auto` replaced by the plan's answer: what `recipe.toml` of a run holds.
pub fn resolved(recipe: &Recipe, plan: &Plan) -> Recipe {
    let mut out = recipe.clone();
    out.model.precision = match plan.model.precision {
        Precision::F32 => recipe::PrecisionChoice::F32,
        Precision::Bf16 => recipe::PrecisionChoice::Bf16,
    };
    out.hardware.device = plan.device.name();
    out.hardware.memory = MemorySize::Bytes(plan.memory.budget_bytes);
    out.train.micro_batch = MicroBatch::Rows(plan.train.micro_batch);
    out.data.sequence_length = TokenCount::Tokens(plan.data.sequence_length);
    out.train.tokens_per_step = TokenCount::Tokens(plan.train.rows_per_step * plan.data.sequence_length);
    let retained = plan.model.keep.iter().filter(|&&keep| keep == Keep::Retain).count();
    out.train.keep = match retained {
        0 => KeepChoice::Recompute,
        n if n == plan.model.keep.len() => KeepChoice::Retain,
        n => KeepChoice::RetainLast(n),
    };
    if let (Some(section), Some(lora)) = (out.method.lora_mut(), plan.method.lora()) {
        section.targets = TargetNames::Named(lora.targets.iter().map(|target| target.leaf().to_string()).collect());
    }
    out.offload = resolved_offload(&out.offload, &plan.offload);
    out
}

fn resolved_offload(asked: &recipe::OffloadSection, plan: &OffloadPlan) -> recipe::OffloadSection {
    let choice = |tier| match tier {
        Tier::Device => TierChoice::Device,
        Tier::Dram => TierChoice::Dram,
        Tier::Nvme => TierChoice::Nvme,
    };
    recipe::OffloadSection {
        weights: choice(plan.weights),
        gradients: choice(plan.gradients),
        optimizer: choice(plan.optimizer),
        activations: choice(plan.activations),
        dram_budget: MemorySize::Bytes(plan.dram_budget_bytes),
        device_budget: MemorySize::Bytes(plan.device_budget_bytes),
        chunk: ChunkSize::Bytes(plan.buffer_bytes()),
        queue_depth: QueueDepth::Transfers(plan.queue_depth),
        update_during_backward: match plan.update_during_backward {
            true => UpdateDuringBackward::Yes,
            false => UpdateDuringBackward::No,
        },
        ..asked.clone()
    }
}

/// A name matches as in PEFT: the leaf, or a longer suffix of the module path.
fn targets(names: &TargetNames) -> Result<Vec<Linear>, PlanError> {
    let TargetNames::Named(names) = names else { return Ok(Linear::ALL.to_vec()) };
    let matches = |linear: &Linear, name: &str| format!(".{}", linear.path(0)).ends_with(&format!(".{name}"));
    if let Some(name) = names.iter().find(|name| !Linear::ALL.iter().any(|linear| matches(linear, name))) {
        let known = Linear::ALL.map(Linear::leaf).join(", ");
        return Err(PlanError::UnknownTarget { name: name.clone(), known });
    }
    Ok(Linear::ALL.into_iter().filter(|linear| names.iter().any(|name| matches(linear, name))).collect())
}

fn method(recipe: &Recipe, spec: &DecoderSpec) -> Result<MethodPlan, PlanError> {
    match &recipe.method {
        MethodSection::Lora(section) => Ok(MethodPlan::Lora(lora(section)?)),
        MethodSection::Full(section) => {
            let (embeddings, head) = (section.train_embeddings, section.train_head);
            match spec.tied_head && embeddings != head {
                true => Err(PlanError::TiedHead { embeddings, head }),
                false => Ok(MethodPlan::Full(FullPlan { embeddings, head })),
            }
        }
    }
}

fn lora(section: &recipe::LoraSection) -> Result<LoraPlan, PlanError> {
    let rank = section.rank as f64;
    Ok(LoraPlan {
        rank: section.rank,
        alpha: section.alpha,
        scale: section.alpha / if section.rank_stabilized { rank.sqrt() } else { rank },
        rank_stabilized: section.rank_stabilized,
        dropout: section.dropout,
        targets: targets(&section.targets)?,
        start_from: section.start_from.clone(),
        base: match section.base {
            recipe::BaseChoice::Dense => BaseStorage::Dense,
            recipe::BaseChoice::Nf4 => BaseStorage::Nf4,
            recipe::BaseChoice::Int8 => BaseStorage::Int8,
        },
    })
}

/// The data part of a plan with rows of at most `sequence_length` tokens: all that preparing rows needs, whatever the machine.
pub fn data(recipe: &Recipe, sequence_length: usize) -> DataPlan {
    let section = &recipe.data;
    DataPlan {
        sources: section.sources.clone(),
        sequence_length,
        packing: section.packing,
        group_by_length: section.group_by_length,
        too_long: section.too_long,
        chat_template: section.chat_template.clone(),
        template_date: section.template_date.clone(),
        train_on: section.train_on,
        allow: section.allow.clone(),
        clean: section.clean,
        held_out: recipe.eval.as_ref().and_then(held_out),
        seed: recipe.train.seed,
    }
}

fn held_out(eval: &recipe::EvalSection) -> Option<HeldOut> {
    let share = eval.share.map(HeldOut::Share);
    eval.source.clone().map(HeldOut::Source).or(share)
}

fn train(recipe: &Recipe, choice: &Choice) -> TrainPlan {
    let duration = match (recipe.train.steps, recipe.train.epochs) {
        (Some(steps), _) => Duration::Steps(steps),
        (None, epochs) => Duration::Epochs(epochs.expect("recipes::check demands epochs or steps")),
    };
    let (rows_per_step, micro_batch) = (choice.lengths.rows(), choice.micro_batch);
    TrainPlan { duration, rows_per_step, micro_batch, seed: recipe.train.seed }
}

fn optimizer(recipe: &Recipe) -> OptimizerPlan {
    let optimizer = &recipe.optimizer;
    OptimizerPlan {
        kind: match optimizer.kind {
            recipe::OptimizerKind::Adamw => OptimizerKind::Adamw,
            recipe::OptimizerKind::Adamw8bit => OptimizerKind::Adamw8bit,
            recipe::OptimizerKind::AdamwBf16 => OptimizerKind::AdamwBf16,
            recipe::OptimizerKind::Lion => OptimizerKind::Lion,
            recipe::OptimizerKind::Adafactor => OptimizerKind::Adafactor,
            recipe::OptimizerKind::Sgd => OptimizerKind::Sgd,
        },
        learning_rate: optimizer.learning_rate,
        beta1: optimizer.betas[0],
        beta2: optimizer.betas[1],
        epsilon: optimizer.epsilon,
        momentum: optimizer.momentum,
        weight_decay: optimizer.weight_decay,
        max_grad_norm: match optimizer.max_grad_norm {
            MaxGradNorm::None => None,
            MaxGradNorm::Bound(bound) => Some(bound),
        },
    }
}

fn offload(recipe: &Recipe, choice: &Choice, budgets: &Budgets, transfers: Transfers) -> OffloadPlan {
    let asked = &recipe.offload;
    let Placement { weights, gradients, optimizer, activations } = choice.placement;
    OffloadPlan {
        weights,
        gradients,
        optimizer,
        activations,
        nvme: asked.nvme.clone(),
        engine: match asked.engine {
            recipe::EngineChoice::Auto => IoEngine::Auto,
            recipe::EngineChoice::IoUring => IoEngine::IoUring,
            recipe::EngineChoice::Threads => IoEngine::Threads,
        },
        span_elements: (transfers.chunk_bytes / 4) as usize,
        queue_depth: transfers.queue_depth,
        buffers: IO_BUFFERS,
        device_budget_bytes: budgets.device_bytes,
        dram_budget_bytes: budgets.dram_bytes,
        write_budget_bytes: asked.write_budget_tb.map(|terabytes| (terabytes * 1e12) as u64),
        update_during_backward: updates_during_backward(recipe),
    }
}

fn updates_during_backward(recipe: &Recipe) -> bool {
    match recipe.offload.update_during_backward {
        UpdateDuringBackward::Yes => true,
        UpdateDuringBackward::No => false,
        UpdateDuringBackward::Auto => recipe.optimizer.max_grad_norm == MaxGradNorm::None,
    }
}

fn schedule(recipe: &Recipe) -> SchedulePlan {
    SchedulePlan {
        kind: match recipe.schedule.kind {
            recipe::ScheduleChoice::Constant => ScheduleKind::Constant,
            recipe::ScheduleChoice::Linear => ScheduleKind::Linear,
            recipe::ScheduleChoice::Cosine => ScheduleKind::Cosine,
        },
        warmup: match recipe.schedule.warmup {
            WarmupLength::Steps(steps) => Warmup::Steps(steps),
            WarmupLength::Share(share) => Warmup::Ratio(share),
        },
    }
}

#[cfg(test)]
mod offload_tests;
#[cfg(test)]
pub(crate) mod tests;
