//! The checksum of a chunk.
//!
//! In:    the bytes, and which chunk of which extent they are.
//! Out:   XXH3-64, seeded with the place, so that a chunk that comes back from the wrong place is found too.
//! Never: protects against malice.

use twox_hash::XxHash3_64;

/// Checksum of `bytes` as chunk number `chunk` of the extent numbered `extent`.
pub(crate) fn checksum(extent: u64, chunk: usize, bytes: &[u8]) -> u64 {
    // Odd constants of SplitMix64: different places give different seeds in all practical ranges.
    let seed = extent.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (chunk as u64).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_place_or_another_byte_gives_another_checksum() {
        let bytes = [7u8; 5_000];
        let here = checksum(3, 4, &bytes);
        assert_eq!(here, checksum(3, 4, &bytes));
        assert_ne!(here, checksum(4, 3, &bytes));
        assert_ne!(here, checksum(3, 5, &bytes));
        assert_ne!(here, checksum(3, 4, &bytes[1..]));
        let mut other = bytes;
        other[4_999] ^= 1;
        assert_ne!(here, checksum(3, 4, &other));
    }
}
