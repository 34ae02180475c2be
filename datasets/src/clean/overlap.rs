//! Held-out rows that also stand in the training rows.
//!
//! In:    fingerprints of all held-out rows; then, one by one, of training rows.
//! Out:   for a training row the held-out row that it repeats.
//! Never: forgets a held-out row: they are all in memory, about 0.8 kB each (256 bytes of sketch, up to 16 keys).

use std::collections::HashMap;

use super::bands::Bands;
use super::fingerprint::Sketch;
use super::{Fingerprint, Likeness, Similarity};

/// Of the held-out rows that share a key with a training row, so many are compared with it.
const MEETINGS: usize = 256;

/// An index of held-out rows.
pub(crate) struct Overlap {
    threshold: Similarity,
    bands: Bands,
    sketches: Vec<Sketch>,
    exact: HashMap<u128, u32>,
    /// Rows in order of key, then of row; each key's part of them is in `keys`.
    rows: Vec<u32>,
    keys: HashMap<u64, (u32, u32)>,
}

/// A held-out row that a training row repeats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Match {
    /// The held-out row, in the order given, from 0.
    pub(crate) held_out_row: u32,
    /// How.
    pub(crate) likeness: Likeness,
}

impl Overlap {
    /// Of `held_out`, of which the first 2^28 count: their index would take 200 GB.
    pub(crate) fn new(held_out: impl IntoIterator<Item = Fingerprint>, threshold: Similarity) -> Overlap {
        let bands = Bands::of(threshold);
        let mut overlap = Overlap {
            threshold,
            bands,
            sketches: Vec::new(),
            exact: HashMap::new(),
            rows: Vec::new(),
            keys: HashMap::new(),
        };
        let mut pairs: Vec<(u64, u32)> = Vec::new();
        for (row, fingerprint) in (0_u32..1 << 28).zip(held_out) {
            let first_of_its_text = *overlap.exact.entry(fingerprint.exact).or_insert(row) == row;
            if first_of_its_text {
                bands.keys(&fingerprint.sketch, |key| pairs.push((key, row)));
            }
            overlap.sketches.push(fingerprint.sketch);
        }
        pairs.sort_unstable();
        for same_key in pairs.chunk_by(|one, other| one.0 == other.0) {
            let start = overlap.rows.len() as u32;
            overlap.rows.extend(same_key.iter().map(|pair| pair.1));
            overlap.keys.insert(same_key[0].0, (start, overlap.rows.len() as u32));
        }
        overlap
    }

    /// The held-out row with the same text, else the most similar one (the first of those) at or above the threshold.
    /// Exact matches are never missed; near ones as seldom as [`Bands`] says.
    pub(crate) fn find(&self, training: &Fingerprint) -> Option<Match> {
        if let Some(&held_out_row) = self.exact.get(&training.exact) {
            return Some(Match { held_out_row, likeness: Likeness::Exact });
        }
        let mut best: Option<(f64, u32)> = None;
        self.bands.keys(&training.sketch, |key| {
            let Some(&(start, end)) = self.keys.get(&key) else { return };
            for &row in self.rows[start as usize..end as usize].iter().take(MEETINGS) {
                let similarity = training.sketch.similarity(&self.sketches[row as usize]);
                let better = best.is_none_or(|(most, first)| similarity > most || (similarity == most && row < first));
                if similarity >= self.threshold.value() && better {
                    best = Some((similarity, row));
                }
            }
        });
        best.map(|(similarity, held_out_row)| Match { held_out_row, likeness: Likeness::Near(similarity) })
    }

    /// Held-out rows.
    #[cfg(test)]
    pub(crate) fn held_out_rows(&self) -> usize {
        self.sketches.len()
    }
}
