//! Run directories with made metrics, and reports of them.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::page::Page;
use super::tune;

/// A folder of run directories.
pub struct Made {
    folder: tempfile::TempDir,
}

impl Made {
    pub fn new() -> Made {
        Made { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, run: &str, file: &str, text: &str) {
        fs::write(self.path(run).join(file), text).unwrap();
    }

    pub fn edit(&self, run: &str, file: &str, change: &dyn Fn(&str) -> String) {
        let text = fs::read_to_string(self.path(run).join(file)).unwrap();
        let changed = change(&text);
        assert_ne!(text, changed, "nothing was changed");
        self.write(run, file, &changed);
    }

    /// A run of so many of 100 steps; `more` changes a step's line.
    pub fn run(&self, name: &str, steps: u64, more: &dyn Fn(u64, &mut Value)) {
        self.describe(name);
        let mut text = format!("{}\n", evaluation(0, 4.0));
        for step in 1..=steps {
            let mut one = line(step, 100);
            more(step, &mut one);
            writeln!(text, "{one}").unwrap();
        }
        writeln!(text, "{}", evaluation(steps, 3.0)).unwrap();
        self.write(name, "metrics.jsonl", &text);
    }

    /// A run of many steps whose loss has one spike and one dip.
    pub fn long(&self, name: &str, steps: u64) {
        self.describe(name);
        let mut text = String::new();
        for step in 1..=steps {
            let mut one = line(step, steps);
            one["loss"] = json!(match step {
                33_333 => 42.0,
                77_777 => 0.125,
                step => 2.0 + ((step * 7919) % 1000) as f64 / 1000.0,
            });
            one["nvme"] = json!([{"path": "/mnt/a", "read_bytes": 5_000_000 + step, "written_bytes": 3_000_000}]);
            one["stalls"] = json!({"weights_ms": (step % 17) as f64, "activations_ms": 1.5, "gradients_ms": 0.25, "optimizer_ms": 3.0});
            one["nvme_read_bytes"] = json!(5_000_000 + step);
            one["nvme_write_bytes"] = json!(3_000_000);
            one["gpu_celsius"] = json!(60 + step % 20);
            one["gpu_watts"] = json!(200 + step % 50);
            writeln!(text, "{one}").unwrap();
        }
        self.write(name, "metrics.jsonl", &text);
    }

    fn describe(&self, name: &str) {
        fs::create_dir(self.path(name)).unwrap();
        let recipe = format!(
            "name = \"{name}\"\n[model]\nsource = \"models/tiny\"\n[method]\nkind = \"lora\"\nrank = 4\n[train]\nsteps = 100\n\
             [optimizer]\nkind = \"adamw\"\nlearning_rate = 0.001\n"
        );
        self.write(name, "recipe.toml", &recipe);
        let plan = json!({
            "memory": {"peak_bytes": 1_100_000_000_u64, "budget_bytes": 8_000_000_000_u64, "dram_bytes": 310_000_000, "nvme_bytes": 100_000_000},
            "time": {"step_seconds": 0.2, "tokens_per_second": 2600.0},
            "offload": {"write_budget_bytes": 400_000_000},
            "optimizer": {"max_grad_norm": 1.0},
        });
        self.write(name, "plan.json", &plan.to_string());
    }

    /// The page of one or several runs.
    pub fn report(&self, runs: &[&str]) -> Page {
        Page::of(&fs::read_to_string(self.report_file(runs)).unwrap())
    }

    /// Where that page is.
    pub fn report_file(&self, runs: &[&str]) -> PathBuf {
        let output = self.path("page.html");
        let mut arguments = vec!["report".to_string(), "--output".to_string(), output.display().to_string()];
        arguments.extend(runs.iter().map(|run| self.path(run).display().to_string()));
        let (code, _, stderr) = tune(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(code, 0, "{stderr}");
        output
    }
}

fn evaluation(step: u64, loss: f64) -> Value {
    json!({"step": step, "evaluation": {"loss": loss, "perplexity": loss.exp(), "rows": 8, "exact": [step.min(8), 8], "seconds": 1.0}})
}

fn line(step: u64, steps: u64) -> Value {
    json!({
        "step": step, "steps": steps, "epoch": step as f64 / 10.0, "loss": 4.0 / (step as f64).sqrt(), "learning_rate": 1e-3 / step as f64,
        "grad_norm": 0.5 + (step % 7) as f64 / 5.0, "tokens": 512, "trained_tokens": 100, "tokens_per_second": 2500.0 + (step % 5) as f64,
        "step_ms": 200.0 + (step % 9) as f64, "peak_rss_bytes": 1_000_000_000 + step, "device_bytes": 0, "dram_tier_bytes": 0,
        "nvme_read_bytes": 0, "nvme_write_bytes": 0, "nvme": [], "stall_ms": 0.0,
        "stalls": {"weights_ms": 0.0, "activations_ms": 0.0, "gradients_ms": 0.0, "optimizer_ms": 0.0},
    })
}
