//! The directory of a run under one path: made, locked, removed.
//!
//! In:    a path that is there, the run's name.
//! Out:   `<path>/tune-swap-<run>/`, mode 0700, held by a file lock, gone when dropped.
//! Never: touches anything but the three files it names itself; follows a symbolic link.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::TierError;
use crate::sync::Notes;

/// Start of the directory names.
const PREFIX: &str = "tune-swap-";
/// The lock's file name.
const LOCK: &str = "lock";
/// The name of the file that holds the bytes.
pub(crate) const SWAP: &str = "swap.bin";
/// The name of the file that says what lies where.
pub(crate) const INDEX: &str = "index.json";
const OURS: [&str; 3] = [SWAP, INDEX, LOCK];
/// A lock may be held for a moment by a process that looks for dead runs.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A run's directory, locked by this process. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    path: PathBuf,
    /// Held until the directory is gone.
    _lock: File,
}

impl RunDirectory {
    /// Makes or takes over `tune-swap-<run>` under `parent`.
    pub fn claim(parent: &Path, run: &str, notes: &Notes) -> Result<RunDirectory, TierError> {
        let path = parent.join(format!("{PREFIX}{run}"));
        for attempt in 1..=LOCK_TRIES {
            make(&path)?;
            if !holds_only_ours(&path).map_err(|source| refused("list the directory", &path, source))? {
                let reason = "it holds files that are not this program's; remove them or name the run differently";
                return Err(TierError::NotATier { path, reason: reason.to_owned() });
            }
            match try_lock(&path).map_err(|source| refused("lock", &path.join(LOCK), source))? {
                Claim::Taken(lock) => {
                    let directory = RunDirectory { path, _lock: lock };
                    directory.empty(notes)?;
                    return Ok(directory);
                }
                Claim::HeldElsewhere if attempt == LOCK_TRIES => break,
                Claim::HeldElsewhere => std::thread::sleep(LOCK_PAUSE),
                Claim::Gone => {}
            }
        }
        Err(TierError::Locked { path: path.join(LOCK) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what a dead run of the same name left here.
    fn empty(&self, notes: &Notes) -> Result<(), TierError> {
        for name in [SWAP, INDEX] {
            let path = self.path.join(name);
            match fs::remove_file(&path) {
                Ok(()) if name == SWAP => notes.add(format!("{}: removed, left by a run that died", path.display())),
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(refused("remove", &path, source)),
            }
        }
        Ok(())
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        // Whatever cannot be removed now is found by `remove_dead` at the next start.
        let _ = remove(&self.path);
    }
}

/// Removes the directories under `parent` of runs whose process is gone, with a note for each.
pub(crate) fn remove_dead(parent: &Path, notes: &Notes) -> Result<(), TierError> {
    let entries = fs::read_dir(parent).map_err(|source| refused("list the directory", parent, source))?;
    for entry in entries.flatten() {
        let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if !named || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        // What cannot be listed or locked is not ours to remove.
        if !holds_only_ours(&path).unwrap_or(false) {
            continue;
        }
        let Ok(Claim::Taken(_lock)) = try_lock(&path) else { continue };
        let bytes = fs::symlink_metadata(path.join(SWAP)).map_or(0, |file| file.blocks() * 512);
        match remove(&path) {
            Ok(()) => notes.add(format!("{}: removed, {bytes} bytes left by a run that died", path.display())),
            Err(error) => notes.add(format!("{}: left by a run that died, cannot be removed: {error}", path.display())),
        }
    }
    Ok(())
}

/// A typed error about a file or directory, not about any tensor.
pub(crate) fn refused(operation: &'static str, path: &Path, source: io::Error) -> TierError {
    TierError::Io { operation, path: path.to_owned(), offset: 0, tensor: "-".to_owned(), source }
}

/// Makes the directory unless it is there already, as a directory.
fn make(path: &Path) -> Result<(), TierError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let metadata = fs::symlink_metadata(path);
            if metadata.is_ok_and(|metadata| !metadata.is_dir()) {
                let reason = "it is in the way and no directory; remove it".to_owned();
                return Err(TierError::NotATier { path: path.to_owned(), reason });
            }
            Ok(())
        }
        Err(source) => Err(refused("make the directory", path, source)),
    }
}

/// Whether every entry is a plain file with one of our names.
fn holds_only_ours(path: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let ours = entry.file_name().to_str().is_some_and(|name| OURS.contains(&name));
        if !ours || !entry.file_type()?.is_file() {
            return Ok(false);
        }
    }
    Ok(true)
}

enum Claim {
    Taken(File),
    HeldElsewhere,
    /// Someone removed the directory meanwhile.
    Gone,
}

/// Takes the lock in `directory`, making the file if there is none.
fn try_lock(directory: &Path) -> io::Result<Claim> {
    let path = directory.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let lock = match options.open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Claim::Gone),
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Claim::HeldElsewhere),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // The last holder may have removed the file between our opening and locking it: then we hold a lock nobody else sees.
    let held = lock.metadata()?;
    match fs::symlink_metadata(&path) {
        Ok(seen) if (seen.dev(), seen.ino()) == (held.dev(), held.ino()) => Ok(Claim::Taken(lock)),
        _ => Ok(Claim::Gone),
    }
}

/// Removes our files and then the directory, which fails if anything else is in it.
fn remove(path: &Path) -> io::Result<()> {
    for name in OURS {
        match fs::remove_file(path.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_claimed_directory_is_private_locked_and_gone_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let notes = Notes::default();
        let claimed = RunDirectory::claim(folder.path(), "a-run", &notes).unwrap();
        let path = folder.path().join("tune-swap-a-run");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let second = RunDirectory::claim(folder.path(), "a-run", &notes).unwrap_err();
        assert!(matches!(&second, TierError::Locked { path } if path.ends_with("tune-swap-a-run/lock")), "{second}");
        remove_dead(folder.path(), &notes).unwrap();
        assert!(path.exists(), "a living run's directory stays");
        drop(claimed);
        assert!(!path.exists());
        assert!(notes.take().is_empty());
    }

    #[test]
    fn what_dead_runs_left_is_removed_with_a_note_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, files: &[&str]| {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            files.iter().for_each(|file| fs::write(path.join(file), b"x").unwrap());
            path
        };
        let dead = make("tune-swap-dead", &["swap.bin", "index.json", "lock"]);
        let empty = make("tune-swap-empty", &[]);
        let foreign = make("tune-swap-foreign", &["swap.bin", "thesis.txt"]);
        let other = make("other", &["swap.bin", "lock"]);
        let target = make("precious", &["swap.bin"]);
        let link = folder.path().join("tune-swap-link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let linked = make("tune-swap-linked", &[]);
        std::os::unix::fs::symlink(target.join("swap.bin"), linked.join("swap.bin")).unwrap();
        let notes = Notes::default();
        remove_dead(folder.path(), &notes).unwrap();
        assert!(!dead.exists() && !empty.exists());
        for kept in [foreign.join("thesis.txt"), foreign.join("swap.bin"), other.join("lock"), target.join("swap.bin")]
        {
            assert!(kept.exists(), "{kept:?}");
        }
        assert!(link.exists() && linked.join("swap.bin").exists());
        assert_eq!(notes.take().len(), 2);
    }

    #[test]
    fn a_dead_run_of_the_same_name_is_taken_over_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tune-swap-again");
        fs::create_dir(&path).unwrap();
        fs::write(path.join(SWAP), b"old").unwrap();
        let notes = Notes::default();
        let claimed = RunDirectory::claim(folder.path(), "again", &notes).unwrap();
        assert!(!claimed.path().join(SWAP).exists());
        assert!(notes.take()[0].contains("tune-swap-again"));
    }

    #[test]
    fn strange_files_and_links_in_the_way_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let notes = Notes::default();
        let path = folder.path().join("tune-swap-a");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("letter.txt"), b"dear").unwrap();
        let error = RunDirectory::claim(folder.path(), "a", &notes).unwrap_err();
        assert!(matches!(error, TierError::NotATier { .. }), "{error}");
        std::os::unix::fs::symlink(&path, folder.path().join("tune-swap-b")).unwrap();
        let error = RunDirectory::claim(folder.path(), "b", &notes).unwrap_err();
        assert!(matches!(error, TierError::NotATier { .. }), "{error}");
        assert!(path.join("letter.txt").exists());
    }
}
