//! Arguments of a Python call, by position or by name.
//!
//! In:    the values that minijinja hands over.
//! Out:   one argument at a time, or an error that names it.
//! Never: ignores an argument that it does not know.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// Arguments of one call.
pub(crate) struct Arguments<'a> {
    /// By position.
    pub(crate) positional: &'a [Value],
    named: Option<Kwargs>,
}

impl<'a> Arguments<'a> {
    /// Checks that there are at most `names.len()` arguments and that every named one is in `names`.
    pub(crate) fn new(values: &'a [Value], names: &[&str]) -> Result<Arguments<'a>, Error> {
        let arguments = Arguments::any(values)?;
        if arguments.positional.len() > names.len() {
            return Err(wrong(format!("takes at most {} arguments, got {}", names.len(), arguments.positional.len())));
        }
        if let Some(unknown) = arguments.named.iter().flat_map(Kwargs::args).find(|name| !names.contains(name)) {
            return Err(wrong(format!("unexpected keyword argument {unknown:?}")));
        }
        Ok(arguments)
    }

    /// Takes whatever comes.
    pub(crate) fn any(values: &'a [Value]) -> Result<Arguments<'a>, Error> {
        match values.split_last() {
            Some((last, positional)) if last.is_kwargs() => {
                Ok(Arguments { positional, named: Some(Kwargs::try_from(last.clone())?) })
            }
            _ => Ok(Arguments { positional: values, named: None }),
        }
    }

    /// The argument at `index` or called `name`; `None` where it is absent.
    pub(crate) fn get(&self, index: usize, name: &str) -> Option<Value> {
        let named = || self.named.as_ref().filter(|named| named.has(name)).and_then(|named| named.get(name).ok());
        self.positional.get(index).cloned().or_else(named)
    }

    /// As [`Arguments::get`]; Python's None counts as absent.
    pub(crate) fn some(&self, index: usize, name: &str) -> Option<Value> {
        self.get(index, name).filter(|value| !value.is_none())
    }

    /// A text that must be there.
    pub(crate) fn text(&self, index: usize, name: &str) -> Result<Value, Error> {
        match self.get(index, name) {
            Some(value) if value.kind() == ValueKind::String => Ok(value),
            Some(value) => Err(wrong(format!("argument {name:?} must be a string, not {}", value.kind()))),
            None => Err(wrong(format!("argument {name:?} is missing"))),
        }
    }

    /// A whole number, or what stands for an absent one.
    pub(crate) fn integer(&self, index: usize, name: &str, absent: i64) -> Result<i64, Error> {
        match self.some(index, name) {
            None => Ok(absent),
            Some(value) => integer(&value),
        }
    }

    /// A truth value; absent is false.
    pub(crate) fn flag(&self, index: usize, name: &str) -> bool {
        self.get(index, name).is_some_and(|value| value.is_true())
    }
}

/// A whole number; booleans are numbers in Python.
pub(crate) fn integer(value: &Value) -> Result<i64, Error> {
    match value.kind() {
        ValueKind::Bool => Ok(i64::from(value.is_true())),
        ValueKind::Number if value.is_integer() => {
            value.as_i64().ok_or_else(|| wrong(format!("{value} is too large a number")))
        }
        kind => Err(wrong(format!("a whole number is needed, not {kind}"))),
    }
}

/// An error of Python's kinds TypeError and ValueError.
pub(crate) fn wrong(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.into())
}
