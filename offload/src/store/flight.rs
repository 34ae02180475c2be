//! A request on its way, and how it ends.
//!
//! In:    a request; what the system says.
//! Out:   the answer to its caller, with file, offset and tensor in every error.
//! Never: decides what to do next: that is the driver's part.

use std::io::{self, ErrorKind};

use super::EngineKind;
use super::choice::EngineParts;
use super::engine::{Completion, Direction};
use super::extent::Slot;
use super::files::is_full;
use super::inbox::Request;
use crate::error::TierError;

/// A request on its way.
pub(super) struct Flight {
    pub request: Request,
    pub slot: Slot,
    /// Bytes that are through.
    pub done: usize,
    /// Tries since the last progress.
    pub tries: u32,
    /// The watchdog has answered; only the buffer is still held.
    pub given_up: bool,
}

impl Request {
    /// Gives the buffer back.
    pub(super) fn answer(self) {
        // Before the caller knows: once it does, it may drop the extent and expect its place back.
        drop(self.place);
        // An error means that nobody waits; the buffer in it returns to its pool.
        let _ = self.reply.send(Ok(self.buffer));
    }

    /// Answers with an error; the buffer returns to its pool.
    pub(super) fn refuse(self, error: TierError) {
        drop((self.buffer, self.place));
        let _ = self.reply.send(Err(error));
    }

    /// Answers that the disk hangs.
    pub(super) fn refuse_stalled(self, seconds: f64) {
        let error = self.place.stalled(seconds);
        self.refuse(error);
    }
}

impl Flight {
    /// The error for what the system said.
    pub fn failed(&self, source: io::Error, parts: &EngineParts) -> TierError {
        let (file, tensor) = (&parts.layout.files[self.slot.path], &self.request.place.extent.tensor);
        if is_full(&source) {
            return file.no_space(tensor, (self.slot.len - self.done) as u64);
        }
        file.failed(self.request.direction.verb(), tensor, self.slot.offset + self.done as u64, source)
    }

    /// The error for a transfer that moved nothing.
    pub fn ended(&self, parts: &EngineParts) -> TierError {
        if self.request.direction == Direction::Write {
            return self.failed(ErrorKind::WriteZero.into(), parts);
        }
        TierError::ShortFile {
            path: parts.layout.files[self.slot.path].path.clone(),
            end: self.slot.offset + self.done as u64,
            tensor: self.request.place.extent.tensor.clone(),
            missing_bytes: (self.slot.len - self.done) as u64,
        }
    }
}

/// Whether a completion says that io_uring itself does not work, rather than the disk.
pub(super) fn refusal(completion: &Completion, kind: EngineKind) -> Option<io::Error> {
    let code = completion.result.as_ref().err()?.raw_os_error()?;
    let refuses = matches!(code, libc::EPERM | libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP);
    (refuses && kind == EngineKind::IoUring).then(|| io::Error::from_raw_os_error(code))
}
