//! `tune run`: plan, then train. The only file that talks to the trainer.
//!
//! In:    a recipe, a run directory.
//! Out:   the run directory filled; a table of results on stdout.
//! Never: makes the run directory before recipe, data files, model and plan are known to be good.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, anyhow};
use planner::plan::Plan;
use planner::units::bytes_text;
use recipes::Recipe;
use trainer::{EvaluationReport, Event, Job, Outcome, Resume, SaveReport, StepMetrics, Summary, TrainError};

use crate::args::{ResumeFrom, RunArguments};
use crate::card_state::{self, CardWarnings};
use crate::failure::{Failure, OrFail};
use crate::plan::Measured;
use crate::prepare;
use crate::progress::{Progress, StepLine, clock};
use crate::run_directory::{self, RunDirectory};
use crate::sessions::Session;
use crate::{io_profile, plan, report};

/// Trains and prints the results.
pub fn run(arguments: &RunArguments) -> Result<(), Failure> {
    let mut recipe = prepare::recipe(&arguments.recipe)?;
    let folder = arguments.output.clone().unwrap_or_else(|| PathBuf::from("runs").join(&recipe.name));
    let resume = resume(arguments);
    match resume {
        Resume::No => run_directory::check_unused(&folder)?,
        _ => recipe = run_directory::continued(&folder, &recipe)?,
    }
    refuse_two_beginnings(arguments, &recipe)?;
    let mut prepared = prepare::prepare(&recipe)?;
    if resume != Resume::No {
        run_directory::check_unchanged(&folder, &prepared.recipe)?;
    }
    let mut progress = Progress::new();
    if let Some(io) = io_profile::measure(&recipe, &prepared.plan, &mut |line| progress.note(line))? {
        prepared = prepare::planned(&recipe, prepared.weights, io)?;
    }
    progress.note(plan::ten_lines(&prepared.plan, prepared.transfers).trim_end());
    let stop = stop_flag().or_run()?;
    // Before the directory is locked: whoever finds the lock held may send the signal, which ends a process that does not listen.
    let save_asked = save_flag().or_run()?;
    let directory = RunDirectory::open(&folder, &prepared)?;
    let planned = prepared.plan.clone();
    let (mut step_ms, mut data, mut warnings) = (Vec::new(), Vec::new(), CardWarnings::default());
    let base_name = prepare::base_name(&prepared.recipe);
    let job = Job {
        recipe: prepared.recipe.to_toml(),
        plan: prepared.plan,
        weights: prepared.weights,
        run_directory: folder.clone(),
        resume,
        from: arguments.from.clone(),
        save_asked,
        base_name,
        token_cache: prepare::token_cache().or_input()?,
    };
    let outcome = trainer::train(job, &stop, &mut |event| {
        match &event {
            Event::Step(metrics) => {
                step_ms.push(metrics.step_ms);
                let warning = metrics.card.as_ref().and_then(|card| warnings.of(metrics.step, card));
                warning.into_iter().for_each(|text| progress.note(&text));
            }
            Event::Data(line) => data.push(line.clone()),
            Event::Started { steps, first_step } => {
                let session = Session::now(planned.device.name(), *first_step, *steps, std::mem::take(&mut data));
                keep_session(&folder, session, &mut progress);
            }
            _ => {}
        }
        show(&mut progress, event);
    });
    progress.finished();
    leave_report(&folder, &outcome, &mut progress);
    match outcome {
        Ok(Outcome::Finished(summary)) => {
            print!("{}\n{}", table(&summary), plan::against_measured(&planned, measured(&planned, &summary, step_ms)));
            Ok(())
        }
        Ok(Outcome::Interrupted { step, checkpoint }) => Err(Failure::Interrupted(format!(
            "interrupted after step {step}: {} is complete; add --resume to go on",
            checkpoint.display()
        ))),
        Err(error) if error.is_bad_input() => {
            directory.discard();
            Err(Failure::Input(error.into()))
        }
        Err(error) if error.is_does_not_fit() => {
            directory.discard();
            Err(Failure::DoesNotFit(error.into()))
        }
        Err(error) => Err(Failure::Run(error.into())),
    }
}

/// What the page tells of this process. Training does not depend on it.
fn keep_session(folder: &Path, session: Session, progress: &mut Progress) {
    if let Err(error) = session.keep(folder) {
        progress.note(&format!("the run goes on, but its report will not tell the machine: {error:#}"));
    }
}

/// The page of a run that made steps, however it ended. A page that cannot be written changes nothing of the run.
fn leave_report(folder: &Path, outcome: &Result<Outcome, TrainError>, progress: &mut Progress) {
    if outcome.as_ref().is_err_and(|error| error.is_bad_input() || error.is_does_not_fit()) {
        return;
    }
    if let Err(error) = report::leave(folder) {
        progress.note(&format!("no report was written: {error:#}"));
    }
}

/// Where the run goes on.
fn resume(arguments: &RunArguments) -> Resume {
    match arguments.resume {
        None => Resume::No,
        Some(ResumeFrom::Newest) => Resume::Newest,
        Some(ResumeFrom::Step(step)) => Resume::Step(step),
    }
}

/// A run begins with one set of weights.
fn refuse_two_beginnings(arguments: &RunArguments, recipe: &Recipe) -> Result<(), Failure> {
    match (&arguments.from, recipe.method.lora().and_then(|lora| lora.start_from.as_ref())) {
        (Some(from), Some(start)) => Err(anyhow!(
            "two beginnings: --from {} and method.start_from = {:?}; leave one out",
            from.display(),
            start.display()
        ))
        .or_input(),
        _ => Ok(()),
    }
}

/// SIGUSR1 asks for a checkpoint after the step.
fn save_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&asked))
        .context("cannot listen to signals")?;
    Ok(asked)
}

/// The first SIGINT or SIGTERM asks the loop to stop after its step; a second one ends the process at once.
pub fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the shutdown looks at the flag before the second line sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .context("cannot listen to signals")?;
    }
    Ok(stop)
}

/// One event of the trainer, on stderr.
pub fn show(progress: &mut Progress, event: Event) {
    match event {
        Event::Note(text) => progress.note(&text),
        Event::Loaded { parameters, trainable, seconds } => {
            progress.note(&format!("loaded {parameters} parameters in {seconds:.1} s; {trainable} are trained"));
        }
        Event::Preparing(at) => progress.preparing(at),
        Event::Data(line) => {
            progress.finished();
            progress.note(&line);
        }
        Event::Started { steps, first_step } => progress.started(steps, first_step),
        Event::Step(metrics) => progress.step(&step_line(&metrics)),
        Event::Evaluating { what, done, of } => progress.evaluating(what, done, of),
        Event::Evaluated { step, report } => {
            progress.finished();
            progress.note(&format!("step {step}: held-out {}", report_text(&report)));
        }
        Event::Checkpoint { step, path, saved } => progress.note(&checkpoint_line(step, &path, saved)),
        Event::SaveFailed { step, problem } => progress.note(&format!(
            "warning: step {step}: no checkpoint: {problem}; those before it are untouched, and the run goes on"
        )),
    }
}

fn checkpoint_line(step: u64, path: &Path, SaveReport { bytes, seconds, waited_ms }: SaveReport) -> String {
    let waited = match waited_ms < 0.5 {
        true => "training did not wait".to_string(),
        false => format!("training waited {waited_ms:.0} ms"),
    };
    format!("step {step}: checkpoint {}, {} in {seconds:.1} s; {waited}", path.display(), bytes_text(bytes))
}

fn step_line(metrics: &StepMetrics) -> StepLine {
    StepLine {
        step: metrics.step,
        epoch: metrics.epoch,
        loss: metrics.loss,
        learning_rate: metrics.learning_rate,
        tokens_per_second: metrics.tokens_per_second,
        step_ms: metrics.step_ms,
        card: metrics.card.as_ref().map(card_state::words).unwrap_or_default(),
    }
}

fn report_text(report: &EvaluationReport) -> String {
    let exact = report.exact.map(|(right, of)| format!(", exact answers {}", share(right, of))).unwrap_or_default();
    format!(
        "loss {:.4}, perplexity {:.3}, {} rows in {:.1} s{exact}",
        report.loss, report.perplexity, report.rows, report.seconds
    )
}

fn share(right: usize, of: usize) -> String {
    format!("{right}/{of} ({:.1} %)", 100.0 * right as f64 / of.max(1) as f64)
}

/// What the run measured of what the plan said.
fn measured(plan: &Plan, summary: &Summary, mut step_ms: Vec<f64>) -> Measured {
    step_ms.sort_by(f64::total_cmp);
    let written = planner::costs::written_per_step(plan).saturating_mul(summary.steps);
    Measured {
        peak_bytes: match plan.device.has_own_memory() {
            true => summary.pool_reserved_bytes_max.unwrap_or(0),
            false => summary.peak_rss_bytes,
        },
        step_seconds_median: step_ms.get(step_ms.len() / 2).map(|median| median / 1e3),
        tokens_per_second: (summary.seconds > 0.0).then(|| summary.tokens as f64 / summary.seconds),
        nvme_written_bytes: summary.nvme_written_bytes,
        // Every array is written once before the first step.
        nvme_planned_bytes: Some(written.saturating_add(plan.memory.nvme_bytes)),
    }
}

/// Results for people: what the run changed, how fast, in how much memory, where the adapter or model is.
fn table(summary: &Summary) -> String {
    let mut rows = Vec::new();
    let pair = |what: fn(&EvaluationReport) -> String| {
        let side = |report: &Option<EvaluationReport>| report.as_ref().map_or("-".to_string(), what);
        format!("{} -> {}", side(&summary.before), side(&summary.after))
    };
    if summary.before.is_some() || summary.after.is_some() {
        rows.push(("held-out loss", pair(|report| format!("{:.4}", report.loss))));
        rows.push(("perplexity", pair(|report| format!("{:.3}", report.perplexity))));
    }
    if [&summary.before, &summary.after].into_iter().flatten().any(|report| report.exact.is_some()) {
        rows.push((
            "exact answers",
            pair(|report| report.exact.map_or("-".to_string(), |(right, of)| share(right, of))),
        ));
    }
    let speed = summary.tokens as f64 / summary.seconds.max(1e-9);
    let time = clock(Duration::from_secs_f64(summary.seconds.max(0.0)));
    rows.push((
        "training",
        format!("{} steps, {} tokens in {time}, {speed:.0} tokens/s", summary.steps, summary.tokens),
    ));
    rows.push(("result", summary.result.display().to_string()));
    rows.into_iter().map(|(name, value)| format!("{name:<15} {value}\n")).collect()
}
