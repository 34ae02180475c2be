//! How long a step takes: a roofline per phase over what the phase needs of each resource, overlapped as the engine overlaps.
//!
//! In:    the same [`Shape`] that memory is counted from, and the [`Rates`] of the machine.
//! Out:   a [`TimePlan`].
//! Never: measures; same inputs, same figures.

use crate::memory::Shape;
use crate::plan::{MethodPlan, Phase, PhaseTime, Resource, ResourceTime, TimePlan};
use crate::rates::Rates;

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
}

/// Seconds of one step; what a search compares.
pub fn step_seconds(work: &Work, rates: &Rates) -> f64 {
    phases(work, rates).iter().map(|phase| phase.seconds).sum()
}

/// Time of a run of `steps` steps.
pub fn estimate(work: &Work, rates: &Rates, steps: Option<u64>) -> TimePlan {
    let phases = phases(work, rates);
    let step_seconds: f64 = phases.iter().map(|phase| phase.seconds).sum();
    let longest = phases.iter().max_by(|a, b| a.seconds.total_cmp(&b.seconds));
    TimePlan {
        bottleneck: longest.map_or(Resource::Compute, |phase| phase.bottleneck),
        step_seconds_low: step_seconds / rates.band[1],
        step_seconds_high: step_seconds / rates.band[0],
        tokens_per_second: (work.shape.tokens * work.micro_batches) as f64 / step_seconds,
        steps,
        run_seconds: steps.map(|steps| steps as f64 * step_seconds),
        remedies: Vec::new(),
        origin: rates.origin,
        phases,
        step_seconds,
    }
}

fn phases(work: &Work, rates: &Rates) -> Vec<PhaseTime> {
    let tokens = (work.shape.tokens * work.micro_batches) as f64;
    let parameters = work.shape.sizes.parameters as f64;
    let backward = if matches!(work.shape.method, MethodPlan::Full(_)) { 4.0 } else { 2.0 };
    let compute = |phase, flops: f64| {
        let seconds = flops / rates.f32.matmul_flops;
        let resources = vec![ResourceTime { resource: Resource::Compute, amount: flops, seconds }];
        PhaseTime { phase, seconds, bottleneck: Resource::Compute, resources }
    };
    vec![compute(Phase::Forward, 2.0 * parameters * tokens), compute(Phase::Backward, backward * parameters * tokens)]
}
