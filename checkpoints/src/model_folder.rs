//! A trained model as a Hugging Face folder: safetensors in one file or in shards with their index, small files beside them.
//!
//! In:    tensors under transformers' names, produced piece by piece; small files to put beside them.
//! Out:   a folder that is there whole or not at all.
//! Never: holds a tensor in memory.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

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

/// Largest file of weights unless told otherwise: what the hub's tools split at since 2024.
pub const SHARD_BYTES: u64 = 5_000_000_000;
/// The weights, where one file holds them.
pub(crate) const SINGLE: &str = "model.safetensors";
/// Which shard holds which tensor.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

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

/// Writes the folder, replacing what was there; files of weights hold [`SHARD_BYTES`] at most.
pub fn write_model(target: &Path, tensors: Vec<StreamedTensor>, files: &[SideFile]) -> Result<(), DurableError> {
    let staging = staging_folder(target)?;
    stage_model(&staging, tensors, files, SHARD_BYTES)?;
    publish_directory(&staging, target)
}

/// Fills a staging folder; the caller publishes it. Every file is synced.
pub fn stage_model(
    staging: &Path,
    tensors: Vec<StreamedTensor>,
    files: &[SideFile],
    shard_bytes: u64,
) -> Result<(), DurableError> {
    let numbers = |tensor: &StreamedTensor| tensor.bytes() / tensor.format.bytes();
    let total_parameters: u64 = tensors.iter().map(numbers).sum();
    let total_size: u64 = tensors.iter().map(StreamedTensor::bytes).sum();
    let shards = shards(tensors, shard_bytes);
    let of = shards.len();
    let mut places = BTreeMap::new();
    for (number, tensors) in shards.into_iter().enumerate() {
        let name = shard_name(number, of);
        places.extend(tensors.iter().map(|tensor| (tensor.name.clone(), name.clone())));
        write_streamed(&staging.join(&name), tensors)?;
    }
    if of > 1 {
        let metadata = json!({ "total_parameters": total_parameters, "total_size": total_size });
        let index = format!("{:#}\n", json!({ "metadata": metadata, "weight_map": places }));
        write_staged(&staging.join(INDEX), index.as_bytes())?;
    }
    for file in files {
        write_staged(&staging.join(&file.name), &file.bytes)?;
    }
    Ok(())
}

/// Cuts a model's tensors, in their order, into shards of at most `shard_bytes`; a larger tensor has one for itself.
fn shards(tensors: Vec<StreamedTensor>, shard_bytes: u64) -> Vec<Vec<StreamedTensor>> {
    let mut shards = vec![Vec::new()];
    let mut filled = 0u64;
    for tensor in tensors {
        let bytes = tensor.bytes();
        if filled > 0 && filled + bytes > shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        shards.last_mut().expect("there is always one shard").push(tensor);
    }
    shards
}

/// As transformers names them.
fn shard_name(number: usize, of: usize) -> String {
    match of {
        1 => SINGLE.to_string(),
        _ => format!("model-{:05}-of-{of:05}.safetensors", number + 1),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tensors::{NamedTensor, TensorFile};

    fn write(folder: &Path, shard_bytes: u64) -> Vec<String> {
        let data: Vec<Vec<f32>> = [6, 2, 3, 1].map(|numbers| vec![numbers as f32; numbers]).into();
        let named = data.iter().enumerate().map(|(at, data)| {
            StreamedTensor::from(NamedTensor { name: format!("t{at}"), shape: vec![data.len()], data })
        });
        let staging = staging_folder(folder).unwrap();
        stage_model(&staging, named.collect(), &[], shard_bytes).unwrap();
        publish_directory(&staging, folder).unwrap();
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn shards_hold_at_most_their_bytes_and_the_index_says_where_each_tensor_is() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        let names = write(&target, 20);
        let shard = |number| format!("model-{number:05}-of-00003.safetensors");
        assert_eq!(names, [shard(1), shard(2), shard(3), INDEX.to_string()]);
        let index: serde_json::Value = serde_json::from_slice(&std::fs::read(target.join(INDEX)).unwrap()).unwrap();
        assert_eq!(index["metadata"], json!({ "total_parameters": 12, "total_size": 48 }));
        let places = [("t0", 1), ("t1", 2), ("t2", 2), ("t3", 3)];
        for (name, number) in places {
            assert_eq!(index["weight_map"][name], shard(number), "t0 alone is larger than a shard");
            assert!(TensorFile::open(&target.join(shard(number))).unwrap().shape(name).is_some());
        }
    }

    #[test]
    fn what_fits_one_file_has_no_index_and_replaces_shards_whole() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        write(&target, 4);
        assert_eq!(write(&target, 48), [SINGLE]);
    }
}
