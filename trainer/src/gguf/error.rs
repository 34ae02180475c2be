//! Why a GGUF file is not written, or not good.
//!
//! In:    errors of the rooms below.
//! Out:   one line each, with names and what to do.
//! Never: prints.

use checkpoints::gguf::{FileError, GgufError};
use checkpoints::stream::SourceError;
use checkpoints::weights::WeightsError;
use datasets::DataError;
use offload::durable::DurableError;
use planner::config::ConfigError;

use crate::error::TrainError;

/// Why a GGUF export failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufExportError {
    /// llama.cpp does not compute this network.
    #[error("the model cannot be written as GGUF: {0}")]
    Network(#[from] ConfigError),
    /// GGUF has no word for this tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] DataError),
    /// The base's own GGUF metadata.
    #[error(transparent)]
    Metadata(#[from] GgufError),
    /// The model's own files.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The tokenizer cannot be opened.
    #[error(transparent)]
    Model(#[from] Box<TrainError>),
    /// A tensor's numbers could not be had.
    #[error("tensor `{name}`: {source}")]
    Source {
        /// Its Hugging Face name.
        name: String,
        /// Why not.
        source: SourceError,
    },
    /// A tensor whose numbers cannot be written.
    #[error("tensor `{name}`: {problem}")]
    Tensor {
        /// Its Hugging Face name.
        name: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The file cannot be published.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The written file cannot be opened.
    #[error(transparent)]
    File(#[from] FileError),
    /// The written file holds something else than it was given: our bug or the disk's.
    #[error("{path}: read back, {problem}; remove the file and export again", path = path.display())]
    ReadBack {
        /// The file.
        path: std::path::PathBuf,
        /// What differs.
        problem: String,
    },
}

impl From<TrainError> for GgufExportError {
    fn from(error: TrainError) -> GgufExportError {
        GgufExportError::Model(Box::new(error))
    }
}
