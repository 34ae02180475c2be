//! The promise of a transfer's end.
//!
//! In:    what the I/O thread says.
//! Out:   the buffer, with its bytes checked, or a typed error.
//! Never: leaves a caller waiting when the I/O thread is gone.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::checksum::checksum;
use super::extent::{ExtentShared, Slot};
use super::inbox::Inbox;
use crate::buffer::Buffer;
use crate::error::TierError;

/// What the I/O thread answers.
pub(crate) type Reply = Result<Buffer, TierError>;

/// A transfer under way. Dropped unwaited, its buffer still returns to the pool, and an error is lost (a failed write shows as a
/// checksum error when the chunk is read).
#[derive(Debug)]
#[must_use = "errors are told by `wait` only"]
pub struct Ticket {
    pub(crate) state: State,
}

#[derive(Debug)]
pub(crate) enum State {
    /// Known at once, without the I/O thread.
    Ready(Box<Reply>),
    Pending(Pending),
}

#[derive(Debug)]
pub(crate) struct Pending {
    pub receiver: Receiver<Reply>,
    pub place: Place,
    /// What the bytes must hash to; `None` for writes, and for reads that are not verified.
    pub expected: Option<u64>,
    pub inbox: Arc<Inbox>,
    /// How long the I/O thread may show no sign of life.
    pub patience: Duration,
}

/// Names a chunk in errors.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub extent: Arc<ExtentShared>,
    pub chunk: usize,
    pub path: PathBuf,
}

impl Ticket {
    pub(crate) fn ready(reply: Reply) -> Ticket {
        Ticket { state: State::Ready(Box::new(reply)) }
    }

    /// Waits for the end. A read's bytes are compared with the checksum of what was written, on this thread.
    ///
    /// # Errors
    /// What happened to the transfer; [`TierError::Checksum`] if other bytes came back than were written. The buffer returns to its pool.
    pub fn wait(self) -> Result<Buffer, TierError> {
        let pending = match self.state {
            State::Ready(reply) => return *reply,
            State::Pending(pending) => pending,
        };
        let buffer = pending.receive()?;
        match pending.expected {
            Some(expected) => pending.place.verified(buffer, expected),
            None => Ok(buffer),
        }
    }
}

impl Pending {
    fn receive(&self) -> Reply {
        loop {
            match self.receiver.recv_timeout(self.patience) {
                Ok(reply) => return reply,
                Err(RecvTimeoutError::Disconnected) => return Err(self.place.engine_lost("the I/O thread ended")),
                // The I/O thread has a watchdog of its own; this is for the case that it hangs in the system itself.
                Err(RecvTimeoutError::Timeout) => {
                    let silence = self.inbox.silence();
                    if silence > self.patience * 2 {
                        return Err(self.place.stalled(silence.as_secs_f64()));
                    }
                }
            }
        }
    }
}

impl Place {
    /// Where the chunk lies.
    pub fn slot(&self) -> Slot {
        self.extent.slot(self.chunk)
    }

    /// The error for a transfer that nobody will end.
    pub fn engine_lost(&self, reason: &str) -> TierError {
        let (path, tensor) = (self.path.clone(), self.extent.tensor.clone());
        TierError::EngineLost { path, offset: self.slot().offset, tensor, reason: reason.to_owned() }
    }

    /// The error for a transfer that did not end in time.
    pub fn stalled(&self, seconds: f64) -> TierError {
        let (path, tensor) = (self.path.clone(), self.extent.tensor.clone());
        TierError::Stalled { path, offset: self.slot().offset, tensor, seconds }
    }

    fn verified(&self, buffer: Buffer, expected: u64) -> Reply {
        let found = checksum(self.extent.id, self.chunk, &buffer[..self.extent.chunk_len(self.chunk)]);
        if found == expected {
            return Ok(buffer);
        }
        let (path, tensor) = (self.path.clone(), self.extent.tensor.clone());
        Err(TierError::Checksum { path, offset: self.slot().offset, tensor, expected, found })
    }
}
