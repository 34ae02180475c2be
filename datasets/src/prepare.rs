//! From the files of a plan to rows of tokens on disk: read, shape, clean, encode, check, write; or found as an earlier call left them.
//!
//! In:    a [`Request`]: the plan's data part, the tokenizer, the model's vocabulary, a cache folder.
//! Out:   [`Prepared`]: memory-mapped rows and a [`Report`] of everything that was done to them.
//! Never: holds more of the text than a few portions; keeps a row that a gate refuses; leaves out a row without counting it.

mod address;
mod faults;
mod inputs;
mod length;
mod pass;
mod report;
mod row;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use planner::plan::DataPlan;

pub use faults::{Fault, Refused};
pub use report::{Count, Duplicate, Report, SourceReport};

use crate::cache::{Cache, CacheError, Dataset};
use crate::encode::Encoder;
use crate::error::DataError;
use crate::tokenizer::Tokenizer;
use inputs::Inputs;

/// What is to be prepared.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Which rows, and what is done to them.
    pub plan: &'a DataPlan,
    /// Text to ids.
    pub tokenizer: &'a Tokenizer,
    /// Rows of the model's embedding: ids at or beyond it are refused.
    pub embedding_rows: usize,
    /// Folder of all token caches; made where it is not there.
    pub cache: &'a Path,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Hashing the files, to see whether they were prepared before.
    Hashing {
        /// Bytes of all files.
        bytes: u64,
    },
    /// Rows read and encoded so far.
    Rows {
        /// Rows.
        rows: u64,
        /// Bytes of the files read, compressed as they lie on disk.
        bytes: u64,
        /// Bytes of all files.
        of: u64,
    },
}

/// Rows ready for training.
#[derive(Debug)]
pub struct Prepared {
    /// Rows that are trained on.
    pub training: Arc<Dataset>,
    /// Rows that are measured only.
    pub held_out: Option<Arc<Dataset>>,
    /// What was done.
    pub report: Report,
    /// Where they lie.
    pub folder: PathBuf,
    /// Content address: the same for the same tokens.
    pub address: String,
    /// Whether an earlier call had prepared them.
    pub reused: bool,
    /// Things a person should know: a template by default, a damaged cache that was made anew.
    pub notes: Vec<String>,
}

impl Request<'_> {
    /// Prepares the rows, or finds them prepared.
    pub fn prepare(&self, events: &mut dyn FnMut(Progress)) -> Result<Prepared, DataError> {
        let prepared = self.prepare_here(events);
        self.tokenizer.forget_words();
        prepared
    }

    fn prepare_here(&self, events: &mut dyn FnMut(Progress)) -> Result<Prepared, DataError> {
        let inputs = Inputs::list(self.plan)?;
        let encoder = Encoder::new(self.plan, self.tokenizer)?;
        events(Progress::Hashing { bytes: inputs.bytes });
        let address = address::of(self, &inputs, encoder.template_text())?;
        let mut notes = encoder.notes.clone();
        // The checksums too: wrong tokens would train without a word.
        let found = Cache::open(self.cache, &address).and_then(|cache| cache.verify().map(|()| cache));
        let cache = match found {
            Ok(cache) => return Prepared::of(cache, address, true, notes),
            Err(CacheError::Absent { .. }) => pass::run(self, &inputs, &encoder, &address, events)?,
            Err(error) if error.is_rebuildable() => {
                notes.push(format!("{error}; prepared anew"));
                pass::run(self, &inputs, &encoder, &address, events)?
            }
            Err(error) => return Err(error.into()),
        };
        Prepared::of(cache, address, false, notes)
    }
}

impl Prepared {
    fn of(cache: Cache, address: String, reused: bool, notes: Vec<String>) -> Result<Prepared, DataError> {
        let folder = cache.folder().to_path_buf();
        let mut report: Report = serde_json::from_value(cache.facts)
            .map_err(|error| DataError::Cache { reason: format!("{}: {error}", folder.display()) })?;
        report.count(&cache.training, &cache.held_out);
        let held_out = (!cache.held_out.is_empty()).then(|| Arc::new(cache.held_out));
        Ok(Prepared { training: Arc::new(cache.training), held_out, report, folder, address, reused, notes })
    }
}
