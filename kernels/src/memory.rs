//! The allocator's one setting that training depends on.
//!
//! In:    nothing.
//! Out:   freed tensor memory stays with the process.
//! Never: allocates.

/// `mi_option_purge_delay` of mimalloc's `mi_option_e` (mimalloc.h, v2 and v3); the crate does not name it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Tells mimalloc to keep freed pages instead of handing them back after 10 ms.
///
/// Every step frees and takes the same gigabytes again; handing pages back means a fault and a cleared page for each
/// 4 KiB of them (measured: 190 against 250 tokens/s, docs/LOG.md). Peak memory is the same. Without mimalloc as the
/// global allocator this changes nothing.
pub fn keep_freed_pages() {
    // SAFETY: sets an integer option of the allocator; valid at any time, from any thread.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) }
}
