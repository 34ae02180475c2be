//! What cannot be opened, measured or talked to: one clear line, the promised exit code.

use std::fs;

use super::{LORA, Place};
use crate::parity::fixture;

#[test]
fn what_is_no_run_or_has_no_result_yet_is_refused_by_name() {
    let place = Place::ended();
    place.refuses(&["eval", "nowhere"], 2, &["nowhere", "no such run, adapter or model"]);
    fs::create_dir_all(place.path("empty")).unwrap();
    place.refuses(&["chat", "empty"], 2, &["neither a run", "plan.json"]);
    let begun = place.path("begun");
    fs::create_dir_all(&begun).unwrap();
    fs::copy(place.path("out/recipe.toml"), begun.join("recipe.toml")).unwrap();
    place.refuses(&["chat", "begun"], 2, &["no result yet", "no plan.json"]);
    fs::copy(place.path("out/plan.json"), begun.join("plan.json")).unwrap();
    place.refuses(&["eval", "begun"], 2, &["no result yet", "complete checkpoint"]);
    fs::write(begun.join("plan.json"), "{}").unwrap();
    place.refuses(&["eval", "begun"], 2, &["plan.json", "not a plan that this version reads"]);
    place.refuses(&["eval", "out", "--checkpoint", "step-000003"], 2, &["no checkpoint step-000003", "step-000007"]);
    place.refuses(&["eval", "out/adapter", "--checkpoint", "step-000007"], 2, &["no run"]);
}

#[test]
fn a_run_that_has_not_ended_shows_its_newest_complete_checkpoint_and_says_so() {
    let place = Place::new(LORA, "f32").trained();
    fs::remove_dir_all(place.path("out/adapter")).unwrap();
    let output = place.tune(&["eval", "out", "--json"], "");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("has not ended") && stderr.contains("checkpoints/step-000009"), "{stderr}");
    // Cut short: named, and the one before is taken.
    let state = place.path("out/checkpoints/step-000009/state.safetensors");
    let bytes = fs::read(&state).unwrap();
    fs::write(&state, &bytes[..bytes.len() - 1]).unwrap();
    let output = place.tune(&["eval", "out", "--json"], "");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("step-000009") && stderr.contains("checkpoints/step-000007"), "{stderr}");
    place.refuses(&["chat", "out", "--checkpoint", "step-000009", "--prompt", "x"], 2, &["checkpoint is damaged"]);
}

#[test]
fn rows_that_cannot_be_measured_are_refused_by_file_and_line() {
    let place = Place::ended();
    let rows = |name: &str, text: &str| fs::write(place.path(name), text).unwrap();
    rows("empty.jsonl", "");
    place.refuses(&["eval", "out", "--data", "empty.jsonl"], 2, &["empty.jsonl"]);
    rows("other.jsonl", "{\"alpha\": 1}\n");
    place.refuses(&["eval", "out", "--data", "other.jsonl"], 2, &["other.jsonl"]);
    rows("asked.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"9 GB?\"}]}\n");
    place.refuses(&["eval", "out", "--data", "asked.jsonl"], 2, &["asked.jsonl", "assistant"]);
    place.refuses(&["eval", "out", "--data", "asked.jsonl", "--format", "question-answer"], 2, &["asked.jsonl"]);
    place.refuses(&["eval", "out", "--data", "missing.jsonl"], 2, &["--data", "missing.jsonl"]);
    let model = fixture("llama").display().to_string();
    place.refuses(&["eval", &model], 2, &["no held-out rows", "--data"]);
    let held = fixture("data/heldout.jsonl").display().to_string();
    place.refuses(&["eval", &model, "--data", &held, "--compare"], 2, &["no base to compare with"]);
}

#[test]
fn prompts_and_models_that_do_not_fit_are_refused_with_the_numbers() {
    let place = Place::ended();
    let asked = ["chat", "out", "--prompt", "9 GB and 6 GB?"];
    place.refuses(&[&asked[..], &["--context", "10"]].concat(), 2, &["the context ends at 10"]);
    place.refuses(&[&asked[..], &["--memory", "20MB"]].concat(), 3, &["does not fit", "20", "--nvme"]);
    place.refuses(&["eval", "out", "--memory", "20MB"], 3, &["does not fit", "short"]);
    let model = fixture("llama").display().to_string();
    place.refuses(&["chat", &model, "--base"], 2, &["no base to talk to"]);
}

#[test]
fn a_model_that_is_gone_is_named() {
    let place = Place::new(LORA, "f32").trained();
    let recipe = fs::read_to_string(place.path("out/recipe.toml")).unwrap();
    let gone = recipe.replace(&fixture("llama").display().to_string(), "/nowhere/llama");
    fs::write(place.path("out/recipe.toml"), gone).unwrap();
    place.refuses(&["chat", "out", "--prompt", "x"], 2, &["/nowhere/llama"]);
    let other = recipe.replace(&fixture("llama").display().to_string(), &fixture("gemma3").display().to_string());
    fs::write(place.path("out/recipe.toml"), other).unwrap();
    place.refuses(&["chat", "out", "--prompt", "x"], 2, &["not the model"]);
}
