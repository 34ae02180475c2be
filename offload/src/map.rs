//! Files mapped into memory for reading.
//!
//! In:    a path.
//! Out:   the file's bytes as a slice that the kernel pages in and out.
//! Never: writes; reads ahead of need.

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

/// What one page fault may map: where the page cache holds the file in large folios, the kernel maps a whole huge page for one byte read.
const FAULT_BYTES: usize = 2 << 20;

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
    /// Gives the memory of a range back: its pages leave this process and come from the file again when they are read. What else a page
    /// fault in the range may have mapped goes with it.
    pub fn forget(&self, range: Range<usize>) {
        let Some(map) = &self.map else { return };
        let start = range.start / FAULT_BYTES * FAULT_BYTES;
        let end = range.end.min(map.len()).next_multiple_of(FAULT_BYTES).min(map.len());
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

    #[test]
    #[cfg(target_os = "linux")]
    fn bytes_read_here_and_there_take_no_memory_once_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        std::fs::write(&path, vec![7u8; 128 << 20]).unwrap();
        let map = map_file(&path).unwrap();
        let before = mapped_bytes();
        for at in (12_345..map.len()).step_by(1 << 20) {
            assert_eq!(map[at], 7);
            map.forget(at..at + 1);
        }
        let after = mapped_bytes();
        assert!(after - before < 4 << 20, "{before} bytes of files in memory, then {after}");
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
