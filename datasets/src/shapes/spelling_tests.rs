//! Messages in the spellings that users have.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::tests::{conversation, refused, turns};

#[test]
fn openai_messages_keep_their_own_keys_in_order() {
    let call = json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}});
    let row = json!({
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"content": "hi", "role": "user", "name": "Ada"},
            {"role": "assistant", "content": null, "tool_calls": [call], "reasoning_content": "think"},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
            {"role": "assistant", "content": "done", "weight": 1, "refusal": null}
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}]
    });
    let read = conversation(row);
    assert_eq!(
        turns(&read),
        [("developer", "ab"), ("user", "hi"), ("assistant", ""), ("tool", "1"), ("assistant", "done")]
    );
    let texts: Vec<String> = read.messages.iter().map(|message| message.value.to_string()).collect();
    assert_eq!(texts[0], r#"{"role":"developer","content":"ab"}"#);
    assert_eq!(texts[1], r#"{"content":"hi","role":"user","name":"Ada"}"#);
    // Arguments that were JSON text are an object now, in their own place.
    let calls = r#""tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":{"x":1}}}]"#;
    assert_eq!(texts[2], format!(r#"{{"role":"assistant","content":null,{calls},"reasoning_content":"think"}}"#));
    assert_eq!(texts[4], r#"{"role":"assistant","content":"done"}"#);
    assert_eq!(read.messages[4].train, Some(true));
    assert_eq!(read.tools, Some(json!([{"type": "function", "function": {"name": "f"}}])));
}

#[test]
fn what_cannot_be_trained_on_is_refused_by_name() {
    let with = |message: serde_json::Value| json!({"messages": [{"role": "user", "content": "q"}, message]});
    let image = json!({"role": "assistant", "content": [{"type": "image_url", "image_url": {}}]});
    refused(with(image), "message 2: part 1 is of type \"image_url\"");
    refused(with(json!({"role": "moderator", "content": "x"})), "role \"moderator\" is not known; known are system");
    refused(with(json!({"content": "x"})), "message 2: no key \"role\" or \"from\"; it has \"content\"");
    refused(with(json!({"role": "assistant", "content": 7})), "not a number");
    refused(with(json!("x")), "message 2: must be an object, not a string");
    refused(with(json!({"role": "assistant", "content": "x", "weight": 0.5})), "\"weight\" must hold 0 or 1, not 0.5");
    refused(with(json!({"role": "assistant", "content": "x", "train": "no"})), "\"train\" must hold true or false");
    refused(with(json!({"role": "assistant", "content": "x", "train": true, "weight": 0})), "contradict");
    refused(with(json!({"role": "assistant", "tool_calls": [{"id": 1}]})), "tool call 1 names no function");
    refused(json!({"messages": [{"role": "user"}]}), "message 1: a message of role \"user\" must have text");
    refused(json!({"messages": []}), "the list of messages is empty");
    refused(json!({"messages": "hello"}), "must hold a list, not a string");
}

#[test]
fn an_absent_content_beside_a_tool_call_reads_like_null() {
    let call = json!([{"type": "function", "function": {"name": "f", "arguments": {}}}]);
    let row = |message: serde_json::Value| json!({"messages": [{"role": "user", "content": "q"}, message]});
    let absent = conversation(row(json!({"role": "assistant", "tool_calls": call})));
    let null = conversation(row(json!({"role": "assistant", "content": null, "tool_calls": call})));
    assert_eq!(absent, null);
    assert_eq!(absent.messages[1].value["content"], json!(null));
}

#[test]
fn openais_former_functions_become_tools() {
    let read = conversation(json!({
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "1"},
            {"role": "assistant", "content": "a"}
        ],
        "functions": [{"name": "f"}]
    }));
    assert_eq!(read.tools, Some(json!([{"type": "function", "function": {"name": "f"}}])));
    let call = json!([{"type": "function", "function": {"name": "f", "arguments": {}}}]);
    assert_eq!(read.messages[1].value["tool_calls"], call);
    assert_eq!(read.messages[2].value, json!({"role": "tool", "name": "f", "content": "1"}));
}

#[test]
fn sharegpt_conversations_read_like_messages() {
    let read = conversation(json!({
        "conversations": [
            {"from": "human", "value": "q"},
            {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},
            {"from": "observation", "value": "1"},
            {"from": "gpt", "value": "a", "train": false},
            {"from": "user", "value": "q2"},
            {"from": "model", "value": "a2", "weight": 1}
        ],
        "system": "S",
        "tools": "[{\"name\": \"f\"}]"
    }));
    assert_eq!(
        turns(&read),
        [
            ("system", "S"),
            ("user", "q"),
            ("assistant", ""),
            ("tool", "1"),
            ("assistant", "a"),
            ("user", "q2"),
            ("assistant", "a2")
        ]
    );
    let call = json!([{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]);
    assert_eq!(read.messages[2].value, json!({"role": "assistant", "content": null, "tool_calls": call}));
    assert_eq!((read.messages[4].train, read.messages[6].train), (Some(false), Some(true)));
    assert_eq!(read.tools, Some(json!([{"name": "f"}])));
    let plain = conversation(
        json!({"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}),
    );
    assert_eq!(turns(&plain), [("user", "q"), ("assistant", "a")]);
    refused(
        json!({"conversations": [{"from": "system", "value": "T"}, {"from": "human", "value": "q"}], "system": "S"}),
        "say different system texts",
    );
}

#[test]
fn messages_as_json_text_of_a_csv_column_are_a_list() {
    let list = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]).to_string();
    assert_eq!(turns(&conversation(json!({"messages": list, "tools": ""}))), [("user", "q"), ("assistant", "a")]);
    refused(json!({"messages": "[{\"role\": "}), "the column \"messages\": column");
}
