//! What was prepared, in a page or as JSON.
//!
//! In:    prepared rows.
//! Out:   text for `tune data prepare` and the head of `tune data stats`.
//! Never: counts anything itself: the figures are the report's.

use std::fmt::Write;

use datasets::{Count, Report};
use serde_json::{Value, json};

use super::Rows;

/// The page of `tune data prepare`.
pub(super) fn page(rows: &Rows) -> String {
    let (report, prepared) = (&rows.prepared.report, &rows.prepared);
    let mut out = String::new();
    let mut line = |name: &str, what: String| {
        let _ = writeln!(out, "{name:<12}{what}");
    };
    for source in &report.sources {
        let files = if source.files == 1 { String::new() } else { format!(", {} files", source.files) };
        let what = format!("{}: {} of {} rows kept{files}", source.name, grouped(source.rows), grouped(source.read));
        line("source", what);
    }
    line("rows", rows_text(report));
    line("tokens", tokens_text(report));
    for (name, what) in changes(report) {
        line(name, what);
    }
    let state = if prepared.reused { "found as prepared before" } else { "prepared" };
    line("cache", format!("{state}: {}", prepared.folder.display()));
    out
}

/// The report as JSON, with where the rows lie.
pub(super) fn json(rows: &Rows) -> Value {
    let prepared = &rows.prepared;
    json!({
        "report": prepared.report, "folder": prepared.folder, "address": prepared.address, "reused": prepared.reused,
        "notes": prepared.notes,
    })
}

pub(super) fn rows_text(report: &Report) -> String {
    let mut text = format!("{} to train on", grouped(report.rows));
    if report.held_out_rows > 0 {
        let _ = write!(text, ", {} held out", grouped(report.held_out_rows));
    }
    text
}

pub(super) fn tokens_text(report: &Report) -> String {
    format!(
        "{}, {} of them trained on ({:.1} %); longest row {}",
        grouped(report.tokens),
        grouped(report.trained_tokens),
        100.0 * report.trained_share(),
        grouped(report.longest)
    )
}

/// Everything that was left out, cut, removed or let pass, with its first places.
pub(super) fn changes(report: &Report) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if report.dropped + report.truncated > 0 {
        lines.push((
            "too long",
            format!("{} dropped, {} truncated", grouped(report.dropped), grouped(report.truncated)),
        ));
    }
    if report.split > 0 {
        lines.push(("split", format!("{} documents into rows of the sequence length", grouped(report.split))));
    }
    for count in &report.removed {
        lines.push(("removed", format!("{}: {} ({})", count.what, grouped(count.count), places(report, count))));
    }
    for (gate, count) in &report.allowed {
        let gate = serde_json::to_value(gate).unwrap_or_default();
        let gate = gate.as_str().unwrap_or_default().to_owned();
        lines
            .push(("allowed", format!("{} rows fail the gate {gate}, which data.allow switches off", grouped(*count))));
    }
    if report.preferences > 0 {
        let what = "preference rows, checked; no method of this version trains on them";
        lines.push(("preference", format!("{} {what}", grouped(report.preferences))));
    }
    lines
}

fn places(report: &Report, count: &Count) -> String {
    let place = |(file, line): &(u32, u64)| format!("{}:{line}", report.files[*file as usize].display());
    let mut text = count.first.iter().map(place).collect::<Vec<_>>().join(", ");
    if count.count > count.first.len() as u64 {
        text += ", ...";
    }
    text
}

/// `1,234,567`
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits are ASCII")).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let texts = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }
}
