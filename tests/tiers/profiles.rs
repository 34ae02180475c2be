//! How a drive is best used is measured once, by the first run that needs it, and kept.
//!
//! In:    a drive in memory where there is one, because measuring writes 8 GB.
//! Out:   facts about the cache file, the plan and what is said.
//! Never: a fact about a rate.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::Runs;

const AUTO: [&str; 2] = ["offload.chunk=auto", "offload.queue_depth=auto"];

fn plan_line(runs: &Runs, set: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tune"));
    command.current_dir(runs.path("")).env("TUNE_CACHE", runs.path("cache")).args(["plan", "recipe.toml"]);
    for one in set {
        command.args(["--set", one]);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find(|line| line.starts_with("offload")).unwrap().to_string()
}

#[test]
fn the_first_run_measures_a_drive_past_a_damaged_cache_and_later_ones_take_what_it_kept() {
    let Ok(drive) = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()) else { return };
    let runs = Runs::new();
    let nvme = format!("offload.nvme=[{:?}]", drive.path().display().to_string());
    let set = [&nvme, AUTO[0], AUTO[1]];
    fs::create_dir(runs.path("cache")).unwrap();
    let file = runs.path("cache/io-profiles.json");
    fs::write(&file, "{ \"half").unwrap();
    let line = plan_line(&runs, &set);
    assert!(line.contains("not measured yet") && line.contains("depth 32"), "{line}");
    assert_eq!(fs::read(&file).unwrap(), b"{ \"half", "a plan measures and writes nothing");
    let text = runs.succeeds("first", &set);
    assert!(text.contains("io-profiles.json: ignored, and written anew"), "{text}");
    assert_eq!(text.matches("reads ").count(), 1, "one line says what was chosen: {text}");
    let kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let profile = kept.as_object().unwrap().values().next().unwrap();
    let plan: Value = serde_json::from_slice(&fs::read(runs.path("first/plan.json")).unwrap()).unwrap();
    assert_eq!(plan["offload"]["queue_depth"], profile["queue_depth"]);
    assert_eq!(plan["offload"]["span_elements"].as_u64().map(|n| n * 4), profile["chunk_bytes"].as_u64());
    assert!(plan_line(&runs, &set).contains("as measured"));
    let text = runs.succeeds("second", &set);
    assert!(!text.contains("measuring") && text.contains("as measured"), "{text}");
    assert_eq!(runs.model("first"), runs.model("second"));
    assert_eq!(fs::read_dir(drive.path()).unwrap().count(), 0, "measuring leaves nothing");
    let other = runs.succeeds("given", &[]);
    assert!(!other.contains("measuring") && runs.model("given") == runs.model("first"), "{other}");
}
