//! `tune checkpoints`: what a run has kept, whether it is whole, and what of it may go.
//!
//! In:    a run directory.
//! Out:   a table, a checkpoint's facts or JSON on stdout; exit code 1 where something is damaged.
//! Never: changes a run that a process writes, but for the signal that asks it for a checkpoint.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use checkpoints::checkpoint::{self, Manifest, Retention};
use checkpoints::lock::RunLock;
use clap::{Args, Subcommand};
use planner::units::bytes_text;
use serde_json::json;

use crate::args::step;
use crate::failure::{Failure, OrFail};
use crate::hardware::table;

mod save;
mod show;

/// `tune checkpoints ...`
#[derive(Debug, Subcommand)]
pub enum CheckpointsCommand {
    /// All of them, by names and sizes; `verify` reads the bytes
    List(ListArguments),
    /// One of them with all that its manifest says
    Show(ShowArguments),
    /// Compare every byte with what was written; exit code 1 if one is damaged
    Verify(VerifyArguments),
    /// Remove all but the last and the best, those set aside, and what killed processes left
    Prune(PruneArguments),
    /// Ask the process that trains for one, wait for it, and print its path
    Save(SaveArguments),
}

/// Which run.
#[derive(Debug, Args)]
pub struct RunPlace {
    /// The run directory, or its name under runs/
    pub run: PathBuf,
}

/// `tune checkpoints list`
#[derive(Debug, Args)]
pub struct ListArguments {
    /// Which run.
    #[command(flatten)]
    pub run: RunPlace,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `tune checkpoints show`
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// Which run.
    #[command(flatten)]
    pub run: RunPlace,
    /// Which one, such as step-000100; the newest without it
    #[arg(value_parser = step)]
    pub step: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `tune checkpoints verify`
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Which run.
    #[command(flatten)]
    pub run: RunPlace,
    /// Only this one, such as step-000100
    #[arg(value_parser = step)]
    pub step: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `tune checkpoints prune`
#[derive(Debug, Args)]
pub struct PruneArguments {
    /// Which run.
    #[command(flatten)]
    pub run: RunPlace,
    /// How many of the last to keep, at least 1
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub keep_last: usize,
    /// How many of those with the least held-out loss to keep besides
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_best: usize,
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
}

/// `tune checkpoints save`
#[derive(Debug, Args)]
pub struct SaveArguments {
    /// Which run.
    #[command(flatten)]
    pub run: RunPlace,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n >= 1).ok_or_else(|| "expected a whole number from 1 on".to_string())
}

/// Carries the command out.
pub fn run(command: &CheckpointsCommand) -> Result<(), Failure> {
    match command {
        CheckpointsCommand::List(arguments) => list(arguments),
        CheckpointsCommand::Show(arguments) => show::run(arguments),
        CheckpointsCommand::Verify(arguments) => verify(arguments),
        CheckpointsCommand::Prune(arguments) => prune(arguments),
        CheckpointsCommand::Save(arguments) => save::run(arguments),
    }
}

impl RunPlace {
    /// The directory: as given, or below `runs/`.
    fn folder(&self) -> Result<PathBuf, Failure> {
        let named = Path::new("runs").join(&self.run);
        match (self.run.is_dir(), named.is_dir()) {
            (true, _) => Ok(self.run.clone()),
            (false, true) => Ok(named),
            (false, false) => {
                let (given, named) = (self.run.display(), named.display());
                Err(anyhow!("no such run: neither {given} nor {named} is a directory")).or_input()
            }
        }
    }

    /// The directory and its checkpoints, of which there must be one.
    fn checkpoints(&self) -> Result<(PathBuf, Vec<(u64, PathBuf)>), Failure> {
        let folder = self.folder()?;
        let steps = checkpoint::steps(&folder).or_run()?;
        match steps.is_empty() {
            true => Err(anyhow!("no checkpoint in {}", folder.display())).or_input(),
            false => Ok((folder, steps)),
        }
    }
}

/// A checkpoint and what a look at it said.
struct Look {
    step: u64,
    path: PathBuf,
    manifest: Result<Manifest, String>,
}

impl Look {
    fn json(&self) -> serde_json::Value {
        let (step, path) = (self.step, &self.path);
        match &self.manifest {
            Ok(manifest) => {
                json!({ "step": step, "path": path, "complete": true, "bytes": manifest.bytes(), "manifest": manifest })
            }
            Err(problem) => json!({ "step": step, "path": path, "complete": false, "problem": problem }),
        }
    }

    fn row(&self) -> [String; 8] {
        let name = format!("step-{:06}", self.step);
        let Ok(manifest) = &self.manifest else {
            let nothing = || "-".to_string();
            return [name, nothing(), nothing(), nothing(), nothing(), nothing(), nothing(), "damaged".into()];
        };
        let (position, facts) = (&manifest.position, &manifest.facts);
        [
            name,
            format!("{}/{}", position.step, position.steps),
            (position.epoch + 1).to_string(),
            position.losses.last().map_or("-".into(), |loss| format!("{loss:.4}")),
            facts.held_out_loss.map_or("-".into(), |loss| format!("{loss:.4}")),
            bytes_text(manifest.bytes()),
            facts.reason.text().to_string(),
            "complete".into(),
        ]
    }
}

const HEAD: [&str; 8] = ["checkpoint", "step", "epoch", "loss", "held-out", "size", "saved for", "state"];

fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let (folder, steps) = arguments.run.checkpoints()?;
    let look = |(step, path): (u64, PathBuf)| {
        let manifest = checkpoint::quick_look(&path).map_err(|error| error.to_string());
        Look { step, path, manifest }
    };
    let looks: Vec<Look> = steps.into_iter().map(look).collect();
    let superseded = checkpoint::superseded(&folder).or_run()?;
    if arguments.json {
        let checkpoints: Vec<serde_json::Value> = looks.iter().map(Look::json).collect();
        let all = json!({ "run": folder, "checkpoints": checkpoints, "superseded": superseded });
        println!("{}", serde_json::to_string_pretty(&all).or_run()?);
        return Ok(());
    }
    print!("{}", table(HEAD, looks.iter().map(Look::row).collect()).unwrap_or_default());
    for look in &looks {
        if let Err(problem) = &look.manifest {
            println!("{problem}");
        }
    }
    superseded.iter().for_each(|path| println!("superseded: {}", path.display()));
    Ok(())
}

fn verify(arguments: &VerifyArguments) -> Result<(), Failure> {
    let (folder, steps) = arguments.run.checkpoints()?;
    let asked = arguments.step;
    let wanted: Vec<(u64, PathBuf)> =
        steps.into_iter().filter(|(step, _)| asked.is_none_or(|one| one == *step)).collect();
    if wanted.is_empty() {
        let step = asked.unwrap_or_default();
        return Err(anyhow!(
            "no checkpoint of step {step} in {}; `tune checkpoints list` names them",
            folder.display()
        ))
        .or_input();
    }
    let checked = |(step, path): (u64, PathBuf)| {
        let manifest = checkpoint::verify(&path).map_err(|error| error.to_string());
        Look { step, path, manifest }
    };
    let looks: Vec<Look> = wanted.into_iter().map(checked).collect();
    match arguments.json {
        true => {
            let all: Vec<serde_json::Value> = looks.iter().map(Look::json).collect();
            println!("{}", serde_json::to_string_pretty(&all).or_run()?);
        }
        false => looks.iter().for_each(|look| println!("{}", verdict(look))),
    }
    let damaged = looks.iter().filter(|look| look.manifest.is_err()).count();
    match damaged {
        0 => Ok(()),
        n => Err(anyhow!("{n} of {} checkpoints are damaged: {}", looks.len(), folder.display())).or_run(),
    }
}

fn verdict(look: &Look) -> String {
    match &look.manifest {
        Ok(manifest) => format!("step-{:06}  {} as written", look.step, bytes_text(manifest.bytes())),
        Err(problem) => format!("step-{:06}  {problem}", look.step),
    }
}

fn prune(arguments: &PruneArguments) -> Result<(), Failure> {
    let folder = arguments.run.folder()?;
    let retention = Retention { keep_last: arguments.keep_last, keep_best: arguments.keep_best };
    if arguments.dry_run {
        let surplus = checkpoint::surplus(&folder, retention).or_run()?;
        let superseded = checkpoint::superseded(&folder).or_run()?;
        surplus.iter().chain(&superseded).for_each(|path| println!("would remove {}", path.display()));
        return Ok(());
    }
    let _lock = RunLock::acquire(&folder).or_input()?;
    let mut removed = checkpoint::prune(&folder, retention).or_run()?;
    for path in checkpoint::superseded(&folder).or_run()? {
        checkpoint::remove(&path).or_run()?;
        removed.push(path);
    }
    removed.iter().for_each(|path| println!("removed {}", path.display()));
    Ok(())
}
