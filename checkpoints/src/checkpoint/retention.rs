//! Which checkpoints of a run stay.
//!
//! In:    a run directory, how many of the last and of the best to keep.
//! Out:   the others removed, and what killed processes left.
//! Never: removes the only complete one, or leaves a folder behind that looks like a checkpoint and is none.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use offload::durable::{move_folder, remove_folder, staging_folder};

use super::manifest::quick_look;
use super::{CheckpointError, FOLDER, steps};

const SUPERSEDED: &str = ".superseded";

/// How many complete checkpoints stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The newest; at least one stays.
    pub keep_last: usize,
    /// Besides, those of the least held-out loss, of those where it was measured.
    pub keep_best: usize,
}

/// What [`prune`] would remove: complete ones that are neither among the last nor the best, and older damaged ones.
pub fn surplus(run: &Path, retention: Retention) -> Result<Vec<PathBuf>, CheckpointError> {
    let newest_first: Vec<_> =
        steps(run)?.into_iter().rev().map(|(step, path)| (step, quick_look(&path).ok(), path)).collect();
    let complete = || newest_first.iter().filter_map(|(step, manifest, _)| Some((*step, manifest.as_ref()?)));
    let last: Vec<u64> = complete().map(|(step, _)| step).take(retention.keep_last.max(1)).collect();
    let mut losses: Vec<(f64, u64)> =
        complete().filter_map(|(step, manifest)| Some((manifest.facts.held_out_loss?, step))).collect();
    // Of equal ones the older: it took less training.
    losses.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let best = losses.into_iter().take(retention.keep_best).map(|(_, step)| step);
    let kept: BTreeSet<u64> = last.iter().copied().chain(best).collect();
    // One that is damaged and newer than all that stay may be looked at by a person.
    let oldest_of_last = last.last().copied();
    let goes = |step: u64, complete: bool| match complete {
        true => !kept.contains(&step),
        false => oldest_of_last.is_some_and(|oldest| step < oldest),
    };
    Ok(newest_first
        .into_iter()
        .filter(|(step, manifest, _)| goes(*step, manifest.is_some()))
        .map(|(.., path)| path)
        .collect())
}

/// Removes what [`surplus`] names and what killed processes left. Returns what was removed. Nobody else may write the run.
pub fn prune(run: &Path, retention: Retention) -> Result<Vec<PathBuf>, CheckpointError> {
    let surplus = surplus(run, retention)?;
    surplus.iter().try_for_each(|path| remove(path))?;
    for left in hidden(run)? {
        remove_folder(&left)?;
    }
    Ok(surplus)
}

/// Removes a checkpoint. Under another name first: a kill halfway leaves no folder that looks like a checkpoint.
pub fn remove(path: &Path) -> Result<(), CheckpointError> {
    let staging = staging_folder(path)?;
    move_folder(path, &staging)?;
    Ok(remove_folder(&staging)?)
}

/// Checkpoints after `step` take another name: a run that goes on from there makes them anew. Returns their steps.
pub fn set_aside_after(run: &Path, step: u64) -> Result<Vec<u64>, CheckpointError> {
    let mut later: Vec<(u64, PathBuf)> = steps(run)?.into_iter().filter(|(of, _)| *of > step).collect();
    // The newest first: a kill between two leaves the run with an older end, not with a gap.
    later.reverse();
    for (_, path) in &later {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(SUPERSEDED);
        move_folder(path, &path.with_file_name(name))?;
    }
    Ok(later.into_iter().rev().map(|(step, _)| step).collect())
}

/// Checkpoints that a resume from an older one has set aside.
pub fn superseded(run: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    folders(run, |name| name.starts_with("step-") && name.ends_with(SUPERSEDED))
}

/// Half-written and half-removed ones.
fn hidden(run: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    folders(run, |name| name.starts_with(".step-") && name.ends_with(".tmp"))
}

/// Entries of the folder of checkpoints by name, in order.
pub(super) fn folders(run: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, CheckpointError> {
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
        if wanted(&entry.file_name().to_string_lossy()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
