//! Methods of Python's lists, tuples and dictionaries.
//!
//! In:    a value, a method's name, arguments.
//! Out:   what Python gives.
//! Never: changes a collection: `append`, `update` and their like are unknown, as the sandbox refuses them.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple};
use minijinja::{Error, Value};

use super::arguments::{Arguments, wrong};
use super::methods::unknown;
use super::python::pairs;

/// What `keys()`, `values()` and `items()` give: can be iterated and printed, not indexed.
#[derive(Debug)]
pub(crate) struct View {
    /// Python's name of it.
    pub(crate) name: &'static str,
    items: Vec<Value>,
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }
}

/// A pair.
pub(crate) fn pair(left: Value, right: Value) -> Value {
    Value::from(Tuple::from([left, right]))
}

/// Methods of lists and tuples.
pub(crate) fn list(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "index" | "count" => {
            let sought = Arguments::new(args, &["value"])?.get(0, "value").ok_or_else(|| wrong("a value is needed"))?;
            let mut items = value.try_iter()?;
            if method == "count" {
                return Ok(Value::from(items.filter(|item| *item == sought).count()));
            }
            items.position(|item| item == sought).map(Value::from).ok_or_else(|| wrong("the value is not in the list"))
        }
        "copy" if !value.is_tuple() => Ok(value.clone()),
        _ => Err(unknown()),
    }
}

/// Methods of dictionaries.
pub(crate) fn dict(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let view = |name, items| Ok(Value::from_object(View { name, items }));
    match method {
        "get" => {
            let arguments = Arguments::new(args, &["key", "default"])?;
            let key = arguments.get(0, "key").ok_or_else(|| wrong("get needs a key"))?;
            let found = value.as_object().and_then(|object| object.get_value(&key));
            Ok(found.or_else(|| arguments.get(1, "default")).unwrap_or_else(|| Value::from(())))
        }
        "items" if args.is_empty() => view("dict_items", pairs(value).map(|(key, item)| pair(key, item)).collect()),
        "keys" if args.is_empty() => view("dict_keys", pairs(value).map(|(key, _)| key).collect()),
        "values" if args.is_empty() => view("dict_values", pairs(value).map(|(_, item)| item).collect()),
        "copy" if args.is_empty() => Ok(value.clone()),
        _ => Err(unknown()),
    }
}
