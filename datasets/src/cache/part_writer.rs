//! The three files of one part while they grow.
//!
//! In:    rows in order; later, which of them to drop.
//! Out:   synced files with a header, and that header.
//! Never: holds more than its write buffers and a counter.

use std::fs::File;
use std::hash::Hasher;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use offload::durable::DurableError;
use twox_hash::xxhash3_64::Hasher as Xxh3;

use super::Part;
use super::error::CacheError;
use super::format::{HEADER_BYTES, Header, Packed, RANGE_BYTES, RECORD_BYTES, ROWS_MAX, Record, trained_tokens};
use crate::content::Place;

/// Bytes that are written at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Where a part's file lies.
pub(crate) fn path(folder: &Path, part: Part, kind: &str) -> PathBuf {
    folder.join(format!("{}.{kind}", part.name()))
}

/// A file that is written from front to end.
#[derive(Debug)]
struct Stream {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Stream {
    fn create(path: PathBuf) -> Result<Stream, DurableError> {
        let made = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let file = made.map_err(|error| DurableError::io("create", &path, error))?;
        Ok(Stream { path, file: BufWriter::with_capacity(BUFFER_BYTES, file) })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DurableError> {
        self.file.write_all(bytes).map_err(|error| DurableError::io("write", &self.path, error))
    }

    fn flush(&mut self) -> Result<(), DurableError> {
        self.file.flush().map_err(|error| DurableError::io("write", &self.path, error))
    }

    fn sync(&mut self) -> Result<(), DurableError> {
        self.flush()?;
        self.file.get_ref().sync_all().map_err(|error| DurableError::io("sync", &self.path, error))
    }
}

/// A stream with its checksum.
struct Summed {
    stream: Stream,
    sum: Xxh3,
}

impl std::fmt::Debug for Summed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stream.fmt(formatter)
    }
}

impl Summed {
    fn create(path: PathBuf) -> Result<Summed, DurableError> {
        Ok(Summed { stream: Stream::create(path)?, sum: Xxh3::new() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DurableError> {
        self.sum.write(bytes);
        self.stream.write(bytes)
    }
}

/// Writes one part.
#[derive(Debug)]
pub(crate) struct PartWriter {
    part: Part,
    tokens: Summed,
    ranges: Summed,
    rows: Stream,
    header: Header,
    /// The ranges of the row at hand.
    pairs: Vec<[u32; 2]>,
}

impl PartWriter {
    pub(crate) fn create(folder: &Path, part: Part) -> Result<PartWriter, CacheError> {
        let mut rows = Stream::create(path(folder, part, "rows"))?;
        rows.write(&[0; HEADER_BYTES])?;
        let tokens = Summed::create(path(folder, part, "tokens"))?;
        let ranges = Summed::create(path(folder, part, "ranges"))?;
        Ok(PartWriter { part, tokens, ranges, rows, header: Header::default(), pairs: Vec::new() })
    }

    /// Rows so far.
    pub(crate) fn rows(&self) -> u64 {
        self.header.rows
    }

    /// Where row `number` comes from.
    pub(crate) fn place(&mut self, number: u64) -> Result<Place, CacheError> {
        use std::os::unix::fs::FileExt;
        self.rows.flush()?;
        let mut packed: Packed = Default::default();
        let at = HEADER_BYTES as u64 + number * RECORD_BYTES as u64;
        let file =
            File::open(&self.rows.path).and_then(|file| file.read_exact_at(bytemuck::bytes_of_mut(&mut packed), at));
        file.map_err(|error| DurableError::io("read", &self.rows.path, error))?;
        Ok(Record::unpack(&packed).place)
    }

    /// Appends a row.
    pub(crate) fn push(&mut self, place: Place, ids: &[u32], trained: &[Range<u32>]) -> Result<(), CacheError> {
        let unsound = |what: String| CacheError::UnsoundRow { place, what };
        if self.header.rows >= ROWS_MAX {
            return Err(CacheError::TooManyRows { part: self.part.name(), most: ROWS_MAX });
        }
        let length = u32::try_from(ids.len()).map_err(|_| unsound(format!("{} tokens in one row", ids.len())))?;
        let highest = ids.iter().max().ok_or_else(|| unsound("no token".to_string()))?;
        self.pairs.clear();
        self.pairs.extend(trained.iter().map(|range| [range.start, range.end]));
        let trained = trained_tokens(&self.pairs, length).map_err(unsound)?;
        let (tokens_at, ranges_at) = (self.header.tokens_stored, self.header.ranges_stored);
        // At most one range a token, so their number is below 2^32 too.
        let record = Record { tokens_at, ranges_at, length, ranges: self.pairs.len() as u32, place };
        self.tokens.write(bytemuck::cast_slice(ids))?;
        self.ranges.write(bytemuck::cast_slice(&self.pairs))?;
        self.rows.write(bytemuck::cast_slice(&record.pack()))?;
        self.header.tokens_stored += u64::from(length);
        self.header.ranges_stored += self.pairs.len() as u64;
        self.header.highest_id = self.header.highest_id.max(u64::from(*highest));
        self.header.count(record, trained);
        Ok(())
    }

    /// Keeps the rows whose number, counted over those that stand now, passes. The tokens of the others stay in the file, unused.
    pub(crate) fn retain(&mut self, keep: &dyn Fn(u64) -> bool) -> Result<(), CacheError> {
        self.rows.flush()?;
        self.ranges.stream.flush()?;
        let mut old = Records::open(&self.rows.path)?;
        let ranges = File::open(&self.ranges.stream.path);
        let ranges = ranges.map_err(|error| DurableError::io("open", &self.ranges.stream.path, error))?;
        let mut ranges = BufReader::with_capacity(BUFFER_BYTES, ranges);
        let (mut ranges_read, mut number) = (0, 0);
        let mut rows = Stream::create(self.rows.path.with_extension("rows-kept"))?;
        rows.write(&[0; HEADER_BYTES])?;
        let mut header = Header { rows: 0, tokens: 0, trained: 0, longest: 0, ..self.header };
        while let Some(record) = old.next()? {
            if keep(number) {
                let skipped = (record.ranges_at - ranges_read) * RANGE_BYTES as u64;
                let trained = covered(&mut ranges, skipped, record.ranges);
                let trained = trained.map_err(|error| DurableError::io("read", &self.ranges.stream.path, error))?;
                ranges_read = record.ranges_at + u64::from(record.ranges);
                rows.write(bytemuck::cast_slice(&record.pack()))?;
                header.count(record, trained);
            }
            number += 1;
        }
        rows.flush()?;
        std::fs::rename(&rows.path, &self.rows.path)
            .map_err(|error| DurableError::io("rename to", &self.rows.path, error))?;
        rows.path.clone_from(&self.rows.path);
        (self.rows, self.header) = (rows, header);
        Ok(())
    }

    /// Writes the header and syncs.
    pub(crate) fn finish(mut self) -> Result<Header, CacheError> {
        self.header.tokens_sum = self.tokens.sum.finish();
        self.header.ranges_sum = self.ranges.sum.finish();
        self.rows.flush()?;
        self.header.rows_sum = Records::open(&self.rows.path)?.sum()?;
        let named = |error| DurableError::io("write", &self.rows.path, error);
        self.rows.file.seek(SeekFrom::Start(0)).map_err(named)?;
        self.rows.write(&self.header.bytes())?;
        [&mut self.rows, &mut self.tokens.stream, &mut self.ranges.stream].into_iter().try_for_each(Stream::sync)?;
        Ok(self.header)
    }

    /// Bytes written so far.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        let header = &self.header;
        header.tokens_stored * super::format::TOKEN_BYTES as u64
            + header.ranges_stored * RANGE_BYTES as u64
            + header.rows * RECORD_BYTES as u64
            + HEADER_BYTES as u64
    }
}

/// Tokens in the next `count` ranges after `skipped` bytes.
fn covered(ranges: &mut BufReader<File>, skipped: u64, count: u32) -> std::io::Result<u64> {
    ranges.seek_relative(i64::try_from(skipped).map_err(std::io::Error::other)?)?;
    let mut trained = 0;
    for _ in 0..count {
        let mut pair = [0u32; 2];
        ranges.read_exact(bytemuck::bytes_of_mut(&mut pair))?;
        trained += u64::from(pair[1] - pair[0]);
    }
    Ok(trained)
}

/// The records of a file, from front to end.
struct Records<'a> {
    path: &'a Path,
    file: BufReader<File>,
}

impl Records<'_> {
    fn open(path: &Path) -> Result<Records<'_>, DurableError> {
        let opened =
            File::open(path).and_then(|mut file| file.seek(SeekFrom::Start(HEADER_BYTES as u64)).map(|_| file));
        let file = opened.map_err(|error| DurableError::io("open", path, error))?;
        Ok(Records { path, file: BufReader::with_capacity(BUFFER_BYTES, file) })
    }

    fn next(&mut self) -> Result<Option<Record>, DurableError> {
        let mut packed = [0u64; 5];
        match self.file.read_exact(bytemuck::bytes_of_mut(&mut packed)) {
            Ok(()) => Ok(Some(Record::unpack(&packed))),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(DurableError::io("read", self.path, error)),
        }
    }

    /// Checksum of all of them.
    fn sum(mut self) -> Result<u64, DurableError> {
        let mut sum = Xxh3::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match self.file.read(&mut buffer).map_err(|error| DurableError::io("read", self.path, error))? {
                0 => return Ok(sum.finish()),
                taken => sum.write(&buffer[..taken]),
            }
        }
    }
}
