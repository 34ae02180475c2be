//! What a row says, before it becomes tokens: the words that readers, shapes, templates and cleaning share.
//!
//! In:    made by [`crate::files`] (records) and [`crate::shapes`] (contents).
//! Out:   read by [`crate::encode`] and [`crate::clean`].
//! Never: tokenises; renders.

use std::sync::Arc;

use serde_json::Value;

/// Where a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Index of the file, in the order they are read.
    pub file: u32,
    /// Line of a text file, or number of the row or document in other files; from 1.
    pub line: u64,
}

/// One row as its file holds it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    /// Where.
    pub(crate) place: Place,
    /// What.
    pub(crate) raw: Raw,
}

/// The row's bytes, or what a columnar file made of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Raw {
    /// JSON text of one object, not yet known to be UTF-8 or JSON: parsed later, on many threads.
    Json(Vec<u8>),
    /// Fields of a CSV or TSV row, not yet known to be UTF-8.
    Fields {
        /// The header's names, shared by all rows of the file.
        names: Arc<[String]>,
        /// The fields' text, one after the other.
        text: Vec<u8>,
        /// Where each ends in `text`; as many as names.
        ends: Vec<usize>,
    },
    /// A whole document of plain text, not yet known to be UTF-8.
    Document(Vec<u8>),
}

impl Raw {
    /// Bytes of text it holds, about.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Raw::Json(bytes) | Raw::Document(bytes) => bytes.len(),
            Raw::Fields { text, .. } => text.len(),
        }
    }
}

/// What a row says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// Rendered with the chat template; answers are trained on.
    Conversation(Conversation),
    /// Text and how it goes on; the second part is trained on.
    Completion {
        /// Context.
        prompt: String,
        /// Trained on.
        completion: String,
    },
    /// A document, all of it trained on.
    Text(String),
    /// Pieces of text, each trained on or not.
    Segments(Vec<Segment>),
    /// Two answers to one prompt: checked, never encoded.
    Preference(Preference),
}

/// A conversation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Conversation {
    /// Its turns.
    pub(crate) messages: Vec<Message>,
    /// The row's tools as the template gets them; `None` where the row names none.
    pub(crate) tools: Option<Value>,
}

/// One turn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    pub(crate) role: String,
    /// Its text; parts of type text put together; empty where there is none (tool calls only).
    pub(crate) text: String,
    /// `"train"` of the data, which wins over the plan's rule.
    pub(crate) train: Option<bool>,
    /// The message as the template gets it: the row's own keys in their order, without `train` and `weight`.
    pub(crate) value: Value,
}

impl Message {
    /// A turn as a program writes it: `role` and `content`.
    pub(crate) fn of(value: &Value) -> Message {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_string();
        Message { role: text("role"), text: text("content"), train: None, value: value.clone() }
    }
}

/// A piece of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The text.
    pub(crate) text: String,
    /// Whether it is trained on.
    pub(crate) train: bool,
}

/// A preference row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Preference {
    /// What both answer.
    pub(crate) prompt: Vec<Message>,
    /// The better answer.
    pub(crate) chosen: Vec<Message>,
    /// The worse answer.
    pub(crate) rejected: Vec<Message>,
}

impl Content {
    /// The text that cleaning looks at: everything but system messages, since one system text in every row would make all rows alike.
    pub(crate) fn text(&self) -> String {
        match self {
            Content::Conversation(conversation) => joined(&conversation.messages),
            Content::Completion { prompt, completion } => format!("{prompt}\n{completion}"),
            Content::Text(text) => text.clone(),
            Content::Segments(segments) => segments.iter().map(|segment| segment.text.as_str()).collect(),
            Content::Preference(preference) => {
                let parts = [&preference.prompt, &preference.chosen, &preference.rejected];
                parts.map(|messages| joined(messages)).join("\n")
            }
        }
    }
}

fn joined(messages: &[Message]) -> String {
    let spoken = messages.iter().filter(|message| !["system", "developer"].contains(&message.role.as_str()));
    spoken.map(|message| message.text.as_str()).collect::<Vec<_>>().join("\n")
}
