//! Answers every `auto` of a recipe and splits it into each room's part of the plan.
//!
//! In:    a checked [`Recipe`], the network's [`DecoderSpec`], the [`Machine`]'s numbers.
//! Out:   a [`Plan`], or a [`PlanError`] with the numbers and what would fit.
//! Never: opens a file, touches a device. What the recipe says wins over `auto`, or is refused.

use recipes::{DeviceName, KeepChoice, MaxGradNorm, MemorySize, MicroBatch, Recipe, TargetNames, WarmupLength, recipe};

use crate::architecture::{DecoderSpec, Linear};
use crate::machine::Machine;
use crate::memory::{self, Shape};
use crate::plan::*;
use crate::units::bytes_text;

/// `micro_batch = "auto"` takes no more tokens than this at once: larger matrices are no faster on any measured CPU.
const AUTO_MICRO_BATCH_TOKENS_MAX: usize = 8192;
/// Answers generated at once during evaluation.
const ANSWER_ROWS_MAX: u64 = 100;

/// Why no plan exists.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The run needs more than the tier has.
    #[error("does not fit: {tier}: needs {} but its budget is {}; {remedies}", bytes_text(*needed_bytes), bytes_text(*budget_bytes))]
    DoesNotFit {
        /// `memory` or `cuda:0 memory`.
        tier: String,
        /// Smallest need of what the recipe allows.
        needed_bytes: u64,
        /// What may be used.
        budget_bytes: u64,
        /// What would fit.
        remedies: String,
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
    #[error(
        "no such device: hardware.device = \"cuda:{index}\": {found} CUDA cards can be used; build with --features cuda, or take \"cpu\""
    )]
    NoSuchDevice {
        /// As written.
        index: usize,
        /// Number of cards.
        found: usize,
    },
    /// More memory was promised than the machine has.
    #[error(
        "more than the machine has: hardware.memory = {}, but there are {}", bytes_text(*asked_bytes), bytes_text(*total_bytes)
    )]
    MemoryBeyondMachine {
        /// As written.
        asked_bytes: u64,
        /// What there is.
        total_bytes: u64,
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

impl PlanError {
    /// The recipe is well formed but this machine is too small for it.
    pub fn is_does_not_fit(&self) -> bool {
        matches!(self, PlanError::DoesNotFit { .. })
    }
}

/// Makes the plan of a run.
pub fn plan(recipe: &Recipe, spec: DecoderSpec, machine: &Machine) -> Result<Plan, PlanError> {
    let asked = recipe.data.sequence_length;
    if asked > spec.max_positions {
        return Err(PlanError::SequenceTooLong { asked, positions: spec.max_positions });
    }
    let device = device(recipe, machine)?;
    let budget_bytes = budget(recipe, machine, device)?;
    let targets = targets(&recipe.method.targets)?;
    let chooser = Chooser { recipe, spec: &spec, device, budget_bytes, targets: &targets };
    let (precision, micro_batch, keep) = chooser.choose(machine)?;
    let evaluation = recipe.eval.as_ref().map(|eval| chooser.evaluation(eval, precision));
    let shape = chooser.shape(precision, micro_batch, keep.clone());
    let terms = shape.peak();
    let memory = MemoryPlan { peak_bytes: memory::total(&terms), terms, budget_bytes };
    let method = lora(recipe, targets.clone());
    Ok(Plan {
        name: recipe.name.clone(),
        device,
        method,
        data: data(recipe),
        train: train(recipe, micro_batch),
        optimizer: optimizer(recipe),
        schedule: schedule(recipe),
        checkpoint: CheckpointPlan {
            every_steps: recipe.checkpoint.every_steps,
            keep_last: recipe.checkpoint.keep_last,
        },
        evaluation,
        log: LogPlan { tensorboard: recipe.log.tensorboard },
        memory,
        model: ModelPlan { spec, precision, keep },
    })
}

/// The recipe with every `auto` replaced by the plan's answer: what `recipe.toml` of a run holds.
pub fn resolved(recipe: &Recipe, plan: &Plan) -> Recipe {
    let mut out = recipe.clone();
    out.model.precision = match plan.model.precision {
        Precision::F32 => recipe::PrecisionChoice::F32,
        Precision::Bf16 => recipe::PrecisionChoice::Bf16,
    };
    out.hardware.device = match plan.device {
        DeviceChoice::Cpu => DeviceName::Cpu,
        DeviceChoice::Cuda(index) => DeviceName::Cuda(index),
    };
    out.hardware.memory = MemorySize::Bytes(plan.memory.budget_bytes);
    out.train.micro_batch = MicroBatch::Rows(plan.train.micro_batch);
    let retained = plan.model.keep.iter().filter(|&&keep| keep == Keep::Retain).count();
    out.train.keep = match retained {
        0 => KeepChoice::Recompute,
        n if n == plan.model.keep.len() => KeepChoice::Retain,
        n => KeepChoice::RetainLast(n),
    };
    out.method.targets = TargetNames::Named(plan.method.targets.iter().map(|t| t.leaf().to_string()).collect());
    out
}

fn device(recipe: &Recipe, machine: &Machine) -> Result<DeviceChoice, PlanError> {
    let found = machine.cuda_available_bytes.len();
    match recipe.hardware.device {
        DeviceName::Cpu => Ok(DeviceChoice::Cpu),
        DeviceName::Auto if found == 0 => Ok(DeviceChoice::Cpu),
        DeviceName::Auto => Ok(DeviceChoice::Cuda(0)),
        DeviceName::Cuda(index) if index < found => Ok(DeviceChoice::Cuda(index)),
        DeviceName::Cuda(index) => Err(PlanError::NoSuchDevice { index, found }),
    }
}

fn budget(recipe: &Recipe, machine: &Machine, device: DeviceChoice) -> Result<u64, PlanError> {
    match recipe.hardware.memory {
        MemorySize::Auto => Ok(machine.auto_budget_bytes(device)),
        MemorySize::Bytes(asked_bytes) => {
            let total_bytes = match device {
                DeviceChoice::Cpu => machine.memory_total_bytes,
                DeviceChoice::Cuda(index) => machine.cuda_available_bytes.get(index).copied().unwrap_or(0),
            };
            if asked_bytes > total_bytes {
                return Err(PlanError::MemoryBeyondMachine { asked_bytes, total_bytes });
            }
            Ok(asked_bytes)
        }
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

/// Tries memory estimates until one fits.
struct Chooser<'a> {
    recipe: &'a Recipe,
    spec: &'a DecoderSpec,
    device: DeviceChoice,
    budget_bytes: u64,
    targets: &'a [Linear],
}

impl Chooser<'_> {
    fn choose(&self, machine: &Machine) -> Result<(Precision, usize, Vec<Keep>), PlanError> {
        let precision = self.precision(machine);
        let micro_batch = match self.recipe.train.micro_batch {
            MicroBatch::Rows(rows) => rows,
            MicroBatch::Auto => self.auto_micro_batch(precision)?,
        };
        let keep = match self.fixed_keep()? {
            Some(keep) => keep,
            None => self.auto_keep(precision, micro_batch),
        };
        let needed_bytes = self.shape(precision, micro_batch, keep.clone()).peak_bytes();
        if needed_bytes > self.budget_bytes {
            return Err(self.does_not_fit(precision, needed_bytes));
        }
        Ok((precision, micro_batch, keep))
    }

    /// bf16 where the processor multiplies it in hardware. CUDA: f32, because the plain path there is proven in f32 only.
    fn precision(&self, machine: &Machine) -> Precision {
        match self.recipe.model.precision {
            recipe::PrecisionChoice::F32 => Precision::F32,
            recipe::PrecisionChoice::Bf16 => Precision::Bf16,
            recipe::PrecisionChoice::Auto if self.device == DeviceChoice::Cpu && machine.fast_bf16 => Precision::Bf16,
            recipe::PrecisionChoice::Auto => Precision::F32,
        }
    }

    fn fixed_keep(&self) -> Result<Option<Vec<Keep>>, PlanError> {
        let blocks = self.spec.n_layers();
        match self.recipe.train.keep {
            KeepChoice::Auto => Ok(None),
            KeepChoice::Retain => Ok(Some(self.keep_last(blocks))),
            KeepChoice::Recompute => Ok(Some(self.keep_last(0))),
            KeepChoice::RetainLast(asked) if asked <= blocks => Ok(Some(self.keep_last(asked))),
            KeepChoice::RetainLast(asked) => Err(PlanError::KeepBeyondBlocks { asked, blocks }),
        }
    }

    /// The largest power of two that divides the step's rows, stays below the token cap, and fits; 1 if none fits.
    fn auto_micro_batch(&self, precision: Precision) -> Result<usize, PlanError> {
        let (length, rows) = (self.recipe.data.sequence_length, rows_per_step(self.recipe));
        let keep = self.fixed_keep()?.unwrap_or_else(|| self.keep_last(self.spec.n_layers()));
        let mut best = 1;
        let mut candidate = 2;
        while rows.is_multiple_of(candidate) && candidate * length <= AUTO_MICRO_BATCH_TOKENS_MAX {
            if self.shape(precision, candidate, keep.clone()).peak_bytes() <= self.budget_bytes {
                best = candidate;
            }
            candidate *= 2;
        }
        Ok(best)
    }

    /// All blocks retain if that fits, else as many last blocks as fit: they are the first that backward frees.
    fn auto_keep(&self, precision: Precision, micro_batch: usize) -> Vec<Keep> {
        let fits = |retained: &usize| {
            self.shape(precision, micro_batch, self.keep_last(*retained)).peak_bytes() <= self.budget_bytes
        };
        self.keep_last((0..=self.spec.n_layers()).rev().find(fits).unwrap_or(0))
    }

    fn keep_last(&self, retained: usize) -> Vec<Keep> {
        let recomputed = self.spec.n_layers() - retained;
        [vec![Keep::Recompute; recomputed], vec![Keep::Retain; retained]].concat()
    }

    fn shape(&self, precision: Precision, micro_batch: usize, keep: Vec<Keep>) -> Shape<'_> {
        let answers = self.recipe.eval.as_ref().filter(|eval| eval.exact_match).map(|eval| {
            let rows = self.evaluation(eval, precision).batch_rows as u64;
            (rows, (self.recipe.data.sequence_length + eval.max_new_tokens) as u64)
        });
        Shape {
            spec: self.spec,
            device: self.device,
            precision,
            targets: self.targets,
            rank: self.recipe.method.rank,
            dropout: self.recipe.method.dropout > 0.0,
            tokens: (micro_batch * self.recipe.data.sequence_length) as u64,
            keep,
            answers,
        }
    }

    /// Answers at once: as many as a quarter of the budget holds the caches of, at most [`ANSWER_ROWS_MAX`].
    fn evaluation(&self, eval: &recipe::EvalSection, precision: Precision) -> EvaluationPlan {
        let tokens = (self.recipe.data.sequence_length + eval.max_new_tokens) as u64;
        let row_bytes = tokens * memory::cache_bytes_per_token(self.spec, precision) + self.spec.vocabulary as u64 * 4;
        let rows = (self.budget_bytes / 4 / row_bytes.max(1)).clamp(1, ANSWER_ROWS_MAX);
        EvaluationPlan {
            source: source(&eval.source),
            every_steps: eval.every_steps,
            exact_match: eval.exact_match,
            max_new_tokens: eval.max_new_tokens,
            batch_rows: rows as usize,
            max_rows: eval.max_rows,
        }
    }

    fn does_not_fit(&self, precision: Precision, needed_bytes: u64) -> PlanError {
        let smallest = |precision| self.shape(precision, 1, self.keep_last(0)).peak_bytes();
        let mut options = vec![("train.micro_batch = 1 with train.keep = \"recompute\"", smallest(precision))];
        if precision == Precision::F32 {
            options.push(("the same with model.precision = \"bf16\"", smallest(Precision::Bf16)));
        }
        let fitting = options.iter().find(|(_, bytes)| *bytes <= self.budget_bytes);
        let least = options.iter().map(|(_, bytes)| *bytes).min().unwrap_or(needed_bytes);
        let remedies = match fitting {
            Some((what, bytes)) => format!("{what} needs {}", bytes_text(*bytes)),
            None => format!(
                "the least any setting needs is {}: take a smaller model, a smaller data.sequence_length, or a machine with more memory",
                bytes_text(least)
            ),
        };
        let tier = match self.device {
            DeviceChoice::Cpu => "memory".to_string(),
            DeviceChoice::Cuda(index) => format!("cuda:{index} memory"),
        };
        PlanError::DoesNotFit { tier, needed_bytes, budget_bytes: self.budget_bytes, remedies }
    }
}

fn rows_per_step(recipe: &Recipe) -> usize {
    recipe.train.tokens_per_step / recipe.data.sequence_length
}

fn lora(recipe: &Recipe, targets: Vec<Linear>) -> LoraPlan {
    let method = &recipe.method;
    let rank = method.rank as f64;
    LoraPlan {
        rank: method.rank,
        alpha: method.alpha,
        scale: method.alpha / if method.rank_stabilized { rank.sqrt() } else { rank },
        rank_stabilized: method.rank_stabilized,
        dropout: method.dropout,
        targets,
        start_from: method.start_from.clone(),
    }
}

fn source(section: &recipe::SourceSection) -> DataSource {
    let format = section.format.map(|format| match format {
        recipe::FormatChoice::Messages => RowFormat::Messages,
        recipe::FormatChoice::PromptCompletion => RowFormat::PromptCompletion,
    });
    DataSource { path: section.path.clone(), format }
}

fn data(recipe: &Recipe) -> DataPlan {
    DataPlan {
        sources: recipe.data.sources.iter().map(source).collect(),
        sequence_length: recipe.data.sequence_length,
        packing: recipe.data.packing,
        too_long: match recipe.data.too_long {
            recipe::TooLongChoice::Drop => TooLong::Drop,
            recipe::TooLongChoice::Truncate => TooLong::Truncate,
            recipe::TooLongChoice::Error => TooLong::Error,
        },
        chat_template: recipe.data.chat_template.clone(),
        seed: recipe.train.seed,
    }
}

fn train(recipe: &Recipe, micro_batch: usize) -> TrainPlan {
    let duration = match (recipe.train.steps, recipe.train.epochs) {
        (Some(steps), _) => Duration::Steps(steps),
        (None, epochs) => Duration::Epochs(epochs.expect("recipes::check demands epochs or steps")),
    };
    TrainPlan { duration, rows_per_step: rows_per_step(recipe), micro_batch, seed: recipe.train.seed }
}

fn optimizer(recipe: &Recipe) -> OptimizerPlan {
    let optimizer = &recipe.optimizer;
    OptimizerPlan {
        learning_rate: optimizer.learning_rate,
        beta1: optimizer.betas[0],
        beta2: optimizer.betas[1],
        epsilon: optimizer.epsilon,
        weight_decay: optimizer.weight_decay,
        max_grad_norm: match optimizer.max_grad_norm {
            MaxGradNorm::None => None,
            MaxGradNorm::Bound(bound) => Some(bound),
        },
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
mod tests;
