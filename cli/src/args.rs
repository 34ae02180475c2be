//! What can be typed.
//!
//! In:    the command line.
//! Out:   typed arguments; clap answers `--help` and refuses the rest with exit code 2.
//! Never: lists a command that does not work.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Fine-tune language models on hardware you own.
#[derive(Debug, Parser)]
#[command(name = "tune", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train: plan first, refuse with numbers what cannot fit
    Run(RunArguments),
    /// Show what `run` would do and the memory it needs (fetches the model, trains nothing)
    Plan(PlanArguments),
    /// Data sets
    Data {
        /// What to do.
        #[command(subcommand)]
        command: DataCommand,
    },
}

/// A recipe and its overrides.
#[derive(Debug, Args)]
pub struct RecipeArguments {
    /// The recipe, a TOML file
    pub recipe: PathBuf,
    /// Override a recipe key, such as train.steps=50; the value is TOML, or a bare word
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `tune run`
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Which recipe.
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// The run directory; default runs/NAME
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Go on after the newest complete checkpoint in the run directory
    #[arg(long)]
    pub resume: bool,
}

/// `tune plan`
#[derive(Debug, Args)]
pub struct PlanArguments {
    /// Which recipe.
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
}

/// `tune data ...`
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Write one of the project's own data sets, the same bytes every time
    Generate(GenerateArguments),
}

/// `tune data generate`
#[derive(Debug, Args)]
pub struct GenerateArguments {
    /// Which data set
    pub name: GeneratedData,
    /// Folder to write into
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

/// Data sets that can be generated.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum GeneratedData {
    /// Questions and answers about the memory arithmetic of local models
    MemoryArithmetic,
}
