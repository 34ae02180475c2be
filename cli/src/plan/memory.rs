//! Memory on the page: a stacked bar for each memory, its legend, phases, and the rule of 20 bytes beside it.
//!
//! In:    a report.
//! Out:   lines.
//! Never: more detail than the JSON has; small terms are added up as "other".

use planner::plan::{PhaseMemory, Tier};
use planner::report::Report;
use planner::units::bytes_text;

use super::style::{FREE, Look, Style, cut, first_that_fit, pad, pad_left};
use super::tiers::{Part, TierUse, is_one_memory, tiers};
use super::words;

/// Marks the end of the budget in a bar.
const BUDGET: char = '│';
/// Under what is pinned.
const PINNED: char = '▔';
/// A name is not cut below that; then the phase is left out.
const NAME_MIN: usize = 8;
/// Columns of a figure in the table of phases.
const FIGURE: usize = 10;
/// Columns of the table's first column.
const PHASE: usize = 18;

/// The whole section.
pub(super) fn section(report: &Report, style: Style) -> String {
    let memory = &report.plan.memory;
    let mut out = style.line("memory", &headline(report));
    for tier in tiers(report) {
        out.push_str(&bar(&tier, style));
    }
    if memory.phases.len() > 1 {
        out.push_str(&phases(report, style));
    }
    out.push_str(&rule_of_twenty(report, style));
    out
}

fn headline(report: &Report) -> String {
    let memory = &report.plan.memory;
    let (peak, budget) = (memory.peak_bytes, memory.budget_bytes);
    let spare = match budget.checked_sub(peak) {
        Some(spare) => format!("{} to spare", bytes_text(spare)),
        None => format!("{} too much", bytes_text(peak - budget)),
    };
    format!("{} of {} at the peak, {}; {spare}", bytes_text(peak), bytes_text(budget), words::phase(memory.peak_phase))
}

/// Name and figures, bar, pinned part, legend.
fn bar(tier: &TierUse, style: Style) -> String {
    let columns = style.columns() - 3;
    let (figures, over) = (figures(tier), is_over(tier));
    let label = label(tier, columns.saturating_sub(figures.chars().count() + 2));
    let figures_look = if over { Look::Bad } else { Look::Strong };
    let gap = columns.saturating_sub(label.chars().count() + figures.chars().count()).max(2);
    let mut out = format!("  {label}{}{}\n", " ".repeat(gap), style.paint(figures_look, &figures));
    let scale = tier.budget_bytes.unwrap_or(0).max(tier.used_bytes).max(1);
    out.push_str(&format!("  {}\n", cells(tier, scale, columns - 1, style)));
    if tier.pinned_bytes > 0 {
        let under = share_of(tier.pinned_bytes, scale, columns - 1).max(1);
        let text = format!("{} {} pinned", PINNED.to_string().repeat(under), bytes_text(tier.pinned_bytes));
        out.push_str(&style.paragraph(2, Look::Dim, &text));
    }
    out.push_str(&legend(&tier.parts, style));
    out
}

fn is_over(tier: &TierUse) -> bool {
    tier.budget_bytes.is_some_and(|budget| tier.used_bytes > budget)
}

/// Name and phase; a long name is cut so that the figures keep their place.
fn label(tier: &TierUse, columns: usize) -> String {
    let name = match tier.cards {
        1 => tier.name.clone(),
        cards => format!("each of {cards} x {}", tier.name),
    };
    let phase = tier.phase.map_or(String::new(), |phase| format!(", fullest in {}", words::phase(phase)));
    match columns.checked_sub(phase.chars().count()) {
        Some(rest) if rest >= NAME_MIN => format!("{}{phase}", cut(&name, rest)),
        _ => cut(&name, columns),
    }
}

fn figures(tier: &TierUse) -> String {
    let used = bytes_text(tier.used_bytes);
    match tier.budget_bytes {
        None => used,
        Some(budget) if tier.used_bytes > budget => {
            format!("{used} of {}: {} too much", bytes_text(budget), bytes_text(tier.used_bytes - budget))
        }
        Some(budget) => {
            let share = tier.used_bytes as f64 / budget.max(1) as f64;
            format!("{used} of {}  {}", bytes_text(budget), words::percent(share))
        }
    }
}

fn share_of(bytes: u64, scale: u64, columns: usize) -> usize {
    (bytes as f64 / scale as f64 * columns as f64).round() as usize
}

/// Pieces from left to right by rounded positions, so that the bar as a whole is as long as it should be; the budget is one mark.
fn cells(tier: &TierUse, scale: u64, columns: usize, style: Style) -> String {
    let mut cells: Vec<(Look, char)> = Vec::with_capacity(columns + 1);
    let mut so_far = 0u64;
    for part in &tier.parts {
        so_far = so_far.saturating_add(part.bytes);
        let end = share_of(so_far, scale, columns).min(columns);
        while cells.len() < end {
            cells.push((Look::Term(part.colour), style.glyph(part.colour)));
        }
    }
    cells.resize(columns, (Look::Dim, FREE));
    if let Some(budget) = tier.budget_bytes {
        let look = if is_over(tier) { Look::Bad } else { Look::Dim };
        cells.insert(share_of(budget, scale, columns).min(columns), (look, BUDGET));
    }
    painted(&cells, style)
}

/// Runs of one look are painted together: fewer escape codes.
fn painted(cells: &[(Look, char)], style: Style) -> String {
    let mut out = String::new();
    for run in cells.chunk_by(|a, b| a.0 == b.0) {
        let text: String = run.iter().map(|(_, cell)| cell).collect();
        out.push_str(&style.paint(run[0].0, &text));
    }
    out
}

/// Largest first, as many to a line as fit.
fn legend(parts: &[Part], style: Style) -> String {
    let mut entries: Vec<Part> = Vec::new();
    for part in parts {
        match entries.iter_mut().find(|entry| entry.name == part.name) {
            Some(entry) => entry.bytes = entry.bytes.saturating_add(part.bytes),
            None => entries.push(part.clone()),
        }
    }
    entries.sort_by_key(|part| (part.name == "other", std::cmp::Reverse(part.bytes)));
    let (mut out, mut used) = (String::new(), 0);
    for part in &entries {
        let text = format!("{} {}", part.name, bytes_text(part.bytes));
        let columns = 2 + text.chars().count();
        let (gap, starts) = (if used == 0 { 0 } else { 3 }, used == 0 || used + 3 + columns > style.columns() - 4);
        if starts {
            out.push_str(if used == 0 { "    " } else { "\n    " });
            used = columns;
        } else {
            out.push_str("   ");
            used += gap + columns;
        }
        out.push_str(&style.paint(Look::Term(part.colour), &style.glyph(part.colour).to_string()));
        out.push_str(&format!(" {text}"));
    }
    if !entries.is_empty() {
        out.push('\n');
    }
    out
}

/// Phase by tier, the fullest of each marked; as many terms behind it as the width allows.
fn phases(report: &Report, style: Style) -> String {
    let phases = &report.plan.memory.phases;
    let has_dram = phases.iter().any(|phase| phase.dram_bytes > 0);
    let most = |of: fn(&PhaseMemory) -> u64| phases.iter().map(of).max().unwrap_or(0);
    let (device, dram) = (most(|phase| phase.device_bytes), most(|phase| phase.dram_bytes));
    let (second, head) = if has_dram { (pad_left("dram", FIGURE + 2), FIGURE + 2) } else { (String::new(), 0) };
    let title = format!("  {}{}{second}  mostly", pad("phase", PHASE - 2), pad_left("device", FIGURE + 2));
    let mut out = style.paint(Look::Dim, &title);
    out.push('\n');
    let rest = style.columns().saturating_sub(PHASE + FIGURE + 2 + head + 3);
    for phase in phases {
        let is_peak = phase.phase == report.plan.memory.peak_phase;
        let name = pad(&format!("  {}{}", words::phase(phase.phase), if is_peak { " ◄" } else { "" }), PHASE);
        out.push_str(&if is_peak { style.paint(Look::Strong, &name) } else { name });
        out.push_str(&bytes_cell(phase.device_bytes, device, style));
        if has_dram {
            out.push_str(&bytes_cell(phase.dram_bytes, dram, style));
        }
        let mostly = first_that_fit(largest(phase, is_one_memory(report)), rest);
        out.push_str(&format!("  {}\n", style.paint(Look::Dim, &mostly)));
    }
    out
}

fn bytes_cell(bytes: u64, most: u64, style: Style) -> String {
    let text = pad_left(&bytes_text(bytes), FIGURE + 2);
    if bytes == most && bytes > 0 { style.paint(Look::Strong, &text) } else { text }
}

/// Terms by size, on a card its own first.
fn largest(phase: &PhaseMemory, one_memory: bool) -> impl Iterator<Item = String> {
    let mut terms: Vec<_> = phase.terms.iter().filter(|term| term.bytes > 0).collect();
    terms.sort_by_key(|term| (term.tier != Tier::Device && !one_memory, std::cmp::Reverse(term.bytes)));
    terms.into_iter().map(|term| format!("{} {}", term.name, bytes_text(term.bytes)))
}

fn rule_of_twenty(report: &Report, style: Style) -> String {
    let rule = &report.rule_of_twenty;
    let parameters = rule.rule_bytes as f64 / 20.0;
    let own = rule.planned_bytes as f64 / parameters.max(1.0);
    let text = format!(
        "20 bytes a parameter would be {}; this plan takes {} in all memories, {} bytes a parameter",
        bytes_text(rule.rule_bytes),
        bytes_text(rule.planned_bytes),
        words::figure(own)
    );
    let mut out = style.line("  rule", &text);
    for why in &rule.why {
        out.push_str(&style.paragraph(super::style::INDENT, Look::Dim, why));
    }
    out
}
