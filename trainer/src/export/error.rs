//! Why an export failed.
//!
//! In:    errors of the rooms below; differences between what was meant and what was read back.
//! Out:   one line each, with numbers and what to do.
//! Never: prints.

use checkpoints::merged::MergeError;
use checkpoints::narrow::OutOfRange;
use checkpoints::peft::PeftError;
use checkpoints::weights::WeightsError;
use datasets::DataError;
use offload::durable::DurableError;
use planner::inference::DoesNotFit;

use crate::error::TrainError;
use crate::gguf::GgufExportError;

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The trained tensors do not fit the base, or cannot be read.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The files of the base, or the written ones, cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// An adapter cannot be written or read back.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// A tokenizer cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The folder cannot be written.
    #[error(transparent)]
    Durable(DurableError),
    /// The network cannot be run, or the tokenizer cannot be had.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A GGUF file cannot be written, or differs from what was meant.
    #[error(transparent)]
    Gguf(#[from] GgufExportError),
    /// The network does not fit this machine, so logits cannot be compared.
    #[error("the export cannot be compared here: {0}")]
    DoesNotFit(#[from] DoesNotFit),
    /// A number that the chosen format cannot hold.
    #[error("tensor `{tensor}`: {source}")]
    OutOfRange {
        /// Its name.
        tensor: String,
        /// Where, and the number.
        #[source]
        source: OutOfRange,
    },
    /// An adapter of a run that trained every weight.
    #[error(
        "every weight of this model was trained, so there is no adapter to write; export the model itself: --to safetensors or --to gguf"
    )]
    NoAdapter,
    /// A written tensor is not what was meant.
    #[error(
        "the export was read back and differs: tensor `{name}`, element {at}: {written:e} was written for {meant:e}; nothing was kept"
    )]
    TensorDiffers {
        /// Its name.
        name: String,
        /// Position, row-major.
        at: usize,
        /// What was meant.
        meant: f32,
        /// What was read back.
        written: f32,
    },
    /// A written tensor has another shape.
    #[error("the export was read back and differs: tensor `{name}` is {found:?}, not {expected:?}; nothing was kept")]
    ShapeDiffers {
        /// Its name.
        name: String,
        /// Shape meant.
        expected: Vec<usize>,
        /// Shape read back.
        found: Vec<usize>,
    },
    /// A written tensor has another number format.
    #[error("the export was read back and differs: tensor `{name}` is {found}, not {expected}; nothing was kept")]
    FormatDiffers {
        /// Its name.
        name: String,
        /// Format meant.
        expected: &'static str,
        /// Format read back.
        found: &'static str,
    },
    /// A tensor that was meant to be there.
    #[error("the export was read back and differs: `{name}` is missing; nothing was kept")]
    TensorMissing {
        /// Its name.
        name: String,
    },
    /// A tensor that was not meant to be there.
    #[error("the export was read back and differs: `{name}` was not part of it; nothing was kept")]
    TensorTooMany {
        /// Its name.
        name: String,
    },
    /// The written configuration gives another scale.
    #[error("the export was read back and differs: the adapter's scale is {found}, not {expected}; nothing was kept")]
    ScaleDiffers {
        /// Scale of training.
        expected: f64,
        /// Scale read back.
        found: f64,
    },
    /// The written tokenizer gives other ids.
    #[error(
        "the export was read back and differs: {text:?} is {found:?}, in training it was {expected:?}; nothing was kept"
    )]
    TokensDiffer {
        /// The text.
        text: String,
        /// Ids in training.
        expected: Vec<u32>,
        /// Ids of the written tokenizer.
        found: Vec<u32>,
    },
    /// The written tokenizer begins or ends texts otherwise.
    #[error(
        "the export was read back and differs: beginning and end of text are {found}, in training they were {expected}; nothing was kept"
    )]
    EndsDiffer {
        /// In training.
        expected: String,
        /// As written.
        found: String,
    },
    /// The written chat template is not the one that training used.
    #[error("the export was read back and differs: its chat template is not the one of training; nothing was kept")]
    TemplateDiffers,
    /// The written model answers otherwise than the trained one.
    #[error(
        "the export was read back and differs: logits of the fixed prompt differ by {difference:.3e}, more than {bound:.3e}; nothing was kept"
    )]
    LogitsDiffer {
        /// Largest difference.
        difference: f64,
        /// What rounding explains.
        bound: f64,
    },
}

impl From<DurableError> for ExportError {
    fn from(error: DurableError) -> ExportError {
        match error {
            DurableError::Source { path, tensor, source } => match source.downcast::<OutOfRange>() {
                Ok(source) => ExportError::OutOfRange { tensor, source: *source },
                Err(source) => ExportError::Durable(DurableError::Source { path, tensor, source }),
            },
            other => ExportError::Durable(other),
        }
    }
}

impl ExportError {
    /// Whether the user's input is at fault (exit code 2): nothing was written then.
    pub fn is_bad_input(&self) -> bool {
        match self {
            ExportError::Merge(_) | ExportError::NoAdapter | ExportError::OutOfRange { .. } => true,
            ExportError::Gguf(error) => match error {
                GgufExportError::Network(_) | GgufExportError::Tokenizer(_) | GgufExportError::Tensor { .. } => true,
                GgufExportError::Model(error) => error.is_bad_input(),
                _ => false,
            },
            ExportError::Train(error) => error.is_bad_input(),
            _ => false,
        }
    }
}
