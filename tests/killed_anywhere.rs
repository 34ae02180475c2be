//! Killed at 200 random moments, inside saves too: every run ends with the bytes of the uninterrupted one.
//!
//! In:    SIGKILL after a time, or a while after a save began, both from a printed seed; then `--resume`, and the next kill.
//! Out:   weights, optimizer state and losses, byte for byte.
//! Never: a time that a result depends on: it decides only where the kill falls.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::parity::fixture;

const KILLS: usize = 200;
/// Kills of one run; then it may end.
const KILLS_OF_A_RUN: usize = 20;
const STEPS: u64 = 40;
const SEED: u64 = 0x6b69_6c6c;

struct Runs {
    folder: tempfile::TempDir,
}

impl Runs {
    fn new() -> Runs {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            r#"name = "killed"
[model]
source = "{model}"
precision = "f32"
[method]
kind = "full"
[data]
sequence_length = 128
too_long = "truncate"
[[data.sources]]
path = "{train}"
[train]
steps = {STEPS}
tokens_per_step = 128
micro_batch = 1
[optimizer]
kind = "adamw"
learning_rate = 1e-3
[schedule]
kind = "cosine"
warmup = 4
[checkpoint]
every_steps = 1
keep_last = 3
[log]
tensorboard = false
"#,
            model = fixture("llama").display(),
            train = fixture("data/train.jsonl").display(),
        );
        fs::write(folder.path().join("recipe.toml"), text).unwrap();
        Runs { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the run, or goes on with it where there is something to go on from.
    fn start(&self, output: &str) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tune"));
        command.current_dir(self.folder.path()).env("TUNE_CACHE", self.path("cache"));
        command.args(["run", "recipe.toml", "--output", output]);
        match self.has_checkpoint(output) {
            true => drop(command.arg("--resume")),
            false => drop(fs::remove_dir_all(self.path(output))),
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn names(&self, output: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(output).join("checkpoints")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn has_checkpoint(&self, output: &str) -> bool {
        self.names(output).iter().any(|name| name.starts_with("step-"))
    }

    fn is_saving(&self, output: &str) -> bool {
        self.names(output).iter().any(|name| name.starts_with(".step-"))
    }

    /// Model, state and losses at the end.
    fn result(&self, output: &str) -> (Vec<u8>, Vec<u8>, Vec<String>) {
        let read = |name: &str| fs::read(self.path(output).join(name)).unwrap();
        let lines = String::from_utf8(read("metrics.jsonl")).unwrap();
        let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let losses =
            lines.filter(|line| line["loss"].is_f64()).map(|line| format!("{} {}", line["step"], line["loss"]));
        (
            read("model/model.safetensors"),
            read(&format!("checkpoints/step-{STEPS:06}/state.safetensors")),
            losses.collect(),
        )
    }
}

fn ends_well(child: Child, what: &str) {
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{what}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Marsaglia's xorshift.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Where a kill falls.
enum Moment {
    /// So long after the start.
    After(Duration),
    /// So long after a save was first seen under way.
    Saving(Duration),
    /// The same, of a save beside a complete checkpoint: that run has something to resume from.
    SavingAgain(Duration),
}

/// Kills at that moment; `false` if the process ended by itself before it.
fn killed(runs: &Runs, output: &str, mut child: Child, moment: &Moment) -> bool {
    let begun = Instant::now();
    let mut saving = None;
    loop {
        let due = match moment {
            Moment::After(time) => begun.elapsed() >= *time,
            Moment::Saving(time) | Moment::SavingAgain(time) => {
                let counts = matches!(moment, Moment::Saving(_)) || runs.has_checkpoint(output);
                if saving.is_none() && counts && runs.is_saving(output) {
                    saving = Some(Instant::now());
                }
                saving.is_some_and(|since: Instant| since.elapsed() >= *time)
            }
        };
        if due {
            break;
        }
        if child.try_wait().unwrap().is_some() {
            ends_well(child, output);
            return false;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    true
}

#[test]
fn a_run_killed_at_two_hundred_random_moments_ends_with_the_bytes_of_an_uninterrupted_one() {
    let runs = Runs::new();
    ends_well(runs.start("whole"), "whole");
    let begun = Instant::now();
    ends_well(runs.start("again"), "again");
    let whole = begun.elapsed();
    assert_eq!(runs.result("again"), runs.result("whole"));
    let (mut state, mut kills, mut in_saves, mut resumed, mut number) = (SEED, 0, 0, 0, 0);
    eprintln!("seed {SEED:#x}");
    while kills < KILLS {
        number += 1;
        let output = format!("killed-{number}");
        for _ in 0..KILLS_OF_A_RUN {
            resumed += usize::from(runs.has_checkpoint(&output));
            let micros = next(&mut state);
            let moment = match (next(&mut state) >> 33) % 3 {
                0 => Moment::After(Duration::from_micros(micros % (whole.as_micros() as u64 / 2).max(1))),
                1 => Moment::Saving(Duration::from_micros(micros % 3000)),
                _ => Moment::SavingAgain(Duration::from_micros(micros % 3000)),
            };
            if !killed(&runs, &output, runs.start(&output), &moment) {
                break;
            }
            kills += 1;
            in_saves += usize::from(runs.is_saving(&output));
        }
        ends_well(runs.start(&output), &output);
        assert_eq!(runs.result(&output), runs.result("whole"), "{output}");
        fs::remove_dir_all(runs.path(&output)).unwrap();
    }
    eprintln!("{number} runs, {kills} kills, {in_saves} of them inside a save, {resumed} resumes before the last");
    assert!(in_saves >= KILLS / 10 && resumed >= KILLS / 4, "{in_saves} inside saves, {resumed} resumes: too few");
}
