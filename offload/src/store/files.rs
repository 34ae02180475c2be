//! One swap file: opened past the page cache where possible, its space reserved ahead.
//!
//! In:    the run's directory on one path.
//! Out:   an open file, mode 0600; room in it; an index of what lies where, for people.
//! Never: finds out during training that the disk is full.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::directory::{INDEX, SWAP, refused};
use crate::error::TierError;
use crate::memory::{Mapping, PAGE};
use crate::sync::{Notes, lock};

/// The file that holds the bytes on one path.
#[derive(Debug)]
pub(crate) struct SwapFile {
    /// The open file.
    pub file: File,
    /// Where it is.
    pub path: PathBuf,
    /// Whether the page cache is passed by.
    pub direct: bool,
    index: Mutex<Index>,
}

/// `index.json`, a JSON array that is complete after every entry.
#[derive(Debug)]
struct Index {
    file: File,
    path: PathBuf,
    /// Bytes before the closing bracket.
    end: u64,
}

/// What stands in the index for one tensor's part in this file.
pub(crate) struct Entry<'a> {
    pub tensor: &'a str,
    pub bytes: u64,
    pub chunk_bytes: usize,
    /// Number of the path that holds chunk 0.
    pub first_path: usize,
    /// First byte in this file.
    pub offset: u64,
    /// Bytes in this file.
    pub reserved_bytes: u64,
}

impl SwapFile {
    /// Makes the files in `directory`.
    pub fn create(directory: &Path, notes: &Notes) -> Result<SwapFile, TierError> {
        let path = directory.join(SWAP);
        let plain = create_private(&path)?;
        let index = Index::create(directory.join(INDEX))?;
        let (file, direct) = match past_the_cache(&path, &plain)? {
            Ok(file) => (file, true),
            Err(reason) => {
                notes.add(format!(
                    "{}: the page cache cannot be passed by ({reason}); transfers cost one more copy, and cached pages compete with \
                     the training for memory",
                    path.display()
                ));
                (plain, false)
            }
        };
        Ok(SwapFile { file, path, direct, index: Mutex::new(index) })
    }

    /// Makes the file system promise the bytes from `offset`, where the file ends, to `offset + len`.
    pub fn reserve(&self, tensor: &str, offset: u64, len: u64, notes: &Notes) -> Result<(), TierError> {
        match preallocate(&self.file, offset, len) {
            Ok(()) => return Ok(()),
            Err(error) if is_full(&error) => {
                // A part of it may have been allocated.
                let _ = self.file.set_len(offset);
                return Err(self.no_space(tensor, len));
            }
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)) => {
                return Err(self.failed("reserve space", tensor, offset, error));
            }
            Err(error) if offset == 0 => notes.add(format!(
                "{}: the file system cannot reserve space ({error}); if something else fills it, the run stops with a clear error \
                 in the middle instead of at its start",
                self.path.display()
            )),
            Err(_) => {}
        }
        if free_bytes(&self.path).is_some_and(|free| free < len) {
            return Err(self.no_space(tensor, len));
        }
        self.file.set_len(offset + len).map_err(|error| self.failed("grow the file", tensor, offset, error))
    }

    /// Adds a line to the index.
    pub fn describe(&self, entry: &Entry<'_>) -> Result<(), TierError> {
        let line = serde_json::json!({
            "tensor": entry.tensor,
            "bytes": entry.bytes,
            "chunk_bytes": entry.chunk_bytes,
            "first_path": entry.first_path,
            "offset": entry.offset,
            "reserved_bytes": entry.reserved_bytes,
        });
        lock(&self.index).append(&line.to_string())
    }

    /// The error for a full file system.
    pub fn no_space(&self, tensor: &str, needed_bytes: u64) -> TierError {
        let free_bytes = free_bytes(&self.path).unwrap_or(0);
        TierError::NoSpace { path: self.path.clone(), tensor: tensor.to_owned(), needed_bytes, free_bytes }
    }

    /// The error for an operation on this file.
    pub fn failed(&self, operation: &'static str, tensor: &str, offset: u64, source: io::Error) -> TierError {
        TierError::Io { operation, path: self.path.clone(), offset, tensor: tensor.to_owned(), source }
    }
}

impl Index {
    fn create(path: PathBuf) -> Result<Index, TierError> {
        let file = create_private(&path)?;
        let mut index = Index { file, path, end: 0 };
        index.write("[")?;
        Ok(index)
    }

    fn append(&mut self, line: &str) -> Result<(), TierError> {
        let comma = if self.end == 1 { "" } else { "," };
        self.write(&format!("{comma}\n{line}"))
    }

    fn write(&mut self, text: &str) -> Result<(), TierError> {
        let whole = format!("{text}\n]\n");
        self.file.write_all_at(whole.as_bytes(), self.end).map_err(|error| refused("write", &self.path, error))?;
        self.end += text.len() as u64;
        Ok(())
    }
}

/// Whether an error says that no space is left for us.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

fn create_private(path: &Path) -> Result<File, TierError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(path).map_err(|source| refused("make the file", path, source))
}

/// A handle that passes the page cache by, tried out with one page; the inner error says why there is none.
#[cfg(target_os = "linux")]
fn past_the_cache(path: &Path, plain: &File) -> Result<Result<File, io::Error>, TierError> {
    let mut options = OpenOptions::new();
    let file = match options.read(true).write(true).custom_flags(libc::O_DIRECT | libc::O_NOFOLLOW).open(path) {
        Ok(file) => file,
        Err(error) => return Ok(Err(error)),
    };
    let mut page = Mapping::new("a probe of the disk", PAGE as u64)?;
    let probe = file.write_all_at(page.bytes(), 0).and_then(|()| file.read_exact_at(page.bytes_mut(), 0));
    match probe {
        Ok(()) => {}
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => return Ok(Err(error)),
        Err(source) => return Err(refused("write and read a first page", path, source)),
    }
    plain.set_len(0).map_err(|source| refused("truncate", path, source))?;
    Ok(Ok(file))
}

/// macOS has no O_DIRECT but a switch per handle.
#[cfg(target_os = "macos")]
fn past_the_cache(path: &Path, plain: &File) -> Result<Result<File, io::Error>, TierError> {
    let file = plain.try_clone().map_err(|source| refused("duplicate the handle", path, source))?;
    // SAFETY: a call on an open descriptor that changes only its caching.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_NOCACHE, 1) } == -1 {
        return Ok(Err(io::Error::last_os_error()));
    }
    Ok(Ok(file))
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn past_the_cache(_path: &Path, _plain: &File) -> Result<Result<File, io::Error>, TierError> {
    Ok(Err(io::ErrorKind::Unsupported.into()))
}

#[cfg(target_os = "linux")]
fn preallocate(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let too_large = |_| io::Error::from_raw_os_error(libc::ENOSPC);
    let (offset, len) =
        (libc::off_t::try_from(offset).map_err(too_large)?, libc::off_t::try_from(len).map_err(too_large)?);
    loop {
        // SAFETY: a call on an open descriptor; no memory is involved.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, offset, len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            // Past what the file system can address: no space there either.
            Some(libc::EFBIG) => return Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            _ => return Err(error),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn preallocate(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
}

/// What the file system of `path` has left for this user.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: all zeros is a valid value of this plain C structure.
    let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is a C string and `answer` a structure of the right type; both outlive the call.
    let result = unsafe { libc::statvfs(name.as_ptr(), &mut answer) };
    #[allow(clippy::unnecessary_cast)] // The widths differ between systems.
    (result == 0).then(|| answer.f_bavail as u64 * answer.f_frsize as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn create(folder: &Path) -> SwapFile {
        SwapFile::create(folder, &Notes::default()).unwrap()
    }

    #[test]
    fn the_file_is_private_and_reserved_bytes_are_really_there() {
        let folder = tempfile::tempdir().unwrap();
        let swap = create(folder.path());
        let notes = Notes::default();
        swap.reserve("w", 0, 1 << 20, &notes).unwrap();
        swap.reserve("m", 1 << 20, 1 << 20, &notes).unwrap();
        let metadata = std::fs::metadata(folder.path().join(SWAP)).unwrap();
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.len()), (0o600, 2 << 20));
        if notes.take().is_empty() {
            assert!(metadata.blocks() * 512 >= 2 << 20, "{} blocks", metadata.blocks());
        }
    }

    #[test]
    fn more_than_the_disk_has_is_refused_with_both_numbers_and_nothing_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let swap = create(folder.path());
        let error = swap.reserve("embedding", 0, 1 << 50, &Notes::default()).unwrap_err();
        let TierError::NoSpace { needed_bytes, free_bytes, tensor, .. } = &error else { panic!("{error}") };
        assert_eq!((*needed_bytes, tensor.as_str()), (1 << 50, "embedding"));
        assert!(*free_bytes > 0 && *free_bytes < 1 << 50);
        assert_eq!(std::fs::metadata(folder.path().join(SWAP)).unwrap().len(), 0);
    }

    #[test]
    fn the_index_is_whole_json_after_every_entry() {
        let folder = tempfile::tempdir().unwrap();
        let swap = create(folder.path());
        let read = || {
            let text = std::fs::read_to_string(folder.path().join(INDEX)).unwrap();
            serde_json::from_str::<serde_json::Value>(&text).unwrap()
        };
        assert_eq!(read().as_array().unwrap().len(), 0);
        for (i, tensor) in ["a", "b \"quoted\"", "c"].iter().enumerate() {
            let offset = 4096 * i as u64;
            let entry = Entry { tensor, bytes: 9, chunk_bytes: 4096, first_path: 0, offset, reserved_bytes: 4096 };
            swap.describe(&entry).unwrap();
            let index = read();
            assert_eq!(index.as_array().unwrap().len(), i + 1);
            assert_eq!((index[i]["tensor"].as_str(), index[i]["offset"].as_u64()), (Some(*tensor), Some(offset)));
        }
    }
}
