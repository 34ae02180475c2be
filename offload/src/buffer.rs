//! Buffers for transfers between memory and files, all allocated at the start.
//!
//! In:    how many, and how large.
//! Out:   owned handles that return to their pool when dropped.
//! Never: allocates afterwards (but for buffers that a hanging disk keeps); hands one buffer to two owners.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::error::TierError;
use crate::memory::{Mapping, PAGE};
use crate::sync::lock;

/// A fixed set of page-aligned buffers cut from one piece of memory. Clones share it.
#[derive(Clone, Debug)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    memory: Mapping,
    count: usize,
    /// Bytes from one buffer to the next, which is also the size of each.
    stride: usize,
    free: Mutex<Vec<u32>>,
    returned: Condvar,
    /// Stand-ins for buffers that a hanging disk keeps, numbered from `count` on.
    spares: Mutex<Vec<Mapping>>,
}

impl Shared {
    fn start(&self, index: u32) -> *mut u8 {
        match (index as usize).checked_sub(self.count) {
            // SAFETY: `index < count`, so the offset stays inside of the pool's mapping.
            None => unsafe { self.memory.start().add(index as usize * self.stride) },
            Some(spare) => lock(&self.spares)[spare].start(),
        }
    }
}

impl BufferPool {
    /// `count` buffers of `bytes` each, rounded up to whole pages of 4096. All memory is taken and touched here.
    ///
    /// # Errors
    /// [`TierError::Memory`] when the system has no such amount.
    pub fn new(count: usize, bytes: usize) -> Result<BufferPool, TierError> {
        let stride = bytes.next_multiple_of(PAGE);
        let total = (stride as u64).saturating_mul(count as u64);
        let memory = Mapping::new("the transfer buffers", total)?;
        let free = Mutex::new((0..count as u32).rev().collect());
        Ok(BufferPool {
            shared: Arc::new(Shared {
                memory,
                count,
                stride,
                free,
                returned: Condvar::new(),
                spares: Mutex::default(),
            }),
        })
    }

    /// A buffer, waiting until one is free. Its content is what the last user left.
    ///
    /// Waits for ever if the caller holds all of them itself.
    pub fn take(&self) -> Buffer {
        let free = lock(&self.shared.free);
        let waited = self.shared.returned.wait_while(free, |free| free.is_empty());
        let index = waited.unwrap_or_else(PoisonError::into_inner).pop().expect("the wait ends with a free buffer");
        self.handle(index)
    }

    /// A buffer, if one is free now.
    pub fn try_take(&self) -> Option<Buffer> {
        let index = lock(&self.shared.free).pop()?;
        Some(self.handle(index))
    }

    /// How many buffers there are.
    pub fn count(&self) -> usize {
        self.shared.count + lock(&self.shared.spares).len()
    }

    /// How many of them are cut from the one piece of memory at `start`.
    #[cfg(target_os = "linux")]
    pub(crate) fn in_one_piece(&self) -> usize {
        self.shared.count
    }

    /// How many of them nobody holds.
    pub fn free_count(&self) -> usize {
        lock(&self.shared.free).len()
    }

    /// Size of one buffer, bytes, a multiple of 4096.
    pub fn buffer_bytes(&self) -> usize {
        self.shared.stride
    }

    /// First byte of the whole pool, for registering it with the kernel.
    #[cfg(target_os = "linux")]
    pub(crate) fn start(&self) -> *mut u8 {
        self.shared.memory.start()
    }

    fn handle(&self, index: u32) -> Buffer {
        Buffer { pool: Arc::clone(&self.shared), index, start: self.shared.start(index) }
    }

    /// Adds a buffer in place of one that a hanging disk may keep for ever, so that nobody waits for that one. Without memory for it the
    /// pool stays smaller.
    pub(crate) fn replace_one(&self) {
        let Ok(memory) = Mapping::new("a transfer buffer", self.shared.stride as u64) else { return };
        let mut spares = lock(&self.shared.spares);
        spares.push(memory);
        let index = (self.shared.count + spares.len() - 1) as u32;
        drop(spares);
        lock(&self.shared.free).push(index);
        self.shared.returned.notify_one();
    }
}

/// One buffer of a [`BufferPool`], owned until dropped.
pub struct Buffer {
    pool: Arc<Shared>,
    index: u32,
    start: *mut u8,
}

// SAFETY: a buffer owns its part of the pool's memory alone, like a `Box<[u8]>`; the pool itself may be used from any thread.
unsafe impl Send for Buffer {}
// SAFETY: as above; shared borrows only read.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Its number in the pool, from 0.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Its first byte, for the kernel.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start
    }

    /// Whether it belongs to `pool`.
    pub(crate) fn is_of(&self, pool: &BufferPool) -> bool {
        Arc::ptr_eq(&self.pool, &pool.shared)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range is initialised memory of the pool, and the free list gave `index` to this handle alone; while the
        // kernel writes to it the handle is owned by the I/O thread, which does not look at it.
        unsafe { std::slice::from_raw_parts(self.start(), self.pool.stride) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes this the only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.pool.stride) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer {} of {} bytes", self.index, self.pool.stride)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        lock(&self.pool.free).push(self.index);
        self.pool.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn buffers_are_apart_aligned_and_come_back_when_dropped() {
        let pool = BufferPool::new(3, 5_000).unwrap();
        assert_eq!((pool.buffer_bytes(), pool.count(), pool.free_count()), (8192, 3, 3));
        let mut held: Vec<Buffer> = (0..3).map(|_| pool.take()).collect();
        for (i, buffer) in held.iter_mut().enumerate() {
            assert!((buffer.start() as usize).is_multiple_of(4096) && buffer.len() == 8192);
            buffer.fill(i as u8 + 1);
        }
        for (i, buffer) in held.iter().enumerate() {
            assert!(buffer.iter().all(|byte| *byte == i as u8 + 1));
        }
        assert!(pool.try_take().is_none());
        held.pop();
        assert!(pool.try_take().is_some());
        drop(held);
        assert_eq!(pool.free_count(), 3);
    }

    #[test]
    fn a_replaced_buffer_is_one_more_of_the_same_size() {
        let pool = BufferPool::new(1, 4096).unwrap();
        let mut kept = pool.take();
        pool.replace_one();
        let mut spare = pool.take();
        kept.fill(1);
        spare.fill(2);
        assert!(kept.iter().all(|byte| *byte == 1) && spare.len() == 4096);
        drop((kept, spare));
        assert_eq!((pool.count(), pool.free_count()), (2, 2));
    }

    #[test]
    fn taking_waits_until_another_thread_gives_one_back() {
        let pool = BufferPool::new(1, 4096).unwrap();
        let held = pool.take();
        let other = pool.clone();
        let waiter = std::thread::spawn(move || other.take().len());
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!waiter.is_finished());
        drop(held);
        assert_eq!(waiter.join().unwrap(), 4096);
    }
}
