//! Cuts a text into units and into the sequences of five of them that near-duplicates share.
//!
//! In:    a text in NFC.
//! Out:   64-bit hashes of its five-unit sequences, in order, repeats included.
//! Never: knows a language. A unit is a run of letters, digits and combining marks (of any script, case folded away), or one
//!        character of a script that is written without spaces between words. A text that has neither (`+++---`) is cut into
//!        its characters. Punctuation and white space only separate.

use unicode_normalization::char::is_combining_mark;

/// Units of a sequence ("shingle"). Five words is the custom since Broder 1997; a text with fewer is one sequence.
pub(crate) const SEQUENCE_UNITS: usize = 5;

/// Base of the rolling hash: any odd number with well-mixed bits (the golden ratio in 64 bits).
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
/// `BASE` to the power `SEQUENCE_UNITS - 1`: the weight of the unit that leaves.
const BASE_OF_LEAVING: u64 = BASE.wrapping_pow(SEQUENCE_UNITS as u32 - 1);
/// FNV-1a in 64 bits: offset and prime. Source: Fowler, Noll and Vo.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// ASCII letters (small) and digits as themselves, all else 0.
const ASCII_FOLDED: [u8; 128] = {
    let mut table = [0; 128];
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            table[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    table
};

/// First and last characters of blocks whose scripts write no space between words: Thai, Lao, Myanmar, Khmer, Tai, Javanese,
/// kana, Bopomofo, Han, Yi. Source: Unicode 16 line breaking classes SA and ID (UAX 14), blocks of letters.
const UNSPACED: [(u32, u32); 12] = [
    (0x0e00, 0x0eff),
    (0x1000, 0x109f),
    (0x1780, 0x17ff),
    (0x1950, 0x19df),
    (0x1a20, 0x1aaf),
    (0x3005, 0x312f),
    (0x31a0, 0x31ff),
    (0x3400, 0x9fff),
    (0xa000, 0xa4cf),
    (0xa980, 0xa9df),
    (0xf900, 0xfaff),
    (0x20000, 0x3ffff),
];

/// Hands the hash of every sequence of five units to `each`; one of all units where there are fewer, none where there is none.
pub(crate) fn sequences(text: &str, mut each: impl FnMut(u64)) {
    let mut rolling = Rolling::default();
    words(text, |unit| rolling.push(unit, &mut each));
    if rolling.units == 0 {
        let characters = text.chars().filter(|char| !char.is_whitespace());
        characters.for_each(|char| rolling.push(step(FNV_OFFSET, u64::from(char)), &mut each));
    }
    if (1..SEQUENCE_UNITS).contains(&rolling.units) {
        each(mix(rolling.sum));
    }
}

/// Whether `char` is a letter, a digit or a mark on one, of any script.
pub(crate) fn is_letter(char: char) -> bool {
    char.is_alphanumeric() || (!char.is_ascii() && is_combining_mark(char))
}

/// The finaliser of MurmurHash3: every bit of the result depends on every bit of `value`. Source: Appleby 2011.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let value = (value ^ (value >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

/// The polynomial hash of the last units. Source: Karp and Rabin 1987.
#[derive(Default)]
struct Rolling {
    last: [u64; SEQUENCE_UNITS],
    place: usize,
    units: usize,
    sum: u64,
}

impl Rolling {
    fn push(&mut self, unit: u64, each: &mut impl FnMut(u64)) {
        let leaving = std::mem::replace(&mut self.last[self.place], unit);
        self.place = if self.place + 1 == SEQUENCE_UNITS { 0 } else { self.place + 1 };
        self.sum = self.sum.wrapping_sub(leaving.wrapping_mul(BASE_OF_LEAVING)).wrapping_mul(BASE).wrapping_add(unit);
        self.units += 1;
        if self.units >= SEQUENCE_UNITS {
            each(mix(self.sum));
        }
    }
}

fn step(hash: u64, symbol: u64) -> u64 {
    (hash ^ symbol).wrapping_mul(FNV_PRIME)
}

/// Hands the hash of every unit to `each`.
fn words(text: &str, mut each: impl FnMut(u64)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut hash = FNV_OFFSET;
    let mut inside = false;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte.is_ascii() {
            at += 1;
            let folded = ASCII_FOLDED[usize::from(byte)];
            if folded != 0 {
                hash = step(hash, u64::from(folded));
                inside = true;
            } else if inside {
                each(std::mem::replace(&mut hash, FNV_OFFSET));
                inside = false;
            }
            continue;
        }
        // `at` only ever moves by whole characters, so there is one.
        let Some(char) = text[at..].chars().next() else { break };
        at += char.len_utf8();
        let (letter, alone) = (is_letter(char), is_unspaced(char));
        if inside && (alone || !letter) {
            each(std::mem::replace(&mut hash, FNV_OFFSET));
            inside = false;
        }
        match (letter, alone) {
            (true, true) => each(step(FNV_OFFSET, u64::from(char))),
            (true, false) => {
                hash = char.to_lowercase().fold(hash, |hash, small| step(hash, u64::from(small)));
                inside = true;
            }
            (false, _) => {}
        }
    }
    if inside {
        each(hash);
    }
}

fn is_unspaced(char: char) -> bool {
    let code = u32::from(char);
    // Nearly all text lies below the first block: one comparison for it.
    code >= UNSPACED[0].0 && UNSPACED.iter().any(|&(first, last)| (first..=last).contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> usize {
        let mut count = 0;
        words(text, |_| count += 1);
        count
    }

    fn all(text: &str) -> Vec<u64> {
        let mut hashes = Vec::new();
        sequences(text, |hash| hashes.push(hash));
        hashes
    }

    #[test]
    fn units_are_words_of_spaced_scripts_and_characters_of_unspaced_ones() {
        assert_eq!(count("One, two -- three_4."), 4);
        assert_eq!(count("Grüße aus Köln"), 3);
        assert_eq!(count("हिन्दी भाषा"), 2, "a virama stands inside a word");
        assert_eq!(count("我喜欢吃苹果。"), 6);
        assert_eq!(count("GPU内存GPU"), 4);
        assert_eq!(count("ภาษาไทย"), "ภาษาไทย".chars().count());
        assert_eq!(count("  \n ..."), 0);
    }

    #[test]
    fn a_sequence_is_five_units_and_a_shorter_text_is_one_sequence() {
        assert_eq!(all("a b c d e f g").len(), 3);
        assert_eq!(all("a b c d e").len(), 1);
        assert_eq!(all("a b").len(), 1);
        assert_ne!(all("a b"), all("b a"));
        assert_eq!(all("+++---").len(), 2, "characters where there is no word");
        assert_eq!(all(" \n"), Vec::<u64>::new());
        assert_eq!(all("x a b c d e y")[1], all("z z a b c d e")[2], "a sequence's hash does not depend on its place");
    }

    #[test]
    fn case_and_punctuation_do_not_change_sequences() {
        assert_eq!(all("The END, of Ärger is near!"), all("the end of ärger -- is near"));
    }
}
