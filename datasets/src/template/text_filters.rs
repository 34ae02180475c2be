//! Filters over text, as Jinja2's.
//!
//! In:    an environment.
//! Out:   the environment with them.
//! Never: refuses a value that is no text: Jinja2 takes its `str()`.

use minijinja::value::{Rest, ValueOrKwargs};
use minijinja::{Environment, Error, Value};

use super::arguments::{Arguments, integer, wrong};
use super::{methods, python, text};

/// Adds the filters.
pub(crate) fn add(environment: &mut Environment<'static>) {
    environment.add_filter("upper", |value: &Value| python::str(value).map(|text| text.to_uppercase()));
    environment.add_filter("lower", |value: &Value| python::str(value).map(|text| text.to_lowercase()));
    environment.add_filter("capitalize", |value: &Value| python::str(value).map(|text| text::capitalize(&text)));
    environment.add_filter("title", |value: &Value| python::str(value).map(|text| title(&text)));
    environment.add_filter("trim", |values: Rest<ValueOrKwargs>| trim(&values.into_values()));
    environment.add_filter("replace", |values: Rest<ValueOrKwargs>| replace(&values.into_values()));
    environment.add_filter("indent", |values: Rest<ValueOrKwargs>| indent(&values.into_values()));
    for name in ["e", "escape", "forceescape"] {
        environment.add_filter(name, move |value: &Value| escape(value, name));
    }
    environment.add_filter("center", |values: Rest<ValueOrKwargs>| center(&values.into_values()));
    environment.add_filter("wordcount", |value: &Value| words(value));
}

/// Words begin after white space, hyphens and opening brackets.
fn title(text: &str) -> String {
    let mut begins = true;
    let mut out = String::new();
    for letter in text.chars() {
        if begins {
            out.extend(letter.to_uppercase())
        } else {
            out.extend(letter.to_lowercase())
        };
        begins = text::is_space(letter) || matches!(letter, '-' | '(' | '{' | '[' | '<');
    }
    out
}

fn trim(values: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(values, &["value", "chars"])?;
    let text = python::str(&arguments.get(0, "value").unwrap_or_default())?;
    let letters = arguments.some(1, "chars");
    let letters = letters.as_ref().and_then(Value::as_str);
    let goes = |letter: char| letters.map_or_else(|| text::is_space(letter), |letters| letters.contains(letter));
    Ok(Value::from(text.trim_matches(goes)))
}

fn replace(values: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(values, &["s", "old", "new", "count"])?;
    let text = |index, name| {
        arguments.get(index, name).map_or(Err(wrong("replace needs what to replace")), |value| python::str(&value))
    };
    let given = [text(1, "old")?, text(2, "new")?].map(Value::from);
    let count = arguments.integer(3, "count", -1)?;
    methods::replace(&text(0, "s")?, &[given[0].clone(), given[1].clone(), Value::from(count)])
}

fn indent(values: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(values, &["s", "width", "first", "blank"])?;
    let text = python::str(&arguments.get(0, "s").unwrap_or_default())?;
    let space = match arguments.some(1, "width") {
        None => "    ".to_owned(),
        Some(width) => match width.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(integer(&width)?).unwrap_or(0).min(10_000)),
        },
    };
    // Jinja2 adds a line end first, so that a text that ends in one keeps it.
    let text = text + "\n";
    let lines = text::lines(&text);
    let mut out = String::new();
    for (index, (line, _)) in lines.iter().enumerate() {
        let indented =
            if index == 0 { arguments.flag(2, "first") } else { arguments.flag(3, "blank") || !line.is_empty() };
        out.push_str(if index == 0 { "" } else { "\n" });
        out.push_str(if indented { &space } else { "" });
        out.push_str(line);
    }
    Ok(Value::from(out))
}

/// For HTML; what is escaped or declared safe already stays, except by `forceescape`.
fn escape(value: &Value, filter: &str) -> Result<Value, Error> {
    if value.is_safe() && filter != "forceescape" {
        return Ok(value.clone());
    }
    let mut out = String::new();
    for letter in python::str(value)?.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            letter => out.push(letter),
        }
    }
    Ok(Value::from_safe_string(out))
}

fn center(values: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(values, &["value", "width"])?;
    let text = python::str(&arguments.get(0, "value").unwrap_or_default())?;
    methods::pad(&text, "center", &[Value::from(arguments.integer(1, "width", 80)?)])
}

fn words(value: &Value) -> Result<usize, Error> {
    let text = python::str(value)?;
    Ok(text.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).filter(|word| !word.is_empty()).count())
}
