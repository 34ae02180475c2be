//! What is kept of a text to find it again: one number for the text itself, 256 bytes for what it is like.
//!
//! In:    a text.
//! Out:   [`Fingerprint`]: equal `exact` for equal texts; [`Sketch::similarity`] estimates the Jaccard similarity.
//! Never: depends on anything but the text.
//!
//! The sketch is MinHash with one permutation (Li, Owen and Zhang 2012, arXiv:1208.1259): the hash of a five-word sequence
//! chooses one of 256 bins, each bin keeps its smallest hash, of which eight bits stay (Li and König 2010, "b-bit minwise
//! hashing"). Empty bins stay empty, so that the estimate of short texts, whose sequences nearly all have a bin of their own,
//! is nearly exact; only [`super::bands`] fills them.

use std::borrow::Cow;

use twox_hash::XxHash3_64;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::units::{mix, sequences};

/// Bins of a sketch. The standard error of a long text's similarity is at most `sqrt(0.25 / 256)` = 0.03, 0.025 at 0.8.
pub(crate) const BINS: usize = 256;
/// A seed for the second half of `exact`; any other than 0.
const SECOND_SEED: u64 = 0x5a17_0b0e_d0c5_eed1;

/// What is kept of a text: 272 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// Hash of the text in NFC with each run of white space made one space and none at the ends. Case is kept: an exact
    /// repeat is removed without a look at the text, and `us` is not `US`, nor `Id` `id` in code; the sketch ignores case.
    pub(crate) exact: u128,
    /// What the text is like.
    pub(crate) sketch: Sketch,
}

impl Fingerprint {
    /// Both parts.
    pub(crate) fn of(text: &str) -> Fingerprint {
        let text = composed(text);
        Fingerprint { exact: exact(&text), sketch: Sketch::of(&text) }
    }

    /// Only `exact`, several times faster; the empty sketch is like nothing.
    pub(crate) fn exact_only(text: &str) -> Fingerprint {
        Fingerprint { exact: exact(&composed(text)), sketch: Sketch::EMPTY }
    }
}

/// For each bin 0 if no sequence fell into it, else 1 to 255 from its smallest hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sketch(pub(crate) [u8; BINS]);

impl Sketch {
    /// Of a text without any sequence.
    pub(crate) const EMPTY: Sketch = Sketch([0; BINS]);

    fn of(text: &str) -> Sketch {
        let mut smallest = [u32::MAX; BINS];
        sequences(text, |hash| {
            let bin = &mut smallest[(hash >> 56) as usize];
            // `u32::MAX` says empty; a hash that is it moves by one.
            *bin = (*bin).min((hash as u32).min(u32::MAX - 1));
        });
        Sketch(smallest.map(eight_bits))
    }

    /// Estimated Jaccard similarity of the sets of five-word sequences, 0 to 1; 0 if both texts have none.
    pub(crate) fn similarity(&self, other: &Sketch) -> f64 {
        let (mut equal, mut both, mut either) = (0_u32, 0_u32, 0_u32);
        for (&mine, &theirs) in self.0.iter().zip(&other.0) {
            equal += u32::from((mine == theirs) & (mine != 0));
            both += u32::from((mine != 0) & (theirs != 0));
            either += u32::from((mine | theirs) != 0);
        }
        // Different sequences in one bin show the same eight bits one time in 255: equal = same + (both - same) / 255.
        let same = (255.0 * f64::from(equal) - f64::from(both)) / 254.0;
        if either == 0 { 0.0 } else { (same / f64::from(either)).clamp(0.0, 1.0) }
    }
}

/// Not the upper bits: those of a smallest hash are nearly always 0.
fn eight_bits(smallest: u32) -> u8 {
    match smallest {
        u32::MAX => 0,
        hash => 1 + ((u64::from(hash.wrapping_mul(0x9e37_79b1)) * 255) >> 32) as u8,
    }
}

/// The text in NFC; borrowed if it is so already.
fn composed(text: &str) -> Cow<'_, str> {
    match text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        true => Cow::Borrowed(text),
        false => Cow::Owned(text.nfc().collect()),
    }
}

/// White space runs as one space, none at the ends.
fn single_spaced(text: &str) -> Vec<u8> {
    let text = text.trim();
    if text.is_ascii() {
        return single_spaced_ascii(text.as_bytes());
    }
    let mut single = Vec::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !single.is_empty() {
            single.push(b' ');
        }
        single.extend_from_slice(word.as_bytes());
    }
    single
}

/// The same without a branch a byte: each is written, and the place moves on unless it is the second space of a run.
fn single_spaced_ascii(text: &[u8]) -> Vec<u8> {
    let mut single = vec![0; text.len()];
    let mut length = 0;
    let mut after_space = false;
    for &byte in text {
        let space = byte == b' ' || (9..=13).contains(&byte);
        single[length] = if space { b' ' } else { byte };
        length += usize::from(!(space && after_space));
        after_space = space;
    }
    single.truncate(length);
    single
}

fn exact(text: &str) -> u128 {
    let text = single_spaced(text);
    let halves = [0, SECOND_SEED].map(|seed| XxHash3_64::oneshot_with_seed(seed, &text));
    // Mixed once more, so that the halves of a text are not two rounds of one function's short-input path.
    u128::from(mix(halves[0])) << 64 | u128::from(mix(halves[1] ^ halves[0].rotate_left(32)))
}
