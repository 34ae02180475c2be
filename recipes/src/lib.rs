//! Recipes: what a user wants, in TOML, parsed into closed types, with overrides applied and every range checked.
//!
//! In:    a recipe file and `--set key=value` texts.
//! Out:   a [`Recipe`], or a [`RecipeError`] that names file, line and the nearest known key.
//! Never: answers an `auto` (the planner does), opens a model or a data file, prints.
//!
//! Parse, then override, then resolve paths, then check: [`read`] does all four.

mod check;
pub mod defaults;
mod error;
pub mod migrate;
mod overrides;
mod parse;
pub mod recipe;
mod values;

pub use error::RecipeError;
pub use parse::{parse, read};
pub use recipe::Recipe;
pub use values::{
    DeviceName, KeepChoice, MaxGradNorm, MemorySize, MicroBatch, Sources, TargetNames, TokenCount, WarmupLength,
    bytes_of,
};

#[cfg(test)]
mod full_tests;
#[cfg(test)]
mod tests;
