//! The files of a plan's sources, numbered in the order they are read, and their records in portions.
//!
//! In:    the plan's sources.
//! Out:   [`Inputs`]; [`portions`] of records with the shape of their file, read ahead by a thread of its own.
//! Never: reads more than two portions ahead.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use planner::plan::{DataPlan, DataSource, HeldOut};

use crate::content::Record;
use crate::error::DataError;
use crate::files::{self, InputFile, Reader};
use crate::shapes::Shape;

/// Rows of a portion at most.
const PORTION_ROWS: usize = 4096;
/// Bytes of a portion at most, unless one row alone is longer.
const PORTION_BYTES: usize = 4 << 20;
/// Portions that wait to be encoded.
const PORTIONS_AHEAD: usize = 2;

/// All files: those of the training sources, then those of a held-out source.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) files: Vec<Input>,
    /// Bytes of all files on disk.
    pub(super) bytes: u64,
}

/// One file.
#[derive(Debug, Clone)]
pub(super) struct Input {
    pub(super) file: InputFile,
    /// Index of its source: the plan's order; a held-out source comes after them.
    pub(super) source: u32,
}

impl Inputs {
    /// Finds every file.
    pub(super) fn list(plan: &DataPlan) -> Result<Inputs, DataError> {
        let mut files = Vec::new();
        for (source, section) in sources(plan).enumerate() {
            files.extend(files::list(section)?.into_iter().map(|file| Input { file, source: source as u32 }));
        }
        let bytes = files.iter().map(|input| input.file.bytes).sum();
        Ok(Inputs { files, bytes })
    }

    /// Paths by number.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|input| input.file.path.clone()).collect()
    }
}

/// The training sources, then the held-out one.
pub(super) fn sources(plan: &DataPlan) -> impl Iterator<Item = &DataSource> {
    let held_out = match &plan.held_out {
        Some(HeldOut::Source(source)) => Some(source),
        _ => None,
    };
    plan.sources.iter().chain(held_out)
}

/// Records of one file that follow each other.
pub(super) struct Portion {
    pub(super) records: Vec<Record>,
    pub(super) shape: Arc<Shape>,
    /// Index of the source.
    pub(super) source: u32,
    /// Bytes of the files up to here, about.
    pub(super) bytes_done: u64,
}

/// Reads the files of sources in `of` on a thread of `scope`; the first error ends it.
pub(super) fn portions<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    inputs: &'env Inputs,
    plan: &'env DataPlan,
    of: std::ops::Range<u32>,
) -> Receiver<Result<Portion, DataError>> {
    let (sender, receiver) = sync_channel(PORTIONS_AHEAD);
    scope.spawn(move || {
        if let Err(error) = read(inputs, plan, of, &sender) {
            // Nobody listens any more where the other side failed first.
            let _ = sender.send(Err(error));
        }
    });
    receiver
}

type Sender = SyncSender<Result<Portion, DataError>>;

fn read(inputs: &Inputs, plan: &DataPlan, of: std::ops::Range<u32>, sender: &Sender) -> Result<(), DataError> {
    for (source, section) in sources(plan).enumerate().filter(|(source, _)| of.contains(&(*source as u32))) {
        let mut left = section.max_rows.unwrap_or(u64::MAX);
        let mut bytes_done = 0;
        for (number, input) in inputs.files.iter().enumerate() {
            if input.source as usize == source && left > 0 {
                let from = From { number: number as u32, input, section, bytes_done };
                if !from.read(&mut left, sender)? {
                    return Ok(());
                }
            }
            bytes_done += input.file.bytes;
        }
    }
    Ok(())
}

/// One file being read.
struct From<'a> {
    number: u32,
    input: &'a Input,
    section: &'a DataSource,
    bytes_done: u64,
}

impl From<'_> {
    /// Sends its portions; false where nobody listens any more.
    fn read(&self, left: &mut u64, sender: &Sender) -> Result<bool, DataError> {
        let mut reader = Reader::open(&self.input.file, self.number)?;
        let mut shape: Option<Arc<Shape>> = None;
        let mut read = 0;
        while *left > 0 {
            let rows = PORTION_ROWS.min(usize::try_from(*left).unwrap_or(usize::MAX));
            let records = reader.take(rows, PORTION_BYTES)?;
            let Some(first) = records.first() else { break };
            let shape = match &shape {
                Some(shape) => shape.clone(),
                None => {
                    let found = Shape::detect(&first.raw, self.section)
                        .map_err(|cause| DataError::row(&self.input.file.path, first.place.line, cause))?;
                    shape.insert(Arc::new(found)).clone()
                }
            };
            *left -= records.len() as u64;
            // What was unpacked may be more than the file holds.
            read += records.iter().map(|record| record.raw.bytes() as u64).sum::<u64>();
            let bytes_done = self.bytes_done + read.min(self.input.file.bytes);
            let portion = Portion { records, shape, source: self.input.source, bytes_done };
            if sender.send(Ok(portion)).is_err() {
                return Ok(false);
            }
        }
        match shape {
            Some(_) => Ok(true),
            None => Err(DataError::EmptyFile { path: self.input.file.path.clone() }),
        }
    }
}
