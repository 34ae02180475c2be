//! GGUF files for llama.cpp and Ollama: a model, an adapter, and the Modelfile beside them.
//!
//! In:    an opened model for its description and tokenizer; its trained tensors, one at a time; an adapter.
//! Out:   a published file ([`write_model`], [`write_adapter`]), read back and compared ([`check_model`], [`check_adapter`]); the text
//!        of a Modelfile ([`modelfile`]).
//! Never: holds more than one tensor; writes anything before it is known that the network and the tokenizer can be written.

mod adapter;
mod check;
mod entries;
mod error;
mod layout;
mod modelfile;

use std::path::Path;

use checkpoints::gguf::{Mix, Writer};
use checkpoints::stream::SourceError;
use checkpoints::weights::Weights;

pub use adapter::{AdapterFile, write_adapter};
pub use check::{Compared, check_adapter, check_model};
pub use error::GgufExportError;
pub use modelfile::{Modelfile, OllamaFiles, modelfile};

use entries::{Vocabulary, model_entries};
use layout::Layout;

/// Gives a tensor's numbers by its Hugging Face name (those of [`planner::architecture::DecoderSpec::tensors`]), row-major, as the
/// model's own files hold them: Gemma's norms with or without the 1 that `norm_offset` of its description tells.
pub type TensorSource<'a> = dyn FnMut(&str) -> Result<Vec<f32>, SourceError> + 'a;

/// A model to write.
#[derive(Debug, Clone, Copy)]
pub struct ModelFile<'a> {
    /// Describes the network and holds the tokenizer; its weights are not read.
    pub model: &'a Weights,
    /// Storage formats.
    pub mix: Mix,
    /// `general.name`.
    pub name: &'a str,
    /// The Jinja template trained with, where it is not the tokenizer's own ([`datasets::ServedTemplate::source`]).
    pub chat_template: Option<&'a str>,
}

/// A written file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufWritten {
    /// Its size.
    pub bytes: u64,
    /// How many tensors.
    pub tensors: usize,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Writes the model, replacing a file of that name in one step.
pub fn write_model(
    path: &Path,
    file: &ModelFile<'_>,
    weights: &mut TensorSource<'_>,
) -> Result<GgufWritten, GgufExportError> {
    let layout = Layout::of(file.model, file.mix)?;
    let Vocabulary { entries: vocabulary, notes } = entries::vocabulary(file)?;
    let entries = model_entries(file, &layout, vocabulary);
    let notes: Vec<String> = layout.notes().into_iter().chain(notes).collect();
    let planned = layout.tensors.iter().map(|tensor| tensor.new.clone()).collect();
    let mut writer = Writer::create(path, &entries, planned)?;
    for tensor in &layout.tensors {
        writer.append(&tensor.values(file.model.spec(), weights)?)?;
    }
    Ok(GgufWritten { bytes: writer.finish()?, tensors: layout.tensors.len(), notes })
}
