//! What an I/O engine is, and how its thread is woken.
//!
//! In:    reads and writes of memory that stays put until they end.
//! Out:   one completion for each, in any order.
//! Never: retries, continues or interprets: that is the driver's part, the same for every engine.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::EngineKind;
use crate::sync::lock;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// From the file to memory.
    Read,
    /// From memory to the file.
    Write,
}

impl Direction {
    /// For error messages.
    pub fn verb(self) -> &'static str {
        match self {
            Direction::Read => "read",
            Direction::Write => "write",
        }
    }
}

/// One request to the system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    /// Comes back with the completion.
    pub token: u64,
    pub direction: Direction,
    /// Number of the file.
    pub file: usize,
    pub offset: u64,
    pub memory: *mut u8,
    pub len: usize,
    /// Number of the pool's buffer that `memory` points into.
    pub buffer: u32,
}

// SAFETY: `memory` is only followed under the contract of `Engine::start`, which does not depend on the thread.
unsafe impl Send for Op {}

/// The end of one [`Op`].
#[derive(Debug)]
pub(crate) struct Completion {
    pub token: u64,
    /// Bytes moved, or what the system said.
    pub result: io::Result<usize>,
}

/// Moves bytes between memory and files.
pub(crate) trait Engine {
    /// Which one it is.
    fn kind(&self) -> EngineKind;

    /// Takes a request; it begins at the latest in the next `wait`.
    ///
    /// # Safety
    /// `op.memory` must point to `op.len` bytes inside of buffer `op.buffer` of the pool the engine was made with, which nobody else
    /// uses until the completion came or `abandon` declared the request neither stuck nor ended.
    unsafe fn start(&mut self, op: Op);

    /// Begins what was started and waits for a completion, for the waker or for `timeout`; then adds what has completed to `done`.
    ///
    /// # Errors
    /// When the engine works no more. Then only `abandon` may follow.
    fn wait(&mut self, timeout: Duration, done: &mut Vec<Completion>) -> io::Result<()>;

    /// Ends the engine's work: waits a while for what the system has begun, and adds it to `done`. Returns the tokens of requests that
    /// the system still has: their memory must never be used again. All others were not begun.
    fn abandon(&mut self, done: &mut Vec<Completion>) -> Vec<u64>;
}

/// Ends the sleep of an engine's `wait`, from any thread.
#[derive(Debug)]
pub(crate) struct Waker {
    sleeping: AtomicBool,
    raised: Mutex<bool>,
    signal: Condvar,
    #[cfg(target_os = "linux")]
    event: Option<std::os::fd::OwnedFd>,
}

impl Waker {
    /// A waker for either engine.
    pub fn new() -> Waker {
        Waker {
            sleeping: AtomicBool::new(false),
            raised: Mutex::new(false),
            signal: Condvar::new(),
            #[cfg(target_os = "linux")]
            event: event_descriptor(),
        }
    }

    /// Says that the engine is about to sleep. What is added after this call wakes it; what came before must be looked for after it.
    pub fn announce_sleep(&self) {
        self.sleeping.store(true, Ordering::SeqCst);
    }

    /// Says that the engine does not sleep.
    pub fn stay_awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// Wakes the engine if it sleeps or is about to.
    pub fn wake(&self) {
        if !self.sleeping.swap(false, Ordering::SeqCst) {
            return;
        }
        *lock(&self.raised) = true;
        self.signal.notify_one();
        #[cfg(target_os = "linux")]
        if let Some(event) = &self.event {
            use std::os::fd::AsRawFd;
            let one = 1u64.to_ne_bytes();
            // SAFETY: eight readable bytes, as an event descriptor wants. It never blocks; a full counter wakes as well.
            unsafe { libc::write(event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }

    /// Sleeps until woken or `timeout` is over.
    pub fn sleep(&self, timeout: Duration) {
        let raised = lock(&self.raised);
        let woken = self.signal.wait_timeout_while(raised, timeout, |raised| !*raised);
        *woken.unwrap_or_else(PoisonError::into_inner).0 = false;
    }

    /// The descriptor that becomes readable when woken, if there is one.
    #[cfg(target_os = "linux")]
    pub fn descriptor(&self) -> Option<std::os::fd::RawFd> {
        use std::os::fd::AsRawFd;
        self.event.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Makes the descriptor unreadable again.
    #[cfg(target_os = "linux")]
    pub fn clear(&self) {
        if let Some(event) = self.descriptor() {
            let mut count = [0u8; 8];
            // SAFETY: eight writable bytes; the descriptor does not block.
            unsafe { libc::read(event, count.as_mut_ptr().cast(), count.len()) };
        }
        *lock(&self.raised) = false;
    }
}

#[cfg(target_os = "linux")]
fn event_descriptor() -> Option<std::os::fd::OwnedFd> {
    use std::os::fd::{FromRawFd, OwnedFd};
    // SAFETY: creates a descriptor, no memory is involved.
    let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    // SAFETY: a new open descriptor that nobody else owns.
    (event >= 0).then(|| unsafe { OwnedFd::from_raw_fd(event) })
}
