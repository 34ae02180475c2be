//! How alike two rows must be to count as near-duplicates.
//!
//! In:    `data.clean.near_similarity`.
//! Out:   [`Similarity`], above 0 and at most 1.
//! Never: holds anything else.

use crate::clean::CleanError;

/// A Jaccard similarity: common five-word sequences of two texts, divided by those that either has.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Similarity(f64);

impl Similarity {
    /// Where the recipe names none.
    pub const DEFAULT: Similarity = Similarity(0.8);

    /// Checks `value`.
    ///
    /// # Errors
    /// [`CleanError::Similarity`] if it is not above 0 and at most 1.
    pub fn new(value: f64) -> Result<Similarity, CleanError> {
        match value > 0.0 && value <= 1.0 {
            true => Ok(Similarity(value)),
            false => Err(CleanError::Similarity { value }),
        }
    }

    /// The share, 0 to 1.
    pub fn value(self) -> f64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_similarity_beyond_a_share_is_refused_with_its_number() {
        for value in [0.0, -0.5, 1.01, f64::NAN, f64::INFINITY] {
            let refused = Similarity::new(value).unwrap_err().to_string();
            assert!(refused.contains(&format!("near_similarity = {value}")), "{refused}");
        }
        assert_eq!(Similarity::new(1.0).unwrap().value(), 1.0);
    }
}
