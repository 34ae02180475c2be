//! The page of `tune plan` for people.
//!
//! In:    a report, the columns and colours of the terminal.
//! Out:   text: first whether it fits, then what will be done, memory, time, costs.
//! Never: decides or computes a figure of the plan.

use planner::report::{Report, Shortfall};
use planner::units::bytes_text;

use super::style::{Look, Style};
use super::{costs, facts, memory, tiers, time, words};
use crate::io_profile::Origin;

/// Remedies of what does not fit that are shown.
const REMEDIES_MAX: usize = 3;

/// The whole page. `transfers` says where the numbers of a plan with files come from.
pub fn text(report: &Report, transfers: Origin, style: Style) -> String {
    let mut out = head(report, style);
    if let Some(shortfall) = &report.shortfall {
        out.push_str(&does_not_fit(shortfall, style));
    }
    for (name, what) in facts::facts(&report.plan, transfers) {
        out.push_str(&style.line(name, &what));
    }
    let sections = [
        memory::section(report, style),
        time::section(report, style),
        time::alternatives(report, style),
        costs::section(report, style),
        costs::serving(report, style),
        notes(report, style),
    ];
    for section in sections.iter().filter(|section| !section.is_empty()) {
        out.push('\n');
        out.push_str(section);
    }
    out
}

fn head(report: &Report, style: Style) -> String {
    let plan = &report.plan;
    let cards = match tiers::cards(report) {
        1 => String::new(),
        cards => format!("{cards} x "),
    };
    let (look, verdict) = match &report.shortfall {
        Some(_) => (Look::Bad, "does not fit"),
        None => (Look::Good, "fits"),
    };
    let line = style.line("plan", &format!("{} on {cards}{}: {verdict}", plan.name, tiers::device_name(report)));
    let mut out = match line.trim_end().strip_suffix(verdict) {
        Some(before) => format!("{before}{}\n", style.paint(look, verdict)),
        None => line,
    };
    if let Some(machine) = &report.machine {
        out.push_str(&style.line("machine", &machine_text(machine)));
    }
    out
}

fn machine_text(machine: &planner::hardware::Described) -> String {
    let mut parts = Vec::new();
    if let Some((gpu, count)) = &machine.gpu {
        parts.push(format!("{count} x {}", gpu.title));
    }
    parts.push(machine.cpu.as_ref().map_or("a usual desktop processor".to_string(), |cpu| cpu.title.clone()));
    parts.push(format!("{} of memory", bytes_text(machine.ram_bytes)));
    parts.extend(machine.ssds.iter().map(|ssd| ssd.title.clone()));
    parts.join(", ")
}

/// Bytes short, remedies, advice.
fn does_not_fit(shortfall: &Shortfall, style: Style) -> String {
    let short = shortfall.needed_bytes.saturating_sub(shortfall.budget_bytes);
    let sentence = format!(
        "{} needs {} at least, but {} may be used: {} short",
        shortfall.tier,
        bytes_text(shortfall.needed_bytes),
        bytes_text(shortfall.budget_bytes),
        bytes_text(short)
    );
    let mut out = style.paragraph(2, Look::Bad, &sentence);
    for remedy in shortfall.remedies.iter().take(REMEDIES_MAX) {
        out.push_str(&time::bullet("fits", &words::seconds(remedy.step_seconds), &remedy.change, style));
    }
    out.push_str(&style.paragraph(2, Look::Strong, &shortfall.advice));
    let least = "Below is the least that the recipe allows.";
    out.push_str(&style.paragraph(2, Look::Dim, least));
    out.push('\n');
    out
}

fn notes(report: &Report, style: Style) -> String {
    report.notes.iter().map(|note| style.line("note", note)).collect()
}
