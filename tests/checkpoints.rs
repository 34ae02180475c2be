//! Checkpoints through the program: when they are written, what stays, going on from one, beginning with one, `tune checkpoints`.
//!
//! In:    the built program, the tiny Llama fixture.
//! Out:   facts about files, words and exit codes.
//! Never: a sleep that a result depends on: waits look at files.

mod faults;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::parity::fixture;

struct Runs {
    folder: tempfile::TempDir,
}

impl Runs {
    fn new() -> Runs {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            r#"name = "kept"
[model]
source = "{model}"
precision = "f32"
[method]
kind = "lora"
rank = 4
alpha = 8
[data]
sequence_length = 128
too_long = "truncate"
[[data.sources]]
path = "{train}"
[train]
steps = 12
tokens_per_step = 128
micro_batch = 1
[optimizer]
kind = "adamw"
learning_rate = 1e-2
[schedule]
kind = "cosine"
warmup = 2
[checkpoint]
every_steps = 3
keep_last = 9
[eval]
source = {{ path = "{held}" }}
every_steps = 3
[log]
tensorboard = false
"#,
            model = fixture("llama").display(),
            train = fixture("data/train.jsonl").display(),
            held = fixture("data/heldout.jsonl").display(),
        );
        fs::write(folder.path().join("recipe.toml"), text).unwrap();
        Runs { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tune(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tune"));
        command.current_dir(self.folder.path()).env("TUNE_CACHE", self.path("cache")).args(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, output: &str, more: &[&str]) -> Output {
        self.tune(&[&["run", "recipe.toml", "--output", output], more].concat()).output().unwrap()
    }

    /// What was said on stderr.
    fn trains(&self, output: &str, more: &[&str]) -> String {
        let result = self.run(output, more);
        assert_eq!(result.status.code(), Some(0), "{more:?}: {}", said(&result));
        said(&result)
    }

    /// `tune checkpoints ...`: what it printed.
    fn checkpoints(&self, words: &[&str], code: i32) -> String {
        let result = self.tune(&[&["checkpoints"], words].concat()).output().unwrap();
        assert_eq!(result.status.code(), Some(code), "{words:?}: {}", said(&result));
        let printed = String::from_utf8_lossy(&result.stdout).into_owned();
        // A refusal speaks on stderr.
        if code == 0 { printed } else { printed + &said(&result) }
    }

    fn steps(&self, output: &str) -> Vec<u64> {
        let listed: Value = serde_json::from_str(&self.checkpoints(&["list", output, "--json"], 0)).unwrap();
        listed["checkpoints"].as_array().unwrap().iter().map(|one| one["step"].as_u64().unwrap()).collect()
    }

    fn manifest(&self, output: &str, step: &str) -> Value {
        let shown = self.checkpoints(&["show", output, step, "--json"], 0);
        serde_json::from_str::<Value>(&shown).unwrap()["manifest"].clone()
    }

    fn lines(&self, output: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(output).join("metrics.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// (step, loss) of every step line.
    fn losses(&self, output: &str) -> Vec<(u64, f64)> {
        let lines = self.lines(output);
        lines.iter().filter_map(|line| Some((line["step"].as_u64()?, line["loss"].as_f64()?))).collect()
    }

    fn adapter(&self, output: &str) -> Vec<u8> {
        fs::read(self.path(output).join("adapter/adapter_model.safetensors")).unwrap()
    }

    fn state(&self, output: &str, step: u64) -> PathBuf {
        self.path(output).join(format!("checkpoints/step-{step:06}/state.safetensors"))
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The refusal's text: exit code 2 and one line.
fn refused(output: &Output) -> String {
    let text = said(output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    text.lines().find(|line| line.starts_with("error:")).unwrap_or_else(|| panic!("no error line: {text}")).to_string()
}

fn waits(what: &str, child: &mut Child, mut is_there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_there() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before {what}");
        assert!(begun.elapsed() < Duration::from_secs(120), "no {what} within two minutes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_checkpoint_says_where_it_came_from_and_where_the_run_stood() {
    let runs = Runs::new();
    runs.trains("out", &[]);
    assert_eq!(runs.steps("out"), [3, 6, 9, 12]);
    let manifest = runs.manifest("out", "step-000006");
    let (position, facts) = (&manifest["position"], &manifest["facts"]);
    assert_eq!((position["step"].as_u64(), position["steps"].as_u64()), (Some(6), Some(12)));
    assert_eq!(position["micro_batches_done"].as_u64(), Some(0));
    assert_eq!(position["losses"].as_array().unwrap().len(), 6);
    let evaluated = runs.lines("out").into_iter().find(|line| line["step"] == 6 && line["evaluation"].is_object());
    assert_eq!(facts["held_out_loss"], evaluated.unwrap()["evaluation"]["loss"]);
    assert_eq!(facts["reason"], "every_steps");
    assert_eq!(facts["model"].as_str().unwrap().len(), 64);
    let plan: Value = serde_json::from_str(position["plan_fingerprint"].as_str().unwrap()).unwrap();
    assert_eq!(plan["schedule"]["kind"], "cosine");
    assert_eq!(plan["train"]["seed"], 42);
    // The history of losses up to this step, and no more.
    let history = fs::read(runs.path("out/metrics.jsonl")).unwrap();
    let of_steps = &history[..position["metrics_bytes"].as_u64().unwrap() as usize];
    let of_steps: Vec<Value> =
        String::from_utf8_lossy(of_steps).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let losses = of_steps.iter().filter(|line| line["loss"].is_f64());
    assert_eq!(losses.map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    let recipe = fs::read_to_string(runs.path("out/checkpoints/step-000006/recipe.toml")).unwrap();
    assert_eq!(recipe, fs::read_to_string(runs.path("out/recipe.toml")).unwrap());
    // The last one learns its loss after it was written.
    assert!(runs.manifest("out", "12")["facts"]["held_out_loss"].is_f64());
    assert_eq!(runs.manifest("out", "12")["facts"]["reason"], "end");
}

#[test]
fn the_best_by_held_out_loss_stay_besides_the_last() {
    let runs = Runs::new();
    // Such a rate ruins the model: the first checkpoint is the best.
    let more =
        ["--set", "checkpoint.keep_last=1", "--set", "checkpoint.keep_best=1", "--set", "optimizer.learning_rate=1e-1"];
    runs.trains("out", &more);
    let evaluations = runs.lines("out").into_iter().filter(|line| line["step"].as_u64() > Some(0));
    let mut losses: Vec<(f64, u64)> =
        evaluations.filter_map(|line| Some((line["evaluation"]["loss"].as_f64()?, line["step"].as_u64()?))).collect();
    losses.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut expected = vec![losses[0].1, 12];
    expected.dedup();
    assert_eq!(runs.steps("out"), expected, "{losses:?}");
}

#[test]
fn minutes_between_checkpoints_are_kept_whatever_the_steps() {
    let runs = Runs::new();
    // Less than a step: after each one is due.
    runs.trains("out", &["--set", "checkpoint.every_minutes=0.0000001", "--set", "checkpoint.every_steps=100"]);
    assert_eq!(runs.steps("out").len(), 9, "keep_last of 12");
    assert_eq!(runs.manifest("out", "11")["facts"]["reason"], "every_minutes");
}

#[test]
fn a_running_run_saves_when_it_is_asked_to() {
    let runs = Runs::new();
    let more =
        ["--set", "train.steps=100000", "--set", "checkpoint.every_steps=99999", "--set", "eval.every_steps=99999"];
    let words = [&["run", "recipe.toml", "--output", "out"], &more[..]].concat();
    let mut child = runs.tune(&words).stderr(Stdio::null()).spawn().unwrap();
    waits("step", &mut child, || !runs.losses("out").is_empty());
    let printed = runs.checkpoints(&["save", "out"], 0);
    let path = Path::new(printed.trim());
    let step = checkpoints::checkpoint::step_of(&path.file_name().unwrap().to_string_lossy()).unwrap();
    assert_eq!(runs.manifest("out", &step.to_string())["facts"]["reason"], "requested");
    assert!(child.try_wait().unwrap().is_none(), "the run goes on");
    runs.checkpoints(&["verify", "out"], 0);
    child.kill().unwrap();
    child.wait().unwrap();
    let text = runs.checkpoints(&["save", "out"], 2);
    assert!(text.contains("no process trains in out"), "{text}");
}

#[test]
fn going_on_from_an_older_step_sets_the_later_ones_aside_and_ends_with_the_same_bytes() {
    let runs = Runs::new();
    runs.trains("out", &[]);
    let (adapter, losses) = (runs.adapter("out"), runs.losses("out"));
    let text = runs.trains("out", &["--resume", "step-000006"]);
    assert!(text.contains("going on after step 6"), "{text}");
    assert!(text.contains("set aside as superseded: step-000009, step-000012"), "{text}");
    assert_eq!((runs.adapter("out"), runs.losses("out")), (adapter, losses));
    assert_eq!(runs.steps("out"), [3, 6, 9, 12]);
    let listed = runs.checkpoints(&["list", "out"], 0);
    assert_eq!(listed.matches("superseded: ").count(), 2, "{listed}");
    let text = refused(&runs.run("out", &["--resume", "step-000007"]));
    assert!(text.contains("no checkpoint of step 7") && text.contains("step-000003, step-000006"), "{text}");
    assert_eq!(runs.steps("out"), [3, 6, 9, 12], "a refusal moves nothing");
}

#[test]
fn a_changed_recipe_is_refused_with_every_key_and_both_values() {
    let runs = Runs::new();
    runs.trains("out", &["--set", "train.steps=3"]);
    let more = ["--resume", "--set", "train.steps=3", "--set", "optimizer.learning_rate=5e-3", "--set", "train.seed=7"];
    let text = refused(&runs.run("out", &more));
    assert!(text.contains("optimizer.learning_rate was 0.01 and is 0.005"), "{text}");
    assert!(text.contains("train.seed was 42 and is 7"), "{text}");
}

#[test]
fn a_changed_model_or_changed_rows_are_refused_on_resume() {
    let runs = Runs::new();
    let model = runs.path("model");
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixture("llama").join(name), model.join(name)).unwrap();
    }
    let rows = runs.path("rows.jsonl");
    fs::copy(fixture("data/train.jsonl"), &rows).unwrap();
    let source = format!("model.source={}", model.display());
    let data = format!("data.sources=[{{ path = {rows:?} }}]");
    let more = ["--set", &source, "--set", &data, "--set", "train.steps=3"];
    runs.trains("out", &more);
    let resumed = [&more[..], &["--resume"]].concat();
    runs.trains("out", &resumed);

    let text = fs::read_to_string(&rows).unwrap();
    fs::write(&rows, text.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let problem = refused(&runs.run("out", &resumed));
    assert!(problem.contains("rows was ") && !problem.contains("model.files"), "{problem}");
    fs::write(&rows, text).unwrap();

    let weights = model.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let first_number = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[first_number.next_multiple_of(65536)] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let problem = refused(&runs.run("out", &resumed));
    assert!(problem.contains("model.files was ") && !problem.contains("rows was"), "{problem}");
}

#[test]
fn a_new_run_begins_with_the_weights_of_a_checkpoint_and_nothing_else_of_it() {
    let runs = Runs::new();
    runs.trains("first", &[]);
    runs.trains("second", &["--from", "first"]);
    let held_out = |output: &str| -> Vec<f64> {
        runs.lines(output).iter().filter_map(|line| line["evaluation"]["loss"].as_f64()).collect()
    };
    let (first, second) = (held_out("first"), held_out("second"));
    assert_eq!(first.last().unwrap().to_bits(), second[0].to_bits(), "it begins where the first ended");
    assert_eq!(runs.losses("second").first().unwrap().0, 1, "steps are counted anew");
    let from = runs.manifest("second", "3")["facts"]["started_from"].clone();
    assert!(from.as_str().unwrap().ends_with("step-000012"), "{from}");
    // A fresh optimizer: the first update is not the one that the first run would have made next.
    runs.trains("third", &["--from", "first/checkpoints/step-000003", "--set", "train.steps=1"]);
    let text = refused(&runs.run("fourth", &["--from", "first", "--set", "method.rank=8", "--set", "method.alpha=16"]));
    assert!(text.contains("method.rank was 4 and is 8") && text.contains("method.alpha was 8.0 and is 16.0"), "{text}");
    let text = refused(&runs.run("fourth", &["--from", "first", "--set", "method.targets=[\"q_proj\"]"]));
    assert!(text.contains("method.targets"), "{text}");
    let text = refused(&runs.run("fourth", &["--from", "nowhere"]));
    assert!(text.contains("nowhere") && text.contains("no complete checkpoint"), "{text}");
    assert!(!runs.path("fourth").exists());
}

#[test]
fn pruning_says_what_it_would_remove_and_then_removes_it() {
    let runs = Runs::new();
    runs.trains("out", &[]);
    runs.trains("out", &["--resume", "step-000009"]);
    let would = runs.checkpoints(&["prune", "out", "--keep-last", "2", "--dry-run"], 0);
    assert_eq!(would.lines().count(), 3, "{would}");
    assert_eq!(runs.steps("out"), [3, 6, 9, 12]);
    let removed = runs.checkpoints(&["prune", "out", "--keep-last", "2"], 0);
    assert_eq!(removed, would.replace("would remove", "removed"));
    assert_eq!(runs.steps("out"), [9, 12]);
    assert_eq!(fs::read_dir(runs.path("out/checkpoints")).unwrap().count(), 2, "superseded ones go too");
}
