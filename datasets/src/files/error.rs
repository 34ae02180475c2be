//! Every way a data file can fail to be what it says, with the file, the place and what to do.
//!
//! In:    nothing.
//! Out:   [`FileError`].
//! Never: judges what a row says: that is [`crate::RowError`].

use std::path::PathBuf;

/// Why a source cannot be listed or a file cannot be read on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system refused: not there, no permission, a fault of the disk.
    #[error("{path}: {source}")]
    Read {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A glob that is none.
    #[error("{pattern}: not a valid glob: {reason}")]
    Glob {
        /// As the recipe has it.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A glob without a match.
    #[error("{pattern}: no file matches; a * does not match names that begin with a dot, and ** spans folders")]
    NoMatch {
        /// As the recipe has it.
        pattern: String,
    },
    /// A folder without data files.
    #[error("{folder}: none of the {files} files below it is a data file ({known}, each also with .gz or .zst)")]
    NoDataFiles {
        /// The folder.
        folder: PathBuf,
        /// Files below it, hidden ones not counted.
        files: usize,
        /// Known endings.
        known: &'static str,
    },
    /// A folder with rows and documents: taking the documents for rows, or leaving them out, would both be a guess.
    #[error(
        "{folder} holds files of rows ({rows}) and documents ({document}); set file_format in the source, or give a glob \
         such as {folder}/**/*.jsonl as its path"
    )]
    MixedFolder {
        /// The folder.
        folder: PathBuf,
        /// A file of rows.
        rows: PathBuf,
        /// A document.
        document: PathBuf,
    },
    /// A link that leads back into a folder above it.
    #[error("{path}: this link leads back to a folder that holds it")]
    FolderLoop {
        /// The link.
        path: PathBuf,
    },
    /// Nothing says what the bytes are.
    #[error(
        "{path}: the name does not tell the format ({known}, each also with .gz or .zst); set file_format in the source"
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Known endings.
        known: &'static str,
    },
    /// No row.
    #[error("{path} holds no row")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Another format than the name or `file_format` says.
    #[error("{path}: read as {expected}, but its first bytes are {found}; {hint}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The format it is read as.
        expected: &'static str,
        /// What the bytes look like.
        found: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// UTF-16 or UTF-32.
    #[error("{path}: the text is UTF-16 or UTF-32, not UTF-8; convert it, for example with iconv -f UTF-16 -t UTF-8")]
    WideText {
        /// The file.
        path: PathBuf,
    },
    /// Columnar files are read by position, which an outer compression prevents.
    #[error("{path}: a {format} file inside {compression}; unpack it (the format compresses its own columns)")]
    Compressed {
        /// The file.
        path: PathBuf,
        /// Parquet or Arrow.
        format: &'static str,
        /// gzip or zstd.
        compression: &'static str,
    },
    /// Reading broke off in the middle, for a compressed file most often because it is cut off.
    #[error(
        "{path}: after line {line}: {compression} data cannot be unpacked: {reason}; the file is cut off or damaged"
    )]
    Unpack {
        /// The file.
        path: PathBuf,
        /// Lines read before.
        line: u64,
        /// gzip or zstd.
        compression: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// A row beyond the limit.
    #[error(
        "{path}:{line}: the row that begins here is longer than {limit_bytes} bytes; a missing line end or closing quote \
         looks like this too"
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Line or row where it begins, from 1.
        line: u64,
        /// The limit.
        limit_bytes: usize,
    },
    /// The frame of a JSON list is broken; faults inside a row are the row's.
    #[error("{path}:{line}: element {row}: {reason}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Element, from 1.
        row: u64,
        /// What was expected and found.
        reason: String,
    },
    /// A header that cannot name columns.
    #[error("{path}:{line}: header: {reason}")]
    Header {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// A quote that is never closed.
    #[error("{path}:{line}: the quote opened in this line is not closed before the file ends")]
    OpenQuote {
        /// The file.
        path: PathBuf,
        /// Where it opens, from 1.
        line: u64,
    },
    /// Text behind a closing quote.
    #[error(
        "{path}:{line}: field {field}: text after the closing quote; a quote inside a quoted field is written twice (\"\")"
    )]
    AfterQuote {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Field, from 1.
        field: usize,
    },
    /// More or fewer fields than columns.
    #[error("{path}:{line}: {fields} fields, but the header names {columns} columns")]
    Width {
        /// The file.
        path: PathBuf,
        /// Line where the row begins, from 1.
        line: u64,
        /// Fields of the row.
        fields: usize,
        /// Columns of the header.
        columns: usize,
    },
    /// A Parquet or Arrow file that is cut off, damaged, or uses what is not supported.
    #[error("{path}: {format}, after row {row}: {reason}")]
    Columnar {
        /// The file.
        path: PathBuf,
        /// Parquet or Arrow.
        format: &'static str,
        /// Rows read before.
        row: u64,
        /// What is wrong.
        reason: String,
    },
    /// The file is another one than when it was listed.
    #[error(
        "{path} had {before_bytes} bytes when it was listed and has {now_bytes} now; wait until nothing writes to it"
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// At first.
        before_bytes: u64,
        /// At the end.
        now_bytes: u64,
    },
}
