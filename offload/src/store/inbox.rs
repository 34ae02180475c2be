//! What callers hand to the I/O thread.
//!
//! In:    requests from any thread.
//! Out:   the same requests, in order, for the I/O thread.
//! Never: keeps a request when no I/O thread is left: its caller learns of that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::engine::{Direction, Waker};
use super::ticket::{Place, Reply};
use crate::buffer::Buffer;
use crate::sync::lock;

/// One chunk to move.
#[derive(Debug)]
pub(crate) struct Request {
    pub place: Place,
    pub direction: Direction,
    pub buffer: Buffer,
    pub reply: SyncSender<Reply>,
}

/// The queue between callers and the I/O thread.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub waker: Arc<Waker>,
    mail: Mutex<Mail>,
    opened: Instant,
    /// When the I/O thread last showed itself, milliseconds after `opened`.
    sign_of_life: AtomicU64,
}

#[derive(Debug, Default)]
struct Mail {
    requests: Vec<Request>,
    /// No request will follow.
    closed: bool,
    /// No one will look any more.
    dead: bool,
}

impl Inbox {
    /// An empty inbox.
    pub fn new(waker: Waker) -> Inbox {
        Inbox {
            waker: Arc::new(waker),
            mail: Mutex::default(),
            opened: Instant::now(),
            sign_of_life: AtomicU64::new(0),
        }
    }

    /// Hands over a request. Without an I/O thread it is dropped, which its ticket notices.
    pub fn send(&self, request: Request) {
        let mut mail = lock(&self.mail);
        if mail.dead {
            return;
        }
        mail.requests.push(request);
        drop(mail);
        self.waker.wake();
    }

    /// Says that nothing more will come.
    pub fn close(&self) {
        lock(&self.mail).closed = true;
        self.waker.wake();
    }

    /// Says that nobody will look again, and drops what nobody looked at.
    pub fn die(&self) {
        let mut mail = lock(&self.mail);
        mail.dead = true;
        let unseen = std::mem::take(&mut mail.requests);
        drop(mail);
        drop(unseen);
    }

    /// Moves all requests into `requests`; true when no more will come.
    pub fn take(&self, requests: &mut Vec<Request>) -> bool {
        let alive = self.opened.elapsed().as_millis() as u64;
        self.sign_of_life.store(alive, Ordering::Relaxed);
        let mut mail = lock(&self.mail);
        requests.append(&mut mail.requests);
        mail.closed
    }

    /// Whether `take` would give anything.
    pub fn has_mail(&self, knows_closed: bool) -> bool {
        let mail = lock(&self.mail);
        !mail.requests.is_empty() || (mail.closed && !knows_closed)
    }

    /// For how long the I/O thread has not come by.
    pub fn silence(&self) -> Duration {
        let seen = Duration::from_millis(self.sign_of_life.load(Ordering::Relaxed));
        self.opened.elapsed().saturating_sub(seen)
    }
}
