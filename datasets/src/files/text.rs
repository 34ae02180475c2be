//! The bytes of a text file: unpacked, without byte-order mark, line by line.
//!
//! In:    a path.
//! Out:   a [`Text`], whose first bytes can be looked at before it is read.
//! Never: holds more than its buffers and the row being read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use super::error::FileError;

/// Longest row, bytes after unpacking: bounds what a bomb or a missing line end can take.
pub(crate) const RECORD_BYTES_MAX: usize = 64 << 20;
/// First bytes that are looked at to settle what a file is.
const HEAD_BYTES: u64 = 64 << 10;
const BUFFER_BYTES: usize = 1 << 20;

/// A text file being read.
pub(super) struct Text {
    pub(super) path: PathBuf,
    pub(super) input: Box<dyn BufRead + Send>,
    /// The first bytes; they stay part of `input`.
    pub(super) head: Vec<u8>,
    /// Lines read so far.
    pub(super) line: u64,
    compression: Option<&'static str>,
}

impl Text {
    /// Opens `path`, to be read as `expected`.
    pub(super) fn open(path: &Path, expected: &'static str) -> Result<Text, FileError> {
        let file = open_file(path)?;
        let mut text = Text {
            path: path.to_path_buf(),
            input: Box::new(BufReader::with_capacity(BUFFER_BYTES, file)),
            head: Vec::new(),
            line: 0,
            compression: None,
        };
        text.look()?;
        text.unpack()?;
        text.check(expected)?;
        Ok(text)
    }

    /// Reads the first bytes, and puts them back before the rest.
    fn look(&mut self) -> Result<(), FileError> {
        let mut input = std::mem::replace(&mut self.input, Box::new(io::empty()));
        let mut head = Vec::new();
        let read = input.by_ref().take(HEAD_BYTES).read_to_end(&mut head);
        read.map_err(|cause| self.failed(cause))?;
        self.head = head.clone();
        self.input = Box::new(Cursor::new(head).chain(input));
        Ok(())
    }

    fn unpack(&mut self) -> Result<(), FileError> {
        self.compression = compression(&self.head);
        let input = std::mem::replace(&mut self.input, Box::new(io::empty()));
        let unpacked: Box<dyn Read + Send> = match self.compression {
            None => {
                self.input = input;
                return Ok(());
            }
            Some("gzip") => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Some(_) => Box::new(zstd::Decoder::with_buffer(input).map_err(|cause| self.failed(cause))?),
        };
        self.input = Box::new(BufReader::with_capacity(BUFFER_BYTES, unpacked));
        self.look()
    }

    /// Refuses what is no UTF-8 text by its first bytes, and takes the byte-order mark off.
    fn check(&mut self, expected: &'static str) -> Result<(), FileError> {
        let head = &self.head;
        let wide = head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff");
        let zero_between = head.len() >= 2 && head[..2].contains(&0) && head[..2] != [0, 0];
        if wide || zero_between || head.starts_with(b"\0\0\xfe\xff") {
            return Err(FileError::WideText { path: self.path.clone() });
        }
        if let Some((found, hint)) = binary(head) {
            return Err(FileError::Foreign { path: self.path.clone(), expected, found, hint });
        }
        if head.starts_with(b"\xef\xbb\xbf") {
            self.input.read_exact(&mut [0; 3]).map_err(|source| FileError::Read { path: self.path.clone(), source })?;
            self.head.drain(..3);
        }
        Ok(())
    }

    /// Appends the next line with its end to `row`, which began in line `begin`; `false` at the end of the file.
    pub(super) fn append_line(&mut self, row: &mut Vec<u8>, begin: u64) -> Result<bool, FileError> {
        let room = (RECORD_BYTES_MAX + 1).saturating_sub(row.len());
        let read = (&mut self.input).take(room as u64).read_until(b'\n', row);
        if read.map_err(|cause| self.failed(cause))? == 0 && room > 0 {
            return Ok(false);
        }
        if row.len() > RECORD_BYTES_MAX {
            return Err(FileError::TooLong { path: self.path.clone(), line: begin, limit_bytes: RECORD_BYTES_MAX });
        }
        self.line += 1;
        Ok(true)
    }

    /// The whole rest as one document.
    pub(super) fn document(&mut self) -> Result<Vec<u8>, FileError> {
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|cause| self.failed(cause))?;
        match bytes.len() > RECORD_BYTES_MAX {
            true => Err(FileError::TooLong { path: self.path.clone(), line: 1, limit_bytes: RECORD_BYTES_MAX }),
            false => Ok(bytes),
        }
    }

    /// What a failed read means here.
    pub(super) fn failed(&self, cause: io::Error) -> FileError {
        let path = self.path.clone();
        match self.compression {
            Some(compression) => FileError::Unpack { path, line: self.line, compression, reason: cause.to_string() },
            None => FileError::Read { path, source: cause },
        }
    }
}

/// Opens `path`, which must not be a folder.
pub(super) fn open_file(path: &Path) -> Result<File, FileError> {
    let failed = |source| FileError::Read { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(failed)?;
    match file.metadata().map_err(failed)?.is_dir() {
        true => Err(failed(io::Error::from(io::ErrorKind::IsADirectory))),
        false => Ok(file),
    }
}

/// gzip (RFC 1952) or zstd (RFC 8878, also a skippable frame first) by the first bytes.
pub(super) fn compression(head: &[u8]) -> Option<&'static str> {
    let skippable = head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == *b"\x2a\x4d\x18";
    if head.starts_with(b"\x1f\x8b") {
        Some("gzip")
    } else if head.starts_with(b"\x28\xb5\x2f\xfd") || skippable {
        Some("zstd")
    } else {
        None
    }
}

/// Well-known files that are no text, and what to do with them.
pub(super) fn binary(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let known: [(&[u8], &str, &str); 9] = [
        (b"PAR1", "those of a Parquet file", "set file_format = \"parquet\" in the source"),
        (b"ARROW1", "those of an Arrow file", "set file_format = \"arrow\" in the source"),
        (b"\x1f\x8b", "those of gzip inside a compressed file", "unpack it once"),
        (b"\x28\xb5\x2f\xfd", "those of zstd inside a compressed file", "unpack it once"),
        (b"PK\x03\x04", "those of a zip file", "unpack it"),
        (b"\xfd7zXZ", "those of an xz file", "unpack it"),
        (b"BZh", "those of a bzip2 file", "unpack it"),
        (b"%PDF-", "those of a PDF", "tune data generate reads PDF text"),
        (b"SQLite format 3", "those of an SQLite database", "export the table as CSV"),
    ];
    known.iter().find(|(magic, ..)| head.starts_with(magic)).map(|&(_, found, hint)| (found, hint))
}
