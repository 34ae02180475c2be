//! Locks that outlive a panic elsewhere.
//!
//! In:    a mutex.
//! Out:   its guard.
//! Never: spreads one thread's panic to the others: what is guarded here is valid after every single statement.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, poisoned or not.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remarks for people, collected until somebody takes them.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<Vec<String>>);

impl Notes {
    /// Adds a remark.
    pub fn add(&self, note: String) {
        lock(&self.0).push(note);
    }

    /// All remarks since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.0))
    }
}
