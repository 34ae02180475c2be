//! A file that is added to all the time, on a disk that may be full for a while.
//!
//! In:    bytes.
//! Out:   the same bytes in the same order at the end of the file; those that the disk does not take wait for the next call.
//! Never: loses a byte, or keeps more of them waiting than [`WAITING_BYTES_MAX`].

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Bytes that wait for room: hours of steps.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// A file and what it has not taken yet.
#[derive(Debug)]
pub(crate) struct PatientFile {
    path: PathBuf,
    file: File,
    written: u64,
    waiting: Vec<u8>,
    note: Option<String>,
}

impl PatientFile {
    /// A file that is open for appending and holds `written` bytes.
    pub(crate) fn new(path: PathBuf, file: File, written: u64) -> PatientFile {
        PatientFile { path, file, written, waiting: Vec::new(), note: None }
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in it.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// The file itself.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// What people should know, once.
    pub(crate) fn take_note(&mut self) -> Option<String> {
        self.note.take()
    }

    /// Adds bytes. A full disk, a used-up quota or a disk that became read-only is no error until too much waits.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let had_room = self.waiting.is_empty();
        self.waiting.extend_from_slice(bytes);
        match self.write_waiting() {
            Err(error) if is_full(&error) && self.waiting.len() <= WAITING_BYTES_MAX => {
                if had_room {
                    self.note = Some(format!("{}: {error}; what comes waits until there is room", self.path.display()));
                }
                Ok(())
            }
            other => other,
        }
    }

    /// Everything is in the file and on the disk.
    pub(crate) fn finish(&mut self) -> std::io::Result<()> {
        self.write_waiting()?;
        self.file.sync_all()
    }

    fn write_waiting(&mut self) -> std::io::Result<()> {
        while !self.waiting.is_empty() {
            let count = match self.file.write(&self.waiting) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                written => written?,
            };
            self.written += count as u64;
            self.waiting.drain(..count);
        }
        Ok(())
    }
}

/// Whether room may come back.
fn is_full(error: &std::io::Error) -> bool {
    use ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge | ReadOnlyFilesystem)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `/dev/full` is the kernel's own full disk.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_told_once_and_bytes_wait_until_there_are_too_many() {
        let path = PathBuf::from("/dev/full");
        let file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        let mut patient = PatientFile::new(path, file, 0);
        patient.append(b"one\n").unwrap();
        assert!(patient.take_note().unwrap().contains("/dev/full"));
        patient.append(b"two\n").unwrap();
        assert!(patient.take_note().is_none());
        let error = patient.append(&vec![b'x'; WAITING_BYTES_MAX]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert_eq!(patient.finish().unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
