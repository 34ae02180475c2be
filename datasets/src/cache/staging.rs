//! Folders that are being filled, told apart from those whose writer was killed.
//!
//! In:    the root of the caches.
//! Out:   a locked folder beside the final ones; left-overs of killed writers are removed.
//! Never: removes a folder whose writer lives.
//!
//! A writer holds a lock on a file inside its folder; the system gives it up when the process ends, however it ends. Folders are made,
//! looked through and published under a lock on the root, so that none is seen between being made and being locked.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use offload::durable::{self, DurableError};

const ROOT_LOCK: &str = ".lock";
const INNER_LOCK: &str = "lock";
const PREFIX: &str = ".staging-";

/// A folder that is being filled; removed when it is dropped before publishing.
#[derive(Debug)]
pub(crate) struct Staging {
    folder: PathBuf,
    root: PathBuf,
    /// Held for as long as this lives.
    _lock: File,
}

impl Staging {
    /// Removes what killed writers left, and makes a folder.
    pub(crate) fn create(root: &Path) -> Result<Staging, DurableError> {
        fs::create_dir_all(root).map_err(|error| DurableError::io("create", root, error))?;
        let _root_lock = lock_root(root)?;
        sweep(root)?;
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(root);
        let folder = made.map_err(|error| DurableError::io("create a folder in", root, error))?.keep();
        let path = folder.join(INNER_LOCK);
        let lock = lock_file(&path)?;
        Ok(Staging { folder, root: root.to_path_buf(), _lock: lock })
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Moves the folder to its final name unless `is_there` says that another writer was first; then it is removed.
    pub(crate) fn publish(self, target: &Path, is_there: impl FnOnce() -> bool) -> Result<(), DurableError> {
        let _root_lock = lock_root(&self.root)?;
        if is_there() {
            return Ok(());
        }
        let path = self.folder.join(INNER_LOCK);
        fs::remove_file(&path).map_err(|error| DurableError::io("remove", &path, error))?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // Temporary folders are 0700; published ones are readable like any other folder.
            let readable = fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o755));
            readable.map_err(|error| DurableError::io("set permissions of", &self.folder, error))?;
        }
        durable::publish_directory(&self.folder, target)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After publishing there is nothing under this name; otherwise the next writer would remove what cannot be removed now.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn lock_root(root: &Path) -> Result<File, DurableError> {
    lock_file(&root.join(ROOT_LOCK))
}

/// Waits for the lock. A file system without locks gives none, which only costs the removal of left-overs.
fn lock_file(path: &Path) -> Result<File, DurableError> {
    let file = open(path).map_err(|error| DurableError::io("open", path, error))?;
    match file.lock() {
        Err(error) if error.kind() != ErrorKind::Unsupported => Err(DurableError::io("lock", path, error)),
        _ => Ok(file),
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn sweep(root: &Path) -> Result<(), DurableError> {
    let entries = fs::read_dir(root).map_err(|error| DurableError::io("list", root, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| DurableError::io("list", root, error))?;
        let is_staging = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if is_staging && is_abandoned(&entry.path()) {
            durable::remove_folder(&entry.path())?;
        }
    }
    Ok(())
}

/// Whether the writer of a folder is gone. Without its lock file it was killed while being made or removed.
fn is_abandoned(folder: &Path) -> bool {
    match fs::OpenOptions::new().read(true).write(true).open(folder.join(INNER_LOCK)) {
        Ok(file) => match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
        },
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}
