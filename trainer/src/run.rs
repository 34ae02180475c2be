//! A run from the first load to the last checkpoint.
//!
//! In:    a [`Job`], a flag that asks to stop, a listener.
//! Out:   an [`Outcome`]; the run directory filled.
//! Never: updates with a loss or gradient that is not a number; leaves a step half done.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::tensor::Device;
use datasets::{Batches, Dataset, Step, Tokenizer};
use models::BlockAdapters;
use offload::adamw::AdamW;
use planner::plan::{Duration, Plan};

use crate::adapters::AdapterStore;
use crate::engine::{Engine, MicroLoss};
use crate::error::TrainError;
use crate::evaluate::HeldOut;
use crate::events::{EvaluationReport, Event, Job, Outcome, StepMetrics, Summary};
use crate::load;
use crate::metrics::{Metrics, peak_rss_bytes};
use crate::residency::Residency;
use crate::schedule::learning_rate;
use crate::survive::{self, Progress};

/// What listens to a run; it is called from the loop's own thread.
pub type Listener<'a> = dyn FnMut(Event) + Send + 'a;

/// Trains as planned.
///
/// The loop runs on a worker of rayon's pool: from outside the pool every product would add the calling thread to the
/// workers, one more than there are cores, and the threads would take turns (docs/LOG.md).
pub fn train(job: Job, stop: &AtomicBool, events: &mut Listener<'_>) -> Result<Outcome, TrainError> {
    kernels::memory::keep_freed_pages();
    rayon::scope(|_| train_here(job, stop, events))
}

fn train_here(job: Job, stop: &AtomicBool, events: &mut Listener<'_>) -> Result<Outcome, TrainError> {
    let mut run = Run::prepare(job, events)?;
    let before = match run.standing.step {
        0 => run.evaluate(true, events)?,
        _ => None,
    };
    if stop.load(Ordering::Relaxed) {
        return run.interrupted();
    }
    events(Event::Started { steps: run.steps, first_step: run.standing.step + 1 });
    let begun = Instant::now();
    let mut tokens = 0;
    while run.standing.step < run.steps {
        let metrics = run.step()?;
        tokens += metrics.tokens;
        run.metrics.step(&metrics)?;
        events(Event::Step(metrics));
        if stop.load(Ordering::Relaxed) && run.standing.step < run.steps {
            return run.interrupted();
        }
        run.between_steps(events)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let path = run.save()?;
    events(Event::Checkpoint { step: run.standing.step, path });
    let after = run.evaluate(true, events)?;
    let adapter = survive::export(&run.directory, &run.plan, &run.base_name, &run.store)?;
    run.metrics.finish()?;
    let steps = run.steps;
    Ok(Outcome::Finished(Summary { before, after, steps, seconds, tokens, peak_rss_bytes: peak_rss_bytes(), adapter }))
}

/// Everything a run holds.
struct Run {
    plan: Plan,
    directory: PathBuf,
    base_name: String,
    device: Device,
    tokenizer: Tokenizer,
    engine: Engine,
    store: AdapterStore,
    adapters: Vec<BlockAdapters>,
    rule: AdamW,
    batches: Batches,
    held_out: Option<HeldOut>,
    metrics: Metrics,
    standing: Progress,
    steps: u64,
}

impl Run {
    fn prepare(job: Job, events: &mut Listener<'_>) -> Result<Run, TrainError> {
        let Job { plan, weights, run_directory: directory, resume, base_name } = job;
        let device = load::device(plan.device)?;
        let tokenizer = load::tokenizer(&weights)?;
        let dataset = Dataset::load(&plan.data, &tokenizer)?;
        dataset.check_vocabulary(plan.model.spec.vocabulary)?;
        events(Event::Data(data_line(&dataset)));
        let held_out = plan.evaluation.as_ref().map(|evaluation| HeldOut::load(evaluation, &plan.data, &tokenizer));
        let held_out = held_out.transpose()?;
        let mut store = AdapterStore::new(&plan.method, &plan.model.spec, plan.train.seed);
        let mut standing = Progress::default();
        if resume {
            let (progress, notes) = survive::restore(&directory, &plan, &mut store)?;
            notes.into_iter().for_each(|note| events(Event::Note(note)));
            events(Event::Note(format!("going on after step {}", progress.step)));
            standing = progress;
        } else if let Some(folder) = &plan.method.start_from {
            store.start_from(&checkpoints::peft::read_adapter(folder)?, folder)?;
        }
        let batches = Batches::new(&dataset, &plan.data, plan.train.rows_per_step, plan.train.micro_batch);
        let steps = steps_of(&plan, &batches);
        let begun = Instant::now();
        let decoder = load::decoder(&weights, plan.model.precision, &device)?;
        events(Event::Loaded {
            parameters: plan.model.spec.parameters(),
            trainable: store.len() as u64,
            seconds: begun.elapsed().as_secs_f64(),
        });
        let metrics = Metrics::open(&directory, standing.step, plan.log.tensorboard)?;
        let dropout = (plan.method.dropout > 0.0).then_some((plan.method.dropout as f32, plan.train.seed));
        let engine = Engine { residency: Residency::all_resident(decoder), keep: plan.model.keep.clone(), dropout };
        let adapters = store.upload(&device);
        let optimizer = &plan.optimizer;
        let rule = AdamW {
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            epsilon: optimizer.epsilon,
            weight_decay: optimizer.weight_decay,
        };
        Ok(Run {
            plan,
            directory,
            base_name,
            device,
            tokenizer,
            engine,
            store,
            adapters,
            rule,
            batches,
            held_out,
            metrics,
            standing,
            steps,
        })
    }

    /// One optimizer update.
    fn step(&mut self) -> Result<StepMetrics, TrainError> {
        let begun = Instant::now();
        let number = self.standing.step + 1;
        let step = self.next_step();
        let (tokens, trained) = (step.tokens(), step.trained_tokens());
        let rate = learning_rate(&self.plan.schedule, self.plan.optimizer.learning_rate, number, self.steps);
        let loss = self.accumulate(&step, number) / trained.max(1) as f64;
        if !loss.is_finite() {
            return Err(TrainError::LossNotFinite { step: number, loss, learning_rate: rate });
        }
        let norm = self.store.gradient_norm();
        if !norm.is_finite() {
            return Err(TrainError::GradientNotFinite { step: number, norm, learning_rate: rate });
        }
        // PyTorch's clip_grad_norm_ adds 1e-6 to the norm.
        let clip = self.plan.optimizer.max_grad_norm.map_or(1.0, |bound| (bound / (norm + 1e-6)).min(1.0));
        self.store.update(&self.rule, number, rate, clip as f32);
        self.adapters = self.store.upload(&self.device);
        self.standing.step = number;
        self.standing.step_in_epoch += 1;
        self.standing.losses.push(loss);
        let seconds = begun.elapsed().as_secs_f64();
        Ok(StepMetrics {
            step: number,
            steps: self.steps,
            epoch: self.epochs(),
            loss,
            learning_rate: rate,
            grad_norm: norm,
            tokens: tokens as u64,
            trained_tokens: trained as u64,
            tokens_per_second: tokens as f64 / seconds,
            step_ms: seconds * 1e3,
            peak_rss_bytes: peak_rss_bytes(),
            device_bytes: self.device.memory_pool_usage().map_or(0, |usage| usage.bytes_in_use),
            dram_tier_bytes: 0,
            nvme_read_bytes: 0,
            nvme_write_bytes: 0,
            stall_ms: 0.0,
        })
    }

    /// The batches of the next update; begins the next pass where one ended.
    fn next_step(&mut self) -> Step {
        if self.standing.step_in_epoch >= self.batches.steps_in_epoch(self.standing.epoch) {
            self.standing.epoch += 1;
            self.standing.step_in_epoch = 0;
        }
        self.batches.step(self.standing.epoch, self.standing.step_in_epoch)
    }

    /// Sum of losses of all micro-batches; gradients are of the mean over the whole step's trained tokens.
    fn accumulate(&mut self, step: &Step, number: u64) -> f64 {
        let scale = 1.0 / step.trained_tokens().max(1) as f32;
        let mut sum = 0.0;
        for (index, batch) in step.batches.iter().enumerate() {
            let stream = number * step.batches.len() as u64 + index as u64;
            let MicroLoss { sum: part, .. } =
                self.engine.train(batch, (&self.adapters, &mut self.store), scale, stream);
            sum += part;
        }
        sum
    }

    fn epochs(&self) -> f64 {
        let of = self.batches.steps_in_epoch(self.standing.epoch).max(1);
        self.standing.epoch as f64 + self.standing.step_in_epoch as f64 / of as f64
    }

    fn between_steps(&mut self, events: &mut Listener<'_>) -> Result<(), TrainError> {
        let step = self.standing.step;
        if step == self.steps {
            return Ok(());
        }
        if self.held_out.as_ref().is_some_and(|held_out| held_out.is_due(step)) {
            self.evaluate(false, events)?;
        }
        if self.plan.checkpoint.every_steps.is_some_and(|every| step.is_multiple_of(every)) {
            let path = self.save()?;
            events(Event::Checkpoint { step, path });
        }
        Ok(())
    }

    fn evaluate(
        &mut self,
        with_answers: bool,
        events: &mut Listener<'_>,
    ) -> Result<Option<EvaluationReport>, TrainError> {
        let Some(held_out) = &self.held_out else { return Ok(None) };
        let tokenizer = with_answers.then_some(&self.tokenizer);
        let report = held_out.measure(&self.engine, &self.adapters, tokenizer, events)?;
        self.metrics.evaluation(self.standing.step, &report)?;
        events(Event::Evaluated { step: self.standing.step, report: report.clone() });
        Ok(Some(report))
    }

    fn save(&self) -> Result<PathBuf, TrainError> {
        survive::save(&self.directory, &self.plan, &self.store, &self.standing)
    }

    fn interrupted(self) -> Result<Outcome, TrainError> {
        let (step, checkpoint) = (self.standing.step, self.save()?);
        self.metrics.finish()?;
        Ok(Outcome::Interrupted { step, checkpoint })
    }
}

fn data_line(dataset: &Dataset) -> String {
    let report = &dataset.report;
    let mut line = format!(
        "data: {} rows, {} tokens, {} of them trained on, longest row {}",
        report.rows, report.tokens, report.trained_tokens, report.longest
    );
    if report.too_long > 0 {
        line += &format!(
            "; {} rows were too long: {} dropped, {} truncated",
            report.too_long, report.dropped, report.truncated
        );
    }
    line
}

/// Optimizer updates of the whole run.
fn steps_of(plan: &Plan, batches: &Batches) -> u64 {
    match plan.train.duration {
        Duration::Steps(steps) => steps,
        Duration::Epochs(epochs) => {
            let whole = epochs.floor() as u64;
            let of_whole: u64 = (0..whole).map(|epoch| batches.steps_in_epoch(epoch)).sum();
            of_whole + ((epochs - epochs.floor()) * batches.steps_in_epoch(whole) as f64).ceil() as u64
        }
    }
}
