//! Which kernels were fastest on a device, and what was compiled for it, kept for later processes.
//!
//! In:    a folder.
//! Out:   CubeCL's store in it: one file for all devices, written by several processes at once.
//! Never: stands in the way: where the store cannot be opened, the trials are made again.
//!
//! Two kernels round one product differently, and trials choose by time, which is never the same twice: only a choice that is kept gives a
//! resumed run the bits of one that was not interrupted.

use std::path::Path;

use burn_cubecl::cubecl::config::cache::CacheConfig;
use burn_cubecl::cubecl::config::environment::EnvironmentConfig;
use burn_cubecl::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use burn_cubecl::cubecl::records::{RecordLevel, RecordsConfig};

/// The store's name in its folder.
const NAME: &str = "kernels";

pub(super) fn keep_in(folder: &Path) {
    CubeClRuntimeConfig::try_set(config(folder));
}

fn config(folder: &Path) -> CubeClRuntimeConfig {
    let mut config = CubeClRuntimeConfig::default();
    config.compilation.cache = true;
    config.environment = EnvironmentConfig {
        name: NAME.to_string(),
        path: CacheConfig::Directory(folder.to_path_buf()),
        records: RecordsConfig { level: RecordLevel::Off, keep_sessions: None },
    };
    config
}

#[cfg(all(test, feature = "wgpu"))]
mod tests;
