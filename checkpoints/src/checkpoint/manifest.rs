//! `manifest.json`: what a checkpoint is and the digests that vouch for it.
//!
//! In:    a folder.
//! Out:   its checked manifest; sizes only, or every byte.
//! Never: believes a version, a name or a size that it did not check.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{CheckpointError, Position};
use crate::source::{digest_of_bytes, digest_of_file};

pub(super) const MANIFEST: &str = "manifest.json";
/// Parameters and optimizer state.
pub(super) const STATE: &str = "state.safetensors";
/// The resolved recipe.
pub(super) const RECIPE: &str = "recipe.toml";
/// Version 1 had no reason, no recipe and no fingerprint of the model.
pub(super) const VERSION: u32 = 2;
/// A manifest holds two losses a step at most; 64 MB are millions of steps.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// Why a checkpoint was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// `checkpoint.every_steps`
    EverySteps,
    /// `checkpoint.every_minutes`
    EveryMinutes,
    /// `tune checkpoints save`
    Requested,
    /// SIGINT or SIGTERM.
    Interrupted,
    /// The next step would have written more to NVMe than the recipe allows.
    WriteBudget,
    /// The run's last step.
    End,
}

impl Reason {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Reason::EverySteps => "every_steps",
            Reason::EveryMinutes => "every_minutes",
            Reason::Requested => "requested",
            Reason::Interrupted => "interrupted",
            Reason::WriteBudget => "write budget",
            Reason::End => "end",
        }
    }
}

/// What is known of a saved state beside where the run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Why it was written.
    pub reason: Reason,
    /// Held-out loss of exactly this state, if it was measured.
    pub held_out_loss: Option<f64>,
    /// Fingerprint of the base model's files.
    pub model: String,
    /// The checkpoint that the run's weights came from, if it did not begin with the base model's.
    pub started_from: Option<String>,
}

/// The manifest of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format.
    pub format_version: u32,
    /// Version of the program that wrote it.
    pub tool_version: String,
    /// When, in seconds since 1970.
    pub saved_at: u64,
    /// What is known of the state.
    pub facts: Facts,
    /// Where the run stood.
    pub position: Position,
    /// Every other file of the folder.
    pub files: Vec<FileRecord>,
    /// SHA-256 of this manifest with this field empty.
    pub(super) checksum: String,
}

/// A file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes, lower-case hexadecimal.
    pub sha256: String,
}

impl FileRecord {
    /// That of a file with these bytes.
    pub(super) fn of(name: &str, bytes: &[u8]) -> FileRecord {
        FileRecord { name: name.to_string(), bytes: bytes.len() as u64, sha256: digest_of_bytes(bytes) }
    }
}

impl Manifest {
    /// A manifest of this version and moment.
    pub(super) fn new(facts: Facts, position: Position, files: Vec<FileRecord>) -> Manifest {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Manifest {
            format_version: VERSION,
            tool_version: env!("CARGO_PKG_VERSION").to_string(),
            saved_at: now.map_or(0, |since| since.as_secs()),
            facts,
            position,
            files,
            checksum: String::new(),
        }
        .sealed()
    }

    /// With the checksum of what it says.
    pub(super) fn sealed(self) -> Manifest {
        let checksum = self.own_checksum();
        Manifest { checksum, ..self }
    }

    pub(super) fn text(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("a struct of numbers and strings is always JSON");
        format!("{text}\n")
    }

    /// Bytes of the whole checkpoint, without the manifest.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    fn own_checksum(&self) -> String {
        let bare = Manifest { checksum: String::new(), ..self.clone() };
        digest_of_bytes(bare.text().as_bytes())
    }

    /// Checked for itself, the files not yet.
    fn read(folder: &Path) -> Result<Manifest, CheckpointError> {
        let path = folder.join(MANIFEST);
        let damaged = |reason: String| CheckpointError::Manifest { path: folder.to_path_buf(), reason };
        let length = length_of(folder, MANIFEST)?;
        if length > MANIFEST_BYTES_MAX {
            return Err(damaged(format!("{length} bytes; none is larger than {MANIFEST_BYTES_MAX}")));
        }
        let text = fs::read(&path).map_err(|source| CheckpointError::Io { path, source })?;
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        let Some(version) = value["format_version"].as_u64() else {
            let reason = "it states no `format_version`".to_string();
            return Err(CheckpointError::Foreign { path: folder.to_path_buf(), reason });
        };
        if version != u64::from(VERSION) {
            let tool = value["tool_version"].as_str().map_or("tune before 0.1.0".into(), |tool| format!("tune {tool}"));
            return Err(CheckpointError::Version { path: folder.to_path_buf(), found: version, tool });
        }
        // From the text, not from the value: a number's last bit must not depend on a detour.
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        match manifest.checksum == manifest.own_checksum() {
            true => Ok(manifest),
            false => Err(damaged("it was changed after it was written".to_string())),
        }
    }
}

/// Manifest, names and sizes: enough to tell a complete checkpoint from a cut one.
pub fn quick_look(folder: &Path) -> Result<Manifest, CheckpointError> {
    let manifest = Manifest::read(folder)?;
    let mut names: Vec<&str> = manifest.files.iter().map(|record| record.name.as_str()).collect();
    names.sort_unstable();
    if names != [RECIPE, STATE] {
        let reason = format!("lists {names:?}, expected {:?}", [RECIPE, STATE]);
        return Err(CheckpointError::Manifest { path: folder.to_path_buf(), reason });
    }
    for FileRecord { name, bytes: expected, .. } in &manifest.files {
        let (bytes, expected) = (length_of(folder, name)?, *expected);
        if bytes != expected {
            return Err(CheckpointError::Size { path: folder.to_path_buf(), file: name.clone(), bytes, expected });
        }
    }
    no_other_file(folder, &names)?;
    Ok(manifest)
}

/// Compares every byte with the manifest's digests.
pub fn verify(folder: &Path) -> Result<Manifest, CheckpointError> {
    let manifest = quick_look(folder)?;
    for FileRecord { name, sha256, .. } in &manifest.files {
        let path = folder.join(name);
        let (_, found) = digest_of_file(&path).map_err(|source| CheckpointError::Io { path, source })?;
        if found != *sha256 {
            let (file, expected) = (name.clone(), sha256.clone());
            return Err(CheckpointError::Digest { path: folder.to_path_buf(), file, found, expected });
        }
    }
    Ok(manifest)
}

fn length_of(folder: &Path, file: &str) -> Result<u64, CheckpointError> {
    let path = folder.join(file);
    match fs::metadata(&path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(CheckpointError::Missing { path: folder.to_path_buf(), file: file.to_string() })
        }
        Err(source) => Err(CheckpointError::Io { path, source }),
    }
}

/// Hidden files are the system's (`.DS_Store`, `.nfs0001`): they change nothing.
fn no_other_file(folder: &Path, names: &[&str]) -> Result<(), CheckpointError> {
    let refused = |source| CheckpointError::Io { path: folder.to_path_buf(), source };
    for entry in fs::read_dir(folder).map_err(refused)? {
        let file = entry.map_err(refused)?.file_name().to_string_lossy().into_owned();
        if file != MANIFEST && !file.starts_with('.') && !names.contains(&file.as_str()) {
            return Err(CheckpointError::ForeignFile { path: folder.to_path_buf(), file });
        }
    }
    Ok(())
}
