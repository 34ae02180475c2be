//! The tables of a page.
//!
//! In:    runs.
//! Out:   HTML tables with headers, and lists; empty text for what is not known.
//! Never: text that was not escaped.

use std::fmt::Write;

use planner::units::bytes_text;

use super::charts::Runs;
use super::run_files::{Run, Sample};
use super::summary::Summary;
use crate::markup::escaped;
use crate::plan::{Measured, comparison};

/// A table with a caption for those who hear it; the first cell of each row is its header.
pub(super) fn table(caption: &str, head: &[String], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut out = format!("<div class=\"wide\"><table><caption class=\"unseen\">{}</caption>", escaped(caption));
    if !head.is_empty() {
        let cells: String = head.iter().map(|cell| format!("<th scope=\"col\">{}</th>", escaped(cell))).collect();
        let _ = write!(out, "<thead><tr>{cells}</tr></thead>");
    }
    out.push_str("<tbody>");
    for row in rows {
        out.push_str("<tr>");
        for (at, cell) in row.iter().enumerate() {
            let cell = escaped(cell);
            let _ = match at {
                0 => write!(out, "<th scope=\"row\">{cell}</th>"),
                _ => write!(out, "<td>{cell}</td>"),
            };
        }
        out.push_str("</tr>");
    }
    out + "</tbody></table></div>\n"
}

fn texts<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_string).to_vec()
}

/// Results: of one run as tiles, of several side by side.
pub(super) fn results(runs: Runs<'_>) -> String {
    let summaries: Vec<Summary> = runs.runs.iter().map(Summary::of).collect();
    if let [one] = &summaries[..] {
        let tile = |(name, value): (&str, String)| {
            format!("<div><dt>{}</dt><dd>{}</dd></div>", escaped(name), escaped(&value))
        };
        let tiles: String = one.rows().into_iter().skip(1).map(tile).collect();
        let standing = escaped(&one.standing());
        return format!("<p class=\"status {}\">{standing}</p>\n<dl class=\"tiles\">{tiles}</dl>\n", one.status());
    }
    let all: Vec<Vec<(&str, String)>> = summaries.iter().map(Summary::rows).collect();
    let mut names: Vec<&str> = Vec::new();
    for name in all.iter().flatten().map(|row| row.0) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let value = |rows: &Vec<(&str, String)>, name: &str| {
        rows.iter().find(|row| row.0 == name).map_or("–".to_string(), |row| row.1.clone())
    };
    let row = |name: &&str| {
        let cells = all.iter().map(|rows| value(rows, name));
        [name.to_string()].into_iter().chain(cells).collect()
    };
    table("Results of the runs", &head_of(runs), &names.iter().map(row).collect::<Vec<_>>())
}

fn head_of(runs: Runs<'_>) -> Vec<String> {
    [String::new()].into_iter().chain(runs.labels.iter().cloned()).collect()
}

/// Planned, measured and their ratio.
pub(super) fn against_plan(run: &Run) -> String {
    let (Some(plan), Some(peak_bytes)) = (&run.plan, run.metrics.peak_rss_bytes()) else { return String::new() };
    let metrics = &run.metrics;
    let written = plan.written_per_step.saturating_mul(metrics.last_step.unwrap_or(0));
    let measured = Measured {
        peak_bytes,
        step_seconds_median: metrics.step_ms_median.map(|ms| ms / 1e3),
        tokens_per_second: (metrics.seconds > 0.0).then(|| metrics.tokens / metrics.seconds),
        nvme_written_bytes: metrics.nvme_written_bytes(),
        nvme_planned_bytes: (plan.written_per_step > 0).then(|| written.saturating_add(plan.placed_bytes)),
    };
    let rows: Vec<Vec<String>> = comparison(plan.planned, measured).into_iter().map(|row| row.to_vec()).collect();
    let mut out = table("Plan against measured", &texts(["", "planned", "measured", "ratio"]), &rows);
    if !plan.rates.is_empty() {
        let _ = writeln!(out, "<p class=\"dim\">The plan: {}.</p>", escaped(&plan.rates));
    }
    out
}

/// Checkpoints that are there.
pub(super) fn checkpoints(run: &Run) -> String {
    let row = |kept: &super::run_files::Kept| {
        let state = if kept.complete { "complete" } else { "no manifest: it cannot be resumed from" };
        vec![format!("step {}", kept.step), bytes_text(kept.bytes), state.to_string()]
    };
    let rows: Vec<Vec<String>> = run.checkpoints.iter().map(row).collect();
    table("Checkpoints", &texts(["after", "size", "state"]), &rows)
}

/// Questions with what was answered before and after.
pub(super) fn samples(samples: &[Sample]) -> String {
    samples.iter().map(sample).collect()
}

fn sample(sample: &Sample) -> String {
    let mut out =
        format!("<article class=\"sample\"><h4>Question</h4><pre>{}</pre><dl>", escaped(sample.question.trim()));
    let mut line = |name: &str, class: &str, text: &str| {
        let text = if text.trim().is_empty() { "(nothing)" } else { text };
        let _ =
            write!(out, "<div class=\"{class}\"><dt>{}</dt><dd><pre>{}</pre></dd></div>", escaped(name), escaped(text));
    };
    if !sample.expected.is_empty() {
        line("Expected", "expected", &sample.expected);
    }
    for (step, answer) in &sample.answers {
        let right = answer.trim() == sample.expected;
        let when = if *step == 0 { "Before training".to_string() } else { format!("After step {step}") };
        let verdict = if right { "exactly right" } else { "not exactly" };
        line(&format!("{when}: {verdict}"), if right { "right" } else { "wrong" }, answer);
    }
    out + "</dl></article>\n"
}

/// Recipe keys that differ between runs, besides their names.
pub(super) fn differences(runs: Runs<'_>) -> String {
    let mut keys: Vec<&str> = Vec::new();
    for (key, _) in runs.runs.iter().flat_map(|run| &run.recipe) {
        if key != "name" && !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    let value = |run: &Run, key: &str| {
        run.recipe.iter().find(|(name, _)| name == key).map_or("–".to_string(), |(_, value)| value.clone())
    };
    let row = |key: &str| -> Vec<String> {
        [key.to_string()].into_iter().chain(runs.runs.iter().map(|run| value(run, key))).collect()
    };
    let rows = keys.into_iter().map(row).filter(|row| row[1..].iter().any(|value| *value != row[1]));
    let rows: Vec<Vec<String>> = rows.collect();
    match rows.is_empty() {
        true => "<p>Every recipe key is the same.</p>\n".to_string(),
        false => table("Recipe keys that differ", &head_of(runs), &rows),
    }
}

/// Processes that trained: when, from which step, by which version.
pub(super) fn sessions(run: &Run) -> String {
    let row = |session: &crate::sessions::Session| {
        let started = session.started().unwrap_or("–".to_string());
        vec![started, format!("step {}", session.first_step), format!("tune {}", session.version)]
    };
    let rows: Vec<Vec<String>> = run.sessions.iter().map(row).collect();
    table("Processes of the run", &texts(["first step at", "from", "by"]), &rows)
}

/// What the machine was, when the run last began.
pub(super) fn machine(run: &Run) -> String {
    let Some(session) = run.sessions.last() else { return String::new() };
    let rows = session.machine.iter().flat_map(|(title, rows)| {
        rows.iter().map(move |(name, value)| {
            let name = if name.is_empty() { title.clone() } else { format!("{title}: {name}") };
            vec![name, value.clone()]
        })
    });
    table("The machine", &[], &rows.collect::<Vec<_>>())
}

/// What the rows were.
pub(super) fn data(run: &Run) -> String {
    let Some(session) = run.sessions.last() else { return String::new() };
    let line = |line: &String| format!("<li>{}</li>", escaped(line.strip_prefix("data: ").unwrap_or(line)));
    let lines: String = session.data.iter().map(line).collect();
    if lines.is_empty() { String::new() } else { format!("<ul>{lines}</ul>\n") }
}

/// Every curve's ends and extremes, for those who cannot see it.
pub(super) fn curves(charts: &[super::chart::Chart<'_>]) -> String {
    let mut rows = Vec::new();
    for chart in charts {
        for curve in &chart.curves {
            if let (Some((first, last)), Some((least, most))) = (curve.series.ends(), curve.series.range()) {
                let figures = [first, last, least, most].map(|value| chart.unit.text(value));
                let name = format!("{}: {}", chart.title, curve.label);
                rows.push([name].into_iter().chain(figures).collect());
            }
        }
    }
    table("Curves in figures", &texts(["", "first", "last", "least", "most"]), &rows)
}
