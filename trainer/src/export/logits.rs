//! Logits of a fixed prompt: what was trained against what was written.
//!
//! In:    two networks opened in f32, one after the other.
//! Out:   a [`LogitsReport`]; or the difference that rounding does not explain.
//! Never: both networks in memory at once.

use std::path::PathBuf;

use checkpoints::gguf::{BlockType, Mix};
use checkpoints::stream::Format;
use checkpoints::weights::Weights;
use planner::Machine;
use planner::inference::{InferencePlan, Request, plan};
use planner::memory::Work;
use planner::plan::{BaseStorage, DeviceChoice, Precision};
use serde::Serialize;

use super::ExportError;
use crate::network::{Network, Tuned};

/// How far logits may be apart, as a share of the trained model's.
///
/// Products of a few thousand terms in f32 err by some 1e-6 of their size, summed in another order where the adapter is merged. A weight in
/// f16 errs by up to 2^-12 of itself, in bf16 by up to 2^-9; errors are independent, so logits err by about as much and not by their number.
/// There the largest difference counts. Blocks of 8 bits and less err by percents, and one logit of a small network may be anywhere: there the root
/// mean square counts. Measured on the fixtures and on SmolLM2-135M: docs/export.md.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// The same numbers through the same arithmetic: not one bit differs.
    SameBits,
    /// Weights were rounded to this format.
    Rounded(Format),
    /// Weights were stored in this mix of GGUF formats.
    Mixed(Mix),
    /// The adapter's factors were rounded to this format.
    Factors(BlockType),
}

/// Which difference is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Of any logit, against the largest logit.
    Largest,
    /// Root mean square of all, against that of the logits.
    RootMeanSquare,
}

impl Bound {
    fn share(self) -> (Measure, f64) {
        match self {
            Bound::SameBits => (Measure::Largest, 0.0),
            Bound::Rounded(Format::F32) | Bound::Mixed(Mix::F32) | Bound::Factors(BlockType::F32) => {
                (Measure::Largest, 1e-4)
            }
            Bound::Rounded(Format::F16) | Bound::Mixed(Mix::F16) | Bound::Factors(BlockType::F16) => {
                (Measure::Largest, 1e-2)
            }
            Bound::Rounded(_) | Bound::Mixed(Mix::BF16) | Bound::Factors(_) => (Measure::Largest, 5e-2),
            Bound::Mixed(Mix::Q8_0) => (Measure::RootMeanSquare, 0.1),
            Bound::Mixed(Mix::Q6_K) => (Measure::RootMeanSquare, 0.2),
            Bound::Mixed(Mix::Q4_0 | Mix::Q4_K_S | Mix::Q4_K_M) => (Measure::RootMeanSquare, 0.7),
        }
    }
}

/// What the comparison of logits found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LogitsReport {
    /// Tokens of the prompt.
    pub positions: usize,
    /// Of any logit after any of them.
    pub largest_difference: f64,
    /// Root mean square of all differences.
    pub root_mean_square_difference: f64,
    /// Which of the two is bounded.
    pub measure: Measure,
    /// What it may be.
    pub bound: f64,
    /// Largest logit of the trained model, without its sign.
    pub largest_logit: f64,
    /// Positions after which both prefer the same token.
    pub same_next_token: usize,
}

impl LogitsReport {
    /// The difference that is bounded.
    pub fn bounded(&self) -> f64 {
        match self.measure {
            Measure::Largest => self.largest_difference,
            Measure::RootMeanSquare => self.root_mean_square_difference,
        }
    }
}

/// Where networks run for the comparison.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// This machine.
    pub machine: Machine,
    /// Holds weights that memory does not.
    pub disk: PathBuf,
}

/// A row of the vocabulary for each token of the prompt.
pub(super) type Logits = Vec<Vec<f32>>;

impl Workshop {
    /// Logits of a network in f32 on the processor, whatever it was trained in and on.
    pub(super) fn logits(&self, weights: &Weights, tuned: &Tuned, prompt: &[u32]) -> Result<Logits, ExportError> {
        let plan = self.plan(weights, tuned, prompt.len() as u64)?;
        Ok(Network::open(weights, tuned, &plan)?.logits(prompt)?)
    }

    fn plan(&self, weights: &Weights, tuned: &Tuned, tokens: u64) -> Result<InferencePlan, ExportError> {
        let adapter_numbers = match tuned {
            Tuned::Adapter(adapter) => {
                adapter.pairs.values().map(|pair| (pair.a.data.len() + pair.b.data.len()) as u64).sum()
            }
            _ => 0,
        };
        let work = Work { rows: tokens, read_tokens: tokens, adapter_numbers, ..Work::default() };
        let request = Request {
            name: "export".to_string(),
            spec: weights.spec(),
            precision: Precision::F32,
            base: BaseStorage::Dense,
            device: DeviceChoice::Cpu,
            work,
            memory_bytes: None,
            nvme: vec![self.disk.clone()],
        };
        Ok(plan(&request, &self.machine)?)
    }
}

/// Compares, or says by how much too far they are apart.
pub(super) fn compare(trained: &Logits, written: &Logits, bound: Bound) -> Result<LogitsReport, ExportError> {
    let (mut difference, mut size, mut same_next_token) = (Spread::default(), Spread::default(), 0);
    for (ours, theirs) in trained.iter().zip(written) {
        for (&ours, &theirs) in ours.iter().zip(theirs) {
            difference.add(ours - theirs);
            size.add(ours);
        }
        same_next_token += usize::from(highest(ours) == highest(theirs));
    }
    let (measure, share) = bound.share();
    let size_of = match measure {
        Measure::Largest => size.largest,
        Measure::RootMeanSquare => size.root_mean_square(),
    };
    let report = LogitsReport {
        positions: trained.len(),
        largest_difference: difference.largest,
        root_mean_square_difference: difference.root_mean_square(),
        measure,
        bound: share * size_of,
        largest_logit: size.largest,
        same_next_token,
    };
    let same_shape = trained.len() == written.len() && trained.iter().zip(written).all(|(a, b)| a.len() == b.len());
    match same_shape && report.bounded() <= report.bound {
        true => Ok(report),
        false => Err(ExportError::LogitsDiffer { difference: report.bounded(), bound: report.bound }),
    }
}

/// The size of many numbers.
#[derive(Debug, Default)]
struct Spread {
    largest: f64,
    squares: f64,
    count: u64,
}

impl Spread {
    fn add(&mut self, value: f32) {
        // What is no number is further away than any number.
        let size = if value.is_finite() { f64::from(value).abs() } else { f64::INFINITY };
        self.largest = self.largest.max(size);
        self.squares += size * size;
        self.count += 1;
    }

    fn root_mean_square(&self) -> f64 {
        (self.squares / self.count.max(1) as f64).sqrt()
    }
}

fn highest(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_difference_beyond_the_bound_or_no_number_at_all_is_refused() {
        let ours = vec![vec![1.0, -8.0], vec![0.5, 0.25]];
        let report = compare(&ours, &ours, Bound::SameBits).unwrap();
        assert_eq!((report.largest_difference, report.largest_logit, report.same_next_token), (0.0, 8.0, 2));
        let near = vec![vec![1.0005, -8.0], vec![0.5, 0.25]];
        assert!(compare(&ours, &near, Bound::Rounded(Format::F32)).is_ok(), "8e-4 is the bound");
        let far = vec![vec![1.001, -8.0], vec![0.5, 0.25]];
        assert!(matches!(
            compare(&ours, &far, Bound::Rounded(Format::F32)),
            Err(ExportError::LogitsDiffer { bound, .. }) if (bound - 8e-4).abs() < 1e-9
        ));
        let broken = vec![vec![1.0, f32::NAN], vec![0.5, 0.25]];
        assert!(compare(&ours, &broken, Bound::Rounded(Format::Bf16)).is_err());
        assert!(compare(&ours, &vec![vec![1.0, -8.0]], Bound::Rounded(Format::Bf16)).is_err(), "a row is missing");
    }

    #[test]
    fn of_quantised_weights_the_root_mean_square_counts_and_one_logit_may_stray() {
        let ours = vec![vec![2.0f32; 64]];
        let mut theirs = ours.clone();
        theirs[0][5] = 5.0;
        let report = compare(&ours, &theirs, Bound::Mixed(Mix::Q4_0)).unwrap();
        assert_eq!((report.largest_difference, report.root_mean_square_difference), (3.0, 0.375));
        assert!(compare(&ours, &theirs, Bound::Mixed(Mix::Q8_0)).is_err(), "0.2 is the bound there");
        theirs[0][7] = f32::INFINITY;
        assert!(compare(&ours, &theirs, Bound::Mixed(Mix::Q4_0)).is_err());
    }
}
