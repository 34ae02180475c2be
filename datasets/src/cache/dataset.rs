//! Rows of a cache folder, mapped into memory.
//!
//! In:    a folder and which part of it.
//! Out:   any row in constant time: its tokens, its trained ranges, where it came from.
//! Never: copies the rows; counts more than about a hundred megabytes of them as this process's memory.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytemuck::AnyBitPattern;
use offload::map::{MappedFile, map_file};
use twox_hash::xxhash3_64::Hasher as Xxh3;

use super::Part;
use super::error::CacheError;
use super::format::{
    HEADER_BYTES, Header, HeaderFault, Packed, RANGE_BYTES, RECORD_BYTES, ROWS_MAX, Record, TOKEN_BYTES, VERSION,
    trained_tokens,
};
use super::part_writer::path;
use crate::content::Place;

/// Mapped pages that may stay before all are given back to the system.
const RESIDENT_BYTES_MAX: usize = 96 << 20;
/// What the system maps around a page that is touched (Linux's `fault_around_bytes`).
const TOUCHED_BYTES: usize = 1 << 16;
/// Records and ranges checked before their pages are given back.
const CHECKED_AT_ONCE: usize = 1 << 18;

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// Token ids, at least one.
    pub tokens: &'a [u32],
    /// Ranges of indices into `tokens`, first and one after the last: sorted, apart, not empty, without token 0. Each such token is
    /// trained on as the target of the one before it.
    pub trained: &'a [[u32; 2]],
    /// Where it came from.
    pub place: Place,
}

impl Row<'_> {
    /// Whether token `index` is trained on.
    pub fn is_trained(&self, index: usize) -> bool {
        let after = self.trained.partition_point(|range| range[0] as usize <= index);
        after > 0 && index < self.trained[after - 1][1] as usize
    }

    /// Tokens that are trained on.
    pub fn trained_tokens(&self) -> usize {
        self.trained.iter().map(|range| (range[1] - range[0]) as usize).sum()
    }
}

/// All rows of one part, in the order in which they were pushed.
#[derive(Debug)]
pub struct Dataset {
    header: Header,
    tokens: MappedFile,
    ranges: MappedFile,
    rows: MappedFile,
    folder: PathBuf,
    part: Part,
    /// Bytes touched since pages were last given back.
    touched: AtomicUsize,
    /// Block of the index touched last, so that neighbours count once.
    block: AtomicUsize,
}

impl Dataset {
    /// Maps a part and checks its header, the lengths of its files, and every record and range with their checksums.
    pub fn open(folder: &Path, part: Part) -> Result<Dataset, CacheError> {
        let [rows, tokens, ranges] = ["rows", "tokens", "ranges"].map(|kind| map(&path(folder, part, kind)));
        let (rows, tokens, ranges) = (rows?, tokens?, ranges?);
        let header = header(&rows, &path(folder, part, "rows"))?;
        let dataset = Dataset {
            header,
            tokens,
            ranges,
            rows,
            folder: folder.to_path_buf(),
            part,
            touched: AtomicUsize::new(0),
            block: AtomicUsize::new(0),
        };
        dataset.check_lengths()?;
        dataset.check_records()?;
        dataset.check_sum("ranges", &dataset.ranges, 0, header.ranges_sum)?;
        Ok(dataset)
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.header.rows as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.header.rows == 0
    }

    /// Tokens of all rows.
    pub fn tokens(&self) -> u64 {
        self.header.tokens
    }

    /// Tokens that are trained on.
    pub fn trained_tokens(&self) -> u64 {
        self.header.trained
    }

    /// Tokens of the longest row.
    pub fn longest(&self) -> usize {
        self.header.longest as usize
    }

    /// Row `index`, in constant time.
    ///
    /// # Panics
    /// If `index` is not below [`Dataset::len`].
    pub fn row(&self, index: usize) -> Row<'_> {
        let record = self.record(index);
        self.touch(2 * TOUCHED_BYTES + record.length as usize * TOKEN_BYTES);
        // Opening checked both ranges of every record.
        let tokens = record.tokens_at as usize..record.tokens_at as usize + record.length as usize;
        let ranges = record.ranges_at as usize..record.ranges_at as usize + record.ranges as usize;
        Row { tokens: &cast(&self.tokens)[tokens], trained: &cast(&self.ranges)[ranges], place: record.place }
    }

    /// Tokens of row `index`.
    ///
    /// # Panics
    /// As [`Dataset::row`].
    pub fn length(&self, index: usize) -> usize {
        self.record(index).length as usize
    }

    /// Tokens of each of `rows`, in their order. Reads the index from front to back, so that each of its pages comes in once.
    ///
    /// # Panics
    /// As [`Dataset::row`].
    pub(crate) fn lengths(&self, rows: &[u32]) -> Vec<u32> {
        let mut order: Vec<(u32, u32)> = rows.iter().zip(0u32..).map(|(row, at)| (*row, at)).collect();
        order.sort_unstable();
        let mut lengths = vec![0; rows.len()];
        order.into_iter().for_each(|(row, at)| lengths[at as usize] = self.record(row as usize).length);
        lengths
    }

    /// Where row `index` came from.
    ///
    /// # Panics
    /// As [`Dataset::row`].
    pub fn place(&self, index: usize) -> Place {
        self.record(index).place
    }

    /// All rows in order.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.len()).map(|index| self.row(index))
    }

    /// The first row with an id that a model of so many embeddings lacks, and that id. Reads the tokens only where there can be one.
    pub fn id_beyond(&self, embedding_rows: usize) -> Option<(Place, u32)> {
        if self.header.highest_id < embedding_rows as u64 {
            return None;
        }
        let beyond =
            |row: Row<'_>| row.tokens.iter().find(|id| **id as usize >= embedding_rows).map(|id| (row.place, *id));
        self.rows().find_map(beyond)
    }

    /// Compares the checksum of every file.
    pub fn verify(&self) -> Result<(), CacheError> {
        self.check_sum("rows", &self.rows, HEADER_BYTES, self.header.rows_sum)?;
        self.check_sum("ranges", &self.ranges, 0, self.header.ranges_sum)?;
        self.check_sum("tokens", &self.tokens, 0, self.header.tokens_sum)
    }

    /// Stands for all three files.
    pub(crate) fn seal(&self) -> u64 {
        self.header.seal()
    }

    fn record(&self, index: usize) -> Record {
        let block = index / (TOUCHED_BYTES / RECORD_BYTES);
        if self.block.swap(block, Ordering::Relaxed) != block {
            self.touch(TOUCHED_BYTES);
        }
        Record::unpack(&cast::<Packed>(&self.rows[HEADER_BYTES..])[index])
    }

    /// Counts pages that a row has brought in, and gives all back when they are many: they belong to the system, but are counted as
    /// this process's memory for as long as they are mapped.
    fn touch(&self, bytes: usize) {
        let small = self.tokens.len() + self.ranges.len() + self.rows.len() <= RESIDENT_BYTES_MAX;
        if !small && self.touched.fetch_add(bytes, Ordering::Relaxed) >= RESIDENT_BYTES_MAX {
            self.touched.store(0, Ordering::Relaxed);
            [&self.tokens, &self.ranges, &self.rows].into_iter().for_each(|file| file.forget(0..file.len()));
        }
    }

    fn check_lengths(&self) -> Result<(), CacheError> {
        let header = &self.header;
        let files = [
            ("rows", self.rows.len(), header.rows, RECORD_BYTES, HEADER_BYTES),
            ("tokens", self.tokens.len(), header.tokens_stored, TOKEN_BYTES, 0),
            ("ranges", self.ranges.len(), header.ranges_stored, RANGE_BYTES, 0),
        ];
        for (kind, found, count, size, before) in files {
            let expected = u128::from(count) * size as u128 + before as u128;
            if found as u128 != expected {
                return Err(self.damaged(kind, format!("{found} bytes, its header says {expected}")));
            }
        }
        if header.rows > ROWS_MAX {
            return Err(self.damaged("rows", format!("{} rows, at most {ROWS_MAX} can be", header.rows)));
        }
        Ok(())
    }

    /// Every record points into the files, and the counts are those of the header. Gives the pages back as it goes.
    fn check_records(&self) -> Result<(), CacheError> {
        let mut counted = Header { rows: 0, tokens: 0, trained: 0, longest: 0, ..self.header };
        let mut sum = Xxh3::new();
        let all: &[Packed] = cast(&self.rows[HEADER_BYTES..]);
        for (at, records) in all.chunks(CHECKED_AT_ONCE).enumerate() {
            std::hash::Hasher::write(&mut sum, bytemuck::cast_slice(records));
            for packed in records {
                let record = Record::unpack(packed);
                let trained = self.trained_of(record).map_err(|what| {
                    self.damaged(
                        "rows",
                        format!(
                            "row {} (file {}, line {}): {what}",
                            counted.rows, record.place.file, record.place.line
                        ),
                    )
                })?;
                counted.count(record, trained);
            }
            let start = HEADER_BYTES + at * CHECKED_AT_ONCE * RECORD_BYTES;
            self.rows.forget(start..start + records.len() * RECORD_BYTES);
            self.ranges.forget(0..self.ranges.len());
        }
        let found = std::hash::Hasher::finish(&sum);
        if found != self.header.rows_sum {
            return Err(self.mismatch("rows", found, self.header.rows_sum));
        }
        match counted == self.header {
            true => Ok(()),
            false => {
                Err(self.damaged("rows", format!("its rows add up to {counted:?}, its header says {:?}", self.header)))
            }
        }
    }

    fn trained_of(&self, record: Record) -> Result<u64, String> {
        let (Some(_), Some(ranges), 1..) = (
            record.tokens(self.tokens.len() / TOKEN_BYTES),
            record.ranges(self.ranges.len() / RANGE_BYTES),
            record.length,
        ) else {
            return Err(format!("{} tokens at {}, outside the file", record.length, record.tokens_at));
        };
        trained_tokens(&cast(&self.ranges)[ranges], record.length)
    }

    fn check_sum(&self, kind: &str, file: &MappedFile, before: usize, expected: u64) -> Result<(), CacheError> {
        let mut sum = Xxh3::new();
        for start in (before..file.len()).step_by(RESIDENT_BYTES_MAX / 4) {
            let end = file.len().min(start + RESIDENT_BYTES_MAX / 4);
            std::hash::Hasher::write(&mut sum, &file[start..end]);
            file.forget(before..end);
        }
        match std::hash::Hasher::finish(&sum) {
            found if found == expected => Ok(()),
            found => Err(self.mismatch(kind, found, expected)),
        }
    }

    fn mismatch(&self, kind: &str, found: u64, expected: u64) -> CacheError {
        self.damaged(kind, format!("its checksum is {found:016x}, its header says {expected:016x}"))
    }

    fn damaged(&self, kind: &str, what: String) -> CacheError {
        CacheError::damaged(&path(&self.folder, self.part, kind), what)
    }
}

fn map(path: &Path) -> Result<MappedFile, CacheError> {
    map_file(path).map_err(|error| match error.source.kind() {
        std::io::ErrorKind::NotFound => CacheError::damaged(path, "it is missing"),
        _ => error.into(),
    })
}

fn header(rows: &[u8], path: &Path) -> Result<Header, CacheError> {
    Header::parse(rows).map_err(|fault| match fault {
        HeaderFault::Damaged(what) => CacheError::damaged(path, what),
        HeaderFault::Version(found) => CacheError::Version { path: path.to_path_buf(), found, expected: VERSION },
    })
}

/// Whole elements of a mapped file. Maps begin at a page, so they are aligned; an empty one is no map.
fn cast<T: AnyBitPattern>(bytes: &[u8]) -> &[T] {
    let whole = bytes.len() / size_of::<T>() * size_of::<T>();
    match whole {
        0 => &[],
        _ => bytemuck::cast_slice(&bytes[..whole]),
    }
}
