//! A YAML file as a tree whose every key knows its line.
//!
//! In:    text of at most [`BYTES_MAX`].
//! Out:   [`Entry`]s in the order of the file, aliases replaced by what they stand for.
//! Never: a key twice, a tree deeper than [`DEPTH_MAX`], more than [`NODES_MAX`] nodes.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::MigrateError;

/// Longest file, bytes; the longest published example of either tool has 6 kB.
pub(super) const BYTES_MAX: usize = 1 << 20;
/// Deepest nesting; published examples need 5.
const DEPTH_MAX: usize = 40;
/// Most nodes, aliases counted as often as they stand.
const NODES_MAX: usize = 100_000;

/// One `key: value` of a mapping.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The key as written.
    pub key: String,
    /// Its line, from 1.
    pub line: u64,
    /// What it says.
    pub value: Value,
}

/// What a key says.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing.
    Empty,
    /// `true` or `false`.
    Flag(bool),
    /// A number without a point.
    Whole(i128),
    /// A number with one.
    Real(f64),
    /// Anything else that stands alone.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// A mapping.
    Map(Vec<Entry>),
}

impl fmt::Display for Value {
    /// On one line, as YAML's flow style.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Empty => Ok(()),
            Value::Flag(flag) => write!(f, "{flag}"),
            Value::Whole(number) => write!(f, "{number}"),
            Value::Real(number) => write!(f, "{number}"),
            Value::Text(text) => f.write_str(&one_line(text)),
            Value::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Value::Map(entries) => {
                f.write_str("{")?;
                for (index, entry) in entries.iter().enumerate() {
                    write!(f, "{}{}: {}", if index == 0 { "" } else { ", " }, one_line(&entry.key), entry.value)?;
                }
                f.write_str("}")
            }
        }
    }
}

/// Without line breaks, tabs and other control characters, so that it can stand in a comment or a message.
pub(super) fn one_line(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// At most `characters_max` of it, then an ellipsis.
pub(super) fn shortened(text: &str, characters_max: usize) -> String {
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}

/// Reads the one mapping of a file.
pub(super) fn read(yaml: &str, file: &str) -> Result<Vec<Entry>, MigrateError> {
    if yaml.len() > BYTES_MAX {
        return Err(MigrateError::TooLong { file: file.to_string(), bytes: yaml.len(), bytes_max: BYTES_MAX });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: DEPTH_MAX, max_nodes: NODES_MAX, max_events: 4 * NODES_MAX },
        with_snippet: false,
        // `y` is a column's name as often as a word for true; [`super::scope`] reads yes, no, on and off where a flag is asked for.
        strict_booleans: true,
    };
    let value = match serde_saphyr::from_str_with_options::<Option<Value>>(yaml, options) {
        Ok(value) => value.unwrap_or(Value::Empty),
        Err(error) => {
            let line = error.location().map(|location| location.line());
            let place = line.map_or_else(|| file.to_string(), |line| format!("{file}:{line}"));
            return Err(MigrateError::Syntax { place, message: shortened(&one_line(&error.to_string()), 300) });
        }
    };
    match value {
        Value::Map(entries) => Ok(entries),
        _ => Err(MigrateError::Neither { file: file.to_string() }),
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Whole(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Whole(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Value, E> {
        Ok(Value::Whole(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Real(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Empty)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Empty)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let line = key.referenced.line();
            entries.push(Entry { key: key.value, line, value: map.next_value()? });
        }
        Ok(Value::Map(entries))
    }
}
