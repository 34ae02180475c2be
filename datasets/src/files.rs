//! Files of rows, whatever their format and compression, as a stream of records.
//!
//! In:    a source of the plan.
//! Out:   [`list`]: its files; [`Reader`]: records with their places, portion by portion.
//! Never: holds more than a portion and one row; parses JSON of rows (that is done on many threads later).

mod arrow_lengths;
mod columnar;
mod csv;
mod error;
mod json;
#[cfg(test)]
mod lies_tests;
mod list;
#[cfg(test)]
mod tests;
mod text;

use planner::plan::FileFormat;

use crate::content::{Place, Raw, Record};
use columnar::Columnar;
use csv::Rows;
use json::{Elements, Layout};
use text::Text;

pub use error::FileError;
pub use list::{InputFile, list};

/// A file being read.
pub(crate) struct Reader {
    input: InputFile,
    file: u32,
    kind: Kind,
    rows: u64,
}

enum Kind {
    Lines(Box<Text>),
    Elements(Box<Elements>),
    Rows(Box<Rows>),
    Columnar(Box<Columnar>),
    Document(Box<Text>),
    Ended,
}

impl Reader {
    /// Opens `input`; `file` goes into the records' places.
    pub(crate) fn open(input: &InputFile, file: u32) -> Result<Reader, FileError> {
        let path = &input.path;
        let kind = match input.format {
            FileFormat::Jsonl => lines(Text::open(path, "JSONL")?)?,
            FileFormat::Json => json(Text::open(path, "JSON")?)?,
            FileFormat::Csv => Kind::Rows(Box::new(Rows::open(Text::open(path, "CSV")?, b',')?)),
            FileFormat::Tsv => Kind::Rows(Box::new(Rows::open(Text::open(path, "TSV")?, b'\t')?)),
            FileFormat::Parquet => Kind::Columnar(Box::new(Columnar::parquet(path)?)),
            FileFormat::Arrow => Kind::Columnar(Box::new(Columnar::arrow(path)?)),
            FileFormat::Text => Kind::Document(Box::new(Text::open(path, "text")?)),
        };
        Ok(Reader { input: input.clone(), file, kind, rows: 0 })
    }

    /// Further records: at most `rows_max`, and none after `bytes_max` bytes are reached; empty at the end.
    pub(crate) fn take(&mut self, rows_max: usize, bytes_max: usize) -> Result<Vec<Record>, FileError> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < rows_max && bytes < bytes_max {
            let Some((line, raw)) = self.next()? else {
                self.kind = Kind::Ended;
                break;
            };
            bytes += raw.bytes();
            taken.push(Record { place: Place { file: self.file, line }, raw });
        }
        self.rows += taken.len() as u64;
        if taken.is_empty() && rows_max > 0 && bytes_max > 0 {
            self.check_end()?;
        }
        Ok(taken)
    }

    fn next(&mut self) -> Result<Option<(u64, Raw)>, FileError> {
        match &mut self.kind {
            Kind::Lines(text) => loop {
                let mut line = Vec::new();
                let begin = text.line + 1;
                if !text.append_line(&mut line, begin)? {
                    return Ok(None);
                }
                if !line.trim_ascii().is_empty() {
                    return Ok(Some((begin, Raw::Json(line))));
                }
            },
            Kind::Elements(elements) => {
                let element = elements.next()?;
                Ok(element.map(|bytes| (elements.row, Raw::Json(bytes))))
            }
            Kind::Rows(rows) => rows.next(),
            Kind::Columnar(columnar) => Ok(columnar.next()?.map(|(row, bytes)| (row, Raw::Json(bytes)))),
            Kind::Document(text) => {
                let bytes = text.document()?;
                self.kind = Kind::Ended;
                Ok((!bytes.trim_ascii().is_empty()).then_some((1, Raw::Document(bytes))))
            }
            Kind::Ended => Ok(None),
        }
    }

    /// At the end: the file held a row, and is as long as it was.
    fn check_end(&self) -> Result<(), FileError> {
        let path = self.input.path.clone();
        let now = match std::fs::metadata(&path) {
            Ok(now) => now,
            Err(source) => return Err(FileError::Read { path, source }),
        };
        if now.is_file() && now.len() != self.input.bytes {
            return Err(FileError::Changed { path, before_bytes: self.input.bytes, now_bytes: now.len() });
        }
        match self.rows {
            0 => Err(FileError::Empty { path }),
            _ => Ok(()),
        }
    }
}

fn lines(text: Text) -> Result<Kind, FileError> {
    match text.head.trim_ascii_start().first() {
        Some(b'[') => Err(FileError::Foreign {
            path: text.path,
            expected: "JSONL",
            found: "those of a JSON list",
            hint: "set file_format = \"json\" in the source",
        }),
        _ => Ok(Kind::Lines(Box::new(text))),
    }
}

fn json(text: Text) -> Result<Kind, FileError> {
    match Layout::of(&text.head) {
        Some(Layout::Lines) => Ok(Kind::Lines(Box::new(text))),
        Some(layout) => Ok(Kind::Elements(Box::new(Elements::new(text, layout)))),
        None => Err(FileError::Foreign {
            path: text.path,
            expected: "JSON",
            found: "neither [ nor {",
            hint: "name the right file_format in the source",
        }),
    }
}
