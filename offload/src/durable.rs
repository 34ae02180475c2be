//! Publishes files and folders whole or not at all: temporary name, sync, rename, sync the folder.
//!
//! In:    bytes, or a folder that was filled beside its final place.
//! Out:   the final name exists with all its bytes, after a power cut too; or an error and nothing new under that name.
//! Never: writes in place.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

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
}

/// Writes `bytes` as `path`, replacing what was there in one step.
pub fn publish_file(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let folder = folder_of(path);
    fs::create_dir_all(&folder).map_err(|error| DurableError::io("create", &folder, error))?;
    let temporary = tempfile::Builder::new()
        .prefix(".publish-")
        .suffix(".tmp")
        .tempfile_in(&folder)
        .map_err(|error| DurableError::io("create a file in", &folder, error))?;
    write_and_sync(temporary.as_file(), path, bytes)?;
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
    temporary.persist(path).map_err(|error| DurableError::io("rename to", path, error.error))?;
    sync_folder(&folder_of(path))
}

/// Moves the folder `temporary` to `target`, replacing what was there. Both must be on one file system; files inside must be synced.
pub fn publish_directory(temporary: &Path, target: &Path) -> Result<(), DurableError> {
    sync_folder(temporary)?;
    let parent = folder_of(target);
    if target.exists() {
        // A folder cannot be replaced in one step; a kill between the two renames leaves the old one under its side name.
        let aside = beside(target, "old");
        remove_folder(&aside)?;
        fs::rename(target, &aside).map_err(|error| DurableError::io("rename", target, error))?;
        fs::rename(temporary, target).map_err(|error| DurableError::io("rename to", target, error))?;
        sync_folder(&parent)?;
        return remove_folder(&aside);
    }
    fs::rename(temporary, target).map_err(|error| DurableError::io("rename to", target, error))?;
    sync_folder(&parent)
}

/// An empty folder beside `target`, where its files are written first. Left-overs of a killed run are removed.
pub fn staging_folder(target: &Path) -> Result<PathBuf, DurableError> {
    let staging = beside(target, "tmp");
    remove_folder(&staging)?;
    fs::create_dir_all(&staging).map_err(|error| DurableError::io("create", &staging, error))?;
    Ok(staging)
}

/// Writes a file inside a staging folder and syncs it.
pub fn write_staged(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let file = File::create(path).map_err(|error| DurableError::io("create", path, error))?;
    write_and_sync(&file, path, bytes)
}

/// Removes a folder if it is there.
pub fn remove_folder(path: &Path) -> Result<(), DurableError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DurableError::io("remove", path, error)),
        _ => Ok(()),
    }
}

/// Makes renames inside `folder` survive a power cut.
pub fn sync_folder(folder: &Path) -> Result<(), DurableError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| DurableError::io("sync", folder, error))
}

fn write_and_sync(mut file: &File, path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    file.write_all(bytes).map_err(|error| DurableError::io("write", path, error))?;
    file.sync_all().map_err(|error| DurableError::io("sync", path, error))
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
