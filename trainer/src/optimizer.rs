//! The update, on a thread of its own: gradients leave the backward pass here and compute goes on.
//!
//! In:    flat gradients of a group, in the order the backward pass makes them; what is to become of them.
//! Out:   updated parameters, the squared norm of each group's gradient.
//! Never: updates a group with a gradient that is not a number, or one that a save has yet to read; loses an error: the next call
//!        returns it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use offload::rules::{Step, squared_norm_by_256};
use offload::update::{GradientSource, Updater};

use crate::error::TrainError;
use crate::parameters::SharedParameters;
use crate::stalls::{Cause, Stalls};

/// What becomes of a group's gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Finish {
    /// It is added to the step's sum; more follow, or the update waits for the norm of all.
    Add,
    /// It completes the step's sum, and the group is updated at once.
    Update(Step),
}

enum Job {
    Gradient(usize, Vec<f32>, Finish),
    Update(usize, Step),
    /// Nothing: it is taken when the gradient before it is done with.
    Next,
    Settle,
}

/// What the thread has done since the last settling.
#[derive(Debug, Default)]
struct Done {
    /// Squared norm of each group's gradient sum.
    norms: Vec<f64>,
    error: Option<TrainError>,
}

/// The thread's handle.
#[derive(Debug)]
pub struct Optimizer {
    jobs: Option<SyncSender<Job>>,
    settled: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
    /// The groups, as the backward pass completes them: a save writes them in this order.
    order: Vec<usize>,
    stalls: Arc<Stalls>,
}

impl Optimizer {
    /// Starts the thread. `cores` bounds the threads of the element-wise arithmetic.
    pub fn start(
        parameters: SharedParameters,
        updater: Updater,
        cores: usize,
        stalls: Arc<Stalls>,
    ) -> Result<Optimizer, TrainError> {
        // A job waits until the one before it is taken: at most one gradient is being worked on and one waits.
        let (jobs, todo) = sync_channel(0);
        let (report, settled) = channel();
        // Its own pool: the loop's pool may be waiting for this thread.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(cores.max(1)).thread_name(|i| format!("update-{i}"));
        let pool = pool.build().map_err(|error| TrainError::Thread { reason: error.to_string() })?;
        let order = parameters.update_order();
        let work = move || pool.install(move || serve(&parameters, &updater, &todo, &report));
        let thread = std::thread::Builder::new().name("optimizer".into()).spawn(work);
        let thread = thread.map_err(|error| TrainError::Thread { reason: error.to_string() })?;
        Ok(Optimizer { jobs: Some(jobs), settled, thread: Some(thread), order, stalls })
    }

    /// Waits until the thread is done with the gradient before, so that its memory is free when the next one is made.
    pub fn wait_for_room(&self) {
        self.stalls.time(Cause::Gradients, || self.send(Job::Next));
    }

    /// Hands over a group's flat gradient; waits while the thread is busy with the one before.
    pub fn gradient(&self, group: usize, flat: Vec<f32>, finish: Finish) {
        self.stalls.time(Cause::Gradients, || self.send(Job::Gradient(group, flat, finish)));
    }

    /// Waits until everything handed over is done; returns the gradient norm of the step.
    pub fn settle(&self) -> Result<f64, TrainError> {
        self.stalls.time(Cause::Optimizer, || {
            self.send(Job::Settle);
            let done = self.settled.recv().map_err(|_| lost())?;
            match done.error {
                Some(error) => Err(error),
                None => Ok(done.norms.iter().sum::<f64>().sqrt()),
            }
        })
    }

    /// Updates every group from its kept gradients.
    pub fn update_all(&self, step: Step) -> Result<(), TrainError> {
        let send_all = || self.order.iter().for_each(|&group| self.send(Job::Update(group, step)));
        self.stalls.time(Cause::Optimizer, send_all);
        self.settle().map(|_| ())
    }

    fn send(&self, job: Job) {
        // A thread that is gone is noticed by the settling that ends every step.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
    }
}

impl Drop for Optimizer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lost() -> TrainError {
    TrainError::Thread { reason: "the optimizer's thread ended early".to_string() }
}

fn serve(parameters: &SharedParameters, updater: &Updater, todo: &Receiver<Job>, report: &Sender<Done>) {
    let fresh = || Done { norms: vec![0.0; parameters.layout().len()], error: None };
    let mut done = fresh();
    while let Ok(job) = todo.recv() {
        let result = match job {
            Job::Settle => {
                let _ = report.send(std::mem::replace(&mut done, fresh()));
                continue;
            }
            Job::Next => continue,
            // After an error nothing more is changed until it has been reported.
            _ if done.error.is_some() => continue,
            Job::Gradient(group, flat, finish) => take_gradient(parameters, updater, (group, &flat, finish), &mut done),
            Job::Update(group, step) => {
                parameters.gate().pass(group);
                updater
                    .update(&mut [&mut *parameters.group(group)], &step, GradientSource::FromArray)
                    .map(|_| ())
                    .map_err(TrainError::from)
            }
        };
        done.error = result.err();
    }
}

fn take_gradient(
    parameters: &SharedParameters,
    updater: &Updater,
    (number, flat, finish): (usize, &[f32], Finish),
    done: &mut Done,
) -> Result<(), TrainError> {
    if matches!(finish, Finish::Update(_)) {
        // Before the lock: whoever saves the group needs it.
        parameters.gate().pass(number);
    }
    let mut group = parameters.group(number);
    let kept = group.gradients.is_some();
    done.norms[number] = if kept { group.add_gradients(flat)? } else { squared_norm_by_256(flat) };
    let Finish::Update(step) = finish else { return Ok(()) };
    if !done.norms[number].is_finite() {
        return Err(TrainError::GradientNotFinite {
            step: step.number,
            norm: done.norms[number].sqrt(),
            learning_rate: step.learning_rate,
        });
    }
    let source = if kept { GradientSource::FromArray } else { GradientSource::Flat(flat) };
    updater.update(&mut [&mut *group], &step, source)?;
    Ok(())
}
