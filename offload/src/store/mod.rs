//! The NVMe tier: arrays in files owned by the run, read and written in chunks, checked on every read.
//!
//! In:    directories on one or more disks, a budget of buffers, a queue depth.
//! Out:   extents; transfers that run on one I/O thread while the caller computes.
//! Never: returns bytes other than those written; loses a request; leaves files behind.

mod checksum;
mod choice;
mod directory;
mod driver;
pub(crate) mod engine;
mod extent;
mod files;
mod flight;
mod inbox;
mod layout;
mod opening;
mod threads;
mod ticket;
#[cfg(target_os = "linux")]
mod uring;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use extent::Extent;
pub use ticket::Ticket;

use crate::buffer::{Buffer, BufferPool};
use crate::error::TierError;
use crate::faults::FaultPlan;
use crate::memory::round_up;
use crate::sync::{Notes, lock};
use checksum::checksum;
use directory::RunDirectory;
use driver::{DriverLinks, counters};
use engine::{Direction, Waker};
use inbox::{Inbox, Request};
use layout::Layout;
use ticket::{Pending, Place, State};

/// Which way to talk to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// io_uring where it runs, threads elsewhere, with a note.
    Auto,
    /// io_uring or an error.
    IoUring,
    /// A pool of threads with `pread` and `pwrite`.
    Threads,
}

/// What talks to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// Linux io_uring.
    IoUring,
    /// A pool of threads.
    Threads,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EngineKind::IoUring => "io_uring",
            EngineKind::Threads => "threads",
        })
    }
}

/// Which engine runs, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineReport {
    /// The engine.
    pub kind: EngineKind,
    /// Per path: whether the page cache is passed by (O_DIRECT).
    pub direct: Vec<bool>,
    /// Whether the kernel keeps the buffers mapped, which saves work per request (io_uring only).
    pub registered_buffers: bool,
    /// For people, e.g. `threads: io_uring refused: Operation not permitted`.
    pub why: String,
}

/// How to open a [`Store`].
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The run's name, part of the directory's name: letters, digits, `.`, `_`, `-`.
    pub run: String,
    /// Existing directories, best one per disk.
    pub paths: Vec<PathBuf>,
    /// Which engine.
    pub engine: EngineChoice,
    /// Transfer buffers.
    pub buffers: usize,
    /// Bytes of one buffer: the largest chunk.
    pub buffer_bytes: usize,
    /// Requests in flight per path.
    pub queue_depth: usize,
    /// Bytes that may be written in all; no limit if `None`.
    pub write_budget_bytes: Option<u64>,
    /// Faults to inject, for tests.
    pub faults: Option<FaultPlan>,
}

/// Bytes moved on one path since the store was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTraffic {
    /// The directory as given.
    pub path: PathBuf,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

/// The NVMe tier of one run. Clones share it; the last one closes it and removes its files.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// As given.
    paths: Vec<PathBuf>,
    pool: BufferPool,
    layout: Arc<Layout>,
    links: DriverLinks,
    notes: Arc<Notes>,
    write_budget_bytes: Option<u64>,
    /// Bytes written or on their way, for the budget.
    spent_bytes: AtomicU64,
    /// Whether chunks get checksums; off only to measure what they cost.
    verify: AtomicBool,
    patience: Duration,
    /// Disconnected when the I/O thread has ended.
    ended: Mutex<Receiver<()>>,
    /// Removed when everything above is done with them.
    _directories: Vec<RunDirectory>,
}

impl Store {
    /// Opens the tier: removes what dead runs left behind, takes the run's lock, allocates the buffers, starts the I/O thread.
    ///
    /// # Errors
    /// [`TierError::Locked`] if the run is going on elsewhere; [`TierError::NotATier`] for paths or options that cannot work;
    /// [`TierError::EngineRefused`] if the chosen engine does not run here; [`TierError::Io`] and [`TierError::NoSpace`] from the disks.
    pub fn open(options: StoreOptions) -> Result<Store, TierError> {
        opening::open(options)
    }

    /// Which engine runs, and why.
    pub fn engine(&self) -> EngineReport {
        lock(&self.shared.links.report).clone()
    }

    /// What was done another way than planned since the last call, each with its cost.
    pub fn notes(&self) -> Vec<String> {
        self.shared.notes.take()
    }

    /// Reserves room for `bytes` bytes that are moved in chunks of `chunk_bytes`. They read as zeros until written.
    ///
    /// # Errors
    /// [`TierError::NoSpace`] if a disk is too full; [`TierError::NotATier`] if a chunk is larger than a buffer.
    pub fn allocate(&self, tensor: &str, bytes: u64, chunk_bytes: usize) -> Result<Extent, TierError> {
        let buffer_bytes = self.shared.pool.buffer_bytes();
        if chunk_bytes == 0 || bytes.min(chunk_bytes as u64) > buffer_bytes as u64 {
            let path = self.shared.paths[0].clone();
            let reason = format!(
                "tensor {tensor} in chunks of {chunk_bytes} bytes does not go through buffers of {buffer_bytes}"
            );
            return Err(TierError::NotATier { path, reason });
        }
        self.shared.layout.allocate(tensor, bytes, chunk_bytes)
    }

    /// The transfer buffers.
    pub fn pool(&self) -> &BufferPool {
        &self.shared.pool
    }

    /// Starts reading a chunk into the front of `buffer`. A chunk never written reads as zeros, without I/O. Transfers of one chunk
    /// happen in the order of these calls; those of different chunks in any.
    ///
    /// # Panics
    /// If there is no such chunk, or if extent or buffer belong to another store: bugs of the caller.
    pub fn read(&self, extent: &Extent, chunk: usize, mut buffer: Buffer) -> Ticket {
        let len = self.check(extent, chunk, &buffer);
        let written = lock(&extent.shared.written);
        match written[chunk] {
            Some(expected) => {
                let expected = self.shared.verify.load(Ordering::Relaxed).then_some(expected);
                self.send(extent, chunk, Direction::Read, buffer, expected)
            }
            None => {
                drop(written);
                buffer[..len].fill(0);
                Ticket::ready(Ok(buffer))
            }
        }
    }

    /// Starts writing the front of `buffer` to a chunk. The buffer comes back with its content, padded with zeros to whole pages.
    ///
    /// A write that the budget does not allow is not made: its ticket says so.
    ///
    /// # Panics
    /// As [`Store::read`].
    pub fn write(&self, extent: &Extent, chunk: usize, mut buffer: Buffer) -> Ticket {
        let len = self.check(extent, chunk, &buffer);
        let padded = round_up(len as u64) as usize;
        buffer[len..padded].fill(0);
        if let Err(error) = self.spend(padded as u64) {
            return Ticket::ready(Err(error));
        }
        let verify = self.shared.verify.load(Ordering::Relaxed);
        let sum = if verify { checksum(extent.shared.id, chunk, &buffer[..len]) } else { 0 };
        // Held until the request is on its way, so that checksums change in the order of the writes.
        let mut written = lock(&extent.shared.written);
        written[chunk] = Some(sum);
        self.send(extent, chunk, Direction::Write, buffer, None)
    }

    /// Bytes moved so far, per path.
    pub fn traffic(&self) -> Vec<PathTraffic> {
        let counters = self.shared.paths.iter().zip(self.shared.links.traffic.iter());
        let of = |(path, counter): (&PathBuf, &driver::Counters)| PathTraffic {
            path: path.clone(),
            read_bytes: counter.read_bytes.load(Ordering::Relaxed),
            written_bytes: counter.written_bytes.load(Ordering::Relaxed),
        };
        counters.map(of).collect()
    }

    /// Leaves out the checksums from now on, to measure what they cost.
    pub(crate) fn without_checksums(&self) {
        self.shared.verify.store(false, Ordering::Relaxed);
    }

    fn check(&self, extent: &Extent, chunk: usize, buffer: &Buffer) -> usize {
        assert!(
            Arc::ptr_eq(&extent.shared.layout, &self.shared.layout),
            "tensor {} is in another store",
            extent.tensor()
        );
        assert!(buffer.is_of(&self.shared.pool), "the buffer is of another pool");
        extent.chunk_len(chunk)
    }

    /// Books a write against the budget.
    fn spend(&self, next_bytes: u64) -> Result<(), TierError> {
        let budget_bytes = self.shared.write_budget_bytes.unwrap_or(u64::MAX);
        let within = |spent: u64| spent.checked_add(next_bytes).filter(|sum| *sum <= budget_bytes);
        let spent = self.shared.spent_bytes.try_update(Ordering::SeqCst, Ordering::SeqCst, within);
        let refused = |written_bytes| TierError::WriteBudget { budget_bytes, written_bytes, next_bytes };
        spent.map(|_| ()).map_err(refused)
    }

    fn send(
        &self,
        extent: &Extent,
        chunk: usize,
        direction: Direction,
        buffer: Buffer,
        expected: Option<u64>,
    ) -> Ticket {
        let path = self.shared.layout.files[extent.shared.slot(chunk).path].path.clone();
        let place = Place { extent: Arc::clone(&extent.shared), chunk, path };
        let (reply, receiver) = sync_channel(1);
        let inbox = &self.shared.links.inbox;
        inbox.send(Request { place: place.clone(), direction, buffer, reply });
        let (inbox, patience) = (Arc::clone(inbox), self.shared.patience);
        Ticket { state: State::Pending(Pending { receiver, place, expected, inbox, patience }) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.links.inbox.close();
        // The I/O thread ends what was begun and then itself. If the system holds it longer than its watchdogs would, it is left alone.
        let _ = lock(&self.ended).recv_timeout(self.patience * 2 + Duration::from_secs(15));
    }
}
