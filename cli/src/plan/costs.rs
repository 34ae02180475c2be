//! What else follows from a plan: power, lanes, wear and money, and the memory that will serve the result.
//!
//! In:    a report.
//! Out:   lines; none for what is not known.
//! Never: a price that the user did not give.

use planner::costs::{BreakEven, Costs, Lanes, Power, Wear};
use planner::report::Report;
use planner::serving::Serving;
use planner::units::bytes_text;

use super::style::{Look, Style, pad, pad_left};
use super::words;

/// Columns of a figure in the table of serving.
const FIGURE: usize = 10;

/// Power, supply, lanes, wear, price.
pub(super) fn section(report: &Report, style: Style) -> String {
    let Some(costs) = &report.costs else { return String::new() };
    let mut out = style.line("power", &power(&costs.power));
    out.push_str(&style.line("  to buy", &format!("a supply of {} W; {}", costs.power.psu_watts, costs.power.circuit)));
    out.push_str(&style.line("  PCIe", &lanes(&costs.lanes)));
    if let Some(wear) = &costs.wear {
        out.push_str(&style.line("wear", &wear_text(wear)));
    }
    if let Some(text) = price(costs) {
        out.push_str(&style.line("price", &text));
    }
    out
}

fn power(power: &Power) -> String {
    let run = power.run_wh.map_or(String::new(), |wh| format!(", {} the run", words::energy(wh)));
    let cost = power.run_cost.map_or(String::new(), |cost| format!(" ({} at your tariff)", words::money(cost)));
    let tokens = words::energy(power.wh_per_million_tokens);
    format!("{} W while training: {tokens} a million tokens{run}{cost}", words::figure(power.watts))
}

fn lanes(lanes: &Lanes) -> String {
    let there = lanes.there.map_or("how many there are is not known".to_string(), |there| format!("{there} there"));
    let note = lanes.note.as_ref().map_or(String::new(), |note| format!("; {note}"));
    format!("{} lanes asked for, {there}{note}", lanes.asked)
}

/// Wear in one sentence.
pub(super) fn wear_text(wear: &Wear) -> String {
    let mut parts = vec![format!("{} written a step", bytes_text(wear.step_written_bytes))];
    if let Some(run) = wear.run_written_tb {
        parts.push(format!("{} TB the run", words::figure(run)));
    }
    if let Some(endurance) = wear.endurance_tb {
        let share = wear.run_share.map_or(String::new(), |share| format!("{} of ", words::percent(share)));
        parts.push(format!("{share}{} TB of rated endurance", words::figure(endurance)));
    }
    if let Some(steps) = wear.steps_until_endurance {
        parts.push(format!("{} steps until then", words::figure(steps)));
    }
    parts.join(", ")
}

fn price(costs: &Costs) -> Option<String> {
    let hardware = costs.hardware_price.map(|price| format!("{} for the machine", words::money(price)));
    let parts: Vec<String> = hardware.into_iter().chain(costs.break_even.as_ref().map(break_even)).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn break_even(even: &BreakEven) -> String {
    let tokens = even.tokens.map_or(String::new(), |tokens| format!(" ({} tokens)", words::count(tokens)));
    match even.hours {
        Some(hours) => {
            format!("cheaper than renting after {}{tokens} of training: {}", words::seconds(hours * 3600.0), even.note)
        }
        None => format!("never cheaper than renting: {}", even.note),
    }
}

/// What will serve the result, a row a format.
pub(super) fn serving(report: &Report, style: Style) -> String {
    if report.serving.is_empty() {
        return String::new();
    }
    let mut out = style.line("serving", "memory of the result, one request at a time");
    let head = ["weights", "KV cache", "workspace", "together"].map(|name| pad_left(name, FIGURE)).concat();
    out.push_str(&style.paint(Look::Dim, &format!("  {}{}{head}", pad("format", 8), pad_left("context", FIGURE))));
    out.push('\n');
    for row in &report.serving {
        out.push_str(&serving_row(row, style));
    }
    out
}

fn serving_row(row: &Serving, style: Style) -> String {
    let bytes =
        [row.weights_bytes, row.cache_bytes, row.workspace_bytes].map(|bytes| pad_left(&bytes_text(bytes), FIGURE));
    let context = pad_left(&row.context_tokens.to_string(), FIGURE);
    let total = style.paint(Look::Strong, &pad_left(&bytes_text(row.total_bytes), FIGURE));
    format!("  {}{context}{}{total}\n", pad(&row.format, 8), bytes.concat())
}
