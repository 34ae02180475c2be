//! What stdout is: how wide, and whether it shows colours.
//!
//! In:    the environment (`NO_COLOR`, `CLICOLOR_FORCE`, `COLUMNS`), the terminal.
//! Out:   a [`Style`].
//! Never: an error; a terminal that does not tell is 80 columns wide.

use std::io::IsTerminal;
use std::process::{Command, Stdio};

use anstream::{AutoStream, ColorChoice};

use super::style::{Colour, Style};

/// Columns of a terminal that does not tell.
const COLUMNS: usize = 80;

/// The style of stdout. What is not a terminal gets no colours and whole lines, so that other programs find them.
pub(super) fn stdout_style() -> Style {
    let stdout = std::io::stdout();
    let colour = match AutoStream::choice(&stdout) {
        ColorChoice::Never => Colour::Never,
        _ => Colour::Always,
    };
    let width = if stdout.is_terminal() { columns().unwrap_or(COLUMNS) } else { usize::MAX };
    Style { colour, width }
}

/// `COLUMNS` if it is exported, else what `stty` says: the one way to ask without `unsafe`.
fn columns() -> Option<usize> {
    let given = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    given.or_else(asked_columns).filter(|&columns| columns > 0)
}

fn asked_columns() -> Option<usize> {
    let stty = Command::new("stty").arg("size").stdin(Stdio::inherit()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(stty.stdout).ok()?;
    text.split_whitespace().nth(1)?.parse().ok()
}
