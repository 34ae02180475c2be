//! Which rows an epoch shows, and in which order.
//!
//! In:    the rows' sources, the sources' weights, a seed.
//! Out:   for an epoch, windows of row numbers.
//! Never: holds more than one window; depends on anything but rows, weights, seed and epoch.
//!
//! A source of n rows and weight w goes round and round in a fixed random order of its rows: epoch e shows the places from
//! floor(e·w·n) to floor((e+1)·w·n). So weight 2 shows every row twice, 0.25 a quarter, the next quarter in the next epoch, and 1.5
//! every row once and a half of them twice. What an epoch shows is shuffled: up to a window of 2^20 rows as one list, beyond that by a
//! permutation that is computed place by place.

use crate::cache::Dataset;
use crate::random::{Permutation, Random};

/// Rows of a window: 4 MB of row numbers, and 24 MB more while they are packed.
pub(crate) const WINDOW_ROWS: usize = 1 << 20;

/// Weights are counted in units of 2^-32.
const WEIGHT_BITS: u32 = 32;

/// Streams of random numbers of one epoch.
const STREAMS: u64 = 2;

/// What a stream decides.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// Order of rows.
    Rows = 0,
    /// Order of packed rows, or of steps.
    Groups = 1,
}

/// Why no order exists.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// A row's file belongs to no source.
    #[error("prepared rows name file {file}, but only {files} files have a source: prepare the data again")]
    UnknownFile {
        /// Its index.
        file: u32,
        /// Files that are known.
        files: usize,
    },
    /// A file's source has no weight, or one that cannot be.
    #[error("source {source_index} has weight {weight}: expected > 0 and at most 1000 (data.sources.weight)")]
    Weight {
        /// Index of the source, from 0.
        source_index: u32,
        /// What was found; NaN where there is none.
        weight: f64,
    },
    /// The weights leave less than a row an epoch.
    #[error("the weights show {shown:.3} of {rows} rows an epoch: raise data.sources.weight")]
    NothingShown {
        /// Rows an epoch, on average.
        shown: f64,
        /// Rows there are.
        rows: usize,
    },
}

/// Rows of one source that stand together.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Number of the first among the source's rows.
    first: u64,
    /// Its row number.
    row: u64,
}

/// Rows of one source.
#[derive(Debug)]
struct Source {
    rows: u64,
    weight: f64,
    /// In order; mostly one.
    runs: Vec<Run>,
    /// The fixed order in which it goes round.
    round: Permutation,
}

impl Source {
    /// Rows shown before `epoch`.
    fn shown_before(&self, epoch: u64) -> u128 {
        let weight = (self.weight * (1u64 << WEIGHT_BITS) as f64).round() as u128;
        (u128::from(epoch) * u128::from(self.rows)).saturating_mul(weight) >> WEIGHT_BITS
    }

    /// The row at `place` of the endless round.
    fn row(&self, place: u128) -> u32 {
        let place = (place % u128::from(self.rows.max(1))) as u64;
        // With whole weights every epoch shows whole rounds; their order would be shuffled away.
        let number = if self.weight.fract() == 0.0 { place } else { self.round.at(place) };
        let run = self.runs[self.runs.partition_point(|run| run.first <= number) - 1];
        (run.row + (number - run.first)) as u32
    }
}

/// The order of all epochs. Takes 16 bytes for every stretch of rows of one source, whatever the number of rows.
#[derive(Debug)]
pub(crate) struct Order {
    rows: u64,
    seed: u64,
    window_rows: usize,
    /// `None` where every weight is 1 and rows stand for themselves.
    sources: Option<Vec<Source>>,
}

impl Order {
    /// `sources_of_files` gives the source of each file index in the rows' places, `weights` the weight of each source.
    pub(crate) fn new(
        dataset: &Dataset,
        sources_of_files: &[u32],
        weights: &[f64],
        seed: u64,
        window_rows: usize,
    ) -> Result<Order, OrderError> {
        let rows = dataset.len() as u64;
        let mut sources = Vec::with_capacity(weights.len());
        for (index, &weight) in (0u32..).zip(weights) {
            if !(weight > 0.0 && weight <= 1000.0) {
                return Err(OrderError::Weight { source_index: index, weight });
            }
            let round = Permutation::new(0, Random::new(seed, 0));
            sources.push(Source { rows: 0, weight, runs: Vec::new(), round });
        }
        let mut current = None;
        for row in 0..dataset.len() {
            let file = dataset.place(row).file;
            let files = sources_of_files.len();
            let &index = sources_of_files.get(file as usize).ok_or(OrderError::UnknownFile { file, files })?;
            let none = OrderError::Weight { source_index: index, weight: f64::NAN };
            let source = sources.get_mut(index as usize).ok_or(none)?;
            if current.replace(index) != Some(index) {
                source.runs.push(Run { first: source.rows, row: row as u64 });
            }
            source.rows += 1;
        }
        let shown: f64 = sources.iter().map(|source| source.weight * source.rows as f64).sum();
        if rows > 0 && shown < 1.0 {
            return Err(OrderError::NothingShown { shown, rows: dataset.len() });
        }
        for (index, source) in (0u64..).zip(&mut sources) {
            // A stream far from those of epochs.
            source.round = Permutation::new(source.rows, Random::new(seed, u64::MAX - index));
        }
        let sources = weights.iter().any(|weight| *weight != 1.0).then_some(sources);
        Ok(Order { rows, seed, window_rows: window_rows.max(1), sources })
    }

    /// Rows that `epoch` shows, repeated ones counted each time.
    pub(crate) fn shown(&self, epoch: u64) -> u64 {
        let Some(sources) = &self.sources else { return self.rows };
        let of = |source: &Source| source.shown_before(epoch.saturating_add(1)) - source.shown_before(epoch);
        sources.iter().map(|source| of(source) as u64).sum()
    }

    /// Whether every epoch shows the same rows in one window.
    pub(crate) fn is_constant(&self) -> bool {
        self.sources.is_none() && self.rows <= self.window_rows as u64
    }

    /// Windows of `epoch`.
    pub(crate) fn windows(&self, epoch: u64) -> usize {
        self.shown(epoch).div_ceil(self.window_rows as u64) as usize
    }

    /// Rows of each window of `epoch` but the last, which may have fewer.
    pub(crate) fn window_rows(&self) -> usize {
        self.window_rows
    }

    /// The rows of a window, in order.
    pub(crate) fn window(&self, epoch: u64, window: usize) -> Vec<u32> {
        let shown = self.shown(epoch);
        let start = shown.min(window as u64 * self.window_rows as u64);
        let end = shown.min(start + self.window_rows as u64);
        let row_at = self.rows_of(epoch);
        let random = self.random(epoch, Purpose::Rows, 0);
        if shown <= self.window_rows as u64 {
            let mut rows: Vec<u32> = (start..end).map(row_at).collect();
            let mut random = random;
            random.shuffle(&mut rows);
            return rows;
        }
        let order = Permutation::new(shown, random);
        (start..end).map(|place| row_at(order.at(place))).collect()
    }

    /// The random numbers of a window.
    pub(crate) fn random(&self, epoch: u64, purpose: Purpose, window: usize) -> Random {
        let mut random = Random::new(self.seed, epoch.wrapping_mul(STREAMS).wrapping_add(purpose as u64));
        match window {
            0 => random,
            window => Random::new(random.next(), window as u64),
        }
    }

    /// From the places of an epoch before shuffling (source after source) to rows.
    fn rows_of(&self, epoch: u64) -> impl Fn(u64) -> u32 + '_ {
        let mut begins = Vec::new();
        let mut begin = 0u64;
        for source in self.sources.iter().flatten() {
            let before = source.shown_before(epoch);
            begins.push((begin, before, source));
            begin += (source.shown_before(epoch.saturating_add(1)) - before) as u64;
        }
        move |place| match begins.partition_point(|(begin, ..)| *begin <= place) {
            0 => place as u32,
            after => {
                let (begin, before, source) = &begins[after - 1];
                source.row(before + u128::from(place - begin))
            }
        }
    }
}
