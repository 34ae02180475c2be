//! Where the bytes of one array lie: chunks dealt out over the files of a store.
//!
//! In:    a size, a chunk size, a place in every file.
//! Out:   the file, offset and length of each chunk, and the checksum of what was last written there.
//! Never: moves bytes.

use std::sync::{Arc, Mutex};

use super::layout::Layout;
use crate::memory::round_up;

/// The place of one array on NVMe. Dropping it gives the place back to the store once nothing is on its way there.
#[derive(Debug)]
pub struct Extent {
    pub(crate) shared: Arc<ExtentShared>,
}

/// What requests in flight share with their extent.
#[derive(Debug)]
pub(crate) struct ExtentShared {
    /// Unique within the store; part of every checksum.
    pub id: u64,
    pub tensor: String,
    pub bytes: u64,
    pub chunk_bytes: usize,
    /// The file that holds chunk 0.
    pub first_path: usize,
    /// Where this extent starts in each file.
    pub bases: Vec<u64>,
    /// Bytes it has in each file.
    pub needed: Vec<u64>,
    /// Checksum of each chunk's last write; `None` before the first.
    pub written: Mutex<Vec<Option<u64>>>,
    pub layout: Arc<Layout>,
}

/// One transfer's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Number of the file.
    pub path: usize,
    /// First byte in the file, a multiple of 4096.
    pub offset: u64,
    /// Bytes to move, a multiple of 4096.
    pub len: usize,
}

impl Extent {
    /// The name given at allocation.
    pub fn tensor(&self) -> &str {
        &self.shared.tensor
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes
    }

    /// Bytes of every chunk but the last.
    pub fn chunk_bytes(&self) -> usize {
        self.shared.chunk_bytes
    }

    /// How many chunks it has.
    pub fn chunks(&self) -> usize {
        self.shared.chunks()
    }

    /// Bytes in chunk number `chunk`; only the last one may be shorter than the others.
    ///
    /// # Panics
    /// If there is no such chunk, which is a bug of the caller.
    pub fn chunk_len(&self, chunk: usize) -> usize {
        self.shared.chunk_len(chunk)
    }
}

impl ExtentShared {
    pub fn chunks(&self) -> usize {
        self.bytes.div_ceil(self.chunk_bytes as u64) as usize
    }

    pub fn chunk_len(&self, chunk: usize) -> usize {
        assert!(chunk < self.chunks(), "tensor {} has {} chunks, not one number {chunk}", self.tensor, self.chunks());
        let first = chunk as u64 * self.chunk_bytes as u64;
        (self.bytes - first).min(self.chunk_bytes as u64) as usize
    }

    /// Where chunk number `chunk` lies.
    pub fn slot(&self, chunk: usize) -> Slot {
        let paths = self.bases.len();
        let path = (self.first_path + chunk) % paths;
        let offset = self.bases[path] + (chunk / paths) as u64 * round_up(self.chunk_bytes as u64);
        Slot { path, offset, len: round_up(self.chunk_len(chunk) as u64) as usize }
    }

    /// Bytes that each file has to reserve for `bytes` bytes in chunks of `chunk_bytes` of which the first lies in `first_path`.
    pub fn reservation(bytes: u64, chunk_bytes: usize, first_path: usize, paths: usize) -> Vec<u64> {
        let chunks = bytes.div_ceil(chunk_bytes as u64);
        let mut needed = vec![0; paths];
        for (turn, place) in (0..paths as u64).map(|turn| (turn, (first_path + turn as usize) % paths)) {
            let count = (chunks + paths as u64 - 1 - turn) / paths as u64;
            needed[place] = count * round_up(chunk_bytes as u64);
        }
        if chunks > 0 {
            let last = (first_path as u64 + chunks - 1) % paths as u64;
            let last_len = bytes - (chunks - 1) * chunk_bytes as u64;
            needed[last as usize] -= round_up(chunk_bytes as u64) - round_up(last_len);
        }
        needed
    }
}

impl Drop for ExtentShared {
    fn drop(&mut self) {
        self.layout.give_back(&self.bases, &self.needed);
    }
}
