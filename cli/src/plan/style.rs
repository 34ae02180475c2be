//! How pages look: colours, widths, padding, wrapping.
//!
//! In:    plain text.
//! Out:   the same text, painted or folded.
//! Never: looks at the terminal; the caller says what it is.

use anstyle::{Ansi256Color, AnsiColor, Color};

/// Longest line of a bar or a table, however wide the terminal is.
const LAYOUT_COLUMNS_MAX: usize = 120;
/// Narrowest layout: below it lines are cut by the terminal.
const LAYOUT_COLUMNS_MIN: usize = 60;
/// Columns before what a titled line says.
pub(super) const INDENT: usize = 12;
/// Terms with a colour of their own; the rest is "other".
pub(super) const TERM_COLOURS: usize = 8;
/// Colours of terms, told apart by most colour-blind people (Okabe and Ito 2008), as numbers of the 256-colour palette; the last is
/// "other".
const TERM_PALETTE: [u8; TERM_COLOURS + 1] = [33, 214, 36, 175, 166, 117, 185, 137, 245];
/// The same terms where there is no colour.
const TERM_GLYPHS: [char; TERM_COLOURS + 1] = ['█', '▓', '▒', '░', '▚', '#', '=', '+', ':'];
/// Memory that nothing takes.
pub(super) const FREE: char = '·';

/// Whether colour codes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Colours; segments of bars are full blocks.
    Always,
    /// No escape codes; segments of bars differ by glyph.
    Never,
}

/// What a page is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Escape codes or none.
    pub colour: Colour,
    /// Columns; `usize::MAX` where nothing should be folded (no terminal).
    pub width: usize,
}

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Name of a section.
    Title,
    /// What matters in a line.
    Strong,
    /// It fits, it is faster.
    Good,
    /// It does not fit.
    Bad,
    /// Nothing to say.
    Plain,
    /// What may be skipped.
    Dim,
    /// A term by its number in the palette.
    Term(usize),
}

impl Style {
    /// Columns of bars and tables.
    pub(super) fn columns(self) -> usize {
        self.width.clamp(LAYOUT_COLUMNS_MIN, LAYOUT_COLUMNS_MAX)
    }

    /// `text` with escape codes around it, if there are any.
    pub(super) fn paint(self, look: Look, text: &str) -> String {
        if self.colour == Colour::Never || text.is_empty() {
            return text.to_string();
        }
        let style = anstyle::Style::new();
        let ansi = |colour: AnsiColor| Some(Color::Ansi(colour));
        let style = match look {
            Look::Title => style.bold().fg_color(ansi(AnsiColor::Cyan)),
            Look::Strong => style.bold(),
            Look::Good => style.fg_color(ansi(AnsiColor::Green)),
            Look::Bad => style.bold().fg_color(ansi(AnsiColor::Red)),
            Look::Plain => style,
            Look::Dim => style.dimmed(),
            Look::Term(index) => {
                style.fg_color(Some(Color::Ansi256(Ansi256Color(TERM_PALETTE[index.min(TERM_COLOURS)]))))
            }
        };
        format!("{style}{text}{style:#}")
    }

    /// The block that stands for a term.
    pub(super) fn glyph(self, index: usize) -> char {
        match self.colour {
            Colour::Always => TERM_GLYPHS[0],
            Colour::Never => TERM_GLYPHS[index.min(TERM_COLOURS)],
        }
    }

    /// A titled line, folded at blanks; what follows the first line is indented.
    pub(super) fn line(self, title: &str, text: &str) -> String {
        let mut out = String::new();
        for (number, part) in fold(text, self.width.saturating_sub(INDENT)).iter().enumerate() {
            let head = if number == 0 { pad(title, INDENT) } else { " ".repeat(INDENT) };
            out.push_str(&self.paint(Look::Title, head.trim_end()));
            out.push_str(
                &" ".repeat(INDENT.max(head.trim_end().chars().count() + 1) - head.trim_end().chars().count()),
            );
            out.push_str(part);
            out.push('\n');
        }
        out
    }

    /// Text folded and indented by `indent` columns, all of it in one look.
    pub(super) fn paragraph(self, indent: usize, look: Look, text: &str) -> String {
        let lines = fold(text, self.width.saturating_sub(indent));
        lines.iter().map(|line| format!("{}{}\n", " ".repeat(indent), self.paint(look, line))).collect()
    }
}

/// Blanks on the right up to `columns`.
pub(super) fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(text.chars().count())))
}

/// Blanks on the left up to `columns`.
pub(super) fn pad_left(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(text.chars().count())))
}

/// At most `columns` characters; what is cut ends in an ellipsis.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_string();
    }
    let kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// Lines of at most `columns` characters, broken at blanks; a longer word has a line of its own. Line breaks in `text` are blanks.
pub(super) fn fold(text: &str, columns: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(|c: char| c.is_ascii_whitespace()).filter(|word| !word.is_empty()) {
        let longer = line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && longer > columns {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// The first entries of a list that fit in so many columns; a cut entry would lie.
pub(super) fn first_that_fit(entries: impl Iterator<Item = String>, columns: usize) -> String {
    let mut line = String::new();
    for entry in entries {
        let separator = if line.is_empty() { "" } else { ", " };
        if line.chars().count() + separator.len() + entry.chars().count() > columns {
            break;
        }
        line.push_str(separator);
        line.push_str(&entry);
    }
    line
}
