//! The table of `tune plan --what-fits`.
//!
//! In:    rows that the planner made.
//! Out:   text, a row a model.
//! Never: a model that was not planned.

use planner::units::bytes_text;
use planner::what_fits::FitRow;

use super::style::{Look, Style, cut, pad, pad_left};
use super::words;

/// Columns of the figures; what is left belongs to the model's name and the placement.
const FIGURES: [(&str, usize); 6] =
    [("size", 7), ("rows", 5), ("tokens/s", 9), ("device", 9), ("dram", 9), ("nvme", 9)];
/// Columns of a reach, with its indent.
const REACH: usize = 12;
/// Longest name of a model.
const NAME_MAX: usize = 26;
/// A placement is shown where so many columns are left for it.
const PLACEMENT_MIN: usize = 20;

/// Rows under the method they belong to; a reach that adds nothing says so.
pub fn fits_table(rows: &[FitRow], style: Style) -> String {
    let Some(first) = rows.first() else {
        return "nothing fits: not even the smallest model of the list over a base in 4 bits\n".to_string();
    };
    let longest = rows.iter().map(|row| row.model.chars().count()).max().unwrap_or(0);
    let figures: usize = FIGURES.iter().map(|(_, columns)| columns).sum();
    let room = style.columns().saturating_sub(REACH + figures).max(8);
    let name = (longest + 2).min(NAME_MAX).min(room);
    let mut out = format!("largest models that fit, rows of {} tokens\n", first.sequence_length);
    for group in rows.chunk_by(|a, b| a.method == b.method) {
        let head = FIGURES.map(|(title, columns)| pad_left(title, columns)).concat();
        out.push_str(&style.paint(Look::Title, &pad(&group[0].method.to_string(), REACH + name)));
        out.push_str(&format!("{}\n", style.paint(Look::Dim, &head)));
        let mut before: Option<&[FitRow]> = None;
        for reach in group.chunk_by(|a, b| a.reach == b.reach) {
            match before.is_some_and(|before| are_the_same(before, reach)) {
                true => out.push_str(&format!("  {}the same\n", pad(&reach[0].reach.to_string(), REACH - 2))),
                false => reach.iter().enumerate().for_each(|(place, row)| out.push_str(&line(row, place, name, style))),
            }
            before = Some(reach);
        }
    }
    out
}

fn are_the_same(one: &[FitRow], other: &[FitRow]) -> bool {
    let key = |row: &FitRow| (row.model.clone(), row.placement.clone(), row.micro_batch);
    one.iter().map(key).eq(other.iter().map(key))
}

fn line(row: &FitRow, place: usize, name: usize, style: Style) -> String {
    let reach = if place == 0 { row.reach.to_string() } else { String::new() };
    let bytes = |bytes: u64| if bytes == 0 { "-".to_string() } else { bytes_text(bytes) };
    let figures = [
        words::count(row.parameters as f64),
        row.micro_batch.to_string(),
        words::figure(row.tokens_per_second),
        bytes(row.peak_bytes),
        bytes(row.dram_bytes),
        bytes(row.nvme_bytes),
    ];
    let figures: String = figures.iter().zip(FIGURES).map(|(text, (_, columns))| pad_left(text, columns)).collect();
    let rest = style.columns().saturating_sub(REACH + name + figures.chars().count() + 2);
    let placement = if rest < PLACEMENT_MIN { String::new() } else { format!("  {}", cut(&row.placement, rest)) };
    format!(
        "  {}{}{figures}{}\n",
        pad(&reach, REACH - 2),
        style.paint(Look::Strong, &pad(&cut(&row.model, name - 1), name)),
        style.paint(Look::Dim, &placement)
    )
}
