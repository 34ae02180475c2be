//! Writes checkpoints on a thread of its own while training goes on.
//!
//! In:    where the run stands between two updates; the parameters, shared; a [`Gate`](crate::gate::Gate) that updates pass.
//! Out:   a complete checkpoint of exactly that moment, and those that retention removes gone; or an error and nothing changed.
//! Never: has two saves under way; lets a save outlive the run.

use std::fs::File;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use checkpoints::checkpoint::{self, Facts, Position, Reason, Retention, State};
use serde::Serialize;

use crate::error::TrainError;
use crate::parameters::SharedParameters;
use crate::state;

/// What one save is told.
pub(crate) struct Order {
    /// Where the run stands.
    pub(crate) position: Position,
    /// Why, and what else is known.
    pub(crate) facts: Facts,
    /// Synced before the checkpoint is published, so that no checkpoint is ahead of its history.
    pub(crate) metrics: File,
}

/// Figures of a finished save.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SaveReport {
    /// Bytes of the checkpoint.
    pub bytes: u64,
    /// Time from its beginning to its last sync.
    pub seconds: f64,
    /// Time that training stood still for it.
    pub waited_ms: f64,
}

/// A save that ended.
pub(crate) struct Ended {
    pub(crate) step: u64,
    pub(crate) reason: Reason,
    pub(crate) result: Result<(PathBuf, SaveReport), TrainError>,
}

/// Saves one run.
pub(crate) struct Saver {
    run: PathBuf,
    parameters: SharedParameters,
    retention: Retention,
    recipe: String,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    step: u64,
    reason: Reason,
    thread: JoinHandle<Result<(PathBuf, SaveReport), TrainError>>,
}

impl Saver {
    /// A saver of the run in `run`, whose resolved recipe goes into every checkpoint.
    pub(crate) fn new(run: PathBuf, parameters: SharedParameters, retention: Retention, recipe: String) -> Saver {
        Saver { run, parameters, retention, recipe, under_way: None }
    }

    /// Begins a save of this moment. No update may be under way, and no other save.
    ///
    /// # Panics
    /// If one is: our bug.
    pub(crate) fn begin(&mut self, order: Order) -> Result<(), TrainError> {
        assert!(self.under_way.is_none(), "two saves at a time");
        let (step, reason) = (order.position.step, order.facts.reason);
        let (run, parameters, recipe) = (self.run.clone(), self.parameters.clone(), self.recipe.clone());
        let retention = self.retention;
        self.parameters.gate().close(self.parameters.layout().len());
        let work = move || {
            let saved = write(&run, &parameters, recipe, order)?;
            checkpoint::prune(&run, retention)?;
            Ok(saved)
        };
        match std::thread::Builder::new().name("saver".into()).spawn(work) {
            Ok(thread) => {
                self.under_way = Some(UnderWay { step, reason, thread });
                Ok(())
            }
            Err(error) => {
                drop(self.parameters.gate().closed());
                Err(TrainError::Thread { reason: error.to_string() })
            }
        }
    }

    /// The save that has ended since the last call, if there is one; does not wait.
    pub(crate) fn ended(&mut self) -> Option<Ended> {
        match &self.under_way {
            Some(under_way) if under_way.thread.is_finished() => self.wait(),
            _ => None,
        }
    }

    /// Waits for the save that is under way, if there is one.
    pub(crate) fn wait(&mut self) -> Option<Ended> {
        let UnderWay { step, reason, thread } = self.under_way.take()?;
        let lost = |_| Err(TrainError::Thread { reason: "the thread that saves ended early".to_string() });
        Some(Ended { step, reason, result: thread.join().unwrap_or_else(lost) })
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        // A run that fails meanwhile still leaves the checkpoint that it had begun; its error has already been chosen.
        drop(self.wait());
    }
}

fn write(
    run: &std::path::Path,
    parameters: &SharedParameters,
    recipe: String,
    order: Order,
) -> Result<(PathBuf, SaveReport), TrainError> {
    let begun = Instant::now();
    let gate = parameters.gate();
    let _closed = gate.closed();
    let Order { position, facts, metrics } = order;
    let history = Some((run.join(crate::metrics::FILE), metrics));
    let written = |number| gate.written(number);
    let tensors = state::streamed(parameters, &written);
    let saved = checkpoint::write(run, State { position, facts, recipe, history, tensors })?;
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let report = SaveReport {
        bytes: saved.bytes,
        seconds: begun.elapsed().as_secs_f64(),
        waited_ms: milliseconds(gate.waited()),
    };
    Ok((saved.path, report))
}
