//! The figures of a run: at the top of its page, in the table of several runs, as JSON.
//!
//! In:    a run.
//! Out:   a [`Summary`], its words.
//! Never: a figure that the run did not record.

use std::path::PathBuf;

use planner::units::bytes_text;
use serde::Serialize;

use super::axis::plain;
use super::line::Evaluation;
use super::metrics::Figure;
use super::run_files::{Run, Standing};
use crate::plan::words;
use crate::progress::clock;

/// Figures of a run. What is not known is `null`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Summary {
    /// The run directory.
    run: PathBuf,
    name: String,
    /// `finished`, `running`, `stopped`.
    status: &'static str,
    /// The process that writes it.
    process: Option<String>,
    step: Option<u64>,
    steps: Option<u64>,
    epochs: Option<f64>,
    loss_first: Option<f64>,
    loss_last: Option<f64>,
    held_out_before: Option<HeldOut>,
    held_out_after: Option<HeldOut>,
    tokens: u64,
    trained_tokens: u64,
    seconds: f64,
    tokens_per_second: Option<f64>,
    step_ms_median: Option<f64>,
    stalled_ms: f64,
    peak_rss_bytes: Option<u64>,
    planned_peak_bytes: Option<u64>,
    planned_step_ms: Option<f64>,
    planned_tokens_per_second: Option<f64>,
    nvme_written_bytes: u64,
    write_budget_bytes: Option<u64>,
    checkpoints: Vec<u64>,
    samples: usize,
    /// Steps that share a point of the page's curves.
    steps_per_point: u64,
    notes: Vec<String>,
}

/// Held-out figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct HeldOut {
    step: u64,
    loss: Option<f64>,
    perplexity: Option<f64>,
    rows: Option<u64>,
    /// Right answers, and questions.
    exact: Option<(u64, u64)>,
}

fn held_out((step, evaluation): (&u64, &Evaluation)) -> HeldOut {
    let Evaluation { loss, rows, exact } = *evaluation;
    HeldOut { step: *step, loss, perplexity: loss.map(f64::exp), rows, exact }
}

impl Summary {
    /// Of a run.
    pub(super) fn of(run: &Run) -> Summary {
        let metrics = &run.metrics;
        let ends = metrics.of(Figure::Loss).ends();
        let planned = run.plan.as_ref().map(|plan| plan.planned);
        let last = metrics.evaluations.last_key_value().filter(|(step, _)| **step > 0);
        Summary {
            run: run.folder.clone(),
            name: run.name.clone(),
            status: match run.standing {
                Standing::Finished => "finished",
                Standing::Running(_) => "running",
                Standing::Stopped => "stopped",
            },
            process: match &run.standing {
                Standing::Running(process) => Some(process.clone()),
                _ => None,
            },
            step: metrics.last_step,
            steps: metrics.steps_planned,
            epochs: metrics.epochs,
            loss_first: ends.map(|(first, _)| first),
            loss_last: ends.map(|(_, last)| last),
            held_out_before: metrics.evaluations.get_key_value(&0).map(held_out),
            held_out_after: last.map(held_out),
            tokens: metrics.tokens as u64,
            trained_tokens: metrics.trained_tokens as u64,
            seconds: metrics.seconds,
            tokens_per_second: (metrics.seconds > 0.0).then(|| metrics.tokens / metrics.seconds),
            step_ms_median: metrics.step_ms_median,
            stalled_ms: metrics.of(Figure::StallMs).sum(),
            peak_rss_bytes: metrics.peak_rss_bytes(),
            planned_peak_bytes: planned.map(|planned| planned.peak_bytes),
            planned_step_ms: planned.map(|planned| planned.step_seconds * 1e3),
            planned_tokens_per_second: planned.map(|planned| planned.tokens_per_second),
            nvme_written_bytes: metrics.nvme_written_bytes(),
            write_budget_bytes: run.plan.as_ref().and_then(|plan| plan.write_budget_bytes),
            checkpoints: run.checkpoints.iter().map(|kept| kept.step).collect(),
            samples: run.samples.len(),
            steps_per_point: metrics.stretches().width,
            notes: run.notes.clone(),
        }
    }

    /// `finished: all 96 steps`, `running: step 12 of 96, process 4711`, `stopped after step 12 of 96`.
    pub(super) fn standing(&self) -> String {
        let of = self.steps.map_or(String::new(), |steps| format!(" of {steps}"));
        match (self.status, self.step, &self.process) {
            ("finished", Some(step), _) => format!("finished: all {step} steps"),
            ("running", step, Some(process)) => {
                format!("running: step {}{of}, process {process}{}", step.unwrap_or(0), self.left())
            }
            (_, None, _) => "stopped before its first step".to_string(),
            (_, Some(step), _) if self.steps == Some(step) => {
                format!("stopped after step {step}{of}, before its result was written")
            }
            (_, Some(step), _) => format!("stopped after step {step}{of}"),
        }
    }

    /// Time that the steps to come need, if they are like those before.
    fn left(&self) -> String {
        match (self.step, self.steps, self.step_ms_median) {
            (Some(step), Some(steps), Some(ms)) if step < steps => {
                format!(", about {} left", words::seconds((steps - step) as f64 * ms / 1e3))
            }
            _ => String::new(),
        }
    }

    /// `finished`, `running`, `stopped`.
    pub(super) fn status(&self) -> &'static str {
        self.status
    }

    /// Name and value of each figure that is known; the first is how the run stands.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![("status", self.standing())];
        let mut add = |name, value: Option<String>| rows.extend(value.map(|value| (name, value)));
        let pair = |of: fn(&HeldOut) -> Option<String>| {
            let side = |held_out: &Option<HeldOut>| held_out.as_ref().and_then(of);
            match (side(&self.held_out_before), side(&self.held_out_after)) {
                (None, None) => None,
                (before, after) => Some(format!("{} → {}", before.unwrap_or("–".into()), after.unwrap_or("–".into()))),
            }
        };
        add("held-out loss", pair(|one| one.loss.map(|loss| format!("{loss:.4}"))));
        add("perplexity", pair(|one| one.perplexity.map(plain)));
        add("exact answers", pair(|one| one.exact.map(|(right, of)| format!("{right}/{of}"))));
        add(
            "training loss",
            self.loss_first.zip(self.loss_last).map(|(first, last)| format!("{first:.4} → {last:.4}")),
        );
        add("tokens", (self.tokens > 0).then(|| words::count(self.tokens as f64)));
        add("time of steps", (self.seconds > 0.0).then(|| clock(std::time::Duration::from_secs_f64(self.seconds))));
        add("tokens/s", self.tokens_per_second.map(words::figure));
        add("step, median", self.step_ms_median.map(|ms| words::seconds(ms / 1e3)));
        add("waiting for bytes", (self.stalled_ms > 0.0).then(|| words::percent(self.stalled_ms / 1e3 / self.seconds)));
        add("peak memory", self.peak_rss_bytes.map(bytes_text));
        add("written to NVMe", (self.nvme_written_bytes > 0).then(|| bytes_text(self.nvme_written_bytes)));
        rows
    }
}
