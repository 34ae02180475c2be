//! The I/O thread: brings every request to an end, whatever engine runs below.
//!
//! In:    requests; completions of an engine.
//! Out:   one answer per request, `Ok` or a typed error with its place.
//! Never: loses a request; frees memory that the system may still write to; lets two transfers of one chunk overtake each other.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::EngineReport;
use super::choice::{EngineParts, threads_after_loss};
use super::engine::{Completion, Direction, Engine, Op};
use super::flight::{Flight, refusal};
use super::inbox::{Inbox, Request};
use crate::error::TierError;
use crate::memory::PAGE;
use crate::sync::lock;

/// How often a request without progress is made anew. With doubling pauses that is nearly a second.
const TRIES_MAX: u32 = 13;
/// Pause before the second try.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
/// Sleep when nothing is going on; every request wakes the thread.
const IDLE: Duration = Duration::from_secs(3600);

/// Bytes moved on one path.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub read_bytes: AtomicU64,
    pub written_bytes: AtomicU64,
}

/// What the driver shares with its store.
#[derive(Clone, Debug)]
pub(crate) struct DriverLinks {
    pub inbox: Arc<Inbox>,
    pub traffic: Arc<Vec<Counters>>,
    pub report: Arc<Mutex<EngineReport>>,
}

/// Extent and chunk: transfers of one chunk go one after another.
type ChunkKey = (u64, usize);

/// State of the I/O thread.
pub(crate) struct Driver {
    links: DriverLinks,
    parts: EngineParts,
    engine: Box<dyn Engine>,
    /// Requests that may start, per path.
    waiting: Vec<VecDeque<Request>>,
    /// Requests started and not ended, per path.
    started: Vec<usize>,
    flights: HashMap<u64, Flight>,
    /// Flights that try again later.
    pauses: Vec<(Instant, u64)>,
    /// Chunks on their way, each with the requests that wait for it.
    busy: HashMap<ChunkKey, VecDeque<Request>>,
    next_token: u64,
    last_progress: Instant,
    closed: bool,
}

impl Driver {
    /// A driver over `engine`.
    pub fn new(links: DriverLinks, parts: EngineParts, engine: Box<dyn Engine>) -> Driver {
        let paths = parts.layout.files.len();
        Driver {
            links,
            parts,
            engine,
            waiting: (0..paths).map(|_| VecDeque::new()).collect(),
            started: vec![0; paths],
            flights: HashMap::new(),
            pauses: Vec::new(),
            busy: HashMap::new(),
            next_token: 0,
            last_progress: Instant::now(),
            closed: false,
        }
    }

    /// Works until the inbox is closed and every request has been answered.
    pub fn run(mut self) {
        let mut requests = Vec::new();
        let mut done = Vec::new();
        loop {
            self.closed = self.links.inbox.take(&mut requests);
            if !requests.is_empty() && self.unanswered() == 0 {
                self.last_progress = Instant::now();
            }
            requests.drain(..).for_each(|request| self.admit(request));
            self.start_waiting();
            self.end_pauses();
            if self.closed && self.unanswered() == 0 {
                return;
            }
            let lost = self.wait(&mut done).err();
            self.handle(&mut done, lost);
            self.watch();
        }
    }

    /// Requests whose callers still wait.
    fn unanswered(&self) -> usize {
        let flying = self.flights.values().filter(|flight| !flight.given_up).count();
        let waiting: usize = self.waiting.iter().map(VecDeque::len).sum();
        flying + waiting + self.busy.values().map(VecDeque::len).sum::<usize>()
    }

    /// Lets a request wait for its chunk or for its turn on its path.
    fn admit(&mut self, request: Request) {
        let key = (request.place.extent.id, request.place.chunk);
        match self.busy.get_mut(&key) {
            Some(queue) => queue.push_back(request),
            None => {
                self.busy.insert(key, VecDeque::new());
                self.waiting[request.place.slot().path].push_back(request);
            }
        }
    }

    fn start_waiting(&mut self) {
        for path in 0..self.waiting.len() {
            while self.started[path] < self.parts.queue_depth
                && let Some(request) = self.waiting[path].pop_front()
            {
                let token = self.next_token;
                self.next_token += 1;
                let slot = request.place.slot();
                self.started[path] += 1;
                self.flights.insert(token, Flight { request, slot, done: 0, tries: 0, given_up: false });
                self.start(token);
            }
        }
    }

    /// Gives what is left of a flight to the engine.
    fn start(&mut self, token: u64) {
        let Some(flight) = self.flights.get(&token) else { return };
        let buffer = &flight.request.buffer;
        let op = Op {
            token,
            direction: flight.request.direction,
            file: flight.slot.path,
            offset: flight.slot.offset + flight.done as u64,
            memory: buffer.start().wrapping_add(flight.done),
            len: flight.slot.len - flight.done,
            buffer: buffer.index(),
        };
        // SAFETY: the flight owns its buffer until the completion arrives, or leaks it when `abandon` calls it stuck; a slot is never
        // longer than a buffer (`Store::allocate` sees to that).
        unsafe { self.engine.start(op) };
    }

    fn end_pauses(&mut self) {
        let now = Instant::now();
        let over: Vec<u64> = self.pauses.extract_if(.., |(due, _)| *due <= now).map(|(_, token)| token).collect();
        over.into_iter().for_each(|token| self.start(token));
    }

    fn wait(&mut self, done: &mut Vec<Completion>) -> io::Result<()> {
        let inbox = Arc::clone(&self.links.inbox);
        inbox.waker.announce_sleep();
        let timeout = if inbox.has_mail(self.closed) { Duration::ZERO } else { self.patience() };
        let result = self.engine.wait(timeout, done);
        inbox.waker.stay_awake();
        result
    }

    /// How long the engine may sleep.
    fn patience(&self) -> Duration {
        let now = Instant::now();
        let watchdog = (self.unanswered() > 0).then(|| self.last_progress + self.parts.stall_after);
        let next = self.pauses.iter().map(|(due, _)| *due).chain(watchdog).min();
        // A microsecond more, so that what is due is really due.
        next.map_or(IDLE, |next| next.saturating_duration_since(now) + Duration::from_micros(1))
    }

    fn handle(&mut self, done: &mut Vec<Completion>, lost: Option<io::Error>) {
        let refused = || done.iter().find_map(|completion| refusal(completion, self.engine.kind()));
        if let Some(reason) = lost.or_else(refused) {
            self.replace_engine(&reason, done);
        }
        if !done.is_empty() {
            self.last_progress = Instant::now();
        }
        done.drain(..).for_each(|completion| self.complete(completion));
    }

    /// Books the end of one request to the engine.
    fn complete(&mut self, completion: Completion) {
        let token = completion.token;
        let Some(flight) = self.flights.get_mut(&token) else { return };
        if flight.given_up {
            self.close_flight(token);
            return;
        }
        match completion.result {
            Ok(bytes) => self.advance(token, bytes),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => self.pause(token, error),
            Err(error) => self.fail(token, |flight, driver| flight.failed(error, driver)),
        }
    }

    /// `bytes` more are through: goes on behind them, at a page boundary as O_DIRECT wants.
    fn advance(&mut self, token: u64, bytes: usize) {
        let Some(flight) = self.flights.get_mut(&token) else { return };
        let left = flight.slot.len - flight.done;
        let bytes = bytes.min(left);
        let counters = &self.links.traffic[flight.slot.path];
        let counter = match flight.request.direction {
            Direction::Read => &counters.read_bytes,
            Direction::Write => &counters.written_bytes,
        };
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
        if bytes == left {
            let request = self.close_flight(token);
            request.into_iter().for_each(|request| request.answer());
            return;
        }
        let whole = bytes - bytes % PAGE;
        flight.done += whole;
        if whole > 0 {
            flight.tries = 0;
            self.start(token);
        } else if bytes == 0 {
            self.fail(token, |flight, driver| flight.ended(driver));
        } else {
            self.pause(token, ErrorKind::UnexpectedEof.into());
        }
    }

    /// Tries again in a while, unless that was tried often enough; then `error` is the answer.
    fn pause(&mut self, token: u64, error: io::Error) {
        let Some(flight) = self.flights.get_mut(&token) else { return };
        flight.tries += 1;
        if flight.tries >= TRIES_MAX {
            self.fail(token, |flight, driver| flight.failed(error, driver));
            return;
        }
        let pause = FIRST_PAUSE * (1 << (flight.tries - 1));
        self.pauses.push((Instant::now() + pause, token));
    }

    fn fail(&mut self, token: u64, error: impl FnOnce(&Flight, &EngineParts) -> TierError) {
        let Some(flight) = self.flights.get(&token) else { return };
        let error = error(flight, &self.parts);
        if let Some(request) = self.close_flight(token) {
            request.refuse(error);
        }
    }

    /// Removes a flight whose memory the system has let go of, and lets the next request for its chunk go ahead. `None` if it was
    /// given up before.
    fn close_flight(&mut self, token: u64) -> Option<Request> {
        let flight = self.flights.remove(&token)?;
        self.started[flight.slot.path] -= 1;
        let key = (flight.request.place.extent.id, flight.request.place.chunk);
        match self.busy.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(next) => self.waiting[flight.slot.path].push_back(next),
            None => drop(self.busy.remove(&key)),
        }
        (!flight.given_up).then_some(flight.request)
    }

    /// Goes over to threads: what the old engine has not begun starts anew there, what it never ends is answered and its memory leaked.
    fn replace_engine(&mut self, reason: &io::Error, done: &mut Vec<Completion>) {
        let stuck: HashSet<u64> = self.engine.abandon(done).into_iter().collect();
        let kind = self.engine.kind();
        done.retain(|completion| refusal(completion, kind).is_none());
        let ended: HashSet<u64> = done.iter().map(|completion| completion.token).collect();
        let paused: HashSet<u64> = self.pauses.iter().map(|(_, token)| *token).collect();
        self.engine = threads_after_loss(&self.parts, &self.links.inbox, &self.links.report, kind, reason);
        let mut tokens: Vec<u64> = self.flights.keys().copied().collect();
        tokens.sort_unstable();
        let mut replayed = 0;
        for token in tokens {
            if stuck.contains(&token) {
                self.leak(token, reason);
            } else if !ended.contains(&token) && !paused.contains(&token) {
                replayed += 1;
                self.restart(token);
            }
        }
        self.parts.notes.add(format!(
            "{kind}: stopped working in the middle of the run ({reason}); threads go on, {replayed} requests were made again and {} \
             could not be; expect more CPU time per byte",
            stuck.len()
        ));
    }

    fn restart(&mut self, token: u64) {
        match self.flights.get(&token) {
            Some(flight) if flight.given_up => drop(self.close_flight(token)),
            _ => self.start(token),
        }
    }

    /// Answers a flight whose memory the system may still write to: the buffer is never used again.
    fn leak(&mut self, token: u64, reason: &io::Error) {
        let Some(request) = self.close_flight(token) else { return };
        let error = request.place.engine_lost(&format!("{reason}, and it was not heard of again"));
        let Request { reply, buffer, .. } = request;
        std::mem::forget(buffer);
        self.parts.pool.replace_one();
        // An error means that nobody waits.
        let _ = reply.send(Err(error));
    }

    /// Gives up on everything when nothing has completed for too long. Buffers stay with their flights.
    fn watch(&mut self) {
        let silent = self.last_progress.elapsed();
        if silent < self.parts.stall_after || self.unanswered() == 0 {
            return;
        }
        self.last_progress = Instant::now();
        let seconds = silent.as_secs_f64();
        let paused: HashSet<u64> = self.pauses.drain(..).map(|(_, token)| token).collect();
        for token in paused {
            self.fail(token, |flight, _| flight.request.place.stalled(seconds));
        }
        for flight in self.flights.values_mut().filter(|flight| !flight.given_up) {
            flight.given_up = true;
            self.parts.pool.replace_one();
            let _ = flight.request.reply.send(Err(flight.request.place.stalled(seconds)));
        }
        let queued = self.busy.values_mut().flat_map(|queue| queue.drain(..));
        queued.for_each(|request| request.refuse_stalled(seconds));
        let waiting: Vec<Request> = self.waiting.iter_mut().flat_map(|queue| queue.drain(..)).collect();
        for request in waiting {
            self.busy.remove(&(request.place.extent.id, request.place.chunk));
            request.refuse_stalled(seconds);
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.links.inbox.die();
        let mut done = Vec::new();
        let stuck: HashSet<u64> =
            if self.flights.is_empty() { HashSet::new() } else { self.engine.abandon(&mut done).into_iter().collect() };
        for (token, flight) in self.flights.drain() {
            if stuck.contains(&token) {
                // The system may still write there.
                std::mem::forget(flight.request.buffer);
            }
        }
    }
}

/// The counters of all paths, at zero.
pub(crate) fn counters(paths: usize) -> Arc<Vec<Counters>> {
    Arc::new((0..paths).map(|_| Counters::default()).collect())
}

/// Replaces the report of a store.
pub(crate) fn publish(report: &Mutex<EngineReport>, new: EngineReport) {
    *lock(report) = new;
}
