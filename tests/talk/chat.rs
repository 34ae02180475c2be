//! `tune chat` through a pipe.

use std::fs;

use serde_json::Value;

use super::Place;

const GREEDY: [&str; 4] = ["--temperature", "0", "--max-new-tokens", "8"];

fn with<'a>(first: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    [first, rest].concat()
}

/// The question that a row of `heldout.jsonl` with one turn asks, and its line.
const ASKED: (&str, u64) = ("9 GB and 6 GB?", 2);

#[test]
fn the_greedy_answer_of_a_chat_is_that_of_the_evaluation() {
    let place = Place::ended();
    place.succeeds(&["eval", "out", "--compare", "--answers", "asked.jsonl"]);
    let text = fs::read_to_string(place.path("asked.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let row = rows.into_iter().find(|row| row["line"] == ASKED.1).unwrap();
    for (side, more) in [("tuned", None), ("base", Some("--base"))] {
        let mut arguments = with(&["chat", "out", "--prompt", ASKED.0], &GREEDY);
        arguments.extend(more);
        let answer = place.succeeds(&arguments);
        assert_eq!(answer.trim(), row[side]["answer"].as_str().unwrap(), "{side}");
    }
}

#[test]
fn each_line_of_a_pipe_is_answered_and_earlier_turns_are_kept_not_read_again() {
    let place = Place::ended();
    let typed = "9 GB and 6 GB?\n\nagain?\n/reset\n9 GB and 6 GB?\n/quit\nnever read\n";
    let told = place.hears(&with(&["chat", "out", "--json"], &GREEDY), typed);
    let answers: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let prompts: Vec<&str> = answers.iter().map(|answer| answer["prompt"].as_str().unwrap()).collect();
    assert_eq!(prompts, ["9 GB and 6 GB?", "again?", "9 GB and 6 GB?"]);
    assert_eq!(answers[0]["answer"], answers[2]["answer"], "after /reset the conversation is new");
    assert_eq!(answers[0]["kept_tokens"], 0);
    let (first, second) = (answers[0]["prompt_tokens"].as_u64().unwrap(), answers[1]["kept_tokens"].as_u64().unwrap());
    assert!(second >= first, "the whole first prompt is kept: {second} of {first}");
    assert!(answers[1]["prompt_tokens"].as_u64().unwrap() > second);
}

#[test]
fn a_seed_repeats_an_answer_and_streaming_writes_what_json_holds() {
    let place = Place::ended();
    let asked =
        ["chat", "out", "--prompt", "9 GB and 6 GB?", "--temperature", "1.5", "--top-p", "1", "--max-new-tokens", "40"];
    let answer = |seed: &str| place.succeeds(&with(&asked, &["--seed", seed]));
    let first = answer("1");
    assert_eq!(first, answer("1"));
    assert!((2..6).any(|seed| answer(&seed.to_string()) != first), "other seeds give other answers");
    let json = place.json(&with(&asked, &["--seed", "1", "--json"]));
    assert_eq!(format!("{}\n", json["answer"].as_str().unwrap()), first);
}

#[test]
fn base_and_tuned_answer_in_turn_and_orders_that_cannot_be_are_said() {
    let place = Place::ended();
    let told = place.hears(&with(&["chat", "out", "--compare"], &GREEDY), "9 GB and 6 GB?\n/nothing\n");
    let lines: Vec<&str> = told.lines().collect();
    assert!(told.starts_with("base:  ") && told.contains("\ntuned: "), "{lines:?}");
    let output = place.tune(&with(&["chat", "out"], &GREEDY), "/nothing\n/compare\n/system Be brief.\nhello\n");
    let stderr = String::from_utf8(output.stderr).unwrap();
    for words in ["no such command: /nothing", "base and tuned answer in turn", "begins anew", "tokens/s"] {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.starts_with("base:  ") && stdout.contains("tuned: "), "{stdout}");
}

#[test]
fn a_full_context_cuts_the_answer_and_says_so() {
    let place = Place::ended();
    let asked =
        with(&["chat", "out", "--prompt", "9 GB and 6 GB?", "--temperature", "1.5", "--json"], &["--context", "48"]);
    let json = place.json(&asked);
    let (prompt, tokens) = (json["prompt_tokens"].as_u64().unwrap(), json["tokens"].as_u64().unwrap());
    assert!(json["ended"] == "context" && prompt + tokens == 48 || json["ended"] == "turn", "{json}");
}
