//! `tune run`: plan, then train. The only file that talks to the trainer.
//!
//! In:    a recipe, a run directory.
//! Out:   the run directory filled; a table of results on stdout.
//! Never: makes the run directory before recipe, data files, model and plan are known to be good.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, anyhow};
use planner::plan::{BaseStorage, Plan};
use trainer::{EvaluationReport, Event, Job, Outcome, StepMetrics, Summary};

use crate::args::RunArguments;
use crate::failure::{Failure, OrFail};
use crate::plan::Measured;
use crate::prepare::{self, Prepared};
use crate::progress::{Progress, StepLine, clock};
use crate::run_directory::{self, RunDirectory};
use crate::{io_profile, plan};

/// Trains and prints the results.
pub fn run(arguments: &RunArguments) -> Result<(), Failure> {
    let mut recipe = prepare::recipe(&arguments.recipe)?;
    let folder = arguments.output.clone().unwrap_or_else(|| PathBuf::from("runs").join(&recipe.name));
    match arguments.resume {
        true => recipe = run_directory::continued(&folder, &recipe)?,
        false => run_directory::check_unused(&folder)?,
    }
    let mut prepared = prepare::prepare(&recipe)?;
    if arguments.resume {
        run_directory::check_unchanged(&folder, &prepared.recipe)?;
    }
    refuse_untrained(&prepared)?;
    let mut progress = Progress::new();
    if let Some(io) = io_profile::measure(&recipe, &prepared.plan, &mut |line| progress.note(line))? {
        prepared = prepare::planned(&recipe, prepared.weights, io)?;
    }
    progress.note(plan::ten_lines(&prepared.plan, prepared.transfers).trim_end());
    let stop = stop_flag().or_run()?;
    let directory = RunDirectory::open(&folder, &prepared)?;
    let planned = prepared.plan.clone();
    let mut step_ms = Vec::new();
    let job = job(prepared, folder.clone(), arguments.resume)?;
    let outcome = trainer::train(job, &stop, &mut |event| {
        if let Event::Step(metrics) = &event {
            step_ms.push(metrics.step_ms);
        }
        show(&mut progress, event);
    });
    progress.finished();
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

/// What can be planned but not trained yet.
fn refuse_untrained(prepared: &Prepared) -> Result<(), Failure> {
    match prepared.plan.method.lora() {
        Some(lora) if lora.base == BaseStorage::Nf4 => Err(anyhow!(
            "method.kind = \"qlora\" can be planned, but this version does not train on a base in 4 bits; take \"lora\", with \
             offload.weights = \"dram\" or \"nvme\" where memory is short"
        ))
        .or_input(),
        _ => Ok(()),
    }
}

fn job(prepared: Prepared, run_directory: PathBuf, resume: bool) -> Result<Job, Failure> {
    let base_name = prepare::base_name(&prepared.recipe);
    let token_cache = prepare::token_cache().or_input()?;
    Ok(Job { plan: prepared.plan, weights: prepared.weights, run_directory, resume, base_name, token_cache })
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

fn show(progress: &mut Progress, event: Event) {
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
        Event::Checkpoint { step, path } => progress.note(&format!("step {step}: checkpoint {}", path.display())),
    }
}

fn step_line(metrics: &StepMetrics) -> StepLine {
    StepLine {
        step: metrics.step,
        epoch: metrics.epoch,
        loss: metrics.loss,
        learning_rate: metrics.learning_rate,
        tokens_per_second: metrics.tokens_per_second,
        step_ms: metrics.step_ms,
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
        peak_bytes: summary.peak_rss_bytes,
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
