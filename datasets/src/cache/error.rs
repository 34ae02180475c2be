//! Why a cache cannot be read or written.
//!
//! In:    what the disk said, or what a file holds.
//! Out:   [`CacheError`], one line with path, numbers and what to do.
//! Never: prints.

use std::path::{Path, PathBuf};

use offload::durable::DurableError;
use offload::map::MapError;

use crate::content::Place;

/// Why a cache cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// Nothing was prepared for this address.
    #[error("{folder}: no prepared rows here: prepare the data first", folder = folder.display())]
    Absent {
        /// Where they would lie.
        folder: PathBuf,
    },
    /// A file is shorter or longer than it says, or its bytes have changed.
    #[error("{path}: damaged: {what}; remove {folder} and prepare the data again", path = path.display(), folder = folder_of(path).display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What disagrees, with numbers.
        what: String,
    },
    /// Written by another version of this program, or not by it at all.
    #[error("{path}: version {found} of the token cache, this program reads version {expected}: prepare the data again", path = path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What is read here.
        expected: u32,
    },
    /// A row that no encoder should have made: a bug of this program.
    #[error("row {line} of file {file}: {what}; this is a bug of the program, please report it", file = place.file, line = place.line)]
    UnsoundRow {
        /// Where it came from.
        place: Place,
        /// What is wrong.
        what: String,
    },
    /// More rows than a row number holds.
    #[error("{part}: more than {most} rows; give sources max_rows, or prepare them in several runs")]
    TooManyRows {
        /// Which part.
        part: &'static str,
        /// The bound.
        most: u64,
    },
    /// The facts cannot be written as JSON.
    #[error("the facts of the cache cannot be written as JSON: {reason}")]
    Facts {
        /// Why.
        reason: String,
    },
    /// The disk refused a write.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The disk refused a read.
    #[error(transparent)]
    Map(#[from] MapError),
}

impl CacheError {
    /// Whether preparing again helps: nothing is there, or what is there cannot be used.
    pub fn is_rebuildable(&self) -> bool {
        matches!(self, CacheError::Absent { .. } | CacheError::Damaged { .. } | CacheError::Version { .. })
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> CacheError {
        CacheError::Damaged { path: path.to_path_buf(), what: what.into() }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}
