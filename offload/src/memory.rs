//! Memory taken from the system in whole pages.
//!
//! In:    a size.
//! Out:   zeroed pages that are really there, in huge pages where the system has them.
//! Never: grows or moves; gives back less than it took.

use std::io;
use std::ptr::NonNull;

use rayon::prelude::*;

use crate::error::TierError;

/// Alignment and granularity of everything here: what O_DIRECT asks for on every common disk.
pub(crate) const PAGE: usize = 4096;
/// From this size on memory is aligned to it and huge pages are asked for.
const HUGE_PAGE: usize = 2 << 20;
/// Pages are touched in pieces of this size, several at a time: zeroing is bound by one core otherwise.
const TOUCH: usize = 128 << 20;

/// `bytes` rounded up to whole pages.
pub(crate) fn round_up(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE as u64)
}

/// Anonymous, private, zeroed memory, aligned to [`PAGE`].
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping owns its memory alone, like a `Box<[u8]>`; the pointer is only followed through borrows of it.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared borrows only read.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// At least `bytes` bytes of memory for `what`, rounded up to whole pages, all of it backed at once.
    pub fn new(what: &str, bytes: u64) -> Result<Mapping, TierError> {
        let refused = |source| TierError::Memory { what: what.to_owned(), bytes, source };
        let rounded = bytes.checked_next_multiple_of(PAGE as u64).and_then(|len| usize::try_from(len).ok());
        let len = rounded.ok_or_else(|| refused(io::ErrorKind::OutOfMemory.into()))?;
        let start = if len == 0 { NonNull::dangling() } else { map(len).map_err(refused)? };
        let mapping = Mapping { start, len };
        // Before the pages are touched, so that freed ones make room for them.
        crate::heap::claim(len);
        mapping.touch().map_err(refused)?;
        Ok(mapping)
    }

    /// Its first byte.
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `len` mapped, initialised (zeroed by the system) bytes that live as long as `self`; the borrow rules of `self`
        // keep writers away (the buffer pool, which hands out parts, never calls this).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// All of it, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes this the only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Makes the system back every page now, so that none can be missing later.
    fn touch(&self) -> io::Result<()> {
        let start = self.start.as_ptr() as usize;
        let pieces = (0..self.len).step_by(TOUCH).map(|from| (start + from, TOUCH.min(self.len - from)));
        let pieces: Vec<(usize, usize)> = pieces.collect();
        match pieces[..] {
            [] => Ok(()),
            [(from, len)] => touch_piece(from, len),
            _ => pieces.par_iter().try_for_each(|&(from, len)| touch_piece(from, len)),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the range was mapped by `map` and nobody borrows it any more.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        }
        crate::heap::unclaim(self.len);
    }
}

/// Maps `len` bytes, on a huge-page boundary when they fill at least one such page.
fn map(len: usize) -> io::Result<NonNull<u8>> {
    let slack = if len >= HUGE_PAGE { HUGE_PAGE } else { 0 };
    let whole = len.checked_add(slack).ok_or(io::ErrorKind::OutOfMemory)?;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
    // SAFETY: a new anonymous mapping at an address of the system's choice touches no memory of ours.
    let raw = unsafe { libc::mmap(std::ptr::null_mut(), whole, protection, flags, -1, 0) };
    if raw == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let raw = raw.cast::<u8>();
    let head = if slack == 0 { 0 } else { raw.align_offset(HUGE_PAGE) };
    // SAFETY: `head <= slack`, so head and tail lie in the mapping just made, outside of the `len` bytes that are kept.
    unsafe {
        if head > 0 {
            libc::munmap(raw.cast(), head);
        }
        if slack > head {
            libc::munmap(raw.add(head + len).cast(), slack - head);
        }
        let start = raw.add(head);
        #[cfg(target_os = "linux")]
        if slack > 0 {
            // Advice: refusal costs speed only.
            libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE);
        }
        Ok(NonNull::new_unchecked(start))
    }
}

fn touch_piece(from: usize, len: usize) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    loop {
        // SAFETY: the range is mapped and writable; populating changes no byte.
        if unsafe { libc::madvise(from as *mut libc::c_void, len, libc::MADV_POPULATE_WRITE) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN) => {}
            // Kernels before 5.14 do not know it.
            Some(libc::EINVAL) => break,
            _ => return Err(error),
        }
    }
    for at in (from..from + len).step_by(PAGE) {
        // SAFETY: `at` lies in the mapping, which nobody else uses yet; it holds zeros and keeps them.
        unsafe { std::ptr::write_volatile(at as *mut u8, 0) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn memory_is_zeroed_aligned_and_as_long_as_asked_for() {
        for bytes in [0u64, 1, 4095, 4096, 4097, (2 << 20) - 1, 2 << 20, (4 << 20) + 5] {
            let mut mapping = Mapping::new("a test", bytes).unwrap();
            assert_eq!(mapping.bytes().len() as u64, round_up(bytes));
            assert!(mapping.bytes().iter().all(|byte| *byte == 0));
            mapping.bytes_mut().fill(7);
            let alignment = if bytes >= 2 << 20 { HUGE_PAGE } else { PAGE };
            assert!(bytes == 0 || (mapping.start() as usize).is_multiple_of(alignment), "{bytes}");
        }
    }

    #[test]
    fn a_size_no_machine_has_is_a_typed_error() {
        let error = Mapping::new("a test", u64::MAX - 8191).unwrap_err();
        assert!(matches!(error, TierError::Memory { .. }), "{error}");
    }
}
