//! What products and the small allocator keep between calls, bounded.
//!
//! In:    nothing.
//! Out:   no packed copy of a whole weight beside it; pages of small blocks back at the system.
//! Never: changes a result.

/// Has products pack their operands panel by panel.
///
/// From 8e9 multiplications on gemmkit packs all panels of its left operand at once, in a buffer that stays: for the logits of a
/// vocabulary of 152,000 that is 512 MB. Panels are packed alike either way and results have the same bits.
/// From 16 threads on gemmkit packs at once whatever is set.
pub fn pack_by_panels() {
    gemmkit::tuning::set_shared_lhs_mnk(usize::MAX);
}

/// Gives freed pages of small blocks back to the system, where mimalloc serves them: text is parsed into millions of them at the start,
/// and training takes few.
pub fn give_back_small() {
    // SAFETY: collects what is free; valid at any time, from any thread.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
