//! Typed and bounded reading of a JSON object.
//!
//! In:    an object of a `config.json`.
//! Out:   numbers within what any network has, or a [`ConfigError`] with key, value and rule.
//! Never: guesses; a default is the caller's, who knows the configuration class.

use serde_json::{Map, Value};

use super::shortened;
use crate::config::ConfigError;

/// Upper bounds, those of [`crate::config`], and of experts: far above any published model.
pub(super) const VOCABULARY_MAX: u64 = 1 << 24;
/// Widths.
pub(super) const WIDTH_MAX: u64 = 1 << 22;
/// Heads.
pub(super) const HEADS_MAX: u64 = 1 << 14;
/// Width of a head.
pub(super) const HEAD_DIM_MAX: u64 = 1 << 14;
/// Layers.
pub(super) const LAYERS_MAX: u64 = 1 << 12;
/// Positions.
pub(super) const POSITIONS_MAX: u64 = 1 << 40;
/// Experts a layer.
pub(super) const EXPERTS_MAX: u64 = 1 << 14;

/// A JSON object whose fields are read with their type checked; `null` reads as missing.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub &'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let found = || shortened(&value.to_string());
                let wrong = || ConfigError::WrongType { key: key.to_string(), expected, found: found() };
                read(value).map(Some).ok_or_else(wrong)
            }
        }
    }

    /// A whole number of any size.
    pub fn count(&self, key: &str) -> Result<Option<u64>, ConfigError> {
        self.typed(key, "a whole number", Value::as_u64)
    }

    /// A number between 1 and `max` that the file must have.
    pub fn size(&self, key: &str, max: u64) -> Result<u64, ConfigError> {
        self.size_or(key, max, None)
    }

    /// A number between 1 and `max`; `default` where the file is silent.
    pub fn size_or(&self, key: &str, max: u64, default: Option<u64>) -> Result<u64, ConfigError> {
        let value = self.count(key)?.or(default).ok_or_else(|| ConfigError::Missing { key: key.to_string() })?;
        match value {
            0 => Err(refused(key, value, "must not be zero")),
            _ => at_most(key, value, max),
        }
    }

    /// A number between 0 and `max`; 0 where the file is silent.
    pub fn size_or_none(&self, key: &str, max: u64) -> Result<u64, ConfigError> {
        at_most(key, self.count(key)?.unwrap_or(0), max)
    }

    /// A truth value; `default` where the file is silent.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        self.typed(key, "true or false", Value::as_bool).map(|flag| flag.unwrap_or(default))
    }

    /// An object, where there is one.
    pub fn object(&self, key: &str) -> Result<Option<Fields<'a>>, ConfigError> {
        self.typed(key, "an object", Value::as_object).map(|object| object.map(Fields))
    }

    /// A list, where there is one.
    pub fn list(&self, key: &str) -> Result<Option<&'a Vec<Value>>, ConfigError> {
        self.typed(key, "a list", Value::as_array)
    }
}

fn at_most(key: &str, value: u64, max: u64) -> Result<u64, ConfigError> {
    match value <= max {
        true => Ok(value),
        false => Err(refused(key, value, format!("larger than {max}, which no known model reaches"))),
    }
}

/// A number that breaks a rule.
pub(super) fn refused(key: &str, value: u64, rule: impl Into<String>) -> ConfigError {
    ConfigError::Number { key: key.to_string(), value: value.to_string(), rule: rule.into() }
}
