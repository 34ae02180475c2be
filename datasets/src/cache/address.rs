//! Content addresses.
//!
//! In:    named parts, as bytes: hashes of files, the template's text, the masking rule.
//! Out:   64 hexadecimal digits that name the folder.
//! Never: keeps the bytes; depends on the order in which differently named parts were added.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// Everything that can change a token, hashed. SHA-256 over the version, the number of parts, and for each part in order of name the
/// name's length, the name and the SHA-256 of its bytes.
#[derive(Debug, Clone)]
pub struct Address {
    version: u32,
    parts: Vec<(String, [u8; 32])>,
}

impl Address {
    /// `version` is that of the code that makes tokens: another one finds none of the old folders.
    pub fn new(version: u32) -> Address {
        Address { version, parts: Vec::new() }
    }

    /// Adds a part. Parts of one name keep their order (the files of a source).
    #[must_use]
    pub fn add(mut self, name: &str, bytes: &[u8]) -> Address {
        self.parts.push((name.to_string(), Sha256::digest(bytes).into()));
        self
    }

    /// The address.
    pub fn hex(&self) -> String {
        let mut parts: Vec<&(String, [u8; 32])> = self.parts.iter().collect();
        parts.sort_by(|a, b| a.0.cmp(&b.0));
        let mut hash = Sha256::new();
        hash.update(self.version.to_le_bytes());
        hash.update((parts.len() as u64).to_le_bytes());
        for (name, digest) in parts {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
            hash.update(digest);
        }
        hash.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_changes_with_version_name_bytes_and_the_order_of_one_names_parts_only() {
        let base = Address::new(1).add("file", b"a").add("file", b"b").add("template", b"t");
        let moved = Address::new(1).add("template", b"t").add("file", b"a").add("file", b"b");
        assert_eq!(base.hex(), moved.hex());
        assert_eq!(base.hex().len(), 64);
        let others = [
            Address::new(2).add("file", b"a").add("file", b"b").add("template", b"t"),
            Address::new(1).add("file", b"b").add("file", b"a").add("template", b"t"),
            Address::new(1).add("file", b"ab").add("file", b"").add("template", b"t"),
            Address::new(1).add("file", b"a").add("file", b"b").add("templat", b"et"),
            base.clone().add("", b""),
        ];
        let mut all: Vec<String> = others.iter().map(Address::hex).chain([base.hex()]).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6);
    }
}
