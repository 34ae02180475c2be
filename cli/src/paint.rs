//! Colours of text that is shown token by token.
//!
//! In:    what a piece of text is.
//! Out:   the same text, painted where the terminal takes it.
//! Never: changes the text.

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Effects, Style};

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// A heading.
    Title,
    /// Trained text.
    Trained,
    /// A trained special token.
    TrainedMarker,
    /// A special token that is context.
    Marker,
    /// Context.
    Dim,
}

/// Paints for one stream.
#[derive(Debug, Clone, Copy)]
pub struct Painter {
    plain: bool,
}

impl Painter {
    /// Colours on a terminal unless NO_COLOR is set; with CLICOLOR_FORCE always.
    pub fn of_stdout() -> Painter {
        Painter { plain: AutoStream::choice(&std::io::stdout()) == ColorChoice::Never }
    }

    /// Whether nothing is painted.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// `text` in its colour.
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        if self.plain || text.is_empty() {
            return text.to_owned();
        }
        let style = match paint {
            Paint::Title => Style::new().effects(Effects::BOLD),
            Paint::Trained => Style::new().fg_color(Some(AnsiColor::Green.into())),
            Paint::TrainedMarker => {
                Style::new().fg_color(Some(AnsiColor::Green.into())).effects(Effects::BOLD | Effects::UNDERLINE)
            }
            Paint::Marker => Style::new().fg_color(Some(AnsiColor::Cyan.into())),
            Paint::Dim => Style::new().effects(Effects::DIMMED),
        };
        // Line by line: pagers forget a colour at the end of a line.
        let lines = text.split('\n').map(|line| match line.is_empty() {
            true => String::new(),
            false => format!("{style}{line}{style:#}"),
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}
