//! Time on the page: phases of a step with what bounds them, the run, what a change would buy.
//!
//! In:    a report.
//! Out:   lines.
//! Never: a figure without its band.

use planner::plan::{PhaseTime, TimePlan};
use planner::report::{Alternative, Report};
use planner::units::bytes_text;

use super::style::{FREE, Look, Style, first_that_fit, fold, pad, pad_left};
use super::words;

/// Columns of a phase's name, with its indent.
const PHASE: usize = 18;
/// Columns of a time.
const FIGURE: usize = 10;
/// Columns of a share.
const SHARE: usize = 7;
/// Remedies and alternatives that are shown; the JSON has all.
const SHOWN_MAX: usize = 4;

/// The whole section.
pub(super) fn section(report: &Report, style: Style) -> String {
    let time = &report.plan.time;
    let mut out = style.line("time", &headline(time));
    let scale = time.phases.iter().map(|phase| phase.seconds).fold(0.0, f64::max);
    for phase in &time.phases {
        out.push_str(&row(phase, time.step_seconds, scale, style));
    }
    out.push_str(&style.line("  run", &format!("{}; {}", run(time), words::origin(time.origin))));
    out.push_str(&remedies(time, style));
    out
}

/// Step, speed, bottleneck, in one sentence; also the last of the ten lines.
pub(super) fn headline(time: &TimePlan) -> String {
    let tokens = time.tokens_per_second * time.step_seconds;
    format!(
        "{} a step ({} to {}), {} tokens/s ({} to {}), bound by {}",
        words::seconds(time.step_seconds),
        words::seconds(time.step_seconds_low),
        words::seconds(time.step_seconds_high),
        words::figure(time.tokens_per_second),
        words::figure(tokens / time.step_seconds_high),
        words::figure(tokens / time.step_seconds_low),
        words::resource(time.bottleneck)
    )
}

/// Length of the run.
pub(super) fn run(time: &TimePlan) -> String {
    match (time.steps, time.run_seconds) {
        (Some(steps), Some(seconds)) => {
            let ratio = |bound: f64| words::seconds(seconds * bound / time.step_seconds);
            let (low, high) = (ratio(time.step_seconds_low), ratio(time.step_seconds_high));
            format!("{steps} steps in {} ({low} to {high}) without evaluation", words::seconds(seconds))
        }
        _ => "as many steps as the data gives: they are counted when a run starts".to_string(),
    }
}

/// Name, seconds, share, bar, what it is bound by and what else takes time.
fn row(phase: &PhaseTime, step_seconds: f64, scale: f64, style: Style) -> String {
    let bar_columns = style.columns() / 6;
    let filled = if scale > 0.0 { (phase.seconds / scale * bar_columns as f64).round() as usize } else { 0 };
    let filled = filled.min(bar_columns);
    let rest = style.columns().saturating_sub(PHASE + FIGURE + SHARE + bar_columns + 4);
    let bound = words::resource(phase.bottleneck);
    let others = phase.resources.iter().filter(|other| other.resource != phase.bottleneck && other.seconds > 0.0);
    let mut others: Vec<_> = others.collect();
    others.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let others = others.iter().map(|one| format!("{} {}", words::resource(one.resource), words::seconds(one.seconds)));
    let others = first_that_fit(others, rest.saturating_sub(bound.chars().count() + 2));
    let others = if others.is_empty() { others } else { format!("; {others}") };
    format!(
        "{}{}{}  {}{}  {}{}\n",
        pad(&format!("  {}", words::phase(phase.phase)), PHASE),
        pad_left(&words::seconds(phase.seconds), FIGURE),
        pad_left(&words::percent(phase.seconds / step_seconds), SHARE),
        style.paint(Look::Term(0), &"█".repeat(filled)),
        style.paint(Look::Dim, &FREE.to_string().repeat(bar_columns - filled)),
        style.paint(Look::Strong, bound),
        style.paint(Look::Dim, &others)
    )
}

fn remedies(time: &TimePlan, style: Style) -> String {
    let better: Vec<_> = time.remedies.iter().filter(|remedy| remedy.step_seconds < time.step_seconds).collect();
    if better.is_empty() {
        return String::new();
    }
    let mut out = style.line("  buys", "what a change would make of a step");
    for remedy in better.into_iter().take(SHOWN_MAX) {
        let faster = format!("{:.2}x", time.step_seconds / remedy.step_seconds);
        out.push_str(&bullet(&faster, &words::seconds(remedy.step_seconds), &remedy.change, style));
    }
    out
}

/// `    1.52x    8.10 s  text`, the text folded under itself.
pub(super) fn bullet(first: &str, second: &str, text: &str, style: Style) -> String {
    let indent = 2 + SHARE + FIGURE + 2;
    let lines = fold(text, style.width.saturating_sub(indent));
    let head = format!("  {}{}  ", style.paint(Look::Good, &pad_left(first, SHARE)), pad_left(second, FIGURE));
    let body = lines.join(&format!("\n{}", " ".repeat(indent)));
    format!("{head}{body}\n")
}

/// The next best plans, and what they trade.
pub(super) fn alternatives(report: &Report, style: Style) -> String {
    let mut out = String::new();
    for (number, other) in report.alternatives.iter().take(SHOWN_MAX).enumerate() {
        let title = if number == 0 { "next best" } else { "" };
        out.push_str(&style.line(title, &alternative(other, report)));
    }
    out
}

fn alternative(other: &Alternative, report: &Report) -> String {
    let plan = &report.plan;
    let memories = [
        ("peak", other.peak_bytes, plan.memory.peak_bytes),
        ("dram", other.dram_bytes, plan.memory.dram_bytes),
        ("nvme", other.nvme_bytes, plan.memory.nvme_bytes),
    ];
    let memories = memories.iter().filter(|(_, theirs, ours)| theirs != ours);
    let memories: String =
        memories.map(|(name, theirs, ours)| format!(", {name} {}", change(*theirs, *ours))).collect();
    let slower = other.step_seconds / plan.time.step_seconds - 1.0;
    let slower = format!("{}{}", if slower < 0.0 { "" } else { "+" }, words::percent(slower));
    format!("{}: {} a step ({slower}){memories}; {}", other.settings, words::seconds(other.step_seconds), other.trade)
}

fn change(theirs: u64, ours: u64) -> String {
    let difference = bytes_text(theirs.abs_diff(ours));
    let sign = if theirs < ours { "-" } else { "+" };
    format!("{} ({sign}{difference})", bytes_text(theirs))
}
