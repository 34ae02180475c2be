//! The program's allocator: large blocks come from one address range whose resident bytes are counted, small ones from elsewhere.
//!
//! In:    requests of any thread, as the global allocator; what other mappings of the program take ([`claim`]).
//! Out:   blocks. Of large blocks and claims together, never more is resident than was ever in use at once.
//! Never: keeps a freed page where that would raise the peak; hands one back while it need not: a training step takes and frees the same
//!        gigabytes again and again, and a page that was handed back costs a fault and a cleared page.
//!
//! A general allocator that keeps freed pages needs up to a third more than the tensors that live at once, by an amount that depends on
//! the order of everything; one that hands them back costs a quarter of the speed (docs/LOG.md). With this one the peak is a sum of
//! tensors, which a plan can name.

mod ranges;

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::memory::PAGE;
use ranges::{Found, Ranges};

/// Blocks from this size on are large, bytes.
const LARGE: usize = 64 << 10;
/// Addresses for large blocks, bytes: far more than memory, so that cut-up addresses never matter. None is backed before it is used.
const ADDRESSES: usize = 4 << 40;
/// With fewer addresses than this, large blocks come from the other allocator too.
const ADDRESSES_MIN: usize = 64 << 30;

static START: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);
static HEAP: Mutex<Heap> = Mutex::new(Heap::new());

/// What the heap holds, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeapBytes {
    /// Large blocks in use, and claims.
    pub used: u64,
    /// Freed, and still resident.
    pub kept: u64,
    /// The most that was in use at once.
    pub peak: u64,
}

/// A global allocator: large blocks here, everything else from `A`.
#[derive(Debug)]
pub struct CountedHeap<A>(pub A);

struct Heap {
    ranges: Ranges,
    used: usize,
    peak: usize,
    state: Addresses,
}

#[derive(Clone, Copy, PartialEq)]
enum Addresses {
    Unasked,
    Refused,
    There,
}

/// Figures of this moment.
pub fn bytes() -> HeapBytes {
    let heap = heap();
    HeapBytes { used: heap.used as u64, kept: heap.ranges.kept() as u64, peak: heap.peak as u64 }
}

/// Counts `bytes` that are about to be mapped elsewhere; kept pages make room for them.
pub(crate) fn claim(bytes: usize) {
    heap().take(bytes);
}

/// The end of a [`claim`].
pub(crate) fn unclaim(bytes: usize) {
    heap().used -= bytes;
}

fn heap() -> MutexGuard<'static, Heap> {
    HEAP.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pages(bytes: usize) -> Option<usize> {
    bytes.checked_next_multiple_of(PAGE)
}

impl Heap {
    const fn new() -> Heap {
        Heap { ranges: Ranges::new(), used: 0, peak: 0, state: Addresses::Unasked }
    }

    /// Counts bytes that come into use; hands kept pages back as far as they would raise the peak.
    fn take(&mut self, bytes: usize) {
        self.used += bytes;
        self.peak = self.peak.max(self.used);
        let room = self.peak - self.used;
        self.ranges.keep_at_most(room);
    }

    fn block(&mut self, bytes: usize) -> Option<Found> {
        if self.state == Addresses::Unasked {
            self.state = self.addresses();
        }
        if self.state == Addresses::Refused {
            return None;
        }
        let found = match self.ranges.take_kept(bytes) {
            Some(found) => {
                self.used += bytes;
                self.peak = self.peak.max(self.used);
                found
            }
            None => {
                self.take(bytes);
                match self.ranges.take_clean(bytes) {
                    Some(found) => found,
                    None => {
                        self.used -= bytes;
                        return None;
                    }
                }
            }
        };
        Some(found)
    }

    fn free(&mut self, start: usize, bytes: usize) {
        self.used -= bytes;
        self.ranges.give(start, bytes);
    }

    fn addresses(&mut self) -> Addresses {
        let mut len = ADDRESSES;
        while len >= ADDRESSES_MIN {
            let (protection, flags) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE);
            // SAFETY: a new anonymous mapping at an address of the system's choice touches no memory of ours.
            let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
            if start != libc::MAP_FAILED {
                let start = start as usize;
                START.store(start, Ordering::Relaxed);
                END.store(start + len, Ordering::Relaxed);
                self.ranges.add_clean(start, len);
                return Addresses::There;
            }
            len /= 2;
        }
        Addresses::Refused
    }
}

fn is_ours(block: *mut u8) -> bool {
    (START.load(Ordering::Relaxed)..END.load(Ordering::Relaxed)).contains(&(block as usize))
}

/// A large block, and whether it is known to be zero; `None` where the other allocator serves.
fn large(layout: Layout) -> Option<(NonNull<u8>, bool)> {
    if layout.size() < LARGE || layout.align() > PAGE {
        return None;
    }
    let found = heap().block(pages(layout.size())?)?;
    // The range begins above address zero: the system never maps that page.
    NonNull::new(found.start as *mut u8).map(|start| (start, found.is_zero))
}

// SAFETY: large blocks are whole pages of a private mapping, each handed out once until it is freed (`Ranges` never holds overlapping
// ranges); whoever freed a block owns it no more. Everything else is `A`'s, told apart by address.
unsafe impl<A: GlobalAlloc> GlobalAlloc for CountedHeap<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match large(layout) {
            Some((block, _)) => block.as_ptr(),
            // SAFETY: the caller's promises are passed on.
            None => unsafe { self.0.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match large(layout) {
            Some((block, true)) => block.as_ptr(),
            Some((block, false)) => {
                // SAFETY: the block is ours alone and at least as long as asked for.
                unsafe { block.as_ptr().write_bytes(0, layout.size()) };
                block.as_ptr()
            }
            // SAFETY: the caller's promises are passed on.
            None => unsafe { self.0.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match (is_ours(block), pages(layout.size())) {
            (true, Some(bytes)) => heap().free(block as usize, bytes),
            // SAFETY: the caller's promises are passed on; a block outside of our range came from there.
            _ => unsafe { self.0.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let ours = is_ours(block);
        if !ours && size < LARGE {
            // SAFETY: the caller's promises are passed on; the block came from there.
            return unsafe { self.0.realloc(block, layout, size) };
        }
        if ours && size >= LARGE && pages(size) == pages(layout.size()) {
            return block;
        }
        // SAFETY: `size` is not zero and does not overflow with the alignment (the caller's promise); the new block is another one,
        // and both are at least as long as what is copied.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                std::ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests;
