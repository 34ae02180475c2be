//! Lines of a JSONL file as conversations or prompt/completion pairs.
//!
//! In:    one file, opened once and read line by line.
//! Out:   numbered lines; a line's content as [`Content`].
//! Never: skips a line that is not blank.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use planner::plan::RowFormat;
use serde_json::Value;

use crate::error::DataError;
use crate::row_error::RowError;
use crate::template::Message;

/// What one line holds.
pub(crate) enum Content {
    /// A conversation whose last message is the assistant's.
    Messages(Vec<Message>),
    /// Text and how it goes on.
    PromptCompletion { prompt: String, completion: String },
}

/// A file being read.
pub(crate) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    line: usize,
}

impl Lines {
    /// Opens `path`.
    pub(crate) fn open(path: &Path) -> Result<Lines, DataError> {
        let read_error = |source| DataError::Read { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(read_error)?;
        if file.metadata().map_err(read_error)?.is_dir() {
            return Err(read_error(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
        }
        Ok(Lines { path: path.to_path_buf(), reader: BufReader::with_capacity(1 << 20, file), line: 0 })
    }

    /// At most `rows` further lines that are not blank, with their numbers from 1; empty at the end.
    pub(crate) fn take(&mut self, rows: usize) -> Result<Vec<(usize, Vec<u8>)>, DataError> {
        let mut taken = Vec::new();
        while taken.len() < rows {
            let mut bytes = Vec::new();
            let read = self.reader.read_until(b'\n', &mut bytes);
            if read.map_err(|source| DataError::Read { path: self.path.clone(), source })? == 0 {
                break;
            }
            self.line += 1;
            if self.line == 1 && bytes.starts_with(b"\xef\xbb\xbf") {
                bytes.drain(..3);
            }
            if !bytes.trim_ascii().is_empty() {
                taken.push((self.line, bytes));
            }
        }
        Ok(taken)
    }
}

/// The form of the first row decides for the file where the plan does not.
pub(crate) fn detect(bytes: &[u8]) -> Result<RowFormat, RowError> {
    let row = parse(bytes)?;
    if row.get("messages").is_some() {
        return Ok(RowFormat::Messages);
    }
    if row.get("prompt").is_some() && row.get("completion").is_some() {
        return Ok(RowFormat::PromptCompletion);
    }
    let keys: Vec<&str> = row.as_object().into_iter().flat_map(|object| object.keys()).map(String::as_str).collect();
    Err(shape(format!("a row needs the key \"messages\", or \"prompt\" and \"completion\"; this one has {keys:?}")))
}

/// Reads one line in the file's form.
pub(crate) fn content(bytes: &[u8], format: RowFormat) -> Result<Content, RowError> {
    let row = parse(bytes)?;
    match format {
        RowFormat::Messages => messages(&row).map(Content::Messages),
        _ => {
            let text = |key: &str| row.get(key).and_then(Value::as_str).map(str::to_owned);
            let prompt = text("prompt").ok_or_else(|| shape("the key \"prompt\" must hold a string".to_owned()))?;
            let completion =
                text("completion").ok_or_else(|| shape("the key \"completion\" must hold a string".to_owned()))?;
            if completion.trim().is_empty() {
                return Err(RowError::EmptyAnswer);
            }
            Ok(Content::PromptCompletion { prompt, completion })
        }
    }
}

fn shape(reason: String) -> RowError {
    RowError::Shape { reason }
}

fn parse(bytes: &[u8]) -> Result<Value, RowError> {
    let text = std::str::from_utf8(bytes).map_err(|error| RowError::Utf8 { column: error.valid_up_to() + 1 })?;
    let row: Value = serde_json::from_str(text.trim_end()).map_err(|error| {
        let said = error.to_string();
        let reason = said.split(" at line ").next().unwrap_or(&said).to_owned();
        RowError::Json { column: error.column(), reason }
    })?;
    if !row.is_object() {
        return Err(shape("a row must be a JSON object".to_owned()));
    }
    Ok(row)
}

fn messages(row: &Value) -> Result<Vec<Message>, RowError> {
    let Some(list) = row.get("messages").and_then(Value::as_array) else {
        return Err(shape("the key \"messages\" must hold a list".to_owned()));
    };
    let messages =
        list.iter().enumerate().map(|(index, value)| message(value, index + 1)).collect::<Result<Vec<_>, _>>()?;
    check_order(&messages)?;
    Ok(messages)
}

fn message(value: &Value, number: usize) -> Result<Message, RowError> {
    let fault = |reason: String| RowError::Roles { message: number, reason };
    let role = match value["role"].as_str() {
        Some("system") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        Some(other) => return Err(fault(format!("role {other:?} is not one of system, user, assistant"))),
        None => return Err(fault("the key \"role\" must hold a string".to_owned())),
    };
    let content = match &value["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let text =
                |part: &Value| (part["type"] == "text").then(|| part["text"].as_str().map(str::to_owned)).flatten();
            let parts: Option<Vec<String>> = parts.iter().map(text).collect();
            parts
                .ok_or_else(|| fault("content parts must be {\"type\": \"text\", \"text\": STRING}".to_owned()))?
                .concat()
        }
        _ => return Err(fault("the key \"content\" must hold a string or a list of text parts".to_owned())),
    };
    if role == "assistant" && content.trim().is_empty() {
        return Err(RowError::EmptyAnswer);
    }
    Ok(Message { role, content })
}

/// An optional system message, then user and assistant in turn, the assistant last.
fn check_order(messages: &[Message]) -> Result<(), RowError> {
    let turns = match messages.first() {
        Some(first) if first.role == "system" => 1,
        _ => 0,
    };
    for (index, message) in messages.iter().enumerate().skip(turns) {
        let expected = if (index - turns).is_multiple_of(2) { "user" } else { "assistant" };
        if message.role != expected {
            let reason = format!(
                "role {:?} where {expected:?} is due (system first, then user and assistant in turn)",
                message.role
            );
            return Err(RowError::Roles { message: index + 1, reason });
        }
    }
    match messages.last() {
        Some(last) if last.role == "assistant" => Ok(()),
        _ => Err(RowError::NoAnswer),
    }
}
