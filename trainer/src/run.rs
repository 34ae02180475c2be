//! A run from the first load to the last checkpoint.
//!
//! In:    a [`Job`], a flag that asks to stop, a listener.
//! Out:   an [`Outcome`]; the run directory filled.
//! Never: updates with a loss or gradient that is not a number; leaves a step half done.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use checkpoints::checkpoint::Reason;
use checkpoints::weights::Weights;
use datasets::{Batches, DataError, Prepared, Request, Step, Tokenizer};
use kernels::devices::Watch;
use offload::durable::publish_file;
use offload::store::Store;
use planner::plan::{Duration, Plan};

use crate::beginning::{Beginning, place};
use crate::error::TrainError;
use crate::evaluate::{HeldOut, evaluation_tokens};
use crate::events::{EvaluationReport, Event, Job, Outcome, PoolMetrics, Resume, StepMetrics, Summary};
use crate::learner::{Learner, StepResult};
use crate::load;
use crate::metrics::{Metrics, peak_rss_bytes};
use crate::samples;
use crate::saving::{Origin, Saving};
use crate::schedule::learning_rate;
use crate::survive::{self, Progress};
use crate::traffic::{Traffic, WriteBudgetEnd};

/// What listens to a run; it is called from the loop's own thread.
pub type Listener<'a> = dyn FnMut(Event) + Send + 'a;

/// Trains as planned.
///
/// The loop runs on a worker of rayon's pool: from outside the pool every product would add the calling thread to the
/// workers, one more than there are cores, and the threads would take turns (docs/LOG.md).
pub fn train(job: Job, stop: &AtomicBool, events: &mut Listener<'_>) -> Result<Outcome, TrainError> {
    kernels::memory::pack_by_panels();
    rayon::scope(|_| train_here(job, stop, events))
}

fn train_here(job: Job, stop: &AtomicBool, events: &mut Listener<'_>) -> Result<Outcome, TrainError> {
    let mut run = Run::prepare(job, events)?;
    let before = match run.standing.step {
        0 => run.evaluate(true, events)?,
        _ => None,
    };
    if stop.load(Ordering::Relaxed) {
        return run.interrupted(events);
    }
    events(Event::Started { steps: run.steps, first_step: run.standing.step + 1 });
    let begun = Instant::now();
    let mut tokens = 0;
    while run.standing.step < run.steps {
        let metrics = run.step()?;
        tokens += metrics.tokens;
        run.metrics.step(&metrics)?;
        events(Event::Step(Box::new(metrics)));
        run.tell_notes(events);
        if stop.load(Ordering::Relaxed) && run.standing.step < run.steps {
            return run.interrupted(events);
        }
        if let Some(end) = run.traffic.budget_ends().filter(|_| run.standing.step < run.steps) {
            return run.out_of_write_budget(end, events);
        }
        run.between_steps(events)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let last = run.save_and_wait(Reason::End, events)?;
    let after = run.evaluate(true, events)?;
    if let Some(report) = &after {
        run.saving.note_last_loss(&run.directory, &last, report.loss, events);
    }
    let result = survive::export(&run.directory, &run.plan, &run.base_name, &run.weights, &run.learner.parameters)?;
    run.metrics.finish()?;
    let (steps, nvme_written_bytes) = (run.steps, run.traffic.written());
    let pool_reserved_bytes_max = run.pool_reserved_bytes_max;
    let peak_rss_bytes = peak_rss_bytes();
    Ok(Outcome::Finished(Summary {
        before,
        after,
        steps,
        seconds,
        tokens,
        peak_rss_bytes,
        pool_reserved_bytes_max,
        nvme_written_bytes,
        result,
    }))
}

/// Everything a run holds.
struct Run {
    plan: Plan,
    directory: PathBuf,
    base_name: String,
    weights: Weights,
    tokenizer: Tokenizer,
    /// Dropped before the learner: a save under way reads its parameters.
    saving: Saving,
    learner: Learner,
    batches: Batches,
    held_out: Option<HeldOut>,
    metrics: Metrics,
    standing: Progress,
    steps: u64,
    /// NVMe bytes so far, and what earlier processes of the run wrote.
    traffic: Traffic,
    /// Of a card that tells how it fares.
    watch: Option<Watch>,
    /// The most that the device's allocator took, where it has one of its own.
    pool_reserved_bytes_max: Option<u64>,
}

impl Run {
    fn prepare(job: Job, events: &mut Listener<'_>) -> Result<Run, TrainError> {
        let Job { plan, weights, run_directory: directory, resume, from, recipe, save_asked, base_name, token_cache } =
            job;
        let device = load::device_for(plan.device, plan.model.precision)?;
        let watch = load::watch(plan.device);
        let tokenizer = load::tokenizer(&weights)?;
        let prepared = request(&plan, &tokenizer, &token_cache).prepare(&mut |at| events(Event::Preparing(at)))?;
        told(&prepared).into_iter().for_each(|line| events(Event::Data(line)));
        let held_out = match (&plan.evaluation, &prepared.held_out) {
            (Some(evaluation), Some(rows)) => {
                Some(HeldOut::new(evaluation, evaluation_tokens(&plan), rows, &tokenizer)?)
            }
            (Some(_), None) => return Err(TrainError::NoHeldOut),
            (None, _) => None,
        };
        let model = weights.fingerprint();
        let decided = survive::fingerprint(&plan, &prepared.address, &model);
        let beginning = Beginning::find(&directory, resume, from.as_deref(), &decided, events)?;
        let rows = serde_json::to_vec_pretty(&prepared.report).expect("counts and names serialise");
        let batches = batches(&plan, prepared)?;
        let steps = steps_of(&plan, &batches);
        kernels::memory::give_back_small();
        let begun = Instant::now();
        let placed = place(&plan, &weights, &device, &beginning);
        let (learner, standing) = placed.map_err(|error| error.before_training(plan.memory.nvme_bytes))?;
        notes_of(&learner).into_iter().for_each(|note| events(Event::Note(note)));
        events(Event::Loaded {
            parameters: plan.model.spec.parameters(),
            trainable: learner.parameters.trained(),
            seconds: begun.elapsed().as_secs_f64(),
        });
        let store = learner.tiers.nvme.as_ref();
        let traffic = Traffic::start(&plan, &learner.parameters, store, standing.nvme_written_bytes)?;
        if let Resume::Step(step) = resume {
            // Before lines of metrics are cut: a kill between the two must not leave a checkpoint without its history.
            survive::set_later_aside(&directory, step, events)?;
        }
        publish_file(&directory.join("data.json"), &rows)?;
        let metrics = Metrics::open(&directory, standing.step, plan.log.tensorboard)?;
        let origin = Origin { recipe, decided, model, started_from: beginning.started_from() };
        let saving = Saving::new(&directory, &plan, learner.parameters.clone(), save_asked, origin);
        Ok(Run {
            plan,
            directory,
            base_name,
            weights,
            tokenizer,
            saving,
            learner,
            batches,
            held_out,
            metrics,
            standing,
            steps,
            traffic,
            watch,
            pool_reserved_bytes_max: None,
        })
    }

    /// One optimizer update.
    fn step(&mut self) -> Result<StepMetrics, TrainError> {
        let begun = Instant::now();
        let number = self.standing.step + 1;
        let step = self.next_step();
        let (tokens, trained) = (step.tokens(), step.trained_tokens());
        let rate = learning_rate(&self.plan.schedule, self.plan.optimizer.learning_rate, number, self.steps);
        let StepResult { loss, norm } = self.learner.pass(&step.batches, number, rate)?;
        self.learner.update(number, rate, norm)?;
        self.standing.step = number;
        self.standing.step_in_epoch += 1;
        self.standing.losses.push(loss);
        let seconds = begun.elapsed().as_secs_f64();
        let stalls = self.learner.stalls.take();
        let pool = self.pool();
        self.pool_reserved_bytes_max = self.pool_reserved_bytes_max.max(pool.map(|pool| pool.pool_reserved_bytes));
        let nvme = self.traffic.step(self.learner.tiers.nvme.as_ref());
        self.standing.nvme_written_bytes = self.traffic.written();
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
            device_bytes: pool.map_or(self.learner.tiers.device.used_bytes(), |pool| pool.pool_used_bytes),
            dram_tier_bytes: self.learner.tiers.dram.used_bytes(),
            nvme_read_bytes: nvme.iter().map(|path| path.read_bytes).sum(),
            nvme_write_bytes: nvme.iter().map(|path| path.written_bytes).sum(),
            nvme_written_bytes: self.standing.nvme_written_bytes,
            nvme,
            stall_ms: stalls.total_ms(),
            stalls,
            pool,
            card: self.watch.as_ref().map(|watch| watch.take().into()),
        })
    }

    /// The device's allocator, where it has one of its own.
    fn pool(&self) -> Option<PoolMetrics> {
        let usage = self.learner.engine.residency.outer().device.memory_pool_usage()?;
        Some(PoolMetrics {
            pool_reserved_bytes: usage.bytes_reserved,
            pool_used_bytes: usage.bytes_in_use,
            pool_padding_bytes: usage.bytes_padding,
            pool_tensors: usage.number_allocs,
        })
    }

    /// What has changed since the start: an engine that gave up, with its cost; a disk that takes no more lines.
    fn tell_notes(&mut self, events: &mut Listener<'_>) {
        let notes = self.learner.tiers.nvme.as_ref().map(Store::notes).unwrap_or_default();
        notes.into_iter().chain(self.metrics.take_note()).for_each(|note| events(Event::Note(note)));
    }

    /// The batches of the next update; begins the next pass where one ended.
    fn next_step(&mut self) -> Step {
        if self.standing.step_in_epoch >= self.batches.steps_in_epoch(self.standing.epoch) {
            self.standing.epoch += 1;
            self.standing.step_in_epoch = 0;
        }
        self.batches.step(self.standing.epoch, self.standing.step_in_epoch)
    }

    fn epochs(&self) -> f64 {
        let of = self.batches.steps_in_epoch(self.standing.epoch).max(1);
        self.standing.epoch as f64 + self.standing.step_in_epoch as f64 / of as f64
    }

    fn between_steps(&mut self, events: &mut Listener<'_>) -> Result<(), TrainError> {
        self.saving.look(&mut self.metrics, events)?;
        let step = self.standing.step;
        if step == self.steps {
            return Ok(());
        }
        if self.held_out.as_ref().is_some_and(|held_out| held_out.is_due(step)) {
            self.evaluate(false, events)?;
        }
        match self.saving.due(step) {
            Some(reason) => self.begin_save(reason, events),
            None => Ok(()),
        }
    }

    fn evaluate(
        &mut self,
        with_answers: bool,
        events: &mut Listener<'_>,
    ) -> Result<Option<EvaluationReport>, TrainError> {
        let Some(held_out) = &self.held_out else { return Ok(None) };
        let tokenizer = with_answers.then_some(&self.tokenizer);
        let (report, answers) = self.learner.engine.evaluate(held_out, tokenizer, events)?;
        samples::keep(&self.directory, self.standing.step, &answers)?;
        self.saving.evaluated(self.standing.step, report.loss);
        self.metrics.evaluation(self.standing.step, &report)?;
        events(Event::Evaluated { step: self.standing.step, report: report.clone() });
        Ok(Some(report))
    }

    /// Begins to write this moment while training goes on.
    fn begin_save(&mut self, reason: Reason, events: &mut Listener<'_>) -> Result<(), TrainError> {
        let now = (&self.plan, &self.standing, self.steps);
        self.saving.begin(reason, now, &mut self.metrics, events)
    }

    fn save_and_wait(&mut self, reason: Reason, events: &mut Listener<'_>) -> Result<PathBuf, TrainError> {
        self.begin_save(reason, events)?;
        self.saving.finish(&mut self.metrics, events)
    }

    fn out_of_write_budget(mut self, end: WriteBudgetEnd, events: &mut Listener<'_>) -> Result<Outcome, TrainError> {
        let (step, checkpoint) = (self.standing.step, self.save_and_wait(Reason::WriteBudget, events)?);
        self.metrics.finish()?;
        let WriteBudgetEnd { budget_bytes, written_bytes, step_bytes } = end;
        Err(TrainError::WriteBudget { step, checkpoint, budget_bytes, written_bytes, step_bytes })
    }

    fn interrupted(mut self, events: &mut Listener<'_>) -> Result<Outcome, TrainError> {
        let (step, checkpoint) = (self.standing.step, self.save_and_wait(Reason::Interrupted, events)?);
        self.metrics.finish()?;
        Ok(Outcome::Interrupted { step, checkpoint })
    }
}

/// What people should know about the tiers: which engine moves bytes and why, and every fallback with its cost.
fn notes_of(learner: &Learner) -> Vec<String> {
    let Some(store) = &learner.tiers.nvme else { return Vec::new() };
    let mut notes = vec![format!("nvme: {}", store.engine().why)];
    notes.extend(store.notes());
    notes
}

/// What the data room is asked for.
fn request<'a>(plan: &'a Plan, tokenizer: &'a Tokenizer, cache: &'a Path) -> Request<'a> {
    Request { plan: &plan.data, tokenizer, embedding_rows: plan.model.spec.vocabulary, cache }
}

fn batches(plan: &Plan, prepared: Prepared) -> Result<Batches, TrainError> {
    if prepared.training.is_empty() {
        return Err(DataError::OnlyPreferences { rows: prepared.report.preferences }.into());
    }
    let (rows, sources) = (prepared.training, &prepared.report.source_of_file);
    let batches = Batches::new(rows, &plan.data, sources, plan.train.rows_per_step, plan.train.micro_batch);
    Ok(batches.map_err(DataError::from)?)
}

/// What people should know about the rows of a run.
fn told(prepared: &Prepared) -> Vec<String> {
    let reused = if prepared.reused { ", as prepared before" } else { "" };
    let mut lines = vec![format!("data: {}{reused}", prepared.report)];
    lines.extend(prepared.notes.iter().cloned());
    lines
}

/// Steps that a run of this plan takes, counted on its data.
pub fn steps(plan: &Plan, weights: &Weights, token_cache: &Path) -> Result<u64, TrainError> {
    let tokenizer = load::tokenizer(weights)?;
    let prepared = request(plan, &tokenizer, token_cache).prepare(&mut |_| ())?;
    Ok(steps_of(plan, &batches(plan, prepared)?))
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
