//! One process per run directory.
//!
//! In:    a run directory.
//! Out:   a lock that lasts as long as the process or the value, whichever ends first.
//! Never: leaves a stale lock: the kernel releases it with the process. The file itself stays, and means nothing unlocked.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Name of the lock file inside a run directory.
pub const LOCK_FILE: &str = "run.lock";

/// Why a run directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process writes there.
    #[error("{folder} is in use by process {holder}; wait for it, stop it, or choose another --output", folder = folder.display())]
    Held {
        /// The run directory.
        folder: PathBuf,
        /// Process id, as it wrote it; `unknown` where it could not be read.
        holder: String,
    },
    /// The lock file cannot be made.
    #[error("cannot lock {folder}: {source}", folder = folder.display())]
    Io {
        /// The run directory.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// The lock; dropping it frees the directory.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Locks `folder`, which is created if need be.
    pub fn acquire(folder: &Path) -> Result<RunLock, LockError> {
        let refused = |source| LockError::Io { folder: folder.to_path_buf(), source };
        fs::create_dir_all(folder).map_err(refused)?;
        let mut options = OpenOptions::new();
        let open = options.read(true).write(true).create(true).truncate(false).open(folder.join(LOCK_FILE));
        let mut file = open.map_err(refused)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(source)) => return Err(refused(source)),
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { folder: folder.to_path_buf(), holder: holder(&mut file) });
            }
        }
        let stated =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        stated.map_err(refused)?;
        Ok(RunLock { _file: file })
    }
}

/// The process that writes in `folder`, as it wrote its id; `None` where none does, or where that cannot be told. Makes no file.
pub fn held_by(folder: &Path) -> Option<String> {
    let mut file = File::open(folder.join(LOCK_FILE)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(holder(&mut file)),
        _ => None,
    }
}

/// The process id in the file; at most 20 bytes are read, whatever it holds.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(20).read_to_string(&mut text);
    match read.ok().and_then(|_| text.trim().parse::<u32>().ok()) {
        Some(id) => id.to_string(),
        None => "unknown".to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_second_holder_is_refused_with_the_first_ones_process_id() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("runs/one");
        let first = RunLock::acquire(&run).unwrap();
        let text = RunLock::acquire(&run).unwrap_err().to_string();
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        assert_eq!(held_by(&run), Some(std::process::id().to_string()));
        drop(first);
        assert_eq!((held_by(&run), held_by(folder.path())), (None, None));
        RunLock::acquire(&run).unwrap();
    }

    #[test]
    fn a_lock_file_left_by_a_dead_process_does_not_lock() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LOCK_FILE), "4000000000 and more text than a process id has").unwrap();
        let lock = RunLock::acquire(folder.path()).unwrap();
        let text = fs::read_to_string(folder.path().join(LOCK_FILE)).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        drop(lock);
    }
}
