//! How work is spread over rayon's current pool without letting the number of threads reach the results.
//!
//! In:    a number of independent tasks, or rows to cut into blocks.
//! Out:   every task run exactly once, early ones started first.
//! Never: cuts work by the number of threads where that could change a result.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

/// Elements per block of element-wise work: large enough to hide the hand-over, small enough for the second-level cache.
pub const BLOCK: usize = 16 * 1024;

/// Runs `task(0) .. task(count - 1)`; threads take the next index when they are free, so put large tasks first.
pub fn for_each_task(count: usize, task: impl Fn(usize) + Sync) {
    let workers = rayon::current_num_threads().min(count);
    if workers <= 1 {
        (0..count).for_each(task);
        return;
    }
    let next = AtomicUsize::new(0);
    (0..workers).into_par_iter().with_max_len(1).for_each(|_| {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            task(index);
        }
    });
}

/// Rows of `width` elements that make up about one [`BLOCK`].
pub fn rows_per_block(width: usize) -> usize {
    (BLOCK / width.max(1)).max(1)
}

/// A mutable slice that several tasks write at disjoint places.
pub struct Shared<'a, T> {
    start: *mut T,
    length: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer comes from an exclusive borrow; `part` passes the duty of disjointness to its callers.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Shares `slice` until the borrow ends.
    pub fn new(slice: &'a mut [T]) -> Self {
        Shared { start: slice.as_mut_ptr(), length: slice.len(), slice: PhantomData }
    }

    /// The elements `offset .. offset + length`.
    ///
    /// # Safety
    /// No other part that overlaps these elements may be alive.
    ///
    /// # Panics
    /// If the part reaches past the end.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, offset: usize, length: usize) -> &mut [T] {
        assert!(offset <= self.length && length <= self.length - offset, "part past the end");
        // SAFETY: in bounds by the assertion, unaliased by the caller's promise, alive as long as `'a`.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), length) }
    }
}
