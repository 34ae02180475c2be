//! The order of training: which rows stand in which step, as a function of seed and epoch.
//!
//! In:    a dataset, the plan's data part, rows per step and per micro-batch.
//! Out:   steps of batches; evaluation batches in file order; a cursor that says where training stands.
//! Never: pads, drops a row, or lets rows touch: every row is its own segment.

mod cursor;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use planner::plan::DataPlan;

use crate::cache::{Dataset, Row};
use crate::order::{Order, OrderError, Purpose, WINDOW_ROWS};
use crate::packing::{self, Groups};

pub use cursor::Cursor;

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
    fn push(&mut self, row: Row<'_>) {
        let offset = index(self.tokens.len());
        for &[start, end] in row.trained {
            // A trained range never holds the row's first token, which nothing predicts.
            self.loss_rows.extend(offset + start - 1..offset + end - 1);
            self.targets.extend_from_slice(&row.tokens[start as usize..end as usize]);
        }
        self.tokens.extend_from_slice(row.tokens);
        self.segments.push(index(self.tokens.len()));
    }
}

/// A batch is far below 2^32 tokens: its activations would not fit any machine.
fn index(length: usize) -> u32 {
    u32::try_from(length).expect("a batch has fewer than 2^32 tokens")
}

/// How the rows of a window stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrangement {
    /// Each by itself.
    Plain,
    /// Each by itself, steps of rows of like length.
    LikeLengths,
    /// Several in a packed row of so many tokens.
    Packed(usize),
}

/// Steps whose rows are sorted by length together.
const STEPS_SORTED_TOGETHER: usize = 50;

/// One window of an epoch, arranged.
#[derive(Debug)]
struct Window {
    epoch: u64,
    number: usize,
    units: Units,
}

/// What steps are counted in.
#[derive(Debug)]
enum Units {
    /// Rows.
    Rows(Vec<u32>),
    /// Packed rows.
    Packs(Groups),
}

impl Units {
    fn len(&self) -> usize {
        match self {
            Units::Rows(rows) => rows.len(),
            Units::Packs(groups) => groups.len(),
        }
    }

    fn rows(&self, unit: usize) -> &[u32] {
        match self {
            Units::Rows(rows) => &rows[unit..=unit],
            Units::Packs(groups) => groups.group(unit),
        }
    }
}

/// All training batches of a run, addressed by epoch and step.
///
/// Holds the window last used: at most 2^20 rows, 4 bytes each and 4 for each packed row; the rows themselves stay on disk.
#[derive(Debug)]
pub struct Batches {
    dataset: Arc<Dataset>,
    order: Order,
    arrangement: Arrangement,
    rows_per_step: usize,
    micro_batch: usize,
    /// The window last asked for, since steps are asked for in order.
    current: Mutex<Option<Arc<Window>>>,
    /// Per epoch, the units before each window and at the end.
    counted: Mutex<BTreeMap<u64, Arc<[u64]>>>,
}

impl Batches {
    /// `sources_of_files` gives, for each file index in the rows' places, the index of its source in `data.sources`. `rows_per_step` and
    /// `micro_batch` count packed rows with packing; zero counts as one.
    pub fn new(
        dataset: Arc<Dataset>,
        data: &DataPlan,
        sources_of_files: &[u32],
        rows_per_step: usize,
        micro_batch: usize,
    ) -> Result<Batches, OrderError> {
        Batches::with_window(dataset, data, sources_of_files, [rows_per_step, micro_batch], WINDOW_ROWS)
    }

    /// As [`Batches::new`] with `[rows_per_step, micro_batch]`, in windows of another size.
    fn with_window(
        dataset: Arc<Dataset>,
        data: &DataPlan,
        sources_of_files: &[u32],
        rows: [usize; 2],
        window_rows: usize,
    ) -> Result<Batches, OrderError> {
        let [rows_per_step, micro_batch] = rows.map(|rows| rows.max(1));
        let arrangement = match (data.packing, data.group_by_length) {
            (true, _) => Arrangement::Packed(data.sequence_length),
            (false, true) => Arrangement::LikeLengths,
            (false, false) => Arrangement::Plain,
        };
        let sorted_rows = rows_per_step.saturating_mul(STEPS_SORTED_TOGETHER);
        let window_rows = match arrangement {
            // So that steps that are sorted together lie in one window.
            Arrangement::LikeLengths => (window_rows / sorted_rows).max(1).saturating_mul(sorted_rows),
            _ => window_rows,
        };
        let weights: Vec<f64> = data.sources.iter().map(|source| source.weight).collect();
        let order = Order::new(&dataset, sources_of_files, &weights, data.seed, window_rows)?;
        let (current, counted) = (Mutex::new(None), Mutex::new(BTreeMap::new()));
        Ok(Batches { dataset, order, arrangement, rows_per_step, micro_batch, current, counted })
    }

    /// Steps of an epoch. Without packing it costs nothing; with packing, beyond 2^20 rows, the first question about an epoch packs all
    /// of its windows (under a second a million rows).
    pub fn steps_in_epoch(&self, epoch: u64) -> u64 {
        self.units_before(epoch).last().map_or(0, |units| units.div_ceil(self.rows_per_step as u64))
    }

    /// Step `index` of an epoch; the last may be smaller, one beyond it has no batch.
    pub fn step(&self, epoch: u64, index: u64) -> Step {
        let before = self.units_before(epoch);
        let all = before.last().copied().unwrap_or(0);
        let first = index.saturating_mul(self.rows_per_step as u64).min(all);
        let end = first.saturating_add(self.rows_per_step as u64).min(all);
        let mut builder = StepBuilder { micro_batch: self.micro_batch, step: Step::default(), units: 0 };
        let mut unit = first;
        while unit < end {
            let number = before.partition_point(|begin| *begin <= unit) - 1;
            let window = self.window(epoch, number);
            let in_window = (unit - before[number]) as usize..(end.min(before[number + 1]) - before[number]) as usize;
            unit += in_window.len() as u64;
            in_window.for_each(|unit| builder.push(&self.dataset, window.units.rows(unit)));
        }
        builder.step
    }

    /// Units before each window of an epoch, and all of them.
    fn units_before(&self, epoch: u64) -> Arc<[u64]> {
        // Where every epoch shows the same rows in one window, packing gives the same number, since it goes by lengths.
        let same_as = if self.order.is_constant() { 0 } else { epoch };
        if let Some(counted) = lock(&self.counted).get(&same_as) {
            return counted.clone();
        }
        let mut before = vec![0u64];
        for number in 0..self.order.windows(epoch) {
            let begin = number as u64 * self.order.window_rows() as u64;
            let units = match self.arrangement {
                Arrangement::Packed(_) => self.window(epoch, number).units.len() as u64,
                _ => (self.order.shown(epoch) - begin).min(self.order.window_rows() as u64),
            };
            before.push(before[number] + units);
        }
        let before: Arc<[u64]> = before.into();
        lock(&self.counted).insert(same_as, before.clone());
        before
    }

    fn window(&self, epoch: u64, number: usize) -> Arc<Window> {
        let mut current = lock(&self.current);
        match &*current {
            Some(window) if window.epoch == epoch && window.number == number => window.clone(),
            _ => {
                // The old one goes before the new one comes.
                *current = None;
                let window = Arc::new(Window { epoch, number, units: self.arrange(epoch, number) });
                *current = Some(window.clone());
                window
            }
        }
    }

    fn arrange(&self, epoch: u64, number: usize) -> Units {
        let rows = self.order.window(epoch, number);
        match self.arrangement {
            Arrangement::Plain => Units::Rows(rows),
            Arrangement::LikeLengths => Units::Rows(self.like_lengths(&rows, epoch, number)),
            Arrangement::Packed(pack_length) => {
                let groups = packing::pack(&rows, &self.dataset.lengths(&rows), pack_length);
                drop(rows);
                let mut order: Vec<u32> = (0..groups.len() as u32).collect();
                self.order.random(epoch, Purpose::Groups, number).shuffle(&mut order);
                Units::Packs(groups.arranged(&order))
            }
        }
    }

    /// Sorts the rows of 50 steps by length, cuts them into steps, and shuffles these. Rows that fill no step stay at the end.
    fn like_lengths(&self, rows: &[u32], epoch: u64, number: usize) -> Vec<u32> {
        let mut random = self.order.random(epoch, Purpose::Groups, number);
        let mut rows: Vec<(u32, u32)> = self.dataset.lengths(rows).into_iter().zip(rows.iter().copied()).collect();
        let mut arranged = Vec::with_capacity(rows.len());
        for together in rows.chunks_mut(self.rows_per_step.saturating_mul(STEPS_SORTED_TOGETHER)) {
            let whole = together.len() / self.rows_per_step * self.rows_per_step;
            let (whole, rest) = together.split_at_mut(whole);
            whole.sort_by_key(|(length, _)| *length);
            rest.sort_by_key(|(length, _)| *length);
            let mut steps: Vec<&[(u32, u32)]> = whole.chunks(self.rows_per_step).collect();
            random.shuffle(&mut steps);
            arranged.extend(steps.into_iter().flatten().chain(&*rest).map(|(_, row)| *row));
        }
        arranged
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A step while its rows come in.
struct StepBuilder {
    micro_batch: usize,
    step: Step,
    units: usize,
}

impl StepBuilder {
    /// Appends one unit: a row, or a packed row's rows.
    fn push(&mut self, dataset: &Dataset, rows: &[u32]) {
        if self.units.is_multiple_of(self.micro_batch) {
            self.step.batches.push(Batch::new());
        }
        self.units += 1;
        if let Some(batch) = self.step.batches.last_mut() {
            rows.iter().for_each(|row| batch.push(dataset.row(*row as usize)));
        }
    }
}

/// The first `rows_max` rows (`None`: all) in file order, in batches of at most `tokens_max` tokens unless one row alone is longer.
pub fn evaluation_batches(
    dataset: &Dataset,
    tokens_max: usize,
    rows_max: Option<usize>,
) -> impl Iterator<Item = Batch> + '_ {
    let end = dataset.len().min(rows_max.unwrap_or(usize::MAX));
    let mut next = 0;
    std::iter::from_fn(move || {
        let mut batch = Batch::new();
        while next < end {
            let row = dataset.row(next);
            if batch.segments.len() > 1 && batch.tokens.len() + row.tokens.len() > tokens_max {
                break;
            }
            batch.push(row);
            next += 1;
        }
        (batch.segments.len() > 1).then_some(batch)
    })
}
