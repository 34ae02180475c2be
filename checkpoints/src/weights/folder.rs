//! A Hugging Face folder: `config.json` and one or more safetensors files.
//!
//! In:    the folder.
//! Out:   the network's description, and tensors by the names of the text decoder.
//! Never: follows an index out of the folder.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use planner::architecture::{DecoderSpec, Family};
use planner::config::from_hf;

use super::{HostTensor, WeightsError};
use crate::model_folder::{INDEX, SINGLE};
use crate::stream::Format;
use crate::tensors::TensorFile;

/// Largest `config.json` or index that is read; real ones stay under 10 MB.
const JSON_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug)]
pub(super) struct Folder {
    shards: Vec<TensorFile>,
    places: HashMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    shard: usize,
    stored_name: String,
    shape: Vec<usize>,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<(DecoderSpec, Folder), WeightsError> {
        let config = path.join("config.json");
        let spec = from_hf(&text(&config)?).map_err(|source| WeightsError::Config { path: config.clone(), source })?;
        let mut shards = Vec::new();
        for file in shard_files(path)? {
            shards.push(TensorFile::open(&file)?);
        }
        let mut places = HashMap::new();
        for (shard, file) in shards.iter().enumerate() {
            for (name, shape) in file.tensors() {
                let place = Place { shard, stored_name: name.to_string(), shape: shape.to_vec() };
                places.insert(decoder_name(name, spec.family), place);
            }
        }
        Ok((spec, Folder { shards, places }))
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.places.get(name).map(|place| place.shape.as_slice())
    }

    pub(super) fn check_format(&self, name: &str) -> Result<(), WeightsError> {
        match self.places.get(name) {
            Some(place) => Ok(self.shards[place.shard].check_format(&place.stored_name)?),
            None => Ok(()),
        }
    }

    pub(super) fn read(&self, name: &str) -> Result<HostTensor, WeightsError> {
        let place = self.places.get(name).ok_or_else(|| WeightsError::Unknown { name: name.to_string() })?;
        Ok(self.shards[place.shard].read(&place.stored_name)?)
    }

    pub(super) fn shards(&self) -> &[TensorFile] {
        &self.shards
    }

    pub(super) fn format(&self, name: &str) -> Option<Format> {
        let place = self.places.get(name)?;
        self.shards[place.shard].format(&place.stored_name)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.shards.iter().map(TensorFile::bytes).sum()
    }
}

/// Names of multimodal Gemma 3 files carry the path to their text decoder, in two spellings.
fn decoder_name(stored: &str, family: Family) -> String {
    let inner = match family {
        Family::Gemma3 => stored
            .strip_prefix("language_model.")
            .map(str::to_string)
            .or_else(|| stored.strip_prefix("model.language_model.").map(|rest| format!("model.{rest}"))),
        _ => None,
    };
    inner.unwrap_or_else(|| stored.to_string())
}

fn text(path: &Path) -> Result<String, WeightsError> {
    let refused = |source| WeightsError::Io { path: path.to_path_buf(), source };
    let length = std::fs::metadata(path).map_err(refused)?.len();
    if length > JSON_BYTES_MAX {
        let problem = format!("{length} bytes; a file of this name is never larger than {JSON_BYTES_MAX}");
        return Err(WeightsError::Folder { path: path.to_path_buf(), problem });
    }
    std::fs::read_to_string(path).map_err(refused)
}

/// `model.safetensors`, or what the index names, as transformers chooses.
fn shard_files(folder: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    let single = folder.join(SINGLE);
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = folder.join(INDEX);
    if !index.is_file() {
        let problem =
            format!("holds neither {SINGLE} nor {INDEX}; other formats must be converted to safetensors first");
        return Err(WeightsError::Folder { path: folder.to_path_buf(), problem });
    }
    let broken = |problem: String| WeightsError::Folder { path: index.clone(), problem };
    let names = index_files(&text(&index)?).map_err(broken)?;
    Ok(names.iter().map(|name| folder.join(name)).collect())
}

/// Distinct file names of an index, in order.
pub(crate) fn index_files(text: &str) -> Result<BTreeSet<String>, String> {
    let json: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let map = json.get("weight_map").and_then(serde_json::Value::as_object).ok_or("`weight_map` is missing")?;
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        let name = file.as_str().ok_or_else(|| format!("the file of `{tensor}` is not a string"))?;
        if !is_plain_name(name) {
            return Err(format!("the file of `{tensor}` is {name:?}, which is not a plain file name"));
        }
        names.insert(name.to_string());
    }
    match names.is_empty() {
        true => Err("`weight_map` is empty".into()),
        false => Ok(names),
    }
}

/// Whether a name can only mean a file inside the folder at hand.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}
