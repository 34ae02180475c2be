//! Text in, batches out.
//!
//! In:    JSONL files, a tokenizer (from a folder or from a GGUF file's metadata), the plan's data part.
//! Out:   rows of token ids with the tokens that are trained on, and batches of them in a fixed order.
//! Never: imports Burn, holds the text after tokenising, or draws an order that seed and epoch do not decide.

#![forbid(unsafe_code)]

mod batches;
#[allow(dead_code)]
mod content;
mod error;
mod folder;
#[allow(dead_code)]
mod gates;
mod gguf_vocabulary;
mod jsonl;
pub mod memory_arithmetic;
mod packing;
mod pre_tokenizers;
mod questions;
mod random;
mod row_error;
mod rows;
#[cfg(test)]
mod rows_tests;
mod spans;
mod spm_merges;
mod template;
#[cfg(test)]
mod test_tokenizers;
mod tokenizer;
#[cfg(test)]
mod tokenizer_tests;

pub use batches::{Batch, Batches, Step, evaluation_batches};
pub use content::Place;
pub use error::DataError;
pub use gguf_vocabulary::GgufVocabulary;
pub use questions::{Question, questions};
pub use row_error::RowError;
pub use rows::{Dataset, Report, Row};
pub use tokenizer::{Encoded, Tokenizer};
