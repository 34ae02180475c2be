//! What each memory holds where it holds most: what bars and charts draw.
//!
//! In:    a report.
//! Out:   one [`TierUse`] a memory, with its budget and its terms; a [`Palette`] that gives a term one colour everywhere.
//! Never: draws.

use planner::plan::{DeviceChoice, MemoryTerm, Phase, PhaseMemory, Plan, Tier};
use planner::report::Report;

use super::style::TERM_COLOURS;

/// Terms below this share of their memory are drawn together, percent.
const SMALL_PERCENT: u64 = 2;

/// One memory at its fullest.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TierUse {
    /// `GeForce RTX 4090`, `memory`, `dram`, `nvme`.
    pub(super) name: String,
    /// Cards that each hold this; 1 for other memories.
    pub(super) cards: u32,
    /// When it is fullest; `None` for files, which are there all the time.
    pub(super) phase: Option<Phase>,
    /// What it holds then.
    pub(super) used_bytes: u64,
    /// What it may hold, where that is known.
    pub(super) budget_bytes: Option<u64>,
    /// Of `used_bytes`, what is pinned.
    pub(super) pinned_bytes: u64,
    /// What is in it: pinned first, then the largest first; names once.
    pub(super) parts: Vec<Part>,
}

/// One piece of a bar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The term, or `other`.
    pub(super) name: String,
    /// Number in the palette.
    pub(super) colour: usize,
    /// How much.
    pub(super) bytes: u64,
}

/// Which colour a term has, in every bar of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Palette(Vec<String>);

impl Palette {
    /// Colours go to the terms that take the largest share of any memory in any phase.
    pub(super) fn of(plan: &Plan) -> Palette {
        let memory = &plan.memory;
        let mut shares: Vec<(String, f64)> = Vec::new();
        let mut see = |terms: &[MemoryTerm]| {
            for tier in [Tier::Device, Tier::Dram, Tier::Nvme] {
                let all = sum(terms, tier).max(1) as f64;
                for term in terms.iter().filter(|term| term.tier == tier && term.bytes > 0) {
                    let share = term.bytes as f64 / all;
                    match shares.iter_mut().find(|(name, _)| *name == term.name) {
                        Some((_, most)) => *most = most.max(share),
                        None => shares.push((term.name.clone(), share)),
                    }
                }
            }
        };
        see(&memory.terms);
        memory.phases.iter().for_each(|phase| see(&phase.terms));
        see(&memory.nvme);
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        Palette(shares.into_iter().take(TERM_COLOURS).map(|(name, _)| name).collect())
    }

    fn colour(&self, name: &str) -> usize {
        self.0.iter().position(|known| known == name).unwrap_or(TERM_COLOURS)
    }

    /// Pieces of a bar: same names added up, small and colourless ones together at the end.
    pub(super) fn parts<'a>(&self, terms: impl Iterator<Item = &'a MemoryTerm>) -> Vec<Part> {
        let mut found: Vec<(bool, Part)> = Vec::new();
        for term in terms.filter(|term| term.bytes > 0) {
            match found.iter_mut().find(|(pinned, part)| *pinned == term.pinned && part.name == term.name) {
                Some((_, part)) => part.bytes = part.bytes.saturating_add(term.bytes),
                None => found.push((
                    term.pinned,
                    Part { name: term.name.clone(), colour: self.colour(&term.name), bytes: term.bytes },
                )),
            }
        }
        let all = found.iter().fold(0u64, |all, (_, part)| all.saturating_add(part.bytes));
        found.sort_by_key(|(pinned, part)| (!pinned, std::cmp::Reverse(part.bytes)));
        // Pinned memory keeps its place at the left end, however small.
        let is_small = |pinned: bool, part: &Part| {
            part.colour == TERM_COLOURS || (!pinned && part.bytes < all / 100 * SMALL_PERCENT)
        };
        let small = found.iter().filter(|(pinned, part)| is_small(*pinned, part));
        let other = small.fold(0u64, |other, (_, part)| other.saturating_add(part.bytes));
        let mut parts: Vec<Part> =
            found.into_iter().filter(|(pinned, part)| !is_small(*pinned, part)).map(|(_, part)| part).collect();
        if other > 0 {
            parts.push(Part { name: "other".to_string(), colour: TERM_COLOURS, bytes: other });
        }
        parts
    }
}

/// Every memory that the plan uses, fastest first.
pub(super) fn tiers(report: &Report) -> Vec<TierUse> {
    let (plan, palette) = (&report.plan, Palette::of(&report.plan));
    let mut found = match is_one_memory(report) {
        true => one_memory(report, &palette),
        false => vec![card(report, &palette), host(plan, &palette)],
    };
    if plan.memory.nvme_bytes > 0 {
        let capacity =
            report.machine.as_ref().map(|machine| machine.ssds.iter().map(|ssd| ssd.capacity_gb).sum::<u64>());
        found.push(TierUse {
            name: "nvme".to_string(),
            cards: 1,
            phase: None,
            used_bytes: plan.memory.nvme_bytes,
            budget_bytes: capacity.filter(|&gb| gb > 0).map(|gb| gb.saturating_mul(1_000_000_000)),
            pinned_bytes: 0,
            parts: palette.parts(plan.memory.nvme.iter()),
        });
    }
    found
}

/// Device and host memory are the same chips.
pub(super) fn is_one_memory(report: &Report) -> bool {
    let unified = report.machine.as_ref().and_then(|machine| machine.gpu.as_ref()).is_some_and(|(gpu, _)| gpu.unified);
    !report.plan.device.has_own_memory() || unified
}

/// Cards that share the work.
pub(super) fn cards(report: &Report) -> u32 {
    report.machine.as_ref().and_then(|machine| machine.gpu.as_ref()).map_or(1, |(_, count)| (*count).max(1))
}

/// How the computing device is called.
pub(super) fn device_name(report: &Report) -> String {
    let described = report.machine.as_ref();
    match (described.and_then(|machine| machine.gpu.as_ref()), report.plan.device) {
        (Some((gpu, _)), _) => gpu.title.clone(),
        (None, DeviceChoice::Cpu) => {
            described.and_then(|machine| machine.cpu.as_ref()).map_or("cpu".to_string(), |cpu| cpu.title.clone())
        }
        (None, device) => device.to_string(),
    }
}

fn one_memory(report: &Report, palette: &Palette) -> Vec<TierUse> {
    let (memory, offload) = (&report.plan.memory, &report.plan.offload);
    let whole = TierUse {
        name: "memory".to_string(),
        cards: 1,
        phase: Some(memory.peak_phase),
        used_bytes: memory.peak_bytes,
        budget_bytes: Some(memory.budget_bytes),
        pinned_bytes: pinned(memory.terms.iter()),
        parts: palette.parts(memory.terms.iter()),
    };
    let mut found = vec![whole];
    for (tier, name, budget) in [
        (Tier::Device, "of it the device tier", offload.device_budget_bytes),
        (Tier::Dram, "of it the dram tier", offload.dram_budget_bytes),
    ] {
        if budget < memory.budget_bytes {
            found.push(fullest(&report.plan, palette, tier, name, Some(budget)));
        }
    }
    found
}

fn card(report: &Report, palette: &Palette) -> TierUse {
    let budget = Some(report.plan.memory.budget_bytes);
    let used = fullest(&report.plan, palette, Tier::Device, &device_name(report), budget);
    TierUse { cards: cards(report), ..used }
}

fn host(plan: &Plan, palette: &Palette) -> TierUse {
    fullest(plan, palette, Tier::Dram, "dram", Some(plan.offload.dram_budget_bytes))
}

fn fullest(plan: &Plan, palette: &Palette, tier: Tier, name: &str, budget_bytes: Option<u64>) -> TierUse {
    let in_phase = |phase: &PhaseMemory| if tier == Tier::Device { phase.device_bytes } else { phase.dram_bytes };
    // The first of equals, so that files and pages do not depend on the order of a search.
    let most = plan.memory.phases.iter().rev().max_by_key(|phase| in_phase(phase));
    let (phase, terms) = most.map_or((plan.memory.peak_phase, &plan.memory.terms), |phase| (phase.phase, &phase.terms));
    let own = || terms.iter().filter(|term| term.tier == tier);
    TierUse {
        name: name.to_string(),
        cards: 1,
        phase: Some(phase),
        used_bytes: sum(terms, tier),
        budget_bytes,
        pinned_bytes: pinned(own()),
        parts: palette.parts(own()),
    }
}

fn sum(terms: &[MemoryTerm], tier: Tier) -> u64 {
    terms.iter().filter(|term| term.tier == tier).fold(0, |all, term| all.saturating_add(term.bytes))
}

fn pinned<'a>(terms: impl Iterator<Item = &'a MemoryTerm>) -> u64 {
    terms.filter(|term| term.pinned).fold(0, |all, term| all.saturating_add(term.bytes))
}
