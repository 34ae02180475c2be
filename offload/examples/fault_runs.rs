//! Makes many seeded runs over the NVMe tier with faults below it: `fault_runs --runs 10000 --seed 1`.
//!
//! In:    the number of runs and the first seed.
//! Out:   one line of counts; exit code 1 at the first broken promise.
//! Never: needs anything but a temporary directory.

#[path = "../tests/fault_model/mod.rs"]
mod fault_model;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use fault_model::{Ending, run_many};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((runs, seed)) = parse(&arguments) else {
        eprintln!("usage: fault_runs [--runs N] [--seed N]");
        return ExitCode::from(2);
    };
    let started = Instant::now();
    let (mut correct, mut replaced) = (0u64, 0u64);
    let mut refused: BTreeMap<&str, u64> = BTreeMap::new();
    // Runs wait for the disk most of the time.
    let workers = std::thread::available_parallelism().map_or(8, |cores| 4 * cores.get() as u64);
    let result = run_many(seed, runs, workers, |_, ending| match ending {
        Ending::Correct { engine_replaced } => {
            correct += 1;
            replaced += u64::from(engine_replaced);
        }
        Ending::Refused(variant) => *refused.entry(variant).or_default() += 1,
    });
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{runs} runs from seed {seed} in {seconds:.1} s: {correct} correct ({replaced} after losing io_uring), refused {refused:?}"
    );
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(broken) => {
            eprintln!("{broken}");
            ExitCode::FAILURE
        }
    }
}

/// Number of runs and first seed.
fn parse(arguments: &[String]) -> Option<(u64, u64)> {
    let (mut runs, mut seed) = (10_000, 1);
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--runs" => runs = value.parse().ok()?,
            [name, value] if name == "--seed" => seed = value.parse().ok()?,
            _ => return None,
        }
    }
    Some((runs, seed))
}
