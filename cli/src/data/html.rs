//! The page of `tune data stats --html`: figures, histogram and rows with their trained tokens marked.
//!
//! In:    prepared rows, their figures.
//! Out:   one HTML file that needs nothing else.
//! Never: lets text of a row become markup: every character that could is escaped.

use std::fmt::Write;

use super::Rows;
use super::pieces::{mask, pieces};
use super::stats::{Stats, duplicates_text, packing_text};
use super::summary::{self, grouped};
use crate::markup::escaped;

/// Rows that are shown in full: the first ones, then the longest.
const FIRST_ROWS: usize = 20;
/// Characters of a row that are shown.
const CHARACTERS_MAX: usize = 20_000;

const STYLE: &str = "\
:root{--page:#fff;--ink:#1c2126;--dim:#69737d;--line:#d9dee3;--bar:#2f7d5b;--trained:#d8f2e3;--marker:#1b6fa8}\
@media(prefers-color-scheme:dark){:root{--page:#15191d;--ink:#e4e8eb;--dim:#94a0aa;--line:#323a41;--bar:#58b98c;--trained:#1d4634;--marker:#7cc0ef}}\
body{margin:2rem auto;max-width:62rem;padding:0 1rem;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}\
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}\
table{border-collapse:collapse;width:100%}td,th{padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}\
th{font-weight:600;white-space:nowrap}th::first-letter{text-transform:uppercase}svg{width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:var(--dim)}svg rect{fill:var(--bar)}\
summary{cursor:pointer;padding:.3rem 0}summary span{color:var(--dim)}\
pre{white-space:pre-wrap;overflow-wrap:anywhere;border-left:3px solid var(--line);padding:.2rem 0 .2rem .8rem;margin:.3rem 0 1rem;font:14px/1.5 ui-monospace,monospace;color:var(--dim)}\
mark{background:var(--trained);color:var(--ink);border-radius:2px}b{color:var(--marker);font-weight:600}";

/// The whole page.
pub(super) fn page(rows: &Rows, stats: &Stats) -> String {
    let name = escaped(&rows.recipe.name);
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{name}: data</title><style>{STYLE}</style></head><body><h1>{name}: the rows as the model reads them</h1>"
    );
    out += &figures(rows, stats);
    out += "<h2>Rows by length in tokens</h2>";
    out += &plot(stats);
    out += "<h2>Rows</h2><p><mark>Marked text</mark> is trained on; <b>special tokens</b> are bold; the rest is context.</p>";
    let shown = (0..rows.prepared.training.len().min(FIRST_ROWS))
        .chain(stats.longest.iter().map(|(number, ..)| number - 1).filter(|number| *number >= FIRST_ROWS));
    for (at, number) in shown.enumerate() {
        out += &row(rows, number, if at < 3 { " open" } else { "" });
    }
    out + "</body></html>\n"
}

fn figures(rows: &Rows, stats: &Stats) -> String {
    let report = &rows.prepared.report;
    let [least, half, ninety, ninety_nine, most] = stats.lengths;
    let mut lines: Vec<(&str, String)> = Vec::new();
    for source in &report.sources {
        let what = format!("{}: {} of {} rows kept", source.name, grouped(source.rows), grouped(source.read));
        lines.push(("Source", what));
    }
    lines.push(("Rows", summary::rows_text(report)));
    lines.push(("Tokens", summary::tokens_text(report)));
    lines.push(("Row length", format!("{least} to {most}; half at most {half}, 90 % {ninety}, 99 % {ninety_nine}")));
    lines.push(("Packing", packing_text(rows, stats)));
    lines.push(("Duplicates", duplicates_text(rows)));
    lines.extend(summary::changes(report));
    let mut out = "<table>".to_owned();
    for (name, what) in lines {
        let _ = write!(out, "<tr><th>{}</th><td>{}</td></tr>", escaped(name), escaped(&what));
    }
    out + "</table>"
}

/// Upright bars with their counts as tool tips; labels below every fourth.
fn plot(stats: &Stats) -> String {
    const WIDTH: f64 = 960.0;
    const HEIGHT: f64 = 240.0;
    let most = stats.histogram.iter().map(|bar| bar.rows).max().unwrap_or(1).max(1) as f64;
    let step = WIDTH / stats.histogram.len().max(1) as f64;
    let mut out =
        format!("<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"rows by length\">", HEIGHT + 40.0);
    for (at, bar) in stats.histogram.iter().enumerate() {
        let (left, height) = (at as f64 * step, bar.rows as f64 / most * HEIGHT);
        let _ = write!(
            out,
            "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{} to {} tokens: {} rows</title></rect>",
            HEIGHT + 16.0 - height,
            step * 0.88,
            bar.from,
            bar.to,
            grouped(bar.rows)
        );
        if bar.rows > 0 {
            let (x, y) = (left + step * 0.44, HEIGHT + 12.0 - height);
            let _ = write!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>", short(bar.rows));
        }
        if at % 2 == 1 {
            let x = left + step * 0.88;
            let _ = write!(out, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", HEIGHT + 34.0, bar.to);
        }
    }
    out + "</svg>"
}

/// `950`, `12k`, `3.4M`: room for one label a bar.
fn short(rows: u64) -> String {
    match rows {
        0..=9_999 => rows.to_string(),
        10_000..=999_999 => format!("{}k", rows / 1000),
        _ => format!("{:.1}M", rows as f64 / 1e6),
    }
}

fn row(rows: &Rows, number: usize, open: &str) -> String {
    let row = rows.prepared.training.row(number);
    let learned = row.trained_tokens();
    let mask = mask(row.tokens.len(), row.trained);
    let file = rows.prepared.report.files[row.place.file as usize].display().to_string();
    let mut out = format!(
        "<details{open}><summary>row {} <span>{}:{} · {} tokens, {learned} trained</span></summary><pre>",
        number + 1,
        escaped(&file),
        row.place.line,
        row.tokens.len()
    );
    let mut left = CHARACTERS_MAX;
    for piece in pieces(row.tokens, &mask, &rows.tokenizer) {
        let text: String = piece.text.chars().take(left).collect();
        left -= text.chars().count();
        let mut text = escaped(&text);
        if piece.kind.marker {
            text = format!("<b>{text}</b>");
        }
        if piece.kind.trained {
            text = format!("<mark>{text}</mark>");
        }
        out += &text;
        if left == 0 {
            out += "\n... the rest is not shown";
            break;
        }
    }
    out + "</pre></details>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_above_a_bar_are_short() {
        assert_eq!([9_999, 12_345, 3_400_000].map(short), ["9999", "12k", "3.4M"]);
    }
}
