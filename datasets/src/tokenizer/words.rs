//! Remembers the tokens of words, one table a thread, so that a word that comes again costs one look.
//!
//! In:    words and their tokens.
//! Out:   [`Words`] in [`Slots`].
//! Never: waits for a lock; holds more than [`TABLE_ENTRIES_MAX`] short and [`LONG_WORDS_MAX`] long words a thread.

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

/// Short words: 64 bytes each, so 8 MiB a thread when full.
const TABLE_ENTRIES_MAX: usize = 1 << 17;
const TABLE_ENTRIES_FIRST: usize = 1 << 12;
/// A short word has at most so many bytes and tokens: what fits a cache line.
const KEY_BYTES: usize = 24;
const KEY_TOKENS: usize = 6;
/// Long words, forgotten all at once when there are more.
const LONG_WORDS_MAX: usize = 1 << 13;
/// Longest word that is remembered, bytes.
const LONG_BYTES_MAX: usize = 96;

/// A token of a word: id, first byte and byte after the last in the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) id: u32,
    pub(super) start: u32,
    pub(super) end: u32,
}

/// Whether a word stands at the beginning of a text that gets a space in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Standing {
    /// As written.
    Inner = 0,
    /// With a space in front that the text does not have.
    Prefixed = 1,
}

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Entry {
    key: [u64; 3],
    ids: [u32; KEY_TOKENS],
    starts: [u8; KEY_TOKENS],
    ends: [u8; KEY_TOKENS],
    /// Bytes of the word; 0 in an empty entry.
    length: u8,
    standing: u8,
    count: u8,
}

const EMPTY: Entry = Entry {
    key: [0; 3],
    ids: [0; KEY_TOKENS],
    starts: [0; KEY_TOKENS],
    ends: [0; KEY_TOKENS],
    length: 0,
    standing: 0,
    count: 0,
};

type LongWords = HashMap<Box<[u8]>, Box<[Piece]>>;

/// The words that one thread has met.
#[derive(Debug)]
pub(super) struct Words {
    table: Vec<Entry>,
    filled: usize,
    /// By [`Standing`].
    long: [LongWords; 2],
}

impl Words {
    fn new() -> Words {
        Words { table: vec![EMPTY; TABLE_ENTRIES_FIRST], filled: 0, long: Default::default() }
    }

    /// Appends the tokens of `word`, which begins at byte `base`, if they are known.
    #[inline]
    pub(super) fn append(
        &self,
        word: &[u8],
        standing: Standing,
        base: usize,
        ids: &mut Vec<u32>,
        offsets: &mut Vec<Range<usize>>,
    ) -> bool {
        if word.len() > KEY_BYTES {
            return self.append_long(word, standing, base, ids, offsets);
        }
        let key = key(word);
        let home = self.home(&key, standing);
        for at in [home, home ^ 1] {
            let entry = &self.table[at];
            if entry.key == key && entry.length == word.len() as u8 && entry.standing == standing as u8 {
                let count = usize::from(entry.count);
                ids.extend_from_slice(&entry.ids[..count]);
                let ends = entry.starts[..count].iter().zip(&entry.ends[..count]);
                offsets.extend(ends.map(|(start, end)| base + usize::from(*start)..base + usize::from(*end)));
                return true;
            }
        }
        // A short word of many tokens.
        self.append_long(word, standing, base, ids, offsets)
    }

    fn append_long(
        &self,
        word: &[u8],
        standing: Standing,
        base: usize,
        ids: &mut Vec<u32>,
        offsets: &mut Vec<Range<usize>>,
    ) -> bool {
        if word.len() > LONG_BYTES_MAX {
            return false;
        }
        let Some(pieces) = self.long[standing as usize].get(word) else { return false };
        ids.extend(pieces.iter().map(|piece| piece.id));
        offsets.extend(pieces.iter().map(|piece| base + piece.start as usize..base + piece.end as usize));
        true
    }

    /// Remembers the tokens of `word`.
    pub(super) fn insert(&mut self, word: &[u8], standing: Standing, pieces: &[Piece]) {
        if word.len() > KEY_BYTES || pieces.len() > KEY_TOKENS {
            if word.len() <= LONG_BYTES_MAX {
                let long = &mut self.long[standing as usize];
                if long.len() >= LONG_WORDS_MAX {
                    long.clear();
                }
                long.insert(word.into(), pieces.into());
            }
            return;
        }
        let mut entry = EMPTY;
        entry.key = key(word);
        (entry.length, entry.standing, entry.count) = (word.len() as u8, standing as u8, pieces.len() as u8);
        for (at, piece) in pieces.iter().enumerate() {
            entry.ids[at] = piece.id;
            (entry.starts[at], entry.ends[at]) = (piece.start as u8, piece.end as u8);
        }
        if self.filled * 2 > self.table.len() && self.table.len() < TABLE_ENTRIES_MAX {
            self.grow();
        }
        self.place(entry);
    }

    fn place(&mut self, entry: Entry) {
        let home = self.home(&entry.key, if entry.standing == 0 { Standing::Inner } else { Standing::Prefixed });
        let free = [home, home ^ 1].into_iter().find(|at| self.table[*at].length == 0);
        self.filled += usize::from(free.is_some());
        if free.is_none() {
            self.table[home ^ 1] = self.table[home];
        }
        self.table[free.unwrap_or(home)] = entry;
    }

    fn grow(&mut self) {
        let doubled = vec![EMPTY; self.table.len() * 2];
        let old = std::mem::replace(&mut self.table, doubled);
        self.filled = 0;
        old.into_iter().filter(|entry| entry.length > 0).for_each(|entry| self.place(entry));
    }

    #[inline]
    fn home(&self, key: &[u64; 3], standing: Standing) -> usize {
        // Odd constants of wyhash and the golden ratio; the product's upper half depends on all bits below.
        let mixed = (key[0] ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xA076_1D64_78BD_642F)
            ^ (key[1] ^ standing as u64).wrapping_mul(0xE703_7ED1_A0B4_28DB).rotate_left(23)
            ^ key[2].wrapping_mul(0x8EBC_6AF0_9C88_C6E3).rotate_left(41);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> 32) as usize & (self.table.len() - 1)
    }
}

#[inline]
fn key(word: &[u8]) -> [u64; 3] {
    let mut bytes = [0; KEY_BYTES];
    bytes[..word.len()].copy_from_slice(word);
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
    [number(0), number(8), number(16)]
}

/// One [`Words`] for every thread that may work at the same time.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
}

/// On a cache line of its own, so that threads do not disturb each other.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot(Mutex<Option<Box<Words>>>);

thread_local! {
    static THREAD: Cell<usize> = Cell::new({
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    });
}

impl Slots {
    /// Twice as many as the machine runs threads.
    pub(super) fn new() -> Slots {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Slots { slots: (0..threads * 2).map(|_| Slot::default()).collect() }
    }

    /// Empties every table that no thread uses now.
    pub(super) fn forget(&self) {
        for mut slot in self.slots.iter().filter_map(take) {
            *slot = None;
        }
    }

    /// Gives `work` a table that no other thread uses now: the thread's own, else any that is free, else a new one.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Words) -> T) -> T {
        let count = self.slots.len();
        let first = THREAD.get();
        let mut free = (0..count).find_map(|step| take(&self.slots[(first + step) % count]));
        match &mut free {
            Some(slot) => work(slot.get_or_insert_with(|| Box::new(Words::new()))),
            None => work(&mut Words::new()),
        }
    }
}

/// The slot if it is free. A table is whole after every call, so one that a panic left is as good as any.
fn take(slot: &Slot) -> Option<MutexGuard<'_, Option<Box<Words>>>> {
    match slot.0.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
