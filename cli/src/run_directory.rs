//! The run directory: who may write there, and what a resumed run may change.
//!
//! In:    its path, the resolved recipe and plan.
//! Out:   a locked directory with `recipe.toml` and `plan.json`.
//! Never: makes anything before recipe, model and plan are known to be good.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use checkpoints::difference::{differences, text};
use checkpoints::lock::{LOCK_FILE, RunLock};
use offload::durable::publish_file;
use recipes::recipe::PrecisionChoice;
use recipes::{DeviceName, MicroBatch, Recipe};
use trainer::{PLAN_FILE, RECIPE_FILE};

use crate::failure::{Failure, OrFail};
use crate::prepare::Prepared;

/// Keys that a resumed run may change: no number of the training depends on them.
const MAY_CHANGE: [&str; 7] =
    ["checkpoint.", "eval.", "log.", "hardware.memory", "train.keep", "model.source", "offload."];

/// A run directory that this process writes.
pub struct RunDirectory {
    path: PathBuf,
    is_new: bool,
    _lock: RunLock,
}

/// Refuses a directory that another run has used, before anything is fetched.
pub fn check_unused(path: &Path) -> Result<(), Failure> {
    let place = path.display();
    let mut entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(anyhow!("cannot use the run directory: {place}: {error}; choose another --output")).or_input();
        }
    };
    if path.join(RECIPE_FILE).exists() {
        let hint = "add --resume to go on with it, choose another --output, or remove it";
        return Err(anyhow!("the run directory holds a run: {place}; {hint}")).or_input();
    }
    if entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != LOCK_FILE)) {
        return Err(anyhow!("the run directory is not empty and holds no run: {place}; choose another --output"))
            .or_input();
    }
    Ok(())
}

/// The recipe of a resumed run: `auto` means what it meant at the start, and what decides a result must not differ.
pub fn continued(path: &Path, recipe: &Recipe) -> Result<Recipe, Failure> {
    let file = path.join(RECIPE_FILE);
    if !file.exists() {
        return Err(anyhow!("nothing to resume: {} does not exist; start without --resume", file.display())).or_input();
    }
    let started = recipes::read(&file, &[]).or_input()?;
    let mut recipe = recipe.clone();
    if recipe.model.precision == PrecisionChoice::Auto {
        recipe.model.precision = started.model.precision;
    }
    if recipe.train.micro_batch == MicroBatch::Auto {
        recipe.train.micro_batch = started.train.micro_batch;
    }
    if recipe.hardware.device == DeviceName::Auto {
        recipe.hardware.device = started.hardware.device;
    }
    Ok(recipe)
}

/// Refuses a resumed run whose resolved recipe differs from the started one's in what decides a result; names every such key.
pub fn check_unchanged(path: &Path, resolved: &Recipe) -> Result<(), Failure> {
    let started = recipes::read(&path.join(RECIPE_FILE), &[]).or_input()?;
    let value =
        |recipe: &Recipe| serde_json::to_value(recipe).expect("a recipe holds only tables, lists, texts and numbers");
    let mut differing = differences(&value(&started), &value(resolved));
    differing.retain(|one| !MAY_CHANGE.iter().any(|free| one.key.starts_with(free)));
    match differing.is_empty() {
        true => Ok(()),
        false => Err(anyhow!(
            "the recipe changed since the run started: {}: {}; set it back, or start a new run (with its weights: --from {})",
            path.display(),
            text(&differing),
            path.display()
        ))
        .or_input(),
    }
}

/// Every leaf of nested tables as `dotted.key` and value text; a list is one leaf.
pub fn leaves_of(tables: &serde_json::Value) -> Vec<(String, String)> {
    fn walk(prefix: &str, value: &serde_json::Value, out: &mut Vec<(String, String)>) {
        match value {
            serde_json::Value::Object(map) => {
                map.iter().for_each(|(key, value)| walk(&format!("{prefix}{key}."), value, out));
            }
            leaf => out.push((prefix.trim_end_matches('.').to_string(), leaf.to_string())),
        }
    }
    let mut out = Vec::new();
    walk("", tables, &mut out);
    out
}

impl RunDirectory {
    /// Makes, locks and describes the directory.
    pub fn open(path: &Path, prepared: &Prepared) -> Result<RunDirectory, Failure> {
        let is_new = !path.exists();
        let lock = RunLock::acquire(path).or_input()?;
        let directory = RunDirectory { path: path.to_path_buf(), is_new, _lock: lock };
        match directory.describe(prepared) {
            Ok(()) => Ok(directory),
            Err(error) => {
                directory.discard();
                Err(Failure::Run(error))
            }
        }
    }

    fn describe(&self, prepared: &Prepared) -> anyhow::Result<()> {
        publish_file(&self.path.join(RECIPE_FILE), prepared.recipe.to_toml().as_bytes())?;
        let plan = serde_json::to_vec_pretty(&prepared.plan).context("cannot write the plan as JSON")?;
        publish_file(&self.path.join(PLAN_FILE), &plan)?;
        Ok(())
    }

    /// Removes what this process wrote into a new directory before training began; anything else there stays.
    pub fn discard(self) {
        if !self.is_new {
            return;
        }
        for name in [RECIPE_FILE, PLAN_FILE, LOCK_FILE] {
            // Best effort: the error that led here is the one to report.
            let _ = std::fs::remove_file(self.path.join(name));
        }
        let _ = std::fs::remove_dir(&self.path);
    }
}
