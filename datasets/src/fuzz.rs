//! The door through which fuzz targets reach the readers and the template engine with arbitrary bytes. No part of the interface.
//!
//! In:    bytes.
//! Out:   nothing.
//! Never: lets a fault pass that is no typed error: it panics then, which is the fuzzer's finding.

use planner::plan::{DataSource, FileFormat, Gate};

use crate::content::{Message, Raw, Record};
use crate::files::{InputFile, Reader};
use crate::gates::Gates;
use crate::shapes::{Shape, content};
use crate::template::{Day, Specials, Template, Turns, Until};

/// Rows looked at, at most; a small compressed file may hold millions.
const ROWS_MAX: usize = 2_000;

/// Reads `bytes` as a file of `format`, twice in portions of different sizes, and what its rows say.
///
/// # Panics
/// If the two readings differ, or a temporary file cannot be written.
pub fn file(bytes: &[u8], format: FileFormat) {
    let held = tempfile::NamedTempFile::new().expect("the temporary folder can be written to");
    std::fs::write(held.path(), bytes).expect("the temporary folder can be written to");
    let input = InputFile { path: held.path().to_path_buf(), format, bytes: bytes.len() as u64 };
    let (one, many) = (read(&input, 1), read(&input, 97));
    assert_eq!(one, many, "a portion's size changes what is read");
    if let Some(first) = one.0.first() {
        shapes(&first.raw, &one.0);
    }
}

/// Reads `bytes` as one JSON row of a source.
pub fn shape(bytes: &[u8]) {
    let raw = Raw::Json(bytes.to_vec());
    let record = Record { place: crate::Place { file: 0, line: 1 }, raw: raw.clone() };
    shapes(&raw, &[record]);
}

/// Takes `bytes` up to the first zero byte as a chat template, and the rest as the texts of a conversation, one a zero byte; renders all
/// of it and its beginnings.
pub fn template(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split('\0');
    let source = parts.next().unwrap_or_default();
    let day = Day::parse("2024-07-26").expect("it is a day");
    let specials = Specials { bos: Some("<s>".to_owned()), eos: Some("</s>".to_owned()) };
    let Ok(template) = Template::new(source, &specials, day) else { return };
    let message = |(at, text): (usize, &str)| {
        let role = ["user", "assistant"][at % 2];
        let value = serde_json::json!({"role": role, "content": text});
        Message { role: role.to_owned(), text: text.to_owned(), train: None, value }
    };
    let messages: Vec<Message> = parts.enumerate().take(8).map(message).collect();
    let count = messages.len();
    let turns = Turns::new(messages.iter().map(|message| &message.value), None);
    for until in [Until::End, Until::Turn(count / 2), Until::Answer(count / 2)] {
        if let Ok(rendered) = template.render(&turns, until) {
            assert!(rendered.generation.iter().all(|block| rendered.text.get(block.clone()).is_some()));
        }
    }
}

/// Records up to the first fault, and the fault's words.
fn read(input: &InputFile, rows: usize) -> (Vec<Record>, Option<String>) {
    let mut all = Vec::new();
    let mut reader = match Reader::open(input, 0) {
        Ok(reader) => reader,
        Err(fault) => return (all, Some(fault.to_string())),
    };
    while all.len() < ROWS_MAX {
        match reader.take(rows.min(ROWS_MAX - all.len()), 1 << 20) {
            Ok(portion) if portion.is_empty() => return (all, None),
            Ok(portion) => all.extend(portion),
            // A portion with a fault gives no rows, so what came before it depends on where portions begin.
            Err(fault) => return (Vec::new(), Some(fault.to_string())),
        }
    }
    (all, None)
}

fn shapes(first: &Raw, records: &[Record]) {
    let Ok(shape) = Shape::detect(first, &DataSource::of("fuzz")) else { return };
    let every = [Gate::Utf8, Gate::Roles, Gate::EmptyAnswer, Gate::TrainedTokens];
    for allowed in [Gates::default(), Gates::of(&every)] {
        for record in records {
            let mut findings = Gates::default();
            if let Ok(content) = content(record.raw.clone(), &shape, allowed, &mut findings) {
                assert!(allowed != Gates::default() || findings == Gates::default(), "a gate let a row pass");
                let _ = content.text();
            }
        }
    }
}
