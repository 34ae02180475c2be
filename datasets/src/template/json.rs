//! Python's `json.dumps`, with the options that transformers' `tojson` takes.
//!
//! In:    a value.
//! Out:   JSON as Python writes it: a space after `:` and `,`, nothing escaped for HTML.
//! Never: sorts keys unless told to.

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::arguments::{Arguments, integer, wrong};
use super::python;

/// Deepest nesting.
const DEPTH_MAX: usize = 200;

/// How to write.
struct Style {
    ascii: bool,
    /// White space of one level; `None`: all on one line.
    indent: Option<String>,
    between: String,
    colon: String,
    sorted: bool,
}

/// The filter: `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(crate) fn filter(values: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(values, &["x", "ensure_ascii", "indent", "separators", "sort_keys"])?;
    let value = arguments.get(0, "x").ok_or_else(|| wrong("tojson needs a value"))?;
    let indent = match arguments.some(2, "indent") {
        None => None,
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
        Some(number) => Some(" ".repeat(usize::try_from(integer(&number)?).unwrap_or(0).min(1000))),
    };
    let (mut between, mut colon) = (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned());
    if let Some(separators) = arguments.some(3, "separators") {
        let pair = separators.try_iter()?.collect::<Vec<Value>>();
        let [first, second] = pair.as_slice() else { return Err(wrong("separators must be two texts")) };
        (between, colon) = (python::str(first)?, python::str(second)?);
    }
    let style = Style {
        ascii: arguments.flag(1, "ensure_ascii"),
        indent,
        between,
        colon,
        sorted: arguments.flag(4, "sort_keys"),
    };
    let mut out = String::new();
    style.write(&mut out, &value, 0)?;
    Ok(Value::from(out))
}

impl Style {
    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(wrong(format!("a value nested more than {DEPTH_MAX} deep cannot be written as JSON")));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)?),
            ValueKind::String => self.write_text(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq => self.write_list(out, value, depth)?,
            ValueKind::Iterable if value.len().is_some() => self.write_list(out, value, depth)?,
            ValueKind::Map if python::is_dict(value) => self.write_dict(out, value, depth)?,
            kind => return Err(wrong(format!("a value of type {kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn write_list(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        let mut empty = true;
        out.push('[');
        for item in value.try_iter()?.checked() {
            out.push_str(if empty { "" } else { &self.between });
            empty = false;
            self.line(out, depth + 1);
            self.write(out, &item?, depth + 1)?;
        }
        if !empty {
            self.line(out, depth);
        }
        out.push(']');
        Ok(())
    }

    fn write_dict(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        let mut pairs: Vec<(String, Value)> =
            python::pairs(value).map(|(key, item)| Ok((key_text(&key)?, item))).collect::<Result<_, Error>>()?;
        if self.sorted {
            pairs.sort_by(|left, right| left.0.cmp(&right.0));
        }
        out.push('{');
        for (index, (key, item)) in pairs.iter().enumerate() {
            out.push_str(if index == 0 { "" } else { &self.between });
            self.line(out, depth + 1);
            self.write_text(out, key);
            out.push_str(&self.colon);
            self.write(out, item, depth + 1)?;
        }
        if !pairs.is_empty() {
            self.line(out, depth);
        }
        out.push('}');
        Ok(())
    }

    fn line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    fn write_text(&self, out: &mut String, text: &str) {
        out.push('"');
        for letter in text.chars() {
            match letter {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\0'..='\u{1f}' => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
                letter if self.ascii && letter > '~' => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                letter => out.push(letter),
            }
        }
        out.push('"');
    }
}

fn number(value: &Value) -> Result<String, Error> {
    if value.is_integer() {
        return Ok(value.to_string());
    }
    Ok(match f64::try_from(value.clone())? {
        number if number.is_nan() => "NaN".to_owned(),
        number if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        number => python::float(number),
    })
}

/// Keys that are no text are written as JSON writes them.
fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => python::str(key),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number => number(key),
        kind => Err(wrong(format!("a key must be a text, a number or none, not {kind}"))),
    }
}
