//! What rows say, in all the spellings that users have.
//!
//! In:    records; the source's own words, which win over what the first row shows.
//! Out:   [`Shape`] of a source; [`content`] of each row.
//! Never: drops a row or a part of it; takes a row of another shape than the first one's without a fault.

mod columns;
mod json;
mod messages;
mod preference;
mod roles;
#[cfg(test)]
mod spelling_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use planner::plan::{DataSource, Field, RowFormat};
use serde_json::{Map, Value};

use crate::content::{Content, Conversation, Message, Raw, Segment};
use crate::gates::Gates;
use crate::row_error::RowError;
use columns::{Row, missing, names, shape};
use json::Columns;
use messages::{functions, messages, spoken, tools};

/// A shape's columns in one spelling: those it needs and those it may have.
struct Spelling {
    format: RowFormat,
    needed: &'static [(Field, &'static str)],
    optional: &'static [(Field, &'static str)],
}

const fn spelling(
    format: RowFormat,
    needed: &'static [(Field, &'static str)],
    optional: &'static [(Field, &'static str)],
) -> Spelling {
    Spelling { format, needed, optional }
}

const SYSTEM: (Field, &str) = (Field::System, "system");
const TOOLS: (Field, &str) = (Field::Tools, "tools");

/// All spellings, in the order in which they are looked for: a row may have columns of several, and the richer one is meant.
const SPELLINGS: [Spelling; 11] = [
    spelling(
        RowFormat::Preference,
        &[(Field::Chosen, "chosen"), (Field::Rejected, "rejected")],
        &[(Field::Prompt, "prompt")],
    ),
    spelling(RowFormat::Messages, &[(Field::Messages, "messages")], &[TOOLS, SYSTEM]),
    spelling(RowFormat::Conversations, &[(Field::Messages, "conversations")], &[TOOLS, SYSTEM]),
    spelling(RowFormat::Conversations, &[(Field::Messages, "conversation")], &[TOOLS, SYSTEM]),
    spelling(RowFormat::Segments, &[(Field::Segments, "segments")], &[]),
    spelling(RowFormat::PromptCompletion, &[(Field::Prompt, "prompt"), (Field::Completion, "completion")], &[]),
    spelling(
        RowFormat::Instruction,
        &[(Field::Instruction, "instruction"), (Field::Output, "output")],
        &[(Field::Input, "input"), SYSTEM],
    ),
    // Dolly's names.
    spelling(
        RowFormat::Instruction,
        &[(Field::Instruction, "instruction"), (Field::Output, "response")],
        &[(Field::Input, "context"), SYSTEM],
    ),
    spelling(RowFormat::QuestionAnswer, &[(Field::Question, "question"), (Field::Answer, "answer")], &[SYSTEM]),
    // MetaMath's names.
    spelling(RowFormat::QuestionAnswer, &[(Field::Question, "query"), (Field::Answer, "response")], &[SYSTEM]),
    spelling(RowFormat::Text, &[(Field::Text, "text")], &[]),
];

/// Format and column names of a source.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    /// What its rows are.
    pub(crate) format: RowFormat,
    /// What each field's column is called.
    columns: BTreeMap<Field, String>,
}

impl Shape {
    /// The shape of `source`, whose first row is `first`: the recipe's words where there are any, else what the row's columns show.
    pub(crate) fn detect(first: &Raw, source: &DataSource) -> Result<Shape, RowError> {
        // Bytes that are not UTF-8 are judged when the row is read: they do not change its columns.
        let everything = Gates::of(&[planner::plan::Gate::Utf8]);
        let columns = match json::parse(first.clone(), everything, &mut Gates::default())? {
            Columns::Named(columns) => columns,
            Columns::Document(_) => return document(source),
        };
        let fits_words = |spelling: &&Spelling| {
            let fields = || spelling.needed.iter().chain(spelling.optional).map(|(field, _)| field);
            let knows_mapped = source.columns.keys().all(|mapped| fields().any(|field| field == mapped));
            source.format.is_none_or(|format| format == spelling.format) && knows_mapped
        };
        let possible: Vec<&Spelling> = SPELLINGS.iter().filter(fits_words).collect();
        let name = |field: Field, usual: &str| source.columns.get(&field).cloned().unwrap_or(usual.to_owned());
        let is_there = |spelling: &&&Spelling| {
            spelling.needed.iter().all(|(field, usual)| columns.contains_key(&name(*field, usual)))
        };
        let Some(chosen) = possible.iter().find(is_there) else {
            return Err(unknown(&possible, source, &columns));
        };
        let named = chosen.needed.iter().chain(chosen.optional);
        let shape = Shape {
            format: chosen.format,
            columns: named.map(|(field, usual)| (*field, name(*field, usual))).collect(),
        };
        match source.columns.iter().find(|(_, column)| !columns.contains_key(*column)) {
            Some((_, column)) => Err(missing(column, &columns)),
            None => Ok(shape),
        }
    }

    /// What the column of `field` is called; empty for a field that the shape has not.
    pub(crate) fn column(&self, field: Field) -> &str {
        self.columns.get(&field).map_or("", String::as_str)
    }
}

fn document(source: &DataSource) -> Result<Shape, RowError> {
    match source.format {
        None | Some(RowFormat::Text) => {
            Ok(Shape { format: RowFormat::Text, columns: BTreeMap::from([(Field::Text, "text".to_owned())]) })
        }
        Some(format) => Err(shape(format!("a document of plain text cannot be read as format {}", word(format)))),
    }
}

/// No spelling fits: says what was looked for and what is there.
fn unknown(possible: &[&Spelling], source: &DataSource, columns: &Map<String, Value>) -> RowError {
    let mapped = |field: Field, usual: &str| source.columns.get(&field).cloned().unwrap_or(usual.to_owned());
    if let (Some(first), true) = (possible.first(), source.format.is_some() || !source.columns.is_empty()) {
        let absent = first.needed.iter().map(|(field, usual)| mapped(*field, usual));
        if let Some(absent) = absent.into_iter().find(|name| !columns.contains_key(name)) {
            return missing(&absent, columns);
        }
    }
    if possible.is_empty() {
        let fields: Vec<String> = source.columns.keys().map(|field| format!("{field:?}").to_lowercase()).collect();
        let of = source.format.map_or("no format".to_owned(), |format| format!("format {} does not", word(format)));
        return shape(format!("{of} has all of the mapped columns {}", fields.join(", ")));
    }
    shape(format!(
        "the row's columns ({}) are those of no known format: messages, conversations, instruction and output, question \
         and answer, prompt and completion, text, segments, or chosen and rejected; name them in the source, for example \
         columns = {{ question = \"COLUMN\", answer = \"COLUMN\" }}",
        names(columns)
    ))
}

fn word(format: RowFormat) -> String {
    serde_json::to_string(&format).unwrap_or_default()
}

/// What the row says. Gates in `allowed` do not refuse it; what they would have refused is put into `findings`.
pub(crate) fn content(raw: Raw, shape: &Shape, allowed: Gates, findings: &mut Gates) -> Result<Content, RowError> {
    let columns = match json::parse(raw, allowed, findings)? {
        Columns::Document(text) => return whole(text, allowed, findings),
        Columns::Named(columns) => columns,
    };
    let mut row = Row { columns, shape };
    match shape.format {
        RowFormat::Messages | RowFormat::Conversations => conversation(row, allowed, findings),
        RowFormat::Instruction => instruction(row, allowed, findings),
        RowFormat::QuestionAnswer => {
            let system = row.optional_text(Field::System)?.map(|text| spoken("system", text));
            let question = spoken("user", row.text(Field::Question)?);
            let answer = spoken("assistant", row.answer(Field::Answer)?);
            checked(system.into_iter().chain([question, answer]).collect(), None, allowed, findings)
        }
        RowFormat::PromptCompletion => completion(row, allowed, findings),
        RowFormat::Text => whole(row.answer(Field::Text)?, allowed, findings),
        RowFormat::Segments => segments(row.list(Field::Segments)?, allowed, findings),
        RowFormat::Preference => preference::preference(row, allowed, findings),
    }
}

fn checked(
    messages: Vec<Message>,
    tools: Option<Value>,
    allowed: Gates,
    findings: &mut Gates,
) -> Result<Content, RowError> {
    roles::check(&messages, allowed, findings)?;
    Ok(Content::Conversation(Conversation { messages, tools }))
}

fn conversation(mut row: Row, allowed: Gates, findings: &mut Gates) -> Result<Content, RowError> {
    let mut list = messages(row.list(Field::Messages)?)?;
    if let Some(system) = row.optional_text(Field::System)? {
        match list.first() {
            Some(first) if first.role != "system" => list.insert(0, spoken("system", system)),
            Some(first) if first.text == system => {}
            _ => {
                let name = row.shape.column(Field::System);
                return Err(shape(format!("the column {name:?} and the first message say different system texts")));
            }
        }
    }
    let tools = match tools(row.take(Field::Tools))? {
        Some(tools) => Some(tools),
        None => functions(row.columns.get_mut("functions").map(Value::take))?,
    };
    checked(list, tools, allowed, findings)
}

/// Alpaca's row: the input, if there is one, follows the instruction after an empty line; earlier turns stand in `history`.
fn instruction(mut row: Row, allowed: Gates, findings: &mut Gates) -> Result<Content, RowError> {
    let mut list: Vec<Message> = Vec::new();
    list.extend(row.optional_text(Field::System)?.map(|text| spoken("system", text)));
    if let Some(history) = row.columns.get_mut("history").map(Value::take).filter(|value| !value.is_null()) {
        for turn in columns::list(history, "history")? {
            let pair = turn.as_array().map(Vec::as_slice).unwrap_or_default();
            let [Value::String(question), Value::String(answer)] = pair else {
                return Err(shape("each turn of \"history\" must be a list of two strings"));
            };
            list.extend([spoken("user", question.clone()), spoken("assistant", answer.clone())]);
        }
    }
    let (instruction, input) = (row.text(Field::Instruction)?, row.optional_text(Field::Input)?);
    let question = match input {
        Some(input) if instruction.trim().is_empty() => input,
        Some(input) => format!("{instruction}\n\n{input}"),
        None => instruction,
    };
    list.extend([spoken("user", question), spoken("assistant", row.answer(Field::Output)?)]);
    checked(list, None, allowed, findings)
}

fn completion(mut row: Row, allowed: Gates, findings: &mut Gates) -> Result<Content, RowError> {
    match (row.need(Field::Prompt)?, row.need(Field::Completion)?) {
        (Value::Array(prompt), Value::Array(completion)) => {
            let mut list = messages(prompt)?;
            // The prompt is context, whatever the plan's rule; a message's own word still wins.
            list.iter_mut().for_each(|message| message.train = message.train.or(Some(false)));
            list.extend(messages(completion)?);
            let tools = tools(row.columns.get_mut("tools").map(Value::take))?;
            checked(list, tools, allowed, findings)
        }
        (Value::Array(_), _) | (_, Value::Array(_)) => {
            Err(shape("prompt and completion must both be strings or both be lists of messages"))
        }
        (prompt, completion) => {
            let prompt = columns::text(prompt, row.shape.column(Field::Prompt))?;
            let completion = match completion {
                Value::Null => String::new(),
                completion => columns::text(completion, row.shape.column(Field::Completion))?,
            };
            if completion.trim().is_empty() {
                allowed.pass(RowError::EmptyAnswer, findings)?;
            }
            Ok(Content::Completion { prompt, completion })
        }
    }
}

fn whole(text: String, allowed: Gates, findings: &mut Gates) -> Result<Content, RowError> {
    if text.trim().is_empty() {
        allowed.pass(RowError::NothingTrained, findings)?;
    }
    Ok(Content::Text(text))
}

/// `{"text", "train"}`; Axolotl calls the second `label`.
fn segments(list: Vec<Value>, allowed: Gates, findings: &mut Gates) -> Result<Content, RowError> {
    let mut segments = Vec::with_capacity(list.len());
    for (index, value) in list.into_iter().enumerate() {
        let train = value.get("train").or(value.get("label")).and_then(Value::as_bool);
        match (value.get("text").and_then(Value::as_str), train) {
            (Some(text), Some(train)) => segments.push(Segment { text: text.to_owned(), train }),
            _ => {
                let number = index + 1;
                return Err(shape(format!("segment {number} must be {{\"text\": STRING, \"train\": true or false}}")));
            }
        }
    }
    if !segments.iter().any(|segment| segment.train && !segment.text.is_empty()) {
        allowed.pass(RowError::NothingTrained, findings)?;
    }
    Ok(Content::Segments(segments))
}
