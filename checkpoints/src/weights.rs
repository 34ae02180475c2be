//! The weights of a model under Hugging Face names, whatever the files are.
//!
//! In:    a Hugging Face folder (`config.json`, one or more safetensors files), or one GGUF file.
//! Out:   the network's description and its tensors as f32, each of the shape the description asks for.
//! Never: loads a tensor before it is asked for; opens a model that lacks one.

pub(crate) mod folder;
mod identity;
pub mod names;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use planner::architecture::{DecoderSpec, Family};
use planner::config::{ConfigError, GgufFacts, MetadataValue, from_gguf};

use crate::gguf::{self, Array, FileError, Value};
use crate::stream::Format;
use crate::tensors::TensorsError;

pub use crate::tensors::HostTensor;

/// Why a model's weights cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// Nothing is there.
    #[error("{path}: no such file or folder", path = path.display())]
    NotFound {
        /// The path given.
        path: PathBuf,
    },
    /// A file that the system refuses.
    #[error("{path}: cannot be read: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A folder without weights that can be read.
    #[error("{path}: {problem}", path = path.display())]
    Folder {
        /// The folder or the index file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The description of the network is unusable.
    #[error("{path}: {source}", path = path.display())]
    Config {
        /// `config.json` or the GGUF file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ConfigError,
    },
    /// A damaged GGUF file.
    #[error(transparent)]
    Gguf(#[from] FileError),
    /// A damaged safetensors file.
    #[error(transparent)]
    Tensors(#[from] TensorsError),
    /// Tensors that the network needs and the files lack.
    #[error("{path}: {count} of the model's {total} tensors are missing, the first is `{first}`", path = path.display())]
    Missing {
        /// The model.
        path: PathBuf,
        /// How many.
        count: usize,
        /// Of how many.
        total: usize,
        /// The first one, as the file would name it.
        first: String,
    },
    /// A tensor of another shape than the configuration says.
    #[error("{path}: tensor `{name}` has shape {found:?}, the configuration asks for {expected:?}", path = path.display())]
    Shape {
        /// The model.
        path: PathBuf,
        /// The tensor, as the file names it.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape described.
        expected: Vec<usize>,
    },
    /// A name outside the network.
    #[error("tensor `{name}` is not part of the model")]
    Unknown {
        /// The name asked for.
        name: String,
    },
}

/// What names of tensors inside blocks begin with.
const BLOCKS: &str = "model.layers.";

/// Where a model's tokenizer is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerFiles {
    /// `tokenizer.json`, `tokenizer_config.json` and so on lie in this folder.
    Folder(PathBuf),
    /// In the metadata of [`Weights::gguf`].
    Gguf,
}

/// An open model.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    spec: DecoderSpec,
    shapes: HashMap<String, Vec<usize>>,
    files: Files,
    rounding: Option<Rounding>,
}

/// Makes of a matrix's numbers those that a frozen base kept of them.
pub type Rounding = fn(&mut [f32]);

#[derive(Debug)]
enum Files {
    Folder(folder::Folder),
    Gguf { file: gguf::File, permuted: bool },
}

impl Weights {
    /// Opens a folder or a `.gguf` file and checks that every tensor of the network is there with the right shape.
    pub fn open(path: &Path) -> Result<Weights, WeightsError> {
        let (spec, files) = match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                let (spec, folder) = folder::Folder::open(path)?;
                (spec, Files::Folder(folder))
            }
            Ok(_) => open_gguf(path)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(WeightsError::NotFound { path: path.to_path_buf() });
            }
            Err(source) => return Err(WeightsError::Io { path: path.to_path_buf(), source }),
        };
        let shapes = spec.tensors().into_iter().collect();
        let weights = Weights { path: path.to_path_buf(), spec, shapes, files, rounding: None };
        weights.check_inventory()?;
        Ok(weights)
    }

    /// The same model whose blocks' matrices read as `rounding` leaves them: what an adapter was trained over where the base was kept in
    /// fewer bits. Fingerprint and everything else stay those of the files.
    pub fn rounded(self, rounding: Rounding) -> Weights {
        Weights { rounding: Some(rounding), ..self }
    }

    /// What the network is.
    pub fn spec(&self) -> &DecoderSpec {
        &self.spec
    }

    /// A tensor as f32, by its Hugging Face name (those of [`DecoderSpec::tensors`]).
    pub fn read(&self, name: &str) -> Result<HostTensor, WeightsError> {
        let mut tensor = self.read_whole(name)?;
        if let Some(rounding) = self.rounding
            && tensor.shape.len() == 2
            && name.starts_with(BLOCKS)
        {
            rounding(&mut tensor.data);
        }
        Ok(tensor)
    }

    fn read_whole(&self, name: &str) -> Result<HostTensor, WeightsError> {
        let shape = self.shapes.get(name).ok_or_else(|| WeightsError::Unknown { name: name.to_string() })?;
        match &self.files {
            Files::Folder(folder) => folder.read(name),
            Files::Gguf { file, permuted } => {
                let own =
                    names::gguf(name, self.spec.family).ok_or_else(|| WeightsError::Unknown { name: name.into() })?;
                let data = file.read(&own)?;
                let heads = permuted.then(|| names::rotary_heads(name, &self.spec)).flatten();
                let data = match heads {
                    Some(heads) => names::unpermuted(&data, heads, self.spec.head_dim),
                    None => data,
                };
                Ok(HostTensor { shape: shape.clone(), data })
            }
        }
    }

    /// What this model's files hold more in a tensor than Hugging Face's would: llama.cpp's converter adds the 1 of Gemma's `1 + w`.
    pub fn norm_excess(&self, name: &str) -> f32 {
        let holds_more = self.gguf().is_some() && self.spec.family == Family::Gemma3;
        if holds_more && name.ends_with("norm.weight") { 1.0 } else { 0.0 }
    }

    /// The number format that a tensor is stored in; `None` for GGUF's, and for names outside the model.
    pub fn format(&self, name: &str) -> Option<Format> {
        match &self.files {
            Files::Folder(folder) => folder.format(name),
            Files::Gguf { .. } => None,
        }
    }

    /// The GGUF file, where the model is one: it holds the tokenizer and the chat template too.
    pub fn gguf(&self) -> Option<&gguf::File> {
        match &self.files {
            Files::Gguf { file, .. } => Some(file),
            Files::Folder(_) => None,
        }
    }

    /// The Hugging Face folder, where the model is one.
    pub fn folder(&self) -> Option<&Path> {
        match &self.files {
            Files::Folder(_) => Some(&self.path),
            Files::Gguf { .. } => None,
        }
    }

    /// Where the tokenizer is found.
    pub fn tokenizer(&self) -> TokenizerFiles {
        match &self.files {
            Files::Folder(_) => TokenizerFiles::Folder(self.path.clone()),
            Files::Gguf { .. } => TokenizerFiles::Gguf,
        }
    }

    /// Size of the weight files.
    pub fn bytes_on_disk(&self) -> u64 {
        match &self.files {
            Files::Folder(folder) => folder.bytes(),
            Files::Gguf { file, .. } => file.bytes(),
        }
    }

    /// Name and shape of a tensor as the files have it.
    fn stored(&self, name: &str) -> (String, Option<&[usize]>) {
        match &self.files {
            Files::Folder(folder) => (name.to_string(), folder.shape(name)),
            Files::Gguf { file, .. } => {
                let own = names::gguf(name, self.spec.family).unwrap_or_else(|| name.to_string());
                let shape = file.tensor(&own).map(|info| info.shape.as_slice());
                (own, shape)
            }
        }
    }

    fn check_inventory(&self) -> Result<(), WeightsError> {
        let wanted = self.spec.tensors();
        let mut missing = Vec::new();
        for (name, expected) in &wanted {
            match self.stored(name) {
                (own, None) => missing.push(own),
                (own, Some(found)) if found != expected.as_slice() => {
                    let (found, expected) = (found.to_vec(), expected.clone());
                    return Err(WeightsError::Shape { path: self.path.clone(), name: own, found, expected });
                }
                _ => {}
            }
            if let Files::Folder(folder) = &self.files {
                folder.check_format(name)?;
            }
        }
        match missing.first() {
            None => Ok(()),
            Some(first) => Err(WeightsError::Missing {
                path: self.path.clone(),
                count: missing.len(),
                total: wanted.len(),
                first: first.clone(),
            }),
        }
    }
}

fn open_gguf(path: &Path) -> Result<(DecoderSpec, Files), WeightsError> {
    let file = gguf::File::open(path)?;
    let has = |name: &str| file.tensor(name).is_some();
    let facts = GgufFacts {
        vocabulary: file.tensor("token_embd.weight").map_or(0, |info| info.shape[0]),
        tied_head: !has("output.weight"),
        qkv_bias: has("blk.0.attn_q.bias"),
        output_bias: has("blk.0.attn_output.bias"),
        mlp_bias: has("blk.0.ffn_up.bias"),
        rope_divisors: match has("rope_freqs.weight") {
            true => Some(file.read("rope_freqs.weight")?),
            false => None,
        },
    };
    if facts.vocabulary == 0 {
        let (path, first) = (path.to_path_buf(), "token_embd.weight".to_string());
        return Err(WeightsError::Missing { path, count: 1, total: file.tensors().len(), first });
    }
    let lookup = |key: &str| file.metadata().get(key).map(described);
    let spec =
        from_gguf(&lookup, &facts).map_err(|source| WeightsError::Config { path: path.to_path_buf(), source })?;
    // llama.cpp's converter interleaves the rotary halves of q and k for this architecture name only.
    let permuted = lookup("general.architecture") == Some(MetadataValue::Text("llama".into()));
    Ok((spec, Files::Gguf { file, permuted }))
}

fn described(value: &Value) -> MetadataValue {
    match value {
        Value::Unsigned(value) => MetadataValue::Unsigned(*value),
        Value::Signed(value) => u64::try_from(*value).map_or(MetadataValue::Other, MetadataValue::Unsigned),
        Value::Float(value) => MetadataValue::Float(*value),
        Value::Bool(value) => MetadataValue::Bool(*value),
        Value::Text(text) => MetadataValue::Text(text.clone()),
        Value::Array(Array::Integers(list)) => {
            let unsigned: Option<Vec<u64>> = list.iter().map(|&n| u64::try_from(n).ok()).collect();
            unsigned.map_or(MetadataValue::Other, MetadataValue::UnsignedList)
        }
        Value::Array(_) => MetadataValue::Other,
    }
}
