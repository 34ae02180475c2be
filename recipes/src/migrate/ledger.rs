//! The account of every key: carried, noted, or empty.
//!
//! In:    decisions, one a key; then the tables for what nobody decided.
//! Out:   the three lists of `Migrated`.
//! Never: a key in none of them.

use super::scope::{At, Scope};
use super::tree::{Value, shortened};
use super::{Carried, Note, What};

/// Longest value in a note, characters.
const VALUE_CHARACTERS_MAX: usize = 60;

/// Keys that all have the same fate. A name that ends in `*` stands for all that begin so.
#[derive(Debug)]
pub(super) struct Listed {
    /// Their names.
    pub keys: &'static [&'static str],
    /// What becomes of them.
    pub what: What,
    /// What they did there and what to do here.
    pub why: &'static str,
}

impl Listed {
    fn holds(&self, key: &str) -> bool {
        self.keys.iter().any(|name| match name.strip_suffix('*') {
            Some(start) => key.starts_with(start),
            None => *name == key,
        })
    }
}

/// What became of the keys so far.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub notes: Vec<Note>,
    pub carried: Vec<Carried>,
    pub empty: Vec<String>,
}

impl Ledger {
    /// The key stands in the recipe as `to`.
    pub fn carry(&mut self, at: &At, to: &str) {
        self.carried.push(Carried { key: at.key.clone(), line: at.line, to: to.to_string() });
    }

    /// The key needs a word.
    pub fn note(&mut self, at: &At, what: What, why: impl Into<String>) {
        let value = shortened(&at.shown, VALUE_CHARACTERS_MAX);
        self.notes.push(Note { key: at.key.clone(), value, what, line: at.line, why: why.into() });
    }

    /// The line of the key that became the recipe's key `to`.
    pub fn line_of(&self, to: &str) -> Option<u64> {
        self.carried.iter().find(|carried| carried.to == to).map(|carried| carried.line)
    }

    /// Whether somebody decided about the key; the line tells a key from another that is spelt like its dotted name.
    fn knows(&self, key: &str, line: u64) -> bool {
        self.carried.iter().any(|carried| carried.key == key && carried.line == line)
            || self.notes.iter().any(|note| note.key == key && note.line == line)
    }

    /// Lists every key of `scope` that nobody decided about, with the tables' words where they know it.
    pub fn rest(&mut self, scope: &Scope, tables: &[&[Listed]]) {
        for at in scope.all() {
            if self.knows(&at.key, at.line) {
                continue;
            }
            if matches!(at.value, Value::Empty) {
                self.empty.push(at.key.clone());
                continue;
            }
            match tables.iter().flat_map(|table| table.iter()).find(|listed| listed.holds(&at.name)) {
                Some(listed) if listed.what != What::NotNeeded && is_off(at.value) => {
                    self.note(&at.here(), What::NotNeeded, "switched off there");
                }
                Some(listed) => self.note(&at.here(), listed.what, listed.why),
                None => self.note(&at.here(), What::NoCounterpart, "not known here: see what it did there"),
            }
        }
    }
}

/// A known switch or strength that has no effect.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Flag(flag) => !flag,
        Value::Whole(number) => *number == 0,
        Value::Real(number) => *number == 0.0,
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        Value::Empty | Value::Text(_) => false,
    }
}
