//! Preference rows: two answers to one prompt.
//!
//! In:    a row with `chosen` and `rejected`, and perhaps `prompt`; strings or lists of messages.
//! Out:   a [`Preference`].
//! Never: takes one spelling for another without the lists' own roles saying so.

use planner::plan::Field;
use serde_json::Value;

use super::columns::{self, Row, shape};
use super::messages::{messages, spoken};
use super::roles;
use crate::content::{Content, Message, Preference};
use crate::gates::Gates;
use crate::row_error::RowError;

/// Reads a preference row. Without a prompt, what both answers begin with is the prompt (TRL's implicit prompt).
pub(super) fn preference(mut row: Row, allowed: Gates, findings: &mut Gates) -> Result<Content, RowError> {
    let prompt = match row.take(Field::Prompt) {
        None => None,
        Some(value) => Some(side(value, "user", row.shape.column(Field::Prompt))?),
    };
    let (chosen, rejected) = (row.need(Field::Chosen)?, row.need(Field::Rejected)?);
    if chosen == rejected {
        return Err(shape("the chosen and the rejected answer are the same"));
    }
    let found = match (chosen, rejected) {
        (Value::String(chosen), Value::String(rejected)) if prompt.is_none() => without_prefix(&chosen, &rejected),
        (chosen, rejected) => {
            let mut chosen = side(chosen, "assistant", row.shape.column(Field::Chosen))?;
            let mut rejected = side(rejected, "assistant", row.shape.column(Field::Rejected))?;
            let shared = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
            let implicit = chosen.drain(..shared).collect();
            rejected.drain(..shared);
            Preference { prompt: implicit, chosen, rejected }
        }
    };
    let Preference { prompt: implicit, chosen, rejected } = found;
    let prompt = match (prompt, implicit.is_empty()) {
        (Some(prompt), true) => prompt,
        // The lists repeat the prompt, with its system message if there is one: theirs is the whole.
        (_, false) => implicit,
        (None, true) => {
            return Err(shape("no column for the prompt, and the two answers begin with nothing in common"));
        }
    };
    for answer in [&chosen, &rejected] {
        let whole: Vec<Message> = prompt.iter().chain(answer).cloned().collect();
        roles::check(&whole, allowed, findings)?;
    }
    Ok(Content::Preference(Preference { prompt, chosen, rejected }))
}

/// Text of `role`, or a list of messages.
fn side(value: Value, role: &str, name: &str) -> Result<Vec<Message>, RowError> {
    match value {
        Value::Null => Ok(vec![spoken(role, String::new())]),
        Value::String(text) if !text.trim_start().starts_with("[{") => Ok(vec![spoken(role, text)]),
        other => messages(columns::list(other, name)?),
    }
}

/// Two texts without what they begin with, which is cut at white space, as TRL does.
fn without_prefix(chosen: &str, rejected: &str) -> Preference {
    let shared = chosen.char_indices().zip(rejected.chars()).find(|((_, a), b)| a != b).map(|((at, _), _)| at);
    let shared = shared.unwrap_or(chosen.len().min(rejected.len()));
    let cut = chosen[..shared].rfind(char::is_whitespace).unwrap_or(0);
    let (prompt, answer) = chosen.split_at(cut);
    let prompt = if prompt.trim().is_empty() { Vec::new() } else { vec![spoken("user", prompt.to_owned())] };
    let answers = [answer, &rejected[cut..]].map(|text| vec![spoken("assistant", text.to_owned())]);
    let [chosen, rejected] = answers;
    Preference { prompt, chosen, rejected }
}
