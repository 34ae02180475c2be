//! How long a step takes: a roofline per phase over what the phase needs of each resource, overlapped as the engine overlaps.
//!
//! In:    the same [`Shape`] that memory is counted from, and the [`Rates`] of the machine.
//! Out:   a [`TimePlan`].
//! Never: measures; same inputs, same figures.
//!
//! On the processor every product, copy and update takes the same cores, so they add up, and only the drives work beside them. On a card
//! arithmetic, the link, the host and the drives run side by side, and a phase takes as long as the longest of them. Rows are counted
//! full: packed rows hold several texts that do not see each other, and rows that are not packed are shorter, so that attention, and
//! with it the step, takes no longer than this.

mod block;
mod load;
mod remedies;
mod step;

use crate::memory::Shape;
use crate::plan::{Phase, Resource, TimePlan};
use crate::rates::Rates;

pub use remedies::{Change, Improvement, improvements};

/// So many remedies are named in a plan.
const REMEDIES_MAX: usize = 5;

/// One optimizer step.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// What a micro-batch is and where everything lives.
    pub shape: &'a Shape<'a>,
    /// Tokens of one row: attention sees no further.
    pub sequence_length: u64,
    /// Micro-batches of a step, all cards together.
    pub micro_batches: u64,
    /// The update overlaps the backward pass.
    pub update_during_backward: bool,
    /// Cards that share the micro-batches.
    pub cards: u32,
    /// Tokens that are trained on, of all: the head computes no others. 1 where the data was not looked at.
    pub trained_share: f64,
}

/// Seconds of one step; what a search compares.
pub fn step_seconds(work: &Work, rates: &Rates) -> f64 {
    let (phases, lanes) = (step::phases(work, rates), step::lanes(work));
    [phases.forward, phases.head, phases.backward, phases.update].iter().map(|load| load.seconds(lanes)).sum()
}

/// Time of a run of `steps` steps.
pub fn estimate(work: &Work, rates: &Rates, steps: Option<u64>) -> TimePlan {
    let (loads, lanes) = (step::phases(work, rates), step::lanes(work));
    let phases = vec![
        loads.forward.phase(Phase::Forward, lanes),
        loads.head.phase(Phase::BackwardStart, lanes),
        loads.backward.phase(Phase::Backward, lanes),
        loads.update.phase(Phase::Update, lanes),
    ];
    let step_seconds: f64 = phases.iter().map(|phase| phase.seconds).sum();
    let remedies = improvements(work, rates).into_iter().take(REMEDIES_MAX).map(|improvement| improvement.remedy());
    TimePlan {
        bottleneck: bottleneck(&phases),
        step_seconds_low: step_seconds / rates.band[1],
        step_seconds_high: step_seconds / rates.band[0],
        tokens_per_second: (work.shape.tokens * work.micro_batches) as f64 / step_seconds,
        steps,
        run_seconds: steps.map(|steps| steps as f64 * step_seconds),
        remedies: remedies.collect(),
        origin: rates.origin,
        phases,
        step_seconds,
    }
}

/// Seconds of a forward pass without gradients over `tokens` tokens in rows as `work` has them: a held-out loss.
pub fn evaluation_seconds(work: &Work, rates: &Rates, tokens: u64) -> f64 {
    let phases = step::phases(work, rates);
    let lanes = step::lanes(work);
    // Of the head's two products one makes the loss.
    let micro_batch = phases.forward.seconds(lanes) + phases.head.seconds(lanes) / 2.0;
    let of_step = (work.shape.tokens * work.micro_batches) as f64 / f64::from(work.cards.max(1));
    micro_batch * tokens as f64 / of_step.max(1.0)
}

/// What bounds most of the step.
fn bottleneck(phases: &[crate::plan::PhaseTime]) -> Resource {
    let bound = |resource: Resource| {
        phases.iter().filter(|phase| phase.bottleneck == resource).map(|phase| phase.seconds).sum::<f64>()
    };
    let resources = phases.iter().map(|phase| phase.bottleneck);
    resources.max_by(|&a, &b| bound(a).total_cmp(&bound(b))).unwrap_or(Resource::Compute)
}

#[cfg(test)]
mod tests;
