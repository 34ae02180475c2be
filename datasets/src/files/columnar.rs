//! Rows of Parquet and Arrow IPC files (file and stream) as JSON text.
//!
//! In:    a path.
//! Out:   one JSON object a row; nulls are left out, so that a struct of the union of all rows' keys, as `datasets` writes
//!        it, reads like the rows it was made of.
//! Never: holds more than one record batch; a Parquet batch is sized from the file's own mean row.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_json::writer::{LineDelimited, WriterBuilder};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::arrow_lengths;
use super::error::FileError;
use super::text::{RECORD_BYTES_MAX, binary, compression, open_file};

/// Rows turned into JSON at once.
const SLICE_ROWS: usize = 64;
/// Uncompressed bytes of a Parquet batch, about.
const BATCH_BYTES: u64 = 4 << 20;

/// A file being read.
pub(super) struct Columnar {
    path: PathBuf,
    format: &'static str,
    batches: Batches,
    /// What is left of the current batch.
    batch: Option<RecordBatch>,
    lines: VecDeque<Vec<u8>>,
    /// Rows handed out.
    row: u64,
}

enum Batches {
    Parquet(Box<ParquetRecordBatchReader>),
    ArrowFile(Box<FileReader<BufReader<File>>>),
    ArrowStream(Box<StreamReader<BufReader<File>>>),
}

impl Columnar {
    /// Opens a Parquet file.
    pub(super) fn parquet(path: &Path) -> Result<Columnar, FileError> {
        let format = "Parquet";
        let (file, head, tail) = ends(path, format)?;
        if !head.starts_with(b"PAR1") {
            return Err(foreign(path, format, &head));
        }
        if !tail.ends_with(b"PAR1") {
            let reason = match tail.ends_with(b"PARE") {
                true => "its footer is encrypted, which is not supported",
                false => "it does not end with PAR1: the file is cut off",
            };
            return Err(FileError::Columnar { path: path.to_path_buf(), format, row: 0, reason: reason.to_owned() });
        }
        let batches = guarded(|| {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|cause| cause.to_string())?;
            let groups = builder.metadata().row_groups();
            let bytes: u64 = groups.iter().map(|group| group.total_byte_size().max(0) as u64).sum();
            let rows: u64 = groups.iter().map(|group| group.num_rows().max(0) as u64).sum();
            let batch_rows = (BATCH_BYTES / (bytes / rows.max(1)).max(1)).clamp(1, 1024);
            let reader = builder.with_batch_size(batch_rows as usize).build().map_err(|cause| cause.to_string())?;
            Ok(Batches::Parquet(Box::new(reader)))
        });
        Columnar::new(path, format, batches)
    }

    /// Opens an Arrow IPC file or stream.
    pub(super) fn arrow(path: &Path) -> Result<Columnar, FileError> {
        let format = "Arrow";
        let (mut file, head, _) = ends(path, format)?;
        let is_file = head.starts_with(b"ARROW1");
        if !is_file && (head.starts_with(b"FEA1") || binary(&head).is_some() || head.len() < 8) {
            return Err(foreign(path, format, &head));
        }
        let checked = match is_file {
            true => arrow_lengths::check_file(&mut file),
            false => arrow_lengths::check_stream(&mut file),
        };
        let rewound = checked.and_then(|()| file.seek(SeekFrom::Start(0)).map_err(|cause| cause.to_string()));
        if let Err(reason) = rewound {
            return Err(FileError::Columnar { path: path.to_path_buf(), format, row: 0, reason });
        }
        let file = BufReader::new(file);
        let batches = guarded(|| {
            match is_file {
                true => FileReader::try_new(file, None).map(|reader| Batches::ArrowFile(Box::new(reader))),
                false => StreamReader::try_new(file, None).map(|reader| Batches::ArrowStream(Box::new(reader))),
            }
            .map_err(|cause| cause.to_string())
        });
        Columnar::new(path, format, batches)
    }

    fn new(path: &Path, format: &'static str, batches: Result<Batches, String>) -> Result<Columnar, FileError> {
        let path = path.to_path_buf();
        match batches {
            Ok(batches) => Ok(Columnar { path, format, batches, batch: None, lines: VecDeque::new(), row: 0 }),
            Err(reason) => Err(FileError::Columnar { path, format, row: 0, reason }),
        }
    }

    /// The next row's number, from 1, and its JSON text.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, FileError> {
        while self.lines.is_empty() {
            match self.slice() {
                Ok(Some(slice)) => self.write(&slice)?,
                Ok(None) => return Ok(None),
                Err(reason) => return Err(self.fault(reason)),
            }
        }
        let Some(line) = self.lines.pop_front() else { return Ok(None) };
        self.row += 1;
        if line.len() > RECORD_BYTES_MAX {
            let (path, line) = (self.path.clone(), self.row);
            return Err(FileError::TooLong { path, line, limit_bytes: RECORD_BYTES_MAX });
        }
        Ok(Some((self.row, line)))
    }

    /// Some further rows; `None` at the end.
    fn slice(&mut self) -> Result<Option<RecordBatch>, String> {
        let batch = match self.batch.take() {
            Some(batch) => batch,
            None => {
                let next = guarded(|| match &mut self.batches {
                    Batches::Parquet(reader) => reader.next().transpose().map_err(|cause| cause.to_string()),
                    Batches::ArrowFile(reader) => reader.next().transpose().map_err(|cause| cause.to_string()),
                    Batches::ArrowStream(reader) => reader.next().transpose().map_err(|cause| cause.to_string()),
                });
                match next? {
                    Some(batch) => batch,
                    None => return Ok(None),
                }
            }
        };
        let rows = batch.num_rows().min(SLICE_ROWS);
        if rows < batch.num_rows() {
            self.batch = Some(batch.slice(rows, batch.num_rows() - rows));
        }
        Ok(Some(batch.slice(0, rows)))
    }

    fn write(&mut self, slice: &RecordBatch) -> Result<(), FileError> {
        let text = guarded(|| {
            let mut writer = WriterBuilder::new().build::<_, LineDelimited>(Vec::new());
            writer.write(slice).and_then(|()| writer.finish()).map_err(|cause| cause.to_string())?;
            Ok(writer.into_inner())
        });
        let text = text.map_err(|reason| self.fault(reason))?;
        // JSON text holds no line end of its own: inside strings they are escaped.
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        self.lines.extend(lines.map(<[u8]>::to_vec));
        Ok(())
    }

    fn fault(&self, reason: String) -> FileError {
        FileError::Columnar { path: self.path.clone(), format: self.format, row: self.row, reason }
    }
}

/// Runs `work` of the Arrow and Parquet crates, whose code panics on some damaged files (`arrow-ipc` 60 unwraps block
/// lengths of an Arrow file's footer: `reader.rs`, `read_block`).
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("its lengths contradict each other: damaged".to_owned()))
}

/// The open file with its first and last bytes.
fn ends(path: &Path, format: &'static str) -> Result<(File, Vec<u8>, Vec<u8>), FileError> {
    let failed = |source| FileError::Read { path: path.to_path_buf(), source };
    let mut file = open_file(path)?;
    let length = file.metadata().map_err(failed)?.len();
    if length == 0 {
        return Err(FileError::Empty { path: path.to_path_buf() });
    }
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    (&mut file).take(16).read_to_end(&mut head).map_err(failed)?;
    file.seek(SeekFrom::Start(length.saturating_sub(8))).map_err(failed)?;
    (&mut file).take(8).read_to_end(&mut tail).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    match compression(&head) {
        Some(compression) => Err(FileError::Compressed { path: path.to_path_buf(), format, compression }),
        None => Ok((file, head, tail)),
    }
}

fn foreign(path: &Path, expected: &'static str, head: &[u8]) -> FileError {
    let unknown = ("none that are known", "name the right file_format in the source");
    let feather = ("those of Feather version 1", "write it as version 2, which is Arrow IPC");
    let (found, hint) = match head.starts_with(b"FEA1") {
        true => feather,
        false => binary(head).unwrap_or(unknown),
    };
    FileError::Foreign { path: path.to_path_buf(), expected, found, hint }
}
