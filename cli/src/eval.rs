//! `tune eval`: loss, perplexity and exact answers of what was trained, beside its base if asked.
//!
//! In:    a run, a checkpoint, an adapter or a model; rows: the run's own held-out ones, or files.
//! Out:   a table or JSON on stdout; answers row by row in a file.
//! Never: measures otherwise than the run did: rows, batches and arithmetic are those of its own evaluation.

mod report;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::Args;
use datasets::{DataError, Dataset, Prepared, Request};
use planner::memory::EVALUATION_TOKENS_MAX;
use planner::plan::{DataPlan, DataSource, EvaluationPlan, Gate, RowFormat};
use serde::Deserialize;
use trainer::{Event, HeldOut, Network};

use crate::failure::{Failure, OrFail};
use crate::opened::{Opened, SubjectArguments, failure};
use crate::prepare;
use crate::progress::Progress;
use crate::run::show;
use report::{Figures, Measured};

/// Answered at once where no run says otherwise.
const ANSWER_ROWS: usize = 16;
/// Longest row where no run says otherwise, tokens.
const ROW_TOKENS_MAX: usize = 4096;

/// `tune eval`
#[derive(Debug, Args)]
pub struct EvalArguments {
    /// What is measured.
    #[command(flatten)]
    pub subject: SubjectArguments,
    /// Rows: a file, a folder or a glob; default: those that the run held out
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Shape of the rows, such as messages or question-answer; default: decided by the first row
    #[arg(long, value_name = "FORMAT", value_parser = word::<RowFormat>, requires = "data")]
    pub format: Option<RowFormat>,
    /// Switch off a gate that refuses rows, such as roles; what it finds is counted
    #[arg(long, value_name = "GATE", value_parser = word::<Gate>, requires = "data")]
    pub allow: Vec<Gate>,
    /// Longest row, tokens; default: the run's
    #[arg(long, value_name = "N", requires = "data")]
    pub sequence_length: Option<usize>,
    /// Also measure the base, and show the difference
    #[arg(long)]
    pub compare: bool,
    /// Also answer the rows greedily and count exact answers; default: if the run did
    #[arg(long)]
    pub exact_match: bool,
    /// Longest answer, tokens; default: the run's, else 256
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_new_tokens: Option<usize>,
    /// At most so many rows, the first ones
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_rows: Option<usize>,
    /// Write each row's answers into this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub answers: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A word of a recipe.
fn word<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, String> {
    let value = serde_json::Value::String(text.to_string());
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// A whole number from 1.
pub fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number from 1".to_string()),
        Ok(number) => Ok(number),
    }
}

/// Measures and prints.
pub fn print(arguments: &EvalArguments) -> Result<(), Failure> {
    let opened = Opened::of(&arguments.subject)?;
    if arguments.compare && !opened.has_base() {
        return Err(anyhow!(
            "{}: nothing was trained over it, so there is no base to compare with; leave --compare out",
            opened.name
        ))
        .or_input();
    }
    let mut progress = Progress::new();
    opened.notes.iter().for_each(|note| progress.note(note));
    progress.note(&format!("measuring {}", opened.name));
    let rows = rows(arguments, &opened, &mut progress)?;
    let (held_out, network) = place(arguments, &opened, &rows)?;
    let tuned = measure(&held_out, &opened, &network, &mut progress)?;
    let base = match arguments.compare {
        false => None,
        true => {
            let network = opened.base(&arguments.subject, held_out.work(), network)?;
            Some(measure(&held_out, &opened, &network, &mut progress)?)
        }
    };
    let figures = Figures::new(&opened.name, &rows, &held_out, tuned, base);
    if let Some(path) = &arguments.answers {
        offload::durable::publish_file(path, figures.answers().as_bytes()).or_run()?;
    }
    match arguments.json {
        true => println!("{}", figures.json()),
        false => print!("{}", figures.table()),
    }
    Ok(())
}

/// Rows that are measured, and where they come from.
pub struct Rows {
    dataset: Arc<Dataset>,
    /// By [`datasets::Place::file`].
    files: Vec<PathBuf>,
    /// Tokens of one pass.
    batch_tokens: usize,
}

fn rows(arguments: &EvalArguments, opened: &Opened, progress: &mut Progress) -> Result<Rows, Failure> {
    let plan = data(arguments, opened)?;
    let cache = prepare::token_cache().or_input()?;
    let embedding_rows = opened.weights.spec().vocabulary;
    let request = Request { plan: &plan, tokenizer: &opened.tokenizer, embedding_rows, cache: &cache };
    let prepared = request.prepare(&mut |at| progress.preparing(at));
    progress.finished();
    let Prepared { training, held_out, report, notes, .. } = prepared.or_input()?;
    notes.iter().for_each(|note| progress.note(note));
    progress.note(&format!("data: {report}"));
    let dataset = match (&arguments.data, held_out) {
        (None, Some(held_out)) => held_out,
        (None, None) => return Err(no_held_out(opened)),
        (Some(_), _) if training.is_empty() => {
            return Err(DataError::OnlyPreferences { rows: report.preferences }).or_input();
        }
        (Some(_), _) => training,
    };
    let batch_tokens = opened.plan.as_ref().map_or(EVALUATION_TOKENS_MAX, trainer::evaluation_tokens);
    Ok(Rows { dataset, files: report.files, batch_tokens })
}

fn no_held_out(opened: &Opened) -> Failure {
    Failure::Input(anyhow!("{}: no held-out rows to measure; give rows with --data FILE", opened.name))
}

/// The run's own data part; with `--data` the same reading of other files, none of them held out.
fn data(arguments: &EvalArguments, opened: &Opened) -> Result<DataPlan, Failure> {
    let of_run = opened.plan.as_ref().map(|plan| &plan.data);
    let Some(path) = &arguments.data else {
        return of_run.filter(|plan| plan.held_out.is_some()).cloned().ok_or_else(|| no_held_out(opened));
    };
    let source = DataSource { format: arguments.format, ..DataSource::of(path) };
    datasets::files_of(&source).context("--data").or_input()?;
    let length = opened.weights.spec().max_positions.min(ROW_TOKENS_MAX);
    let mut plan = DataPlan::of(vec![source.clone()], length);
    if let Some(of_run) = of_run {
        plan = DataPlan { sources: vec![source], packing: false, held_out: None, clean: plan.clean, ..of_run.clone() };
    }
    plan.allow.extend(&arguments.allow);
    plan.sequence_length = arguments.sequence_length.unwrap_or(plan.sequence_length);
    Ok(plan)
}

/// What is asked, and a network that has room for it: with fewer answers at once where the run's number does not fit here.
fn place(arguments: &EvalArguments, opened: &Opened, rows: &Rows) -> Result<(HeldOut, Network), Failure> {
    let mut plan = evaluation(arguments, opened);
    loop {
        let held_out = HeldOut::new(&plan, rows.batch_tokens, &rows.dataset, &opened.tokenizer).map_err(failure)?;
        match opened.network(&arguments.subject, held_out.work()) {
            Ok(network) => return Ok((held_out, network)),
            Err(Failure::DoesNotFit(_)) if plan.exact_match && plan.batch_rows > 1 => plan.batch_rows /= 2,
            Err(failure) => return Err(failure),
        }
    }
}

fn evaluation(arguments: &EvalArguments, opened: &Opened) -> EvaluationPlan {
    let of_run = opened.plan.as_ref().and_then(|plan| plan.evaluation.clone());
    let mut plan = of_run.unwrap_or(EvaluationPlan {
        every_steps: None,
        exact_match: false,
        max_new_tokens: 256,
        batch_rows: ANSWER_ROWS,
        batch_tokens: 0,
        max_rows: None,
    });
    plan.exact_match |= arguments.exact_match || arguments.answers.is_some();
    plan.max_new_tokens = arguments.max_new_tokens.unwrap_or(plan.max_new_tokens);
    plan.max_rows = arguments.max_rows.or(plan.max_rows.filter(|_| arguments.data.is_none()));
    if plan.batch_tokens == 0 {
        // The run asked no questions, so it did not plan them.
        (plan.batch_rows, plan.batch_tokens) = (ANSWER_ROWS, ANSWER_ROWS * ROW_TOKENS_MAX);
    }
    plan
}

fn measure(
    held_out: &HeldOut,
    opened: &Opened,
    network: &Network,
    progress: &mut Progress,
) -> Result<Measured, Failure> {
    let mut listen = |event: Event| show(progress, event);
    let loss = held_out.loss(network, &mut listen).or_run()?;
    let answers = match held_out.questions().is_empty() {
        true => None,
        false => Some(held_out.answers(network, &opened.tokenizer, &mut listen).or_run()?),
    };
    progress.finished();
    if loss.trained_tokens == 0 {
        return Err(anyhow!("no token to measure: the rows have none that would be trained on")).or_input();
    }
    Ok(Measured { loss: loss.mean(), trained_tokens: loss.trained_tokens, answers })
}
