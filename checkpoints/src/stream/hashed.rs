//! A file whose SHA-256 is computed beside its writing.
//!
//! In:    bytes, made piece by piece by the caller, who also writes them.
//! Out:   the synced file's size and digest.
//! Never: holds more than [`PIECES`] pieces, or leaves its thread behind.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use offload::durable::{DurableError, StagedFile};
use sha2::{Digest, Sha256};

use super::Written;
use crate::source::hexadecimal;

/// Pieces in memory: one is filled and written while those before it are hashed.
pub(super) const PIECES: usize = 4;

/// A file on its way.
pub(super) struct HashedFile {
    file: StagedFile,
    bytes: u64,
    written: SyncSender<Vec<u8>>,
    hashed: Receiver<Vec<u8>>,
}

impl HashedFile {
    /// Makes the file at `path`, lets `fill` add its bytes, syncs it.
    pub(super) fn write(
        path: &Path,
        fill: impl FnOnce(&mut HashedFile) -> Result<(), DurableError>,
    ) -> Result<Written, DurableError> {
        let file = StagedFile::create(path)?;
        let (written, to_hash) = sync_channel(PIECES);
        let (back, hashed) = sync_channel(PIECES);
        for _ in 0..PIECES {
            back.send(Vec::new()).expect("its receiver is below");
        }
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("hash".into())
                .spawn_scoped(scope, move || hash(to_hash, back))
                .map_err(|error| DurableError::io("start a thread that hashes", path, error))?;
            let mut out = HashedFile { file, bytes: 0, written, hashed };
            fill(&mut out)?;
            let HashedFile { file, bytes, written, .. } = out;
            // No more bytes: the thread ends.
            drop(written);
            file.finish()?;
            let digest = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok(Written { bytes, sha256: hexadecimal(&digest) })
        })
    }

    /// Adds bytes to the end of the file.
    pub(super) fn add_bytes(&mut self, bytes: &[u8]) -> Result<(), DurableError> {
        self.add(bytes.len(), |piece| {
            piece.copy_from_slice(bytes);
            Ok(())
        })
    }

    /// Adds `length` bytes to the end of the file, as `fill` makes them.
    pub(super) fn add(
        &mut self,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), DurableError>,
    ) -> Result<(), DurableError> {
        let mut piece = self.hashed.recv().expect("the thread that hashes lives as long as this");
        piece.resize(length, 0);
        fill(&mut piece)?;
        self.file.write(&piece)?;
        self.bytes += length as u64;
        self.written.send(piece).expect("the thread that hashes lives as long as this");
        Ok(())
    }
}

/// Hashes pieces in their order until there are no more.
fn hash(pieces: Receiver<Vec<u8>>, back: SyncSender<Vec<u8>>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for piece in pieces {
        hash.update(&piece);
        // Nobody waits for the last ones.
        let _ = back.send(piece);
    }
    hash.finalize().into()
}
