//! How much memory a network needs that only runs forward: after training, to be measured or talked to.
//!
//! In:    a [`Shape`] whose method trains nothing, what is asked of the network.
//! Out:   a [`MemoryPlan`] of two phases: loading, and running.
//! Never: a gradient, an optimizer state, or a kept block input.

use super::{Shape, Term, term, total};
use crate::plan::{MemoryPlan, Phase, PhaseMemory, Tier};

/// What is asked of a network that only runs forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Tokens of one pass whose loss is measured; 0 without.
    pub loss_tokens: u64,
    /// Sequences that are continued at once.
    pub rows: u64,
    /// Tokens of all of them, prompts and answers: cells of the key/value caches.
    pub cached_tokens: u64,
    /// Tokens that are read at once at most.
    pub read_tokens: u64,
    /// Numbers of the adapter.
    pub adapter_numbers: u64,
}

impl Shape<'_> {
    /// Terms of loading and of running.
    pub(crate) fn inference(&self, work: &Work, budget_bytes: u64) -> MemoryPlan {
        let load = self.besides(Phase::Load);
        let phases = vec![
            self.inference_phase(Phase::Load, load, work),
            self.inference_phase(Phase::Evaluation, self.running(work), work),
        ];
        let nvme: Vec<_> = self.files();
        let peak = phases.iter().max_by_key(|phase| phase.counted_bytes).expect("there are two").clone();
        MemoryPlan {
            peak_phase: peak.phase,
            peak_bytes: peak.counted_bytes,
            budget_bytes,
            dram_bytes: phases.iter().map(|phase| phase.dram_bytes).max().unwrap_or(0),
            pinned_bytes: peak.terms.iter().filter(|term| term.pinned).map(|term| term.bytes).sum(),
            nvme_bytes: total(&nvme),
            terms: peak.terms,
            nvme,
            phases,
        }
    }

    fn inference_phase(&self, phase: Phase, besides: Vec<Term>, work: &Work) -> PhaseMemory {
        let mut terms = self.fixed();
        let factors = work.adapter_numbers.saturating_mul(4);
        terms.push(term("adapters in use", Tier::Device, factors));
        // Read into host memory, then copied to the device.
        let read = if phase == Phase::Load { factors } else { 0 };
        terms.push(term("adapter as read", self.host(), read));
        terms.extend(besides);
        terms.retain(|term| term.tier != Tier::Nvme && term.bytes > 0);
        self.summed(phase, &terms)
    }

    /// The larger of measuring and answering: they do not happen at once.
    fn running(&self, work: &Work) -> Vec<Term> {
        let loss = match work.loss_tokens {
            0 => 0,
            tokens => self.loss_pass_bytes(tokens),
        };
        let caches = work.cached_tokens.saturating_mul(self.cache_bytes());
        let read = work.read_tokens.saturating_mul(self.read_bytes());
        let answers = caches.saturating_add(read).saturating_add(work.rows.saturating_mul(self.row_bytes()));
        match loss > answers {
            true => vec![term("loss", Tier::Device, loss)],
            false => vec![term("answers", Tier::Device, answers)],
        }
    }
}
