//! A counter-based random source: the same seed and stream give the same numbers on every machine.
//!
//! In:    a seed and a stream number (an epoch, a purpose).
//! Out:   64-bit numbers, bounded numbers, shuffles, permutations that need no array.
//! Never: reads a clock, an address or another process's state.

/// SplitMix64. Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
}

/// Increment of the counter: the golden ratio in 64 bits.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// Starts stream `stream` of `seed`; streams of one seed do not overlap in practice.
    pub(crate) fn new(seed: u64, stream: u64) -> Random {
        Random { state: mix(seed.wrapping_add(GOLDEN)) ^ mix(stream.wrapping_mul(GOLDEN).wrapping_add(1)) }
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// A number in `0..bound`, by multiply and shift (the bias is below `bound / 2^64`).
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// Fisher-Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

fn mix(counter: u64) -> u64 {
    let a = (counter ^ (counter >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    b ^ (b >> 31)
}

/// A pseudo-random order of `0..count` in constant memory: a Feistel network on the smallest power of two that holds `count`, walked
/// until it falls below `count` (twice on average at most). Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains".
#[derive(Debug, Clone)]
pub(crate) struct Permutation {
    count: u64,
    /// Bits of the upper and of the lower half.
    halves: [u32; 2],
    keys: [u64; ROUNDS],
}

/// Rounds of the network; four already pass for random where nobody chooses the inputs (Luby and Rackoff 1988).
const ROUNDS: usize = 6;

impl Permutation {
    /// The order that `random` draws.
    pub(crate) fn new(count: u64, mut random: Random) -> Permutation {
        let bits = (u64::BITS - count.saturating_sub(1).leading_zeros()).max(2);
        let lower = bits / 2;
        Permutation { count, halves: [bits - lower, lower], keys: std::array::from_fn(|_| random.next()) }
    }

    /// What stands at place `index`, which must be below `count`; beyond it, `index` itself.
    pub(crate) fn at(&self, index: u64) -> u64 {
        if index >= self.count {
            return index;
        }
        let mut at = self.encrypt(index);
        while at >= self.count {
            at = self.encrypt(at);
        }
        at
    }

    fn encrypt(&self, index: u64) -> u64 {
        let [upper_bits, lower_bits] = self.halves;
        let low = |bits: u32| u64::MAX >> (u64::BITS - bits);
        let (mut upper, mut lower) = (index >> lower_bits, index & low(lower_bits));
        for keys in self.keys.chunks_exact(2) {
            upper ^= mix(lower ^ keys[0]) & low(upper_bits);
            lower ^= mix(upper ^ keys[1]) & low(lower_bits);
        }
        upper << lower_bits | lower
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_holds_every_number_once_for_every_count() {
        for count in (0..200).chain([1000, 4097, 65_536]) {
            let order = Permutation::new(count, Random::new(5, count));
            let mut seen: Vec<u64> = (0..count).map(|index| order.at(index)).collect();
            assert!(count < 20 || seen.iter().enumerate().any(|(index, row)| index as u64 != *row));
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..count), "{count}");
        }
    }

    /// Chi-square over 64 blocks: where the rows of each block of places come from. 63 degrees of freedom have a mean of 63 and a
    /// standard deviation of 11 for each block.
    #[test]
    fn a_permutation_spreads_neighbours_evenly() {
        let (count, blocks) = (1u64 << 16, 64u64);
        let order = Permutation::new(count, Random::new(1, 2));
        for block in 0..blocks {
            let mut from = vec![0u64; blocks as usize];
            let size = count / blocks;
            (block * size..(block + 1) * size).for_each(|index| from[(order.at(index) / size) as usize] += 1);
            let expected = size as f64 / blocks as f64;
            let chi: f64 = from.iter().map(|found| (*found as f64 - expected).powi(2) / expected).sum();
            assert!((20.0..140.0).contains(&chi), "block {block}: {chi}");
        }
    }

    #[test]
    fn a_stream_repeats_and_differs_from_its_neighbours() {
        let draw = |seed, stream| (0..4).map(|_| Random::new(seed, stream).next()).next();
        assert_eq!(draw(7, 3), draw(7, 3));
        assert_ne!(draw(7, 3), draw(7, 4));
        assert_ne!(draw(7, 3), draw(8, 3));
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<usize> = (0..100).collect();
        Random::new(1, 2).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
