//! Plan against measured, at the end of a run.
//!
//! In:    the plan, and what the run measured.
//! Out:   a table.
//! Never: hides a plan that was wrong.

use planner::plan::Plan;
use planner::units::bytes_text;

use super::style::{pad, pad_left};
use super::words;

/// Columns of a name and of a figure.
const NAME: usize = 15;
const FIGURE: usize = 12;

/// What a run measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Most memory that the process had, bytes; compared with the plan's peak.
    pub peak_bytes: u64,
    /// Median time of a step, seconds; `None` if no step ran.
    pub step_seconds_median: Option<f64>,
    /// Tokens a second over the run, padding included; `None` if no step ran.
    pub tokens_per_second: Option<f64>,
    /// Written to NVMe by the run, bytes.
    pub nvme_written_bytes: u64,
    /// What the plan says a step writes to NVMe times the steps that ran, bytes; `None` where it does not say.
    pub nvme_planned_bytes: Option<u64>,
}

/// `planned | measured | ratio`, a row a figure.
pub fn against_measured(plan: &Plan, measured: Measured) -> String {
    let time = &plan.time;
    let figure = words::figure;
    let mut rows = vec![row(
        "peak memory",
        bytes_text(plan.memory.peak_bytes),
        bytes_text(measured.peak_bytes),
        ratio(measured.peak_bytes as f64, plan.memory.peak_bytes as f64),
    )];
    if let Some(median) = measured.step_seconds_median {
        let (planned, found) = (words::seconds(time.step_seconds), words::seconds(median));
        rows.push(row("step, median", planned, found, ratio(median, time.step_seconds)));
    }
    if let Some(speed) = measured.tokens_per_second {
        let (planned, found) = (figure(time.tokens_per_second), figure(speed));
        rows.push(row("tokens/s", planned, found, ratio(speed, time.tokens_per_second)));
    }
    if measured.nvme_written_bytes > 0 {
        let planned = measured.nvme_planned_bytes;
        let text = planned.map_or("-".to_string(), bytes_text);
        let share =
            planned.map_or("-".to_string(), |planned| ratio(measured.nvme_written_bytes as f64, planned as f64));
        rows.push(row("written to nvme", text, bytes_text(measured.nvme_written_bytes), share));
    }
    let head = ["planned", "measured", "ratio"].map(|name| pad_left(name, FIGURE)).concat();
    format!("{}{head}\n{}", " ".repeat(NAME), rows.concat())
}

fn row(name: &str, planned: String, measured: String, ratio: String) -> String {
    let figures = [planned, measured, ratio].map(|text| pad_left(&text, FIGURE)).concat();
    format!("{}{figures}\n", pad(name, NAME))
}

fn ratio(measured: f64, planned: f64) -> String {
    match planned > 0.0 {
        true => words::figure(measured / planned),
        false => "-".to_string(),
    }
}
