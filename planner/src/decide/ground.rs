//! What a search stands on: everything of the recipe that is decided before memory is counted.
//!
//! In:    a checked recipe, the network, the machine.
//! Out:   [`Ground`]: device, method, update rule, budgets; and a [`Shape`] or seconds for any [`Choice`].
//! Never: chooses.

use recipes::recipe::TierChoice;
use recipes::{KeepChoice, Recipe, recipe};

use super::budgets::Budgets;
use super::transfers::{Transfers, transfers};
use super::{IO_BUFFERS, PlanError, updates_during_backward};
use crate::architecture::DecoderSpec;
use crate::machine::Machine;
use crate::memory::{Placement, Shape, Sizes};
use crate::plan::*;
use crate::time::{self, Work};

/// Answers generated at once during evaluation.
const ANSWER_ROWS_MAX: u64 = 100;

/// Tokens of a row and of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lengths {
    /// Longest row and packed row.
    pub(super) sequence: usize,
    /// All rows of a step.
    pub(super) step: usize,
}

impl Lengths {
    pub(super) fn rows(self) -> usize {
        self.step / self.sequence
    }
}

/// The answers to the `auto`s that depend on each other.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice {
    pub(super) lengths: Lengths,
    pub(super) precision: Precision,
    pub(super) placement: Placement,
    pub(super) micro_batch: usize,
    /// Blocks, from the last, that keep their graph.
    pub(super) retained: usize,
}

/// What a search stands on.
pub(super) struct Ground<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) spec: &'a DecoderSpec,
    pub(super) machine: &'a Machine,
    pub(super) device: DeviceChoice,
    pub(super) precision: Precision,
    pub(super) method: MethodPlan,
    pub(super) optimizer: OptimizerPlan,
    pub(super) sizes: Sizes,
    pub(super) budgets: Budgets,
    pub(super) transfers: Transfers,
    /// `None` where the planner answers.
    pub(super) retained: Option<usize>,
}

impl<'a> Ground<'a> {
    pub(super) fn of(recipe: &'a Recipe, spec: &'a DecoderSpec, machine: &'a Machine) -> Result<Self, PlanError> {
        let device = machine.device(recipe.hardware.device)?;
        let method = super::method(recipe, spec)?;
        check_host_classes(recipe, device)?;
        Ok(Ground {
            recipe,
            spec,
            machine,
            device,
            precision: precision(recipe, machine, device),
            optimizer: super::optimizer(recipe),
            sizes: Sizes::of(spec, &method),
            budgets: Budgets::of(recipe, machine, device)?,
            transfers: transfers(recipe, machine),
            retained: retained(recipe, spec.n_layers())?,
            method,
        })
    }

    /// What memory is counted from.
    pub(super) fn shape(&self, choice: &Choice) -> Shape<'_> {
        let (recipe, length) = (self.recipe, choice.lengths.sequence);
        let asked = recipe.eval.as_ref().filter(|eval| eval.exact_match);
        let answers = asked.map(|eval| (ANSWER_ROWS_MAX, (length + eval.max_new_tokens) as u64));
        let straight = updates_during_backward(recipe) && choice.micro_batch == choice.lengths.rows();
        Shape {
            spec: self.spec,
            device: self.device,
            cores: self.machine.cores,
            fast_bf16: self.machine.fast_bf16,
            precision: choice.precision,
            method: &self.method,
            sizes: self.sizes,
            optimizer: &self.optimizer,
            placement: choice.placement,
            has_gradient_arrays: !straight,
            buffers_bytes: IO_BUFFERS as u64 * self.transfers.chunk_bytes,
            tokens: (choice.micro_batch * length) as u64,
            keep: self.keep(choice.retained),
            answers,
        }
    }

    /// The last blocks retain: they are the first that backward frees.
    pub(super) fn keep(&self, retained: usize) -> Vec<Keep> {
        let recomputed = self.spec.n_layers() - retained;
        [vec![Keep::Recompute; recomputed], vec![Keep::Retain; retained]].concat()
    }

    /// Seconds of one step.
    pub(super) fn step_seconds(&self, choice: &Choice, shape: &Shape) -> f64 {
        time::step_seconds(&self.work(choice, shape), self.machine.rates_of(self.device))
    }

    /// What time is counted from.
    pub(super) fn work<'s>(&self, choice: &Choice, shape: &'s Shape<'s>) -> Work<'s> {
        Work {
            shape,
            sequence_length: choice.lengths.sequence as u64,
            micro_batches: (choice.lengths.rows() / choice.micro_batch) as u64,
            update_during_backward: updates_during_backward(self.recipe),
            cards: self.machine.cards,
            trained_share: 1.0,
        }
    }

    /// Answers at once: as many as training's memory holds, at most [`ANSWER_ROWS_MAX`].
    pub(super) fn evaluation(&self, eval: &recipe::EvalSection, shape: &Shape) -> EvaluationPlan {
        let (rows, tokens) = shape.answers_at_once().unwrap_or((ANSWER_ROWS_MAX, 0));
        EvaluationPlan {
            every_steps: eval.every_steps,
            exact_match: eval.exact_match,
            max_new_tokens: eval.max_new_tokens,
            batch_rows: rows as usize,
            batch_tokens: tokens as usize,
            max_rows: eval.max_rows,
        }
    }
}

fn precision(recipe: &Recipe, machine: &Machine, device: DeviceChoice) -> Precision {
    match recipe.model.precision {
        recipe::PrecisionChoice::F32 => Precision::F32,
        recipe::PrecisionChoice::Bf16 => Precision::Bf16,
        recipe::PrecisionChoice::Auto => machine.auto_precision(device),
    }
}

fn retained(recipe: &Recipe, blocks: usize) -> Result<Option<usize>, PlanError> {
    match recipe.train.keep {
        KeepChoice::Auto => Ok(None),
        KeepChoice::Retain => Ok(Some(blocks)),
        KeepChoice::Recompute => Ok(Some(0)),
        KeepChoice::RetainLast(asked) if asked <= blocks => Ok(Some(asked)),
        KeepChoice::RetainLast(asked) => Err(PlanError::KeepBeyondBlocks { asked, blocks }),
    }
}

fn check_host_classes(recipe: &Recipe, device: DeviceChoice) -> Result<(), PlanError> {
    let offload = &recipe.offload;
    let classes = [("offload.optimizer", offload.optimizer), ("offload.gradients", offload.gradients)];
    match classes.into_iter().find(|(_, asked)| *asked == TierChoice::Device) {
        Some((key, _)) if !device.is_host() => Err(PlanError::UpdateOnHost { key }),
        _ => Ok(()),
    }
}
