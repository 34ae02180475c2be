//! Which token comes next.
//!
//! In:    logits, the tokens so far, a seed and a number of the draw.
//! Out:   one token id; the same for the same input, on every machine.
//! Never: draws at temperature 0: the likeliest token, the first of equals.
//!
//! The order of the steps is transformers' (`LogitsProcessorList` of `generate`): repetition penalty, temperature, top-k, top-p, min-p.

use std::collections::BTreeSet;

use crate::adapters::uniform;

/// Candidates that top-p looks at first; more where these are not likely enough together.
const FIRST_CANDIDATES: usize = 1024;

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// The so many likeliest tokens only.
    pub top_k: Option<usize>,
    /// The fewest tokens whose probabilities reach this sum. Source: Holtzman et al. 2019, arXiv:1904.09751.
    pub top_p: Option<f64>,
    /// Tokens at least so probable, relative to the likeliest. Source: Nguyen et al. 2024, arXiv:2407.01082.
    pub min_p: Option<f64>,
    /// Divides positive logits of tokens that stand in the text already, multiplies negative ones; 1 does nothing. Source: Keskar et al.
    /// 2019, arXiv:1909.05858.
    pub repetition_penalty: f64,
    /// What draws begin from.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Sampling {
        Sampling { temperature: 0.0, top_k: None, top_p: None, min_p: None, repetition_penalty: 1.0, seed: 0 }
    }
}

/// A token and its weight relative to the likeliest one's.
type Candidate = (u32, f64);

impl Sampling {
    /// The next token after `text`, as draw number `draw` of the seed.
    pub fn choose(&self, logits: &mut [f32], text: &[u32], draw: u64) -> u32 {
        self.penalise(logits, text);
        let likeliest = likeliest(logits);
        if self.temperature == 0.0 {
            return likeliest;
        }
        let highest = f64::from(logits[likeliest as usize]);
        let weight = |logit: f32| ((f64::from(logit) - highest) / self.temperature).exp();
        let mut kept: Vec<Candidate> = (0..).zip(logits.iter().map(|&logit| weight(logit))).collect();
        if let Some(top_k) = self.top_k.filter(|&top_k| top_k < kept.len()) {
            kept.select_nth_unstable_by(top_k.max(1) - 1, by_weight);
            kept.truncate(top_k.max(1));
        }
        if let Some(top_p) = self.top_p.filter(|&top_p| top_p < 1.0) {
            keep_probable(&mut kept, top_p);
        }
        if let Some(min_p) = self.min_p {
            kept.retain(|&(_, weight)| weight >= min_p);
        }
        kept.sort_unstable_by_key(|&(token, _)| token);
        drawn(&kept, uniform(self.seed, 0, draw)).unwrap_or(likeliest)
    }

    fn penalise(&self, logits: &mut [f32], text: &[u32]) {
        if self.repetition_penalty == 1.0 {
            return;
        }
        let penalty = self.repetition_penalty as f32;
        let seen: BTreeSet<u32> = text.iter().copied().collect();
        for token in seen {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
    }
}

/// The first of the largest.
fn likeliest(logits: &[f32]) -> u32 {
    let larger = |best: (usize, f32), (at, &logit): (usize, &f32)| if logit > best.1 { (at, logit) } else { best };
    logits.iter().enumerate().fold((0, f32::NEG_INFINITY), larger).0 as u32
}

/// Largest first; of equals the first token.
fn by_weight(left: &Candidate, right: &Candidate) -> std::cmp::Ordering {
    right.1.total_cmp(&left.1).then(left.0.cmp(&right.0))
}

/// Keeps the fewest candidates whose weights reach the share `top_p` of all; at least one.
fn keep_probable(kept: &mut Vec<Candidate>, top_p: f64) {
    let wanted = top_p * kept.iter().map(|&(_, weight)| weight).sum::<f64>();
    let mut looked_at = FIRST_CANDIDATES.min(kept.len());
    loop {
        if looked_at < kept.len() {
            kept.select_nth_unstable_by(looked_at - 1, by_weight);
        }
        kept[..looked_at].sort_unstable_by(by_weight);
        let mut sum = 0.0;
        let reached = kept[..looked_at].iter().position(|&(_, weight)| {
            sum += weight;
            sum >= wanted
        });
        match reached {
            Some(last) => return kept.truncate(last + 1),
            None if looked_at == kept.len() => return,
            None => looked_at = (looked_at * 4).min(kept.len()),
        }
    }
}

/// The candidate at share `at`, 0 to 1, of all weights.
fn drawn(kept: &[Candidate], at: f64) -> Option<u32> {
    let mut left = at * kept.iter().map(|&(_, weight)| weight).sum::<f64>();
    let found = kept.iter().find(|&&(_, weight)| {
        left -= weight;
        left < 0.0
    });
    found.or(kept.last()).map(|&(token, _)| token)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probabilities 0.5, 0.25, 0.125, 0.125 at temperature 1.
    fn logits() -> Vec<f32> {
        [0.5f32, 0.25, 0.125, 0.125].map(f32::ln).to_vec()
    }

    fn counts(sampling: &Sampling, draws: u64) -> Vec<f64> {
        let mut counts = vec![0.0; 4];
        (0..draws).for_each(|draw| counts[sampling.choose(&mut logits(), &[], draw) as usize] += 1.0 / draws as f64);
        counts
    }

    fn warm() -> Sampling {
        Sampling { temperature: 1.0, seed: 7, ..Sampling::default() }
    }

    /// Shares of 20000 draws lie within 5 standard deviations (at most 0.0177) of their probabilities.
    fn assert_shares(sampling: &Sampling, expected: [f64; 4]) {
        for (count, expected) in counts(sampling, 20_000).iter().zip(expected) {
            assert!((count - expected).abs() < 0.018, "{sampling:?}: {count} against {expected}");
        }
    }

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_probable() {
        assert_shares(&warm(), [0.5, 0.25, 0.125, 0.125]);
        // At temperature 1/2 probabilities are squared: 16, 4, 1, 1 of 22.
        let cool = Sampling { temperature: 0.5, ..warm() };
        assert_shares(&cool, [16.0 / 22.0, 4.0 / 22.0, 1.0 / 22.0, 1.0 / 22.0]);
    }

    #[test]
    fn each_bound_keeps_the_tokens_that_it_says_and_their_proportions() {
        let (two, one) = ([2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]);
        assert_shares(&Sampling { top_k: Some(2), ..warm() }, two);
        assert_shares(&Sampling { top_p: Some(0.74), ..warm() }, two);
        assert_shares(&Sampling { top_p: Some(0.4), ..warm() }, one);
        assert_shares(&Sampling { min_p: Some(0.49), ..warm() }, two);
        assert_shares(&Sampling { top_k: Some(3), min_p: Some(0.3), ..warm() }, two);
        assert_shares(&Sampling { top_k: Some(1), ..warm() }, one);
        // The first of equals.
        assert_shares(&Sampling { top_k: Some(3), ..warm() }, [0.5 / 0.875, 0.25 / 0.875, 0.125 / 0.875, 0.0]);
    }

    #[test]
    fn top_p_looks_as_far_as_it_must() {
        let mut kept: Vec<Candidate> = (0..10_000).map(|token| (token, 1.0)).collect();
        keep_probable(&mut kept, 0.55);
        assert!((5_499..=5_501).contains(&kept.len()), "{}", kept.len());
        assert!(kept.iter().all(|&(token, _)| token <= 5_500));
    }

    #[test]
    fn a_seed_repeats_its_draws_and_another_gives_others() {
        let tokens = |seed| {
            let sampling = Sampling { seed, ..warm() };
            (0..64).map(|draw| sampling.choose(&mut logits(), &[], draw)).collect::<Vec<u32>>()
        };
        assert_eq!(tokens(3), tokens(3));
        assert_ne!(tokens(3), tokens(4));
    }

    #[test]
    fn at_temperature_zero_the_first_of_the_likeliest_is_taken() {
        assert_eq!(Sampling::default().choose(&mut [1.0, 3.0, 3.0, -1.0], &[], 9), 1);
    }

    #[test]
    fn repeated_tokens_are_made_less_likely_whatever_the_sign() {
        let harsh = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        let mut logits = [4.0, 3.0, -1.0, -1.5];
        assert_eq!(harsh.choose(&mut logits, &[0, 0, 2, 900], 0), 1);
        assert_eq!(logits, [2.0, 3.0, -2.0, -1.5]);
    }
}
