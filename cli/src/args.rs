//! What can be typed.
//!
//! In:    the command line.
//! Out:   typed arguments; clap answers `--help` and refuses the rest with exit code 2.
//! Never: lists a command that does not work.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use recipes::DeviceName;

use crate::chat::ChatArguments;
use crate::checkpoint::CheckpointsCommand;
use crate::data::GenerateArguments;
use crate::described::MachineArguments;
use crate::doctor::DoctorArguments;
use crate::eval::EvalArguments;
use crate::export::ExportArguments;
use crate::hardware::HardwareCommand;
use crate::migrate::MigrateArguments;

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
    /// Show what `run` would do here or on a machine you describe: memory, time, cost; trains nothing
    Plan(PlanArguments),
    /// Cards, processors and drives that `plan` can plan for
    Hardware {
        /// What to show.
        #[command(subcommand)]
        command: HardwareCommand,
    },
    /// What this machine is, measured; what will be slow; what to fix
    Doctor(DoctorArguments),
    /// This machine against its limits
    Bench {
        /// What to measure.
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// Data sets
    Data {
        /// What to do.
        #[command(subcommand)]
        command: DataCommand,
    },
    /// Talk to what was trained, or to any model
    Chat(Box<ChatArguments>),
    /// Loss, perplexity and exact answers of what was trained, beside its base if asked
    Eval(Box<EvalArguments>),
    /// Checkpoints of a run: look at them, check them, remove some, ask a running run for one
    Checkpoints {
        /// What to do.
        #[command(subcommand)]
        command: CheckpointsCommand,
    },
    /// Write what a run trained as files that other programs load; read back and compared before they count
    Export(ExportArguments),
    /// Turn an Axolotl or LLaMA-Factory YAML file into a recipe
    Migrate(MigrateArguments),
    /// One page for the browser: curves, memory and time against the plan, answers, recipe; several runs side by side
    Report(ReportArguments),
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
    /// Go on after the newest complete checkpoint in the run directory, or after that of a step (step-000100); later ones are set aside
    #[arg(long, value_name = "STEP", num_args = 0..=1, require_equals = true, default_missing_value = "newest")]
    #[arg(value_parser = resume_from, conflicts_with = "from")]
    pub resume: Option<ResumeFrom>,
    /// Begin a new run with the weights of a checkpoint, or of the newest of a run directory: step 0, fresh optimizer
    #[arg(long, value_name = "CHECKPOINT")]
    pub from: Option<PathBuf>,
}

/// `--resume`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumeFrom {
    /// The newest complete checkpoint.
    Newest,
    /// That of this step.
    Step(u64),
}

fn resume_from(text: &str) -> Result<ResumeFrom, String> {
    match text {
        "newest" => Ok(ResumeFrom::Newest),
        text => step(text).map(ResumeFrom::Step),
    }
}

/// `step-000100`, or `100`.
pub fn step(text: &str) -> Result<u64, String> {
    let found = checkpoints::checkpoint::step_of(text).or_else(|| text.parse().ok());
    found.ok_or_else(|| "expected a checkpoint's name such as step-000100, or its step".to_string())
}

/// `--resume step-000100` as clap wants it, `--resume=step-000100`: any other word after `--resume` is an argument of its own, such as the
/// recipe.
pub fn joined(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    for word in words {
        let is_step = word.to_str().is_some_and(|word| checkpoints::checkpoint::step_of(word).is_some());
        match joined.last_mut() {
            Some(last) if is_step && last == "--resume" => {
                last.push("=");
                last.push(word);
            }
            _ => joined.push(word),
        }
    }
    joined
}

/// `tune report`
#[derive(Debug, Args)]
pub struct ReportArguments {
    /// Run directories
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// The page; default RUN/report.html, for several runs comparison.html here
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

/// `tune plan`
#[derive(Debug, Args)]
pub struct PlanArguments {
    /// The recipe, a TOML file
    #[arg(required_unless_present_any = ["what_fits", "schema", "compare"])]
    pub recipe: Option<PathBuf>,
    /// Override a recipe key, such as train.steps=50; the value is TOML, or a bare word
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The machine to plan for.
    #[command(flatten)]
    pub machine: MachineArguments,
    /// Side by side: the recipe on machines (files with [machine]), or other recipes
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "what_fits")]
    pub compare: Vec<PathBuf>,
    /// The largest models that each method can train on the machine
    #[arg(long, conflicts_with = "recipe")]
    pub what_fits: bool,
    /// Print JSON, as `--schema` describes it
    #[arg(long)]
    pub json: bool,
    /// Print the JSON schema of the plan and end
    #[arg(long)]
    pub schema: bool,
    /// Also write a chart
    #[arg(long, value_name = "FILE", conflicts_with_all = ["compare", "what_fits"])]
    pub svg: Option<PathBuf>,
}

/// `tune bench ...`
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Sequential reads and writes of the NVMe tier: files are made, measured and removed
    Io(BenchIoArguments),
    /// One optimizer update against a plain triad in memory, and against the disk's own rate
    Adam(BenchAdamArguments),
    /// Matrix products at the sizes that training has, forward and backward, in f32 and bf16
    Matmul(BenchMatmulArguments),
    /// Every operation of training on a device against its slow twin, and what its matrix products reach
    Kernels(BenchKernelsArguments),
}

/// `tune bench kernels`
#[derive(Debug, Args)]
pub struct BenchKernelsArguments {
    /// Where to compute: cpu, cuda:N or vulkan:N; default: a CUDA card if there is one
    #[arg(long, value_name = "DEVICE", value_parser = device, default_value = "auto")]
    pub device: DeviceName,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `tune bench matmul`
#[derive(Debug, Args)]
pub struct BenchMatmulArguments {
    /// Tokens of a micro-batch
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub tokens: usize,
    /// Also measure every rate that plans are made with, and keep them
    #[arg(long)]
    pub rates: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `tune bench io`
#[derive(Debug, Args)]
pub struct BenchIoArguments {
    /// A directory, best one per disk; several are striped
    #[arg(long, alias = "paths", value_name = "DIR", num_args = 1.., required = true)]
    pub path: Vec<PathBuf>,
    /// Bytes to write, write again and read
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = size)]
    pub size: u64,
    /// Bytes of one request
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = size)]
    pub chunk: u64,
    /// Requests in flight per directory
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub depth: usize,
    /// How to talk to the kernel
    #[arg(long, value_enum, default_value_t = BenchEngine::Auto)]
    pub engine: BenchEngine,
    /// Measure without the checksum of every chunk
    #[arg(long)]
    pub no_checksums: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `tune bench adam`
#[derive(Debug, Args)]
pub struct BenchAdamArguments {
    /// Where parameters, gradients and moments live
    #[arg(long, value_enum, default_value_t = BenchTier::Dram)]
    pub tier: BenchTier,
    /// Directories of the nvme tier
    #[arg(long, alias = "paths", value_name = "DIR", num_args = 1..)]
    pub path: Vec<PathBuf>,
    /// Parameters
    #[arg(long, value_name = "N", default_value_t = 64 << 20)]
    pub parameters: u64,
    /// Updates that count; one more warms up
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub steps: usize,
    /// The update rule
    #[arg(long, value_enum, default_value_t = BenchRule::Adamw)]
    pub rule: BenchRule,
    /// Also write the parameters rounded to bf16, as training in bf16 does
    #[arg(long)]
    pub bf16_copy: bool,
    /// Bytes of f32 parameters moved at a time
    #[arg(long, value_name = "SIZE", default_value = "4MiB", value_parser = size)]
    pub chunk: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `--engine`
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum BenchEngine {
    /// io_uring where it runs, else threads
    Auto,
    /// io_uring or an error
    IoUring,
    /// A pool of threads
    Threads,
}

/// `--tier`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchTier {
    /// Host memory
    Dram,
    /// Files in `--path`
    Nvme,
}

/// `--rule`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum BenchRule {
    /// f32 states
    Adamw,
    /// 8-bit states
    Adamw8bit,
    /// bf16 states, rounded stochastically
    AdamwBf16,
    /// One f32 state
    Lion,
    /// One f32 state
    Sgd,
    /// Factored states
    Adafactor,
}

/// `cpu`, `cuda:0`, `vulkan:0`, as in a recipe.
pub fn device(text: &str) -> Result<DeviceName, String> {
    DeviceName::try_from(toml::Value::String(text.to_string()))
}

/// `4GiB`, `500MB`, as in a recipe.
pub fn size(text: &str) -> Result<u64, String> {
    recipes::bytes_of(text)
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| "expected a size such as 4GiB or 500MB".to_string())
}

/// `tune data ...`
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Read, check and tokenise the rows of a recipe, as `run` does first
    Prepare(PrepareArguments),
    /// Show rows as the model reads them, trained tokens in colour
    Inspect(InspectArguments),
    /// Figures of the rows: lengths, trained share, packing, duplicates
    Stats(StatsArguments),
    /// Make question and answer rows from your own documents, with a model that runs on your machine
    Generate(Box<GenerateArguments>),
}

/// `tune data prepare`
#[derive(Debug, Args)]
pub struct PrepareArguments {
    /// Which recipe.
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `tune data inspect`
#[derive(Debug, Args)]
pub struct InspectArguments {
    /// Which recipe.
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// How many rows
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rows: usize,
    /// This row alone, from 1
    #[arg(long, value_name = "N", conflicts_with_all = ["at", "longest"])]
    pub row: Option<usize>,
    /// The rows of this place
    #[arg(long, value_name = "FILE:LINE", conflicts_with_all = ["longest", "packed"])]
    pub at: Option<String>,
    /// The longest rows
    #[arg(long, conflicts_with = "packed")]
    pub longest: bool,
    /// Rows as they share packed rows in the first epoch, with their borders
    #[arg(long, conflicts_with_all = ["held_out", "json"])]
    pub packed: bool,
    /// The held-out rows instead of those that are trained on
    #[arg(long)]
    pub held_out: bool,
    /// Also the token ids
    #[arg(long)]
    pub ids: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `tune data stats`
#[derive(Debug, Args)]
pub struct StatsArguments {
    /// Which recipe.
    #[command(flatten)]
    pub recipe: RecipeArguments,
    /// Also write a page for the browser, with rows
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
