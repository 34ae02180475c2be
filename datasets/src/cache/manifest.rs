//! `manifest.json`: what the folder is, written last.
//!
//! In:    address, seals of the parts, the caller's facts.
//! Out:   JSON in one line whose first member is the checksum of the second.
//! Never: trusts a body that does not match its checksum.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use twox_hash::XxHash3_64;

use super::error::CacheError;
use super::format::VERSION;

const NAME: &str = "manifest.json";
const BEFORE_SUM: &[u8] = b"{\"xxh3\":\"";
const AFTER_SUM: &[u8] = b"\",\"cache\":";
const END: &[u8] = b"}\n";

/// The body.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    version: u32,
    address: String,
    /// Checksums of the headers, training first, in hexadecimal.
    seals: [String; 2],
    /// The caller's.
    pub(crate) facts: Value,
}

impl Manifest {
    pub(crate) fn new(address: &str, seals: [u64; 2], facts: Value) -> Manifest {
        Manifest { version: VERSION, address: address.to_string(), seals: seals.map(hex), facts }
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, CacheError> {
        let body = serde_json::to_vec(self).map_err(|error| CacheError::Facts { reason: error.to_string() })?;
        let sum = hex(XxHash3_64::oneshot(&body));
        Ok([BEFORE_SUM, sum.as_bytes(), AFTER_SUM, &body, END].concat())
    }

    /// That the parts are those that were written with it.
    pub(crate) fn check(&self, folder: &Path, seals: [u64; 2]) -> Result<(), CacheError> {
        if self.seals == seals.map(hex) {
            return Ok(());
        }
        Err(CacheError::damaged(&path(folder), "its row files are those of another cache"))
    }
}

/// Where it lies.
pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

/// Reads and checks it.
pub(crate) fn read(folder: &Path, address: &str) -> Result<Manifest, CacheError> {
    let path = path(folder);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !folder.exists() => {
            return Err(CacheError::Absent { folder: folder.to_path_buf() });
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(CacheError::damaged(&path, "it is missing"));
        }
        Err(source) => return Err(offload::map::MapError { path, source }.into()),
    };
    let manifest = parse(&bytes).map_err(|what| CacheError::damaged(&path, what))?;
    if manifest.version != VERSION {
        return Err(CacheError::Version { path, found: manifest.version, expected: VERSION });
    }
    if manifest.address != address {
        return Err(CacheError::damaged(&path, format!("it belongs to address {}", manifest.address)));
    }
    Ok(manifest)
}

fn parse(bytes: &[u8]) -> Result<Manifest, String> {
    let inner = bytes.strip_prefix(BEFORE_SUM).and_then(|rest| rest.strip_suffix(END));
    let Some((sum, rest)) = inner.and_then(|inner| inner.split_at_checked(16)) else {
        return Err(format!("{} bytes that are not a whole manifest", bytes.len()));
    };
    let body = rest.strip_prefix(AFTER_SUM).ok_or("it has no checksum where one must be")?;
    let found = hex(XxHash3_64::oneshot(body));
    if found.as_bytes() != sum {
        return Err(format!("its checksum is {found}, it says {}", String::from_utf8_lossy(sum)));
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn hex(sum: u64) -> String {
    format!("{sum:016x}")
}
