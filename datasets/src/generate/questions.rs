//! Finds questions that were asked already.
//!
//! In:    questions, one after the other.
//! Out:   whether one equals or resembles an earlier one.
//! Never: compares a question with more than [`COMPARED_MAX`] others.
//!
//! Two sets with Jaccard similarity of at least `t` share one of their first `n - ceil(t n) + 1` members in any fixed order, so
//! only those are indexed. Source: Bayardo, Ma and Srikant 2007, "Scaling up all pairs similarity search", section 3.

use std::collections::{HashMap, HashSet};

use twox_hash::XxHash3_64;

use super::rules::{is_number, words};

/// Most comparisons a question.
const COMPARED_MAX: usize = 4096;

/// The questions so far, as hashes.
pub(crate) struct Questions {
    near_min: f64,
    exact: HashSet<u64>,
    kept: Vec<Asked>,
    /// Which of `kept` have a word among their first ones.
    by_word: HashMap<u64, Vec<u32>>,
}

struct Asked {
    /// Sorted, each once.
    words: Vec<u64>,
    /// Of the question's numbers, in order.
    numbers: u64,
}

impl Questions {
    pub(crate) fn new(near_min: f64) -> Questions {
        Questions { near_min, exact: HashSet::new(), kept: Vec::new(), by_word: HashMap::new() }
    }

    /// Keeps `question`, or says what it is a duplicate by.
    pub(crate) fn keep(&mut self, question: &str) -> Result<(), &'static str> {
        let words = words(question);
        if !self.exact.insert(hash(&words.join(" "))) {
            return Err("same question as an earlier one");
        }
        let numbers: Vec<&str> = words.iter().filter(|word| is_number(word)).map(String::as_str).collect();
        let numbers = hash(&numbers.join(" "));
        let mut words: Vec<u64> = words.iter().map(|word| hash(word)).collect();
        words.sort_unstable();
        words.dedup();
        let asked = Asked { words, numbers };
        let prefix = asked.words.len() - (self.near_min * asked.words.len() as f64).ceil() as usize + 1;
        let prefix = prefix.min(asked.words.len());
        let rivals = asked.words[..prefix].iter().filter_map(|word| self.by_word.get(word)).flatten();
        if rivals.take(COMPARED_MAX).any(|&rival| self.is_near(&asked, &self.kept[rival as usize])) {
            return Err("nearly the same question as an earlier one");
        }
        for word in &asked.words[..prefix] {
            self.by_word.entry(*word).or_default().push(self.kept.len() as u32);
        }
        self.kept.push(asked);
        Ok(())
    }

    fn is_near(&self, a: &Asked, b: &Asked) -> bool {
        if a.numbers != b.numbers {
            return false;
        }
        let shared = a.words.iter().filter(|word| b.words.binary_search(word).is_ok()).count();
        let all = a.words.len() + b.words.len() - shared;
        shared as f64 >= self.near_min * all as f64
    }
}

fn hash(text: &str) -> u64 {
    XxHash3_64::oneshot(text.as_bytes())
}
