//! `tune eval`: the figures that the run itself had, to the bit.

use std::fs;

use serde_json::Value;

use super::{LORA, Place};
use crate::parity::fixture;

/// What `metrics.jsonl` says of evaluations: (step, record).
fn evaluations(place: &Place) -> Vec<(u64, Value)> {
    let text = fs::read_to_string(place.path("out/metrics.jsonl")).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found = records.filter(|record| !record["evaluation"].is_null());
    found.map(|record| (record["step"].as_u64().unwrap(), record["evaluation"].clone())).collect()
}

fn bits(value: &Value) -> u64 {
    value.as_f64().unwrap().to_bits()
}

/// LoRA in f32; full training in bf16, whose result is a model of its own and whose norms were trained too.
#[test]
fn the_runs_own_held_out_rows_have_the_runs_own_losses_before_and_after_bit_for_bit() {
    for (method, precision) in [(LORA, "f32"), (LORA, "bf16"), ("kind = \"full\"", "bf16"), ("kind = \"full\"", "f32")]
    {
        let own;
        let place = match (method, precision) {
            (LORA, "f32") => Place::ended(),
            _ => {
                own = Place::new(method, precision).trained();
                &own
            }
        };
        let of_run = evaluations(place);
        let steps: Vec<u64> = of_run.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [0, 7, 9]);
        let figures = place.json(&["eval", "out", "--compare", "--json"]);
        let (before, after) = (&of_run[0].1, &of_run[2].1);
        assert_eq!(bits(&figures["tuned"]["loss"]), bits(&after["loss"]), "{method}, {precision}: {figures}");
        assert_eq!(bits(&figures["base"]["loss"]), bits(&before["loss"]), "{method}, {precision}: {figures}");
        assert_eq!(figures["tuned"]["exact"]["right"], after["exact"][0], "{figures}");
        // A checkpoint in the middle, and the last one, which is the result.
        for (name, record) in [("step-000007", &of_run[1].1), ("step-000009", after)] {
            let figures = place.json(&["eval", "out", "--checkpoint", name, "--json"]);
            assert_eq!(bits(&figures["tuned"]["loss"]), bits(&record["loss"]), "{method}, {precision}, {name}");
        }
    }
}

#[test]
fn a_file_given_by_name_is_measured_as_the_run_measures_it() {
    let place = Place::ended();
    let held = fixture("data/heldout.jsonl").display().to_string();
    let own = place.json(&["eval", "out", "--json"]);
    for subject in ["out", "out/adapter", "out/checkpoints/step-000009"] {
        let given =
            place.json(&["eval", subject, "--data", &held, "--sequence-length", "128", "--precision", "f32", "--json"]);
        let (ours, theirs) = (given["tuned"]["loss"].as_f64().unwrap(), own["tuned"]["loss"].as_f64().unwrap());
        // The adapter by itself knows no micro-batch: its rows are measured in other batches.
        let tolerance = if subject == "out/adapter" { 1e-5 } else { 0.0 };
        assert!((ours - theirs).abs() <= tolerance, "{subject}: {ours} against {theirs}");
        assert_eq!(given["rows"], 8);
    }
    let first = place.json(&["eval", "out", "--data", &held, "--max-rows", "3", "--json"]);
    assert_eq!(first["rows"], 3);
}

#[test]
fn a_model_by_itself_is_measured_and_has_the_loss_of_the_runs_base() {
    let place = Place::ended();
    let (model, held) = (fixture("llama").display().to_string(), fixture("data/heldout.jsonl").display().to_string());
    let alone = place.json(&["eval", &model, "--data", &held, "--precision", "f32", "--json"]);
    let base = place.json(&["eval", "out", "--compare", "--json"])["base"]["loss"].as_f64().unwrap();
    assert!((alone["tuned"]["loss"].as_f64().unwrap() - base).abs() < 1e-5, "{alone} against {base}");
    assert!(alone["base"].is_null());
}

#[test]
fn both_sides_stand_in_one_table_and_every_row_in_the_answers_file() {
    let place = Place::ended();
    let table = place.succeeds(&["eval", "out", "--compare", "--answers", "answers.jsonl"]);
    for word in
        ["8 rows", "base", "tuned", "difference", "loss", "perplexity", "exact answers", "right only when tuned"]
    {
        assert!(table.contains(word), "{word}: {table}");
    }
    let figures = place.json(&["eval", "out", "--compare", "--json"]);
    let text = fs::read_to_string(place.path("answers.jsonl")).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 8);
    let right = |side: &str| rows.iter().filter(|row| row[side]["right"] == true).count();
    assert_eq!(right("tuned") as u64, figures["tuned"]["exact"]["right"].as_u64().unwrap());
    let only = rows.iter().filter(|row| row["tuned"]["right"] == true && row["base"]["right"] == false).count();
    assert_eq!(only as u64, figures["only_tuned_right"].as_u64().unwrap());
    assert_eq!((rows[0]["line"].as_u64(), rows[0]["expected"].as_str()), (Some(1), Some("2 GB")));
    let difference = figures["tuned"]["loss"].as_f64().unwrap() - figures["base"]["loss"].as_f64().unwrap();
    assert_eq!(figures["difference"]["loss"].as_f64().unwrap(), difference);
    assert!(difference < 0.0, "nine steps taught something: {figures}");
}
