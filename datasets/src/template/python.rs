//! Values as Python prints them: `str()` and `repr()`.
//!
//! In:    a value.
//! Out:   text.
//! Never: recurses without bound: nested values come from JSON or from a template of bounded fuel.

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::arguments::wrong;
use super::collections::View;
use super::functions::Numbers;

/// Deepest nesting that is printed.
const DEPTH_MAX: usize = 200;

/// Python's `str(value)`.
pub(crate) fn str(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => {
            let mut out = String::new();
            write(&mut out, value, 0)?;
            Ok(out)
        }
    }
}

fn write(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(wrong(format!("a value nested more than {DEPTH_MAX} deep cannot be printed")));
    }
    match value.kind() {
        ValueKind::Undefined => out.push_str(if depth == 0 { "" } else { "Undefined" }),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
        ValueKind::Number => out.push_str(&float(f64::try_from(value.clone())?)),
        ValueKind::String => write_text(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq => match value.downcast_object_ref::<Numbers>() {
            Some(range) => out.push_str(&range.text()),
            None => write_list(out, value, depth)?,
        },
        ValueKind::Iterable if value.len().is_some() => write_list(out, value, depth)?,
        ValueKind::Map if is_dict(value) => write_dict(out, value, depth)?,
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// Loops, macros, modules and namespaces have attributes too, but are no dictionaries.
pub(crate) fn is_dict(value: &Value) -> bool {
    let name = value.as_object().map_or("", |object| object.type_name());
    value.kind() == ValueKind::Map
        && !["Macro", "Loop", "Namespace", "Module"].iter().any(|other| name.ends_with(other))
}

fn write_list(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    let view = value.downcast_object_ref::<View>();
    let (open, close) = match view {
        Some(view) => (format!("{}([", view.name), "])"),
        None if value.is_tuple() => ("(".to_owned(), ")"),
        None => ("[".to_owned(), "]"),
    };
    out.push_str(&open);
    let mut count = 0;
    for item in value.try_iter()?.checked() {
        out.push_str(if count == 0 { "" } else { ", " });
        write(out, &item?, depth + 1)?;
        count += 1;
    }
    if value.is_tuple() && count == 1 {
        out.push(',');
    }
    out.push_str(close);
    Ok(())
}

fn write_dict(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    out.push('{');
    for (index, (key, item)) in pairs(value).enumerate() {
        out.push_str(if index == 0 { "" } else { ", " });
        write(out, &key, depth + 1)?;
        out.push_str(": ");
        write(out, &item, depth + 1)?;
    }
    out.push('}');
    Ok(())
}

/// Keys and values of a dictionary, in order.
pub(crate) fn pairs(value: &Value) -> impl Iterator<Item = (Value, Value)> + use<> {
    value.as_object().and_then(|object| object.try_iter_pairs()).into_iter().flatten()
}

/// Single quotes unless the text holds some and no double ones; what does not print is escaped.
fn write_text(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            letter if letter == quote => out.extend(['\\', quote]),
            letter if is_printed(letter) => out.push(letter),
            letter => match u32::from(letter) {
                code @ 0..=0xff => out.push_str(&format!("\\x{code:02x}")),
                code @ 0..=0xffff => out.push_str(&format!("\\u{code:04x}")),
                code => out.push_str(&format!("\\U{code:08x}")),
            },
        }
    }
    out.push(quote);
}

/// `str.isprintable` of one letter: Rust's Debug escapes what is not printed, and marks that join the letter before them.
fn is_printed(letter: char) -> bool {
    if matches!(letter, ' '..='~') {
        return true;
    }
    if letter.is_whitespace() || letter.is_control() {
        return false;
    }
    let joins = unicode_normalization::char::is_combining_mark(letter);
    joins || matches!(letter, '\'' | '"' | '\\') || letter.escape_debug().next().is_none_or(|first| first != '\\')
}

/// Python's `repr(float)`: the shortest digits that read back the same, with an exponent below 1e-4 and from 1e16 on.
pub(crate) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        return format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    let text = number.to_string();
    if text.contains('.') { text } else { text + ".0" }
}
