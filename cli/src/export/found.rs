//! What is to be exported, and the base model that it was trained on.
//!
//! In:    a path: a run directory, a checkpoint of one, an adapter's folder; the base's place where it is not the recipe's.
//! Out:   a [`Found`] whose base is opened and is the one of the run.
//! Never: takes another model than the run's for its base.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use checkpoints::checkpoint;
use checkpoints::source::Place;
use checkpoints::weights::Weights;
use planner::plan::{BaseStorage, DataPlan, MethodPlan, Plan};
use recipes::Recipe;
use trainer::{RECIPE_FILE, Subject, Trained, Tuned, subject};

use super::ExportArguments;
use crate::failure::{Failure, OrFail};
use crate::{opened, prepare};

/// Everything that is known before anything is written.
pub struct Found {
    /// The model that training began with; after full training, the trained model's own files where they are whole.
    pub base: Weights,
    /// The name of the model that was trained, as other programs would look for it.
    pub base_name: Option<String>,
    /// The run, where there is one.
    pub run: Option<Run>,
    /// What people should know.
    pub notes: Vec<String>,
    tuned: Option<Tuned>,
}

/// The run that trained it.
pub struct Run {
    /// Its directory.
    pub directory: PathBuf,
    /// Its resolved recipe.
    pub recipe: Recipe,
    /// Its plan.
    pub plan: Plan,
    /// `step-000100`, where a checkpoint and not the result is exported.
    pub checkpoint: Option<String>,
}

impl Found {
    /// For people: `runs/x`, or `runs/x, checkpoint step-000100`.
    pub fn title(&self) -> String {
        match &self.run {
            None => "the adapter".to_string(),
            Some(Run { directory, checkpoint: None, .. }) => directory.display().to_string(),
            Some(Run { directory, checkpoint: Some(name), .. }) => {
                format!("{}, checkpoint {name}", directory.display())
            }
        }
    }

    /// How the run read its rows.
    pub fn data(&self) -> Option<&DataPlan> {
        self.run.as_ref().map(|run| &run.plan.data)
    }

    /// What training changed; taken once.
    pub fn take_tuned(&mut self) -> Tuned {
        self.tuned.take().unwrap_or(Tuned::Nothing)
    }

    /// Whether every weight was trained.
    pub fn is_full(&self) -> bool {
        self.run.as_ref().is_some_and(|run| matches!(run.plan.method, MethodPlan::Full(_)))
    }
}

/// Looks at what the user names; `--model` stands for the place that the recipe or the adapter names.
pub fn find(arguments: &ExportArguments) -> Result<Found, Failure> {
    let (path, model) = (run_of_a_result(&arguments.subject), arguments.model.as_deref());
    match subject(&path, arguments.checkpoint.as_deref()).map_err(opened::failure)? {
        Subject::Run(trained) => of_run(*trained, model),
        Subject::Adapter { folder, tuned, base } => of_adapter(&folder, tuned, model.map(str::to_string).or(base)),
        Subject::Model(path) => Err(anyhow!(
            "{} is a model, and nothing in it was trained here; give a run directory, a checkpoint of one, or an adapter's folder",
            path.display()
        ))
        .or_input(),
    }
}

/// `RUN/adapter` and `RUN/model` stand for their run, whose recipe says more than they do.
fn run_of_a_result(path: &Path) -> PathBuf {
    let is_result = path.file_name().is_some_and(|name| name == "adapter" || name == "model");
    match path.parent() {
        Some(run) if is_result && run.join(RECIPE_FILE).is_file() && run.join("plan.json").is_file() => {
            run.to_path_buf()
        }
        _ => path.to_path_buf(),
    }
}

fn of_run(trained: Trained, base: Option<&str>) -> Result<Found, Failure> {
    let Trained { directory, plan, tuned, model, taken, mut notes } = trained;
    let recipe = recipes::read(&directory.join(RECIPE_FILE), &[]).or_input()?;
    let place = directory.display();
    let opened = match (&model, base) {
        (Some(model), None) => Weights::open(model).or_input()?,
        (Some(_), Some(_)) => {
            return Err(anyhow!(
                "{place}: every weight was trained, so the export needs no base model; leave --model out"
            ))
            .or_input();
        }
        (None, Some(base)) => open(base)?,
        (None, None) => {
            let hint = || format!("the base model of {place} cannot be had; give its new place with --model");
            let path = match prepare::fetch(&recipe) {
                Ok(path) => path,
                Err(Failure::Input(error)) => return Err(Failure::Input(error.context(hint()))),
                Err(other) => return Err(other),
            };
            Weights::open(&path).with_context(hint).or_input()?
        }
    };
    if model.is_none() && *opened.spec() != plan.model.spec {
        let differ = difference(&plan, &opened);
        return Err(anyhow!("not the model that {place} was trained on: {differ}; give that one with --model"))
            .or_input();
    }
    if model.is_none() && trained_on(&directory, &tuned).is_some_and(|was| was != opened.fingerprint()) {
        match base {
            None => {
                let hint = "put the old file back, or name this one with --model to take it all the same";
                return Err(anyhow!("the base model has changed since {place} was trained on it; {hint}")).or_input();
            }
            Some(base) => notes.push(format!(
                "{base} describes the network that {place} was trained on, but holds other numbers: results will differ from the run's"
            )),
        }
    }
    let base = plan.method.base();
    let opened = match trainer::base_rounding(base) {
        Some(rounding) => opened.rounded(rounding),
        None => opened,
    };
    if let Some(bits) = base.packed_bits() {
        let best = if base == BaseStorage::Nf4 { "loaded as NF4 with double quantisation" } else { "in 8 bits" };
        notes.push(format!(
            "the adapter was trained over a base in {bits} bits: a merged export adds it, in f32, to the base's numbers as {bits} bits held \
             them; an adapter by itself fits a base {best} best"
        ));
    }
    let checkpoint = taken.strip_prefix("checkpoints/").map(str::to_string);
    let base_name = Some(prepare::base_name(&recipe));
    let run = Run { directory, recipe, plan, checkpoint };
    Ok(Found { base: opened, base_name, run: Some(run), notes, tuned: Some(tuned) })
}

/// Fingerprint of the model that a run began with, if one of its checkpoints is still there to say it.
fn trained_on(directory: &Path, tuned: &Tuned) -> Option<String> {
    if let Tuned::Checkpoint(kept, _) = tuned {
        return Some(kept.facts.model.clone());
    }
    let steps = checkpoint::steps(directory).ok()?;
    let manifest = steps.iter().rev().find_map(|(_, path)| checkpoint::quick_look(path).ok())?;
    Some(manifest.facts.model)
}

fn of_adapter(folder: &Path, tuned: Tuned, base: Option<String>) -> Result<Found, Failure> {
    let place = folder.display();
    let Some(base) = base else {
        return Err(anyhow!("{place}: adapter_config.json names no base model; give it with --model")).or_input();
    };
    let opened = open(&base).map_err(|failure| match failure {
        Failure::Input(error) => Failure::Input(
            error.context(format!("the base model of the adapter {place} cannot be had; give its place with --model")),
        ),
        other => other,
    })?;
    Ok(Found { base: opened, base_name: Some(base), run: None, notes: Vec::new(), tuned: Some(tuned) })
}

fn open(base: &str) -> Result<Weights, Failure> {
    let places = [Place::parse(base).or_input()?];
    Weights::open(&prepare::fetch_places(&places, None)?).or_input()
}

/// The keys of the network's description that differ.
fn difference(plan: &Plan, opened: &Weights) -> String {
    let value = |spec| serde_json::to_value(spec).expect("a description is plain values");
    let (was, is) = (value(&plan.model.spec), value(opened.spec()));
    let keys = was.as_object().into_iter().flatten().filter(|(key, value)| is[key.as_str()] != **value);
    let parts = keys.take(3).map(|(key, value)| format!("{key} was {value} and is {}", is[key.as_str()]));
    parts.collect::<Vec<_>>().join(", ")
}
