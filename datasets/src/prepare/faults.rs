//! Rows that gates refuse, counted over all files, with the first of each kind.
//!
//! In:    faults with their places.
//! Out:   [`Refused`], one clause a kind: first places, cause, count, and the switch if there is one.
//! Never: keeps more than a few places of a kind, however many rows are wrong.

use std::collections::HashMap;
use std::fmt;
use std::mem::{Discriminant, discriminant};
use std::path::PathBuf;

use planner::plan::Gate;

use crate::content::Place;
use crate::row_error::RowError;

/// Places that are told of one kind.
const FIRST_PLACES: usize = 3;

/// Rows with one kind of fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The gate, where a switch in `data.allow` lets such rows pass.
    pub gate: Option<Gate>,
    /// How many rows.
    pub count: u64,
    /// The first of them: file and line.
    pub first: Vec<(PathBuf, u64)>,
    /// What is wrong with the first.
    pub cause: RowError,
}

/// Why rows are refused. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Rows read.
    pub rows: u64,
    /// Every kind of fault, in order of the first row.
    pub faults: Vec<Fault>,
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                write!(out, "; then ")?;
            }
            fault.write(self.rows, out)?;
        }
        Ok(())
    }
}

impl Fault {
    fn write(&self, rows: u64, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |(path, line): &(PathBuf, u64)| format!("{}:{line}", path.display());
        let mut places = self.first.iter().map(place);
        write!(out, "{}: {}", places.next().unwrap_or_default(), self.cause)?;
        if self.count > 1 {
            let others: Vec<String> = places.collect();
            write!(out, "; {} of {rows} rows have this fault, also {}", self.count, others.join(", "))?;
            if self.count > self.first.len() as u64 {
                write!(out, ", ...")?;
            }
        }
        match self.gate.map(name) {
            Some(gate) => write!(out, " (gate {gate}; data.allow = [\"{gate}\"] lets such rows pass)"),
            None => Ok(()),
        }
    }
}

/// A gate's name as recipes write it.
pub(crate) fn name(gate: Gate) -> String {
    let value = serde_json::to_value(gate).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// Faults as they are found.
#[derive(Debug, Default)]
pub(super) struct Faults {
    kinds: HashMap<Discriminant<RowError>, usize>,
    found: Vec<(Vec<Place>, u64, RowError)>,
}

impl Faults {
    /// Counts a fault.
    pub(super) fn add(&mut self, place: Place, cause: RowError) {
        let index = *self.kinds.entry(discriminant(&cause)).or_insert(self.found.len());
        if index == self.found.len() {
            self.found.push((Vec::new(), 0, cause));
        }
        let (places, count, _) = &mut self.found[index];
        *count += 1;
        if places.len() < FIRST_PLACES {
            places.push(place);
        }
    }

    /// The refusal, if there is anything to refuse.
    pub(super) fn refused(self, rows: u64, files: &[PathBuf]) -> Option<Refused> {
        let fault = |(places, count, cause): (Vec<Place>, u64, RowError)| Fault {
            gate: cause.gate(),
            count,
            first: places.iter().map(|place| (files[place.file as usize].clone(), place.line)).collect(),
            cause,
        };
        let faults: Vec<Fault> = self.found.into_iter().map(fault).collect();
        (!faults.is_empty()).then_some(Refused { rows, faults })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_refusal_counts_each_kind_and_names_the_first_rows_and_the_switch() {
        let mut faults = Faults::default();
        for line in [3, 5, 8, 9] {
            faults.add(Place { file: 0, line }, RowError::EmptyAnswer);
        }
        faults.add(Place { file: 1, line: 2 }, RowError::Shape { reason: "no messages".to_owned() });
        let files = [PathBuf::from("a.jsonl"), PathBuf::from("b.csv")];
        let told = faults.refused(12, &files).unwrap().to_string();
        let lines: Vec<&str> = told.split("; then ").collect();
        assert_eq!(
            lines[0],
            "a.jsonl:3: the answer is empty; 4 of 12 rows have this fault, also a.jsonl:5, a.jsonl:8, ... \
             (gate empty-answer; data.allow = [\"empty-answer\"] lets such rows pass)"
        );
        assert_eq!(lines[1], "b.csv:2: no messages");
        assert!(Faults::default().refused(12, &files).is_none());
    }
}
