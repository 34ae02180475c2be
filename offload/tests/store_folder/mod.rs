//! What the tests of the NVMe tier share: two directories, and transfers of one chunk.
#![allow(dead_code)]

use std::fs;
use std::path::PathBuf;

use offload::{EngineChoice, Extent, Store, StoreOptions, TierError};

pub const ENGINES: [EngineChoice; 2] = [EngineChoice::Auto, EngineChoice::Threads];

pub struct Folder {
    root: tempfile::TempDir,
}

impl Folder {
    pub fn new() -> Folder {
        let root = tempfile::tempdir().unwrap();
        ["a", "b"].iter().for_each(|name| fs::create_dir(root.path().join(name)).unwrap());
        Folder { root }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn options(&self, engine: EngineChoice, paths: &[&str]) -> StoreOptions {
        StoreOptions {
            run: "test".to_owned(),
            paths: paths.iter().map(|name| self.path(name)).collect(),
            engine,
            buffers: 4,
            buffer_bytes: 64 << 10,
            queue_depth: 4,
            write_budget_bytes: None,
            faults: None,
        }
    }

    pub fn open(&self, engine: EngineChoice, paths: &[&str]) -> Store {
        Store::open(self.options(engine, paths)).unwrap()
    }

    pub fn is_empty(&self) -> bool {
        ["a", "b"].iter().all(|name| fs::read_dir(self.path(name)).unwrap().next().is_none())
    }
}

pub fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 31 + i / 251 + seed * 17) % 256) as u8).collect()
}

pub fn write(store: &Store, extent: &Extent, chunk: usize, bytes: &[u8]) -> Result<(), TierError> {
    let mut buffer = store.pool().take();
    buffer[..bytes.len()].copy_from_slice(bytes);
    store.write(extent, chunk, buffer).wait().map(drop)
}

pub fn read(store: &Store, extent: &Extent, chunk: usize) -> Result<Vec<u8>, TierError> {
    let buffer = store.read(extent, chunk, store.pool().take()).wait()?;
    Ok(buffer[..extent.chunk_len(chunk)].to_vec())
}
