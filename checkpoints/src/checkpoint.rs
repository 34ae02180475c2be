//! Checkpoints of a run: `checkpoints/step-000100/` with the state, the recipe, and a manifest that vouches for both.
//!
//! In:    named tensors and the position of a run.
//! Out:   a folder that is complete or absent; on the way back, every byte compared with the manifest's digests.
//! Never: hands out a damaged state; removes the last complete checkpoint.

use std::fs::File;
use std::path::{Path, PathBuf};

use offload::durable::{
    DurableError, publish_directory, publish_file, put_back, remove_folder, staging_folder, write_staged,
};
use serde::{Deserialize, Serialize};

use crate::stream::{StreamedTensor, write_in_order};
use crate::tensors::TensorFile;

mod error;
mod manifest;
#[cfg(test)]
mod power_cut_tests;
mod retention;
#[cfg(test)]
mod tests;

pub use error::CheckpointError;
pub use manifest::{Facts, FileRecord, Manifest, Reason, quick_look, verify};
pub use retention::{Retention, prune, remove, set_aside_after, superseded, surplus};

use manifest::{MANIFEST, RECIPE, STATE};

const FOLDER: &str = "checkpoints";
/// Bytes of a tensor asked for at once. A state is written while training goes on: what this takes comes on top of everything.
const PIECE_BYTES: usize = 256 << 10;

/// Where a run stands. A step is atomic: a state is only ever saved between two of them, never between two micro-batches.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Optimizer updates done.
    pub step: u64,
    /// Updates of the whole run.
    pub steps: u64,
    /// Pass over the data.
    pub epoch: u64,
    /// Steps of this pass that are done: with `seed` and `epoch` the cursor in the data, since the order of rows is a function of those.
    pub position_in_epoch: u64,
    /// Micro-batches added up for the next update: always 0.
    pub micro_batches_done: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Identifies the plan that made the state, as JSON; a resume with another plan is refused by the caller.
    pub plan_fingerprint: String,
    /// Losses of the last steps, oldest first.
    pub losses: Vec<f64>,
    /// Bytes of `metrics.jsonl` that belong to the steps done: where the history of losses stands.
    pub metrics_bytes: u64,
    /// Bytes that the run has written to NVMe tiers.
    pub nvme_written_bytes: u64,
}

/// What a checkpoint keeps: parameters and optimizer state, under names the trainer chooses.
pub struct State<'a> {
    /// Where the run stands.
    pub position: Position,
    /// Where it came from.
    pub facts: Facts,
    /// The resolved recipe, TOML.
    pub recipe: String,
    /// A file outside of the checkpoint that must not fall behind it: synced before the checkpoint gets its name.
    pub history: Option<(PathBuf, File)>,
    /// The tensors in the order of the file, read where they are while it is written.
    pub tensors: Vec<StreamedTensor<'a>>,
}

/// A checkpoint whose every byte is as written.
#[derive(Debug)]
pub struct Restored {
    /// Its folder.
    pub path: PathBuf,
    /// Where the run stood.
    pub position: Position,
    /// Where it came from.
    pub facts: Facts,
    /// The tensors, mapped.
    pub tensors: TensorFile,
}

/// A checkpoint that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Its folder.
    pub path: PathBuf,
    /// What is wrong, with the folder's name.
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

/// A finished save.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The checkpoint.
    pub path: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Writes `run/checkpoints/step-NNNNNN`. Files first, manifest last, one rename at the end; after an error nothing is left.
pub fn write(run: &Path, state: State) -> Result<Saved, CheckpointError> {
    let step = state.position.step;
    if let Some(&loss) = state.position.losses.iter().find(|loss| !loss.is_finite()) {
        return Err(CheckpointError::NotFinite { step, loss });
    }
    let target = folder_of(run, step);
    let staging = staging_folder(&target)?;
    let written = fill(&staging, state).and_then(|bytes| {
        publish_directory(&staging, &target)?;
        Ok(Saved { path: target, bytes })
    });
    if written.is_err() {
        // Best effort: on a full disk what was written so far must not take the place of others. The first error is the one to report.
        let _ = remove_folder(&staging);
    }
    written
}

fn fill(staging: &Path, state: State) -> Result<u64, CheckpointError> {
    // First, and nothing before it: training may wait until the tensors have been read.
    let written = write_in_order(&staging.join(STATE), &state.tensors, PIECE_BYTES)?;
    if let Some((path, file)) = state.history {
        file.sync_data().map_err(|error| DurableError::io("sync", &path, error))?;
    }
    write_staged(&staging.join(RECIPE), state.recipe.as_bytes())?;
    let files = vec![
        FileRecord { name: STATE.into(), bytes: written.bytes, sha256: written.sha256 },
        FileRecord::of(RECIPE, state.recipe.as_bytes()),
    ];
    let manifest = Manifest::new(state.facts, state.position, files);
    write_staged(&staging.join(MANIFEST), manifest.text().as_bytes())?;
    Ok(manifest.bytes())
}

/// Adds the held-out loss, measured after it was written, to a checkpoint.
pub fn note_held_out_loss(folder: &Path, loss: f64) -> Result<(), CheckpointError> {
    let mut manifest = quick_look(folder)?;
    manifest.facts.held_out_loss = Some(loss).filter(|loss| loss.is_finite());
    Ok(publish_file(&folder.join(MANIFEST), manifest.sealed().text().as_bytes())?)
}

/// Opens a checkpoint after comparing every byte with its manifest.
pub fn open(folder: &Path) -> Result<Restored, CheckpointError> {
    let Manifest { position, facts, .. } = verify(folder)?;
    let tensors = TensorFile::open(&folder.join(STATE))?;
    Ok(Restored { path: folder.to_path_buf(), position, facts, tensors })
}

/// Opens the checkpoint of one step.
pub fn open_step(run: &Path, step: u64) -> Result<Restored, CheckpointError> {
    put_back(&folder_of(run, step))?;
    let there = steps(run)?;
    match there.iter().find(|(of, _)| *of == step) {
        Some((_, path)) => open(path),
        None => {
            let names: Vec<String> = there.iter().map(|(step, _)| format!("step-{step:06}")).collect();
            let there = if names.is_empty() { "none".to_string() } else { names.join(", ") };
            Err(CheckpointError::NoStep { folder: run.to_path_buf(), step, there })
        }
    }
}

/// Opens a checkpoint's folder, or the newest complete checkpoint of a run directory.
pub fn open_any(path: &Path) -> Result<Restored, CheckpointError> {
    if path.join(MANIFEST).exists() {
        return open(path);
    }
    let found = newest_complete(path)?;
    found.newest.ok_or_else(|| CheckpointError::NoneComplete {
        folder: path.to_path_buf(),
        damaged: found.damaged.iter().map(|bad| format!("; {}", bad.reason)).collect(),
    })
}

/// The newest checkpoint of a run that is complete; damaged newer ones are listed, never used.
///
/// # Errors
/// [`CheckpointError::Version`] if the newest is of another version: an older one must not silently take its place.
pub fn newest_complete(run: &Path) -> Result<Found, CheckpointError> {
    for left in retention::folders(run, |name| name.starts_with(".step-") && name.ends_with(".old"))? {
        let name = left.file_name().unwrap_or_default().to_string_lossy().into_owned();
        put_back(&left.with_file_name(name.trim_start_matches('.').trim_end_matches(".old")))?;
    }
    let mut damaged = Vec::new();
    for (_, path) in steps(run)?.into_iter().rev() {
        match open(&path) {
            Ok(restored) => return Ok(Found { newest: Some(restored), damaged }),
            Err(error) if error.is_damage() => damaged.push(Damaged { path, reason: error.to_string() }),
            Err(other) => return Err(other),
        }
    }
    Ok(Found { newest: None, damaged })
}

/// Every folder that is named like a checkpoint, oldest first, and its step.
pub fn steps(run: &Path) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
    let paths = retention::folders(run, |name| step_of(name).is_some())?;
    let mut found: Vec<(u64, PathBuf)> =
        paths.into_iter().filter_map(|path| Some((step_of(&path.file_name()?.to_string_lossy())?, path))).collect();
    found.sort();
    Ok(found)
}

/// The step that a checkpoint's name states: `step-000100`.
pub fn step_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("step-")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn folder_of(run: &Path, step: u64) -> PathBuf {
    run.join(FOLDER).join(format!("step-{step:06}"))
}
