//! What this machine sustains, measured or kept from earlier.
//!
//! In:    this machine.
//! Out:   [`Rates`].
//! Never: a stand-in is used for long: this one measures host memory only.

use std::time::Duration;

use offload::array::Place;
use offload::bench_adam::{AdamOptions, TRIAD_ELEMENTS, bench_adam};
use offload::rules::{Rule, Sgd};
use offload::store::EngineChoice;
use planner::rates::Rates;

use crate::failure::{Failure, OrFail};

/// Measures.
pub fn measure(tell: &mut dyn FnMut(&str), _seconds: Duration) -> Result<Rates, Failure> {
    tell("rates: host memory");
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let report = bench_adam(&AdamOptions {
        place: Place::Dram,
        elements: 1 << 20,
        steps: 3,
        rule: Rule::Sgd(Sgd { momentum: 0.9, weight_decay: 0.0 }),
        working: false,
        span_elements: 1 << 20,
        paths: Vec::new(),
        engine: EngineChoice::Auto,
        triad_elements: TRIAD_ELEMENTS,
    })
    .or_run()?;
    Ok(Rates { dram_bytes_per_second: report.triad_bytes_per_second, ..Rates::usual(cores) })
}

/// What was measured earlier.
pub fn known() -> Option<Rates> {
    None
}

/// Keeps what was measured.
pub fn remember(_rates: &Rates) -> Result<(), Failure> {
    Ok(())
}
