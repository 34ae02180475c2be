//! A trained model as a Hugging Face folder: `model.safetensors` with `config.json` and tokenizer files beside it.
//!
//! In:    tensors under transformers' names, produced piece by piece; small files to put beside them.
//! Out:   a folder that is there whole or not at all.
//! Never: holds a tensor in memory.

use std::path::Path;

use crate::stream::{StreamedTensor, write_streamed};
use offload::durable::{DurableError, publish_directory, staging_folder, write_staged};

/// Files of a source folder that belong to the model whatever its weights are.
pub const SIDE_FILES: [&str; 11] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
];

/// A small file of the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideFile {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Reads those of [`SIDE_FILES`] that `folder` has.
pub fn side_files(folder: &Path) -> Result<Vec<SideFile>, DurableError> {
    let mut found = Vec::new();
    for name in SIDE_FILES {
        let path = folder.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => found.push(SideFile { name: name.to_string(), bytes }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(DurableError::io("read", &path, error)),
        }
    }
    Ok(found)
}

/// Writes the folder, replacing what was there.
pub fn write_model(target: &Path, tensors: Vec<StreamedTensor>, files: &[SideFile]) -> Result<(), DurableError> {
    let staging = staging_folder(target)?;
    write_streamed(&staging.join("model.safetensors"), tensors)?;
    for file in files {
        write_staged(&staging.join(&file.name), &file.bytes)?;
    }
    publish_directory(&staging, target)
}
