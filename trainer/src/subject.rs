//! What a path holds that a network can be opened from.
//!
//! In:    a run directory, a checkpoint of one, an adapter's folder, a model.
//! Out:   a [`Subject`]: what was trained, and the plan of its run where there is one.
//! Never: looks for the base model: where it comes from is the recipe's word, which this room does not read.

use std::path::{Path, PathBuf};

use checkpoints::checkpoint;
use checkpoints::peft::read_adapter;
use planner::plan::Plan;

use crate::error::TrainError;
use crate::network::Tuned;

/// The resolved recipe in a run directory.
pub const RECIPE_FILE: &str = "recipe.toml";
/// The plan in a run directory.
pub const PLAN_FILE: &str = "plan.json";
/// A LoRA run's result in its run directory.
pub(crate) const ADAPTER_FOLDER: &str = "adapter";
/// A full run's result in its run directory.
pub(crate) const MODEL_FOLDER: &str = "model";

/// What a path holds.
#[derive(Debug)]
pub enum Subject {
    /// A run, or a checkpoint of it.
    Run(Box<Trained>),
    /// A PEFT adapter by itself.
    Adapter {
        /// Its folder.
        folder: PathBuf,
        /// The adapter.
        tuned: Tuned,
        /// `base_model_name_or_path`
        base: Option<String>,
    },
    /// A model's own files.
    Model(PathBuf),
}

/// What was trained in a run.
#[derive(Debug)]
pub struct Trained {
    /// The run directory.
    pub directory: PathBuf,
    /// Its plan.
    pub plan: Plan,
    /// What lies over the base, or nothing if `model` holds all of it.
    pub tuned: Tuned,
    /// The trained model's folder, after full training.
    pub model: Option<PathBuf>,
    /// What was taken, for people: `adapter`, `model` or `checkpoints/step-000100`.
    pub taken: String,
    /// What people should know: checkpoints that are damaged, or that the run has not ended.
    pub notes: Vec<String>,
}

/// Looks at a path. `checkpoint`, such as `step-000100`, takes that one of a run instead of its result.
pub fn subject(path: &Path, checkpoint: Option<&str>) -> Result<Subject, TrainError> {
    if path.join(PLAN_FILE).is_file() {
        return run(path, checkpoint);
    }
    if let Some((directory, name)) = checkpoint_of_a_run(path) {
        return run(&directory, Some(&name));
    }
    if checkpoint.is_some() {
        return Err(refused(path, format!("no run: it holds no {PLAN_FILE}, so there is no checkpoint to take")));
    }
    if path.join("adapter_config.json").is_file() {
        let adapter = read_adapter(path)?;
        let base = adapter.config.base_model.clone();
        return Ok(Subject::Adapter { folder: path.to_path_buf(), tuned: Tuned::Adapter(Box::new(adapter)), base });
    }
    let is_model = path.join("config.json").is_file() || (path.is_file() && has_gguf_name(path));
    match is_model {
        true => Ok(Subject::Model(path.to_path_buf())),
        false => Err(refused(path, unknown(path))),
    }
}

fn unknown(path: &Path) -> String {
    if !path.exists() {
        return "no such run, adapter or model; expected a run directory, RUN/checkpoints/step-N, an adapter's folder, a model's folder or a .gguf file".to_string();
    }
    if path.join(RECIPE_FILE).is_file() {
        return format!("no result yet: the run has written {RECIPE_FILE} but no {PLAN_FILE}");
    }
    format!(
        "neither a run ({PLAN_FILE}), nor an adapter (adapter_config.json), nor a model (config.json, or a .gguf file)"
    )
}

fn has_gguf_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// Run directory and name, if the path is `RUN/checkpoints/step-N`.
fn checkpoint_of_a_run(path: &Path) -> Option<(PathBuf, String)> {
    // So that `step-000100` and `.` inside a run work too.
    let path = path.canonicalize().ok()?;
    let name = path.file_name()?.to_str()?;
    let directory = path.parent().filter(|folder| folder.ends_with("checkpoints"))?.parent()?;
    (name.starts_with("step-") && directory.join(PLAN_FILE).is_file())
        .then(|| (directory.to_path_buf(), name.to_string()))
}

fn run(directory: &Path, checkpoint: Option<&str>) -> Result<Subject, TrainError> {
    let plan = read_plan(&directory.join(PLAN_FILE))?;
    let mut run = Trained {
        directory: directory.to_path_buf(),
        plan,
        tuned: Tuned::Nothing,
        model: None,
        taken: String::new(),
        notes: Vec::new(),
    };
    let (adapter, model) = (directory.join(ADAPTER_FOLDER), directory.join(MODEL_FOLDER));
    match checkpoint {
        Some(name) => named(&mut run, name)?,
        None if adapter.is_dir() => {
            run.tuned = Tuned::Adapter(Box::new(read_adapter(&adapter)?));
            run.taken = ADAPTER_FOLDER.to_string();
        }
        None if model.is_dir() => {
            run.model = Some(model);
            run.taken = MODEL_FOLDER.to_string();
        }
        None => newest(&mut run)?,
    }
    Ok(Subject::Run(Box::new(run)))
}

fn read_plan(path: &Path) -> Result<Plan, TrainError> {
    let text = std::fs::read_to_string(path).map_err(|error| refused(path, format!("cannot be read: {error}")))?;
    let damaged = |error| refused(path, format!("not a plan that this version reads: {error}"));
    serde_json::from_str(&text).map_err(damaged)
}

fn named(run: &mut Trained, name: &str) -> Result<(), TrainError> {
    let found = checkpoint::steps(&run.directory)?;
    let number = |text: &str| text.strip_prefix("step-").unwrap_or(text).parse::<u64>().ok();
    let wanted = number(name);
    let Some((_, path)) = found.iter().find(|(step, _)| Some(*step) == wanted) else {
        let steps: Vec<String> = found.iter().map(|(step, _)| format!("step-{step:06}")).collect();
        let there = if steps.is_empty() { "none".to_string() } else { steps.join(", ") };
        return Err(refused(&run.directory, format!("no checkpoint {name}; there are: {there}")));
    };
    let restored = checkpoint::open(path)?;
    take(run, restored);
    Ok(())
}

fn newest(run: &mut Trained) -> Result<(), TrainError> {
    let found = checkpoint::newest_complete(&run.directory)?;
    let damaged = found.damaged.iter().map(|bad| format!("{}: {}", bad.path.display(), bad.reason));
    run.notes.extend(damaged);
    let Some(restored) = found.newest else {
        let damaged: String = run.notes.iter().map(|note| format!("; damaged: {note}")).collect();
        return Err(refused(
            &run.directory,
            format!("no result yet: no adapter, model or complete checkpoint{damaged}"),
        ));
    };
    take(run, restored);
    run.notes.push(format!("the run has not ended; taking its newest complete checkpoint, {}", run.taken));
    Ok(())
}

fn take(run: &mut Trained, restored: checkpoint::Restored) {
    let name = restored.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    run.taken = format!("checkpoints/{name}");
    run.tuned = Tuned::Checkpoint(Box::new(restored), run.plan.method.clone());
}

fn refused(path: &Path, problem: String) -> TrainError {
    TrainError::Subject { path: path.to_path_buf(), problem }
}
