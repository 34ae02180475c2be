//! Time that compute spent waiting for bytes, by cause.
//!
//! In:    waits, timed where they happen.
//! Out:   milliseconds per cause since the last reading.
//! Never: counts a wait twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

/// What compute can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A block's weights.
    Weights,
    /// A block's kept input.
    Activations,
    /// A place for gradients that have appeared.
    Gradients,
    /// The optimizer at the end of a step.
    Optimizer,
}

/// Counters of one run, shared between threads. Nanoseconds.
#[derive(Debug, Default)]
pub struct Stalls {
    causes: [AtomicU64; 4],
}

/// Waiting of one step, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct StallReport {
    /// For weights.
    pub weights_ms: f64,
    /// For kept block inputs.
    pub activations_ms: f64,
    /// For gradients to find a place.
    pub gradients_ms: f64,
    /// For the optimizer.
    pub optimizer_ms: f64,
}

impl StallReport {
    /// All causes together, milliseconds.
    pub fn total_ms(&self) -> f64 {
        self.weights_ms + self.activations_ms + self.gradients_ms + self.optimizer_ms
    }
}

impl Stalls {
    /// Runs `wait` and counts its time.
    pub fn time<T>(&self, cause: Cause, wait: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = wait();
        self.causes[cause as usize].fetch_add(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }

    /// The counters since the last call.
    pub fn take(&self) -> StallReport {
        let [weights_ms, activations_ms, gradients_ms, optimizer_ms] =
            self.causes.each_ref().map(|cause| cause.swap(0, Ordering::Relaxed) as f64 / 1e6);
        StallReport { weights_ms, activations_ms, gradients_ms, optimizer_ms }
    }
}
