//! What will be slow or will not work, why, and what to do first.
//!
//! In:    an [`Inventory`], and [`Rates`] where they were measured.
//! Out:   [`Finding`]s, the worst first.
//! Never: changes the machine; measures; reads it. Same inputs, same findings.

mod cards;
mod folders;
mod memory;
mod processor;
#[cfg(test)]
mod tests;

use planner::rates::Rates;
use serde::Serialize;

use super::inventory::Inventory;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something cannot be used at all.
    Stops,
    /// Something is slower than it could be.
    Slows,
    /// Good to know.
    Note,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A name that stays: `card_lanes`.
    pub code: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What the user sees, with its number.
    pub symptom: String,
    /// What is behind it.
    pub constraint: String,
    /// What to do first.
    pub fix: String,
}

/// What the rules look at.
struct Seen<'a> {
    machine: &'a Inventory,
    rates: Option<&'a Rates>,
}

/// Everything that every rule finds.
pub fn findings(machine: &Inventory, rates: Option<&Rates>) -> Vec<Finding> {
    let seen = Seen { machine, rates };
    let mut found = Vec::new();
    cards::look(&seen, &mut found);
    folders::look(&seen, &mut found);
    memory::look(&seen, &mut found);
    processor::look(&seen, &mut found);
    found.sort_by_key(|finding| finding.severity);
    found
}

fn stops(code: &'static str, symptom: String, constraint: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { code, severity: Severity::Stops, symptom, constraint: constraint.into(), fix: fix.into() }
}

fn slows(code: &'static str, symptom: String, constraint: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { severity: Severity::Slows, ..stops(code, symptom, constraint, fix) }
}

fn note(code: &'static str, symptom: String, constraint: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { severity: Severity::Note, ..stops(code, symptom, constraint, fix) }
}
