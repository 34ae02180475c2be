//! The chart of a plan: memory by tier and by phase against its budget, time by phase and resource.
//!
//! In:    a report.
//! Out:   an SVG document that any browser shows, light or dark.
//! Never: a figure that the page does not have.

mod canvas;

use planner::plan::{PhaseMemory, PhaseTime, Tier};
use planner::report::Report;
use planner::units::bytes_text;

use super::tiers::{Palette, Part, TierUse, cards, device_name, is_one_memory, tiers};
use super::{facts, time, words};
use crate::io_profile::Origin;
use canvas::*;

/// Height of a memory's bar, of a phase's bar and of a resource's bar, pixels.
const BAR: f64 = 24.0;
const PHASE_BAR: f64 = 16.0;
const RESOURCE_BAR: f64 = 9.0;
/// Where bars of phases start and end, pixels.
const PHASE_LEFT: f64 = 236.0;
const PHASE_RIGHT: f64 = WIDTH - 110.0;
/// Space between pieces of a bar, pixels.
const GAP: f64 = 1.0;

/// The whole chart.
pub fn svg(report: &Report) -> String {
    let mut canvas = Canvas::default();
    head(&mut canvas, report);
    section(&mut canvas, "Memory, each where it is fullest");
    let uses = tiers(report);
    uses.iter().for_each(|tier| memory_bar(&mut canvas, tier));
    let mut parts: Vec<Part> = uses.into_iter().flat_map(|tier| tier.parts).collect();
    for (tier, title, budget) in phase_panels(report) {
        section(&mut canvas, &title);
        parts.extend(phase_panel(&mut canvas, report, tier, budget));
    }
    legend(&mut canvas, &parts);
    section(&mut canvas, &format!("Time: {}", time::headline(&report.plan.time)));
    time_panel(&mut canvas, report);
    let title = format!("Plan {} on {}", report.plan.name, device_name(report));
    canvas.document(&title, &format!("{}. {}.", verdict(report).1, time::headline(&report.plan.time)))
}

fn verdict(report: &Report) -> (&'static str, String) {
    match &report.shortfall {
        None => ("good", "fits".to_string()),
        Some(short) => {
            let bytes = short.needed_bytes.saturating_sub(short.budget_bytes);
            ("bad", format!("does not fit: {} short", bytes_text(bytes)))
        }
    }
}

fn head(canvas: &mut Canvas, report: &Report) {
    let (class, verdict) = verdict(report);
    let count = if cards(report) > 1 { format!("{} x ", cards(report)) } else { String::new() };
    let title = format!("{} on {count}{}", report.plan.name, device_name(report));
    let room = WIDTH - 3.0 * MARGIN - width_of(&verdict, HEAD);
    canvas.y = 40.0;
    canvas.text((MARGIN, canvas.y), Anchor::Start, TITLE, "ink", &fitted(&title, TITLE, room));
    canvas.text((WIDTH - MARGIN, canvas.y), Anchor::End, HEAD, class, &verdict);
    let facts = facts::facts(&report.plan, Origin::Recipe);
    for (_, line) in facts.iter().filter(|(name, _)| ["model", "method", "train", "offload"].contains(name)) {
        canvas.y += 19.0;
        canvas.text((MARGIN, canvas.y), Anchor::Start, BODY, "dim", &fitted(line, BODY, WIDTH - 2.0 * MARGIN));
    }
}

fn section(canvas: &mut Canvas, title: &str) {
    canvas.y += 22.0;
    canvas.line((MARGIN, canvas.y), (WIDTH - MARGIN, canvas.y), "rule", 1.0);
    canvas.y += 24.0;
    canvas.text((MARGIN, canvas.y), Anchor::Start, HEAD, "ink", &fitted(title, HEAD, WIDTH - 2.0 * MARGIN));
}

/// Name and figures over a bar, its budget as a line, what is pinned under it.
fn memory_bar(canvas: &mut Canvas, tier: &TierUse) {
    let scale = tier.budget_bytes.unwrap_or(0).max(tier.used_bytes).max(1) as f64;
    let (left, full) = (MARGIN, WIDTH - 2.0 * MARGIN);
    let name = if tier.cards > 1 { format!("each of {} x {}", tier.cards, tier.name) } else { tier.name.clone() };
    let name = tier.phase.map_or(name.clone(), |phase| format!("{name}, fullest in {}", words::phase(phase)));
    let (class, figures) = figures(tier);
    canvas.y += 26.0;
    let room = full - width_of(&figures, BODY) - 16.0;
    canvas.text((left, canvas.y), Anchor::Start, BODY, "ink", &fitted(&name, BODY, room));
    canvas.text((WIDTH - MARGIN, canvas.y), Anchor::End, BODY, class, &figures);
    canvas.y += 7.0;
    canvas.bar((left, canvas.y), (full, BAR), "track", "");
    let budget_x = tier.budget_bytes.map(|budget| left + budget as f64 / scale * full);
    stack(canvas, &tier.parts, Bar { left, height: BAR, pixels_per_byte: full / scale, budget_x });
    if let Some(x) = budget_x {
        canvas.line((x, canvas.y - 3.0), (x, canvas.y + BAR + 3.0), "budget", 2.0);
    }
    canvas.y += BAR;
    if tier.pinned_bytes > 0 {
        let end = left + tier.pinned_bytes as f64 / scale * full;
        canvas.line((left, canvas.y + 5.0), (end, canvas.y + 5.0), "pin", 2.0);
        let text = format!("{} pinned", bytes_text(tier.pinned_bytes));
        let fits = end + 8.0 + width_of(&text, SMALL) < WIDTH - MARGIN;
        let (at, anchor) = if fits { (end + 6.0, Anchor::Start) } else { (WIDTH - MARGIN, Anchor::End) };
        canvas.text((at, canvas.y + if fits { 9.0 } else { 18.0 }), anchor, SMALL, "dim", &text);
        canvas.y += if fits { 8.0 } else { 18.0 };
    }
}

fn figures(tier: &TierUse) -> (&'static str, String) {
    let used = bytes_text(tier.used_bytes);
    match tier.budget_bytes {
        None => ("ink", used),
        Some(budget) if tier.used_bytes > budget => {
            ("bad", format!("{used} of {}: {} too much", bytes_text(budget), bytes_text(tier.used_bytes - budget)))
        }
        Some(budget) => {
            let share = words::percent(tier.used_bytes as f64 / budget.max(1) as f64);
            ("ink", format!("{used} of {}, {share}", bytes_text(budget)))
        }
    }
}

/// Where a stacked bar stands, pixels.
#[derive(Debug, Clone, Copy)]
struct Bar {
    left: f64,
    height: f64,
    pixels_per_byte: f64,
    budget_x: Option<f64>,
}

/// Pieces one after the other at the canvas's height; names where they fit beside the line of the budget.
fn stack(canvas: &mut Canvas, parts: &[Part], bar: Bar) {
    let (mut x, y) = (bar.left, canvas.y);
    for part in parts {
        let width = part.bytes as f64 * bar.pixels_per_byte;
        let label = format!("{} {}", part.name, bytes_text(part.bytes));
        canvas.bar((x, y), (width - GAP, bar.height), &term_class(part.colour), &label);
        let (from, to) = widest_side((x, x + width), bar.budget_x);
        let label = [label, part.name.clone()].into_iter().find(|text| width_of(text, SMALL) + 10.0 < to - from);
        if let Some(label) = label {
            let at = ((from + to) / 2.0, y + bar.height / 2.0 + 4.0);
            canvas.text(at, Anchor::Middle, SMALL, ink_on_term(part.colour), &label);
        }
        x += width;
    }
}

/// The longer piece of a stretch that a line may cut.
fn widest_side((from, to): (f64, f64), cut: Option<f64>) -> (f64, f64) {
    match cut.filter(|cut| (from..to).contains(cut)) {
        Some(cut) if cut - from > to - cut => (from, cut),
        Some(cut) => (cut, to),
        None => (from, to),
    }
}

/// Which memories are drawn phase by phase: title and budget.
fn phase_panels(report: &Report) -> Vec<(Option<Tier>, String, u64)> {
    let plan = &report.plan;
    if is_one_memory(report) {
        return vec![(None, "Memory by phase".to_string(), plan.memory.budget_bytes)];
    }
    let mut panels = vec![(Some(Tier::Device), "Device memory by phase".to_string(), plan.memory.budget_bytes)];
    if plan.memory.phases.iter().any(|phase| phase.dram_bytes > 0) {
        panels.push((Some(Tier::Dram), "Host memory by phase".to_string(), plan.offload.dram_budget_bytes));
    }
    panels
}

/// A bar a phase on one scale, the budget a line through all of them; gives back what was drawn.
fn phase_panel(canvas: &mut Canvas, report: &Report, tier: Option<Tier>, budget: u64) -> Vec<Part> {
    let palette = Palette::of(&report.plan);
    let counted = |phase: &PhaseMemory| match tier {
        None => phase.device_bytes.saturating_add(phase.dram_bytes),
        Some(Tier::Device) => phase.device_bytes,
        Some(_) => phase.dram_bytes,
    };
    let phases = &report.plan.memory.phases;
    let most = phases.iter().map(counted).max().unwrap_or(0);
    let scale = budget.max(most).max(1) as f64;
    let full = PHASE_RIGHT - PHASE_LEFT;
    let x = PHASE_LEFT + budget as f64 / scale * full;
    let (top, mut drawn) = (canvas.y + 12.0, Vec::new());
    canvas.y += 12.0;
    for phase in phases {
        let bytes = counted(phase);
        let class = if bytes > budget { "bad" } else { "ink" };
        let font = if bytes == most { Font { weight: 650, ..BODY } } else { BODY };
        canvas.text((MARGIN, canvas.y + 13.0), Anchor::Start, font, "ink", words::phase(phase.phase));
        canvas.text((WIDTH - MARGIN, canvas.y + 13.0), Anchor::End, font, class, &bytes_text(bytes));
        canvas.bar((PHASE_LEFT, canvas.y), (full, PHASE_BAR), "track", "");
        let parts = palette.parts(phase.terms.iter().filter(|term| tier.is_none_or(|tier| term.tier == tier)));
        let pixels_per_byte = full / scale;
        stack(canvas, &parts, Bar { left: PHASE_LEFT, height: PHASE_BAR, pixels_per_byte, budget_x: Some(x) });
        drawn.extend(parts);
        canvas.y += PHASE_BAR + 7.0;
    }
    canvas.line((x, top - 4.0), (x, canvas.y - 3.0), "budget", 2.0);
    let text = format!("budget {}", bytes_text(budget));
    let inside = x - width_of(&text, SMALL) > PHASE_LEFT;
    let (at, anchor) = if inside { (x, Anchor::End) } else { (x, Anchor::Start) };
    canvas.text((at, canvas.y + 9.0), anchor, SMALL, "bad", &text);
    canvas.y += 10.0;
    drawn
}

/// A square and a name for every colour that was drawn.
fn legend(canvas: &mut Canvas, parts: &[Part]) {
    let mut entries: Vec<(usize, &str)> = parts.iter().map(|part| (part.colour, part.name.as_str())).collect();
    entries.sort_unstable();
    entries.dedup();
    canvas.y += 26.0;
    let mut x = MARGIN;
    for (colour, name) in entries {
        let width = 18.0 + width_of(name, BODY) + 18.0;
        if x + width > WIDTH - MARGIN && x > MARGIN {
            (x, canvas.y) = (MARGIN, canvas.y + 20.0);
        }
        canvas.bar((x, canvas.y - 10.0), (12.0, 12.0), &term_class(colour), "");
        canvas.text((x + 18.0, canvas.y), Anchor::Start, BODY, "ink", name);
        x += width;
    }
}

/// A group a phase, a thin bar a resource; the one that bounds the phase is strong.
fn time_panel(canvas: &mut Canvas, report: &Report) {
    let phases = &report.plan.time.phases;
    let resources = phases.iter().flat_map(|phase| &phase.resources);
    let scale = resources.map(|one| one.seconds).chain(phases.iter().map(|phase| phase.seconds)).fold(0.0, f64::max);
    canvas.y += 12.0;
    for phase in phases {
        time_group(canvas, phase, if scale > 0.0 { (PHASE_RIGHT - PHASE_LEFT) / scale } else { 0.0 });
    }
    canvas.y += 8.0;
    let time = &report.plan.time;
    for line in [format!("Strong: what bounds the phase. {}.", time::run(time)), words::origin(time.origin).to_string()]
    {
        canvas.text((MARGIN, canvas.y + 8.0), Anchor::Start, SMALL, "dim", &fitted(&line, SMALL, WIDTH - 2.0 * MARGIN));
        canvas.y += 16.0;
    }
}

fn time_group(canvas: &mut Canvas, phase: &PhaseTime, pixels_per_second: f64) {
    let name_y = canvas.y + RESOURCE_BAR;
    canvas.text((MARGIN, name_y), Anchor::Start, BODY, "ink", words::phase(phase.phase));
    let strong = Font { weight: 650, ..BODY };
    canvas.text((WIDTH - MARGIN, name_y), Anchor::End, strong, "ink", &words::seconds(phase.seconds));
    let mut resources: Vec<_> = phase.resources.iter().filter(|one| one.seconds > 0.0).collect();
    resources.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    for one in &resources {
        let (name, seconds) = (words::resource(one.resource), words::seconds(one.seconds));
        let class = if one.resource == phase.bottleneck { "main" } else { "side" };
        let width = (one.seconds * pixels_per_second).max(1.0);
        canvas.text((PHASE_LEFT - 8.0, canvas.y + RESOURCE_BAR), Anchor::End, SMALL, "dim", name);
        canvas.bar((PHASE_LEFT, canvas.y), (width, RESOURCE_BAR), class, &format!("{name} {seconds}"));
        if resources.len() > 1 {
            let (inside, end) = (width_of(&seconds, SMALL) + 8.0, PHASE_LEFT + width + 5.0);
            if end + inside < WIDTH - MARGIN - 80.0 {
                canvas.text((end, canvas.y + RESOURCE_BAR), Anchor::Start, SMALL, "dim", &seconds);
            }
        }
        canvas.y += RESOURCE_BAR + 6.0;
    }
    canvas.y += if resources.is_empty() { RESOURCE_BAR + 12.0 } else { 6.0 };
}
