//! Which characters a class of a regular expression holds, as the tokenizers crate's own engine answers it.
//!
//! In:    a class as a `tokenizer.json` spells it: `\p{L}`, `[^\r\n\p{L}\p{N}]`, `\s`.
//! Out:   [`Class`], ranges of code points; [`ClassTable`], a word of class bits for each character.
//! Never: uses Unicode tables of its own: two engines of different Unicode versions would cut text differently.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, OnceLock};

use tokenizers::utils::SysRegex;

/// Ranges of code points, ascending.
pub(super) type Class = Arc<[RangeInclusive<u32>]>;

/// Planes 4 to 13 are unassigned and 15 and 16 private: one character of each stands for all of them.
const UNIFORM: [(u32, u32); 2] = [(0x4_0000, 0xD_FFFF), (0xF_0000, 0x10_FFFF)];
const PAGE: usize = 256;
const PAGES: usize = 0x11_0000 / PAGE;

/// Every character that is asked about: planes 0 to 3 and 14, and the two that stand for the rest.
fn sample() -> &'static str {
    static SAMPLE: OnceLock<String> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        // In ascending order, as the ranges are kept.
        (0..=0x4_0000).chain(0xE_0000..=0xF_0000).filter_map(char::from_u32).collect()
    })
}

/// The characters that `spelling` matches; `None` if it is no expression of one character.
pub(super) fn class(spelling: &str) -> Option<Class> {
    static KNOWN: OnceLock<Mutex<HashMap<String, Class>>> = OnceLock::new();
    let known = KNOWN.get_or_init(Mutex::default);
    if let Some(class) = known.lock().ok()?.get(spelling) {
        return Some(class.clone());
    }
    let regex = SysRegex::new(&format!("(?:{spelling})+")).ok()?;
    let mut ranges = Vec::new();
    for (start, end) in regex.find_iter(sample()) {
        sample()[start..end].chars().for_each(|character| extend(&mut ranges, character as u32));
    }
    let class: Class = ranges.into();
    known.lock().ok()?.insert(spelling.to_owned(), class.clone());
    Some(class)
}

/// The characters for which `holds` is true.
pub(super) fn class_of(holds: impl Fn(char) -> bool) -> Class {
    let mut ranges = Vec::new();
    sample().chars().filter(|&character| holds(character)).for_each(|character| extend(&mut ranges, character as u32));
    ranges.into()
}

fn extend(ranges: &mut Vec<RangeInclusive<u32>>, code: u32) {
    let last = UNIFORM.iter().find(|(first, _)| *first == code).map_or(code, |&(_, last)| last);
    match ranges.last_mut() {
        Some(range) if *range.end() + 1 == code => *range = *range.start()..=last,
        _ => ranges.push(code..=last),
    }
}

/// 64 bits for every character; equal pages of 256 characters are stored once.
pub(super) struct ClassTable {
    ascii: [u64; 128],
    pages: Vec<u16>,
    bits: Vec<[u64; PAGE]>,
}

impl ClassTable {
    /// Bit `i` of a character is set if a class of `classes` whose number is `i` holds it.
    pub(super) fn new(classes: &[(u32, Class)]) -> ClassTable {
        let mut table = ClassTable { ascii: [0; 128], pages: Vec::with_capacity(PAGES), bits: Vec::new() };
        let mut known: HashMap<[u64; PAGE], u16> = HashMap::new();
        for page in 0..PAGES {
            let bits = page_bits(classes, (page * PAGE) as u32);
            let next = table.bits.len() as u16;
            let index = *known.entry(bits).or_insert(next);
            if index == next {
                table.bits.push(bits);
            }
            table.pages.push(index);
        }
        for (code, bits) in table.ascii.iter_mut().enumerate() {
            *bits = table.bits[usize::from(table.pages[0])][code];
        }
        table
    }

    /// Bits of the character that starts at byte `at` of `text`, and its length in bytes; `None` at the end.
    #[inline]
    pub(super) fn at(&self, text: &str, at: usize) -> Option<(u64, usize)> {
        let byte = *text.as_bytes().get(at)?;
        if byte < 128 {
            return Some((self.ascii[usize::from(byte)], 1));
        }
        let character = text[at..].chars().next()?;
        let code = character as usize;
        Some((self.bits[usize::from(self.pages[code / PAGE])][code % PAGE], character.len_utf8()))
    }
}

fn page_bits(classes: &[(u32, Class)], first: u32) -> [u64; PAGE] {
    let mut bits = [0; PAGE];
    let last = first + PAGE as u32 - 1;
    for (bit, class) in classes {
        let from = class.partition_point(|range| *range.end() < first);
        for range in class[from..].iter().take_while(|range| *range.start() <= last) {
            for code in (*range.start()).max(first)..=(*range.end()).min(last) {
                bits[(code - first) as usize] |= 1 << bit;
            }
        }
    }
    bits
}
