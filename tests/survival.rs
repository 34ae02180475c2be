//! A whole run through the program on a tiny model: the run directory, interruption, resume, faults.
//!
//! In:    the built program, the tiny Llama fixture with its tokenizer and rows.
//! Out:   facts about files and exit codes.
//! Never: a sleep that a result depends on: waits look at files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::parity::fixture;

/// A recipe for the tiny model, and runs of it.
pub struct Runs {
    folder: tempfile::TempDir,
}

impl Runs {
    pub fn new(steps: u64) -> Runs {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            r#"name = "tiny"
[model]
source = "{model}"
precision = "f32"
[method]
kind = "lora"
rank = 4
alpha = 8
dropout = 0.1
[data]
sequence_length = 128
too_long = "truncate"
[[data.sources]]
path = "{train}"
[train]
steps = {steps}
tokens_per_step = 512
micro_batch = 2
[optimizer]
kind = "adamw"
learning_rate = 1e-2
[schedule]
kind = "cosine"
warmup = 2
[checkpoint]
every_steps = 7
keep_last = 3
[eval]
source = {{ path = "{held}" }}
exact_match = true
max_new_tokens = 8
"#,
            model = fixture("llama").display(),
            train = fixture("data/train.jsonl").display(),
            held = fixture("data/heldout.jsonl").display(),
        );
        fs::write(folder.path().join("recipe.toml"), text).unwrap();
        Runs { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, output: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tune"));
        command.current_dir(self.folder.path()).env("TUNE_CACHE", self.path("cache"));
        command.args(["run", "recipe.toml", "--output", output]).args(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn succeeds(&self, output: &str, more: &[&str]) -> String {
        let result = self.command(output, more).output().unwrap();
        assert_eq!(result.status.code(), Some(0), "{}", String::from_utf8_lossy(&result.stderr));
        String::from_utf8(result.stdout).unwrap()
    }

    /// Every step line.
    pub fn steps_of(&self, output: &str) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path(output).join("metrics.jsonl")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter(|line| line["loss"].is_number()).collect()
    }

    /// (step, loss) of every step line.
    fn losses(&self, output: &str) -> Vec<(u64, f64)> {
        let lines = self.steps_of(output);
        lines.iter().filter_map(|line| Some((line["step"].as_u64()?, line["loss"].as_f64()?))).collect()
    }

    fn adapter(&self, output: &str) -> Vec<u8> {
        fs::read(self.path(output).join("adapter/adapter_model.safetensors")).unwrap()
    }

    fn wait_for_step(&self, output: &str, step: usize, child: &mut Child) {
        let begun = Instant::now();
        while self.losses(output).len() < step {
            assert!(child.try_wait().unwrap().is_none(), "the run ended before step {step}");
            assert!(begun.elapsed() < Duration::from_secs(60), "no step {step} within a minute");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_run_leaves_the_directory_that_the_readme_promises() {
    let runs = Runs::new(9);
    let table = runs.succeeds("out", &[]);
    assert!(table.contains("held-out loss") && table.contains("exact answers"), "{table}");
    for file in ["recipe.toml", "plan.json", "metrics.jsonl", "adapter/adapter_config.json"] {
        assert!(runs.path("out").join(file).exists(), "{file}");
    }
    let board = fs::read_dir(runs.path("out")).unwrap().flatten();
    assert!(board.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("events.out.tfevents")));
    let losses = runs.losses("out");
    assert_eq!(losses.iter().map(|(step, _)| *step).collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());
    assert!(losses[8].1 < losses[0].1, "the loss falls: {losses:?}");
    assert!(runs.path("out/checkpoints/step-000007").is_dir() && runs.path("out/checkpoints/step-000009").is_dir());
}

#[test]
fn two_runs_of_one_recipe_give_the_same_bits_for_every_keep_and_micro_batch_stays_close() {
    let runs = Runs::new(6);
    runs.succeeds("retained", &["--set", "train.keep=retain"]);
    runs.succeeds("recomputed", &["--set", "train.keep=recompute"]);
    assert_eq!(runs.adapter("retained"), runs.adapter("recomputed"));
    assert_eq!(runs.losses("retained"), runs.losses("recomputed"));
}

#[test]
fn an_interrupted_run_exits_130_and_resumes_to_the_bits_of_an_uninterrupted_one() {
    let runs = Runs::new(300);
    runs.succeeds("whole", &[]);
    for (output, name, step) in [("first", "INT", 3), ("second", "TERM", 11)] {
        let mut child = runs.command(output, &[]).spawn().unwrap();
        runs.wait_for_step(output, step, &mut child);
        signal(&child, name);
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
        let stopped = runs.losses(output).len();
        assert!(stopped < 300, "the signal came too late to test anything");
        runs.succeeds(output, &["--resume"]);
        assert_eq!(runs.losses(output), runs.losses("whole"));
        assert_eq!(runs.adapter(output), runs.adapter("whole"));
    }
}

#[test]
fn a_killed_run_resumes_from_its_last_complete_checkpoint_to_the_same_bits() {
    let runs = Runs::new(200);
    runs.succeeds("whole", &[]);
    let mut child = runs.command("killed", &[]).spawn().unwrap();
    runs.wait_for_step("killed", 10, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    runs.succeeds("killed", &["--resume"]);
    assert_eq!(runs.losses("killed"), runs.losses("whole"));
    assert_eq!(runs.adapter("killed"), runs.adapter("whole"));
}

#[test]
fn a_loss_that_is_not_a_number_stops_before_the_update_and_names_the_step() {
    let runs = Runs::new(60);
    let result = runs.command("out", &["--set", "optimizer.learning_rate=1e20", "--set", "schedule.warmup=0"]).output();
    let result = result.unwrap();
    let text = String::from_utf8_lossy(&result.stderr).into_owned();
    assert_eq!(result.status.code(), Some(1), "{text}");
    assert!(text.contains("stopped before the update") && text.contains("step "), "{text}");
    assert!(runs.losses("out").iter().all(|(_, loss)| loss.is_finite()));
}

#[test]
fn a_directory_that_another_run_writes_is_refused_and_left_alone() {
    let runs = Runs::new(3000);
    let mut child = runs.command("out", &[]).spawn().unwrap();
    runs.wait_for_step("out", 2, &mut child);
    let second = runs.command("out", &["--resume"]).output().unwrap();
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(2), "{text}");
    assert!(text.contains(&child.id().to_string()), "names the holder: {text}");
    assert!(child.try_wait().unwrap().is_none(), "the first run goes on");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn resuming_with_another_learning_rate_is_refused_with_the_key() {
    let runs = Runs::new(5);
    runs.succeeds("out", &[]);
    let result = runs.command("out", &["--resume", "--set", "optimizer.learning_rate=5e-3"]).output().unwrap();
    let text = String::from_utf8_lossy(&result.stderr).into_owned();
    assert_eq!(result.status.code(), Some(2), "{text}");
    assert!(text.contains("learning_rate"), "{text}");
}

#[test]
fn a_full_disk_ends_the_run_with_one_line_and_keeps_what_was_there() {
    let Some(small) = SmallDisk::mount() else {
        eprintln!("SKIPPED a_full_disk_ends_the_run...: no right to mount a tmpfs here");
        return;
    };
    let runs = Runs::new(400);
    let output = small.path.join("out");
    let result = runs
        .command(output.to_str().unwrap(), &["--set", "checkpoint.every_steps=1", "--set", "checkpoint.keep_last=400"]);
    let result = { result }.output().unwrap();
    let text = String::from_utf8_lossy(&result.stderr).into_owned();
    assert_eq!(result.status.code(), Some(1), "{text}");
    assert!(text.contains("space"), "{text}");
    let kept = fs::read_dir(output.join("checkpoints")).unwrap().count();
    assert!(kept > 0, "complete checkpoints stay");
}

/// A file system of 1 MiB, unmounted on drop.
pub struct SmallDisk {
    /// Where it is mounted.
    pub path: PathBuf,
    _folder: tempfile::TempDir,
}

impl SmallDisk {
    pub fn mount() -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let path: &Path = folder.path();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(path).output();
        let path = path.to_path_buf();
        mounted.ok().filter(|output| output.status.success()).map(|_| SmallDisk { path, _folder: folder })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg(&self.path).status();
    }
}
