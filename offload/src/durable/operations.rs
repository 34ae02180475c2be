//! The operations on files and folders that publishing is made of, each done by the system and, in tests, written down.
//!
//! In:    paths and bytes.
//! Out:   the change made; while a [`Recording`] of this thread lives, also an [`Operation`] in its list.
//! Never: does anything else because it is recorded: the recorder sits beside the real calls, not in their place.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// One change of a file system, in the words of the crash model ([`super::power_cut`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A folder is made.
    CreateFolder(PathBuf),
    /// An empty file is made.
    CreateFile(PathBuf),
    /// Bytes are added to the end of a file.
    Append(PathBuf, Vec<u8>),
    /// A file's bytes are on the disk.
    SyncFile(PathBuf),
    /// A folder's names are on the disk.
    SyncFolder(PathBuf),
    /// A name moves; what had the new name is gone.
    Rename(PathBuf, PathBuf),
    /// Two names change places.
    Exchange(PathBuf, PathBuf),
    /// A file's name goes.
    RemoveFile(PathBuf),
    /// An empty folder goes.
    RemoveFolder(PathBuf),
}

thread_local! {
    static RECORDED: RefCell<Option<Vec<Operation>>> = const { RefCell::new(None) };
}

/// Writes down what this thread does, until it is stopped.
#[derive(Debug)]
pub struct Recording(());

impl Recording {
    /// Begins.
    pub fn start() -> Recording {
        RECORDED.set(Some(Vec::new()));
        Recording(())
    }

    /// How many operations there are so far.
    pub fn len(&self) -> usize {
        RECORDED.with_borrow(|recorded| recorded.as_ref().map_or(0, Vec::len))
    }

    /// Whether nothing has happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends; returns everything in order.
    pub fn stop(self) -> Vec<Operation> {
        RECORDED.take().unwrap_or_default()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        RECORDED.set(None);
    }
}

fn record(operation: impl FnOnce() -> Operation) {
    RECORDED.with_borrow_mut(|recorded| {
        if let Some(list) = recorded {
            list.push(operation());
        }
    });
}

pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    record(|| Operation::CreateFolder(path.to_path_buf()));
    Ok(())
}

/// A new empty file; what was there is emptied.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    record(|| Operation::CreateFile(path.to_path_buf()));
    Ok(file)
}

/// Tells the recorder of a file that something else made.
pub(super) fn created_file(path: &Path) {
    record(|| Operation::CreateFile(path.to_path_buf()));
}

pub(super) fn append(mut file: &File, path: &Path, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    appended(path, bytes);
    Ok(())
}

/// Tells the recorder of bytes that something else added.
pub(super) fn appended(path: &Path, bytes: &[u8]) {
    if !bytes.is_empty() {
        record(|| Operation::Append(path.to_path_buf(), bytes.to_vec()));
    }
}

pub(super) fn sync_file(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    record(|| Operation::SyncFile(path.to_path_buf()));
    Ok(())
}

pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    record(|| Operation::SyncFolder(path.to_path_buf()));
    Ok(())
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    renamed(from, to);
    Ok(())
}

/// Tells the recorder of a name that something else moved.
pub(super) fn renamed(from: &Path, to: &Path) {
    record(|| Operation::Rename(from.to_path_buf(), to.to_path_buf()));
}

/// Lets two names change places in one step; `Unsupported` where kernel or file system cannot.
pub(super) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    exchange_names(one, other)?;
    record(|| Operation::Exchange(one.to_path_buf(), other.to_path_buf()));
    Ok(())
}

#[cfg(target_os = "linux")]
fn exchange_names(one: &Path, other: &Path) -> io::Result<()> {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
    let (one, other) = (name(one)?, name(other)?);
    // SAFETY: both pointers are of strings that end in a zero byte and live until the call returns; the kernel only reads them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    if done == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // The kernel does not know the call, or the file system not the flag.
        Some(libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP) => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn exchange_names(_one: &Path, _other: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Removes a folder and everything in it; links are removed, not followed.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => remove_tree(&entry.path())?,
            false => remove_file(&entry.path())?,
        }
    }
    fs::remove_dir(path)?;
    record(|| Operation::RemoveFolder(path.to_path_buf()));
    Ok(())
}

fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    record(|| Operation::RemoveFile(path.to_path_buf()));
    Ok(())
}
