//! When a run saves, and what becomes of a save.
//!
//! In:    the plan's rules, a request from outside, the clock.
//! Out:   saves begun between two steps; each that ended told as an event and as a line of `metrics.jsonl`.
//! Never: ends a run because a periodic save failed: the checkpoint before it still stands. The last save of a process must succeed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use checkpoints::checkpoint::{self, Facts, Reason, Retention};
use planner::plan::{CheckpointPlan, Plan};

use crate::error::TrainError;
use crate::events::Event;
use crate::metrics::Metrics;
use crate::parameters::SharedParameters;
use crate::run::Listener;
use crate::saver::{Ended, Order, SaveReport, Saver};
use crate::survive::Progress;

/// Everything about saving that a run holds.
pub(crate) struct Saving {
    saver: Saver,
    rules: CheckpointPlan,
    asked: Arc<AtomicBool>,
    /// When the last save began, or the run.
    last: Instant,
    /// Fingerprint of the plan: what a resume must find unchanged.
    decided: String,
    /// Fingerprint of the model's files.
    model: String,
    started_from: Option<String>,
    /// The last held-out loss, and the step it belongs to.
    evaluated: Option<(u64, f64)>,
}

/// What never changes in a run.
pub(crate) struct Origin {
    pub(crate) recipe: String,
    pub(crate) decided: String,
    pub(crate) model: String,
    pub(crate) started_from: Option<String>,
}

fn retention(rules: &CheckpointPlan) -> Retention {
    Retention { keep_last: rules.keep_last, keep_best: rules.keep_best }
}

impl Saving {
    /// Rules and origin of the run in `directory`; `asked` is set from outside to ask for a save.
    pub(crate) fn new(
        directory: &Path,
        plan: &Plan,
        parameters: SharedParameters,
        asked: Arc<AtomicBool>,
        origin: Origin,
    ) -> Saving {
        let Origin { recipe, decided, model, started_from } = origin;
        let rules = plan.checkpoint;
        let saver = Saver::new(directory.to_path_buf(), parameters, retention(&rules), recipe);
        Saving { saver, rules, asked, last: Instant::now(), decided, model, started_from, evaluated: None }
    }

    /// Remembers the loss of the state as it is after `step`.
    pub(crate) fn evaluated(&mut self, step: u64, loss: f64) {
        self.evaluated = Some((step, loss)).filter(|_| loss.is_finite());
    }

    /// Why the state after `step` is to be saved, if it is.
    pub(crate) fn due(&self, step: u64) -> Option<Reason> {
        let minutes = |minutes: f64| Duration::try_from_secs_f64(minutes * 60.0).unwrap_or(Duration::MAX);
        if self.asked.swap(false, Ordering::Relaxed) {
            return Some(Reason::Requested);
        }
        if self.rules.every_steps.is_some_and(|every| step.is_multiple_of(every)) {
            return Some(Reason::EverySteps);
        }
        self.rules.every_minutes.filter(|&every| self.last.elapsed() >= minutes(every)).map(|_| Reason::EveryMinutes)
    }

    /// Begins a save of this moment. One that is still under way is waited for first.
    pub(crate) fn begin(
        &mut self,
        reason: Reason,
        (plan, standing, steps): (&Plan, &Progress, u64),
        metrics: &mut Metrics,
        events: &mut Listener<'_>,
    ) -> Result<(), TrainError> {
        if let Some(ended) = self.saver.wait() {
            told(ended, metrics, events)?;
        }
        let (file, metrics_bytes) = metrics.file()?;
        let mut position = standing.position(plan, &self.decided, steps);
        position.metrics_bytes = metrics_bytes;
        let held_out_loss = self.evaluated.filter(|(step, _)| *step == standing.step).map(|(_, loss)| loss);
        let (model, started_from) = (self.model.clone(), self.started_from.clone());
        self.last = Instant::now();
        self.saver.begin(Order { position, facts: Facts { reason, held_out_loss, model, started_from }, metrics: file })
    }

    /// Tells of a save that ended meanwhile; does not wait.
    pub(crate) fn look(&mut self, metrics: &mut Metrics, events: &mut Listener<'_>) -> Result<(), TrainError> {
        self.saver.ended().map_or(Ok(()), |ended| told(ended, metrics, events))
    }

    /// Waits for the save just begun, which must succeed.
    pub(crate) fn finish(&mut self, metrics: &mut Metrics, events: &mut Listener<'_>) -> Result<PathBuf, TrainError> {
        let Ended { step, reason, result } = self.saver.wait().expect("a save was begun");
        let (path, saved) = result?;
        tell_saved(step, reason, (&path, saved), metrics, events)?;
        Ok(path)
    }

    /// Adds the loss measured after the last save to it, and keeps the best with that in mind. A refusal is told: the run is over.
    pub(crate) fn note_last_loss(&self, run: &Path, path: &Path, loss: f64, events: &mut Listener<'_>) {
        let noted = checkpoint::note_held_out_loss(path, loss);
        if let Err(error) = noted.and_then(|()| checkpoint::prune(run, retention(&self.rules))) {
            events(Event::Note(format!("{}: its held-out loss is not noted: {error}", path.display())));
        }
    }
}

/// A save in the middle of a run: if it failed, that is told and no more.
fn told(ended: Ended, metrics: &mut Metrics, events: &mut Listener<'_>) -> Result<(), TrainError> {
    let Ended { step, reason, result } = ended;
    match result {
        Ok((path, saved)) => tell_saved(step, reason, (&path, saved), metrics, events),
        Err(error) => {
            let problem = error.to_string();
            metrics.checkpoint(step, &serde_json::json!({ "reason": reason, "failed": problem }))?;
            events(Event::SaveFailed { step, problem });
            Ok(())
        }
    }
}

fn tell_saved(
    step: u64,
    reason: Reason,
    (path, saved): (&Path, SaveReport),
    metrics: &mut Metrics,
    events: &mut Listener<'_>,
) -> Result<(), TrainError> {
    let line = serde_json::json!({ "path": path, "reason": reason, "bytes": saved.bytes, "seconds": saved.seconds,
        "waited_ms": saved.waited_ms });
    metrics.checkpoint(step, &line)?;
    events(Event::Checkpoint { step, path: path.to_path_buf(), saved });
    Ok(())
}
