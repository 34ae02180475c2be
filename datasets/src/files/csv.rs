//! Rows of CSV and TSV files (RFC 4180; both with quoting; line ends `\n` or `\r\n`; blank lines are skipped).
//!
//! In:    a [`Text`].
//! Out:   each row's fields as bytes, not yet known to be UTF-8, under the header's names.
//! Never: guesses: a quote left open, text behind a closing quote or a row of another width is an error. (The `csv`
//!        crate reads all three without a word or without a limit; its reading of sound files is compared in the tests.)

use std::sync::Arc;

use super::error::FileError;
use super::text::Text;
use crate::content::Raw;

/// A file being read.
pub(super) struct Rows {
    text: Text,
    delimiter: u8,
    names: Arc<[String]>,
    /// The lines of the row being read.
    lines: Vec<u8>,
}

/// Unquoted text of a row's fields, and where each ends.
struct Fields {
    text: Vec<u8>,
    ends: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    FieldBegin,
    Plain,
    Quoted,
    /// After a quote inside a quoted field: its end, or the first of two.
    QuoteSeen,
}

impl Rows {
    /// Reads the header. A file without any line has no columns and no rows.
    pub(super) fn open(text: Text, delimiter: u8) -> Result<Rows, FileError> {
        let mut rows = Rows { text, delimiter, names: Arc::from([]), lines: Vec::new() };
        if let Some((line, header)) = rows.fields()? {
            rows.names = rows.header(line, &header)?;
        }
        Ok(rows)
    }

    fn header(&self, line: u64, header: &Fields) -> Result<Arc<[String]>, FileError> {
        let fault = |reason| FileError::Header { path: self.text.path.clone(), line, reason };
        let mut names: Vec<String> = Vec::with_capacity(header.ends.len());
        let mut begin = 0;
        for end in &header.ends {
            let name = std::str::from_utf8(&header.text[begin..*end])
                .map_err(|_| fault(format!("the name of column {} is not valid UTF-8", names.len() + 1)))?;
            if names.iter().any(|earlier| earlier == name) {
                return Err(fault(format!("two columns are called {name:?}")));
            }
            names.push(name.to_owned());
            begin = *end;
        }
        Ok(Arc::from(names))
    }

    /// The next row and the line where it begins.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Raw)>, FileError> {
        let Some((line, fields)) = self.fields()? else { return Ok(None) };
        if fields.ends.len() != self.names.len() {
            let (fields, columns) = (fields.ends.len(), self.names.len());
            return Err(FileError::Width { path: self.text.path.clone(), line, fields, columns });
        }
        Ok(Some((line, Raw::Fields { names: self.names.clone(), text: fields.text, ends: fields.ends })))
    }

    fn fields(&mut self) -> Result<Option<(u64, Fields)>, FileError> {
        let begin = loop {
            self.lines.clear();
            let line = self.text.line + 1;
            if !self.text.append_line(&mut self.lines, line)? {
                return Ok(None);
            }
            if !matches!(self.lines.as_slice(), b"\n" | b"\r\n" | b"\r") {
                break line;
            }
        };
        let mut fields =
            Fields { text: Vec::with_capacity(self.lines.len()), ends: Vec::with_capacity(self.names.len()) };
        let (mut state, mut at, mut quote_line) = (State::FieldBegin, 0, begin);
        loop {
            while at < self.lines.len() {
                let next = self.step(state, &mut at, &mut fields)?;
                if next == State::Quoted && state == State::FieldBegin {
                    quote_line = self.text.line;
                }
                state = next;
            }
            if state != State::Quoted {
                break;
            }
            if !self.text.append_line(&mut self.lines, begin)? {
                return Err(FileError::OpenQuote { path: self.text.path.clone(), line: quote_line });
            }
        }
        fields.ends.push(fields.text.len());
        Ok(Some((begin, fields)))
    }

    /// Takes a run of bytes from `at`.
    fn step(&self, state: State, at: &mut usize, fields: &mut Fields) -> Result<State, FileError> {
        let rest = &self.lines[*at..];
        if state == State::Quoted {
            let run = rest.iter().position(|byte| *byte == b'"').unwrap_or(rest.len());
            fields.text.extend_from_slice(&rest[..run]);
            *at += run + usize::from(run < rest.len());
            return Ok(if run < rest.len() { State::QuoteSeen } else { State::Quoted });
        }
        if matches!(rest, b"\n" | b"\r\n" | b"\r") {
            *at = self.lines.len();
            return Ok(state);
        }
        match (state, rest[0]) {
            (_, byte) if byte == self.delimiter => {
                *at += 1;
                fields.ends.push(fields.text.len());
                Ok(State::FieldBegin)
            }
            (State::FieldBegin, b'"') => {
                *at += 1;
                Ok(State::Quoted)
            }
            (State::QuoteSeen, b'"') => {
                *at += 1;
                fields.text.push(b'"');
                Ok(State::Quoted)
            }
            (State::QuoteSeen, _) => {
                let (path, field) = (self.text.path.clone(), fields.ends.len() + 1);
                Err(FileError::AfterQuote { path, line: self.text.line, field })
            }
            _ => {
                let end = |byte: &u8| *byte == self.delimiter || *byte == b'\n' || *byte == b'\r';
                let run = rest.iter().skip(1).position(end).map_or(rest.len(), |run| run + 1);
                fields.text.extend_from_slice(&rest[..run]);
                *at += run;
                Ok(State::Plain)
            }
        }
    }
}
