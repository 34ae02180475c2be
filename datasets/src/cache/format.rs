//! The bytes of the cache's files: header, row record, checks.
//!
//! In:    bytes of a `*.rows` file, or what a writer counted.
//! Out:   [`Header`], [`Record`], or the reason why they cannot be.
//! Never: opens a file.

use std::ops::Range;

use twox_hash::XxHash3_64;

use crate::content::Place;

/// Version of the layout.
pub(crate) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"tuneROWS";
/// Bytes before the first record.
pub(crate) const HEADER_BYTES: usize = 128;
/// A record as it lies in the file.
pub(crate) type Packed = [u64; 5];
/// Bytes of a record.
pub(crate) const RECORD_BYTES: usize = size_of::<Packed>();
/// Bytes of a token id.
pub(crate) const TOKEN_BYTES: usize = 4;
/// Bytes of a trained range: first token, and the one after its last.
pub(crate) const RANGE_BYTES: usize = 8;
/// Row numbers are u32.
pub(crate) const ROWS_MAX: u64 = u32::MAX as u64;

/// First bytes of `*.rows`: counts and checksums (XXH3-64) of the part's three files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// Records.
    pub(crate) rows: u64,
    /// Ids in `*.tokens`, those of rows dropped later among them.
    pub(crate) tokens_stored: u64,
    /// Ranges in `*.ranges`, likewise.
    pub(crate) ranges_stored: u64,
    /// Tokens of the rows.
    pub(crate) tokens: u64,
    /// Those of them that are trained on.
    pub(crate) trained: u64,
    /// Tokens of the longest row.
    pub(crate) longest: u64,
    /// Highest id stored.
    pub(crate) highest_id: u64,
    /// Checksum of `*.tokens`.
    pub(crate) tokens_sum: u64,
    /// Checksum of `*.ranges`.
    pub(crate) ranges_sum: u64,
    /// Checksum of the records.
    pub(crate) rows_sum: u64,
}

/// Why a header cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// Too short, foreign, or changed.
    Damaged(String),
    /// Another version.
    Version(u32),
}

impl Header {
    fn numbers(self) -> [u64; 10] {
        [
            self.rows,
            self.tokens_stored,
            self.ranges_stored,
            self.tokens,
            self.trained,
            self.longest,
            self.highest_id,
            self.tokens_sum,
            self.ranges_sum,
            self.rows_sum,
        ]
    }

    /// The bytes: magic, version, record size, ten numbers, zeros, and the checksum of all that.
    pub(crate) fn bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(RECORD_BYTES as u32).to_le_bytes());
        for (at, number) in self.numbers().into_iter().enumerate() {
            bytes[16 + 8 * at..24 + 8 * at].copy_from_slice(&number.to_le_bytes());
        }
        let sum = XxHash3_64::oneshot(&bytes[..HEADER_BYTES - 8]);
        bytes[HEADER_BYTES - 8..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The header at the beginning of `file`.
    pub(crate) fn parse(file: &[u8]) -> Result<Header, HeaderFault> {
        let damaged = |what: String| HeaderFault::Damaged(what);
        let Some(bytes) = file.first_chunk::<HEADER_BYTES>() else {
            return Err(damaged(format!("{} bytes, its header alone has {HEADER_BYTES}", file.len())));
        };
        if bytes[..8] != MAGIC {
            return Err(damaged("it does not begin as a token cache does".to_string()));
        }
        let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        if version != VERSION {
            return Err(HeaderFault::Version(version));
        }
        let (told, found) = (word(bytes, HEADER_BYTES - 8), XxHash3_64::oneshot(&bytes[..HEADER_BYTES - 8]));
        if told != found {
            return Err(damaged(format!("checksum of the header is {found:016x}, the file says {told:016x}")));
        }
        let number = |at: usize| word(bytes, 16 + 8 * at);
        Ok(Header {
            rows: number(0),
            tokens_stored: number(1),
            ranges_stored: number(2),
            tokens: number(3),
            trained: number(4),
            longest: number(5),
            highest_id: number(6),
            tokens_sum: number(7),
            ranges_sum: number(8),
            rows_sum: number(9),
        })
    }

    /// Checksum of the header's bytes: stands for all three files.
    pub(crate) fn seal(self) -> u64 {
        XxHash3_64::oneshot(&self.bytes())
    }

    /// Counts a row.
    pub(crate) fn count(&mut self, record: Record, trained: u64) {
        self.rows += 1;
        self.tokens += u64::from(record.length);
        self.trained += trained;
        self.longest = self.longest.max(u64::from(record.length));
    }
}

fn word(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]))
}

/// One row of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    /// Index of its first token in `*.tokens`.
    pub(crate) tokens_at: u64,
    /// Index of its first range in `*.ranges`.
    pub(crate) ranges_at: u64,
    /// Tokens.
    pub(crate) length: u32,
    /// Trained ranges.
    pub(crate) ranges: u32,
    /// Where it came from.
    pub(crate) place: Place,
}

impl Record {
    /// As it lies in the file.
    pub(crate) fn pack(self) -> Packed {
        let counts = u64::from(self.length) | u64::from(self.ranges) << 32;
        [self.tokens_at, self.ranges_at, self.place.line, counts, u64::from(self.place.file)]
    }

    /// From the file.
    pub(crate) fn unpack(packed: &Packed) -> Record {
        let [tokens_at, ranges_at, line, counts, file] = *packed;
        let place = Place { file: file as u32, line };
        Record { tokens_at, ranges_at, length: counts as u32, ranges: (counts >> 32) as u32, place }
    }

    /// Indices of its tokens, if they lie within `stored`.
    pub(crate) fn tokens(self, stored: usize) -> Option<Range<usize>> {
        within(self.tokens_at, self.length, stored)
    }

    /// Indices of its ranges, if they lie within `stored`.
    pub(crate) fn ranges(self, stored: usize) -> Option<Range<usize>> {
        within(self.ranges_at, self.ranges, stored)
    }
}

fn within(start: u64, count: u32, stored: usize) -> Option<Range<usize>> {
    let end = start.checked_add(u64::from(count))?;
    let (start, end) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
    (end <= stored).then_some(start..end)
}

/// Tokens that the ranges cover, or what is wrong with them: they must be sorted, apart, not empty, within the row, and leave out its
/// first token, which no token predicts.
pub(crate) fn trained_tokens(ranges: &[[u32; 2]], length: u32) -> Result<u64, String> {
    let (mut free, mut trained) = (1, 0);
    for &[start, end] in ranges {
        if start < free || end <= start || end > length {
            return Err(format!("trained range {start}..{end} in a row of {length} tokens, after token {free}"));
        }
        free = end;
        trained += u64::from(end - start);
    }
    Ok(trained)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_header_survives_its_bytes_and_every_flipped_bit_is_seen() {
        let header = Header { rows: 3, tokens: 4, longest: u64::MAX, rows_sum: 7, ..Header::default() };
        let bytes = header.bytes();
        assert_eq!(Header::parse(&bytes), Ok(header));
        for bit in 0..HEADER_BYTES * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::parse(&changed).is_err(), "bit {bit}");
        }
        for length in 0..HEADER_BYTES {
            assert!(matches!(Header::parse(&bytes[..length]), Err(HeaderFault::Damaged(_))), "{length} bytes");
        }
    }

    #[test]
    fn a_record_survives_packing_and_ranges_out_of_the_file_are_seen() {
        let place = Place { file: u32::MAX, line: u64::MAX };
        let record = Record { tokens_at: 1 << 40, ranges_at: 5, length: u32::MAX, ranges: 2, place };
        assert_eq!(Record::unpack(&record.pack()), record);
        assert_eq!((record.ranges(7), record.ranges(6), record.tokens(9)), (Some(5..7), None, None));
        assert_eq!(Record { tokens_at: u64::MAX, ..record }.tokens(usize::MAX), None);
    }

    #[test]
    fn only_sorted_ranges_inside_the_row_are_sound() {
        assert_eq!(trained_tokens(&[[1, 3], [3, 4]], 4), Ok(3));
        for wrong in [[[0, 1], [2, 3]], [[1, 1], [2, 3]], [[2, 3], [1, 2]], [[1, 3], [2, 4]], [[1, 2], [3, 5]]] {
            assert!(trained_tokens(&wrong, 4).is_err(), "{wrong:?}");
        }
    }
}
