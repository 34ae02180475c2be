//! The report for people.
//!
//! In:    a [`Report`].
//! Out:   sections of aligned rows, then the table of findings; colour where stdout is a terminal.
//! Never: decides anything; is wider than the terminal, or than 80 columns where there is none.

mod rows;
mod table;
#[cfg(test)]
mod tests;

use std::io::IsTerminal;
use std::process::{Command, Stdio};

use anstyle::{AnsiColor, Style};

use super::Report;

/// Width without a terminal.
const USUAL_WIDTH: usize = 80;
/// Lines longer than this are hard to read, shorter ones hold no table.
const WIDTHS: std::ops::RangeInclusive<usize> = 60..=140;
/// Room for the name of a row.
const NAME_WIDTH: usize = 14;

/// A section: a heading, and rows of a name and a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Section {
    /// The heading.
    pub title: &'static str,
    /// Names, which may be empty, and values.
    pub rows: Vec<(String, String)>,
}

/// Prints on stdout.
pub fn print(report: &Report) {
    anstream::print!("{}", text(report, width()));
}

/// What the machine is, section by section; those without rows are left out.
pub fn facts(machine: &super::Inventory) -> Vec<(String, Vec<(String, String)>)> {
    let sections = rows::machine(machine).into_iter().filter(|section| !section.rows.is_empty());
    sections.map(|section| (section.title.to_string(), section.rows)).collect()
}

/// The whole report, `width` columns wide, with escapes for colour.
pub fn text(report: &Report, width: usize) -> String {
    let mut out = String::new();
    for section in rows::sections(report) {
        out.push_str(&format!("{}\n", styled(Style::new().bold(), section.title)));
        for (name, value) in section.rows {
            push_row(&mut out, &name, &value, width);
        }
        out.push('\n');
    }
    out.push_str(&table::text(&report.findings, width));
    out
}

fn push_row(out: &mut String, name: &str, value: &str, width: usize) {
    let indent = 2 + NAME_WIDTH + 1;
    let mut lines = wrap(value, width.saturating_sub(indent)).into_iter();
    let name = match name.chars().count() > NAME_WIDTH {
        true => {
            out.push_str(&format!("  {}\n", styled(AnsiColor::Cyan.on_default(), name)));
            String::new()
        }
        false => name.to_string(),
    };
    let first = lines.next().unwrap_or_default();
    let padded = format!("{name:<NAME_WIDTH$}");
    out.push_str(format!("  {} {first}", styled(AnsiColor::Cyan.on_default(), &padded)).trim_end());
    out.push('\n');
    for line in lines {
        out.push_str(&format!("{:indent$}{line}\n", ""));
    }
}

/// A text in a style.
fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Lines of at most `width` characters, broken at spaces; a longer word is broken where the line ends.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(8);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        let used = lines.last().map_or(0, |line| line.chars().count());
        if used > 0 && used + 1 + rest.len() > width {
            lines.push(String::new());
        } else if used > 0 {
            lines.last_mut().into_iter().for_each(|line| line.push(' '));
        }
        while rest.len() > width {
            let tail = rest.split_off(width);
            lines.last_mut().into_iter().for_each(|line| line.extend(&rest));
            lines.push(String::new());
            rest = tail;
        }
        lines.last_mut().into_iter().for_each(|line| line.extend(&rest));
    }
    lines
}

/// Columns of the terminal: what the shell says, else what `stty` says.
fn width() -> usize {
    if !std::io::stdout().is_terminal() {
        return USUAL_WIDTH;
    }
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    told.or_else(asked).unwrap_or(USUAL_WIDTH).clamp(*WIDTHS.start(), *WIDTHS.end())
}

fn asked() -> Option<usize> {
    let terminal = std::fs::File::open("/dev/tty").ok()?;
    let output = Command::new("stty").arg("size").stdin(Stdio::from(terminal)).stderr(Stdio::null()).output().ok()?;
    let columns = String::from_utf8(output.stdout).ok()?.split_whitespace().nth(1)?.parse().ok()?;
    (columns > 0).then_some(columns)
}
