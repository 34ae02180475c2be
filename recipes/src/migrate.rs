//! From the YAML of another tool to a recipe: what a user of Axolotl or LLaMA-Factory wrote, in this program's words.
//!
//! In:    the YAML's text.
//! Out:   a recipe as text, and a note on every key that is not carried as it stands.
//! Never: drops a key silently; opens a file; guesses what a value of the wrong type means.
//!
//! Every key ends in one of three lists of [`Migrated`]: `carried`, `notes`, `empty`. Source of the tools' keys: Axolotl's
//! `src/axolotl/utils/schemas`, LLaMA-Factory's `src/llamafactory/hparams` and transformers' `TrainingArguments`.

mod axolotl;
mod axolotl_data;
mod axolotl_files;
mod axolotl_tables;
mod common;
mod common_tables;
mod draft;
mod ledger;
mod llama_factory;
mod llama_factory_tables;
mod optimizer;
mod scope;
mod targets;
mod tree;

#[cfg(test)]
mod refusal_tests;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::RecipeError;
use draft::Draft;
use ledger::Ledger;
use scope::Scope;

/// Which tool a file was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Axolotl: has `base_model`.
    Axolotl,
    /// LLaMA-Factory: has `model_name_or_path`.
    LlamaFactory,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Axolotl => "Axolotl",
            Kind::LlamaFactory => "LLaMA-Factory",
        })
    }
}

/// What became of a key that is not carried as it stands. In this order notes are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Nothing here does it, and the result of the training may differ.
    NoCounterpart,
    /// Something here does it, in another way or only when the user helps.
    CarriedDifferently,
    /// The result does not depend on it, or it is so anyway.
    NotNeeded,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::NoCounterpart => "No counterpart",
            What::CarriedDifferently => "Carried differently",
            What::NotNeeded => "Not needed here",
        })
    }
}

/// A key that needs a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Dotted, with indices: `datasets[0].type`.
    pub key: String,
    /// On one line, shortened.
    pub value: String,
    /// What became of it.
    pub what: What,
    /// Its line, from 1.
    pub line: u64,
    /// What it did there and what to do here.
    pub why: String,
}

/// A key that is carried as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Dotted, with indices.
    pub key: String,
    /// Its line, from 1.
    pub line: u64,
    /// The recipe's key.
    pub to: String,
}

/// A recipe made of another tool's file.
#[derive(Debug, Clone)]
pub struct Migrated {
    /// The recipe, commented where a choice was made; it parses.
    pub toml: String,
    /// Which tool the file was written for.
    pub kind: Kind,
    /// What needs a word: first what has no counterpart.
    pub notes: Vec<Note>,
    /// What stands in the recipe as it stood in the file.
    pub carried: Vec<Carried>,
    /// Keys without a value, which say nothing.
    pub empty: Vec<String>,
}

/// Why there is no recipe. `place` is `FILE:LINE`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MigrateError {
    /// Longer than any such file.
    #[error("{file}: {bytes} bytes are no configuration; at most {bytes_max} are read")]
    TooLong {
        /// The file.
        file: String,
        /// Its length.
        bytes: usize,
        /// The longest that is read.
        bytes_max: usize,
    },
    /// Not YAML, a key twice, too deep, or too many aliases.
    #[error("{place}: not valid YAML: {message}")]
    Syntax {
        /// Where.
        place: String,
        /// The parser's words.
        message: String,
    },
    /// Neither tool's file.
    #[error(
        "{file}: neither an Axolotl file (it would have `base_model`) nor a LLaMA-Factory file (`model_name_or_path`)"
    )]
    Neither {
        /// The file.
        file: String,
    },
    /// Keys of both tools.
    #[error(
        "{place}: `base_model` (Axolotl) and `model_name_or_path` (LLaMA-Factory) in one file; leave one of them out"
    )]
    Both {
        /// Where the second stands.
        place: String,
    },
    /// A value of the wrong type.
    #[error("{place}: {key} is {value}; expected {expected}")]
    Value {
        /// Where.
        place: String,
        /// The key, dotted.
        key: String,
        /// As given, shortened.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// Without the key there is nothing to train.
    #[error("{file}: `{key}` is missing: {why}")]
    Missing {
        /// The file.
        file: String,
        /// The key.
        key: &'static str,
        /// What it is needed for.
        why: &'static str,
    },
    /// A whole method of training that this program does not have.
    #[error("{place}: {key}: {value} has no counterpart: {why}")]
    NoSuchMethod {
        /// Where.
        place: String,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What there is.
        why: &'static str,
    },
    /// All keys are understood, but their values make no recipe.
    #[error("{place}: the recipe would be refused: {message}")]
    Refused {
        /// Where the value stands; the file where no single key is to blame.
        place: String,
        /// Why.
        message: String,
    },
}

/// Turns a file's text into a recipe; `file` is used in messages only.
pub fn migrate(yaml: &str, file: &str) -> Result<Migrated, MigrateError> {
    let entries = tree::read(yaml, file)?;
    let kind = kind_of(&entries, file)?;
    let scope = Scope::whole(&entries, file);
    let (mut draft, mut ledger) = (Draft::new(kind, file), Ledger::default());
    match kind {
        Kind::Axolotl => axolotl::fill(&scope, &mut draft, &mut ledger)?,
        Kind::LlamaFactory => llama_factory::fill(&scope, &mut draft, &mut ledger)?,
    }
    let toml = draft.to_toml();
    crate::parse(&toml, "recipe", &[]).map_err(|error| refused(&error, &ledger, file))?;
    let mut notes = ledger.notes;
    notes.sort_by_key(|note| (note.what, note.line));
    notes.iter_mut().for_each(|note| note.key = tree::one_line(&note.key));
    Ok(Migrated { toml, kind, notes, carried: ledger.carried, empty: ledger.empty })
}

fn kind_of(entries: &[tree::Entry], file: &str) -> Result<Kind, MigrateError> {
    let of = |name: &str| entries.iter().find(|entry| entry.key == name);
    match (of("base_model"), of("model_name_or_path")) {
        (Some(_), None) => Ok(Kind::Axolotl),
        (None, Some(_)) => Ok(Kind::LlamaFactory),
        (None, None) => Err(MigrateError::Neither { file: file.to_string() }),
        (Some(one), Some(other)) => Err(MigrateError::Both { place: format!("{file}:{}", one.line.max(other.line)) }),
    }
}

/// Names the line of the key whose value is out of range, where the recipe's key came from one.
fn refused(error: &RecipeError, ledger: &Ledger, file: &str) -> MigrateError {
    let line = match error {
        RecipeError::Range { key, .. } => ledger.line_of(key),
        _ => None,
    };
    let place = line.map_or_else(|| file.to_string(), |line| format!("{file}:{line}"));
    MigrateError::Refused { place, message: tree::one_line(&error.to_string()) }
}
