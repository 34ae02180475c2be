//! Publishes files and folders whole or not at all: temporary name, sync, rename, sync the folder.
//!
//! In:    bytes, or a folder that was filled beside its final place.
//! Out:   the final name exists with all its bytes, after a power cut too; or an error and nothing new under that name.
//! Never: writes in place.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

mod operations;
pub mod power_cut;
mod staged;

pub use operations::{Operation, Recording};
pub use staged::StagedFile;

/// Why something could not be published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DurableError {
    /// The disk, or the user's share of it, is full.
    #[error("no space left to {action} {path}: free some, or put the run directory on another disk", path = path.display())]
    NoSpace {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
    },
    /// The bytes of a tensor could not be had where they are kept.
    #[error("{path}: not written: tensor {tensor}: {source}", path = path.display())]
    Source {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Any other refusal of the system.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl DurableError {
    /// Names the file and the tensor whose bytes could not be had.
    pub fn source(path: &Path, tensor: &str, source: Box<dyn std::error::Error + Send + Sync>) -> DurableError {
        DurableError::Source { path: path.to_path_buf(), tensor: tensor.to_string(), source }
    }

    /// Names the path, and tells a full disk from other errors.
    pub fn io(action: &'static str, path: &Path, source: std::io::Error) -> DurableError {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let path = path.to_path_buf();
        match source.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => DurableError::NoSpace { action, path },
            _ => DurableError::Io { action, path, source },
        }
    }

    /// The same error about another path: users know the file's name, not its temporary one.
    fn named(self, path: &Path) -> DurableError {
        let path = path.to_path_buf();
        match self {
            DurableError::NoSpace { action, .. } => DurableError::NoSpace { action, path },
            DurableError::Io { action, source, .. } => DurableError::Io { action, path, source },
            other => other,
        }
    }
}

/// Writes `bytes` as `path`, replacing what was there in one step.
pub fn publish_file(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let folder = folder_of(path);
    create_folders(&folder)?;
    let temporary = tempfile::Builder::new()
        .prefix(".publish-")
        .suffix(".tmp")
        .tempfile_in(&folder)
        .map_err(|error| DurableError::io("create a file in", &folder, error))?;
    operations::created_file(temporary.path());
    write_and_sync(temporary.as_file(), temporary.path(), bytes).map_err(|error| error.named(path))?;
    publish_temporary(temporary, path)
}

/// Renames a filled temporary file to `path` and syncs its folder. The file must be synced already.
pub fn publish_temporary(temporary: tempfile::NamedTempFile, path: &Path) -> Result<(), DurableError> {
    // Temporary files are 0600; published ones are readable like any other file.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let readable = temporary.as_file().set_permissions(fs::Permissions::from_mode(0o644));
        readable.map_err(|error| DurableError::io("set permissions of", path, error))?;
    }
    let from = temporary.path().to_path_buf();
    temporary.persist(path).map_err(|error| DurableError::io("rename to", path, error.error))?;
    operations::renamed(&from, path);
    sync_folder(&folder_of(path))
}

/// Moves the folder `temporary` to `target`, replacing what was there. Both must be on one file system; files inside must be synced.
///
/// Where kernel and file system can exchange two names (Linux on ext4, XFS, Btrfs, tmpfs) there is no moment without a `target`. Elsewhere
/// the old folder takes its side name first, and a kill at that moment leaves it there: [`put_back`] looks for it.
pub fn publish_directory(temporary: &Path, target: &Path) -> Result<(), DurableError> {
    sync_folder(temporary)?;
    let parent = folder_of(target);
    if !target.exists() {
        rename(temporary, target)?;
        return sync_folder(&parent);
    }
    let old = match operations::exchange(temporary, target) {
        Ok(()) => temporary.to_path_buf(),
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => replace_in_two_steps(temporary, target)?,
        Err(error) => return Err(DurableError::io("exchange", target, error)),
    };
    sync_folder(&parent)?;
    remove_folder(&old)
}

/// Returns where the old folder is now.
fn replace_in_two_steps(temporary: &Path, target: &Path) -> Result<PathBuf, DurableError> {
    let aside = beside(target, "old");
    remove_folder(&aside)?;
    rename(target, &aside)?;
    // Both names must not be lost together: the old folder is found under its side name before the new one takes its place.
    sync_folder(&folder_of(target))?;
    rename(temporary, target)?;
    Ok(aside)
}

/// Gives a folder its name back that was being replaced in two steps when the process died. Returns whether there was one.
pub fn put_back(target: &Path) -> Result<bool, DurableError> {
    let aside = beside(target, "old");
    if target.exists() || !aside.exists() {
        return Ok(false);
    }
    rename(&aside, target)?;
    sync_folder(&folder_of(target))?;
    Ok(true)
}

/// An empty folder beside `target`, where its files are written first. Left-overs of a killed run are removed.
pub fn staging_folder(target: &Path) -> Result<PathBuf, DurableError> {
    let staging = beside(target, "tmp");
    remove_folder(&staging)?;
    create_folders(&staging)?;
    Ok(staging)
}

/// Moves a folder, and makes that survive a power cut. What has the new name is removed first.
pub fn move_folder(from: &Path, to: &Path) -> Result<(), DurableError> {
    remove_folder(to)?;
    rename(from, to)?;
    sync_folder(&folder_of(to))
}

/// Writes a file inside a staging folder and syncs it.
pub fn write_staged(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let file = operations::create_file(path).map_err(|error| DurableError::io("create", path, error))?;
    write_and_sync(&file, path, bytes)
}

/// Removes a folder if it is there.
pub fn remove_folder(path: &Path) -> Result<(), DurableError> {
    match operations::remove_tree(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DurableError::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// Makes renames inside `folder` survive a power cut.
pub fn sync_folder(folder: &Path) -> Result<(), DurableError> {
    operations::sync_folder(folder).map_err(|error| DurableError::io("sync", folder, error))
}

/// Makes a folder and those above it; a power cut later does not lose one of them with all that was published inside.
fn create_folders(path: &Path) -> Result<(), DurableError> {
    let refused = |error| DurableError::io("create", path, error);
    match operations::create_folder(path) {
        Ok(()) => sync_folder(&folder_of(path)),
        Err(_) if path.is_dir() => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let Some(parent) = parent else { return Err(refused(error)) };
            create_folders(parent)?;
            operations::create_folder(path).map_err(refused)?;
            sync_folder(parent)
        }
        Err(error) => Err(refused(error)),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), DurableError> {
    operations::rename(from, to).map_err(|error| DurableError::io("rename to", to, error))
}

fn write_and_sync(file: &File, path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    operations::append(file, path, bytes).map_err(|error| DurableError::io("write", path, error))?;
    operations::sync_file(file, path).map_err(|error| DurableError::io("sync", path, error))
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn beside(target: &Path, suffix: &str) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    folder_of(target).join(format!(".{name}.{suffix}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_published_file_replaces_the_old_one_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/plan.json");
        publish_file(&path, b"one").unwrap();
        publish_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(&folder.path().join("deep")), ["plan.json"]);
    }

    #[test]
    fn a_file_that_cannot_be_published_leaves_nothing_half_written() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("inside"), b"x").unwrap();
        assert!(matches!(publish_file(&taken, b"bytes"), Err(DurableError::Io { .. })));
        assert_eq!(names(folder.path()), ["taken"]);
        assert_eq!(names(&taken), ["inside"]);
    }

    #[test]
    fn a_published_folder_replaces_the_old_one_whole() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("adapter");
        for (round, file) in ["a", "b"].iter().enumerate() {
            let staging = staging_folder(&target).unwrap();
            write_staged(&staging.join(file), &[round as u8]).unwrap();
            publish_directory(&staging, &target).unwrap();
        }
        assert_eq!(names(&target), ["b"]);
        assert_eq!(names(folder.path()), ["adapter"]);
    }

    #[test]
    fn a_folder_replaced_in_two_steps_is_replaced_and_one_that_was_only_moved_aside_is_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("adapter");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("a"), b"old").unwrap();
        let staging = staging_folder(&target).unwrap();
        write_staged(&staging.join("b"), b"new").unwrap();
        let aside = replace_in_two_steps(&staging, &target).unwrap();
        assert_eq!((names(&target), names(&aside)), (vec!["b".to_string()], vec!["a".to_string()]));
        assert!(!put_back(&target).unwrap(), "there is one in its place");
        fs::remove_dir_all(&target).unwrap();
        assert!(put_back(&target).unwrap());
        assert_eq!(names(&target), ["a"]);
    }

    /// `/dev/full` is the kernel's own full disk.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_named_with_a_hint() {
        let full = Path::new("/dev/full");
        let file = fs::OpenOptions::new().write(true).open(full).unwrap();
        let error = write_and_sync(&file, full, &[0; 4096]).unwrap_err();
        assert!(matches!(error, DurableError::NoSpace { .. }));
        assert!(error.to_string().contains("no space left to write /dev/full"), "{error}");
    }
}
