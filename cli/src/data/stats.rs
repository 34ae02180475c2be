//! `tune data stats`: what the rows of a recipe are, in figures and a histogram.
//!
//! In:    prepared rows.
//! Out:   a page, JSON, or an HTML file.
//! Never: guesses: packing is what training will do in its first epoch.

use std::fmt::Write;

use datasets::{Batches, Dataset, efficiency};
use offload::durable::publish_file;
use serde::Serialize;

use super::summary::{self, grouped};
use super::{Rows, html};
use crate::args::StatsArguments;
use crate::failure::{Failure, OrFail};
use crate::paint::{Paint, Painter};

/// Bars of the histogram at most.
const BARS: usize = 20;
/// Longest rows that are named.
const LONGEST: usize = 5;
/// Columns of the longest bar.
const BAR_COLUMNS: usize = 48;

/// Figures of prepared rows beyond their report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Stats {
    /// Rows by length.
    pub(super) histogram: Vec<Bar>,
    /// Tokens a row: least, then what 50, 90, 99 of 100 rows do not exceed, most.
    pub(super) lengths: [u64; 5],
    /// Packed rows (or rows) of an epoch.
    pub(super) rows_in_epoch: u64,
    /// Share of their positions that hold a token; `None` without packing: no row is padded.
    pub(super) packing_efficiency: Option<f64>,
    /// The longest rows: number from 1, tokens, file, line.
    pub(super) longest: Vec<(usize, u64, String, u64)>,
}

/// One bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Bar {
    /// Fewest tokens.
    pub(super) from: u64,
    /// Most tokens.
    pub(super) to: u64,
    /// Rows.
    pub(super) rows: u64,
}

/// Prints, and writes the page that was asked for.
pub fn print(arguments: &StatsArguments) -> Result<(), Failure> {
    let rows = Rows::of(&arguments.recipe)?;
    let stats = Stats::of(&rows)?;
    if let Some(path) = &arguments.html {
        publish_file(path, html::page(&rows, &stats).as_bytes()).or_run()?;
        eprintln!("{}: open it in a browser", path.display());
    }
    match arguments.json {
        true => {
            let mut value = summary::json(&rows);
            value["stats"] = serde_json::to_value(&stats).or_run()?;
            println!("{value}");
        }
        false => print!("{}", page(&rows, &stats, &Painter::of_stdout())),
    }
    Ok(())
}

impl Stats {
    fn of(rows: &Rows) -> Result<Stats, Failure> {
        let dataset = &rows.prepared.training;
        let mut lengths: Vec<u32> = (0..dataset.len()).map(|row| dataset.length(row) as u32).collect();
        let longest = longest(rows, dataset);
        lengths.sort_unstable();
        let at =
            |share: f64| lengths.get(((lengths.len() as f64 * share) as usize).min(lengths.len().saturating_sub(1)));
        let quantile = |share: f64| at(share).copied().unwrap_or(0).into();
        let sources = &rows.prepared.report.source_of_file;
        let batches = Batches::new(dataset.clone(), &rows.plan, sources, 1, 1).or_input()?;
        let rows_in_epoch = batches.steps_in_epoch(0);
        Ok(Stats {
            histogram: histogram(&lengths),
            lengths: [quantile(0.0), quantile(0.5), quantile(0.9), quantile(0.99), quantile(1.0)],
            rows_in_epoch,
            packing_efficiency: rows.plan.packing.then(|| efficiency(dataset, rows.plan.sequence_length)),
            longest,
        })
    }
}

fn longest(rows: &Rows, dataset: &Dataset) -> Vec<(usize, u64, String, u64)> {
    let mut numbers: Vec<usize> = (0..dataset.len()).collect();
    let by_length = |number: &usize| std::cmp::Reverse(dataset.length(*number));
    if numbers.len() > LONGEST {
        numbers.select_nth_unstable_by_key(LONGEST, by_length);
        numbers.truncate(LONGEST);
    }
    numbers.sort_by_key(by_length);
    let told = |number: usize| {
        let place = dataset.row(number).place;
        let file = rows.prepared.report.files[place.file as usize].display().to_string();
        (number + 1, dataset.length(number) as u64, file, place.line)
    };
    numbers.into_iter().map(told).collect()
}

/// Equal steps of a round width, from zero to the longest row. `lengths` is sorted.
fn histogram(lengths: &[u32]) -> Vec<Bar> {
    let Some(&most) = lengths.last() else { return Vec::new() };
    let width = round_width(u64::from(most).div_ceil(BARS as u64).max(1));
    let mut bars = Vec::new();
    let mut done = 0;
    while done < lengths.len() {
        let to = width * (bars.len() as u64 + 1);
        let end = lengths.partition_point(|&length| u64::from(length) <= to);
        bars.push(Bar { from: to - width + 1, to, rows: (end - done) as u64 });
        done = end;
    }
    bars
}

/// The next of 1, 2, 5, 10, 20, 50, ...
fn round_width(at_least: u64) -> u64 {
    let mut unit = 1;
    loop {
        if let Some(width) = [1, 2, 5].map(|factor| factor * unit).into_iter().find(|&width| width >= at_least) {
            return width;
        }
        unit *= 10;
    }
}

fn page(rows: &Rows, stats: &Stats, painter: &Painter) -> String {
    let report = &rows.prepared.report;
    let mut out = summary::page(rows);
    let [least, half, ninety, ninety_nine, most] = stats.lengths;
    let mut line = |name: &str, what: String| {
        let _ = writeln!(out, "{name:<12}{what}");
    };
    line("row length", format!("{least} to {most} tokens; half at most {half}, 90 % {ninety}, 99 % {ninety_nine}"));
    line("packing", packing_text(rows, stats));
    line("duplicates", duplicates_text(rows));
    for duplicate in &report.duplicate_examples {
        let place = |(file, line): (u32, u64)| format!("{}:{line}", report.files[file as usize].display());
        let percent = 100.0 * duplicate.similarity;
        line("", format!("{} repeats {} ({percent:.0} % alike)", place(duplicate.row), place(duplicate.earlier)));
    }
    for (number, tokens, file, at) in &stats.longest {
        line("longest", format!("row {number}: {} tokens, {file}:{at}", grouped(*tokens)));
    }
    out.push('\n');
    out += &plot(stats, painter);
    out
}

pub(super) fn packing_text(rows: &Rows, stats: &Stats) -> String {
    let limit = rows.plan.sequence_length;
    match stats.packing_efficiency {
        Some(efficiency) => format!(
            "{} packed rows of {limit} tokens an epoch, {:.2} % full",
            grouped(stats.rows_in_epoch),
            100.0 * efficiency
        ),
        None => format!("none: {} rows an epoch, laid end to end without padding", grouped(stats.rows_in_epoch)),
    }
}

pub(super) fn duplicates_text(rows: &Rows) -> String {
    let report = &rows.prepared.report;
    match report.near_duplicates {
        Some(near) => format!("{} exact, {} near", grouped(report.exact_duplicates), grouped(near)),
        None => format!(
            "{} exact; near ones are looked for with data.clean.deduplicate = \"near\"",
            grouped(report.exact_duplicates)
        ),
    }
}

fn plot(stats: &Stats, painter: &Painter) -> String {
    let most = stats.histogram.iter().map(|bar| bar.rows).max().unwrap_or(1).max(1);
    let mut out = format!("{:>15}  rows\n", "tokens");
    for bar in &stats.histogram {
        let eighths = (bar.rows as f64 / most as f64 * (BAR_COLUMNS * 8) as f64).ceil() as usize;
        let partial = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
        let drawn = "█".repeat(eighths / 8) + partial;
        let range = format!("{}-{}", bar.from, bar.to);
        let _ = writeln!(out, "{range:>15}  {} {}", painter.paint(Paint::Trained, &drawn), grouped(bar.rows));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_round_widths_and_count_every_row_once() {
        let lengths: Vec<u32> = (1..=1000).collect();
        let bars = histogram(&lengths);
        assert_eq!((bars.len(), bars[0]), (20, Bar { from: 1, to: 50, rows: 50 }));
        assert_eq!(bars.iter().map(|bar| bar.rows).sum::<u64>(), 1000);
        assert_eq!([1, 3, 51, 64].map(round_width), [1, 5, 100, 100]);
        assert!(histogram(&[]).is_empty());
    }
}
