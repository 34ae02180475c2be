//! A record's columns: JSON parsed strictly, bytes as UTF-8.
//!
//! In:    a [`Raw`].
//! Out:   [`Columns`].
//! Never: lets the last of two equal keys win; goes deeper than serde_json's limit of 128 levels.

use std::fmt;

use planner::plan::Gate;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::content::Raw;
use crate::gates::Gates;
use crate::row_error::RowError;

/// What a record holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Columns {
    /// Values by name.
    Named(Map<String, Value>),
    /// A whole document.
    Document(String),
}

/// Reads `raw`; invalid UTF-8 becomes U+FFFD where the gate is switched off.
pub(crate) fn parse(raw: Raw, allowed: Gates, findings: &mut Gates) -> Result<Columns, RowError> {
    match raw {
        Raw::Document(bytes) => Ok(Columns::Document(utf8(bytes, 0, allowed, findings)?)),
        Raw::Json(bytes) => match value(&utf8(bytes, 0, allowed, findings)?)? {
            Value::Object(columns) => Ok(Columns::Named(columns)),
            other => {
                let reason = format!("a row must be a JSON object, not {}", kind(&other));
                Err(RowError::Shape { reason })
            }
        },
        Raw::Fields { names, text, ends } => {
            let (mut columns, mut begin) = (Map::new(), 0);
            for (name, end) in names.iter().zip(ends) {
                let field = text.get(begin..end).unwrap_or_default().to_vec();
                columns.insert(name.clone(), Value::String(utf8(field, begin, allowed, findings)?));
                begin = end;
            }
            Ok(Columns::Named(columns))
        }
    }
}

/// Parses JSON text whose objects have no key twice.
pub(super) fn value(text: &str) -> Result<Value, RowError> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let parsed = Strict.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    parsed.map_err(|error| {
        let said = error.to_string();
        let cause = said.split(" at line ").next().unwrap_or(&said).to_owned();
        let reason = match error.line() {
            0 | 1 => cause,
            line => format!("{cause} (in line {line} of the row)"),
        };
        RowError::Json { column: error.column(), reason }
    })
}

/// What `value` is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// `bytes` as text; `begin` is added to the column that an error names.
fn utf8(bytes: Vec<u8>, begin: usize, allowed: Gates, findings: &mut Gates) -> Result<String, RowError> {
    String::from_utf8(bytes).or_else(|fault| {
        let column = begin + fault.utf8_error().valid_up_to() + 1;
        allowed.pass(RowError::Utf8 { column }, findings)?;
        debug_assert!(findings.contains(Gate::Utf8));
        Ok(String::from_utf8_lossy(fault.as_bytes()).into_owned())
    })
}

/// Builds a [`Value`], as serde_json does, and refuses a key that stands twice.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element_seed(Strict)? {
            list.push(element);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} stands twice")));
            }
            let value = entries.next_value_seed(Strict)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}
