//! Rows that repeat an earlier row, exactly or nearly.
//!
//! In:    fingerprints of all rows, in order; a folder for what does not fit in memory.
//! Out:   [`Repeats`]: two bits a row, counts, first examples.
//! Never: depends on the number of threads or on the memory limit; compares all rows with all.
//!
//! Exact: the first of equal rows stays. Equal are 88 of the fingerprint's 128 bits, the other 40 of a sorted number are the
//! row: among a thousand million rows, one pair is equal by chance with a probability of 2e-9.
//! Near: rows that share a band's key meet, band by band, in order of rows. A row goes if it is at least as similar as the
//! threshold to an earlier row of those it meets that has not gone yet; it meets the first [`MEETINGS`] of them and the last.
//! So whoever goes has a similar earlier row. That one may go later, through another band: of a chain A, B, C in which only
//! neighbours are alike, A always stays, B goes, and C goes only if it met B first.

use std::collections::VecDeque;
use std::path::Path;

use super::bands::{Bands, KEY_BITS};
use super::fingerprint::Sketch;
use super::scratch::{Sketches, Sorted, Sorter};
use super::{CleanError, Fingerprint, Similarity};

/// Bits of a row's number.
const ROW_BITS: u32 = 40;
const ROW_MASK: u128 = (1 << ROW_BITS) - 1;
/// Of the rows that share a key, so many first and so many last ones are compared with: a template that fills a band for a
/// million rows costs each of them 16 comparisons, not a million.
const MEETINGS: usize = 8;

/// Which repeats are searched for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Search {
    /// Equal texts.
    Exact,
    /// Also texts at least so similar.
    Near(Similarity),
}

/// What the search may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Memory, bytes; two bits a row come on top.
    pub(crate) memory_bytes: usize,
    /// Examples of each kind.
    pub(crate) examples: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory_bytes: 128 << 20, examples: 10 }
    }
}

/// How a row is like an earlier one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Likeness {
    /// The same text, white space aside.
    Exact,
    /// A text with this estimated similarity, 0 to 1.
    Near(f64),
}

/// A row that repeats an earlier one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Repeat {
    /// The row, in the order of pushes, from 0.
    pub row: u64,
    /// The row that it repeats.
    pub earlier: u64,
    /// How.
    pub likeness: Likeness,
}

/// What the search found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Repeats {
    /// Rows that were looked at.
    pub rows: u64,
    /// Rows whose text stands earlier.
    pub exact_rows: u64,
    /// Other rows that nearly do.
    pub near_rows: u64,
    /// The first exact ones, in order of rows.
    pub exact_examples: Vec<Repeat>,
    /// The first near ones, in order of rows.
    pub near_examples: Vec<Repeat>,
    exact: Bits,
    near: Bits,
}

impl Repeats {
    /// Whether `row` repeats an earlier one exactly.
    pub fn is_exact(&self, row: u64) -> bool {
        self.exact.get(row)
    }

    /// Whether `row` repeats an earlier one nearly, and none exactly.
    pub fn is_near(&self, row: u64) -> bool {
        self.near.get(row)
    }
}

/// One bit a row.
#[derive(Debug, Clone, PartialEq, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn of(rows: u64) -> Bits {
        Bits(vec![0; rows.div_ceil(64) as usize])
    }

    fn get(&self, row: u64) -> bool {
        self.0.get((row / 64) as usize).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    fn set(&mut self, row: u64) {
        self.0[(row / 64) as usize] |= 1 << (row % 64);
    }
}

/// Takes fingerprints.
pub(crate) struct Duplicates {
    rows: u64,
    examples: usize,
    exact: Sorter,
    near: Option<Near>,
}

struct Near {
    threshold: Similarity,
    bands: Bands,
    keys: Sorter,
    sketches: Sketches,
}

impl Duplicates {
    /// Nothing yet. `folder` must exist; it is used only beyond `limits.memory_bytes`.
    pub(crate) fn new(folder: &Path, search: Search, limits: Limits) -> Duplicates {
        let eighth = limits.memory_bytes / 8;
        let (exact_bytes, near) = match search {
            Search::Exact => (8 * eighth, None),
            Search::Near(threshold) => {
                let keys = Sorter::new(folder, (KEY_BITS + ROW_BITS) as usize / 8, 5 * eighth);
                let sketches = Sketches::new(folder, 2 * eighth);
                (eighth, Some(Near { threshold, bands: Bands::of(threshold), keys, sketches }))
            }
        };
        Duplicates { rows: 0, examples: limits.examples, exact: Sorter::new(folder, 16, exact_bytes), near }
    }

    /// Takes the next row's fingerprint.
    ///
    /// # Errors
    /// [`CleanError::TooManyRows`] beyond 2^40 rows; [`CleanError::Scratch`] if the disk refuses.
    pub(crate) fn push(&mut self, fingerprint: &Fingerprint) -> Result<(), CleanError> {
        let row = u128::from(self.rows);
        if row > ROW_MASK {
            return Err(CleanError::TooManyRows { rows_max: 1 << ROW_BITS });
        }
        self.exact.push(fingerprint.exact & !ROW_MASK | row)?;
        if let Some(near) = &mut self.near {
            near.sketches.push(&fingerprint.sketch)?;
            let mut pushed = Ok(());
            near.bands.keys(&fingerprint.sketch, |key| {
                if pushed.is_ok() {
                    pushed = near.keys.push(u128::from(key) << ROW_BITS | row);
                }
            });
            pushed?;
        }
        self.rows += 1;
        Ok(())
    }

    /// Searches.
    ///
    /// # Errors
    /// [`CleanError::Scratch`] if the disk refuses.
    pub(crate) fn finish(self) -> Result<Repeats, CleanError> {
        let mut repeats = Repeats { rows: self.rows, exact: Bits::of(self.rows), ..Repeats::default() };
        let mut first_examples = First::new(self.examples);
        find_exact(self.exact.finish()?, &mut repeats, &mut first_examples)?;
        repeats.exact_examples = first_examples.sorted();
        if let Some(near) = self.near {
            repeats.near = Bits::of(self.rows);
            let mut first_examples = First::new(self.examples);
            near.find(&mut repeats, &mut first_examples)?;
            repeats.near_examples = first_examples.sorted();
        }
        Ok(repeats)
    }
}

fn find_exact(mut sorted: Sorted, repeats: &mut Repeats, examples: &mut First) -> Result<(), CleanError> {
    let mut first: Option<u128> = None;
    while let Some(number) = sorted.next()? {
        match first.filter(|first| first >> ROW_BITS == number >> ROW_BITS) {
            None => first = Some(number),
            Some(first) => {
                let [row, earlier] = [number, first].map(|number| (number & ROW_MASK) as u64);
                repeats.exact.set(row);
                repeats.exact_rows += 1;
                examples.offer(Repeat { row, earlier, likeness: Likeness::Exact });
            }
        }
    }
    Ok(())
}

impl Near {
    fn find(mut self, repeats: &mut Repeats, examples: &mut First) -> Result<(), CleanError> {
        self.sketches.flush()?;
        let mut sorted = self.keys.finish()?;
        let mut group = Group::default();
        let mut key = None;
        while let Some(number) = sorted.next()? {
            let row = (number & ROW_MASK) as u64;
            if key != Some(number >> ROW_BITS) {
                key = Some(number >> ROW_BITS);
                group.clear();
            }
            if repeats.exact.get(row) || repeats.near.get(row) {
                continue;
            }
            match group.meet(row, self.threshold, &mut self.sketches)? {
                None => {}
                Some(repeat) => {
                    repeats.near.set(row);
                    repeats.near_rows += 1;
                    examples.offer(repeat);
                }
            }
        }
        Ok(())
    }
}

/// The rows of one key that stay: the first ones, then the last ones.
#[derive(Default)]
struct Group {
    rows: VecDeque<(u64, Option<Sketch>)>,
}

impl Group {
    fn clear(&mut self) {
        self.rows.clear();
    }

    /// The most similar of the group's rows if it is similar enough; else `row` joins the group.
    fn meet(&mut self, row: u64, threshold: Similarity, all: &mut Sketches) -> Result<Option<Repeat>, CleanError> {
        // Most groups have one row: its sketch is not read.
        let sketch = if self.rows.is_empty() { None } else { Some(all.get(row)?) };
        let mut best = (0.0, row);
        for (earlier, kept) in &mut self.rows {
            let kept = match kept {
                Some(kept) => kept,
                none => none.insert(all.get(*earlier)?),
            };
            let similarity = sketch.as_ref().map_or(0.0, |sketch| sketch.similarity(kept));
            if similarity > best.0 {
                best = (similarity, *earlier);
            }
        }
        if best.1 != row && best.0 >= threshold.value() {
            return Ok(Some(Repeat { row, earlier: best.1, likeness: Likeness::Near(best.0) }));
        }
        if self.rows.len() == 2 * MEETINGS {
            self.rows.remove(MEETINGS);
        }
        self.rows.push_back((row, sketch));
        Ok(None)
    }
}

/// The repeats with the lowest rows, whatever the order they come in.
struct First {
    most: usize,
    kept: Vec<Repeat>,
}

impl First {
    fn new(most: usize) -> First {
        First { most, kept: Vec::new() }
    }

    fn offer(&mut self, repeat: Repeat) {
        let place = self.kept.partition_point(|kept| kept.row < repeat.row);
        if place < self.most {
            self.kept.insert(place, repeat);
            self.kept.truncate(self.most);
        }
    }

    fn sorted(self) -> Vec<Repeat> {
        self.kept
    }
}
