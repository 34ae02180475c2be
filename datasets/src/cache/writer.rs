//! Fills a cache folder and publishes it whole.
//!
//! In:    rows in order, for either part; afterwards which rows to drop, and facts to keep.
//! Out:   a [`Cache`] under its address.
//! Never: shows half a folder; disturbs another writer of the same address.

use std::ops::Range;
use std::path::{Path, PathBuf};

use offload::durable;
use serde_json::Value;

use super::error::CacheError;
use super::manifest::{self, Manifest};
use super::part_writer::PartWriter;
use super::staging::Staging;
use super::{Cache, Part};
use crate::content::Place;

/// A cache that is being written. Dropped before [`Writer::finish`] it leaves nothing; killed, it leaves a folder that the next
/// writer under the same root removes.
#[derive(Debug)]
pub struct Writer {
    root: PathBuf,
    address: String,
    training: PartWriter,
    held_out: PartWriter,
    staging: Staging,
}

impl Writer {
    /// Begins the cache of `address` in `root`, which is created where it is missing.
    pub fn create(root: &Path, address: &str) -> Result<Writer, CacheError> {
        let staging = Staging::create(root)?;
        let [training, held_out] = Part::ALL.map(|part| PartWriter::create(staging.folder(), part));
        let (training, held_out) = (training?, held_out?);
        Ok(Writer { root: root.to_path_buf(), address: address.to_string(), training, held_out, staging })
    }

    /// Appends a row. `trained` are indices into `ids`: sorted, apart, not empty, without 0.
    pub fn push(&mut self, part: Part, place: Place, ids: &[u32], trained: &[Range<u32>]) -> Result<(), CacheError> {
        self.part_mut(part).push(place, ids, trained)
    }

    /// Drops the rows for which `keep` says no; it is given their number, from 0, among those that stand now.
    pub fn retain(&mut self, part: Part, keep: &dyn Fn(u64) -> bool) -> Result<(), CacheError> {
        self.part_mut(part).retain(keep)
    }

    /// Where a row of a part comes from.
    pub fn place(&mut self, part: Part, row: u64) -> Result<Place, CacheError> {
        self.part_mut(part).place(row)
    }

    /// Rows of a part so far.
    pub fn rows(&self, part: Part) -> u64 {
        self.part(part).rows()
    }

    /// Bytes written so far.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        Part::ALL.iter().map(|part| self.part(*part).bytes()).sum()
    }

    /// Syncs everything, the manifest last, and publishes. Where another writer published the same address meanwhile, that one is
    /// used, with its facts; a damaged folder under the name is replaced.
    pub fn finish(self, facts: Value) -> Result<Cache, CacheError> {
        let Writer { root, address, training, held_out, staging } = self;
        let seals = [training.finish()?.seal(), held_out.finish()?.seal()];
        let bytes = Manifest::new(&address, seals, facts).bytes()?;
        durable::write_staged(&manifest::path(staging.folder()), &bytes)?;
        staging.publish(&root.join(&address), || Cache::open(&root, &address).is_ok())?;
        Cache::open(&root, &address)
    }

    fn part(&self, part: Part) -> &PartWriter {
        match part {
            Part::Training => &self.training,
            Part::HeldOut => &self.held_out,
        }
    }

    fn part_mut(&mut self, part: Part) -> &mut PartWriter {
        match part {
            Part::Training => &mut self.training,
            Part::HeldOut => &mut self.held_out,
        }
    }
}
