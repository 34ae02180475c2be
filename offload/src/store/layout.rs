//! Who has which bytes of the swap files.
//!
//! In:    requests for extents.
//! Out:   extents with reserved space, dealt out over the paths chunk by chunk.
//! Never: gives the same bytes to two living extents.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::extent::{Extent, ExtentShared};
use super::files::{Entry, SwapFile};
use crate::error::TierError;
use crate::sync::{Notes, lock};

/// The swap files of a store and what is free in them.
#[derive(Debug)]
pub(crate) struct Layout {
    /// One file per path.
    pub files: Vec<SwapFile>,
    notes: Arc<Notes>,
    state: Mutex<LayoutState>,
}

#[derive(Debug)]
struct LayoutState {
    /// Where each file ends.
    ends: Vec<u64>,
    /// Offsets of pieces given back, by size, per file.
    free: Vec<BTreeMap<u64, Vec<u64>>>,
    /// The path whose turn it is.
    next_path: usize,
    next_id: u64,
}

impl Layout {
    /// An empty layout over `files`.
    pub fn new(files: Vec<SwapFile>, notes: Arc<Notes>) -> Layout {
        let (ends, free) = (vec![0; files.len()], vec![BTreeMap::new(); files.len()]);
        Layout { files, notes, state: Mutex::new(LayoutState { ends, free, next_path: 0, next_id: 0 }) }
    }

    /// Places `bytes` bytes in chunks of `chunk_bytes`, at least 1, on all paths in turn.
    pub fn allocate(self: &Arc<Self>, tensor: &str, bytes: u64, chunk_bytes: usize) -> Result<Extent, TierError> {
        // One short chunk needs no more room than it has bytes.
        let chunk_bytes = bytes.clamp(1, chunk_bytes as u64) as usize;
        let paths = self.files.len();
        let mut state = lock(&self.state);
        let first_path = state.next_path;
        let needed = ExtentShared::reservation(bytes, chunk_bytes, first_path, paths);
        let mut bases = Vec::with_capacity(paths);
        for (path, len) in needed.iter().enumerate() {
            match self.piece(&mut state, path, tensor, *len) {
                Ok(base) => bases.push(base),
                Err(error) => {
                    state.give_back(&bases, &needed);
                    return Err(error);
                }
            }
        }
        let id = state.next_id;
        state.next_id += 1;
        let chunks = bytes.div_ceil(chunk_bytes as u64) as usize;
        state.next_path = (first_path + chunks) % paths;
        drop(state);
        let written = Mutex::new(vec![None; chunks]);
        let (tensor, layout) = (tensor.to_owned(), Arc::clone(self));
        let shared =
            Arc::new(ExtentShared { id, tensor, bytes, chunk_bytes, first_path, bases, needed, written, layout });
        self.describe(&shared)?;
        Ok(Extent { shared })
    }

    /// Takes back what an extent had.
    pub fn give_back(&self, bases: &[u64], lens: &[u64]) {
        lock(&self.state).give_back(bases, lens);
    }

    /// `len` bytes of file number `path`: a piece of that size that was given back, else new ones at the end.
    fn piece(&self, state: &mut LayoutState, path: usize, tensor: &str, len: u64) -> Result<u64, TierError> {
        let end = state.ends[path];
        if len == 0 {
            return Ok(end);
        }
        if let Some(base) = state.free[path].get_mut(&len).and_then(Vec::pop) {
            return Ok(base);
        }
        self.files[path].reserve(tensor, end, len, &self.notes)?;
        state.ends[path] = end + len;
        Ok(end)
    }

    fn describe(&self, extent: &ExtentShared) -> Result<(), TierError> {
        for (path, file) in self.files.iter().enumerate().filter(|(path, _)| extent.needed[*path] > 0) {
            file.describe(&Entry {
                tensor: &extent.tensor,
                bytes: extent.bytes,
                chunk_bytes: extent.chunk_bytes,
                first_path: extent.first_path,
                offset: extent.bases[path],
                reserved_bytes: extent.needed[path],
            })?;
        }
        Ok(())
    }
}

impl LayoutState {
    fn give_back(&mut self, bases: &[u64], lens: &[u64]) {
        for (path, (base, len)) in bases.iter().zip(lens).enumerate().filter(|(_, (_, len))| **len > 0) {
            self.free[path].entry(*len).or_default().push(*base);
        }
    }
}
