//! Text in, batches out.
//!
//! In:    files of rows, a tokenizer (from a folder or from a GGUF file's metadata), the plan's data part; documents and the address
//!        of a server that makes rows from them.
//! Out:   rows of token ids with the tokens that are trained on, memory-mapped, and batches of them in a fixed order.
//! Never: imports Burn, holds the text after tokenising, or draws an order that seed and epoch do not decide.

#![forbid(unsafe_code)]

mod batches;
mod cache;
mod clean;
mod content;
mod dialogue;
mod encode;
mod error;
mod files;
mod folder;
#[doc(hidden)]
pub mod fuzz;
mod gates;
pub mod generate;
mod gguf_tokens;
mod gguf_vocabulary;
pub mod memory_arithmetic;
mod order;
mod packing;
mod pre_tokenizers;
mod prepare;
mod random;
mod row_error;
mod serving;
mod shapes;
mod spm_merges;
mod template;
#[cfg(test)]
mod test_tokenizers;
mod text_stream;
mod tokenizer;
#[cfg(test)]
mod tokenizer_tests;

pub use batches::{Batch, Batches, Cursor, Step, evaluation_batches};
pub use cache::{CacheError, Dataset, Question, Row, questions};
pub use clean::{CleanError, Similarity};
pub use content::Place;
pub use dialogue::Dialogue;
pub use error::DataError;
pub use files::{FileError, InputFile, list as files_of};
pub use gguf_tokens::FIXED_TEXT;
pub use gguf_vocabulary::GgufVocabulary;
pub use order::OrderError;
pub use packing::efficiency;
pub use prepare::{Count, Duplicate, Fault, Prepared, Progress, Refused, Report, Request, SourceReport};
pub use row_error::RowError;
pub use serving::{GoTemplate, ServedTemplate};
pub use text_stream::TextStream;
pub use tokenizer::{Encoded, Tokenizer};
