//! Sorting more numbers than fit in memory, and keeping sketches that do not fit.
//!
//! In:    numbers in any order; sketches in order of rows; a folder; a limit in bytes.
//! Out:   the numbers in ascending order; any row's sketch.
//! Never: holds more than its limit, or leaves a file: they have no name, so the system removes them even after a kill.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::slice::ParallelSliceMut;

use super::CleanError;
use super::fingerprint::{BINS, Sketch};

/// Bytes written at once.
const WRITE_BYTES: usize = 1 << 18;
const NUMBER_BYTES: usize = size_of::<u128>();

/// A file without a name, and the folder that errors tell.
struct Scratch {
    folder: PathBuf,
    file: File,
    /// Written so far.
    bytes: u64,
}

impl Scratch {
    fn new(folder: &Path) -> Result<Scratch, CleanError> {
        let fault = |source| CleanError::Scratch { folder: folder.to_owned(), doing: "make", source };
        let file = tempfile::tempfile_in(folder).map_err(fault)?;
        Ok(Scratch { folder: folder.to_owned(), file, bytes: 0 })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), CleanError> {
        self.file.write_all(bytes).map_err(|source| self.fault("write", source))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn read(&mut self, from: u64, bytes: &mut [u8]) -> Result<(), CleanError> {
        let read = self.file.seek(SeekFrom::Start(from)).and_then(|_| self.file.read_exact(bytes));
        read.map_err(|source| self.fault("read", source))
    }

    fn fault(&self, doing: &'static str, source: std::io::Error) -> CleanError {
        CleanError::Scratch { folder: self.folder.clone(), doing, source }
    }
}

/// Takes numbers, sorts what fits, writes it as a run.
pub(crate) struct Sorter {
    folder: PathBuf,
    /// Bytes of a number on disk: the upper ones are zero.
    width: usize,
    numbers: Vec<u128>,
    numbers_max: usize,
    runs: Option<(Scratch, Vec<Range<u64>>)>,
}

impl Sorter {
    /// For numbers below `256^width`, in `memory_bytes` (but at least one number).
    pub(crate) fn new(folder: &Path, width: usize, memory_bytes: usize) -> Sorter {
        let numbers_max = (memory_bytes / NUMBER_BYTES).max(1);
        Sorter { folder: folder.to_owned(), width, numbers: Vec::new(), numbers_max, runs: None }
    }

    /// Takes one number.
    pub(crate) fn push(&mut self, number: u128) -> Result<(), CleanError> {
        if self.numbers.len() == self.numbers_max {
            self.write_run()?;
        }
        if self.numbers.len() == self.numbers.capacity() {
            // Doubling could reserve twice the limit.
            let more = self.numbers.len().max(1024).min(self.numbers_max - self.numbers.len());
            self.numbers.reserve_exact(more);
        }
        self.numbers.push(number);
        Ok(())
    }

    /// All numbers, ascending.
    pub(crate) fn finish(mut self) -> Result<Sorted, CleanError> {
        if self.runs.is_none() {
            self.numbers.par_sort_unstable();
            return Ok(Sorted::Memory(self.numbers.into_iter()));
        }
        self.write_run()?;
        let memory_bytes = self.numbers_max * NUMBER_BYTES;
        self.numbers = Vec::new();
        match self.runs {
            Some((scratch, runs)) => Merge::new(scratch, runs, self.width, memory_bytes).map(Sorted::Disk),
            None => Ok(Sorted::Memory(Vec::new().into_iter())),
        }
    }

    fn write_run(&mut self) -> Result<(), CleanError> {
        self.numbers.par_sort_unstable();
        let (scratch, runs) = match &mut self.runs {
            Some(runs) => runs,
            none => none.insert((Scratch::new(&self.folder)?, Vec::new())),
        };
        let start = scratch.bytes;
        let mut bytes = Vec::with_capacity(WRITE_BYTES + self.width);
        for number in self.numbers.drain(..) {
            bytes.extend_from_slice(&number.to_le_bytes()[..self.width]);
            if bytes.len() >= WRITE_BYTES {
                scratch.append(&bytes)?;
                bytes.clear();
            }
        }
        scratch.append(&bytes)?;
        runs.push(start..scratch.bytes);
        Ok(())
    }
}

/// Numbers in ascending order.
pub(crate) enum Sorted {
    /// They fitted.
    Memory(std::vec::IntoIter<u128>),
    /// They did not.
    Disk(Merge),
}

impl Sorted {
    /// The next one; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<u128>, CleanError> {
        match self {
            Sorted::Memory(numbers) => Ok(numbers.next()),
            Sorted::Disk(merge) => merge.next(),
        }
    }
}

/// Runs of a file, read side by side.
pub(crate) struct Merge {
    scratch: Scratch,
    width: usize,
    runs: Vec<Run>,
    smallest: BinaryHeap<Reverse<(u128, usize)>>,
}

/// A run: what lies in memory, and what is still to be read.
struct Run {
    rest: Range<u64>,
    bytes: Vec<u8>,
    at: usize,
}

impl Merge {
    fn new(scratch: Scratch, ranges: Vec<Range<u64>>, width: usize, bytes: usize) -> Result<Merge, CleanError> {
        let numbers = (bytes / ranges.len() / width).max(1);
        let run = |rest| Run { rest, bytes: vec![0; numbers * width], at: numbers * width };
        let runs: Vec<Run> = ranges.into_iter().map(run).collect();
        let mut merge = Merge { scratch, width, smallest: BinaryHeap::with_capacity(runs.len()), runs };
        for run in 0..merge.runs.len() {
            if let Some(number) = merge.take(run)? {
                merge.smallest.push(Reverse((number, run)));
            }
        }
        Ok(merge)
    }

    fn next(&mut self) -> Result<Option<u128>, CleanError> {
        let Some(Reverse((number, run))) = self.smallest.peek().copied() else { return Ok(None) };
        let following = self.take(run)?;
        if let Some(mut top) = self.smallest.peek_mut() {
            match following {
                Some(following) => *top = Reverse((following, run)),
                None => drop(std::collections::binary_heap::PeekMut::pop(top)),
            }
        }
        Ok(Some(number))
    }

    fn take(&mut self, run: usize) -> Result<Option<u128>, CleanError> {
        let run = &mut self.runs[run];
        if run.at == run.bytes.len() {
            let bytes = (run.rest.end - run.rest.start).min(run.bytes.len() as u64);
            run.bytes.truncate(bytes as usize);
            self.scratch.read(run.rest.start, &mut run.bytes)?;
            run.rest.start += bytes;
            run.at = 0;
        }
        let Some(bytes) = run.bytes.get(run.at..run.at + self.width) else { return Ok(None) };
        run.at += self.width;
        let mut number = [0; NUMBER_BYTES];
        number[..self.width].copy_from_slice(bytes);
        Ok(Some(u128::from_le_bytes(number)))
    }
}

/// The sketches of all rows: the first ones in memory, the others on disk.
pub(crate) struct Sketches {
    folder: PathBuf,
    memory: Vec<Sketch>,
    memory_max: usize,
    disk: Option<Scratch>,
    /// Not yet written.
    pending: Vec<u8>,
}

impl Sketches {
    /// As many as fit in `memory_bytes` stay there.
    pub(crate) fn new(folder: &Path, memory_bytes: usize) -> Sketches {
        let folder = folder.to_owned();
        Sketches { folder, memory: Vec::new(), memory_max: memory_bytes / BINS, disk: None, pending: Vec::new() }
    }

    /// Adds the next row's.
    pub(crate) fn push(&mut self, sketch: &Sketch) -> Result<(), CleanError> {
        if self.memory.len() < self.memory_max {
            if self.memory.len() == self.memory.capacity() {
                let more = self.memory.len().max(1024).min(self.memory_max - self.memory.len());
                self.memory.reserve_exact(more);
            }
            self.memory.push(*sketch);
            return Ok(());
        }
        self.pending.extend_from_slice(&sketch.0);
        if self.pending.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes what is pending: before the first [`Sketches::get`].
    pub(crate) fn flush(&mut self) -> Result<(), CleanError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let disk = match &mut self.disk {
            Some(disk) => disk,
            none => none.insert(Scratch::new(&self.folder)?),
        };
        disk.append(&self.pending)?;
        self.pending.clear();
        Ok(())
    }

    /// That of `row`; the empty one for a row that was never pushed.
    pub(crate) fn get(&mut self, row: u64) -> Result<Sketch, CleanError> {
        let mut sketch = Sketch::EMPTY;
        match (self.memory.get(row as usize), &mut self.disk) {
            (Some(kept), _) => sketch = *kept,
            (None, Some(disk)) => disk.read((row - self.memory.len() as u64) * BINS as u64, &mut sketch.0)?,
            (None, None) => {}
        }
        Ok(sketch)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::random::Random;

    #[test]
    fn numbers_come_back_sorted_whatever_the_memory() {
        let folder = tempfile::tempdir().unwrap();
        let mut random = Random::new(3, 0);
        let numbers: Vec<u128> = (0..5_000).map(|_| u128::from(random.next()) << 32 | 0x1234_5678).collect();
        let mut expected = numbers.clone();
        expected.sort_unstable();
        for memory_bytes in [0, 16, 160, 4_096, 1 << 20] {
            let mut sorter = Sorter::new(folder.path(), 12, memory_bytes);
            numbers.iter().for_each(|&number| sorter.push(number).unwrap());
            let mut sorted = sorter.finish().unwrap();
            let all: Vec<u128> = std::iter::from_fn(|| sorted.next().unwrap()).collect();
            assert!(all == expected, "{memory_bytes} bytes");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no file has a name");
    }

    #[test]
    fn sketches_come_back_from_memory_and_disk() {
        let folder = tempfile::tempdir().unwrap();
        let mut sketches = Sketches::new(folder.path(), 10 * BINS);
        let sketch = |row: u64| Sketch([(row % 251) as u8; BINS]);
        (0..3_000).for_each(|row| sketches.push(&sketch(row)).unwrap());
        sketches.flush().unwrap();
        for row in [2_999, 0, 9, 10, 11, 1_500] {
            assert_eq!(sketches.get(row).unwrap(), sketch(row));
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named_with_what_was_tried() {
        let folder = tempfile::tempdir().unwrap().path().join("gone");
        let mut sorter = Sorter::new(&folder, 16, 16);
        sorter.push(1).unwrap();
        let refused = sorter.push(2).unwrap_err().to_string();
        assert!(refused.contains("gone: cannot make a temporary file"), "{refused}");
    }
}
