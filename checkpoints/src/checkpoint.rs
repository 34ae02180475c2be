//! Checkpoints of a run: `checkpoints/step-000100/` with `state.safetensors` and a manifest that vouches for it.
//!
//! In:    named tensors and the position of a run.
//! Out:   a folder that is complete or absent; on the way back, every byte compared with the manifest's digests.
//! Never: hands out a damaged state; removes the last complete checkpoint.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::source::digest_of_file;
use crate::stream::{StreamedTensor, write_streamed};
use crate::tensors::{TensorFile, TensorsError};
use offload::durable::{DurableError, publish_directory, remove_folder, staging_folder, write_staged};

#[cfg(test)]
mod tests;

const FOLDER: &str = "checkpoints";
const MANIFEST: &str = "manifest.json";
const STATE: &str = "state.safetensors";
const VERSION: u32 = 1;
/// A manifest holds two losses a step at most; 64 MB are millions of steps.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// It could not be published.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A folder or file that the system refuses.
    #[error("{path}: cannot be read: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A checkpoint that is not what its manifest says.
    #[error("{path}: checkpoint is damaged or incomplete: {reason}", path = path.display())]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A state that must not be kept.
    #[error("step {step}: the loss {loss} is not finite; the state is not kept")]
    NotFinite {
        /// The step.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// The state's tensor file is damaged.
    #[error(transparent)]
    Tensors(#[from] TensorsError),
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Optimizer updates done.
    pub step: u64,
    /// Pass over the data.
    pub epoch: u64,
    /// Rows of this pass that are done.
    pub position_in_epoch: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Identifies the plan that made the state; a resume with another plan is refused by the caller.
    pub plan_fingerprint: String,
    /// Losses of the last steps, oldest first.
    pub losses: Vec<f64>,
    /// Bytes that the run has written to NVMe tiers.
    #[serde(default)]
    pub nvme_written_bytes: u64,
}

/// What a checkpoint keeps: parameters and optimizer state, under names the trainer chooses.
pub struct State<'a> {
    /// Where the run stands.
    pub position: Position,
    /// The tensors, read where they are while the file is written.
    pub tensors: Vec<StreamedTensor<'a>>,
}

/// A checkpoint whose every byte is as written.
#[derive(Debug)]
pub struct Restored {
    /// Its folder.
    pub path: PathBuf,
    /// Where the run stood.
    pub position: Position,
    /// The tensors, mapped.
    pub tensors: TensorFile,
}

/// A checkpoint that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Its folder.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
}

/// What [`newest_complete`] found.
#[derive(Debug)]
pub struct Found {
    /// The newest checkpoint whose every byte is as written.
    pub newest: Option<Restored>,
    /// Newer ones that are damaged or incomplete.
    pub damaged: Vec<Damaged>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format_version: u32,
    position: Position,
    files: Vec<FileRecord>,
    /// SHA-256 of this manifest with this field empty.
    checksum: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRecord {
    name: String,
    bytes: u64,
    sha256: String,
}

impl Manifest {
    fn text(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("a struct of numbers and strings is always JSON");
        format!("{text}\n")
    }

    fn own_checksum(&self) -> String {
        let bare = Manifest { checksum: String::new(), ..self.clone() };
        crate::source::digest_of_bytes(bare.text().as_bytes())
    }
}

/// Writes `run/checkpoints/step-NNNNNN` and returns its path. Files first, manifest last, one rename at the end.
pub fn write(run: &Path, state: State) -> Result<PathBuf, CheckpointError> {
    let step = state.position.step;
    if let Some(&loss) = state.position.losses.iter().find(|loss| !loss.is_finite()) {
        return Err(CheckpointError::NotFinite { step, loss });
    }
    let target = run.join(FOLDER).join(format!("step-{step:06}"));
    let staging = staging_folder(&target)?;
    let file = staging.join(STATE);
    let written = write_streamed(&file, state.tensors)?;
    let mut manifest = Manifest {
        format_version: VERSION,
        position: state.position,
        files: vec![FileRecord { name: STATE.into(), bytes: written.bytes, sha256: written.sha256 }],
        checksum: String::new(),
    };
    manifest.checksum = manifest.own_checksum();
    write_staged(&staging.join(MANIFEST), manifest.text().as_bytes())?;
    publish_directory(&staging, &target)?;
    Ok(target)
}

/// Opens a checkpoint after comparing every byte with its manifest.
pub fn open(folder: &Path) -> Result<Restored, CheckpointError> {
    let manifest = verify(folder)?;
    let tensors = TensorFile::open(&folder.join(STATE))?;
    Ok(Restored { path: folder.to_path_buf(), position: manifest.position, tensors })
}

/// The newest checkpoint of a run that is complete; damaged newer ones are listed, never used.
pub fn newest_complete(run: &Path) -> Result<Found, CheckpointError> {
    let mut damaged = Vec::new();
    for (_, path) in steps(run)?.into_iter().rev() {
        match open(&path) {
            Ok(restored) => return Ok(Found { newest: Some(restored), damaged }),
            Err(CheckpointError::Damaged { path, reason }) => damaged.push(Damaged { path, reason }),
            Err(other) => return Err(other),
        }
    }
    Ok(Found { newest: None, damaged })
}

/// Removes all but the newest `keep_last` complete checkpoints (at least one stays), older damaged ones, and what a killed run left.
/// Returns what was removed.
pub fn prune(run: &Path, keep_last: usize) -> Result<Vec<PathBuf>, CheckpointError> {
    let mut kept = 0;
    let mut removed = Vec::new();
    for (_, path) in steps(run)?.into_iter().rev() {
        if kept >= keep_last.max(1) {
            // Under another name first: a kill halfway leaves no folder that looks like a checkpoint.
            let staging = staging_folder(&path)?;
            remove_folder(&staging)?;
            fs::rename(&path, &staging).map_err(|source| DurableError::io("rename", &path, source))?;
            remove_folder(&staging)?;
            removed.push(path);
        } else if quick_look(&path).is_ok() {
            kept += 1;
        }
    }
    Ok(removed)
}

/// Every folder that is named like a checkpoint, oldest first, and its step.
pub fn steps(run: &Path) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
    let folder = run.join(FOLDER);
    let refused = |source| CheckpointError::Io { path: folder.clone(), source };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(refused(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(refused)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(step) = name.strip_prefix("step-").and_then(|digits| digits.parse().ok()) {
            found.push((step, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Compares every file with the manifest's sizes and digests.
pub fn verify_position(folder: &Path) -> Result<Position, CheckpointError> {
    verify(folder).map(|manifest| manifest.position)
}

fn verify(folder: &Path) -> Result<Manifest, CheckpointError> {
    let manifest = quick_look(folder)?;
    for record in &manifest.files {
        let path = folder.join(&record.name);
        let (_, found) = digest_of_file(&path).map_err(|error| damaged(folder, format!("{}: {error}", record.name)))?;
        if found != record.sha256 {
            let reason = format!("{} has SHA-256 {found}, the manifest says {}", record.name, record.sha256);
            return Err(damaged(folder, reason));
        }
    }
    Ok(manifest)
}

/// Manifest and sizes only: enough to tell a complete checkpoint from a cut one.
fn quick_look(folder: &Path) -> Result<Manifest, CheckpointError> {
    let path = folder.join(MANIFEST);
    let text = fs::metadata(&path).and_then(|metadata| match metadata.len() > MANIFEST_BYTES_MAX {
        true => Err(std::io::ErrorKind::FileTooLarge.into()),
        false => fs::read_to_string(&path),
    });
    let text = text.map_err(|error| damaged(folder, format!("{MANIFEST}: {error}")))?;
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|error| damaged(folder, format!("{MANIFEST}: {error}")))?;
    if manifest.format_version != VERSION {
        let reason = format!("format version {}; this program reads {VERSION}", manifest.format_version);
        return Err(damaged(folder, reason));
    }
    if manifest.checksum != manifest.own_checksum() {
        return Err(damaged(folder, format!("{MANIFEST} was changed after it was written")));
    }
    for record in &manifest.files {
        if record.name != STATE {
            return Err(damaged(folder, format!("unexpected file {:?} in {MANIFEST}", record.name)));
        }
        let length = fs::metadata(folder.join(&record.name)).map(|metadata| metadata.len());
        let length = length.map_err(|error| damaged(folder, format!("{}: {error}", record.name)))?;
        if length != record.bytes {
            let reason = format!("{} has {length} bytes, the manifest says {}", record.name, record.bytes);
            return Err(damaged(folder, reason));
        }
    }
    match manifest.files.len() {
        1 => Ok(manifest),
        n => Err(damaged(folder, format!("{n} files in {MANIFEST}, expected 1"))),
    }
}

fn damaged(folder: &Path, reason: String) -> CheckpointError {
    CheckpointError::Damaged { path: folder.to_path_buf(), reason }
}
