//! The data set that ships: questions and answers about the memory arithmetic of local AI.
//!
//! In:    nothing; the seed is fixed.
//! Out:   training and held-out rows as (question, answer), and the same as JSONL lines in `messages` form.
//! Never: rounds. Every answer is one short, exact calculation, so that a small model can learn it and
//!        greedy answers can be compared letter by letter.
//!
//! Units are decimal: 1 kB = 1,000 B, 1 GB = 1e9 B, 1 TB = 1,000 GB; `7B` means 7e9 parameters.

use std::collections::BTreeSet;

use crate::random::Random;

mod families;

/// Seed of the committed files.
const SEED: u64 = 20_261_121;
/// Training rows a family gives at most.
const TRAINING_ROWS_MAX: usize = 250;
/// Held-out rows in all.
const HELDOUT_ROWS: usize = 200;
/// System message of every row: short, because chat templates may insert a long one where none is given.
const SYSTEM: &str = "Answer briefly.";

/// One question with its only right answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Which rule of memory arithmetic it asks for.
    pub family: &'static str,
    /// The numbers that make it differ from others of its family.
    pub numbers: [u64; 3],
    /// Question text.
    pub question: String,
    /// Answer text.
    pub answer: String,
}

/// The two halves of the data set; no (family, numbers) pair and no question stands in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Rows to train on.
    pub train: Vec<Example>,
    /// Rows to measure on.
    pub heldout: Vec<Example>,
}

/// Makes the whole data set; the same on every machine.
pub fn generate() -> Split {
    let mut split = Split { train: Vec::new(), heldout: Vec::new() };
    let families = families::all();
    for (index, family) in families.iter().enumerate() {
        let mut random = Random::new(SEED, index as u64);
        let mut pool: Vec<[u64; 3]> = family.pool.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        random.shuffle(&mut pool);
        let heldout_rows = HELDOUT_ROWS / families.len() + usize::from(index < HELDOUT_ROWS % families.len());
        for (place, numbers) in pool.into_iter().take(heldout_rows + TRAINING_ROWS_MAX).enumerate() {
            let (question, answer) = (family.write)(numbers, random.below(2));
            let example = Example { family: family.name, numbers, question, answer };
            let half = if place < heldout_rows { &mut split.heldout } else { &mut split.train };
            half.push(example);
        }
    }
    Random::new(SEED, u64::MAX).shuffle(&mut split.train);
    Random::new(SEED, u64::MAX - 1).shuffle(&mut split.heldout);
    split
}

/// Writes examples as JSONL in `messages` form, one line each.
pub fn to_jsonl(examples: &[Example]) -> String {
    let mut text = String::new();
    for example in examples {
        let row = serde_json::json!({"messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": example.question},
            {"role": "assistant", "content": example.answer},
        ]});
        text.push_str(&row.to_string());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{BTreeMap, HashSet};
    use std::path::Path;

    use super::*;

    #[test]
    fn the_committed_files_are_what_the_generator_writes() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/data");
        let split = generate();
        for (name, rows) in [("train", &split.train), ("heldout", &split.heldout)] {
            let committed = std::fs::read_to_string(folder.join(format!("memory-arithmetic-{name}.jsonl"))).unwrap();
            assert!(
                committed == to_jsonl(rows),
                "{name} differs: cargo run -p datasets --example generate_memory_arithmetic"
            );
        }
    }

    #[test]
    fn no_heldout_question_or_pair_of_family_and_numbers_is_trained_on() {
        let split = generate();
        let questions: HashSet<_> = split.train.iter().map(|row| row.question.as_str()).collect();
        let pairs: HashSet<_> = split.train.iter().map(|row| (row.family, row.numbers)).collect();
        for row in &split.heldout {
            assert!(!questions.contains(row.question.as_str()), "{}", row.question);
            assert!(!pairs.contains(&(row.family, row.numbers)), "{row:?}");
        }
        assert_eq!(questions.len(), split.train.len(), "a training question stands twice");
    }

    #[test]
    fn there_are_enough_rows_of_every_family() {
        let split = generate();
        assert_eq!(split.heldout.len(), HELDOUT_ROWS);
        assert!((2_800..=3_200).contains(&split.train.len()), "{}", split.train.len());
        let mut rows: BTreeMap<&str, usize> = BTreeMap::new();
        split.train.iter().for_each(|row| *rows.entry(row.family).or_default() += 1);
        assert_eq!(rows.len(), families::all().len());
        assert!(rows.values().all(|count| *count >= 200), "{rows:?}");
    }

    #[test]
    fn every_calculation_in_an_answer_is_true() {
        let split = generate();
        for row in split.train.iter().chain(&split.heldout) {
            for part in row.answer.split("; ") {
                assert!(calculation_holds(part), "{} -> {}", row.question, row.answer);
            }
        }
    }

    /// Checks `a x b = c unit`, each number exact in decimal thousandths.
    fn calculation_holds(text: &str) -> bool {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |word: &str| {
            let digits: String = word.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            (digits.parse::<f64>().unwrap() * 1000.0).round() as i128
        };
        let (left, right, result) = (number(words[0]), number(words[2]), number(words[4]));
        words[3] == "="
            && match words[1] {
                "x" => left * right == result * 1000,
                "/" => left * 1000 == result * right,
                "+" => left + right == result,
                _ => false,
            }
    }
}
