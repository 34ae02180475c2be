//! Asks for every chunk the journal does not hold, on several threads.
//!
//! In:    spooled chunks, the journal.
//! Out:   a journal with their replies; what failed, counted in the summary.
//! Never: has more requests under way than the limit; asks twice for the same prompts.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};

use super::chunks::Chunk;
use super::client::{AskError, Client, Completion, request};
use super::error::GenerateError;
use super::job::{Event, Job, Summary};
use super::journal::{Entry, Journal, Key, key};
use super::reply;
use super::spool::Spool;
use crate::random::Random;

/// A job ends after so many chunks in a row that failed.
const FAILURES_MAX: usize = 3;
/// How often a chunk is asked for again, with another seed, because its reply held no JSON.
const READABLE_TRIES: u64 = 3;

/// What the threads share.
struct Work<'a> {
    job: &'a Job,
    client: Client,
    journal: Mutex<&'a mut Journal>,
    progress: &'a (dyn Fn(Event) + Sync),
    stop: &'a AtomicBool,
    /// Set with `error`.
    over: AtomicBool,
    error: Mutex<Option<GenerateError>>,
    failures_in_a_row: AtomicUsize,
    failed: Mutex<Vec<(String, String)>>,
    done: AtomicUsize,
    chunks: usize,
}

/// Fills the journal. An error means that no chunk can succeed; what came before it is kept.
pub(crate) fn ask_all(
    job: &Job,
    spool: &Spool,
    journal: &mut Journal,
    stop: &AtomicBool,
    progress: &(dyn Fn(Event) + Sync),
    summary: &mut Summary,
) -> Result<(), GenerateError> {
    let missing = missing(job, spool, journal, summary)?;
    progress(Event::Planned { chunks: summary.chunks, done: summary.chunks_resumed });
    let work = Work {
        job,
        client: Client::new(&job.address, job.key.as_deref(), job.limits),
        journal: Mutex::new(journal),
        progress,
        stop,
        over: AtomicBool::new(false),
        error: Mutex::new(None),
        failures_in_a_row: AtomicUsize::new(0),
        failed: Mutex::new(Vec::new()),
        done: AtomicUsize::new(summary.chunks_resumed),
        chunks: summary.chunks,
    };
    let (sender, receiver) = mpsc::sync_channel::<(Chunk, Key)>(job.limits.concurrency);
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        for _ in 0..job.limits.concurrency.min(missing.len()) {
            scope.spawn(|| work.worker(&receiver));
        }
        // Dropped at the end: the threads end when the channel does.
        let sender = sender;
        hand_out(job, spool, missing, &work, &sender)
    })?;
    if let Some(error) = lock(&work.error).take() {
        return Err(error);
    }
    summary.chunks_done = work.done.load(Ordering::SeqCst);
    summary.chunks_failed = std::mem::take(&mut *lock(&work.failed));
    summary.chunks_failed.sort();
    Ok(())
}

/// The keys to ask for; counts those that are there already.
fn missing(job: &Job, spool: &Spool, journal: &Journal, summary: &mut Summary) -> Result<HashSet<Key>, GenerateError> {
    let mut missing = HashSet::new();
    for chunk in spool.read()? {
        let key = key(&job.asking, &chunk?);
        // A chunk that repeats another one's prompts shares its reply.
        if journal.holds(&key) || !missing.insert(key) {
            summary.chunks_resumed += 1;
        }
    }
    Ok(missing)
}

fn hand_out(
    job: &Job,
    spool: &Spool,
    mut missing: HashSet<Key>,
    work: &Work,
    sender: &mpsc::SyncSender<(Chunk, Key)>,
) -> Result<(), GenerateError> {
    if missing.is_empty() {
        return Ok(());
    }
    for chunk in spool.read()? {
        let chunk = chunk?;
        let key = key(&job.asking, &chunk);
        if work.is_over() {
            break;
        }
        if missing.remove(&key) && sender.send((chunk, key)).is_err() {
            break;
        }
    }
    Ok(())
}

impl Work<'_> {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst) || self.over.load(Ordering::SeqCst)
    }

    /// Takes chunks until there are none; when all is over, empties the channel so that the sender is not left waiting.
    fn worker(&self, receiver: &Mutex<mpsc::Receiver<(Chunk, Key)>>) {
        loop {
            let next = lock(receiver).recv();
            let Ok((chunk, key)) = next else { return };
            if !self.is_over() {
                self.one(&chunk, &key);
            }
        }
    }

    fn one(&self, chunk: &Chunk, key: &Key) {
        match self.readable(chunk, key) {
            Ok(completion) => {
                let entry = Entry::new(key, completion.text, completion.prompt_tokens, completion.reply_tokens);
                // Bound first: the journal is free again before anybody is told.
                let written = lock(&self.journal).append(&entry);
                match written {
                    Ok(()) => self.done(),
                    Err(error) => self.end(error),
                }
            }
            Err(AskError::Stopped) => {}
            Err(AskError::Fatal(error)) => self.end(*error),
            Err(AskError::Failed(reason)) => self.failed(chunk, reason),
        }
    }

    /// The first reply with JSON in it; if there is none, the last reply. Tokens of all tries are added up.
    fn readable(&self, chunk: &Chunk, key: &Key) -> Result<Completion, AskError> {
        let asking = &self.job.asking;
        let (system, user) = asking.render(chunk);
        let stream = u64::from_le_bytes([key[0], key[1], key[2], key[3], key[4], key[5], key[6], key[7]]);
        let mut random = Random::new(asking.seed, stream);
        let retrying = |reason: &str, pause| {
            (self.progress)(Event::Retry { chunk: chunk.place(), reason: reason.to_string(), pause });
        };
        let mut spent = (0, 0);
        let mut ask = |try_number: u64| {
            let request = request(asking, &system, &user, asking.seed.wrapping_add(try_number));
            let mut completion = self.client.ask(&request, &mut random, &|| self.is_over(), &retrying)?;
            spent = (spent.0 + completion.prompt_tokens, spent.1 + completion.reply_tokens);
            (completion.prompt_tokens, completion.reply_tokens) = spent;
            Ok(completion)
        };
        let mut completion = ask(0)?;
        for try_number in 1..READABLE_TRIES {
            if reply::candidates(&completion.text).is_some() {
                break;
            }
            completion = ask(try_number)?;
        }
        Ok(completion)
    }

    fn done(&self) {
        self.failures_in_a_row.store(0, Ordering::SeqCst);
        let done = self.done.fetch_add(1, Ordering::SeqCst) + 1;
        (self.progress)(Event::Done { done, chunks: self.chunks });
    }

    fn failed(&self, chunk: &Chunk, reason: String) {
        let place = chunk.place();
        (self.progress)(Event::Failed { chunk: place.clone(), reason: reason.clone() });
        lock(&self.failed).push((place.clone(), reason.clone()));
        let failures = self.failures_in_a_row.fetch_add(1, Ordering::SeqCst) + 1;
        if failures >= FAILURES_MAX {
            self.end(GenerateError::Failing { failures, chunk: place, reason });
        }
    }

    fn end(&self, error: GenerateError) {
        lock(&self.error).get_or_insert(error);
        self.over.store(true, Ordering::SeqCst);
    }
}

/// A thread that panicked while it held the lock left plain data behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
