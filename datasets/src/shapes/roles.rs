//! The gates on a conversation: roles follow each other, no answer is empty.
//!
//! In:    messages.
//! Out:   nothing, or the first fault that its gate does not let pass.
//! Never: changes a message.

use crate::content::Message;
use crate::gates::Gates;
use crate::row_error::RowError;

/// Checks the order of `messages`, that the assistant speaks last, and that no answer is empty.
pub(super) fn check(messages: &[Message], allowed: Gates, findings: &mut Gates) -> Result<(), RowError> {
    if let Err(fault) = order(messages) {
        allowed.pass(fault, findings)?;
    }
    let is_empty = |message: &Message| {
        message.role == "assistant" && message.text.trim().is_empty() && message.value.get("tool_calls").is_none()
    };
    if messages.iter().any(is_empty) {
        allowed.pass(RowError::EmptyAnswer, findings)?;
    }
    Ok(())
}

fn order(messages: &[Message]) -> Result<(), RowError> {
    let mut before: Option<&Message> = None;
    for (index, message) in messages.iter().enumerate() {
        let fault = |reason: String| RowError::Roles { message: index + 1, reason };
        let previous = before.map_or("", |before| before.role.as_str());
        let calls = before.is_some_and(|before| before.value.get("tool_calls").is_some());
        match (message.role.as_str(), previous) {
            ("system" | "developer", _) if index == 0 => continue,
            ("system" | "developer", _) => return Err(fault("a system message after the first message".to_owned())),
            ("user", "" | "assistant") | ("assistant", "user" | "tool") | ("tool", "tool") => {}
            ("tool", "assistant") if calls => {}
            ("tool", _) => {
                return Err(fault(
                    "a tool's answer that follows neither a tool call nor another tool's answer".to_owned(),
                ));
            }
            (role, "") => return Err(fault(format!("role {role:?} where the user should speak first"))),
            (role, previous) => return Err(fault(format!("role {role:?} after role {previous:?}"))),
        }
        before = Some(message);
    }
    match messages.last() {
        Some(last) if last.role == "assistant" => Ok(()),
        _ => Err(RowError::NoAnswer),
    }
}
