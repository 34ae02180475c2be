//! Adafactor without a first moment: a matrix's second moment is kept as its row and column means.
//!
//! In:    all gradients of a group, three times, span by span in ascending order; the factors of the step before.
//! Out:   updated factors, then updated parameters.
//! Never: adds numbers in an order that spans or threads decide: sums are in `f64`, by row in blocks of 256 elements of the group, by
//!        column in ascending rows.
//!
//! Source: Shazeer and Stern 2018, arXiv:1804.04235; transformers' `Adafactor` with `scale_parameter=False`, `relative_step=False`,
//! `beta1=None`, `clip_threshold=1.0`, `decay_rate=-0.8` and `eps=(1e-30, 1e-3)`, whose second number then has no effect.

use std::ops::Range;

use rayon::prelude::*;

use super::blocks::{BLOCK, TILE};
use super::{ALIGNMENT, SlotRange, Step, round_to_bf16};

/// Added to squared gradients.
const EPSILON: f32 = 1e-30;
/// The second moment's decay at step `t` is `1 - t^DECAY_RATE`.
const DECAY_RATE: f64 = -0.8;
/// A tensor's update is scaled down to this root mean square.
const CLIP_THRESHOLD: f32 = 1.0;
/// Columns a thread sums at a time.
const COLUMNS: usize = 64;

/// The constants of Adafactor that a recipe can set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adafactor {
    /// Decoupled weight decay: the parameter shrinks by `learning_rate * weight_decay` each step.
    pub weight_decay: f64,
}

/// `f32` values that hold the second moment of a slot: rows and columns of a matrix, each element of a vector.
pub(super) fn factor_elements(slot: &SlotRange) -> u64 {
    if is_factored(slot) { slot.rows + slot.columns } else { slot.len }
}

/// With one row or one column the factors would reproduce the full second moment.
fn is_factored(slot: &SlotRange) -> bool {
    slot.rows > 1 && slot.columns > 1
}

/// One step of Adafactor over one group: [`observe`](Self::observe) all gradients, then
/// [`finish_statistics`](Self::finish_statistics), [`measure`](Self::measure) all again, then [`finish_measure`](Self::finish_measure)
/// and [`apply`](Self::apply) to all.
pub(crate) struct AdafactorPass {
    weight_decay: f64,
    step: Step,
    /// `1 - step^DECAY_RATE`.
    decay: f64,
    slots: Vec<Slot>,
}

/// One tensor on its way through the passes.
struct Slot {
    range: SlotRange,
    /// Where its factors begin in the group's array of factors.
    factors_start: usize,
    /// Second moment: of rows then columns, or of each element.
    factors: Vec<f32>,
    row_sums: Vec<f64>,
    column_sums: Vec<f64>,
    /// `1 / sqrt(row / mean of rows)`, then `1 / sqrt(column)`.
    scales: Vec<f32>,
    /// Sum of the squares of the update.
    squares: f64,
    /// What the update is divided by.
    divisor: f32,
}

impl AdafactorPass {
    /// Begins a step of the group with `slots`, whose factors so far are `factors`.
    ///
    /// # Panics
    /// If `factors` is shorter than [`super::Rule::factor_elements`] or the step is 0: our bugs.
    pub fn new(adafactor: &Adafactor, slots: &[SlotRange], step: Step, factors: &[f32]) -> AdafactorPass {
        assert!(step.number > 0, "the first step is number 1");
        let mut factors_start = 0;
        let slot = |range: &SlotRange| {
            let length = factor_elements(range) as usize;
            let own = factors[factors_start..factors_start + length].to_vec();
            factors_start += length;
            Slot::new(*range, factors_start - length, own)
        };
        let slots = slots.iter().map(slot).collect();
        let decay = 1.0 - (step.number as f64).powf(DECAY_RATE);
        AdafactorPass { weight_decay: adafactor.weight_decay, step, decay, slots }
    }

    /// First pass: squares of the gradients of elements `first ..`.
    pub fn observe(&mut self, first: u64, gradients: &[f32]) {
        let (scale, decay) = (self.step.gradient_scale, self.decay);
        for slot in overlapping(&mut self.slots, first, gradients.len()) {
            let (own, part) = slot.overlap(first, gradients.len());
            if is_factored(&slot.range) {
                slot.sum_rows(own.clone(), &gradients[part.clone()], scale);
                slot.sum_columns(own, &gradients[part], scale);
            } else {
                let values = slot.factors[own].par_chunks_mut(BLOCK).zip(gradients[part].par_chunks(BLOCK));
                values.for_each(|(v, g)| average_squares(v, g, scale, decay));
            }
        }
    }

    /// Between the first and the second pass: updates the factors.
    pub fn finish_statistics(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| is_factored(&slot.range)) {
            slot.update_factors(self.decay);
        }
    }

    /// Second pass: size of the update of elements `first ..`.
    pub fn measure(&mut self, first: u64, gradients: &[f32]) {
        let scale = self.step.gradient_scale;
        for slot in overlapping(&mut self.slots, first, gradients.len()) {
            let (own, part) = slot.overlap(first, gradients.len());
            let blocks = gradients[part].par_chunks(ALIGNMENT as usize).enumerate();
            let shared = &*slot;
            let sums: Vec<f64> =
                blocks.map(|(i, g)| shared.squares_of_update(own.start + i * ALIGNMENT as usize, g, scale)).collect();
            slot.squares = sums.iter().fold(slot.squares, |sum, block| sum + block);
        }
    }

    /// Between the second and the third pass: how far each tensor's update is scaled down.
    pub fn finish_measure(&mut self) {
        for slot in &mut self.slots {
            let root_mean_square = (slot.squares / slot.range.len as f64).sqrt() as f32;
            let ratio = root_mean_square / CLIP_THRESHOLD;
            // Not `max`: NaN must stay.
            slot.divisor = if ratio < 1.0 { 1.0 } else { ratio };
        }
    }

    /// Third pass: updates the parameters of elements `first ..` and their bf16 copy.
    pub fn apply(&mut self, first: u64, parameters: &mut [f32], gradients: &[f32], mut working: Option<&mut [u16]>) {
        let scale = self.step.gradient_scale;
        for slot in overlapping(&mut self.slots, first, gradients.len()) {
            let decay = if slot.range.decay { self.weight_decay } else { 0.0 };
            let scalars = ApplyScalars {
                gradient_scale: scale,
                divisor: slot.divisor,
                learning_rate: self.step.learning_rate as f32,
                shrink: (-decay * self.step.learning_rate) as f32,
            };
            let (own, part) = slot.overlap(first, gradients.len());
            let tiles = parameters[part.clone()].par_chunks_mut(TILE).zip(gradients[part].par_chunks(TILE));
            tiles.enumerate().for_each(|(i, (p, g))| slot.apply_tile(own.start + i * TILE, p, g, scalars));
        }
        if let Some(working) = &mut working {
            let tiles = parameters.par_chunks(BLOCK).zip(working.par_chunks_mut(BLOCK));
            tiles.for_each(|(p, w)| round_to_bf16(p, w));
        }
    }

    /// Writes the updated factors back to where [`Self::new`] read them.
    pub fn store_factors(&self, factors: &mut [f32]) {
        for slot in &self.slots {
            factors[slot.factors_start..][..slot.factors.len()].copy_from_slice(&slot.factors);
        }
    }
}

#[derive(Clone, Copy)]
struct ApplyScalars {
    gradient_scale: f32,
    divisor: f32,
    learning_rate: f32,
    /// `-learning_rate * weight_decay`.
    shrink: f32,
}

/// The slots that share elements with `first .. first + len`.
fn overlapping(slots: &mut [Slot], first: u64, len: usize) -> impl Iterator<Item = &mut Slot> {
    let from = slots.partition_point(|slot| slot.range.start + slot.range.len <= first);
    slots[from..].iter_mut().take_while(move |slot| slot.range.start < first + len as u64)
}

fn square(gradient: f32, scale: f32) -> f64 {
    let scaled = f64::from(gradient * scale);
    scaled * scaled + f64::from(EPSILON)
}

fn average_squares(v: &mut [f32], g: &[f32], scale: f32, decay: f64) {
    let (decay, rest) = (decay as f32, (1.0 - decay) as f32);
    for (v, g) in v.iter_mut().zip(g) {
        let gradient = g * scale;
        *v = *v * decay + rest * (gradient * gradient + EPSILON);
    }
}

impl Slot {
    fn new(range: SlotRange, factors_start: usize, factors: Vec<f32>) -> Slot {
        let (rows, columns) = if is_factored(&range) { (range.rows as usize, range.columns as usize) } else { (0, 0) };
        Slot {
            range,
            factors_start,
            factors,
            row_sums: vec![0.0; rows],
            column_sums: vec![0.0; columns],
            scales: vec![0.0; rows + columns],
            squares: 0.0,
            divisor: 1.0,
        }
    }

    /// What elements `first .. first + len` of the group have in common with this slot: in the slot, and in those elements.
    fn overlap(&self, first: u64, len: usize) -> (Range<usize>, Range<usize>) {
        let start = self.range.start.max(first);
        let end = (self.range.start + self.range.len).min(first + len as u64);
        let within = |from: u64| (start - from) as usize..(end - from) as usize;
        (within(self.range.start), within(first))
    }

    /// The rows that hold elements `own` of the slot, each with the part of `own` in it (relative to its start).
    fn rows_of(&self, own: &Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let (columns, own) = (self.range.columns as usize, own.clone());
        (own.start / columns..own.end.div_ceil(columns)).map(move |row| {
            let (start, end) = ((row * columns).max(own.start), ((row + 1) * columns).min(own.end));
            (row, start - own.start..end - own.start)
        })
    }

    fn sum_rows(&mut self, own: Range<usize>, gradients: &[f32], scale: f32) {
        let block = ALIGNMENT as usize;
        let rows: Vec<(usize, Range<usize>)> = self.rows_of(&own).collect();
        let first_row = rows.first().map_or(0, |(row, _)| *row);
        let sums = self.row_sums[first_row..first_row + rows.len()].par_iter_mut().zip(&rows);
        sums.for_each(|(sum, (_, part))| {
            // Slots begin at a multiple of 256, so borders of blocks are the same in the slot and in the group.
            let mut start = part.start;
            while start < part.end {
                let end = part.end.min((own.start + start + 1).next_multiple_of(block) - own.start);
                *sum += gradients[start..end].iter().map(|g| square(*g, scale)).sum::<f64>();
                start = end;
            }
        });
    }

    fn sum_columns(&mut self, own: Range<usize>, gradients: &[f32], scale: f32) {
        let columns = self.range.columns as usize;
        let rows: Vec<(usize, Range<usize>)> = self.rows_of(&own).collect();
        self.column_sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(i, sums)| {
            for (row, part) in &rows {
                let row_start = row * columns;
                let from = (row_start + i * COLUMNS).max(own.start + part.start);
                let to = (row_start + i * COLUMNS + sums.len()).min(own.start + part.end);
                for at in from..to.max(from) {
                    sums[at - row_start - i * COLUMNS] += square(gradients[at - own.start], scale);
                }
            }
        });
    }

    fn update_factors(&mut self, decay: f64) {
        let (rows, columns) = (self.row_sums.len(), self.column_sums.len());
        let means = self.row_sums.iter().map(|sum| sum / columns as f64);
        let means = means.chain(self.column_sums.iter().map(|sum| sum / rows as f64));
        let (decay, rest) = (decay as f32, (1.0 - decay) as f32);
        for (factor, mean) in self.factors.iter_mut().zip(means) {
            *factor = *factor * decay + rest * mean as f32;
        }
        let (row_factors, column_factors) = self.factors.split_at(rows);
        let mean = (row_factors.iter().map(|row| f64::from(*row)).sum::<f64>() / rows as f64) as f32;
        let scales = row_factors.iter().map(|row| 1.0 / (row / mean).sqrt());
        let scales = scales.chain(column_factors.iter().map(|column| 1.0 / column.sqrt()));
        self.scales = scales.collect();
    }

    /// Calls `use_update` with the index in `gradients` and the update of elements `start ..` of the slot.
    #[inline(always)]
    fn for_each_update(&self, start: usize, gradients: &[f32], scale: f32, mut use_update: impl FnMut(usize, f32)) {
        if !is_factored(&self.range) {
            for (i, g) in gradients.iter().enumerate() {
                use_update(i, 1.0 / self.factors[start + i].sqrt() * (g * scale));
            }
            return;
        }
        let (row_scales, column_scales) = self.scales.split_at(self.range.rows as usize);
        for (row, part) in self.rows_of(&(start..start + gradients.len())) {
            let first_column = start + part.start - row * self.range.columns as usize;
            for (i, column_scale) in part.zip(&column_scales[first_column..]) {
                use_update(i, row_scales[row] * column_scale * (gradients[i] * scale));
            }
        }
    }

    fn squares_of_update(&self, start: usize, gradients: &[f32], scale: f32) -> f64 {
        let mut sum = 0.0;
        self.for_each_update(start, gradients, scale, |_, update| sum += f64::from(update) * f64::from(update));
        sum
    }

    fn apply_tile(&self, start: usize, parameters: &mut [f32], gradients: &[f32], s: ApplyScalars) {
        self.for_each_update(start, gradients, s.gradient_scale, |i, update| {
            let p = &mut parameters[i];
            if s.shrink != 0.0 {
                *p += s.shrink * *p;
            }
            *p -= update / s.divisor * s.learning_rate;
        });
    }
}

#[cfg(test)]
#[path = "adafactor_tests.rs"]
mod tests;
