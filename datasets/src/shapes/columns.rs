//! Columns under the names that a shape, or the recipe, gives them.
//!
//! In:    a row's columns.
//! Out:   texts and lists; a fault names the columns that are there and the nearest one.
//! Never: turns a list, an object, a fraction or a truth value into text.

use planner::plan::Field;
use serde_json::{Map, Value};

use super::json::{self, kind};
use crate::row_error::RowError;

/// A fault of the row's form.
pub(super) fn shape(reason: impl Into<String>) -> RowError {
    RowError::Shape { reason: reason.into() }
}

/// One row's columns and what they are called.
pub(super) struct Row<'a> {
    pub(super) columns: Map<String, Value>,
    pub(super) shape: &'a super::Shape,
}

impl Row<'_> {
    /// Takes the column of `field`; null counts as absent.
    pub(super) fn take(&mut self, field: Field) -> Option<Value> {
        let value = self.columns.get_mut(self.shape.column(field))?.take();
        (!value.is_null()).then_some(value)
    }

    /// Takes a column that the shape needs. A null column gives [`Value::Null`].
    pub(super) fn need(&mut self, field: Field) -> Result<Value, RowError> {
        let name = self.shape.column(field);
        match self.columns.get_mut(name) {
            Some(value) => Ok(value.take()),
            None => Err(missing(name, &self.columns)),
        }
    }

    /// Takes a needed text.
    pub(super) fn text(&mut self, field: Field) -> Result<String, RowError> {
        let value = self.need(field)?;
        text(value, self.shape.column(field))
    }

    /// Takes a needed answer: null is an empty one, which a gate finds.
    pub(super) fn answer(&mut self, field: Field) -> Result<String, RowError> {
        match self.need(field)? {
            Value::Null => Ok(String::new()),
            value => text(value, self.shape.column(field)),
        }
    }

    /// Takes a text that may be absent, null or empty.
    pub(super) fn optional_text(&mut self, field: Field) -> Result<Option<String>, RowError> {
        let taken = self.take(field).map(|value| text(value, self.shape.column(field))).transpose()?;
        Ok(taken.filter(|text| !text.trim().is_empty()))
    }

    /// Takes a needed list.
    pub(super) fn list(&mut self, field: Field) -> Result<Vec<Value>, RowError> {
        let value = self.need(field)?;
        list(value, self.shape.column(field))
    }
}

/// A string, or a whole number as its digits (CSV has no numbers, Parquet and JSON do: both read alike).
pub(super) fn text(value: Value, name: &str) -> Result<String, RowError> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
        other => Err(shape(format!("the column {name:?} must hold a string, not {}", kind(&other)))),
    }
}

/// A list, also one that stands as JSON text in a column of strings; one object is a list of one.
pub(super) fn list(value: Value, name: &str) -> Result<Vec<Value>, RowError> {
    match value {
        Value::Array(list) => Ok(list),
        Value::Object(_) => Ok(vec![value]),
        Value::String(text) if text.trim_start().starts_with('[') => match json::value(&text) {
            Ok(Value::Array(list)) => Ok(list),
            Ok(_) => Err(shape(format!("the column {name:?} must hold a list"))),
            Err(fault) => Err(shape(format!("the column {name:?}: {fault}"))),
        },
        other => Err(shape(format!("the column {name:?} must hold a list, not {}", kind(&other)))),
    }
}

/// A needed column is not there.
pub(super) fn missing(name: &str, columns: &Map<String, Value>) -> RowError {
    let near = nearest(name, columns).map_or(String::new(), |near| format!(" (nearest: {near:?})"));
    shape(format!("no column {name:?}{near}; the row has {}", names(columns)))
}

/// The columns' names, at most twenty of them.
pub(super) fn names(columns: &Map<String, Value>) -> String {
    let shown: Vec<String> = columns.keys().take(20).map(|name| format!("{name:?}")).collect();
    match columns.len() {
        0 => "none".to_owned(),
        count if count > 20 => format!("{} and {} more", shown.join(", "), count - 20),
        _ => shown.join(", "),
    }
}

/// The name at the smallest edit distance, no further than half the wanted name's length.
fn nearest<'a>(wanted: &str, columns: &'a Map<String, Value>) -> Option<&'a str> {
    let near = columns.keys().filter(|name| name.len() <= 64);
    let distances = near.map(|name| (edit_distance(&wanted.to_lowercase(), &name.to_lowercase()), name.as_str()));
    distances.min().filter(|(distance, _)| *distance <= wanted.chars().count() / 2).map(|(_, name)| name)
}

/// Fewest insertions, deletions and replacements. Source: Wagner and Fischer 1974.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (at, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[b.len()]
}
