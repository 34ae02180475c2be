//! `tune export`: what a run trained, as files that other programs load.
//!
//! In:    a run, a checkpoint of one, or an adapter; what to write and where.
//! Out:   a folder that was read back and compared, published whole; what was compared on stdout.
//! Never: touches what is there before the new folder is complete and equal to what was meant; replaces a folder that no export wrote.

mod card;
mod facts;
mod found;
mod target;

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use checkpoints::gguf::Mix;
use clap::{Args, ValueEnum};
use offload::durable::{publish_directory, remove_folder, staging_folder, write_staged};
use planner::units::bytes_text;
use recipes::DeviceName;
use serde_json::json;
use trainer::export::{Export, ExportError, LogitsReport, Measure, Report, Target, Workshop};

use crate::args::size;
use crate::failure::{Failure, OrFail};
use crate::machine;
use crate::progress::Progress;
use found::Found;

/// `tune export`
#[derive(Debug, Args)]
pub struct ExportArguments {
    /// A run directory, RUN/checkpoints/step-000100, or an adapter's folder
    #[arg(value_name = "RUN")]
    pub subject: PathBuf,
    /// What to write
    #[arg(long, value_enum)]
    pub to: ExportTarget,
    /// Take this checkpoint of the run instead of its result, such as step-000100
    #[arg(long, value_name = "STEP")]
    pub checkpoint: Option<String>,
    /// The folder to write; default RUN/export/NAME
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Number format of the weights; default what the base is stored in, bf16 over a GGUF file
    #[arg(long, value_enum)]
    pub precision: Option<ExportPrecision>,
    /// Largest file of weights; default 5GB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub shard_size: Option<u64>,
    /// Storage of a GGUF file: f32, f16, bf16, q8_0, q6_k, q4_0, q4_k_s, q4_k_m; default f16
    #[arg(long, value_name = "FORMAT", value_parser = target::mix)]
    pub quantize: Option<Mix>,
    /// Of a GGUF target write the adapter alone, for a base that is there already
    #[arg(long)]
    pub adapter_only: bool,
    /// The base model, where it is not any more where the run or the adapter says
    #[arg(long, value_name = "SOURCE")]
    pub model: Option<String>,
    /// Replace an earlier export
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `--to`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportTarget {
    /// The adapter alone, in PEFT's layout: PEFT, vLLM
    Peft,
    /// The whole model, adapter merged, as a Hugging Face folder: transformers, vLLM
    Safetensors,
    /// The whole model, adapter merged, as one GGUF file: llama.cpp, LM Studio
    Gguf,
    /// A GGUF file and a Modelfile beside it: ollama create NAME -f Modelfile
    Ollama,
}

/// `--precision`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportPrecision {
    /// 32 bits
    F32,
    /// bfloat16
    Bf16,
    /// 16-bit IEEE float; refused where a weight is beyond 65504
    F16,
}

/// In every exported folder: what was compared. Its presence says that an export wrote the folder.
const RECORD: &str = "export.json";
const CARD: &str = "README.md";

/// Writes, compares, publishes, and prints what was compared.
pub fn run(arguments: &ExportArguments) -> Result<(), Failure> {
    target::refuse_mixed(arguments)?;
    let progress = Progress::new();
    let mut found = found::find(arguments)?;
    found.notes.iter().for_each(|note| progress.note(note));
    let target = target::of(arguments, &found)?;
    let output = arguments
        .output
        .clone()
        .map_or_else(|| default_output(&found, &target::folder_name(arguments.to, &target)), Ok)?;
    check_output(&output, arguments.force)?;
    let staging = Staging::new(&output)?;
    progress.note(&format!("{} to {}: {}", found.title(), target::what(&target), output.display()));
    let workshop = Workshop { machine: machine::read(Vec::new(), DeviceName::Cpu).or_run()?, disk: staging.beside() };
    let tuned = found.take_tuned();
    let export = Export::new(&found.base, tuned, found.data(), workshop).map_err(failure)?;
    let report = export.write(&target, &staging.folder).map_err(failure)?;
    report.notes.iter().for_each(|note| progress.note(note));
    let subject = card::Subject { found: &found, target: &target, report: &report };
    let text = card::text(&subject, export.has_own_template());
    write_staged(&staging.folder.join(CARD), text.as_bytes()).or_run()?;
    let record = format!("{:#}\n", record(&found, &target, &report));
    write_staged(&staging.folder.join(RECORD), record.as_bytes()).or_run()?;
    staging.publish(&output)?;
    match arguments.json {
        true => println!("{:#}", json!({ "folder": output, "export": record_of(&record) })),
        false => print!("{}", table(&output, &target, &report)),
    }
    Ok(())
}

/// `RUN/export/safetensors-bf16`, with the checkpoint's name before it where one was named.
fn default_output(found: &Found, name: &str) -> Result<PathBuf, Failure> {
    let Some(run) = &found.run else {
        return Err(anyhow!("where to? an adapter by itself has no run directory; add --output DIR")).or_input();
    };
    let name = match &run.checkpoint {
        Some(checkpoint) => format!("{checkpoint}-{name}"),
        None => name.to_string(),
    };
    Ok(run.directory.join("export").join(name))
}

/// The output is free, or holds an earlier export that may be replaced.
fn check_output(output: &Path, force: bool) -> Result<(), Failure> {
    let place = output.display();
    let is_empty = match std::fs::read_dir(output) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => {
            return Err(anyhow!("cannot write the export: {place}: {error}; choose another --output")).or_input();
        }
    };
    let is_export = output.join(RECORD).is_file();
    match (is_empty, is_export, force) {
        (true, _, _) | (_, true, true) => Ok(()),
        (false, true, false) => {
            Err(anyhow!("an earlier export is there: {place}; add --force to replace it, or choose another --output"))
                .or_input()
        }
        (false, false, _) => {
            let hint = "choose another --output; --force replaces earlier exports only";
            Err(anyhow!("the folder is not empty and no export wrote it: {place}; {hint}")).or_input()
        }
    }
}

/// A folder beside the output that is removed unless it is published.
struct Staging {
    folder: PathBuf,
    /// The folder around it was not there before.
    made_parent: bool,
}

impl Staging {
    fn new(output: &Path) -> Result<Staging, Failure> {
        let made_parent = output.parent().is_some_and(|parent| !parent.as_os_str().is_empty() && !parent.exists());
        Ok(Staging { folder: staging_folder(output).or_run()?, made_parent })
    }

    /// The folder that both it and the output lie in.
    fn beside(&self) -> PathBuf {
        self.folder.parent().map(Path::to_path_buf).unwrap_or_default()
    }

    fn publish(self, output: &Path) -> Result<(), Failure> {
        publish_directory(&self.folder, output).or_run()
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After publishing it is not there any more; after an error, that error is the one to report.
        let _ = remove_folder(&self.folder);
        if self.made_parent {
            // Goes if nothing else is in it.
            let _ = std::fs::remove_dir(self.beside());
        }
    }
}

fn failure(error: ExportError) -> Failure {
    match &error {
        ExportError::DoesNotFit(_) => Failure::DoesNotFit(error.into()),
        _ if error.is_bad_input() => Failure::Input(error.into()),
        _ => Failure::Run(error.into()),
    }
}

fn record(found: &Found, target: &Target, report: &Report) -> serde_json::Value {
    json!({
        "tune": env!("CARGO_PKG_VERSION"),
        "written": target::what(target),
        "trained": found.title(),
        "base": found.base_name,
        "compared": report,
    })
}

fn record_of(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// Results for people.
fn table(output: &Path, target: &Target, report: &Report) -> String {
    let logits = &report.logits;
    let token_ids = match (target, report.token_ids) {
        (Target::Peft { .. } | Target::GgufAdapter { .. }, _) => "those of the base".to_string(),
        (_, Some(ids)) => format!("{ids} of {ids} equal"),
        (_, None) => "not compared: the base's files hold no tokenizer".to_string(),
    };
    let rows = [
        ("written", format!("{} ({})", output.display(), bytes_text(report.bytes))),
        ("tensors", format!("{} of {} read back equal, bit for bit", report.tensors, report.tensors)),
        ("token ids", token_ids),
        (
            "logits",
            format!("{}, {} of {} next tokens equal", difference(logits), logits.same_next_token, logits.positions),
        ),
    ];
    let errors = report
        .errors
        .iter()
        .map(|(format, error)| ("rounding", format!("{format}: {:.3} % of the numbers' size at most", 100.0 * error)));
    rows.into_iter().chain(errors).map(|(name, value)| format!("{name:<15} {value}\n")).collect()
}

/// The largest difference, and what is bounded.
pub fn difference(logits: &LogitsReport) -> String {
    let of_all = match logits.measure {
        Measure::Largest => format!("bound {:.2e}", logits.bound),
        Measure::RootMeanSquare => {
            format!("root mean square {:.2e}, bound {:.2e}", logits.root_mean_square_difference, logits.bound)
        }
    };
    format!(
        "largest difference {:.2e} ({of_all}), largest logit {:.2}",
        logits.largest_difference, logits.largest_logit
    )
}
