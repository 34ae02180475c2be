//! Which model this is: a fingerprint that is had in milliseconds, however large the files are.
//!
//! In:    an open model.
//! Out:   SHA-256 over each file's size, its header (names, formats, shapes and places of all tensors), and samples of its numbers.
//! Never: depends on where the files lie or how they are called; reads the whole of a large file.

use offload::map::MappedFile;
use sha2::{Digest, Sha256};

use super::{Files, Weights};
use crate::source::hexadecimal;

/// Places in a file from which bytes are taken, evenly spread. A training step changes every number, a conversion every block.
const SAMPLES: usize = 256;
const SAMPLE_BYTES: usize = 4096;
/// Samples begin at borders of this many bytes.
const WINDOW_BYTES: usize = 64 << 10;

impl Weights {
    /// The fingerprint, lower-case hexadecimal.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        match &self.files {
            Files::Folder(folder) => {
                folder.shards().iter().for_each(|shard| add(&mut hash, shard.map(), shard.header_bytes()));
            }
            Files::Gguf { file, .. } => add(&mut hash, file.map(), file.header_bytes()),
        }
        hexadecimal(&hash.finalize())
    }
}

fn add(hash: &mut Sha256, map: &MappedFile, header_bytes: usize) {
    hash.update((map.len() as u64).to_le_bytes());
    hash.update(&map[..header_bytes.min(map.len())]);
    map.forget(0..header_bytes);
    let windows = map.len().div_ceil(WINDOW_BYTES);
    let samples = SAMPLES.min(windows);
    for sample in 0..samples {
        // Without the last one `windows / samples` would never reach the end of the file.
        let window = if samples == 1 { 0 } else { sample * (windows - 1) / (samples - 1) };
        let start = window * WINDOW_BYTES;
        hash.update(&map[start..(start + SAMPLE_BYTES).min(map.len())]);
        map.forget(start..start + WINDOW_BYTES);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;

    fn fixture() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/llama")
    }

    #[test]
    fn a_copy_elsewhere_is_the_same_model_and_one_changed_number_makes_another() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["config.json", "model.safetensors"] {
            std::fs::copy(fixture().join(name), folder.path().join(name)).unwrap();
        }
        let original = Weights::open(&fixture()).unwrap().fingerprint();
        assert_eq!(original.len(), 64);
        assert_eq!(Weights::open(folder.path()).unwrap().fingerprint(), original);
        let path = folder.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[WINDOW_BYTES] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_ne!(Weights::open(folder.path()).unwrap().fingerprint(), original);
    }
}
