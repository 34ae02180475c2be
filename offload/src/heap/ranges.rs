//! Free address ranges: those whose pages are still resident, and those without pages.
//!
//! In:    ranges given back; lengths wanted, whole pages.
//! Out:   ranges; pages handed back to the system, the longest unused first.
//! Never: holds two ranges that overlap, or counts a page as handed back that the system did not take.

use std::collections::{BTreeMap, BTreeSet};

/// A range taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub start: usize,
    /// No page of it has been written since the system gave it.
    pub is_zero: bool,
}

/// Ranges of one kind, neighbours joined.
#[derive(Debug)]
struct Joined {
    /// Start to length and age.
    by_start: BTreeMap<usize, (usize, u64)>,
    /// Length and start.
    by_length: BTreeSet<(usize, usize)>,
    /// Age and start.
    by_age: BTreeSet<(u64, usize)>,
    bytes: usize,
}

/// All free ranges.
#[derive(Debug)]
pub(super) struct Ranges {
    kept: Joined,
    clean: Joined,
    clock: u64,
}

impl Joined {
    const fn new() -> Joined {
        Joined { by_start: BTreeMap::new(), by_length: BTreeSet::new(), by_age: BTreeSet::new(), bytes: 0 }
    }

    fn insert(&mut self, start: usize, len: usize, age: u64) {
        self.by_start.insert(start, (len, age));
        self.by_length.insert((len, start));
        self.by_age.insert((age, start));
        self.bytes += len;
    }

    fn remove(&mut self, start: usize) -> (usize, u64) {
        let (len, age) = self.by_start.remove(&start).expect("a range in one index is in all");
        self.by_length.remove(&(len, start));
        self.by_age.remove(&(age, start));
        self.bytes -= len;
        (len, age)
    }

    /// Adds a range and joins it with its neighbours; the whole is as young as its youngest part.
    fn join(&mut self, mut start: usize, mut len: usize, mut age: u64) {
        if let Some((&before, &(before_len, _))) = self.by_start.range(..start).next_back()
            && before + before_len == start
        {
            let (before_len, before_age) = self.remove(before);
            (start, len, age) = (before, before_len + len, age.max(before_age));
        }
        if self.by_start.contains_key(&(start + len)) {
            let (after_len, after_age) = self.remove(start + len);
            (len, age) = (len + after_len, age.max(after_age));
        }
        self.insert(start, len, age);
    }

    /// The shortest range that holds `len`, the rest of it stays.
    fn take(&mut self, len: usize) -> Option<usize> {
        let &(_, start) = self.by_length.range((len, 0)..).next()?;
        let (whole, age) = self.remove(start);
        if whole > len {
            self.insert(start + len, whole - len, age);
        }
        Some(start)
    }
}

impl Ranges {
    pub const fn new() -> Ranges {
        Ranges { kept: Joined::new(), clean: Joined::new(), clock: 0 }
    }

    /// Bytes free and resident.
    pub fn kept(&self) -> usize {
        self.kept.bytes
    }

    /// Addresses that never had pages.
    pub fn add_clean(&mut self, start: usize, len: usize) {
        self.clean.join(start, len, 0);
    }

    /// A range comes back with its pages.
    pub fn give(&mut self, start: usize, len: usize) {
        self.clock += 1;
        self.kept.join(start, len, self.clock);
    }

    /// A range that has its pages.
    pub fn take_kept(&mut self, len: usize) -> Option<Found> {
        self.kept.take(len).map(|start| Found { start, is_zero: false })
    }

    /// A range without pages.
    pub fn take_clean(&mut self, len: usize) -> Option<Found> {
        self.clean.take(len).map(|start| Found { start, is_zero: true })
    }

    /// Hands pages back until no more than `bytes` of free ones are resident.
    pub fn keep_at_most(&mut self, bytes: usize) {
        while self.kept.bytes > bytes {
            let excess = self.kept.bytes - bytes;
            let Some(&(_, start)) = self.kept.by_age.first() else { return };
            let (len, age) = self.kept.remove(start);
            // The end of a range goes first: what remains starts where it did.
            let gone = excess.min(len);
            if len > gone {
                self.kept.insert(start, len - gone, age);
            }
            hand_back(start + len - gone, gone);
            self.clean.join(start + len - gone, gone, 0);
        }
    }
}

/// Takes the pages out of a free range.
fn hand_back(start: usize, len: usize) {
    // SAFETY: the range is free and lies in the heap's own private anonymous mapping, so nobody reads what it held; it reads as
    // zeros afterwards. For such a mapping this advice is always taken.
    unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED) };
}
