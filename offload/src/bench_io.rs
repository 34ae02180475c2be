//! How fast the NVMe tier moves bytes, measured through the same code that training uses.
//!
//! In:    directories, a chunk size, a queue depth, an amount.
//! Out:   rates of fresh writes, overwriting and reading; or the best chunk size and depth of each path.
//! Never: leaves files behind; measures the page cache where O_DIRECT works.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::buffer::Buffer;
use crate::error::TierError;
use crate::store::{EngineChoice, EngineReport, Extent, Store, StoreOptions, Ticket};

/// Chunk sizes a sweep tries, bytes.
const SWEEP_CHUNKS: [usize; 3] = [256 << 10, 1 << 20, 4 << 20];
/// Queue depths a sweep tries.
const SWEEP_DEPTHS: [usize; 5] = [4, 8, 16, 32, 64];
/// Most bytes and longest time of each phase of a point in a sweep.
const SWEEP_BYTES: u64 = 1 << 30;
const SWEEP_TIME: Duration = Duration::from_secs(1);
/// Buffers beyond those in flight: one is filled while the others move.
const SPARE_BUFFERS: usize = 2;

/// Whether chunks are checked while they are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// As in training.
    On,
    /// Left out, to see what they cost.
    Off,
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct IoBench {
    /// Existing directories, one per disk; chunks go to them in turn.
    pub paths: Vec<PathBuf>,
    /// Which engine.
    pub engine: EngineChoice,
    /// Bytes to write and to read, over all paths.
    pub total_bytes: u64,
    /// Bytes per transfer.
    pub chunk_bytes: usize,
    /// Transfers in flight per path.
    pub queue_depth: usize,
    /// Whether chunks are checked.
    pub checksums: Checksums,
    /// Each phase ends after this time, with less bytes moved.
    pub time_limit: Option<Duration>,
}

impl IoBench {
    /// 4 GiB in chunks of 1 MiB, 32 in flight per path, checked: the numbers that disks are usually compared by.
    pub fn new(paths: Vec<PathBuf>) -> IoBench {
        IoBench {
            paths,
            engine: EngineChoice::Auto,
            total_bytes: 4 << 30,
            chunk_bytes: 1 << 20,
            queue_depth: 32,
            checksums: Checksums::On,
            time_limit: None,
        }
    }
}

/// An amount and the time it took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Bytes moved.
    pub bytes: u64,
    /// Wall-clock time, seconds.
    pub seconds: f64,
}

impl Rate {
    /// Bytes per second; 0 if nothing was moved.
    pub fn bytes_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.bytes as f64 / self.seconds } else { 0.0 }
    }
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct IoReport {
    /// Which engine ran.
    pub engine: EngineReport,
    /// What did not go as planned.
    pub notes: Vec<String>,
    /// Bytes per transfer.
    pub chunk_bytes: usize,
    /// Transfers in flight per path.
    pub queue_depth: usize,
    /// First writes to reserved space; file systems do some bookkeeping then.
    pub first_write: Rate,
    /// Writes over bytes written before, as in every step of training but the first.
    pub write: Rate,
    /// Reads.
    pub read: Rate,
}

/// What a sweep found for one path.
#[derive(Clone, Debug)]
pub struct PathSweep {
    /// The directory.
    pub path: PathBuf,
    /// Every point, in the order measured.
    pub points: Vec<IoReport>,
    /// Number of the best point: the least time to read a byte and to write one.
    pub best: usize,
}

/// Writes, overwrites and reads `bench.total_bytes` sequentially.
///
/// # Errors
/// What the store says; no space, above all.
pub fn bench_io(bench: &IoBench) -> Result<IoReport, TierError> {
    let in_flight = bench.queue_depth * bench.paths.len();
    let store = Store::open(StoreOptions {
        run: format!("bench-{}", std::process::id()),
        paths: bench.paths.clone(),
        engine: bench.engine,
        buffers: in_flight + SPARE_BUFFERS,
        buffer_bytes: bench.chunk_bytes,
        queue_depth: bench.queue_depth,
        write_budget_bytes: None,
        faults: None,
    })?;
    if bench.checksums == Checksums::Off {
        store.without_checksums();
    }
    let extent = store.allocate("bench", bench.total_bytes, bench.chunk_bytes)?;
    fill_buffers(&store);
    let write = |chunk, mut buffer: Buffer| {
        let mark = (chunk as u64).to_le_bytes();
        buffer[..mark.len()].copy_from_slice(&mark);
        store.write(&extent, chunk, buffer)
    };
    let phase = Phase { store: &store, extent: &extent, in_flight, time_limit: bench.time_limit };
    let first_write = phase.run(extent.chunks(), write)?;
    let written = (first_write.bytes as usize).div_ceil(bench.chunk_bytes);
    let overwrite = phase.run(written, write)?;
    let read = phase.run(written, |chunk, buffer| store.read(&extent, chunk, buffer))?;
    Ok(IoReport {
        engine: store.engine(),
        notes: store.notes(),
        chunk_bytes: bench.chunk_bytes,
        queue_depth: bench.queue_depth,
        first_write,
        write: overwrite,
        read,
    })
}

/// Tries 15 combinations of chunk size and queue depth on each path alone; at most three seconds each.
///
/// # Errors
/// As [`bench_io`].
pub fn sweep(bench: &IoBench) -> Result<Vec<PathSweep>, TierError> {
    bench.paths.iter().map(|path| sweep_path(bench, path.clone())).collect()
}

fn sweep_path(bench: &IoBench, path: PathBuf) -> Result<PathSweep, TierError> {
    let grid = SWEEP_CHUNKS.iter().flat_map(|chunk| SWEEP_DEPTHS.iter().map(move |depth| (*chunk, *depth)));
    let point = |(chunk_bytes, queue_depth)| {
        bench_io(&IoBench {
            paths: vec![path.clone()],
            total_bytes: bench.total_bytes.min(SWEEP_BYTES),
            chunk_bytes,
            queue_depth,
            time_limit: Some(SWEEP_TIME),
            ..bench.clone()
        })
    };
    let points = grid.map(point).collect::<Result<Vec<IoReport>, TierError>>()?;
    let cost = |report: &IoReport| {
        1.0 / report.read.bytes_per_second().max(1.0) + 1.0 / report.write.bytes_per_second().max(1.0)
    };
    let by_cost = |a: &(usize, f64), b: &(usize, f64)| a.1.total_cmp(&b.1);
    let best = points.iter().map(cost).enumerate().min_by(by_cost).map_or(0, |(number, _)| number);
    Ok(PathSweep { path, points, best })
}

/// Bytes that no disk can compress.
fn fill_buffers(store: &Store) {
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut held: Vec<Buffer> = Vec::new();
    while let Some(mut buffer) = store.pool().try_take() {
        for word in buffer.chunks_exact_mut(8) {
            // Marsaglia's xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        held.push(buffer);
    }
}

/// One pass over the extent.
struct Phase<'a> {
    store: &'a Store,
    extent: &'a Extent,
    in_flight: usize,
    time_limit: Option<Duration>,
}

impl Phase<'_> {
    fn run(&self, chunks: usize, mut start: impl FnMut(usize, Buffer) -> Ticket) -> Result<Rate, TierError> {
        let started = Instant::now();
        let mut flying: VecDeque<Ticket> = VecDeque::with_capacity(self.in_flight + 1);
        let mut bytes = 0;
        for chunk in 0..chunks {
            if self.time_limit.is_some_and(|limit| started.elapsed() >= limit) {
                break;
            }
            flying.push_back(start(chunk, self.store.pool().take()));
            bytes += self.extent.chunk_len(chunk) as u64;
            if flying.len() > self.in_flight {
                flying.pop_front().map_or(Ok(()), |ticket| ticket.wait().map(drop))?;
            }
        }
        flying.into_iter().try_for_each(|ticket| ticket.wait().map(drop))?;
        Ok(Rate { bytes, seconds: started.elapsed().as_secs_f64() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_byte_is_written_twice_and_read_once_on_both_engines_and_nothing_stays() {
        let folder = tempfile::tempdir().unwrap();
        for (engine, checksums) in [(EngineChoice::Auto, Checksums::On), (EngineChoice::Threads, Checksums::Off)] {
            let paths = vec![folder.path().to_owned()];
            let mut bench = IoBench { total_bytes: (3 << 20) + 5, chunk_bytes: 1 << 18, ..IoBench::new(paths) };
            (bench.engine, bench.checksums, bench.queue_depth) = (engine, checksums, 4);
            let report = bench_io(&bench).unwrap();
            for rate in [report.first_write, report.write, report.read] {
                assert_eq!(rate.bytes, (3 << 20) + 5);
                assert!(rate.bytes_per_second() > 0.0);
            }
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_sweep_names_the_fastest_of_its_points() {
        let folder = tempfile::tempdir().unwrap();
        let bench = IoBench { total_bytes: 4 << 20, ..IoBench::new(vec![folder.path().to_owned()]) };
        let found = sweep(&bench).unwrap();
        assert_eq!((found.len(), found[0].points.len()), (1, 15));
        let time = |point: &IoReport| 1.0 / point.read.bytes_per_second() + 1.0 / point.write.bytes_per_second();
        let best = time(&found[0].points[found[0].best]);
        assert!(found[0].points.iter().all(|point| best <= time(point)));
    }
}
