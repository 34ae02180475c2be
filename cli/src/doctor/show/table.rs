//! Findings: symptom, constraint, first fix.
//!
//! In:    findings, the worst first.
//! Out:   three columns where the terminal is wide enough, else three lines each.
//! Never: leaves one out.

use anstyle::{AnsiColor, Style};

use super::super::findings::{Finding, Severity};
use super::{styled, wrap};

/// From this width on three columns are readable.
const COLUMNS_WIDTH_MIN: usize = 110;
/// Room for the word of the severity.
const WORD_WIDTH: usize = 5;
/// Names of the lines.
const LABEL_WIDTH: usize = 7;

/// The table, or one line if there is nothing in it.
pub fn text(findings: &[Finding], width: usize) -> String {
    let heading = styled(Style::new().bold(), "What will be slow");
    if findings.is_empty() {
        return format!("{heading}\n  nothing found\n");
    }
    let mut out = format!("{heading}\n");
    if width >= COLUMNS_WIDTH_MIN {
        let titles = ["symptom", "constraint", "first fix"].map(str::to_string);
        push_columns(&mut out, "", Style::new().dimmed(), &titles, width);
    }
    for finding in findings {
        let (word, style) = word(finding.severity);
        let parts = [finding.symptom.clone(), finding.constraint.clone(), finding.fix.clone()];
        match width >= COLUMNS_WIDTH_MIN {
            true => push_columns(&mut out, word, style, &parts, width),
            false => push_lines(&mut out, word, style, &parts, width),
        }
    }
    out
}

fn word(severity: Severity) -> (&'static str, Style) {
    match severity {
        Severity::Stops => ("stops", AnsiColor::Red.on_default().bold()),
        Severity::Slows => ("slows", AnsiColor::Yellow.on_default()),
        Severity::Note => ("note", AnsiColor::Blue.on_default()),
    }
}

fn push_lines(out: &mut String, word: &str, style: Style, parts: &[String; 3], width: usize) {
    let left = 2 + WORD_WIDTH + 1;
    let indent = left + LABEL_WIDTH + 1;
    let word = styled(style, &format!("{word:<WORD_WIDTH$}"));
    let mut symptom = wrap(&parts[0], width - left).into_iter();
    out.push_str(&format!("  {word} {}\n", styled(Style::new().bold(), &symptom.next().unwrap_or_default())));
    symptom.for_each(|line| out.push_str(&format!("{:left$}{}\n", "", styled(Style::new().bold(), &line))));
    for (label, part) in ["because", "fix"].iter().zip(&parts[1..]) {
        let mut label = format!("{label:<LABEL_WIDTH$}");
        for line in wrap(part, width - indent) {
            out.push_str(&format!("{:left$}{} {line}\n", "", styled(Style::new().dimmed(), &label)));
            label = " ".repeat(LABEL_WIDTH);
        }
    }
}

fn push_columns(out: &mut String, word: &str, style: Style, parts: &[String; 3], width: usize) {
    let left = 2 + WORD_WIDTH + 1;
    // The fix is the longest, the constraint the shortest.
    let room = width - left - 4;
    let widths = [room * 33 / 100, room * 27 / 100, room * 40 / 100];
    let columns: Vec<Vec<String>> = parts.iter().zip(widths).map(|(part, width)| wrap(part, width)).collect();
    for line in 0..columns.iter().map(Vec::len).max().unwrap_or(0) {
        let word = if line == 0 { word } else { "" };
        let cell = |column: usize| columns[column].get(line).cloned().unwrap_or_default();
        let row = format!("{:<a$}  {:<b$}  {}", cell(0), cell(1), cell(2), a = widths[0], b = widths[1]);
        out.push_str(&format!("  {} {}\n", styled(style, &format!("{word:<WORD_WIDTH$}")), row.trim_end()));
    }
}
