//! Buffers that outlive a call, so that a steady training step allocates nothing large.
//!
//! In:    a length.
//! Out:   a 64-byte aligned slice of that many floats with unspecified (but initialised) content.
//! Never: shares a buffer between two users, shrinks.

use std::cell::RefCell;

/// Floats in a cache line: the alignment of every buffer.
const LINE: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Lends `length` floats to `work`. Calls may nest, also when a thread takes up other work while it waits.
pub fn with_floats<R>(length: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = FREE.with_borrow_mut(|free| take_best(free, length + LINE));
    if buffer.len() < length + LINE {
        buffer.resize(length + LINE, 0.0);
    }
    let start = buffer.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    let result = work(&mut buffer[start..start + length]);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}

/// The smallest free buffer that is long enough, else the longest, else a new one.
fn take_best(free: &mut Vec<Vec<f32>>, length: usize) -> Vec<f32> {
    let rank = |buffer: &Vec<f32>| match buffer.len() >= length {
        true => (0, buffer.len()),
        false => (1, usize::MAX - buffer.len()),
    };
    let best = (0..free.len()).min_by_key(|&index| rank(&free[index]));
    best.map(|index| free.swap_remove(index)).unwrap_or_default()
}

/// Cuts the first `length` floats off `rest`.
///
/// # Panics
/// If `rest` is shorter: the caller computes the total, so that is our bug.
pub fn carve<'a>(rest: &mut &'a mut [f32], length: usize) -> &'a mut [f32] {
    rest.split_off_mut(..length).expect("the scratch total covers its parts")
}
