//! Memory within a hard budget: the DRAM tier, and the device tier of a CPU.
//!
//! In:    a budget in bytes, then requests against it.
//! Out:   zeroed slabs that are really backed; their bytes return to the budget when dropped.
//! Never: passes the budget; finds out later that memory is short.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::TierError;
use crate::memory::Mapping;

/// A tier's memory budget. Clones share it.
#[derive(Clone, Debug)]
pub struct Slabs {
    shared: Arc<Budget>,
}

#[derive(Debug)]
struct Budget {
    tier: &'static str,
    budget_bytes: u64,
    used_bytes: AtomicU64,
}

impl Slabs {
    /// A tier named `tier` that may hand out `budget_bytes`. Takes no memory yet.
    pub fn new(tier: &'static str, budget_bytes: u64) -> Slabs {
        Slabs { shared: Arc::new(Budget { tier, budget_bytes, used_bytes: AtomicU64::new(0) }) }
    }

    /// `bytes` zeroed bytes for `what`. They count rounded up to whole pages of 4096.
    ///
    /// # Errors
    /// [`TierError::OverBudget`] before anything is allocated; [`TierError::Memory`] when the system has less than the budget says.
    pub fn take(&self, what: &str, bytes: u64) -> Result<Slab, TierError> {
        let budget = &self.shared;
        // Not `round_up`: a request near the end of the number range must fail by the budget, not by overflow.
        let asked = bytes.checked_next_multiple_of(crate::memory::PAGE as u64).unwrap_or(u64::MAX);
        let within = |used: u64| used.checked_add(asked).filter(|sum| *sum <= budget.budget_bytes);
        budget.used_bytes.try_update(Ordering::SeqCst, Ordering::SeqCst, within).map_err(|used_bytes| {
            let (tier, budget_bytes) = (budget.tier, budget.budget_bytes);
            TierError::OverBudget { tier, what: what.to_owned(), asked_bytes: bytes, used_bytes, budget_bytes }
        })?;
        let share = Share { budget: Arc::clone(budget), bytes: asked };
        Ok(Slab { memory: Mapping::new(what, bytes)?, len: bytes as usize, _share: share })
    }

    /// Bytes handed out now.
    pub fn used_bytes(&self) -> u64 {
        self.shared.used_bytes.load(Ordering::SeqCst)
    }

    /// Bytes that may be handed out.
    pub fn budget_bytes(&self) -> u64 {
        self.shared.budget_bytes
    }
}

/// What a slab took from the budget; gives it back when dropped.
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// A piece of a tier's memory: aligned to 4096 bytes, to 2 MiB (in huge pages where the system has them) from that size on.
#[derive(Debug)]
pub struct Slab {
    // Dropped before the share: the bytes are gone when the budget says so.
    memory: Mapping,
    len: usize,
    _share: Share,
}

impl Deref for Slab {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory.bytes()[..self.len]
    }
}

impl DerefMut for Slab {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory.bytes_mut()[..self.len]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_budget_short_by_one_page_refuses_with_its_numbers_and_takes_nothing() {
        let slabs = Slabs::new("dram", 12_288);
        let first = slabs.take("weights", 4_097).unwrap();
        assert_eq!((first.len(), slabs.used_bytes()), (4_097, 8_192));
        let error = slabs.take("moments", 4_097).unwrap_err();
        let text = error.to_string();
        for part in ["moments", "4097", "8192", "12288", "dram"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(slabs.used_bytes(), 8_192);
        assert_eq!(slabs.take("moments", 4_096).unwrap().len(), 4_096);
    }

    #[test]
    fn dropped_slabs_return_their_bytes_and_new_ones_are_zeros() {
        let slabs = Slabs::new("dram", 8 << 20);
        for _ in 0..3 {
            let mut slab = slabs.take("weights", 8 << 20).unwrap();
            assert!(slab.iter().all(|byte| *byte == 0));
            slab.fill(1);
        }
        assert_eq!(slabs.used_bytes(), 0);
    }

    #[test]
    fn a_size_that_overflows_is_refused_by_the_budget() {
        let slabs = Slabs::new("dram", u64::MAX - 1);
        assert!(matches!(slabs.take("x", u64::MAX), Err(TierError::OverBudget { .. })));
    }
}
