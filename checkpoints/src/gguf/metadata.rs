//! GGUF key/values with typed getters.
//!
//! In:    a cursor behind the header's counts.
//! Out:   [`Metadata`]; a missing key is `None`, a key of another type an error.
//! Never: converts silently between kinds of values.

use std::collections::HashMap;
use std::ops::Range;

use super::GgufError;
use super::cursor::Cursor;

/// One metadata value. Integers and floats are widened; the file's width carries no meaning.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// u8, u16, u32, u64.
    Unsigned(u64),
    /// i8, i16, i32, i64.
    Signed(i64),
    /// f32, f64.
    Float(f64),
    /// bool.
    Bool(bool),
    /// UTF-8 string.
    Text(String),
    /// A list of one kind of value.
    Array(Array),
}

/// A list of values of one kind. Lists of lists are refused.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// Any integer or bool type.
    Integers(Vec<i64>),
    /// f32 or f64.
    Floats(Vec<f32>),
    /// UTF-8 strings.
    Texts(Vec<String>),
}

impl Value {
    fn type_name(&self) -> &'static str {
        match self {
            Value::Unsigned(_) | Value::Signed(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Bool(_) => "a bool",
            Value::Text(_) => "a string",
            Value::Array(Array::Integers(_)) => "a list of integers",
            Value::Array(Array::Floats(_)) => "a list of floats",
            Value::Array(Array::Texts(_)) => "a list of strings",
        }
    }
}

/// Every key/value of a file.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    entries: HashMap<String, Value>,
    /// Where each value lies in the file, its type number included.
    places: HashMap<String, Range<usize>>,
}

/// Smallest key/value: key length (8), type (4), one byte of value.
const ENTRY_BYTES_MIN: u64 = 13;

impl Metadata {
    pub(super) fn count(cursor: &mut Cursor) -> Result<usize, GgufError> {
        cursor.count(ENTRY_BYTES_MIN, "the number of metadata entries")
    }

    pub(super) fn parse(cursor: &mut Cursor, count: usize) -> Result<Metadata, GgufError> {
        let (mut entries, mut places) = (HashMap::new(), HashMap::new());
        for _ in 0..count {
            let key = cursor.string("a metadata key")?.to_string();
            let start = cursor.position();
            let kind = cursor.u32("a metadata value type")?;
            let value = value(cursor, &key, kind)?;
            places.insert(key.clone(), start..cursor.position());
            if entries.insert(key.clone(), value).is_some() {
                return Err(GgufError::Duplicate { name: key });
            }
        }
        Ok(Metadata { entries, places })
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every key, in the order of the file, with the bytes of the file that hold type and value.
    pub(super) fn places(&self) -> Vec<(&str, Range<usize>)> {
        let mut places: Vec<_> = self.places.iter().map(|(key, place)| (key.as_str(), place.clone())).collect();
        places.sort_by_key(|(_, place)| place.start);
        places
    }

    /// A value of any type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || GgufError::WrongType { key: key.to_string(), expected, found: value.type_name() };
        read(value).map(Some).ok_or_else(wrong)
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a string", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// An integer that is not negative.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "an integer that is not negative", |value| match value {
            Value::Unsigned(value) => Some(*value),
            Value::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        })
    }

    /// An integer from 0 to 2^32 - 1.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.typed(key, "an integer of 32 bits", |value| match value {
            Value::Unsigned(value) => u32::try_from(*value).ok(),
            Value::Signed(value) => u32::try_from(*value).ok(),
            _ => None,
        })
    }

    /// A float.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "a float", |value| match value {
            Value::Float(value) => Some(*value as f32),
            _ => None,
        })
    }

    /// A truth value.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a bool", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// A list of strings.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        self.typed(key, "a list of strings", |value| match value {
            Value::Array(Array::Texts(texts)) => Some(texts.as_slice()),
            _ => None,
        })
    }

    /// A list of floats.
    pub fn f32s(&self, key: &str) -> Result<Option<&[f32]>, GgufError> {
        self.typed(key, "a list of floats", |value| match value {
            Value::Array(Array::Floats(floats)) => Some(floats.as_slice()),
            _ => None,
        })
    }

    /// A list of integers of 32 bits.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>, GgufError> {
        self.typed(key, "a list of 32-bit integers", |value| match value {
            Value::Array(Array::Integers(list)) => list.iter().map(|&n| i32::try_from(n).ok()).collect(),
            _ => None,
        })
    }
}

fn value(cursor: &mut Cursor, key: &str, kind: u32) -> Result<Value, GgufError> {
    const WHAT: &str = "a metadata value";
    Ok(match kind {
        0 => Value::Unsigned(u64::from(cursor.array::<1>(WHAT)?[0])),
        1 => Value::Signed(i64::from(i8::from_le_bytes(cursor.array(WHAT)?))),
        2 => Value::Unsigned(u64::from(u16::from_le_bytes(cursor.array(WHAT)?))),
        3 => Value::Signed(i64::from(i16::from_le_bytes(cursor.array(WHAT)?))),
        4 => Value::Unsigned(u64::from(cursor.u32(WHAT)?)),
        5 => Value::Signed(i64::from(i32::from_le_bytes(cursor.array(WHAT)?))),
        6 => Value::Float(f64::from(f32::from_le_bytes(cursor.array(WHAT)?))),
        7 => Value::Bool(cursor.array::<1>(WHAT)?[0] != 0),
        8 => Value::Text(cursor.string(WHAT)?.to_string()),
        9 => Value::Array(array(cursor, key)?),
        10 => Value::Unsigned(cursor.u64(WHAT)?),
        11 => Value::Signed(i64::from_le_bytes(cursor.array(WHAT)?)),
        12 => Value::Float(f64::from_le_bytes(cursor.array(WHAT)?)),
        found => return Err(GgufError::ValueType { key: key.to_string(), found }),
    })
}

fn array(cursor: &mut Cursor, key: &str) -> Result<Array, GgufError> {
    const WHAT: &str = "a metadata list";
    let kind = cursor.u32(WHAT)?;
    let smallest = match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        8 | 10..=12 => 8,
        found => return Err(GgufError::ValueType { key: key.to_string(), found }),
    };
    let count = cursor.count(smallest, WHAT)?;
    match kind {
        8 => {
            let mut texts = Vec::with_capacity(count);
            for _ in 0..count {
                texts.push(cursor.string(WHAT)?.to_string());
            }
            Ok(Array::Texts(texts))
        }
        6 | 12 => {
            let mut floats = Vec::with_capacity(count);
            for _ in 0..count {
                if let Value::Float(float) = value(cursor, key, kind)? {
                    floats.push(float as f32);
                }
            }
            Ok(Array::Floats(floats))
        }
        _ => {
            let mut integers = Vec::with_capacity(count);
            for _ in 0..count {
                integers.push(match value(cursor, key, kind)? {
                    Value::Unsigned(n) => {
                        i64::try_from(n).map_err(|_| GgufError::ValueType { key: key.to_string(), found: kind })?
                    }
                    Value::Signed(n) => n,
                    Value::Bool(flag) => i64::from(flag),
                    _ => return Err(GgufError::ValueType { key: key.to_string(), found: kind }),
                });
            }
            Ok(Array::Integers(integers))
        }
    }
}
