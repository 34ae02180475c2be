//! Which rows are held out, by what they say.
//!
//! In:    [`super::Fingerprint::exact`], the plan's seed and share.
//! Out:   yes or no.
//! Never: looks at other rows: exact repeats fall on one side, and rows that come or go move no other row.

use super::units::mix;

/// Whether the row with fingerprint `exact` is held out, where `share` (0 to 1) of all rows are.
pub(crate) fn is_held_out(exact: u128, seed: u64, share: f64) -> bool {
    let drawn = mix(mix(exact as u64 ^ mix(seed)) ^ (exact >> 64) as u64);
    // 53 bits: what an f64 holds exactly.
    ((drawn >> 11) as f64) < share * (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::super::Fingerprint;
    use super::*;

    fn exact(row: usize) -> u128 {
        Fingerprint::exact_only(&format!("Row {row} says something.")).exact
    }

    #[test]
    fn the_split_holds_out_the_share_and_grows_with_it() {
        let count = |seed, share| (0..20_000).filter(|&row| is_held_out(exact(row), seed, share)).count();
        for (share, expected) in [(0.0, 0..1), (0.01, 140..260), (0.25, 4_750..5_250), (1.0, 20_000..20_001)] {
            assert!(expected.contains(&count(7, share)), "{share}: {}", count(7, share));
        }
        let wanders = (0..20_000).any(|row| is_held_out(exact(row), 7, 0.05) && !is_held_out(exact(row), 7, 0.10));
        assert!(!wanders, "a larger share keeps what a smaller one held out");
    }

    #[test]
    fn another_seed_holds_out_other_rows_and_white_space_none() {
        let both =
            (0..20_000).filter(|&row| is_held_out(exact(row), 1, 0.1) && is_held_out(exact(row), 2, 0.1)).count();
        assert!((120..280).contains(&both), "{both}: independent draws share a hundredth");
        for row in 0..200 {
            let spaced = Fingerprint::exact_only(&format!("  Row {row}\tsays\nsomething. ")).exact;
            assert_eq!(is_held_out(spaced, 7, 0.5), is_held_out(exact(row), 7, 0.5));
        }
    }
}
