//! The token cache: encoded rows on disk, in a folder named by everything that can change a token.
//!
//! In:    an [`Address`] and rows of token ids, pushed in order into a [`Writer`].
//! Out:   a [`Cache`]: two memory-mapped [`Dataset`]s (training, held out) and the facts that were written with them.
//! Never: shows a folder that is not complete; reads a file whose lengths, offsets and checksums do not agree.
//!
//! A folder holds `manifest.json` and for each part three little-endian files: `*.tokens` (u32 ids), `*.ranges` (pairs of u32, the
//! trained tokens of each row), `*.rows` (a header of 128 bytes, then 40 bytes a row). Opening reads the rows and ranges whole and
//! checks them (about 48 bytes a row); the tokens are checked by length only, and by checksum in [`Cache::verify`].

mod address;
mod dataset;
mod error;
mod format;
mod manifest;
mod part_writer;
mod questions;
mod staging;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

use std::path::{Path, PathBuf};

use serde_json::Value;

pub use address::Address;
pub use dataset::{Dataset, Row};
pub use error::CacheError;
pub use questions::{Question, questions};
pub use writer::Writer;

#[cfg(target_endian = "big")]
compile_error!("the token cache is little-endian and is mapped as it stands");

/// Which rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Rows that are trained on.
    Training,
    /// Rows that are only measured.
    HeldOut,
}

impl Part {
    /// Both.
    pub const ALL: [Part; 2] = [Part::Training, Part::HeldOut];

    /// Beginning of its files' names.
    pub fn name(self) -> &'static str {
        match self {
            Part::Training => "training",
            Part::HeldOut => "held_out",
        }
    }
}

/// A complete cache folder.
#[derive(Debug)]
pub struct Cache {
    /// Rows that are trained on.
    pub training: Dataset,
    /// Rows that are only measured; empty where nothing is held out.
    pub held_out: Dataset,
    /// What the writer's caller wanted kept beside the rows: counts, files, findings.
    pub facts: Value,
    folder: PathBuf,
}

impl Cache {
    /// Opens the cache of an address under `root`; [`CacheError::Absent`] where there is none. Costs one pass over 48 bytes a row,
    /// whatever the rows hold.
    pub fn open(root: &Path, address: &str) -> Result<Cache, CacheError> {
        let folder = root.join(address);
        let manifest = manifest::read(&folder, address)?;
        let [training, held_out] = Part::ALL.map(|part| Dataset::open(&folder, part));
        let (training, held_out) = (training?, held_out?);
        manifest.check(&folder, [training.seal(), held_out.seal()])?;
        Ok(Cache { training, held_out, facts: manifest.facts, folder })
    }

    /// Reads every file whole and compares its checksum, the tokens too: as long as the disk takes (about 0.1 s a GB where the
    /// files are in memory).
    pub fn verify(&self) -> Result<(), CacheError> {
        self.training.verify()?;
        self.held_out.verify()
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
