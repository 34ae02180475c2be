//! `tune plan`: the page, the chart, the comparison, what fits, the schema; and what `tune run` shows of a plan.
//!
//! In:    reports that the planner made.
//! Out:   text, JSON or SVG.
//! Never: makes a run directory, or decides anything.

mod command;
mod compare;
mod costs;
mod facts;
mod fits;
mod measured;
mod memory;
mod page;
mod schema;
mod style;
mod svg;
mod terminal;
mod tiers;
mod time;
pub mod words;

use std::io::Write;

use anyhow::anyhow;

use crate::failure::{Failure, OrFail};

pub use command::print;
pub use compare::compare;
pub use facts::ten_lines;
pub use fits::fits_table;
pub use measured::{Measured, Planned, against_measured, comparison};
pub use page::text;
pub use schema::schema;
pub use svg::svg;

/// Writes on stdout; a reader that has seen enough (`| head`) is no error.
pub fn say(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow!("cannot write to stdout: {error}")).or_run()
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
