//! The next best plans, and what each trades against the chosen one.
//!
//! In:    everything that fitted.
//! Out:   [`Alternative`]s: the next fastest that is a real choice, and the one that needs least memory.
//! Never: a plan that is worse in everything.

use super::ground::Ground;
use super::search::Candidate;
use crate::plan::{MemoryPlan, Tier};
use crate::report::Alternative;
use crate::units::bytes_text;

/// A plan that needs at least so much less memory is a real choice.
const REAL_SAVING: f64 = 0.9;

/// The next fastest that saves memory, and the leanest if that is another one.
pub(super) fn alternatives(ground: &Ground, candidates: &[Candidate], chosen: &Candidate) -> Vec<Alternative> {
    let saves =
        |candidate: &&Candidate| (candidate.needs.memory_bytes as f64) < REAL_SAVING * chosen.needs.memory_bytes as f64;
    let fastest = candidates.iter().filter(saves).min_by(|a, b| a.step_seconds.total_cmp(&b.step_seconds));
    let leanest = candidates
        .iter()
        .filter(saves)
        .min_by(|a, b| a.needs.memory_bytes.cmp(&b.needs.memory_bytes).then(a.step_seconds.total_cmp(&b.step_seconds)));
    let mut found: Vec<&Candidate> = fastest.into_iter().chain(leanest).collect();
    found.dedup_by(|b, a| a.choice == b.choice);
    let base = memory_of(ground, chosen);
    found.into_iter().map(|candidate| alternative(ground, candidate, chosen, &base)).collect()
}

fn memory_of(ground: &Ground, candidate: &Candidate) -> MemoryPlan {
    ground.shape(&candidate.choice).plan(ground.budgets.memory_bytes)
}

fn alternative(ground: &Ground, candidate: &Candidate, chosen: &Candidate, base: &MemoryPlan) -> Alternative {
    let memory = memory_of(ground, candidate);
    Alternative {
        settings: settings(ground, candidate, chosen),
        step_seconds: candidate.step_seconds,
        peak_bytes: memory.peak_bytes,
        dram_bytes: memory.dram_bytes,
        nvme_bytes: memory.nvme_bytes,
        trade: trade(candidate, chosen, &memory, base),
    }
}

/// What differs, as recipe keys.
fn settings(ground: &Ground, candidate: &Candidate, chosen: &Candidate) -> String {
    let (new, old) = (&candidate.choice, &chosen.choice);
    let mut words = Vec::new();
    if new.micro_batch != old.micro_batch {
        words.push(format!("train.micro_batch={}", new.micro_batch));
    }
    if new.retained != old.retained {
        words.push(keep_setting(new.retained, ground.spec.n_layers()));
    }
    for ((class, tier), (_, before)) in new.placement.classes().into_iter().zip(old.placement.classes()) {
        if tier != before {
            words.push(format!("offload.{class}={}", word(tier)));
        }
    }
    words.join(" ")
}

fn trade(candidate: &Candidate, chosen: &Candidate, memory: &MemoryPlan, base: &MemoryPlan) -> String {
    let slower = 100.0 * (candidate.step_seconds / chosen.step_seconds - 1.0);
    let mut parts = vec![match slower {
        slower if slower < 1.0 => "as fast".to_string(),
        slower => format!("{slower:.0} % slower"),
    }];
    for (what, new, old) in [
        ("", memory.peak_bytes, base.peak_bytes),
        (" of host memory", memory.dram_bytes, base.dram_bytes),
        (" on the drive", memory.nvme_bytes, base.nvme_bytes),
    ] {
        match new.abs_diff(old) {
            0 => {}
            less if new < old => parts.push(format!("{} less{what}", bytes_text(less))),
            more => parts.push(format!("{} more{what}", bytes_text(more))),
        }
    }
    parts.join(", ")
}

/// `train.keep` as `--set` takes it.
pub(super) fn keep_setting(retained: usize, blocks: usize) -> String {
    match retained {
        0 => "train.keep=recompute".to_string(),
        all if all == blocks => "train.keep=retain".to_string(),
        some => format!("train.keep={some}"),
    }
}

pub(super) fn word(tier: Tier) -> &'static str {
    match tier {
        Tier::Device => "device",
        Tier::Dram => "dram",
        Tier::Nvme => "nvme",
    }
}
