//! Searches row length, tokens of a step, micro-batch, placement and what blocks keep: the fastest combination that fits.
//!
//! In:    a [`Ground`].
//! Out:   [`Candidate`]s that fit, the best of them, or the one that needs least.
//! Never: changes what the recipe fixed; depends on anything but its inputs.

use recipes::recipe::TierChoice;
use recipes::{MemorySize, MicroBatch};

use super::ground::{Choice, Ground, Lengths};
use super::{PlanError, lengths};
use crate::memory::{Needs, Placement};
use crate::plan::Tier;

/// `micro_batch = "auto"` takes no more tokens than this at once where everything stays on the device: larger matrices are no faster on any
/// measured processor, and a card is full with them too.
const MICRO_BATCH_TOKENS_MAX: usize = 8192;
/// The same where weights or block inputs move once a micro-batch: fewer passes move less.
const MICRO_BATCH_TOKENS_MAX_STREAMED: usize = 131_072;
/// Candidates that take no longer than this times the fastest are as fast: no estimate is better than that.
const AS_FAST: f64 = 1.02;

/// Time on the device over time with host memory from which weights or block inputs leave the device though they would fit.
const WORTH_A_LINK: f64 = 1.1;
/// Time in memory over time with drives from which drives are used though memory would do.
const WORTH_A_DRIVE: f64 = 1.5;

/// How far bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// Weights and block inputs stay on the device, nothing is on a drive.
    Device,
    /// Nothing is on a drive.
    Memory,
    /// Anywhere.
    Drives,
}

/// A combination that was looked at.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) choice: Choice,
    pub(super) needs: Needs,
    pub(super) step_seconds: f64,
}

impl Candidate {
    /// Classes on NVMe and classes in dram.
    fn moved(&self) -> (usize, usize) {
        let placement = &self.choice.placement;
        (placement.count(Tier::Nvme), placement.count(Tier::Dram))
    }

    fn reach(&self) -> Reach {
        let placement = &self.choice.placement;
        match self.moved() {
            (0, _) if placement.weights == Tier::Device && placement.activations == Tier::Device => Reach::Device,
            (0, _) => Reach::Memory,
            _ => Reach::Drives,
        }
    }

    pub(super) fn seconds_per_token(&self) -> f64 {
        self.step_seconds / self.choice.lengths.step as f64
    }
}

/// The fastest, where bytes stay as near as they can: weights and block inputs leave the device only if that saves a tenth of the time, and
/// nothing goes to a drive that would fit without, unless that saves a third: links are shared, drives wear. Of those that are as fast the
/// one that moves least, then with the largest micro-batch, then with the least memory.
pub(super) fn best(candidates: &[Candidate]) -> Option<&Candidate> {
    let reach = [(Reach::Device, WORTH_A_LINK), (Reach::Memory, WORTH_A_DRIVE), (Reach::Drives, 1.0)];
    let fastest = |reach: Reach| {
        let within = candidates.iter().filter(|candidate| candidate.reach() <= reach);
        within.map(|candidate| candidate.step_seconds).fold(f64::INFINITY, f64::min)
    };
    let of_all = fastest(Reach::Drives);
    let in_memory = fastest(Reach::Memory);
    let near_enough = |&(reach, worth): &(Reach, f64)| {
        let rival = if reach == Reach::Device && in_memory < f64::INFINITY { in_memory } else { of_all };
        fastest(reach) <= worth * rival
    };
    let (reach, _) = reach.into_iter().find(near_enough)?;
    let limit = AS_FAST * fastest(reach);
    let as_fast = candidates.iter().filter(|candidate| candidate.reach() <= reach && candidate.step_seconds <= limit);
    as_fast.min_by_key(|candidate| {
        let (nvme, dram) = candidate.moved();
        (nvme, dram, std::cmp::Reverse(candidate.choice.micro_batch), candidate.needs.memory_bytes)
    })
}

impl Ground<'_> {
    /// Everything that fits at the lengths that suit best; empty if nothing fits at any.
    pub(super) fn search(&self) -> Result<Vec<Candidate>, PlanError> {
        lengths::choose(self)
    }

    /// For each placement and micro-batch the most retained blocks that fit.
    pub(super) fn candidates(&self, lengths: Lengths) -> Vec<Candidate> {
        let mut found = Vec::new();
        for placement in self.placements() {
            for micro_batch in self.micro_batches(placement, lengths) {
                let with = |retained| Choice { lengths, precision: self.precision, placement, micro_batch, retained };
                found.extend(self.most_retained(placement, &with));
            }
        }
        found
    }

    /// More retained blocks need more memory and less time, so the border is found by halving.
    fn most_retained(&self, placement: Placement, with: &dyn Fn(usize) -> Choice) -> Option<Candidate> {
        let fits = |retained: usize| self.fitting(with(retained));
        if let Some(fixed) = self.retained {
            return fits(fixed);
        }
        // Block inputs elsewhere are of use only to blocks that recompute.
        let most = if placement.activations == Tier::Device { self.spec.n_layers() } else { 0 };
        if let Some(all) = fits(most) {
            return Some(all);
        }
        let (mut best, mut beyond) = (fits(0)?, most);
        while beyond - best.choice.retained > 1 {
            let middle = best.choice.retained + (beyond - best.choice.retained) / 2;
            match fits(middle) {
                Some(candidate) => best = candidate,
                None => beyond = middle,
            }
        }
        Some(best)
    }

    fn fitting(&self, choice: Choice) -> Option<Candidate> {
        let candidate = self.candidate(choice);
        self.budgets.shortage(&candidate.needs, self.device).is_none().then_some(candidate)
    }

    fn candidate(&self, choice: Choice) -> Candidate {
        let shape = self.shape(&choice);
        Candidate { needs: shape.needs(), step_seconds: self.step_seconds(&choice, &shape), choice }
    }

    /// What comes nearest to fitting: the combination whose worst memory is exceeded by the smallest factor.
    pub(super) fn least(&self, lengths: Lengths) -> Candidate {
        let micro_batch = match self.recipe.train.micro_batch {
            MicroBatch::Rows(rows) => rows,
            MicroBatch::Auto => 1,
        };
        let retained = self.retained.unwrap_or(0);
        let with = |placement| Choice { lengths, precision: self.precision, placement, micro_batch, retained };
        let candidates = self.placements().into_iter().map(|placement| self.candidate(with(placement)));
        let excess = |candidate: &Candidate| {
            let (_, needed, budget) = self.budgets.tightest(&candidate.needs, self.device);
            needed as f64 / budget.max(1) as f64
        };
        candidates.min_by(|a, b| excess(a).total_cmp(&excess(b))).expect("there is at least one placement")
    }

    /// Every combination of tiers that the recipe allows and that can be of use.
    pub(super) fn placements(&self) -> Vec<Placement> {
        let asked = &self.recipe.offload;
        let on_cpu = self.device.is_host();
        // On the CPU both tiers are one memory: moving to dram helps only where the device tier was given less than all.
        let dram = (!on_cpu || asked.device_budget != MemorySize::Auto).then_some(Tier::Dram);
        let nvme = (!asked.nvme.is_empty()).then_some(Tier::Nvme);
        // The update runs on the host, so beside a card its arrays are nearest in host memory.
        let host = on_cpu.then_some(Tier::Device);
        let tiers = |choice: TierChoice, nearest: Option<Tier>| -> Vec<Tier> {
            match choice {
                TierChoice::Device => vec![Tier::Device],
                TierChoice::Dram => vec![Tier::Dram],
                TierChoice::Nvme => vec![Tier::Nvme],
                TierChoice::Auto => [nearest, dram, nvme].into_iter().flatten().collect(),
            }
        };
        let mut found = Vec::new();
        for weights in tiers(asked.weights, Some(Tier::Device)) {
            for activations in tiers(asked.activations, Some(Tier::Device)) {
                for gradients in tiers(asked.gradients, host) {
                    for optimizer in tiers(asked.optimizer, host) {
                        found.push(Placement { weights, gradients, optimizer, activations });
                    }
                }
            }
        }
        found
    }

    /// The recipe's rows, or the powers of two that divide a card's rows of a step and stay below the token cap; 1 always.
    fn micro_batches(&self, placement: Placement, lengths: Lengths) -> Vec<usize> {
        if let MicroBatch::Rows(rows) = self.recipe.train.micro_batch {
            return vec![rows];
        }
        let streams = placement.weights != Tier::Device || placement.activations != Tier::Device;
        let cap = if streams { MICRO_BATCH_TOKENS_MAX_STREAMED } else { MICRO_BATCH_TOKENS_MAX };
        let cards = self.machine.cards.max(1) as usize;
        let fits = |rows: &usize| lengths.rows().is_multiple_of(rows * cards) && rows * lengths.sequence <= cap;
        let more = (1..usize::BITS).map(|power| 1_usize << power).take_while(|rows| rows * lengths.sequence <= cap);
        std::iter::once(1).chain(more.filter(fits)).collect()
    }
}
