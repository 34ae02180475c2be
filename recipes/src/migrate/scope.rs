//! Typed looks at one mapping of the file.
//!
//! In:    entries and the name of a key.
//! Out:   the value in the type that is asked for, with its place; nothing where the key is absent or empty.
//! Never: a default; a value of another type that looks alike.

use super::MigrateError;
use super::tree::{Entry, Value, shortened};

/// Where a key stands.
#[derive(Debug, Clone)]
pub(super) struct At {
    /// Dotted, with indices.
    pub key: String,
    /// From 1.
    pub line: u64,
    /// The value on one line.
    pub shown: String,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Found<T> {
    pub at: At,
    pub value: T,
}

/// A key of a scope, whatever its type.
#[derive(Debug)]
pub(super) struct Any<'a> {
    /// Dotted.
    pub key: String,
    /// As written.
    pub name: String,
    pub line: u64,
    pub value: &'a Value,
}

impl Any<'_> {
    pub fn here(&self) -> At {
        At { key: self.key.clone(), line: self.line, shown: self.value.to_string() }
    }
}

/// One mapping.
#[derive(Debug, Clone)]
pub(super) struct Scope<'a> {
    pub file: &'a str,
    /// `datasets[0].`
    prefix: String,
    entries: &'a [Entry],
}

/// What a look finds.
pub(super) type Look<T> = Result<Option<Found<T>>, MigrateError>;

impl<'a> Scope<'a> {
    /// The file's own mapping.
    pub fn whole(entries: &'a [Entry], file: &'a str) -> Scope<'a> {
        Scope { file, prefix: String::new(), entries }
    }

    /// All its keys in order.
    pub fn all(&self) -> impl Iterator<Item = Any<'a>> + '_ {
        self.entries.iter().map(|entry| Any {
            key: format!("{}{}", self.prefix, entry.key),
            name: entry.key.clone(),
            line: entry.line,
            value: &entry.value,
        })
    }

    /// A key that has a value.
    pub fn any(&self, name: &str) -> Option<Any<'a>> {
        self.all().find(|any| any.name == name && !matches!(any.value, Value::Empty))
    }

    /// Text; a number or a flag as it is written.
    pub fn text(&self, name: &str) -> Look<String> {
        self.look(name, "a text", |value| match value {
            Value::List(_) | Value::Map(_) | Value::Empty => None,
            Value::Text(text) => Some(text.clone()),
            other => Some(other.to_string()),
        })
    }

    /// A number; text that is one, since YAML 1.1 takes `1e-4` for a text and both tools read it as a number.
    pub fn number(&self, name: &str) -> Look<f64> {
        self.look(name, "a number", |value| number(value).filter(|number| number.is_finite()))
    }

    /// A number >= 0 without a fraction.
    pub fn count(&self, name: &str) -> Look<u64> {
        self.look(name, "a number >= 0 without a fraction", whole)
    }

    /// As [`Scope::count`]; a number below 0, which means "not limited" there, is as good as absent.
    pub fn limit(&self, name: &str) -> Look<u64> {
        match self.any(name).and_then(|any| number(any.value)) {
            Some(below) if below <= 0.0 => Ok(None),
            _ => self.count(name),
        }
    }

    /// `true` or `false`, or one of YAML 1.1's words for them.
    pub fn flag(&self, name: &str) -> Look<bool> {
        self.look(name, "true or false", |value| match value {
            Value::Flag(flag) => Some(*flag),
            Value::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => Some(true),
                "false" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        })
    }

    /// Whether the flag is written and true.
    pub fn is_on(&self, name: &str) -> Result<bool, MigrateError> {
        Ok(self.flag(name)?.is_some_and(|flag| flag.value))
    }

    /// A list of texts, one text, or one text with commas.
    pub fn texts(&self, name: &str) -> Look<Vec<String>> {
        self.look(name, "a text or a list of texts", |value| match value {
            Value::Text(text) => {
                Some(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_string).collect())
            }
            Value::List(items) => items.iter().map(plain).collect(),
            _ => None,
        })
    }

    /// The mapping under a key.
    pub fn map(&self, name: &str) -> Option<Scope<'a>> {
        let any = self.any(name)?;
        let Value::Map(entries) = any.value else { return None };
        Some(Scope { file: self.file, prefix: format!("{}.", any.key), entries })
    }

    /// The mappings of a list.
    pub fn maps(&self, name: &str) -> Look<Vec<Scope<'a>>> {
        let Some(any) = self.any(name) else { return Ok(None) };
        let scope = |index: usize, value: &'a Value| match value {
            Value::Map(entries) => Some(Scope { file: self.file, prefix: format!("{}[{index}].", any.key), entries }),
            _ => None,
        };
        let scopes: Option<Vec<Scope<'a>>> = match any.value {
            Value::List(items) => items.iter().enumerate().map(|(index, item)| scope(index, item)).collect(),
            _ => None,
        };
        match scopes {
            Some(value) => Ok(Some(Found { at: any.here(), value })),
            None => Err(self.wrong(&any, "a list of mappings")),
        }
    }

    /// Refuses a value with what would be accepted.
    pub fn wrong(&self, any: &Any, expected: &str) -> MigrateError {
        MigrateError::Value {
            place: format!("{}:{}", self.file, any.line),
            key: any.key.clone(),
            value: shortened(&any.value.to_string(), 60),
            expected: expected.to_string(),
        }
    }

    fn look<T>(&self, name: &str, expected: &str, read: impl Fn(&Value) -> Option<T>) -> Look<T> {
        let Some(any) = self.any(name) else { return Ok(None) };
        match read(any.value) {
            Some(value) => Ok(Some(Found { at: any.here(), value })),
            None => Err(self.wrong(&any, expected)),
        }
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::List(_) | Value::Map(_) | Value::Empty => None,
        other => Some(other.to_string()),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Whole(number) => Some(*number as f64),
        Value::Real(number) => Some(*number),
        Value::Text(text) => text.trim().replace('_', "").parse().ok(),
        _ => None,
    }
}

/// Exact in f64 up to 2^53; no length or count of a training comes near.
fn whole(value: &Value) -> Option<u64> {
    let number = number(value)?;
    let holds = number >= 0.0 && number.fract() == 0.0 && number < (1u64 << 53) as f64;
    holds.then_some(number as u64)
}
