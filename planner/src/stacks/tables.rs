//! The published rows as a document.
//!
//! In:    [`super::calibration`] and [`super::speed_calibration`].
//! Out:   the text of `docs/calibration.md`.
//! Never: writes a file.

use super::memory::Moment;
use super::rows::{Measured, Quality, RowError, RowResult, RowSet, calibration};
use super::speed::{EngineClass, engine_band};
use super::speed_rows::{SpeedResult, speed_calibration};
use super::stack::Counter;

const HEAD: &str = "\
# The planner's arithmetic against published runs

Written by `cargo run -p planner --example calibration`; a test fails when this file is not what that prints.

Each row is a run that somebody else published, with the program that made it described to the planner: format of weights, optimizer, loss,
checkpointing, kernels, sharding, and what its counter counts (`planner/src/stacks/rows/memory.toml`). All rows go through the same arithmetic; no
constant belongs to one row.

";

const MEMORY: &str = "\
## Memory

The peak is the largest of five moments (loading, loss, backward of the first block, backward of the last, update), never their sum. Set
*calibration*: constants come from such rows (torchtune's README, litgpt on one card, two of Soup's models, llmq's own list of terms). Set
*held out*: no constant comes from them, but they were in view while the moments were written down, and where a source does not say how its
program works (marked *) the description that agrees was taken. Set *aside*: looked up after all constants stood, and nothing was changed
for them.

";

const SPEED: &str = "\
## Speed

Tokens a second of all cards. The slowest of compute, host link, host update and drives, each at its sustained rate, times the band of
the engine's class. The bands were set with the rows of set *calibration* in view: that part of the table shows that one band a class is enough,
not that it foresees an unknown engine. Rows of set *aside* were looked up after the bands stood.

";

/// The text of `docs/calibration.md`.
///
/// # Errors
/// If a table that is compiled in is malformed: a test reads them all.
pub fn calibration_markdown() -> Result<String, RowError> {
    let (memory, speed) = (calibration()?, speed_calibration()?);
    Ok([HEAD, MEMORY, &memory_part(&memory), SPEED, &speed_part(&speed)].concat())
}

fn memory_part(rows: &[RowResult]) -> String {
    let mut text = String::from("| rows | within 10 % | within 20 % |\n|---|---|---|\n");
    let mut line = |name: &str, chosen: &dyn Fn(&RowResult) -> bool| {
        let rows: Vec<&RowResult> = rows.iter().filter(|row| chosen(row)).collect();
        let within = |share| share_of(rows.iter().filter(|row| row.within(share)).count(), rows.len());
        text += &format!("| {name} | {} | {} |\n", within(0.1), within(0.2));
    };
    line("calibration and held out", &|row| row.set != RowSet::Aside);
    line("of these quality A", &|row| row.set != RowSet::Aside && row.quality == Quality::A);
    line("calibration", &|row| row.set == RowSet::Calibration);
    line("held out", &|row| row.set == RowSet::HeldOut);
    line("held out, nothing assumed", &|row| row.set == RowSet::HeldOut && row.assumed.is_none());
    line("aside", &|row| row.set == RowSet::Aside);
    text += "\n| row | source | Q | set | run | published GB | predicted GB | ratio | peak at |\n|---|---|---|---|---|---|---|---|---|\n";
    text.extend(rows.iter().map(memory_line));
    text += &misses(rows.iter().filter(|row| !row.within(0.1)).map(|row| (&row.id, &row.reason)));
    text + &assumptions(rows.iter().map(|row| (&row.id, &row.assumed)))
}

fn memory_line(row: &RowResult) -> String {
    let measured = match row.measured {
        Measured::Bytes(bytes) => gigabytes(bytes),
        Measured::MoreThan(bytes) => format!("> {}", gigabytes(bytes)),
    };
    format!(
        "| {}{} | {} | {:?} | {} | {} | {measured} | {} | {:.3}{} | {} |\n",
        row.id,
        if row.assumed.is_some() { "*" } else { "" },
        row.source,
        row.quality,
        set_name(row.set),
        row.what,
        gigabytes(row.estimate.counted_bytes as f64),
        row.ratio(),
        if row.within(0.1) { "" } else { " missed" },
        peak_name(row),
    )
}

fn speed_part(rows: &[SpeedResult]) -> String {
    let mut text = String::from("| rows | inside |\n|---|---|\n");
    let mut line = |name: &str, chosen: &dyn Fn(&SpeedResult) -> bool| {
        let rows: Vec<&SpeedResult> = rows.iter().filter(|row| chosen(row)).collect();
        text += &format!("| {name} | {} |\n", share_of(rows.iter().filter(|row| row.inside()).count(), rows.len()));
    };
    line("calibration", &|row| row.set != RowSet::Aside);
    line("of these quality A and B", &|row| row.set != RowSet::Aside && row.quality != Quality::C);
    line("of these, without LoHan's series", &|row| {
        row.set != RowSet::Aside && row.quality != Quality::C && row.source != "LoHan"
    });
    line("aside", &|row| row.set == RowSet::Aside);
    text += "\n| class of engine | least | most times the slowest resource |\n|---|---|---|\n";
    for (class, name) in CLASSES {
        let [least, most] = engine_band(class);
        text += &format!("| {name} | {least} | {most} |\n");
    }
    text += "\n| row | source | Q | set | run | published | band | inside |\n|---|---|---|---|---|---|---|---|\n";
    text.extend(rows.iter().map(speed_line));
    text += &misses(rows.iter().filter(|row| !row.inside()).map(|row| (&row.id, &row.reason)));
    text + &assumptions(rows.iter().map(|row| (&row.id, &row.assumed)))
}

const CLASSES: [(EngineClass, &str); 6] = [
    (EngineClass::Eager, "operation by operation"),
    (EngineClass::Compiled, "compiled or fused"),
    (EngineClass::HandWritten, "hand-written kernels"),
    (EngineClass::HostOffload, "host memory"),
    (EngineClass::DriveOffload, "drives"),
    (EngineClass::Streamed, "streamed frozen base"),
];

fn speed_line(row: &SpeedResult) -> String {
    format!(
        "| {}{} | {} | {:?} | {} | {} | {} | {} - {} | {} |\n",
        row.id,
        if row.assumed.is_some() { "*" } else { "" },
        row.source,
        row.quality,
        set_name(row.set),
        row.what,
        row.published.round(),
        row.band.low.round(),
        row.band.high.round(),
        if row.inside() { "yes" } else { "missed" },
    )
}

fn misses<'a>(rows: impl Iterator<Item = (&'a String, &'a Option<String>)>) -> String {
    let line = |(id, reason): (&String, &Option<String>)| {
        format!("- {id}: {}.\n", reason.as_deref().unwrap_or("not explained"))
    };
    format!("\nMissed, and why:\n\n{}", rows.map(line).collect::<String>())
}

/// Rows with the same assumption share a line.
fn assumptions<'a>(rows: impl Iterator<Item = (&'a String, &'a Option<String>)>) -> String {
    let mut lines: Vec<(&str, Vec<&str>)> = Vec::new();
    for (id, assumed) in rows {
        let Some(assumed) = assumed else { continue };
        match lines.iter_mut().find(|(text, _)| text == assumed) {
            Some((_, ids)) => ids.push(id),
            None => lines.push((assumed, vec![id])),
        }
    }
    let line = |(assumed, ids): (&str, Vec<&str>)| format!("- {assumed}: {}.\n", ids.join(", "));
    format!("\nAssumed, because the source does not say:\n\n{}\n", lines.into_iter().map(line).collect::<String>())
}

fn share_of(met: usize, all: usize) -> String {
    format!("{met} of {all} ({:.0} %)", 100.0 * met as f64 / all.max(1) as f64)
}

fn gigabytes(bytes: f64) -> String {
    if bytes < 1e11 { format!("{:.2}", bytes / 1e9) } else { format!("{:.0}", bytes / 1e9) }
}

fn set_name(set: RowSet) -> &'static str {
    match set {
        RowSet::Calibration => "calibration",
        RowSet::HeldOut => "held out",
        RowSet::Aside => "aside",
    }
}

/// When a card's memory peaks; what is counted in host memory stays all the time.
fn peak_name(row: &RowResult) -> &'static str {
    let Some(peak) = row.estimate.peak() else { return "" };
    match row.counter {
        Counter::PinnedBase | Counter::Host | Counter::AllTiers => return "always",
        Counter::Allocated | Counter::Reserved | Counter::DeviceLazy | Counter::DeviceEager => {}
    }
    match peak.moment {
        Moment::Load => "loading",
        Moment::Loss => "loss",
        Moment::FirstBackward => "first backward",
        Moment::LastBackward => "last backward",
        Moment::Update => "update",
    }
}
