//! The engine for everywhere: threads that call `pread` and `pwrite`.
//!
//! In:    reads and writes.
//! Out:   their completions.
//! Never: blocks the I/O thread on a disk.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::EngineKind;
use super::engine::{Completion, Direction, Engine, Op, Waker};
use super::layout::Layout;
use crate::sync::lock;

/// More threads than this in flight gain nothing on one disk.
const THREADS_PER_PATH_MAX: usize = 8;
/// How long the end of running requests is waited for when the engine is given up.
const ABANDON_WAIT: Duration = Duration::from_secs(10);

/// A pool of threads.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    layout: Arc<Layout>,
    waker: Arc<Waker>,
    jobs: Mutex<Jobs>,
    ready: Condvar,
    done: Mutex<Vec<Completion>>,
}

#[derive(Default)]
struct Jobs {
    queue: VecDeque<Op>,
    /// Tokens of what threads are working on.
    running: Vec<u64>,
    closed: bool,
}

impl Threads {
    /// Starts enough threads for `queue_depth` requests in flight per path.
    pub fn new(layout: Arc<Layout>, waker: Arc<Waker>, queue_depth: usize) -> io::Result<Threads> {
        let count = queue_depth.clamp(1, THREADS_PER_PATH_MAX) * layout.files.len();
        let (jobs, ready, done) = (Mutex::default(), Condvar::new(), Mutex::default());
        let shared = Arc::new(Shared { layout, waker, jobs, ready, done });
        let mut engine = Threads { shared, workers: Vec::with_capacity(count) };
        for _ in 0..count {
            let shared = Arc::clone(&engine.shared);
            let builder = std::thread::Builder::new().name("tune-io".to_owned()).stack_size(128 << 10);
            engine.workers.push(builder.spawn(move || shared.work())?);
        }
        Ok(engine)
    }

    /// How many threads there are.
    pub fn count(&self) -> usize {
        self.workers.len()
    }
}

impl Engine for Threads {
    fn kind(&self) -> EngineKind {
        EngineKind::Threads
    }

    unsafe fn start(&mut self, op: Op) {
        lock(&self.shared.jobs).queue.push_back(op);
        self.shared.ready.notify_one();
    }

    fn wait(&mut self, timeout: Duration, done: &mut Vec<Completion>) -> io::Result<()> {
        if lock(&self.shared.done).is_empty() && !timeout.is_zero() {
            self.shared.waker.sleep(timeout);
        }
        done.append(&mut lock(&self.shared.done));
        Ok(())
    }

    fn abandon(&mut self, done: &mut Vec<Completion>) -> Vec<u64> {
        lock(&self.shared.jobs).queue.clear();
        let deadline = Instant::now() + ABANDON_WAIT;
        while !lock(&self.shared.jobs).running.is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        // In this order: a request leaves `running` only after its completion is in `done`.
        let stuck = lock(&self.shared.jobs).running.clone();
        done.append(&mut lock(&self.shared.done));
        stuck
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let mut jobs = lock(&self.shared.jobs);
        jobs.closed = true;
        jobs.queue.clear();
        let stuck = !jobs.running.is_empty();
        drop(jobs);
        self.shared.ready.notify_all();
        // A thread that hangs in the system is left to itself: nobody could end it.
        if !stuck {
            self.workers.drain(..).for_each(|worker| drop(worker.join()));
        }
    }
}

impl Shared {
    fn work(&self) {
        while let Some(op) = self.next() {
            let result = self.perform(&op);
            lock(&self.done).push(Completion { token: op.token, result });
            lock(&self.jobs).running.retain(|token| *token != op.token);
            self.waker.wake();
        }
    }

    fn next(&self) -> Option<Op> {
        let jobs = lock(&self.jobs);
        let waited = self.ready.wait_while(jobs, |jobs| jobs.queue.is_empty() && !jobs.closed);
        let mut jobs = waited.unwrap_or_else(PoisonError::into_inner);
        let op = jobs.queue.pop_front()?;
        jobs.running.push(op.token);
        Some(op)
    }

    fn perform(&self, op: &Op) -> io::Result<usize> {
        let file = &self.layout.files[op.file].file;
        // SAFETY: by the contract of `Engine::start` these are `len` bytes that only this thread uses until the completion is told.
        let bytes = unsafe { std::slice::from_raw_parts_mut(op.memory, op.len) };
        match op.direction {
            Direction::Read => file.read_at(bytes, op.offset),
            Direction::Write => file.write_at(bytes, op.offset),
        }
    }
}
