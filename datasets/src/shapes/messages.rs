//! Messages in the spellings that users have, as the chat template gets them.
//!
//! In:    a list of messages: OpenAI's `role`/`content`, ShareGPT's `from`/`value`.
//! Out:   [`Message`]s.
//! Never: drops a part of a message; checks the order of roles (that is [`super::roles`]).

use serde_json::{Map, Value, json};

use super::columns::shape;
use super::json::{self, kind};
use crate::content::Message;
use crate::row_error::RowError;

/// The messages of `list`.
pub(super) fn messages(list: Vec<Value>) -> Result<Vec<Message>, RowError> {
    if list.is_empty() {
        return Err(shape("the list of messages is empty"));
    }
    list.into_iter().enumerate().map(|(index, value)| message(value, index + 1)).collect()
}

/// A message that says `text`.
pub(super) fn spoken(role: &str, text: String) -> Message {
    let value = json!({"role": role, "content": text});
    Message { role: role.to_owned(), text, train: None, value }
}

/// The row's tools: a list, a list as JSON text, or absent; an empty list is none.
pub(super) fn tools(value: Option<Value>) -> Result<Option<Value>, RowError> {
    let parsed = match value {
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
        Some(Value::String(text)) => Some(json::value(&text).map_err(|fault| shape(format!("the tools: {fault}")))?),
        other => other,
    };
    match parsed {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) if list.is_empty() => Ok(None),
        Some(list @ Value::Array(_)) => Ok(Some(list)),
        Some(other) => Err(shape(format!("the tools must be a list, not {}", kind(&other)))),
    }
}

/// OpenAI's former `functions`, as tools.
pub(super) fn functions(value: Option<Value>) -> Result<Option<Value>, RowError> {
    let wrap = |function: &Value| json!({"type": "function", "function": function});
    let list = tools(value)?;
    Ok(list.as_ref().and_then(Value::as_array).map(|list| Value::Array(list.iter().map(wrap).collect())))
}

fn message(value: Value, number: usize) -> Result<Message, RowError> {
    let fault = |reason: String| shape(format!("message {number}: {reason}"));
    let Value::Object(mut keys) = value else {
        return Err(fault(format!("must be an object, not {}", kind(&value))));
    };
    let train = train(&mut keys).map_err(fault)?;
    // Columnar files and `datasets` write every key that any row has; a null one says nothing.
    keys.retain(|key, value| !value.is_null() || key == "content" || key == "value");
    let renamed = !keys.contains_key("role") && keys.contains_key("from");
    let (role_key, text_key) = if renamed { ("from", "value") } else { ("role", "content") };
    let named = match keys.get(role_key) {
        Some(Value::String(name)) => name.clone(),
        Some(other) => return Err(fault(format!("the key {role_key:?} must hold a string, not {}", kind(other)))),
        None => return Err(fault(format!("no key \"role\" or \"from\"; it has {}", super::columns::names(&keys)))),
    };
    let role = role(&named).ok_or_else(|| {
        fault(format!(
            "role {named:?} is not known; known are system, developer, user (human), assistant (gpt, model, bot, \
             function_call) and tool (function, observation, function_response)"
        ))
    })?;
    let content = keys.get_mut(text_key).map_or(Value::Null, Value::take);
    let mut content = content_text(content).map_err(fault)?;
    if named == "function_call" {
        let calls = content.take().unwrap_or_default();
        keys.insert("tool_calls".to_owned(), calls_of_text(&calls).map_err(fault)?);
    }
    if let Some(call) = keys.shift_remove("function_call") {
        keys.entry("tool_calls").or_insert(json!([{"type": "function", "function": call}]));
    }
    let has_calls = calls(&mut keys).map_err(fault)?;
    if content.is_none() && role != "assistant" {
        return Err(fault(format!(
            "a message of role {role:?} must have text; the key {text_key:?} is absent or null"
        )));
    }
    let value = rebuilt(keys, role_key, role, text_key, content.as_deref(), has_calls);
    Ok(Message { role: role.to_owned(), text: content.unwrap_or_default(), train, value })
}

/// The message with role and content under OpenAI's names, every other key as the row has it, in the row's order. An
/// assistant without text says `null` where it calls tools, as OpenAI's interface answers, else the empty text.
fn rebuilt(
    keys: Map<String, Value>,
    role_key: &str,
    role: &str,
    text_key: &str,
    content: Option<&str>,
    has_calls: bool,
) -> Value {
    let content = match content {
        Some(text) => Value::String(text.to_owned()),
        None if has_calls => Value::Null,
        None => Value::String(String::new()),
    };
    let has_content = keys.contains_key(text_key);
    let mut value = Map::new();
    for (key, held) in keys {
        if key == role_key {
            value.insert("role".to_owned(), Value::String(role.to_owned()));
            if !has_content {
                value.insert("content".to_owned(), content.clone());
            }
        } else if key == text_key {
            value.insert("content".to_owned(), content.clone());
        } else {
            value.insert(key, held);
        }
    }
    Value::Object(value)
}

/// The role that a name stands for.
fn role(name: &str) -> Option<&'static str> {
    match name {
        "system" => Some("system"),
        "developer" => Some("developer"),
        "user" | "human" => Some("user"),
        "assistant" | "gpt" | "chatgpt" | "model" | "bot" | "function_call" => Some("assistant"),
        "tool" | "function" | "observation" | "function_response" | "tool_response" => Some("tool"),
        _ => None,
    }
}

/// `train` (true or false) and OpenAI's `weight` (0 or 1), taken out.
fn train(keys: &mut Map<String, Value>) -> Result<Option<bool>, String> {
    let own = match keys.shift_remove("train") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(train)) => Some(train),
        Some(other) => return Err(format!("the key \"train\" must hold true or false, not {other}")),
    };
    let weight = match keys.shift_remove("weight") {
        None | Some(Value::Null) => None,
        Some(weight) if weight.as_f64() == Some(0.0) => Some(false),
        Some(weight) if weight.as_f64() == Some(1.0) => Some(true),
        Some(other) => return Err(format!("the key \"weight\" must hold 0 or 1, not {other}")),
    };
    match (own, weight) {
        (Some(own), Some(weight)) if own != weight => Err("\"train\" and \"weight\" contradict each other".to_owned()),
        _ => Ok(own.or(weight)),
    }
}

/// A string, null, or parts of type text. The parts' texts are put together for the template too: templates of text
/// models know strings only, and those that know parts write text parts one after the other.
fn content_text(content: Value) -> Result<Option<String>, String> {
    match content {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Array(parts) => {
            let mut text = String::new();
            for (index, part) in parts.iter().enumerate() {
                let number = index + 1;
                match (part["type"].as_str(), part["text"].as_str()) {
                    (Some("text"), Some(part)) => text.push_str(part),
                    (Some("text"), None) => return Err(format!("part {number} of type \"text\" has no text")),
                    (Some(other), _) => {
                        return Err(format!("part {number} is of type {other:?}; only \"text\" can be trained on"));
                    }
                    (None, _) => return Err(format!("part {number} must be {{\"type\": \"text\", \"text\": STRING}}")),
                }
            }
            Ok(Some(text))
        }
        other => Err(format!("the content must be a string, null or a list of text parts, not {}", kind(&other))),
    }
}

/// ShareGPT's `function_call`: one call or a list of them as JSON text, as tool calls.
fn calls_of_text(text: &str) -> Result<Value, String> {
    let parsed = json::value(text).map_err(|fault| format!("the function call: {fault}"))?;
    let calls = match parsed {
        Value::Array(calls) => calls,
        one @ Value::Object(_) => vec![one],
        other => return Err(format!("the function call must be an object or a list of them, not {}", kind(&other))),
    };
    if calls.is_empty() {
        return Err("the function call names no function".to_owned());
    }
    Ok(calls.into_iter().map(|call| json!({"type": "function", "function": call})).collect())
}

/// Whether the message calls tools. Arguments that stand as JSON text of an object become the object, as transformers'
/// documents ask for: templates write them with `tojson`, which would quote a string a second time.
fn calls(keys: &mut Map<String, Value>) -> Result<bool, String> {
    let list = match keys.get_mut("tool_calls") {
        None => return Ok(false),
        Some(Value::Array(list)) if list.is_empty() => {
            keys.shift_remove("tool_calls");
            return Ok(false);
        }
        Some(Value::Array(list)) => list,
        Some(other) => return Err(format!("\"tool_calls\" must be a list, not {}", kind(other))),
    };
    for (index, call) in list.iter_mut().enumerate() {
        let wrapped = call.get("function").is_some();
        let function = if wrapped { call.get_mut("function") } else { Some(call) };
        let function = function.and_then(Value::as_object_mut);
        let Some(function) = function.filter(|function| function.get("name").is_some_and(Value::is_string)) else {
            return Err(format!("tool call {} names no function", index + 1));
        };
        if let Some(Value::String(text)) = function.get("arguments")
            && let Ok(arguments @ Value::Object(_)) = json::value(text)
        {
            function.insert("arguments".to_owned(), arguments);
        }
    }
    Ok(true)
}
