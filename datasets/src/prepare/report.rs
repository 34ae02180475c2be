//! What was done to the rows of a plan, in numbers.
//!
//! In:    counted while rows are prepared.
//! Out:   [`Report`], kept beside the rows as JSON.
//! Never: holds text.

use std::fmt;
use std::path::PathBuf;

use planner::plan::Gate;
use serde::{Deserialize, Serialize};

use crate::cache::Dataset;

/// Places that are kept of one count.
pub(super) const FIRST_PLACES: usize = 5;

/// What the files held and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Every file, by [`crate::Place::file`].
    pub files: Vec<PathBuf>,
    /// Per file, its source: the plan's order; a held-out source comes last.
    pub source_of_file: Vec<u32>,
    /// Per source.
    pub sources: Vec<SourceReport>,
    /// Rows to train on.
    pub rows: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Tokens of them that are trained on.
    pub trained_tokens: u64,
    /// Rows to measure with.
    pub held_out_rows: u64,
    /// Rows that were longer than the sequence length.
    pub too_long: u64,
    /// Rows left out for their length.
    pub dropped: u64,
    /// Rows whose end was cut.
    pub truncated: u64,
    /// Documents that were cut into rows.
    pub split: u64,
    /// Tokens of the longest row before anything was cut.
    pub longest: u64,
    /// Preference rows: checked, not encoded.
    pub preferences: u64,
    /// Rows that cleaning removed, by rule.
    pub removed: Vec<Count>,
    /// Rows that repeat an earlier one exactly, kept or not.
    pub exact_duplicates: u64,
    /// Rows that nearly repeat an earlier one, kept or not; `None` where that was not asked for.
    pub near_duplicates: Option<u64>,
    /// Examples of duplicates.
    pub duplicate_examples: Vec<Duplicate>,
    /// Rows that a gate would have refused, by gate that `data.allow` switched off.
    pub allowed: Vec<(Gate, u64)>,
}

/// One source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceReport {
    /// What the recipe calls it, or its path.
    pub name: String,
    /// Files.
    pub files: u64,
    /// Rows read.
    pub read: u64,
    /// Rows kept.
    pub rows: u64,
    /// Tokens kept.
    pub tokens: u64,
    /// Trained tokens kept.
    pub trained_tokens: u64,
}

/// How often something happened, and where first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// What.
    pub what: String,
    /// How often.
    pub count: u64,
    /// First places: index of the file, line.
    pub first: Vec<(u32, u64)>,
}

/// A row and the earlier one that it repeats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Duplicate {
    /// File and line.
    pub row: (u32, u64),
    /// File and line of the earlier row.
    pub earlier: (u32, u64),
    /// Estimated similarity of their five-word sequences; 1 for exact ones.
    pub similarity: f64,
}

/// One line: what there is to train on, and everything that was left out, cut or let pass.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { rows, tokens, trained_tokens, longest, .. } = self;
        write!(out, "{rows} rows, {tokens} tokens, {trained_tokens} of them trained on, longest row {longest}")?;
        if self.held_out_rows > 0 {
            write!(out, "; {} rows held out", self.held_out_rows)?;
        }
        if self.too_long > self.split {
            write!(
                out,
                "; {} rows were too long: {} dropped, {} truncated",
                self.too_long - self.split,
                self.dropped,
                self.truncated
            )?;
        }
        if self.split > 0 {
            write!(out, "; {} documents were split", self.split)?;
        }
        for count in &self.removed {
            write!(out, "; removed: {} rows, {}", count.count, count.what)?;
        }
        for (gate, count) in &self.allowed {
            write!(out, "; {count} rows fail the gate {}, which data.allow switches off", super::faults::name(*gate))?;
        }
        if self.preferences > 0 {
            write!(out, "; {} preference rows, which no method of this version trains on", self.preferences)?;
        }
        Ok(())
    }
}

impl Report {
    /// Share of tokens that are trained on.
    pub fn trained_share(&self) -> f64 {
        self.trained_tokens as f64 / (self.tokens.max(1)) as f64
    }

    /// Counts what stands in the cache, in all and by source.
    pub(super) fn count(&mut self, training: &Dataset, held_out: &Dataset) {
        (self.rows, self.tokens) = (training.len() as u64, training.tokens());
        (self.trained_tokens, self.held_out_rows) = (training.trained_tokens(), held_out.len() as u64);
        for source in &mut self.sources {
            (source.rows, source.tokens, source.trained_tokens) = (0, 0, 0);
        }
        for row in training.rows().chain(held_out.rows()) {
            let source = self.source_of_file.get(row.place.file as usize).copied().unwrap_or_default();
            let Some(source) = self.sources.get_mut(source as usize) else { continue };
            source.rows += 1;
            source.tokens += row.tokens.len() as u64;
            source.trained_tokens += row.trained_tokens() as u64;
        }
    }

    /// Counts a removal.
    pub(super) fn remove(&mut self, what: &str, place: crate::content::Place) {
        let index = self.removed.iter().position(|count| count.what == what).unwrap_or_else(|| {
            self.removed.push(Count { what: what.to_owned(), count: 0, first: Vec::new() });
            self.removed.len() - 1
        });
        let count = &mut self.removed[index];
        count.count += 1;
        if count.first.len() < FIRST_PLACES {
            count.first.push((place.file, place.line));
        }
    }
}
