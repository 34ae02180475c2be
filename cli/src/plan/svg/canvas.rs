//! Rectangles, lines and words as SVG.
//!
//! In:    positions in pixels, classes of the style sheet.
//! Out:   one self-contained document: no script, no font, no address to load from.
//! Never: text that was not escaped.

use std::fmt::Write;

use super::super::style::TERM_COLOURS;
use crate::markup::{PALETTE, escaped};

/// Width of the chart, pixels.
pub(super) const WIDTH: f64 = 960.0;
/// Left and right margin, pixels.
pub(super) const MARGIN: f64 = 24.0;
/// Width of an average character as a share of the font size; wide enough for the common sans-serif fonts.
const CHARACTER: f64 = 0.57;

/// Whether words on that fill are white.
const TERM_WHITE_INK: [bool; TERM_COLOURS + 1] = [true, false, true, false, true, false, false, true, false];

const LIGHT: &str = ".page{fill:#ffffff}.ink{fill:#1b1f24}.dim{fill:#5b6470}.track{fill:#e8ebef}.good{fill:#1a7f37}.bad{fill:#c62828}\
.main{fill:#0072b2}.side{fill:#9ec5de}.budget{stroke:#c62828}.rule{stroke:#d0d5db}.pin{stroke:#5b6470}";
const DARK: &str = ".page{fill:#14171c}.ink{fill:#e6e9ed}.dim{fill:#9aa4b0}.track{fill:#2a2f37}.good{fill:#56d364}.bad{fill:#ff7b72}\
.main{fill:#56b4e9}.side{fill:#2f5d78}.budget{stroke:#ff7b72}.rule{stroke:#3a414b}.pin{stroke:#9aa4b0}";

/// How large and strong a text is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Font {
    /// Pixels.
    pub(super) size: f64,
    /// Bold or not, as CSS says it.
    pub(super) weight: u32,
}

/// Headings.
pub(super) const TITLE: Font = Font { size: 19.0, weight: 650 };
/// Section heads.
pub(super) const HEAD: Font = Font { size: 14.0, weight: 650 };
/// All else.
pub(super) const BODY: Font = Font { size: 12.5, weight: 400 };
/// Inside bars and beside thin ones.
pub(super) const SMALL: Font = Font { size: 11.0, weight: 400 };

/// Where a text stands relative to its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    /// It starts there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

/// A document in the making; `y` is where the next thing goes.
#[derive(Debug, Default)]
pub(super) struct Canvas {
    body: String,
    /// Pixels from the top.
    pub(super) y: f64,
}

impl Canvas {
    /// Words on a base line.
    pub(super) fn text(&mut self, at: (f64, f64), anchor: Anchor, font: Font, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.push(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"{class}\" text-anchor=\"{anchor}\" font-size=\"{}\" font-weight=\"{}\">{}</text>\n",
            at.0,
            at.1,
            font.size,
            font.weight,
            escaped(text)
        ));
    }

    /// A filled rectangle with words that a browser shows over it.
    pub(super) fn bar(&mut self, at: (f64, f64), size: (f64, f64), class: &str, tip: &str) {
        let tip = if tip.is_empty() { String::new() } else { format!("<title>{}</title>", escaped(tip)) };
        self.push(format_args!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" class=\"{class}\">{tip}</rect>\n",
            at.0,
            at.1,
            size.0.max(0.0),
            size.1
        ));
    }

    /// A vertical or horizontal line.
    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str, width: f64) {
        self.push(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" class=\"{class}\" stroke-width=\"{width}\"/>\n",
            from.0, from.1, to.0, to.1
        ));
    }

    /// The document; `title` and `description` are read out where nothing is seen.
    pub(super) fn document(&self, title: &str, description: &str) -> String {
        let terms: String =
            PALETTE.iter().enumerate().map(|(index, fill)| format!(".t{index}{{fill:{fill}}}")).collect();
        let height = self.y + MARGIN;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" \
             role=\"img\" font-family=\"system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif\">\n\
             <title>{}</title>\n<desc>{}</desc>\n\
             <style>{LIGHT}{terms}.white{{fill:#ffffff}}.black{{fill:#101418}}@media (prefers-color-scheme: dark){{{DARK}}}</style>\n\
             <rect x=\"0\" y=\"0\" width=\"{WIDTH}\" height=\"{height:.0}\" class=\"page\"/>\n{}</svg>\n",
            escaped(title),
            escaped(description),
            self.body
        )
    }

    fn push(&mut self, what: std::fmt::Arguments<'_>) {
        self.body.write_fmt(what).expect("writing to a String cannot fail");
    }
}

/// Class of a term's fill.
pub(super) fn term_class(colour: usize) -> String {
    format!("t{}", colour.min(TERM_COLOURS))
}

/// Class of words on a term's fill.
pub(super) fn ink_on_term(colour: usize) -> &'static str {
    if TERM_WHITE_INK[colour.min(TERM_COLOURS)] { "white" } else { "black" }
}

/// About how wide a text is, pixels.
pub(super) fn width_of(text: &str, font: Font) -> f64 {
    let bold = if font.weight > 500 { 1.08 } else { 1.0 };
    text.chars().count() as f64 * font.size * CHARACTER * bold
}

/// As many characters as fit in so many pixels.
pub(super) fn fitted(text: &str, font: Font, pixels: f64) -> String {
    let all = text.chars().count().max(1);
    let one = width_of(text, font) / all as f64;
    super::super::style::cut(text, (pixels / one.max(0.1)).max(1.0) as usize)
}
