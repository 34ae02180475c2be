//! Filters that give numbers, as Jinja2's.
//!
//! In:    an environment.
//! Out:   the environment with them.
//! Never: fails on a text that is no number: the default is the answer.

use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, Value};

use super::arguments::{Arguments, wrong};
use super::filters::{attribute_of, items};
use super::python;

/// Adds the filters.
pub(crate) fn add(environment: &mut Environment<'static>) {
    environment.add_filter("int", |values: Rest<ValueOrKwargs>| int(&values.into_values()));
    environment.add_filter("float", |values: Rest<ValueOrKwargs>| float(&values.into_values()));
    environment.add_filter("round", |values: Rest<ValueOrKwargs>| round(&values.into_values()));
    environment.add_filter("sum", |values: Rest<ValueOrKwargs>| sum(&values.into_values()));
}

fn number(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        ValueKind::String => parse_float(value.as_str()?),
        _ => None,
    }
}

/// Python's `float(text)`.
fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(super::text::is_space);
    if text.starts_with('_') || text.ends_with('_') || text.contains("__") {
        return None;
    }
    text.replace('_', "").parse().ok()
}

fn int(values: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(values, &["value", "default", "base"])?;
    let value = arguments.get(0, "value").unwrap_or_default();
    let absent = arguments.get(1, "default").unwrap_or_else(|| Value::from(0));
    if value.kind() == ValueKind::Number && value.is_integer() {
        return Ok(value);
    }
    let base = u32::try_from(arguments.integer(2, "base", 10)?).unwrap_or(10);
    let whole = value.as_str().and_then(|text| parse_int(text, base));
    let cut = || number(&value).filter(|number| number.is_finite() && number.abs() < 1e18).map(|number| number as i64);
    Ok(whole.or_else(cut).map_or(absent, Value::from))
}

/// Python's `int(text, base)`.
fn parse_int(text: &str, base: u32) -> Option<i64> {
    let text = text.trim_matches(super::text::is_space).replace('_', "").to_lowercase();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(&text)),
    };
    let prefix = [(16, "0x"), (8, "0o"), (2, "0b")].into_iter().find(|(of, _)| *of == base);
    let digits = prefix.and_then(|(_, prefix)| digits.strip_prefix(prefix)).unwrap_or(digits);
    if !(2..=36).contains(&base) || digits.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(digits, base).ok().map(|number| sign * number)
}

fn float(values: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(values, &["value", "default"])?;
    let value = arguments.get(0, "value").unwrap_or_default();
    let absent = arguments.get(1, "default").unwrap_or_else(|| Value::from(0.0));
    Ok(number(&value).map_or(absent, Value::from))
}

fn round(values: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(values, &["value", "precision", "method"])?;
    let value = arguments.get(0, "value").unwrap_or_default();
    let precision = arguments.integer(1, "precision", 0)?.clamp(-400, 400) as i32;
    let method = arguments.get(2, "method").map(|method| python::str(&method)).transpose()?;
    let given =
        number(&value).filter(|_| value.kind() != ValueKind::String).ok_or_else(|| wrong("round needs a number"))?;
    let scale = 10f64.powi(precision);
    let rounded = match method.as_deref() {
        None | Some("common") if precision >= 0 => format!("{given:.*}", precision as usize).parse().unwrap_or(given),
        None | Some("common") => (given * scale).round_ties_even() / scale,
        Some("ceil") => (given * scale).ceil() / scale,
        Some("floor") => (given * scale).floor() / scale,
        Some(other) => return Err(wrong(format!("round by {other:?}: \"common\", \"ceil\" or \"floor\""))),
    };
    let whole = value.is_integer() && matches!(method.as_deref(), None | Some("common"));
    Ok(if whole { Value::from(rounded as i64) } else { Value::from(rounded) })
}

fn sum(values: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(values, &["iterable", "attribute", "start"])?;
    let path = arguments.some(1, "attribute");
    let (mut whole, mut real, mut all_whole) = (0i64, 0f64, true);
    let given = items(&arguments.get(0, "iterable").unwrap_or_default())?;
    for item in
        arguments.get(2, "start").into_iter().map(Ok).chain(given.iter().map(|item| attribute_of(item, path.as_ref())))
    {
        let item = item?;
        let size =
            number(&item).filter(|_| item.kind() != ValueKind::String).ok_or_else(|| wrong("sum needs numbers"))?;
        real += size;
        all_whole &= item.is_integer() || item.kind() == ValueKind::Bool;
        whole = whole.checked_add(size as i64).ok_or_else(|| wrong("the sum is too large"))?;
    }
    Ok(if all_whole { Value::from(whole) } else { Value::from(real) })
}
