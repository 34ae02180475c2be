//! A run directory, read for its report.
//!
//! In:    its path.
//! Out:   a [`Run`]: recipe, plan, curves, answers, checkpoints, processes, and how it stands.
//! Never: changes anything there, or takes a folder for a run that is none.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use checkpoints::{checkpoint, lock};
use planner::plan::Plan;
use serde_json::Value;
use trainer::{PLAN_FILE, RECIPE_FILE};

use super::metrics::Metrics;
use crate::plan::Planned;
use crate::run_directory::leaves_of;
use crate::sessions::{self, Session};

const METRICS_FILE: &str = "metrics.jsonl";
const SAMPLES_FILE: &str = "samples.jsonl";
/// Files of text that are longer were not written by this program.
const TEXT_BYTES_MAX: u64 = 64 << 20;
/// Answers that are shown at most.
const SAMPLES_MAX: usize = 32;

/// How a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// All steps are done and the result is there.
    Finished,
    /// A process writes it now.
    Running(String),
    /// It ended before its last step, or before its result was written.
    Stopped,
}

/// Who may hold the directory's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    /// Whoever does is running the run.
    Others,
    /// This process, whose run has just ended.
    Own,
}

/// A figure of the plan, if `plan.json` was there.
#[derive(Debug, Clone)]
pub(super) struct PlanFacts {
    pub(super) planned: Planned,
    pub(super) dram_bytes: u64,
    pub(super) device_budget: String,
    pub(super) write_budget_bytes: Option<u64>,
    pub(super) max_grad_norm: Option<f64>,
    /// Written to NVMe by a step and once before the first.
    pub(super) written_per_step: u64,
    pub(super) placed_bytes: u64,
    pub(super) rates: String,
}

/// A question with its answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    pub(super) question: String,
    pub(super) expected: String,
    /// Step and answer, in the order of steps.
    pub(super) answers: Vec<(u64, String)>,
}

/// A checkpoint's step, bytes, and whether its manifest is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) step: u64,
    pub(super) bytes: u64,
    pub(super) complete: bool,
}

/// Everything that a report says of a run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) folder: PathBuf,
    pub(super) name: String,
    pub(super) standing: Standing,
    pub(super) recipe_text: String,
    /// Dotted keys and values of the resolved recipe.
    pub(super) recipe: Vec<(String, String)>,
    pub(super) plan: Option<PlanFacts>,
    pub(super) metrics: Metrics,
    pub(super) samples: Vec<Sample>,
    pub(super) checkpoints: Vec<Kept>,
    pub(super) sessions: Vec<Session>,
    /// Other files that people look for, by name.
    pub(super) files: Vec<String>,
    /// What the reader should know about the files.
    pub(super) notes: Vec<String>,
}

impl Run {
    /// Reads a run directory; at most `most` points a curve.
    pub(super) fn read(folder: &Path, most: usize, lock: Lock) -> anyhow::Result<Run> {
        let place = folder.display();
        if !folder.is_dir() {
            bail!("no such run directory: {place}; name a folder that `tune run` filled, such as runs/NAME");
        }
        let recipe_path = folder.join(RECIPE_FILE);
        if !recipe_path.is_file() {
            bail!("not a run directory: {place} has no {RECIPE_FILE}; name a folder that `tune run` filled");
        }
        let recipe_text = text_of(&recipe_path)?;
        let table: Value = toml::from_str(&recipe_text).map_err(|error| damaged(&recipe_path, error.message()))?;
        let mut notes = Vec::new();
        let plan = plan_of(&folder.join(PLAN_FILE), &mut notes)?;
        let metrics = metrics_of(&folder.join(METRICS_FILE), most, &mut notes)?;
        let mut run = Run {
            folder: folder.to_path_buf(),
            name: table["name"].as_str().unwrap_or("unnamed").to_string(),
            standing: Standing::Stopped,
            recipe: leaves_of(&table),
            recipe_text,
            plan,
            metrics,
            samples: samples_of(&folder.join(SAMPLES_FILE)),
            checkpoints: checkpoints_of(folder)?,
            sessions: sessions::of_run(folder),
            files: files_of(folder),
            notes,
        };
        run.standing = run.stands(lock);
        Ok(run)
    }

    fn stands(&self, lock: Lock) -> Standing {
        let is_whole = self.metrics.last_step.is_some() && self.metrics.last_step == self.metrics.steps_planned;
        let has_result = ["adapter", "model"].iter().any(|name| self.folder.join(name).is_dir());
        match (lock, lock::held_by(&self.folder)) {
            (Lock::Others, Some(process)) => Standing::Running(process),
            _ if is_whole && has_result => Standing::Finished,
            _ => Standing::Stopped,
        }
    }

    /// The value of a recipe key, without quotes.
    pub(super) fn key(&self, key: &str) -> Option<&str> {
        self.recipe.iter().find(|(name, _)| name == key).map(|(_, value)| value.trim_matches('"'))
    }
}

fn damaged(path: &Path, reason: &str) -> anyhow::Error {
    anyhow!("damaged run directory: {}: {reason}", path.display())
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    let place = || format!("cannot read {}", path.display());
    let bytes = std::fs::metadata(path).with_context(place)?.len();
    if bytes > TEXT_BYTES_MAX {
        return Err(damaged(path, &format!("{bytes} bytes, expected {TEXT_BYTES_MAX} at most")));
    }
    let bytes = std::fs::read(path).with_context(place)?;
    String::from_utf8(bytes).map_err(|_| damaged(path, "it is not text in UTF-8"))
}

/// What the plan says; other versions may have written it, so that only what is there is taken.
fn plan_of(path: &Path, notes: &mut Vec<String>) -> anyhow::Result<Option<PlanFacts>> {
    if !path.exists() {
        notes.push(format!("There is no {PLAN_FILE}: nothing is compared with the plan."));
        return Ok(None);
    }
    let text = text_of(path)?;
    let plan: Value = serde_json::from_str(&text).map_err(|error| damaged(path, &error.to_string()))?;
    let whole = |at: &str| plan.pointer(at).and_then(Value::as_u64);
    let number = |at: &str| plan.pointer(at).and_then(Value::as_f64);
    let planned = (|| {
        Some(Planned {
            peak_bytes: whole("/memory/peak_bytes")?,
            step_seconds: number("/time/step_seconds")?,
            tokens_per_second: number("/time/tokens_per_second")?,
        })
    })();
    let Some(planned) = planned else {
        notes.push(format!("{PLAN_FILE} states no peak or no time: nothing is compared with the plan."));
        return Ok(None);
    };
    let typed = serde_json::from_str::<Plan>(&text).ok();
    Ok(Some(PlanFacts {
        planned,
        dram_bytes: whole("/memory/dram_bytes").unwrap_or(0),
        device_budget: whole("/memory/budget_bytes").map_or(String::new(), planner::units::bytes_text),
        write_budget_bytes: whole("/offload/write_budget_bytes"),
        max_grad_norm: number("/optimizer/max_grad_norm"),
        written_per_step: typed.as_ref().map_or(0, planner::costs::written_per_step),
        placed_bytes: whole("/memory/nvme_bytes").unwrap_or(0),
        rates: typed.map_or(String::new(), |plan| crate::plan::words::origin(plan.time.origin).to_string()),
    }))
}

fn metrics_of(path: &Path, most: usize, notes: &mut Vec<String>) -> anyhow::Result<Metrics> {
    if !path.exists() {
        notes.push(format!("There is no {METRICS_FILE}: the run ended, or is still, before its first step."));
    }
    let metrics = match path.exists() {
        true => Metrics::read(path, most).with_context(|| format!("cannot read {}", path.display()))?,
        false => Metrics::none(),
    };
    let is_empty = metrics.last_step.is_none() && metrics.evaluations.is_empty();
    if let (true, Some(line)) = (is_empty, metrics.first_unreadable) {
        return Err(damaged(path, &format!("line {line} is no JSON of a step, nor is any other")));
    }
    if let Some(line) = metrics.first_unreadable {
        let count = metrics.unreadable;
        let lines = if count == 1 { "line" } else { "lines" };
        notes.push(format!(
            "{count} {lines} of {METRICS_FILE} cannot be read and are left out; the first is line {line}."
        ));
    }
    if metrics.cut_at_the_end {
        notes.push(format!("The last line of {METRICS_FILE} is cut: it was being written. It is left out."));
    }
    for (step, replaced) in &metrics.resumed_at {
        let steps = if *replaced == 1 { "step" } else { "steps" };
        notes.push(format!(
            "{replaced} {steps} from step {step} were done again after a resume; the later figures are shown."
        ));
    }
    Ok(metrics)
}

fn samples_of(path: &Path) -> Vec<Sample> {
    let text = text_of(path).unwrap_or_default();
    let mut samples: Vec<Sample> = Vec::new();
    for value in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let word = |key: &str| value[key].as_str().map(str::to_string);
        let (Some(step), Some(question), Some(answer)) = (value["step"].as_u64(), word("question"), word("answer"))
        else {
            continue;
        };
        let expected = word("expected").unwrap_or_default();
        // The same question may be asked by two rows: then its second line of a step belongs to the second row.
        let open = samples.iter_mut().find(|sample| {
            sample.question == question
                && sample.expected == expected
                && sample.answers.iter().all(|(at, _)| *at < step)
        });
        match open {
            Some(sample) => sample.answers.push((step, answer)),
            None => samples.push(Sample { question, expected, answers: vec![(step, answer)] }),
        }
    }
    samples.truncate(SAMPLES_MAX);
    samples
}

fn checkpoints_of(folder: &Path) -> anyhow::Result<Vec<Kept>> {
    let kept = |(step, path): (u64, PathBuf)| {
        let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
        let bytes = entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum();
        Kept { step, bytes, complete: path.join("manifest.json").is_file() }
    };
    Ok(checkpoint::steps(folder)?.into_iter().map(kept).collect())
}

/// Event files for TensorBoard, and the result.
fn files_of(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names
        .filter(|name| name.starts_with("events.out.tfevents") || ["adapter", "model"].contains(&name.as_str()))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
#[path = "run_files_tests.rs"]
mod tests;
