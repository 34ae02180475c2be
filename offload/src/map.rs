//! Files mapped into memory for reading.
//!
//! In:    a path.
//! Out:   the file's bytes as a slice that the kernel pages in and out.
//! Never: writes; reads ahead of need.

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

/// Largest page of the processors that this program runs on.
const PAGE_BYTES: usize = 1 << 16;

/// Why a file could not be mapped.
#[derive(Debug, thiserror::Error)]
#[error("{path}: cannot be read: {source}", path = path.display())]
pub struct MapError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}

/// The bytes of one file. The length is that at the time of mapping.
#[derive(Debug)]
pub struct MappedFile {
    /// `None` for an empty file, which cannot be mapped.
    map: Option<memmap2::Mmap>,
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}

impl MappedFile {
    /// Gives the memory of a range back: its pages leave this process and come from the file again when they are read.
    /// Whole pages only; what shares a page with other bytes stays.
    pub fn forget(&self, range: Range<usize>) {
        let Some(map) = &self.map else { return };
        let (start, end) =
            (range.start.next_multiple_of(PAGE_BYTES), range.end.min(map.len()) / PAGE_BYTES * PAGE_BYTES);
        #[cfg(unix)]
        if start < end {
            // SAFETY: the mapping is read-only and of a file: no page of it holds anything that is not in the file.
            // Advice that the kernel refuses changes nothing.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
        }
    }
}

/// Maps `path` for reading. The file must not be shortened while it is mapped; files that this program publishes never are, since they
/// are replaced by renaming.
pub fn map_file(path: &Path) -> Result<MappedFile, MapError> {
    let named = |source| MapError { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(named)?;
    let metadata = file.metadata().map_err(named)?;
    if metadata.is_dir() {
        return Err(named(std::io::ErrorKind::IsADirectory.into()));
    }
    if metadata.len() == 0 {
        return Ok(MappedFile { map: None });
    }
    // SAFETY: the mapping is private and read-only. A process that shortens the file meanwhile would make reads fault (SIGBUS, no
    // silent corruption) and one that rewrites it in place would change the bytes under the slice; model files and checkpoints are
    // published by rename and never written in place, which the documentation above asks of every other file.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(named)?;
    Ok(MappedFile { map: Some(map) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mapped_file_reads_as_it_was_written_and_an_empty_one_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        std::fs::write(&path, b"seven b").unwrap();
        assert_eq!(&*map_file(&path).unwrap(), b"seven b");
        std::fs::write(&path, b"").unwrap();
        assert!(map_file(&path).unwrap().is_empty());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_forgotten_range_takes_no_memory_and_reads_as_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        let bytes: Vec<u8> = (0..64u32 << 20).map(|at| (at % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = map_file(&path).unwrap();
        assert!(*map == bytes);
        let before = mapped_bytes();
        map.forget(100..bytes.len());
        let after = mapped_bytes();
        assert!(before - after > 60 << 20, "{before} bytes of files in memory, then {after}");
        assert!(*map == bytes);
    }

    #[cfg(target_os = "linux")]
    fn mapped_bytes() -> i64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssFile:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() * 1024
    }

    #[test]
    fn a_missing_file_and_a_folder_are_refused_with_their_path() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("nothing.gguf");
        assert!(map_file(&missing).unwrap_err().to_string().contains("nothing.gguf"));
        assert!(map_file(folder.path()).is_err());
    }
}
