//! The order of training: which rows stand in which step, as a function of seed and epoch.
//!
//! In:    a dataset, the plan's data part, rows per step and per micro-batch.
//! Out:   steps of batches; evaluation batches in file order.
//! Never: pads, drops a row, or lets rows touch: every row is its own segment.

use std::sync::{Arc, Mutex, PoisonError};

use planner::plan::DataPlan;

use crate::packing;
use crate::random::Random;
use crate::rows::Dataset;

/// Rows laid end to end for one forward and backward pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Token ids of all rows.
    pub tokens: Vec<u32>,
    /// Bounds of the rows: first 0, last `tokens.len()`. Attention stays inside, positions restart.
    pub segments: Vec<u32>,
    /// Indices whose next token, in the same segment, is trained on.
    pub loss_rows: Vec<u32>,
    /// That next token, one for each of `loss_rows`.
    pub targets: Vec<u32>,
}

/// One optimizer step. Its trained tokens are the sum of `targets.len()` over its batches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// Micro-batches.
    pub batches: Vec<Batch>,
}

impl Step {
    /// Tokens the loss of the step is divided by.
    pub fn trained_tokens(&self) -> usize {
        self.batches.iter().map(|batch| batch.targets.len()).sum()
    }

    /// All tokens.
    pub fn tokens(&self) -> usize {
        self.batches.iter().map(|batch| batch.tokens.len()).sum()
    }
}

impl Batch {
    fn new() -> Batch {
        Batch { segments: vec![0], ..Batch::default() }
    }

    /// Appends a row as a segment of its own.
    fn push(&mut self, tokens: &[u32], trained: &[bool]) {
        let offset = index(self.tokens.len());
        for (place, &target) in tokens.iter().enumerate().skip(1).filter(|(place, _)| trained[*place]) {
            self.loss_rows.push(offset + index(place - 1));
            self.targets.push(target);
        }
        self.tokens.extend_from_slice(tokens);
        self.segments.push(index(self.tokens.len()));
    }
}

/// A batch is far below 2^32 tokens: its activations would not fit any machine.
fn index(length: usize) -> u32 {
    u32::try_from(length).expect("a batch has fewer than 2^32 tokens")
}

/// Rows of an epoch, grouped: each group is a packed row (a single row without packing).
type Groups = Arc<Vec<Vec<u32>>>;

/// All training batches of a run, addressed by epoch and step.
#[derive(Debug)]
pub struct Batches {
    tokens: Vec<u32>,
    trained: Vec<bool>,
    bounds: Vec<usize>,
    seed: u64,
    packed_length: Option<usize>,
    rows_per_step: usize,
    micro_batch: usize,
    /// The epoch last asked for, since steps are asked for in order.
    current: Mutex<Option<(u64, Groups)>>,
}

/// Random streams of one epoch: row order, and order of packed rows.
const STREAMS: u64 = 2;

impl Batches {
    /// Copies the rows of `dataset`. `rows_per_step` and `micro_batch` count packed rows with packing; zero counts as one.
    pub fn new(dataset: &Dataset, data: &DataPlan, rows_per_step: usize, micro_batch: usize) -> Batches {
        let mut bounds = vec![0];
        let mut tokens = Vec::with_capacity(dataset.report.tokens);
        let mut trained = Vec::with_capacity(dataset.report.tokens);
        for row in &dataset.rows {
            tokens.extend_from_slice(&row.tokens);
            trained.extend_from_slice(&row.trained);
            bounds.push(tokens.len());
        }
        Batches {
            tokens,
            trained,
            bounds,
            seed: data.seed,
            packed_length: data.packing.then_some(data.sequence_length),
            rows_per_step: rows_per_step.max(1),
            micro_batch: micro_batch.max(1),
            current: Mutex::new(None),
        }
    }

    /// Steps of an epoch; the same for every epoch, since packing goes by lengths.
    pub fn steps_in_epoch(&self, epoch: u64) -> u64 {
        self.groups(epoch).len().div_ceil(self.rows_per_step) as u64
    }

    /// Step `index` of an epoch; the last may be smaller, one beyond it has no batch.
    pub fn step(&self, epoch: u64, index: u64) -> Step {
        let groups = self.groups(epoch);
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(of_step) = groups.chunks(self.rows_per_step).nth(index) else {
            return Step::default();
        };
        Step { batches: of_step.chunks(self.micro_batch).map(|groups| self.batch(groups)).collect() }
    }

    fn batch(&self, groups: &[Vec<u32>]) -> Batch {
        let mut batch = Batch::new();
        for &row in groups.iter().flatten() {
            let range = self.bounds[row as usize]..self.bounds[row as usize + 1];
            batch.push(&self.tokens[range.clone()], &self.trained[range]);
        }
        batch
    }

    fn groups(&self, epoch: u64) -> Groups {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some((of, groups)) if *of == epoch => groups.clone(),
            _ => {
                let groups = Arc::new(self.arrange(epoch));
                *current = Some((epoch, groups.clone()));
                groups
            }
        }
    }

    fn arrange(&self, epoch: u64) -> Vec<Vec<u32>> {
        let mut order: Vec<u32> = (0..index(self.bounds.len() - 1)).collect();
        Random::new(self.seed, epoch.wrapping_mul(STREAMS)).shuffle(&mut order);
        let Some(length) = self.packed_length else {
            return order.into_iter().map(|row| vec![row]).collect();
        };
        let row_length = |row: u32| self.bounds[row as usize + 1] - self.bounds[row as usize];
        let mut groups = packing::best_fit(order, row_length, length);
        Random::new(self.seed, epoch.wrapping_mul(STREAMS).wrapping_add(1)).shuffle(&mut groups);
        groups
    }
}

/// Batches in file order, each of at most `tokens_max` tokens unless one row alone is longer.
pub fn evaluation_batches(dataset: &Dataset, tokens_max: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for row in &dataset.rows {
        match batches.last_mut() {
            Some(batch) if batch.tokens.len() + row.tokens.len() <= tokens_max => batch.push(&row.tokens, &row.trained),
            _ => {
                let mut batch = Batch::new();
                batch.push(&row.tokens, &row.trained);
                batches.push(batch);
            }
        }
    }
    batches
}
