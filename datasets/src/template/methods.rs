//! Methods of Python's types, for values that have none in minijinja.
//!
//! In:    a value, a method's name, arguments.
//! Out:   what Python gives, or an error where Python raises one.
//! Never: changes a value: the sandbox of transformers refuses methods that do.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::arguments::{Arguments, integer, wrong};
use super::source::SLICE;
use super::{collections, python, text};

/// Longest text that a method makes longer, bytes.
const LENGTH_MAX: usize = 64 << 20;

/// minijinja's callback for methods that it does not know.
pub(crate) fn call(_: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Undefined => Err(wrong(format!("an undefined value has no method {method:?}"))),
        _ if method == SLICE => slice(value, args),
        ValueKind::String => string(value.as_str().unwrap_or_default(), method, args),
        ValueKind::Seq | ValueKind::Iterable => collections::list(value, method, args),
        ValueKind::Map if python::is_dict(value) => collections::dict(value, method, args),
        _ => Err(unknown()),
    }
}

/// No such method: minijinja adds the name.
pub(crate) fn unknown() -> Error {
    Error::from(ErrorKind::UnknownMethod)
}

/// `value[start:stop:step]`.
fn slice(value: &Value, args: &[Value]) -> Result<Value, Error> {
    let place = |index: usize| args.get(index).filter(|value| !value.is_none()).map(integer).transpose();
    // Python raises TypeError, which Jinja2 turns into an undefined value.
    let (Ok(start), Ok(stop), Ok(step)) = (place(0), place(1), place(2)) else { return Ok(Value::UNDEFINED) };
    let step = step.unwrap_or(1);
    if !matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Iterable) {
        let unhashable = value.kind() == ValueKind::Map;
        return if unhashable { Err(wrong("a mapping cannot be sliced")) } else { Ok(Value::UNDEFINED) };
    }
    if step == 0 {
        return Err(wrong("slice step cannot be zero"));
    }
    if let Some(text) = value.as_str() {
        let letters: Vec<char> = text.chars().collect();
        let places = text::slice(start, stop, step, letters.len());
        return Ok(Value::from(places.into_iter().map(|place| letters[place]).collect::<String>()));
    }
    let items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, Error>>()?;
    let places = text::slice(start, stop, step, items.len());
    let taken: Vec<Value> = places.into_iter().map(|place| items[place].clone()).collect();
    Ok(if value.is_tuple() { Value::from(Tuple::from(taken)) } else { Value::from(taken) })
}

fn string(s: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "strip" | "lstrip" | "rstrip" => strip(s, method, args),
        "split" | "rsplit" => split(s, method == "rsplit", args),
        "splitlines" => {
            let keep = Arguments::new(args, &["keepends"])?.flag(0, "keepends");
            let line = |(line, end): (&str, &str)| if keep { format!("{line}{end}") } else { line.to_owned() };
            Ok(text::lines(s).into_iter().map(line).collect())
        }
        "startswith" | "endswith" => starts(s, method == "endswith", args),
        "find" | "rfind" | "index" | "rindex" | "count" => find(s, method, args),
        "replace" => replace(s, args),
        "join" => join(s, args),
        "partition" | "rpartition" => partition(s, method == "rpartition", args),
        "removeprefix" | "removesuffix" => {
            let affix = Arguments::new(args, &["affix"])?.text(0, "affix")?;
            let affix = affix.as_str().unwrap_or_default();
            let rest = if method == "removeprefix" { s.strip_prefix(affix) } else { s.strip_suffix(affix) };
            Ok(Value::from(rest.unwrap_or(s)))
        }
        "ljust" | "rjust" | "center" | "zfill" | "expandtabs" => pad(s, method, args),
        "format" => format(FormatStyle::StrFormat, s, args).map(Value::from),
        _ => case(s, method, args),
    }
}

fn case(s: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let all = |test: fn(char) -> bool| Value::from(!s.is_empty() && s.chars().all(test));
    let (upper, lower) = (s.chars().any(char::is_uppercase), s.chars().any(char::is_lowercase));
    let value = match method {
        "upper" => Value::from(s.to_uppercase()),
        "lower" => Value::from(s.to_lowercase()),
        "casefold" => Value::from(s.to_lowercase().replace('ß', "ss").replace('ς', "σ")),
        "title" => Value::from(text::title(s)),
        "capitalize" => Value::from(text::capitalize(s)),
        "swapcase" => {
            let swap = |letter: char| match letter.is_uppercase() {
                true => letter.to_lowercase().collect::<String>(),
                false => letter.to_uppercase().collect(),
            };
            Value::from(s.chars().map(swap).collect::<String>())
        }
        "isdigit" => all(text::is_digit),
        "isdecimal" => all(text::is_decimal),
        "isnumeric" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(|letter| letter.is_alphabetic() || letter.is_numeric()),
        "isspace" => all(text::is_space),
        "isascii" => Value::from(s.is_ascii()),
        "isupper" => Value::from(upper && !lower),
        "islower" => Value::from(lower && !upper),
        "istitle" => Value::from((upper || lower) && text::title(s) == s),
        "isidentifier" => {
            let word = s.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
            Value::from(word && s.chars().next().is_some_and(|first| !first.is_numeric()))
        }
        _ => return Err(unknown()),
    };
    Arguments::new(args, &[])?;
    Ok(value)
}

fn strip(s: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let letters = Arguments::new(args, &["chars"])?.some(0, "chars");
    let letters = match &letters {
        Some(letters) => Some(letters.as_str().ok_or_else(|| wrong("strip takes a string"))?),
        None => None,
    };
    let goes = |letter: char| letters.map_or_else(|| text::is_space(letter), |letters| letters.contains(letter));
    let s = if method == "rstrip" { s } else { s.trim_start_matches(goes) };
    Ok(Value::from(if method == "lstrip" { s } else { s.trim_end_matches(goes) }))
}

fn split(s: &str, backwards: bool, args: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(args, &["sep", "maxsplit"])?;
    let splits = usize::try_from(arguments.integer(1, "maxsplit", -1)?).unwrap_or(usize::MAX);
    let mut parts: Vec<&str> = match arguments.some(0, "sep") {
        None => split_space(s, backwards, splits),
        Some(separator) => match separator.as_str() {
            None => return Err(wrong("split needs a string")),
            Some("") => return Err(wrong("empty separator")),
            Some(separator) if backwards => s.rsplitn(splits.saturating_add(1), separator).collect(),
            Some(separator) => s.splitn(splits.saturating_add(1), separator).collect(),
        },
    };
    if backwards {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Words; what is left after `splits` of them is one part, with the white space at its far end. Backwards, the last word
/// comes first.
fn split_space(s: &str, backwards: bool, splits: usize) -> Vec<&str> {
    let trim = |s: &str| -> std::ops::Range<usize> {
        match backwards {
            true => 0..s.trim_end_matches(text::is_space).len(),
            false => s.len() - s.trim_start_matches(text::is_space).len()..s.len(),
        }
    };
    let border = |s: &str| match backwards {
        true => s.rfind(text::is_space),
        false => s.find(text::is_space),
    };
    let mut parts = Vec::new();
    let mut rest = &s[trim(s)];
    while !rest.is_empty() {
        let Some(at) = border(rest).filter(|_| parts.len() < splits) else {
            parts.push(rest);
            break;
        };
        let behind = at + rest[at..].chars().next().map_or(1, char::len_utf8);
        parts.push(if backwards { &rest[behind..] } else { &rest[..at] });
        let left = if backwards { &rest[..at] } else { &rest[at..] };
        rest = &left[trim(left)];
    }
    parts
}

fn starts(s: &str, ends: bool, args: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(args, &["affix", "start", "end"])?;
    let affix = arguments.get(0, "affix").ok_or_else(|| wrong("startswith needs a string"))?;
    let end = arguments.some(2, "end").map(|end| integer(&end)).transpose()?;
    let part = text::window(s, arguments.integer(1, "start", 0)?, end);
    let fits =
        |affix: &str| part.is_some_and(|(_, part)| if ends { part.ends_with(affix) } else { part.starts_with(affix) });
    if let Some(affix) = affix.as_str() {
        return Ok(Value::from(fits(affix)));
    }
    if !affix.is_tuple() {
        return Err(wrong(format!("startswith needs a string or a tuple of strings, not {}", affix.kind())));
    }
    for option in affix.try_iter()? {
        if fits(option.as_str().ok_or_else(|| wrong("startswith needs a tuple of strings"))?) {
            return Ok(Value::from(true));
        }
    }
    Ok(Value::from(false))
}

fn find(s: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(args, &["sub", "start", "end"])?;
    let sought = arguments.text(0, "sub")?;
    let sought = sought.as_str().unwrap_or_default();
    let end = arguments.some(2, "end").map(|end| integer(&end)).transpose()?;
    let part = text::window(s, arguments.integer(1, "start", 0)?, end);
    if method == "count" {
        return Ok(Value::from(part.map_or(0, |(_, part)| part.matches(sought).count())));
    }
    let at = part.and_then(|(from, part)| {
        let at = if method.starts_with('r') { part.rfind(sought) } else { part.find(sought) };
        at.map(|at| text::characters_before(s, from + at))
    });
    match at {
        None if method.ends_with("index") => Err(wrong("substring not found")),
        at => Ok(Value::from(at.unwrap_or(-1))),
    }
}

/// `str.replace(old, new, count=-1)`.
pub(crate) fn replace(s: &str, args: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(args, &["old", "new", "count"])?;
    let (old, new) = (arguments.text(0, "old")?, arguments.text(1, "new")?);
    let (old, new) = (old.as_str().unwrap_or_default(), new.as_str().unwrap_or_default());
    let count = usize::try_from(arguments.integer(2, "count", -1)?).unwrap_or(usize::MAX);
    let grown = s.matches(old).count().min(count).saturating_mul(new.len());
    if grown.saturating_add(s.len()) > LENGTH_MAX {
        return Err(wrong(format!("replace would write more than {LENGTH_MAX} bytes")));
    }
    Ok(Value::from(s.replacen(old, new, count)))
}

fn join(s: &str, args: &[Value]) -> Result<Value, Error> {
    let items = Arguments::new(args, &["iterable"])?.get(0, "iterable").ok_or_else(|| wrong("join needs a list"))?;
    let mut out = String::new();
    for (index, item) in items.try_iter()?.checked().enumerate() {
        let item = item?;
        out.push_str(if index == 0 { "" } else { s });
        out.push_str(
            item.as_str().ok_or_else(|| wrong(format!("item {index}: a string is needed, not {}", item.kind())))?,
        );
    }
    Ok(Value::from(out))
}

fn partition(s: &str, backwards: bool, args: &[Value]) -> Result<Value, Error> {
    let separator = Arguments::new(args, &["sep"])?.text(0, "sep")?;
    let separator = separator.as_str().unwrap_or_default();
    if separator.is_empty() {
        return Err(wrong("empty separator"));
    }
    let parts = match if backwards { s.rsplit_once(separator) } else { s.split_once(separator) } {
        Some((left, right)) => [left, separator, right],
        None if backwards => ["", "", s],
        None => [s, "", ""],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

/// Methods that widen a text.
pub(crate) fn pad(s: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(args, &["width", "fillchar"])?;
    let absent = if method == "expandtabs" { 8 } else { 0 };
    let width = usize::try_from(arguments.integer(0, "width", absent)?).unwrap_or(0);
    if width > LENGTH_MAX {
        return Err(wrong(format!("a width of {width} is more than {LENGTH_MAX}")));
    }
    let fill = arguments.some(1, "fillchar").and_then(|fill| fill.as_str()?.chars().next()).unwrap_or(' ');
    let missing = width.saturating_sub(s.chars().count());
    let filled = |count: usize, with: char| std::iter::repeat_n(with, count).collect::<String>();
    Ok(Value::from(match method {
        "ljust" => s.to_owned() + &filled(missing, fill),
        "rjust" => filled(missing, fill) + s,
        "zfill" => {
            let sign = usize::from(s.starts_with(['-', '+']));
            format!("{}{}{}", &s[..sign], filled(missing, '0'), &s[sign..])
        }
        "center" => {
            let left = missing / 2 + (missing & width & 1);
            filled(left, fill) + s + &filled(missing - left, fill)
        }
        _ => expand_tabs(s, width),
    }))
}

fn expand_tabs(s: &str, width: usize) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for letter in s.chars() {
        match letter {
            '\t' => {
                let spaces = if width == 0 { 0 } else { width - column % width };
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            letter => {
                out.push(letter);
                column = if matches!(letter, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    out
}
