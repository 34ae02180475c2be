//! The learning rate of each step, as transformers' schedulers compute it.
//!
//! In:    the plan's schedule, the peak rate, all steps.
//! Out:   the rate of one step.
//! Never: keeps state: a resumed run asks the same question.

use planner::plan::{ScheduleKind, SchedulePlan, Warmup};

/// Steps of linear rise.
fn warmup_steps(schedule: &SchedulePlan, steps: u64) -> u64 {
    match schedule.warmup {
        Warmup::Steps(warmup) => warmup,
        Warmup::Ratio(share) => (share * steps as f64).ceil() as u64,
    }
}

/// Learning rate of update `step` (from 1) of `steps`.
///
/// Source: transformers `optimization.py`, where the scheduler's count is `step - 1`.
pub fn learning_rate(schedule: &SchedulePlan, peak: f64, step: u64, steps: u64) -> f64 {
    let warmup = warmup_steps(schedule, steps);
    let done = step - 1;
    if done < warmup {
        return peak * done as f64 / warmup.max(1) as f64;
    }
    let progress = (done - warmup) as f64 / (steps.saturating_sub(warmup)).max(1) as f64;
    let factor = match schedule.kind {
        ScheduleKind::Constant => 1.0,
        ScheduleKind::Linear => 1.0 - progress,
        ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
    };
    peak * factor.max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind, warmup: Warmup) -> SchedulePlan {
        SchedulePlan { kind, warmup }
    }

    #[test]
    fn warmup_rises_from_zero_and_reaches_the_peak_after_its_last_step() {
        let linear = schedule(ScheduleKind::Linear, Warmup::Steps(4));
        let rates: Vec<f64> = (1..=6).map(|step| learning_rate(&linear, 1.0, step, 12)).collect();
        assert_eq!(rates, [0.0, 0.25, 0.5, 0.75, 1.0, 0.875]);
    }

    #[test]
    fn cosine_is_half_way_down_in_the_middle() {
        let cosine = schedule(ScheduleKind::Cosine, Warmup::Ratio(0.0));
        assert!((learning_rate(&cosine, 2.0, 51, 100) - 1.0).abs() < 1e-12);
        assert_eq!(learning_rate(&cosine, 2.0, 1, 100), 2.0);
    }

    #[test]
    fn a_constant_schedule_never_falls() {
        let constant = schedule(ScheduleKind::Constant, Warmup::Ratio(0.1));
        assert_eq!(learning_rate(&constant, 3.0, 100, 100), 3.0);
        assert_eq!(learning_rate(&constant, 3.0, 1, 100), 0.0);
    }
}
