//! Lets a state be written while training goes on: an update waits only for a group that is not written yet.
//!
//! In:    which groups a save still needs; who is about to change one.
//! Out:   every group on the disk is that of the step between two updates; how long updates waited.
//! Never: copies. The passes of the next step change no parameter, so the groups are read where they are, in the order in which updates
//!        will want them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The gate of a run's groups; open unless a save is under way.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Groups that are still to be written; empty when no save is under way.
    wanted: Vec<bool>,
    waited: Duration,
}

/// A save that is under way; dropping it opens the gate, whatever became of the save.
pub(crate) struct Closed<'a>(&'a Gate);

impl Gate {
    /// Before a save begins: no group may be changed until it is written.
    pub(crate) fn close(&self, groups: usize) {
        let mut state = self.state();
        state.wanted = vec![true; groups];
        state.waited = Duration::ZERO;
    }

    /// Takes charge of a closed gate.
    pub(crate) fn closed(&self) -> Closed<'_> {
        Closed(self)
    }

    /// Waits until group `number` may be changed.
    pub(crate) fn pass(&self, number: usize) {
        let wanted = |state: &mut State| state.wanted.get(number).copied().unwrap_or(false);
        let mut state = self.state();
        if !wanted(&mut state) {
            return;
        }
        let begun = Instant::now();
        let mut state = self.written.wait_while(state, wanted).unwrap_or_else(PoisonError::into_inner);
        state.waited += begun.elapsed();
    }

    /// Group `number` has been read for the last time.
    pub(crate) fn written(&self, number: usize) {
        if let Some(wanted) = self.state().wanted.get_mut(number) {
            *wanted = false;
        }
        self.written.notify_all();
    }

    /// How long updates have waited since the gate was closed.
    pub(crate) fn waited(&self) -> Duration {
        self.state().waited
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.state().wanted.clear();
        self.0.written.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A save during which an update comes; how long the update waited, nothing if its thread came late.
    fn waited(gate: &Gate) -> Duration {
        gate.close(2);
        let written = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let update = scope.spawn(|| {
                gate.pass(1);
                assert!(written.load(Ordering::SeqCst), "changed before it was written");
            });
            gate.written(0);
            gate.pass(0);
            std::thread::sleep(Duration::from_millis(5));
            written.store(true, Ordering::SeqCst);
            gate.written(1);
            update.join().unwrap();
        });
        gate.waited()
    }

    #[test]
    fn an_update_waits_for_its_own_group_and_for_no_other() {
        let gate = Gate::default();
        gate.pass(1);
        assert!((0..100).any(|_| waited(&gate) >= Duration::from_millis(1)));
    }

    #[test]
    fn a_save_that_fails_lets_every_update_through() {
        let gate = Gate::default();
        gate.close(3);
        let closed = gate.closed();
        std::thread::scope(|scope| {
            let update = scope.spawn(|| gate.pass(2));
            drop(closed);
            update.join().unwrap();
        });
        gate.pass(0);
    }
}
