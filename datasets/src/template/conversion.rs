//! A conversation as the variables that a template sees.
//!
//! In:    messages and tools as JSON.
//! Out:   values, made once per conversation and shared by all its renders.
//! Never: changes a text.

use minijinja::Value;
use serde_json::Value as Json;

use super::{CLOSE, OPEN, Until};

/// The names that reasoning goes by; transformers gives every template the first two (`_alias_reasoning_fields`).
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A conversation's turns, ready to render.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    messages: Vec<Value>,
    tools: Value,
}

impl Turns {
    /// Converts messages (as the template gets them) and the row's tools.
    pub(crate) fn new<'a>(messages: impl Iterator<Item = &'a Json>, tools: Option<&Json>) -> Turns {
        Turns { messages: messages.map(message).collect(), tools: tools.map_or(Value::from(()), value) }
    }

    /// How many turns.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.messages.len()
    }

    /// Whether a text holds one of the code points that mark generation blocks.
    pub(crate) fn holds_marks(&self) -> bool {
        self.messages.iter().chain([&self.tools]).any(holds_marks)
    }

    /// What the template sees.
    pub(crate) fn variables(&self, until: Until, specials: &[(&'static str, Value)]) -> Value {
        let (count, generate) = match until {
            Until::End => (self.messages.len(), false),
            Until::Turn(count) => (count, false),
            Until::Answer(count) => (count, true),
        };
        let messages = self.messages.get(..count).unwrap_or(&self.messages).to_vec();
        let own = [
            ("messages", Value::from(messages)),
            ("tools", self.tools.clone()),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(generate)),
        ];
        own.into_iter().chain(specials.iter().cloned()).collect::<Variables>().into()
    }
}

/// The few variables of a render, found by comparing names: cheaper than a map.
#[derive(Debug)]
struct Variables(Vec<(&'static str, Value)>);

impl FromIterator<(&'static str, Value)> for Variables {
    fn from_iter<I: IntoIterator<Item = (&'static str, Value)>>(pairs: I) -> Variables {
        Variables(pairs.into_iter().collect())
    }
}

impl From<Variables> for Value {
    fn from(variables: Variables) -> Value {
        Value::from_object(variables)
    }
}

impl minijinja::value::Object for Variables {
    fn get_value(self: &std::sync::Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &std::sync::Arc<Self>, key: &str) -> Option<Value> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone())
    }
}

fn message(json: &Json) -> Value {
    let reasoning = REASONING.iter().map(|name| &json[*name]).find(|value| !value.is_null());
    let (Some(reasoning), Json::Object(object)) = (reasoning, json) else { return value(json) };
    // Python's {"thinking": r, **message, "reasoning_content": r}.
    let mut aliased = serde_json::Map::new();
    aliased.insert("thinking".to_owned(), reasoning.clone());
    aliased.extend(object.iter().map(|(key, item)| (key.clone(), item.clone())));
    aliased.insert("reasoning_content".to_owned(), reasoning.clone());
    value(&Json::Object(aliased))
}

/// JSON as the engine's value.
pub(crate) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(truth) => Value::from(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(value).collect::<Vec<Value>>()),
        Json::Object(object) => Value::from_pairs(object.iter().map(|(key, item)| (key.as_str(), value(item)))),
    }
}

fn holds_marks(value: &Value) -> bool {
    match value.as_str() {
        Some(text) => text.contains([OPEN, CLOSE]),
        None => match value.as_object() {
            Some(_) if value.kind() == minijinja::value::ValueKind::Map => {
                super::python::pairs(value).any(|(key, item)| holds_marks(&key) || holds_marks(&item))
            }
            Some(object) => object.try_iter().is_some_and(|mut items| items.any(|item| holds_marks(&item))),
            None => false,
        },
    }
}
