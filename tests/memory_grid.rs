//! The memory plan against the peaks of real runs: never under by more than 2 %, never over by more than 10 %.
//!
//! In:    random models made on the spot and SmolLM2, the built program.
//! Out:   a table of planned and measured bytes of every member of the grid.
//! Never: a silent skip: without SmolLM2 its members say SKIPPED.
//!
//! The first test runs small members, the second the others: `cargo test --release memory_grid -- --ignored --nocapture`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::smollm2;

mod members;
mod models;

use members::{LARGE, LONG, Member, Model, SMALL, Tiers};

/// Planned over measured bytes.
const RATIO_MIN: f64 = 0.98;
const RATIO_MAX: f64 = 1.10;
const CLASSES: [&str; 4] = ["weights", "gradients", "optimizer", "activations"];

/// What a member was planned to need, what it needed, and when it was planned to need most.
struct Outcome {
    planned: f64,
    measured: f64,
    phase: String,
}

impl Outcome {
    fn ratio(&self) -> f64 {
        self.planned / self.measured
    }
}

impl Member {
    fn recipe(&self, model: &Path, folder: &Path) -> String {
        let method = match self.rank {
            0 => "kind = \"full\"".to_string(),
            rank if self.nf4 => format!("kind = \"qlora\"\nrank = {rank}\nalpha = {rank}"),
            rank => format!("kind = \"lora\"\nrank = {rank}\nalpha = {rank}"),
        };
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/data");
        let evaluation = match self.answers {
            0 => String::new(),
            rows => format!(
                "[eval]\nexact_match = true\nmax_rows = {rows}\nmax_new_tokens = {}\n[eval.source]\npath = \"{}\"\n",
                rows / 5,
                data.join("memory-arithmetic-heldout.jsonl").display()
            ),
        };
        let tier = |class: &str| match (self.tiers, class) {
            (Tiers::OptimizerNvme, "optimizer") | (Tiers::Nvme, _) => "nvme",
            (Tiers::Dram, _) => "dram",
            _ => "device",
        };
        let tiers: String = CLASSES.iter().map(|class| format!("{class} = \"{}\"\n", tier(class))).collect();
        format!(
            r#"name = "grid"
[model]
source = "{model}"
precision = "{precision}"
[method]
{method}
[data]
sequence_length = {sequence}
packing = true
too_long = "truncate"
allow = ["truncated-answer"]
[[data.sources]]
path = "{rows}"
[train]
steps = 3
tokens_per_step = {tokens}
micro_batch = {micro_batch}
keep = {keep}
[optimizer]
kind = "adamw"
learning_rate = 1e-4
max_grad_norm = {clip}
[schedule]
kind = "constant"
[checkpoint]
every_steps = 2
[offload]
{tiers}chunk = "1MiB"
queue_depth = 8
nvme = ["{nvme}"]
{evaluation}[log]
tensorboard = false
[hardware]
device = "cpu"
memory = "16GB"
"#,
            model = model.display(),
            precision = self.precision,
            sequence = self.sequence,
            rows = folder.join("rows.jsonl").display(),
            tokens = self.sequence * self.micro_batch,
            micro_batch = self.micro_batch,
            keep = self.keep,
            clip = if self.tiers == Tiers::Nvme { "\"none\"" } else { "1.0" },
            nvme = folder.display(),
        )
    }

    /// Runs the program; `None` where the model is not to be had.
    fn run(&self) -> Option<Outcome> {
        let model = match self.model {
            Model::SmolLm2 => smollm2::model()?,
            Model::Random(sizes) => sizes.folder(),
        };
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("rows.jsonl"), rows(self.sequence)).unwrap();
        fs::write(path("recipe.toml"), self.recipe(&model, folder.path())).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tune"));
        command.arg("run").arg(path("recipe.toml")).arg("--output").arg(path("run"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{self:?}: {}", String::from_utf8_lossy(&output.stderr));
        Some(outcome(&path("run")))
    }
}

/// Long rows of which all but the first token are trained on: a plan counts logits for every token. A very long sequence is one row.
fn rows(sequence: usize) -> String {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/data/memory-arithmetic-train.jsonl"));
    let text = text.unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let row = |lines: &[&str]| json!({ "prompt": "-", "completion": lines.concat() }).to_string() + "\n";
    match sequence {
        LONG => row(&lines),
        _ => lines.chunks(12).map(row).collect(),
    }
}

fn outcome(run: &Path) -> Outcome {
    let read = |name: &str| fs::read_to_string(run.join(name)).unwrap();
    let plan: Value = serde_json::from_str(&read("plan.json")).unwrap();
    let memory = &plan["memory"];
    let lines = read("metrics.jsonl");
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let measured = lines.filter_map(|line| line["peak_rss_bytes"].as_f64()).fold(0.0, f64::max);
    Outcome {
        planned: memory["peak_bytes"].as_f64().unwrap(),
        measured,
        phase: memory["peak_phase"].as_str().unwrap().to_string(),
    }
}

/// Runs members one after another, prints the table, and fails with those outside of the bounds.
fn assert_true(members: &[Member]) {
    let _turn = smollm2::turn();
    let mut wrong = Vec::new();
    for member in members {
        let Some(outcome) = member.run() else {
            eprintln!("SKIPPED: {member}");
            continue;
        };
        let ratio = outcome.ratio();
        let line = format!(
            "{member:<62} planned {:7.1} MB  measured {:7.1} MB  {ratio:.3}  {}",
            outcome.planned / 1e6,
            outcome.measured / 1e6,
            outcome.phase
        );
        eprintln!("{line}");
        if !(RATIO_MIN..=RATIO_MAX).contains(&ratio) {
            wrong.push(line);
        }
    }
    assert!(wrong.is_empty(), "{} of {} plans are wrong:\n{}", wrong.len(), members.len(), wrong.join("\n"));
}

#[test]
fn small_runs_need_what_was_planned() {
    assert_true(&SMALL);
}

#[test]
#[ignore = "takes a quarter of an hour; cargo test --release memory_grid -- --ignored --nocapture"]
fn runs_of_every_shape_need_what_was_planned() {
    assert_true(&LARGE);
}

#[test]
fn the_grid_has_at_least_forty_members_of_six_models() {
    let all: Vec<&Member> = SMALL.iter().chain(&LARGE).collect();
    assert!(all.len() >= 44, "{}", all.len());
    let mut models: Vec<String> = all.iter().map(|member| member.model.to_string()).collect();
    models.sort();
    models.dedup();
    assert!(models.len() >= 5, "{models:?}");
    for sequence in [128, 8192] {
        assert!(all.iter().any(|member| member.sequence == sequence));
    }
}
