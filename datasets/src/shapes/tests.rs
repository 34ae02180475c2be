//! Rows of every shape give their contents; faults are found by their gates.
#![allow(clippy::unwrap_used)]

use planner::plan::Gate;
use serde_json::json;

use super::*;

/// Reads `row` as the first and only row of `source`.
pub(super) fn read_as(source: &DataSource, row: &str, allowed: &[Gate]) -> Result<(Content, Gates), RowError> {
    let raw = Raw::Json(row.as_bytes().to_vec());
    let shape = Shape::detect(&raw, source)?;
    let mut findings = Gates::default();
    content(raw, &shape, Gates::of(allowed), &mut findings).map(|content| (content, findings))
}

pub(super) fn read(row: Value) -> Result<Content, RowError> {
    read_as(&DataSource::of("x.jsonl"), &row.to_string(), &[]).map(|(content, _)| content)
}

pub(super) fn conversation(row: Value) -> Conversation {
    match read(row).unwrap() {
        Content::Conversation(conversation) => conversation,
        other => panic!("{other:?} is no conversation"),
    }
}

/// Role and text of each turn.
pub(super) fn turns(conversation: &Conversation) -> Vec<(&str, &str)> {
    conversation.messages.iter().map(|message| (message.role.as_str(), message.text.as_str())).collect()
}

#[track_caller]
pub(super) fn refused(row: Value, words: &str) {
    let said = read(row).unwrap_err().to_string();
    assert!(said.contains(words), "{said:?} should contain {words:?}");
}

#[test]
fn questions_and_instructions_become_conversations() {
    let question = conversation(json!({"question": "Q", "answer": "A"}));
    assert_eq!(turns(&question), [("user", "Q"), ("assistant", "A")]);
    assert_eq!(question.messages[0].value, json!({"role": "user", "content": "Q"}));
    let with_input = json!({"instruction": "Add", "input": "1 and 2", "output": "3", "system": "S"});
    assert_eq!(turns(&conversation(with_input)), [("system", "S"), ("user", "Add\n\n1 and 2"), ("assistant", "3")]);
    for input in [json!(""), json!(null), json!("  ")] {
        let row = json!({"instruction": "Add", "input": input, "output": "3"});
        assert_eq!(turns(&conversation(row)), [("user", "Add"), ("assistant", "3")]);
    }
    let history = json!({"instruction": "c", "output": "d", "history": [["a", "b"]]});
    assert_eq!(turns(&conversation(history)), [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]);
    refused(json!({"instruction": "c", "output": "d", "history": [["a"]]}), "list of two strings");
    let dolly = json!({"instruction": "i", "context": "c", "response": "r"});
    assert_eq!(turns(&conversation(dolly)), [("user", "i\n\nc"), ("assistant", "r")]);
    assert_eq!(turns(&conversation(json!({"question": "Q", "answer": 42}))), [("user", "Q"), ("assistant", "42")]);
    refused(json!({"question": "Q", "answer": 4.2}), "must hold a string, not a number");
    refused(json!({"question": null, "answer": "A"}), "\"question\" must hold a string, not null");
}

#[test]
fn completions_are_strings_or_messages_whose_prompt_is_context() {
    let strings = read(json!({"prompt": "a", "completion": "b"})).unwrap();
    assert_eq!(strings, Content::Completion { prompt: "a".to_owned(), completion: "b".to_owned() });
    let lists =
        json!({"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]});
    let lists = conversation(lists);
    assert_eq!(turns(&lists), [("user", "a"), ("assistant", "b")]);
    assert_eq!((lists.messages[0].train, lists.messages[1].train), (Some(false), None));
    refused(json!({"prompt": "a", "completion": [{"role": "assistant", "content": "b"}]}), "both be strings or both");
}

#[test]
fn text_and_segments_are_kept_as_they_stand() {
    assert_eq!(read(json!({"text": " a\n"})).unwrap(), Content::Text(" a\n".to_owned()));
    let row = json!({"segments": [{"text": "a", "train": false}, {"text": "b", "label": true}]});
    let piece = |text: &str, train| Segment { text: text.to_owned(), train };
    assert_eq!(read(row).unwrap(), Content::Segments(vec![piece("a", false), piece("b", true)]));
    refused(json!({"segments": [{"text": "a"}]}), "segment 1 must be");
    assert_eq!(read(json!({"segments": [{"text": "a", "train": false}]})), Err(RowError::NothingTrained));
    assert_eq!(read(json!({"text": " "})), Err(RowError::NothingTrained));
}

#[test]
fn preferences_come_with_or_without_a_prompt_of_their_own() {
    let user = |text: &str| json!({"role": "user", "content": text});
    let assistant = |text: &str| json!({"role": "assistant", "content": text});
    let rows = [
        json!({"prompt": "p", "chosen": "good", "rejected": "bad"}),
        json!({"prompt": [user("p")], "chosen": [assistant("good")], "rejected": [assistant("bad")]}),
        json!({"chosen": [user("p"), assistant("good")], "rejected": [user("p"), assistant("bad")]}),
        json!({"prompt": "p", "chosen": [user("p"), assistant("good")], "rejected": [user("p"), assistant("bad")]}),
    ];
    for row in rows {
        let Content::Preference(preference) = read(row.clone()).unwrap() else { panic!("{row}") };
        let texts = [&preference.prompt, &preference.chosen, &preference.rejected].map(|side| side[0].text.as_str());
        assert_eq!(texts, ["p", "good", "bad"], "{row}");
        assert_eq!(preference.prompt.len() + preference.chosen.len() + preference.rejected.len(), 3, "{row}");
    }
    let implicit = json!({"chosen": "Human: hi Assistant: hello", "rejected": "Human: hi Assistant: help"});
    let Content::Preference(implicit) = read(implicit).unwrap() else { panic!() };
    assert_eq!(implicit.prompt[0].text, "Human: hi Assistant:");
    assert_eq!((implicit.chosen[0].text.as_str(), implicit.rejected[0].text.as_str()), (" hello", " help"));
    refused(json!({"prompt": "p", "chosen": "same", "rejected": "same"}), "are the same");
    refused(json!({"chosen": "good", "rejected": "bad"}), "nothing in common");
}

#[test]
fn the_recipes_words_win_over_what_the_row_shows() {
    let row = json!({"Q": "q", "A": "a", "text": "t", "messages": "none"}).to_string();
    let mut source = DataSource::of("x.jsonl");
    source.columns = BTreeMap::from([(Field::Question, "Q".to_owned()), (Field::Answer, "A".to_owned())]);
    let (content, _) = read_as(&source, &row, &[]).unwrap();
    assert_eq!(content.text(), "q\na");
    source.columns.clear();
    source.format = Some(RowFormat::Text);
    assert_eq!(read_as(&source, &row, &[]).unwrap().0, Content::Text("t".to_owned()));
    source.format = Some(RowFormat::QuestionAnswer);
    let said = read_as(&source, &json!({"questoin": "q", "answer": "a"}).to_string(), &[]).unwrap_err().to_string();
    assert_eq!(said, "no column \"question\" (nearest: \"questoin\"); the row has \"questoin\", \"answer\"");
    source.columns = BTreeMap::from([(Field::Segments, "s".to_owned())]);
    assert!(read_as(&source, &row, &[]).unwrap_err().to_string().contains("format \"question-answer\" does not"));
    source.columns = BTreeMap::from([(Field::System, "persona".to_owned())]);
    let said = read_as(&source, &json!({"question": "q", "answer": "a"}).to_string(), &[]).unwrap_err().to_string();
    assert!(said.starts_with("no column \"persona\""), "{said}");
    refused(json!({"a": 1, "b": 2}), "(\"a\", \"b\") are those of no known format");
}

#[test]
fn a_later_row_without_the_column_is_refused_with_the_columns_it_has() {
    let first = Raw::Json(json!({"question": "q", "answer": "a"}).to_string().into_bytes());
    let shape = Shape::detect(&first, &DataSource::of("x.jsonl")).unwrap();
    let other = Raw::Json(json!({"question": "q", "answers": "a"}).to_string().into_bytes());
    let said = content(other, &shape, Gates::default(), &mut Gates::default()).unwrap_err().to_string();
    assert_eq!(said, "no column \"answer\" (nearest: \"answers\"); the row has \"question\", \"answers\"");
}

#[test]
fn gates_refuse_or_count_empty_answers_order_and_bytes() {
    let source = DataSource::of("x.jsonl");
    for answer in [json!(""), json!(" \n"), json!(null)] {
        let row = json!({"question": "q", "answer": answer}).to_string();
        assert_eq!(read_as(&source, &row, &[]).unwrap_err(), RowError::EmptyAnswer);
        assert!(read_as(&source, &row, &[Gate::EmptyAnswer]).unwrap().1.contains(Gate::EmptyAnswer));
    }
    let turns = |roles: &[&str]| {
        let list: Vec<Value> = roles.iter().map(|role| json!({"role": role, "content": "x"})).collect();
        json!({"messages": list}).to_string()
    };
    for (roles, words) in [
        (&["user"][..], "no answer"),
        (&["system", "user"], "no answer"),
        (&["assistant"], "message 1: role \"assistant\" where the user should speak first"),
        (&["user", "user", "assistant"], "message 2: role \"user\" after role \"user\""),
        (&["user", "assistant", "assistant"], "message 3: role \"assistant\" after role \"assistant\""),
        (&["user", "system", "assistant"], "message 2: a system message after the first"),
        (&["system", "developer", "user", "assistant"], "message 2: a system message after the first"),
        (&["user", "tool", "assistant"], "message 2: a tool's answer that follows neither"),
    ] {
        let fault = read_as(&source, &turns(roles), &[]).unwrap_err();
        assert!(fault.to_string().contains(words), "{fault}");
        assert_eq!(fault.gate(), Some(Gate::Roles));
        assert!(read_as(&source, &turns(roles), &[Gate::Roles]).unwrap().1.contains(Gate::Roles));
    }
    let bytes = Raw::Json(b"{\"text\": \"a\xff\"}".to_vec());
    let shape = Shape::detect(&bytes, &source).unwrap();
    let mut findings = Gates::default();
    assert_eq!(content(bytes.clone(), &shape, Gates::default(), &mut findings), Err(RowError::Utf8 { column: 12 }));
    let read = content(bytes, &shape, Gates::of(&[Gate::Utf8]), &mut findings).unwrap();
    assert_eq!(read, Content::Text("a\u{fffd}".to_owned()));
    assert!(findings.contains(Gate::Utf8));
}

#[test]
fn json_that_lies_is_refused() {
    let said = |row: &str| read_as(&DataSource::of("x"), row, &[]).unwrap_err().to_string();
    assert_eq!(said("{\"text\": \"a\", \"text\": \"b\"}"), "column 20: not valid JSON: the key \"text\" stands twice");
    assert!(said("{\"text\": \"a\"").contains("EOF"));
    assert!(said("{\"text\": \"a\"} {\"text\": \"b\"}").contains("trailing characters"));
    assert!(said("[1]").contains("a row must be a JSON object, not a list"));
    assert!(said(&format!("{{\"text\": {}", "[".repeat(1_000_000))).contains("recursion limit"));
    assert!(said("{\"text\": NaN}").contains("expected value"));
    assert!(said("{\"text\": 1e999}").contains("number out of range"));
}
