//! A model out of a Hugging Face repository, through the hf-hub crate.
//!
//! In:    repository, revision, perhaps one file.
//! Out:   a folder with configuration, tokenizer and safetensors (or the one file), in the cache.
//! Never: asks the network for what the cache holds whole; takes a file name from the hub that leads out of the folder.

use std::path::{Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use serde::{Deserialize, Serialize};

use super::{FetchEvent, FetchOptions, Place, SourceError};
use crate::weights::folder::{index_files, is_plain_name};
use offload::durable::publish_file;

/// Files besides weights that are taken where a repository has them.
const COMPANIONS: [&str; 11] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
];
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Written after the last file of a download: what is complete in the cache.
#[derive(Serialize, Deserialize)]
struct Complete {
    path: PathBuf,
    files: Vec<(PathBuf, u64)>,
}

pub(super) fn fetch(
    place: &Place,
    repo: &str,
    revision: &str,
    file: Option<&str>,
    options: &FetchOptions,
    progress: &mut dyn FnMut(FetchEvent),
) -> Result<PathBuf, SourceError> {
    let cache = std::path::absolute(options.cache.join("hub"))
        .map_err(|source| SourceError::Io { path: options.cache.clone(), source })?;
    let marker = cache.join("complete").join(marker_name(repo, revision, file));
    if let Some(path) = cached(&marker) {
        return Ok(path);
    }
    if options.offline {
        return Err(SourceError::Offline { place: place.clone() });
    }
    let refused = |problem: String| SourceError::Hub { repo: repo.to_string(), problem };
    let api = connect(&cache, options).map_err(|error| refused(error.to_string()))?;
    let remote = api.repo(Repo::with_revision(repo.to_string(), RepoType::Model, revision.to_string()));
    let files = match file {
        Some(file) => vec![download(&remote, file, progress).map_err(refused)?],
        None => download_folder(&remote, progress).map_err(refused)?,
    };
    let first = files.first().ok_or_else(|| refused("nothing was downloaded".into()))?.clone();
    let path = match file {
        Some(_) => first,
        None => first.parent().map(Path::to_path_buf).unwrap_or(first),
    };
    mark(&marker, &path, &files)?;
    Ok(path)
}

fn connect(cache: &Path, options: &FetchOptions) -> Result<hf_hub::api::sync::Api, ApiError> {
    let builder = ApiBuilder::from_cache(Cache::new(cache.to_path_buf()))
        .with_progress(false)
        .with_retries(3)
        .with_token(options.hub_token.clone());
    match &options.hub_endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint.trim_end_matches('/').to_string()).build(),
        None => builder.build(),
    }
}

fn marker_name(repo: &str, revision: &str, file: Option<&str>) -> String {
    let all = format!("{repo}@{revision}{}", file.map(|file| format!("/{file}")).unwrap_or_default());
    format!("{}.json", super::digest_of_bytes(all.as_bytes()))
}

/// The path of a complete download, if every file still has its size.
fn cached(marker: &Path) -> Option<PathBuf> {
    let complete: Complete = serde_json::from_slice(&std::fs::read(marker).ok()?).ok()?;
    let whole = |(path, bytes): &(PathBuf, u64)| std::fs::metadata(path).is_ok_and(|found| found.len() == *bytes);
    complete.files.iter().all(whole).then_some(complete.path)
}

fn mark(marker: &Path, path: &Path, files: &[PathBuf]) -> Result<(), SourceError> {
    let mut sized = Vec::new();
    for file in files {
        let metadata = std::fs::metadata(file).map_err(|source| SourceError::Io { path: file.clone(), source })?;
        sized.push((file.clone(), metadata.len()));
    }
    let complete = Complete { path: path.to_path_buf(), files: sized };
    let text = serde_json::to_string_pretty(&complete).expect("paths and sizes are always JSON");
    Ok(publish_file(marker, text.as_bytes())?)
}

/// Downloads what fine-tuning needs; other files of the repository are left alone.
fn download_folder(remote: &ApiRepo, progress: &mut dyn FnMut(FetchEvent)) -> Result<Vec<PathBuf>, String> {
    let info = remote.info().map_err(|error| error.to_string())?;
    let offered: Vec<&str> = info.siblings.iter().map(|sibling| sibling.rfilename.as_str()).collect();
    if !offered.contains(&"config.json") {
        return Err("the repository has no config.json; name one file of it as hf:owner/name/file".into());
    }
    let mut files = Vec::new();
    for name in COMPANIONS.iter().filter(|name| offered.contains(name)) {
        files.push(download(remote, name, progress)?);
    }
    if offered.contains(&SINGLE) {
        files.push(download(remote, SINGLE, progress)?);
        return Ok(files);
    }
    if !offered.contains(&INDEX) {
        return Err(format!("the repository has neither {SINGLE} nor {INDEX}"));
    }
    let index = download(remote, INDEX, progress)?;
    let text = std::fs::read_to_string(&index).map_err(|error| error.to_string())?;
    files.push(index);
    for shard in index_files(&text).map_err(|problem| format!("{INDEX}: {problem}"))? {
        files.push(download(remote, &shard, progress)?);
    }
    Ok(files)
}

fn download(remote: &ApiRepo, name: &str, progress: &mut dyn FnMut(FetchEvent)) -> Result<PathBuf, String> {
    if !name.split('/').all(is_plain_name) {
        return Err(format!("{name:?} is not a file name"));
    }
    let mut expected = 0;
    let relay = Relay { progress, expected: &mut expected };
    let path = remote.download_with_progress(name, relay).map_err(|error| format!("{name}: {error}"))?;
    // hf-hub does not compare sizes after a transfer.
    let found = std::fs::metadata(&path).map_err(|error| format!("{name}: {error}"))?.len();
    if found == expected {
        return Ok(path);
    }
    if let Ok(blob) = std::fs::canonicalize(&path) {
        std::fs::remove_file(blob).map_err(|error| format!("{name}: {error}"))?;
    }
    std::fs::remove_file(&path).map_err(|error| format!("{name}: {error}"))?;
    Err(format!("{name}: {found} of {expected} bytes arrived; try again"))
}

/// Passes hf-hub's progress on, and remembers the size it was told.
struct Relay<'a> {
    progress: &'a mut dyn FnMut(FetchEvent),
    expected: &'a mut u64,
}

impl Progress for Relay<'_> {
    fn init(&mut self, size: usize, filename: &str) {
        // Called once before a transfer and once in it.
        if *self.expected != size as u64 {
            *self.expected = size as u64;
            (self.progress)(FetchEvent::FileStarted { name: filename.to_string(), bytes: size as u64 });
        }
    }

    fn update(&mut self, size: usize) {
        (self.progress)(FetchEvent::Received(size as u64));
    }

    fn finish(&mut self) {
        (self.progress)(FetchEvent::FileDone);
    }
}
