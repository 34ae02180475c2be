//! Chooses number format, placement, micro-batch and what blocks keep: the first combination that fits, in a fixed order.
//!
//! In:    the recipe, the network, what is trained, the budgets.
//! Out:   a [`Choice`], or [`PlanError::DoesNotFit`] with what would fit.
//! Never: changes what the recipe fixed.

use recipes::recipe::TierChoice;
use recipes::{KeepChoice, MemorySize, MicroBatch, Recipe, recipe};

use super::transfers::Transfers;
use super::{IO_BUFFERS, PlanError, rows_per_step, source, updates_during_backward};
use crate::architecture::DecoderSpec;
use crate::machine::Machine;
use crate::memory::{self, Needs, Placement, Shape, Sizes};
use crate::plan::*;
use crate::units::bytes_text;

/// `micro_batch = "auto"` takes no more tokens than this at once: larger matrices are no faster on any measured CPU.
const AUTO_MICRO_BATCH_TOKENS_MAX: usize = 8192;
/// Answers generated at once during evaluation.
const ANSWER_ROWS_MAX: u64 = 100;
/// So many remedies are named.
const REMEDIES_MAX: usize = 2;
/// Weights, gradients, optimizer, activations.
const CLASSES: usize = 4;

/// What may be used of each memory, bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budgets {
    /// Of the memory that the device computes in.
    pub(super) memory_bytes: u64,
    /// Of that, the device tier.
    pub(super) device_bytes: u64,
    /// The dram tier; on the CPU also a part of the memory.
    pub(super) dram_bytes: u64,
}

impl Budgets {
    pub(super) fn of(recipe: &Recipe, machine: &Machine, device: DeviceChoice) -> Result<Budgets, PlanError> {
        let memory_bytes = memory_budget(recipe, machine, device)?;
        let within = |key, asked_bytes| match asked_bytes > memory_bytes {
            true => Err(PlanError::BudgetBeyondMemory { key, asked_bytes, memory_bytes }),
            false => Ok(asked_bytes),
        };
        let device_bytes = match recipe.offload.device_budget {
            MemorySize::Auto => memory_bytes,
            MemorySize::Bytes(asked) => within("offload.device_budget", asked)?,
        };
        let dram_bytes = match (recipe.offload.dram_budget, device) {
            (MemorySize::Auto, DeviceChoice::Cpu) => memory_bytes,
            (MemorySize::Auto, DeviceChoice::Cuda(_)) => machine.auto_budget_bytes(DeviceChoice::Cpu),
            (MemorySize::Bytes(asked), DeviceChoice::Cpu) => within("offload.dram_budget", asked)?,
            (MemorySize::Bytes(asked), DeviceChoice::Cuda(_)) => {
                within_machine("offload.dram_budget", asked, machine.memory_total_bytes)?
            }
        };
        Ok(Budgets { memory_bytes, device_bytes, dram_bytes })
    }

    /// The first memory that is too small: its name, what is needed, what may be used.
    fn shortage(&self, needs: &Needs, device: DeviceChoice) -> Option<(String, u64, u64)> {
        let memory = match device {
            DeviceChoice::Cpu => "memory".to_string(),
            DeviceChoice::Cuda(index) => format!("cuda:{index} memory"),
        };
        let checks = [
            (memory, needs.memory_bytes, self.memory_bytes),
            ("offload.device_budget".to_string(), needs.device_bytes, self.device_bytes),
            ("offload.dram_budget".to_string(), needs.dram_bytes, self.dram_bytes),
        ];
        checks.into_iter().find(|(_, needed, budget)| needed > budget)
    }
}

fn memory_budget(recipe: &Recipe, machine: &Machine, device: DeviceChoice) -> Result<u64, PlanError> {
    let total_bytes = match device {
        DeviceChoice::Cpu => machine.memory_total_bytes,
        DeviceChoice::Cuda(index) => machine.cuda_available_bytes.get(index).copied().unwrap_or(0),
    };
    match recipe.hardware.memory {
        MemorySize::Auto => Ok(machine.auto_budget_bytes(device)),
        MemorySize::Bytes(asked) => within_machine("hardware.memory", asked, total_bytes),
    }
}

fn within_machine(key: &'static str, asked_bytes: u64, total_bytes: u64) -> Result<u64, PlanError> {
    match asked_bytes > total_bytes {
        true => Err(PlanError::MemoryBeyondMachine { key, asked_bytes, total_bytes }),
        false => Ok(asked_bytes),
    }
}

/// The answers to the `auto`s that depend on each other.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub(super) precision: Precision,
    pub(super) placement: Placement,
    pub(super) micro_batch: usize,
    pub(super) keep: Vec<Keep>,
}

/// Tries memory estimates until one fits.
pub(super) struct Chooser<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) spec: &'a DecoderSpec,
    pub(super) device: DeviceChoice,
    pub(super) budgets: Budgets,
    pub(super) method: &'a MethodPlan,
    pub(super) optimizer: &'a OptimizerPlan,
    pub(super) sizes: Sizes,
    pub(super) transfers: Transfers,
}

impl Chooser<'_> {
    /// The first placement in which anything fits; inside it the largest micro-batch, then the most retained blocks.
    pub(super) fn choose(&self, machine: &Machine) -> Result<Choice, PlanError> {
        let precision = self.precision(machine);
        let fixed = self.fixed_keep()?;
        self.check_host_classes()?;
        let (mut last, mut shortage) = (self.placement(0, 0), None);
        for placement in self.placements() {
            let choice = self.within(precision, placement, fixed.as_deref());
            last = placement;
            shortage = self.shortage(&choice);
            if shortage.is_none() {
                return Ok(choice);
            }
        }
        let (tier, needed_bytes, budget_bytes) = shortage.expect("there is at least one placement, and none fitted");
        Err(PlanError::DoesNotFit { tier, needed_bytes, budget_bytes, remedies: self.remedies(precision, last) })
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

    /// Everything on the device, then one class after the other elsewhere, as few as possible and as few of them as possible on NVMe.
    fn placements(&self) -> Vec<Placement> {
        let asked = &self.recipe.offload;
        // On the CPU both tiers are one memory: moving to dram helps only where the device tier was given less than all.
        let dram = self.device != DeviceChoice::Cpu || asked.device_budget != MemorySize::Auto;
        let nvme = !asked.nvme.is_empty();
        let mut found = Vec::new();
        for moved in 0..=CLASSES {
            for deep in 0..=moved {
                let possible = (dram || deep == moved) && (nvme || deep == 0);
                let placement = self.placement(moved, deep);
                if possible && !found.contains(&placement) {
                    found.push(placement);
                }
            }
        }
        found
    }

    /// The first `moved` classes leave the device, the first `deep` of them to NVMe; what the recipe fixed stays.
    fn placement(&self, moved: usize, deep: usize) -> Placement {
        let tier = |order: usize, asked: TierChoice, nearest: Tier| match asked {
            TierChoice::Device => Tier::Device,
            TierChoice::Dram => Tier::Dram,
            TierChoice::Nvme => Tier::Nvme,
            TierChoice::Auto if order < deep => Tier::Nvme,
            TierChoice::Auto if order < moved => Tier::Dram,
            TierChoice::Auto => nearest,
        };
        // The update runs on the host, so beside a card its arrays are nearest in host memory.
        let host = if self.device == DeviceChoice::Cpu { Tier::Device } else { Tier::Dram };
        let asked = &self.recipe.offload;
        Placement {
            optimizer: tier(0, asked.optimizer, host),
            gradients: tier(1, asked.gradients, host),
            activations: tier(2, asked.activations, Tier::Device),
            weights: tier(3, asked.weights, Tier::Device),
        }
    }

    fn within(&self, precision: Precision, placement: Placement, fixed: Option<&[Keep]>) -> Choice {
        let choice = |micro_batch, keep| Choice { precision, placement, micro_batch, keep };
        let micro_batch = match self.recipe.train.micro_batch {
            MicroBatch::Rows(rows) => rows,
            MicroBatch::Auto => {
                let keep = fixed.map_or_else(|| self.most_kept(placement), <[Keep]>::to_vec);
                self.auto_micro_batch(|rows| self.fits(&choice(rows, keep.clone())))
            }
        };
        match fixed {
            Some(keep) => choice(micro_batch, keep.to_vec()),
            None => choice(micro_batch, self.auto_keep(placement, |keep| self.fits(&choice(micro_batch, keep)))),
        }
    }

    fn check_host_classes(&self) -> Result<(), PlanError> {
        let offload = &self.recipe.offload;
        let classes = [("offload.optimizer", offload.optimizer), ("offload.gradients", offload.gradients)];
        match classes.into_iter().find(|(_, asked)| *asked == TierChoice::Device) {
            Some((key, _)) if self.device != DeviceChoice::Cpu => Err(PlanError::UpdateOnHost { key }),
            _ => Ok(()),
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

    /// Block inputs elsewhere are of use only to blocks that recompute.
    fn most_kept(&self, placement: Placement) -> Vec<Keep> {
        self.keep_last(if placement.activations == Tier::Device { self.spec.n_layers() } else { 0 })
    }

    /// The largest power of two that divides the step's rows, stays below the token cap, and fits; 1 if none fits.
    fn auto_micro_batch(&self, fits: impl Fn(usize) -> bool) -> usize {
        let (length, rows) = (self.recipe.data.sequence_length, rows_per_step(self.recipe));
        let mut best = 1;
        let mut candidate = 2;
        while rows.is_multiple_of(candidate) && candidate * length <= AUTO_MICRO_BATCH_TOKENS_MAX {
            if fits(candidate) {
                best = candidate;
            }
            candidate *= 2;
        }
        best
    }

    /// All blocks retain if that fits, else as many last blocks as fit: they are the first that backward frees.
    fn auto_keep(&self, placement: Placement, fits: impl Fn(Vec<Keep>) -> bool) -> Vec<Keep> {
        let most = self.most_kept(placement).iter().filter(|&&keep| keep == Keep::Retain).count();
        let retained = (0..=most).rev().find(|&retained| fits(self.keep_last(retained)));
        self.keep_last(retained.unwrap_or(0))
    }

    fn keep_last(&self, retained: usize) -> Vec<Keep> {
        let recomputed = self.spec.n_layers() - retained;
        [vec![Keep::Recompute; recomputed], vec![Keep::Retain; retained]].concat()
    }

    fn shortage(&self, choice: &Choice) -> Option<(String, u64, u64)> {
        self.budgets.shortage(&self.shape(choice).needs(), self.device)
    }

    fn fits(&self, choice: &Choice) -> bool {
        self.shortage(choice).is_none()
    }

    pub(super) fn shape(&self, choice: &Choice) -> Shape<'_> {
        let (recipe, length) = (self.recipe, self.recipe.data.sequence_length);
        let answers = recipe.eval.as_ref().filter(|eval| eval.exact_match).map(|eval| {
            let rows = self.evaluation(eval, choice.precision).batch_rows as u64;
            (rows, (length + eval.max_new_tokens) as u64)
        });
        let straight = updates_during_backward(recipe) && choice.micro_batch == rows_per_step(recipe);
        Shape {
            spec: self.spec,
            device: self.device,
            precision: choice.precision,
            method: self.method,
            sizes: self.sizes,
            optimizer: self.optimizer,
            placement: choice.placement,
            has_gradient_arrays: !straight,
            buffers_bytes: IO_BUFFERS as u64 * self.transfers.chunk_bytes,
            tokens: (choice.micro_batch * length) as u64,
            keep: choice.keep.clone(),
            answers,
        }
    }

    /// Answers at once: as many as a quarter of the budget holds the caches of, at most [`ANSWER_ROWS_MAX`].
    pub(super) fn evaluation(&self, eval: &recipe::EvalSection, precision: Precision) -> EvaluationPlan {
        let tokens = (self.recipe.data.sequence_length + eval.max_new_tokens) as u64;
        let row_bytes = tokens * memory::cache_bytes_per_token(self.spec, precision) + self.spec.vocabulary as u64 * 4;
        let rows = (self.budgets.memory_bytes / 4 / row_bytes.max(1)).clamp(1, ANSWER_ROWS_MAX);
        EvaluationPlan {
            source: source(&eval.source),
            every_steps: eval.every_steps,
            exact_match: eval.exact_match,
            max_new_tokens: eval.max_new_tokens,
            batch_rows: rows as usize,
            max_rows: eval.max_rows,
        }
    }

    /// Smaller settings that would fit, or how little the smallest of them needs.
    fn remedies(&self, precision: Precision, tried: Placement) -> String {
        let all_nvme =
            Placement { weights: Tier::Nvme, gradients: Tier::Nvme, optimizer: Tier::Nvme, activations: Tier::Nvme };
        let everywhere = match self.recipe.offload.nvme.is_empty() {
            true => "offload.nvme = [\"DIRECTORY\"] with every offload class \"auto\"",
            false => "every offload class \"auto\"",
        };
        let small = "train.micro_batch = 1 with train.keep = \"recompute\"";
        let mut settings = vec![(small.to_string(), tried)];
        if tried != all_nvme {
            settings.push((format!("{everywhere}, {small}"), all_nvme));
        }
        let mut options = Vec::new();
        for (what, placement) in settings {
            let smallest = |precision| Choice { precision, placement, micro_batch: 1, keep: self.keep_last(0) };
            options.push((what.clone(), smallest(precision)));
            if precision == Precision::F32 {
                options.push((format!("{what} and model.precision = \"bf16\""), smallest(Precision::Bf16)));
            }
        }
        let needs = |choice: &Choice| self.shape(choice).needs().memory_bytes;
        let fitting = options.iter().filter(|(_, choice)| self.fits(choice)).take(REMEDIES_MAX);
        let fitting: Vec<String> =
            fitting.map(|(what, choice)| format!("{what} needs {}", bytes_text(needs(choice)))).collect();
        match fitting.is_empty() {
            false => fitting.join("; "),
            true => format!(
                "the least any setting needs is {}: take a smaller model, a smaller data.sequence_length, or a machine with more memory",
                bytes_text(options.iter().map(|(_, choice)| needs(choice)).min().unwrap_or(0))
            ),
        }
    }
}
