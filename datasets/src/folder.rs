//! A Hugging Face folder's tokenizer files, in their old and new spellings.
//!
//! In:    `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja`, `generation_config.json`, `config.json`.
//! Out:   the checked `tokenizer.json` and what the others say.
//! Never: requires any but `tokenizer.json`.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

use crate::error::DataError;
use crate::tokenizer::Facts;

/// What the configuration files say, special tokens still by name.
#[derive(Debug, Default)]
pub(crate) struct Named {
    place: String,
    bos: Option<String>,
    eos: Option<String>,
    eos_ids: Vec<u32>,
    bos_id: Option<u32>,
    add_bos: Option<bool>,
    chat_template: Option<String>,
}

/// Reads the folder.
pub(crate) fn read(folder: &Path) -> Result<(Value, Named), DataError> {
    let path = folder.join("tokenizer.json");
    let Some(tokenizer) = json(&path)? else {
        return Err(DataError::NoTokenizerFile { path });
    };
    check_merges(&path, &tokenizer)?;
    let config = json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
    let mut named = Named {
        place: path.display().to_string(),
        bos: token_name(&config["bos_token"]),
        eos: token_name(&config["eos_token"]),
        add_bos: config["add_bos_token"].as_bool(),
        chat_template: template(folder, &config)?,
        ..Named::default()
    };
    for name in ["generation_config.json", "config.json"] {
        let config = json(&folder.join(name))?.unwrap_or_default();
        for section in [&config, &config["text_config"]] {
            named.eos_ids.extend(ids(&section["eos_token_id"]));
            named.bos_id = named.bos_id.or_else(|| ids(&section["bos_token_id"]).first().copied());
        }
    }
    Ok((tokenizer, named))
}

/// Looks the names up in the tokenizer.
pub(crate) fn resolve(named: Named, inner: &tokenizers::Tokenizer) -> Result<Facts, DataError> {
    let id = |name: &Option<String>| -> Result<Option<u32>, DataError> {
        let Some(name) = name else { return Ok(None) };
        let missing = || {
            DataError::tokenizer(&named.place, format!("tokenizer_config.json names {name:?}, not in the vocabulary"))
        };
        inner.token_to_id(name).ok_or_else(missing).map(Some)
    };
    let bos = id(&named.bos)?.or(named.bos_id);
    let mut eos: Vec<u32> = Vec::new();
    for candidate in id(&named.eos)?.into_iter().chain(named.eos_ids.iter().copied()) {
        if !eos.contains(&candidate) {
            eos.push(candidate);
        }
    }
    let adds_bos = match named.add_bos {
        Some(answer) => answer,
        None => {
            let probe = inner.encode("a", true).map_err(|error| DataError::tokenizer(&named.place, error))?;
            bos.is_some() && probe.get_ids().first().copied() == bos
        }
    };
    Ok(Facts { bos, eos, adds_bos, chat_template: named.chat_template, place: named.place })
}

/// Parses a file; `None` where there is none.
pub(crate) fn json(path: &Path) -> Result<Option<Value>, DataError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DataError::Read { path: path.to_path_buf(), source }),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| DataError::tokenizer(path.display().to_string(), error))
}

/// A token as a string, or as an object with `content`.
pub(crate) fn token_name(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// One id or a list of them.
fn ids(value: &Value) -> Vec<u32> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(list) => list.iter().filter_map(one).collect(),
        other => one(other).into_iter().collect(),
    }
}

/// `chat_template.jinja` wins over `tokenizer_config.json`, where it is a string or a list of named templates.
fn template(folder: &Path, config: &Value) -> Result<Option<String>, DataError> {
    let path = folder.join("chat_template.jinja");
    match std::fs::read_to_string(&path) {
        Ok(text) => return Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(DataError::Read { path, source }),
    }
    Ok(match &config["chat_template"] {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => {
            let named = |name: &str| list.iter().find(|entry| entry["name"] == name);
            named("default").or(list.first()).and_then(|entry| entry["template"].as_str()).map(str::to_owned)
        }
        _ => None,
    })
}

/// The tokenizers crate copies merged pieces into a buffer as long as the longest token, unchecked.
fn check_merges(path: &Path, tokenizer: &Value) -> Result<(), DataError> {
    let model = &tokenizer["model"];
    let (Some(merges), Some(vocabulary)) = (model["merges"].as_array(), model["vocab"].as_object()) else {
        return Ok(());
    };
    let pieces: HashSet<&str> = vocabulary.keys().map(String::as_str).collect();
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or("");
    for (index, merge) in merges.iter().enumerate() {
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            other => other[0].as_str().zip(other[1].as_str()),
        };
        let known = pair.is_some_and(|(left, right)| {
            right.strip_prefix(prefix).is_some_and(|rest| pieces.contains(format!("{left}{rest}").as_str()))
        });
        if !known {
            return Err(DataError::tokenizer(
                path.display().to_string(),
                format!("merge {index} ({merge}) does not give a token of the vocabulary"),
            ));
        }
    }
    Ok(())
}
