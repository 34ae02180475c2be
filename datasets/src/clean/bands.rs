//! Numbers by which near-duplicates meet: two rows that share one of them are compared.
//!
//! In:    a threshold; sketches.
//! Out:   at most [`BANDS_MAX`] keys a sketch (locality-sensitive hashing, Indyk and Motwani 1998).
//! Never: decides that rows are alike: their sketches do.
//!
//! Empty bins borrow a value (densification) and then two texts agree in a bin with the probability of their similarity:
//! from the next filled bin after a place drawn for each bin anew, that is, the rotation of Shrivastava and Li 2014
//! (arXiv:1406.4784) with the independent draws of Shrivastava 2017 (arXiv:1703.04664).

use super::Similarity;
use super::fingerprint::{BINS, Sketch};
use super::units::mix;

/// Most bands; with 12 bytes for each on disk a row takes at most 192 + 256 + 16 = 464 bytes there.
pub(crate) const BANDS_MAX: usize = 16;
/// Bits of a key: 8 for the band, 48 for what its bins hold.
pub(crate) const KEY_BITS: u32 = 56;
/// Most bins of a band: what eight-bit bins fill a word with.
const BAND_BINS_MAX: usize = 8;
/// Two texts exactly at the threshold meet with at least this probability, if bins were independent.
const MEET: f64 = 0.98;

/// How a sketch is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bands {
    /// How many.
    pub(crate) count: usize,
    /// Bins of each.
    pub(crate) bins: usize,
}

impl Bands {
    /// The most bins a band, for the fewest comparisons in vain, with which [`BANDS_MAX`] bands are enough.
    pub(crate) fn of(threshold: Similarity) -> Bands {
        let cut = |bins: usize| Bands { count: bands_needed(threshold.value(), bins), bins };
        let cuts = (1..=BAND_BINS_MAX).rev().map(cut);
        // Below a threshold of 0.22 no cut reaches `MEET`; the bands are then all that fit.
        cuts.into_iter().find(|cut| cut.count <= BANDS_MAX).unwrap_or(Bands { count: BANDS_MAX, bins: 1 })
    }

    /// Hands the key of every band to `each`; none for an empty sketch.
    pub(crate) fn keys(self, sketch: &Sketch, mut each: impl FnMut(u64)) {
        let filled = filled_bins(sketch);
        if filled == [0; 4] {
            return;
        }
        for band in 0..self.count {
            let word = (band * self.bins..(band + 1) * self.bins).fold(0, |word: u64, bin| {
                let own = sketch.0[bin];
                let value = if own == 0 { sketch.0[next_filled(&filled, START[bin])] } else { own };
                word << 8 | u64::from(value)
            });
            each((band as u64) << 48 | mix(word) >> 16);
        }
    }
}

fn bands_needed(threshold: f64, bins: usize) -> usize {
    let meet_in_one = threshold.powi(bins as i32);
    if meet_in_one >= MEET { 1 } else { ((1.0 - MEET).ln() / (-meet_in_one).ln_1p()).ceil() as usize }
}

/// Where the search for a bin to borrow from starts, for each bin.
const START: [u8; BINS] = {
    let mut starts = [0; BINS];
    let mut bin = 0;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    while bin < BINS {
        // xorshift64 (Marsaglia 2003): `mix` is no constant function.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        starts[bin] = (state >> 32) as u8;
        bin += 1;
    }
    starts
};

fn filled_bins(sketch: &Sketch) -> [u64; 4] {
    let mut filled = [0; 4];
    for (bin, &value) in sketch.0.iter().enumerate() {
        filled[bin / 64] |= u64::from(value != 0) << (bin % 64);
    }
    filled
}

/// The first filled bin at or after `start`, around the end; one is filled.
fn next_filled(filled: &[u64; 4], start: u8) -> usize {
    let first = usize::from(start) / 64;
    let here = filled[first] & (u64::MAX << (start % 64));
    if here != 0 {
        return first * 64 + here.trailing_zeros() as usize;
    }
    let found = (1..=4).map(|ahead| (first + ahead) % 4).find(|&word| filled[word] != 0);
    found.map_or(0, |word| word * 64 + filled[word].trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bands_meet_at_their_threshold_and_from_one_half_on_seldom_far_below() {
        for threshold in [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0] {
            let bands = Bands::of(Similarity::new(threshold).unwrap());
            let meet = |similarity: f64| 1.0 - (1.0 - similarity.powi(bands.bins as i32)).powi(bands.count as i32);
            assert!(meet(threshold) >= 0.98 && bands.count * bands.bins <= BINS, "{bands:?} at {threshold}");
            assert!(threshold < 0.5 || meet(threshold * 0.4) < 0.5, "{bands:?} at {threshold}");
        }
        assert_eq!(Bands::of(Similarity::DEFAULT), Bands { count: 13, bins: 6 });
        assert_eq!(Bands::of(Similarity::new(1e-9).unwrap()), Bands { count: 16, bins: 1 });
    }

    #[test]
    fn an_empty_bin_borrows_from_the_next_filled_one_around_the_end() {
        let mut sketch = Sketch::EMPTY;
        sketch.0[70] = 9;
        let filled = filled_bins(&sketch);
        assert_eq!([0, 70, 71, 255].map(|start| next_filled(&filled, start)), [70; 4]);
        sketch.0[3] = 1;
        assert_eq!([4, 70, 71, 0].map(|start| next_filled(&filled_bins(&sketch), start)), [70, 70, 3, 3]);
        let mut keys = Vec::new();
        Bands::of(Similarity::DEFAULT).keys(&sketch, |key| keys.push(key));
        assert!(keys.len() == 13 && keys.iter().all(|key| key >> KEY_BITS == 0));
        Bands::of(Similarity::DEFAULT).keys(&Sketch::EMPTY, |_| panic!("an empty sketch meets nothing"));
    }
}
