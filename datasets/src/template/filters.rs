//! Filters over collections, as Jinja2's.
//!
//! In:    an environment.
//! Out:   the environment with them; filters that agree with Jinja2 stay minijinja's.
//! Never: takes none for an empty list.

use std::cmp::Ordering;

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Rest, Tuple, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, Value};

use super::arguments::{Arguments, wrong};
use super::source::{ITERATE, KEEP, KEEP_INSIDE, PERCENT};
use super::{bounds, collections, json, python};

/// Adds the filters.
pub(crate) fn add(environment: &mut Environment<'static>) {
    environment.add_filter("tojson", |values: Rest<ValueOrKwargs>| json::filter(&values.into_values()));
    environment.add_filter("string", |value: &Value| python::str(value));
    environment.add_filter("list", |value: &Value| items(value).map(Value::from));
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("join", |values: Rest<ValueOrKwargs>| join(&values.into_values()));
    environment.add_filter("sort", |values: Rest<ValueOrKwargs>| sort(&values.into_values()));
    environment.add_filter("dictsort", |values: Rest<ValueOrKwargs>| dict_sort(&values.into_values()));
    environment.add_filter("default", |values: Rest<ValueOrKwargs>| default(&values.into_values()));
    environment.add_filter("d", |values: Rest<ValueOrKwargs>| default(&values.into_values()));
    environment.add_filter("items", |value: &Value| match value.kind() {
        ValueKind::Undefined => Ok(Value::from(Vec::<Value>::new())),
        _ if python::is_dict(value) => collections::dict(value, "items", &[]),
        kind => Err(wrong(format!("items needs a mapping, not {kind}"))),
    });
    environment.add_filter(ITERATE, |value: Value| match value.kind() {
        ValueKind::None | ValueKind::Number | ValueKind::Bool => {
            Err(wrong(format!("a value of type {} cannot be iterated", value.kind())))
        }
        _ => Ok(value),
    });
    environment.add_filter(PERCENT, percent);
    environment.add_filter(KEEP, bounds::keep);
    environment.add_filter(KEEP_INSIDE, bounds::keep_inside);
}

/// Items of what can be iterated; none and numbers cannot.
pub(crate) fn items(value: &Value) -> Result<Vec<Value>, Error> {
    match value.kind() {
        ValueKind::None => Err(wrong("none cannot be iterated")),
        _ => value.try_iter()?.checked().collect(),
    }
}

fn default(values: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(values, &["value", "default_value", "boolean"])?;
    let value = arguments.get(0, "value").unwrap_or_default();
    let replaced = value.is_undefined() || (arguments.flag(2, "boolean") && !value.is_true());
    Ok(if replaced { arguments.get(1, "default_value").unwrap_or_else(|| Value::from("")) } else { value })
}

fn length(value: &Value) -> Result<usize, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(0),
        kind => value.len().ok_or_else(|| wrong(format!("a value of type {kind} has no length"))),
    }
}

/// `'..' % value`.
fn percent(format_text: &str, value: Value) -> Result<String, Error> {
    let arguments = if value.is_tuple() { items(&value)? } else { vec![value] };
    // minijinja writes %s and %r as Rust does: values that are no text or number are handed over as text.
    let mut prepared = Vec::with_capacity(arguments.len());
    for argument in arguments {
        prepared.push(match argument.kind() {
            ValueKind::None | ValueKind::Seq | ValueKind::Iterable | ValueKind::Undefined => {
                Value::from(python::str(&argument)?)
            }
            _ => argument,
        });
    }
    format(FormatStyle::Printf, format_text, &prepared)
}

fn join(values: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(values, &["value", "d", "attribute"])?;
    let value = arguments.get(0, "value").unwrap_or_default();
    let between = arguments.get(1, "d").map(|between| python::str(&between)).transpose()?.unwrap_or_default();
    let attribute = arguments.some(2, "attribute");
    let mut out = String::new();
    for (index, item) in items(&value)?.iter().enumerate() {
        out.push_str(if index == 0 { "" } else { &between });
        out.push_str(&python::str(&attribute_of(item, attribute.as_ref())?)?);
    }
    Ok(Value::from(out))
}

/// `a.b.0` of an item; the item itself without a path.
pub(crate) fn attribute_of(item: &Value, path: Option<&Value>) -> Result<Value, Error> {
    let Some(path) = path else { return Ok(item.clone()) };
    let Some(path) = path.as_str() else { return item.get_item(path) };
    path.split('.').try_fold(item.clone(), |value, part| match part.parse::<i64>() {
        Ok(index) => value.get_item(&Value::from(index)),
        Err(_) => value.get_attr(part),
    })
}

/// Order of Python's `<`, which refuses values of different types.
pub(crate) fn compare(left: &Value, right: &Value) -> Result<Ordering, Error> {
    let class = |value: &Value| match value.kind() {
        ValueKind::Number | ValueKind::Bool => Some(0),
        ValueKind::String => Some(1),
        ValueKind::Seq => Some(if value.is_tuple() { 2 } else { 3 }),
        _ => None,
    };
    let number = |value: &Value| {
        if value.kind() == ValueKind::Bool { Value::from(i64::from(value.is_true())) } else { value.clone() }
    };
    match (class(left), class(right)) {
        (Some(a), Some(b)) if a == b => Ok(number(left).cmp(&number(right))),
        _ => Err(wrong(format!("values of types {} and {} cannot be compared", left.kind(), right.kind()))),
    }
}

/// Sorts by keys; the first comparison that fails is the answer.
pub(crate) fn sorted(mut items: Vec<(Vec<Value>, Value)>, backwards: bool) -> Result<Vec<Value>, Error> {
    let mut fault = None;
    items.sort_by(|(left, _), (right, _)| {
        let ordering = left
            .iter()
            .zip(right)
            .map(|(left, right)| compare(left, right))
            .find(|found| !matches!(found, Ok(Ordering::Equal)));
        match ordering.unwrap_or(Ok(Ordering::Equal)) {
            Ok(ordering) if backwards => ordering.reverse(),
            Ok(ordering) => ordering,
            Err(error) => {
                fault.get_or_insert(error);
                Ordering::Equal
            }
        }
    });
    fault.map_or_else(|| Ok(items.into_iter().map(|(_, item)| item).collect()), Err)
}

/// Lower case unless case matters.
pub(crate) fn folded(value: Value, case_matters: bool) -> Value {
    match value.as_str() {
        Some(text) if !case_matters => Value::from(text.to_lowercase()),
        _ => value,
    }
}

fn sort(values: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(values, &["value", "reverse", "case_sensitive", "attribute"])?;
    let case_matters = arguments.flag(2, "case_sensitive");
    let paths = match arguments.some(3, "attribute") {
        Some(path) => match path.as_str() {
            Some(text) => text.split(',').map(|path| Some(Value::from(path))).collect(),
            None => vec![Some(path)],
        },
        None => vec![None],
    };
    let mut keyed = Vec::new();
    for item in items(&arguments.get(0, "value").unwrap_or_default())? {
        let key = |path: &Option<Value>| Ok(folded(attribute_of(&item, path.as_ref())?, case_matters));
        keyed.push((paths.iter().map(key).collect::<Result<Vec<Value>, Error>>()?, item));
    }
    sorted(keyed, arguments.flag(1, "reverse")).map(Value::from)
}

fn dict_sort(values: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(values, &["value", "case_sensitive", "by", "reverse"])?;
    let by_value = match arguments.get(2, "by").as_ref().and_then(Value::as_str) {
        None | Some("key") => false,
        Some("value") => true,
        Some(other) => return Err(wrong(format!("dictsort by {other:?}: \"key\" or \"value\""))),
    };
    let case_matters = arguments.flag(1, "case_sensitive");
    let pairs = python::pairs(&arguments.get(0, "value").unwrap_or_default()).map(|(key, item)| {
        let by = folded(if by_value { item.clone() } else { key.clone() }, case_matters);
        (vec![by], Value::from(Tuple::from([key, item])))
    });
    sorted(pairs.collect(), arguments.flag(3, "reverse")).map(Value::from)
}
