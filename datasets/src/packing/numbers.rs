//! A set of small numbers that finds its next and previous member in a few steps.
//!
//! In:    numbers up to a bound.
//! Out:   the neighbours of any number in the set.
//! Never: grows.

/// Bit sets: level 0 a bit a number, each further level a bit a word of the one before.
#[derive(Debug, Clone)]
pub(crate) struct Numbers {
    levels: Vec<Vec<u64>>,
}

impl Numbers {
    /// An empty set of numbers up to `most`.
    pub(crate) fn new(most: usize) -> Numbers {
        let mut levels = vec![vec![0; most / 64 + 1]];
        while let Some(words) = levels.last().map(Vec::len).filter(|words| *words > 1) {
            levels.push(vec![0; (words - 1) / 64 + 1]);
        }
        Numbers { levels }
    }

    /// Adds a number.
    pub(crate) fn insert(&mut self, number: usize) {
        let mut bit = number;
        for level in &mut self.levels {
            level[bit / 64] |= 1 << (bit % 64);
            bit /= 64;
        }
    }

    /// Takes a number out.
    pub(crate) fn remove(&mut self, number: usize) {
        let mut bit = number;
        for level in &mut self.levels {
            level[bit / 64] &= !(1 << (bit % 64));
            if level[bit / 64] != 0 {
                return;
            }
            bit /= 64;
        }
    }

    /// The smallest member that is `number` or more.
    pub(crate) fn at_least(&self, number: usize) -> Option<usize> {
        let mut bit = number;
        for (height, level) in self.levels.iter().enumerate() {
            let word = level.get(bit / 64)? & (u64::MAX << (bit % 64));
            if word != 0 {
                let found = bit / 64 * 64 + word.trailing_zeros() as usize;
                let down = self.levels[..height].iter().rev();
                return Some(down.fold(found, |bit, level| bit * 64 + level[bit].trailing_zeros() as usize));
            }
            bit = bit / 64 + 1;
        }
        None
    }

    /// The largest member that is `number` or less; `number` must be within the bound.
    pub(crate) fn at_most(&self, number: usize) -> Option<usize> {
        let mut bit = number;
        for (height, level) in self.levels.iter().enumerate() {
            let word = level[bit / 64] & (u64::MAX >> (63 - bit % 64));
            if word != 0 {
                let found = bit / 64 * 64 + last(word);
                let down = self.levels[..height].iter().rev();
                return Some(down.fold(found, |bit, level| bit * 64 + last(level[bit])));
            }
            bit = (bit / 64).checked_sub(1)?;
        }
        None
    }
}

fn last(word: u64) -> usize {
    63 - word.leading_zeros() as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::random::Random;

    #[test]
    fn neighbours_are_those_of_an_ordered_set_for_random_sets() {
        for (seed, most) in (0..).zip([0, 1, 63, 64, 65, 4095, 4096, 300_000]) {
            let (mut random, mut numbers, mut expected) = (Random::new(seed, 0), Numbers::new(most), BTreeSet::new());
            for _ in 0..2000 {
                let number = random.below(most + 1);
                match random.below(3) {
                    0 => {
                        numbers.remove(number);
                        expected.remove(&number);
                    }
                    _ => {
                        numbers.insert(number);
                        expected.insert(number);
                    }
                }
                let at = random.below(most + 1);
                assert_eq!(numbers.at_least(at), expected.range(at..).next().copied());
                assert_eq!(numbers.at_most(at), expected.range(..=at).next_back().copied());
            }
        }
    }
}
