//! Cleaning: which rows say the same, which nearly do, and which are no text worth training on.
//!
//! In:    texts of rows ([`crate::content::Content::text`]) and the plan's rules.
//! Out:   [`Fingerprint`]s (pure, made on any thread), [`Duplicates`] among rows in order, [`Overlap`] with held-out rows,
//!        [`Rules`] with the number that was measured, the split by what a row says, and [`CleanReport`].
//! Never: knows a language; holds more than its memory limit and two bits a row; depends on the number of threads.

mod bands;
mod duplicates;
mod fingerprint;
mod overlap;
mod rules;
mod scratch;
mod similarity;
mod split;
#[cfg(test)]
mod test_texts;
#[cfg(test)]
mod tests;
mod units;

use std::path::PathBuf;

pub use duplicates::{Likeness, Repeats};
pub use similarity::Similarity;

pub(crate) use duplicates::{Duplicates, Limits, Search};
pub(crate) use fingerprint::Fingerprint;
pub(crate) use overlap::Overlap;
pub(crate) use rules::Rules;
pub(crate) use split::is_held_out;

/// Why cleaning cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CleanError {
    /// The folder for sorted runs cannot be written or read back.
    #[error(
        "{folder}: cannot {doing} a temporary file of the search for duplicates: {source}; it needs up to 500 bytes a row \
         there: free space or name another folder"
    )]
    Scratch {
        /// The folder.
        folder: PathBuf,
        /// `make`, `write` or `read`.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A row number takes 40 bits.
    #[error("more than {rows_max} rows: the search for duplicates numbers no more; split the data")]
    TooManyRows {
        /// Most rows.
        rows_max: u64,
    },
    /// No similarity.
    #[error(
        "near_similarity = {value}: it is a share of common five-word sequences, above 0 and at most 1, such as 0.8"
    )]
    Similarity {
        /// What was asked for.
        value: f64,
    },
}
