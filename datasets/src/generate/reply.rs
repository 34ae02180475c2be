//! Finds the pairs in what a model said.
//!
//! In:    a reply: JSON, or JSON in a code fence, after thoughts, in prose, as lines, or cut off at its end.
//! Out:   candidates, not yet judged; nothing if there is no JSON of that form.
//! Never: repairs text: a pair is taken as it stands or not at all.

use serde_json::{Map, Value};

/// A pair, or something in its place that is none (told as JSON).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Candidate {
    Pair { question: String, answer: String },
    Other(String),
}

/// Places where JSON is looked for: a bound on hostile replies.
const STARTS_MAX: usize = 10_000;

/// The candidates of `reply`, `None` if it holds no JSON of the wanted form.
pub(crate) fn candidates(reply: &str) -> Option<Vec<Candidate>> {
    let values = values(without_thoughts(reply)?);
    let lists: Vec<Vec<Candidate>> = values.iter().filter_map(from_value).collect();
    (!lists.is_empty()).then(|| lists.into_iter().flatten().collect())
}

/// What follows the last thinking block; `None` if the model never stopped thinking.
fn without_thoughts(reply: &str) -> Option<&str> {
    for (open, close) in [("<think>", "</think>"), ("<thinking>", "</thinking>")] {
        if let Some(end) = reply.rfind(close) {
            return Some(&reply[end + close.len()..]);
        }
        if reply.trim_start().starts_with(open) {
            return None;
        }
    }
    Some(reply)
}

/// All JSON objects and lists in `text`, outermost ones, in order.
fn values(text: &str) -> Vec<Value> {
    let mut values = Vec::new();
    let mut at = 0;
    for _ in 0..STARTS_MAX {
        let Some(start) = text[at..].find(['{', '[']) else { break };
        at += start;
        let mut stream = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        match stream.next() {
            Some(Ok(value)) => {
                at += stream.byte_offset();
                values.push(value);
            }
            _ => at += 1,
        }
    }
    values
}

fn from_value(value: &Value) -> Option<Vec<Candidate>> {
    match value {
        Value::Array(items) if items.is_empty() || items.iter().any(|item| pair(item).is_some()) => Some(list(items)),
        Value::Object(fields) => match fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("pairs")) {
            Some((_, Value::Array(items))) => Some(list(items)),
            Some((_, one)) => pair(one).map(|pair| vec![pair]),
            None => pair(value).map(|pair| vec![pair]),
        },
        _ => None,
    }
}

fn list(items: &[Value]) -> Vec<Candidate> {
    items.iter().map(|item| pair(item).unwrap_or_else(|| Candidate::Other(item.to_string()))).collect()
}

fn pair(value: &Value) -> Option<Candidate> {
    let fields = value.as_object()?;
    Some(Candidate::Pair { question: text(fields, "question")?, answer: text(fields, "answer")? })
}

fn text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    match fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?.1 {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
