//! A large file on its way to the disk: bytes go out while the next ones are made.
//!
//! In:    bytes, one piece after another.
//! Out:   a synced file in a staging folder.
//! Never: lets the system pile up gigabytes in its page cache that the sync at the end would wait for.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{DurableError, operations};

/// Bytes after which the system is asked to begin writing.
const BEGIN_BYTES: u64 = 8 << 20;
/// Bytes on their way at most: those before are waited for, and leave the page cache.
const ON_THE_WAY_BYTES: u64 = 64 << 20;

/// A new file inside a staging folder.
#[derive(Debug)]
pub struct StagedFile {
    file: File,
    path: PathBuf,
    written: u64,
    begun: u64,
    done: u64,
}

impl StagedFile {
    /// Makes the file.
    pub fn create(path: &Path) -> Result<StagedFile, DurableError> {
        let file = operations::create_file(path).map_err(|error| DurableError::io("create", path, error))?;
        Ok(StagedFile { file, path: path.to_path_buf(), written: 0, begun: 0, done: 0 })
    }

    /// Adds bytes to its end.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), DurableError> {
        operations::append(&self.file, &self.path, bytes)
            .map_err(|error| DurableError::io("write", &self.path, error))?;
        self.written += bytes.len() as u64;
        if self.written - self.begun >= BEGIN_BYTES {
            begin_writing(&self.file, self.begun, self.written - self.begun);
            self.begun = self.written;
        }
        if self.begun - self.done >= ON_THE_WAY_BYTES + BEGIN_BYTES {
            wait_and_drop(&self.file, self.done, BEGIN_BYTES);
            self.done += BEGIN_BYTES;
        }
        Ok(())
    }

    /// Waits until all bytes are on the disk.
    pub fn finish(self) -> Result<(), DurableError> {
        operations::sync_file(&self.file, &self.path).map_err(|error| DurableError::io("sync", &self.path, error))
    }
}

/// Advice: a refusal costs time only, and an error of the disk comes back from the sync.
#[cfg(target_os = "linux")]
fn begin_writing(file: &File, from: u64, bytes: u64) {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open as long as `file` is borrowed; the call changes no memory.
    unsafe { libc::sync_file_range(file.as_raw_fd(), from as i64, bytes as i64, libc::SYNC_FILE_RANGE_WRITE) };
}

/// As [`begin_writing`]. What is on the disk is not read again soon: its pages are of more use to others.
#[cfg(target_os = "linux")]
fn wait_and_drop(file: &File, from: u64, bytes: u64) {
    use std::os::fd::AsRawFd;
    let (descriptor, from, bytes) = (file.as_raw_fd(), from as i64, bytes as i64);
    // SAFETY: as in `begin_writing`.
    unsafe {
        libc::sync_file_range(descriptor, from, bytes, libc::SYNC_FILE_RANGE_WAIT_BEFORE);
        libc::posix_fadvise(descriptor, from, bytes, libc::POSIX_FADV_DONTNEED);
    }
}

#[cfg(not(target_os = "linux"))]
fn begin_writing(_file: &File, _from: u64, _bytes: u64) {}

#[cfg(not(target_os = "linux"))]
fn wait_and_drop(_file: &File, _from: u64, _bytes: u64) {}
