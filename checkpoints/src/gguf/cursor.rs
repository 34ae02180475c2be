//! A position in untrusted bytes; every step is checked against what is left.
//!
//! In:    a byte slice.
//! Out:   little-endian numbers, strings, sub-slices.
//! Never: panics, allocates more than the slice itself holds.

use super::GgufError;

/// Reads forward through `bytes`.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: u64, what: &'static str) -> Result<&'a [u8], GgufError> {
        let wanted = usize::try_from(count).ok().filter(|&wanted| wanted <= self.left());
        let Some(wanted) = wanted else {
            let (offset, available) = (self.position as u64, self.left() as u64);
            return Err(GgufError::Truncated { what, offset, needed: count, available });
        };
        let slice = &self.bytes[self.position..self.position + wanted];
        self.position += wanted;
        Ok(slice)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(super) fn string(&mut self, what: &'static str) -> Result<&'a str, GgufError> {
        let length = self.u64(what)?;
        let offset = self.position as u64;
        std::str::from_utf8(self.take(length, what)?).map_err(|_| GgufError::Utf8 { what, offset })
    }

    /// A number of items, refused where even items of `smallest` bytes would not fit in what is left.
    pub(super) fn count(&mut self, smallest: u64, what: &'static str) -> Result<usize, GgufError> {
        let offset = self.position as u64;
        let stated = self.u64(what)?;
        let needed = stated.saturating_mul(smallest);
        match usize::try_from(stated) {
            Ok(count) if needed <= self.left() as u64 => Ok(count),
            _ => Err(GgufError::Truncated { what, offset, needed, available: self.left() as u64 }),
        }
    }
}
