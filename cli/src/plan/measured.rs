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

/// What the plan said of the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planned {
    /// Most memory at a time, bytes.
    pub peak_bytes: u64,
    /// Time of a step, seconds.
    pub step_seconds: f64,
    /// Tokens a second, padding included.
    pub tokens_per_second: f64,
}

impl Planned {
    /// Of a plan.
    pub fn of(plan: &Plan) -> Planned {
        Planned {
            peak_bytes: plan.memory.peak_bytes,
            step_seconds: plan.time.step_seconds,
            tokens_per_second: plan.time.tokens_per_second,
        }
    }
}

/// `planned | measured | ratio`, a row a figure.
pub fn against_measured(plan: &Plan, measured: Measured) -> String {
    let rows = comparison(Planned::of(plan), measured);
    let head = ["planned", "measured", "ratio"].map(|name| pad_left(name, FIGURE)).concat();
    let rows: String = rows.into_iter().map(|[name, figures @ ..]| row(name, figures)).collect();
    format!("{}{head}\n{rows}", " ".repeat(NAME))
}

/// Name, planned, measured and ratio of every figure that was measured.
pub fn comparison(planned: Planned, measured: Measured) -> Vec<[String; 4]> {
    let figure = words::figure;
    let mut rows = vec![line(
        "peak memory",
        [bytes_text(planned.peak_bytes), bytes_text(measured.peak_bytes)],
        ratio(measured.peak_bytes as f64, planned.peak_bytes as f64),
    )];
    if let Some(median) = measured.step_seconds_median {
        let both = [planned.step_seconds, median].map(words::seconds);
        rows.push(line("step, median", both, ratio(median, planned.step_seconds)));
    }
    if let Some(speed) = measured.tokens_per_second {
        let both = [planned.tokens_per_second, speed].map(figure);
        rows.push(line("tokens/s", both, ratio(speed, planned.tokens_per_second)));
    }
    if measured.nvme_written_bytes > 0 {
        let said = measured.nvme_planned_bytes;
        let text = said.map_or("-".to_string(), bytes_text);
        let share = said.map_or("-".to_string(), |said| ratio(measured.nvme_written_bytes as f64, said as f64));
        rows.push(line("written to nvme", [text, bytes_text(measured.nvme_written_bytes)], share));
    }
    rows
}

fn line(name: &str, [planned, measured]: [String; 2], ratio: String) -> [String; 4] {
    [name.to_string(), planned, measured, ratio]
}

fn row(name: String, figures: [String; 3]) -> String {
    format!("{}{}\n", pad(&name, NAME), figures.map(|text| pad_left(&text, FIGURE)).concat())
}

fn ratio(measured: f64, planned: f64) -> String {
    match planned > 0.0 {
        true => words::figure(measured / planned),
        false => "-".to_string(),
    }
}
