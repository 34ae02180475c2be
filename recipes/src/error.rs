//! Why a recipe was refused.
//!
//! In:    causes found while reading, overriding and checking.
//! Out:   one line each: what, where, the numbers, what to do.
//! Never: more than one line.

use std::path::PathBuf;

/// Why a recipe was refused. `place` is `FILE:LINE` or the `--set` argument.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read the recipe: {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Not TOML.
    #[error("not valid TOML: {place}: {message}")]
    Syntax {
        /// Where.
        place: String,
        /// The parser's words.
        message: String,
    },
    /// A key that no section knows.
    #[error("unknown key `{key}`: {place}; {hint}")]
    UnknownKey {
        /// Where.
        place: String,
        /// The key as written.
        key: String,
        /// The nearest known key, or all of them.
        hint: String,
    },
    /// A value of the wrong type, an unknown word, or a missing key.
    #[error("wrong recipe: {place}: {message}")]
    Invalid {
        /// Where.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// A `--set` that is not `key=value`.
    #[error("wrong override: --set {argument}: {message}")]
    Override {
        /// As given.
        argument: String,
        /// What is wrong.
        message: String,
    },
    /// A value of the right type that cannot work.
    #[error("value out of range: {key} = {value}; {expected}")]
    Range {
        /// The key, dotted.
        key: &'static str,
        /// As given.
        value: String,
        /// What would be accepted.
        expected: String,
    },
}
