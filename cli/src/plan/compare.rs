//! Machines or recipes side by side.
//!
//! In:    reports with their names.
//! Out:   a table, a column a report; as many columns beside each other as fit.
//! Never: says which one to buy.

use planner::report::Report;
use planner::units::bytes_text;

use super::style::{Look, Style, cut, pad, pad_left};
use super::words;

/// Columns of the names of rows.
const NAME: usize = 14;
/// A column is at least so wide ...
const COLUMN_MIN: usize = 16;
/// ... and at most.
const COLUMN_MAX: usize = 26;

/// One row: its name, and how a report fills it.
type Row = (&'static str, fn(&Report) -> String);

/// What is compared, in the order of the questions of a buyer.
const ROWS: [Row; 21] = [
    ("fits", fits),
    ("peak", |report| bytes_text(report.plan.memory.peak_bytes)),
    ("budget", |report| bytes_text(report.plan.memory.budget_bytes)),
    ("dram", |report| bytes_text(report.plan.memory.dram_bytes)),
    ("nvme", |report| bytes_text(report.plan.memory.nvme_bytes)),
    ("tokens/s", |report| words::figure(report.plan.time.tokens_per_second)),
    ("  at worst", |report| speed(report, report.plan.time.step_seconds_high)),
    ("  at best", |report| speed(report, report.plan.time.step_seconds_low)),
    ("step", |report| words::seconds(report.plan.time.step_seconds)),
    ("bound by", |report| words::resource(report.plan.time.bottleneck).to_string()),
    ("run", |report| report.plan.time.run_seconds.map_or(unknown(), words::seconds)),
    ("rows at once", |report| report.plan.train.micro_batch.to_string()),
    ("power", |report| cost(report, |costs| Some(format!("{} W", words::figure(costs.power.watts))))),
    ("energy, 1 M tok", |report| cost(report, |costs| Some(words::energy(costs.power.wh_per_million_tokens)))),
    ("energy, run", |report| cost(report, |costs| costs.power.run_wh.map(words::energy))),
    ("cost, run", |report| cost(report, |costs| costs.power.run_cost.map(words::money))),
    ("supply", |report| cost(report, |costs| Some(format!("{} W", costs.power.psu_watts)))),
    ("PCIe lanes", lanes),
    ("wear, step", |report| cost(report, |costs| costs.wear.as_ref().map(|wear| bytes_text(wear.step_written_bytes)))),
    ("wear, run", |report| cost(report, |costs| costs.wear.as_ref()?.run_share.map(words::percent))),
    ("price", |report| cost(report, |costs| costs.hardware_price.map(words::money))),
];

/// The table of `tune plan --compare`.
pub fn compare(reports: &[(String, Report)], style: Style) -> String {
    let available = style.columns().saturating_sub(NAME + 2);
    let cells = reports.iter().flat_map(|(_, report)| ROWS.map(|(_, fill)| fill(report).chars().count()));
    let longest = cells.max().unwrap_or(0) + 2;
    let beside = (available / longest.clamp(COLUMN_MIN, COLUMN_MAX)).clamp(1, reports.len().max(1));
    let column = (available / beside).min(COLUMN_MAX);
    let blocks = reports.chunks(beside).map(|some| block(some, column, style));
    blocks.collect::<Vec<_>>().join("\n")
}

fn block(reports: &[(String, Report)], column: usize, style: Style) -> String {
    let names: String = reports.iter().map(|(name, _)| pad_left(&cut(name, column - 2), column)).collect();
    let mut out = format!("{}{}\n", " ".repeat(NAME + 2), style.paint(Look::Title, &names));
    for (name, fill) in ROWS {
        let cells: Vec<String> = reports.iter().map(|(_, report)| fill(report)).collect();
        if cells.iter().all(|cell| *cell == unknown()) {
            continue;
        }
        let cells: String = reports
            .iter()
            .zip(cells)
            .map(|((_, report), cell)| style.paint(look(name, report), &pad_left(&cut(&cell, column - 2), column)))
            .collect();
        out.push_str(&format!("{}{cells}\n", pad(name, NAME + 2)));
    }
    out
}

fn look(row: &str, report: &Report) -> Look {
    match (row, &report.shortfall) {
        ("fits", Some(_)) => Look::Bad,
        ("fits", None) => Look::Good,
        ("tokens/s", _) => Look::Strong,
        (_, Some(_)) => Look::Dim,
        _ => Look::Plain,
    }
}

fn fits(report: &Report) -> String {
    match &report.shortfall {
        None => "yes".to_string(),
        Some(short) => format!("no, {} short", bytes_text(short.needed_bytes.saturating_sub(short.budget_bytes))),
    }
}

fn speed(report: &Report, step_seconds: f64) -> String {
    let time = &report.plan.time;
    words::figure(time.tokens_per_second * time.step_seconds / step_seconds)
}

fn cost(report: &Report, fill: impl Fn(&planner::costs::Costs) -> Option<String>) -> String {
    report.costs.as_ref().and_then(fill).unwrap_or_else(unknown)
}

fn lanes(report: &Report) -> String {
    cost(report, |costs| {
        let there = costs.lanes.there.map_or("?".to_string(), |there| there.to_string());
        Some(format!("{} of {there}", costs.lanes.asked))
    })
}

fn unknown() -> String {
    "-".to_string()
}
