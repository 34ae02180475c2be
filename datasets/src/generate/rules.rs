//! Which pairs become rows, without knowing their language.
//!
//! In:    a pair and the chunk it was made from.
//! Out:   nothing, or the reason why not.
//! Never: changes a pair.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use unicode_normalization::UnicodeNormalization;

use super::error::GenerateError;
use super::job::setting;

/// The rules of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Characters of a question.
    pub question_characters: RangeInclusive<usize>,
    /// Characters of an answer.
    pub answer_characters: RangeInclusive<usize>,
    /// Least share of an answer's content words (numbers, and words of 5 letters or more) that stand in the chunk; 0 to 1.
    pub grounded_min: Option<f64>,
    /// Two questions are near duplicates from this Jaccard similarity of their word sets on, if their numbers are the same; 0 to 1.
    pub near_min: f64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { question_characters: 5..=2_000, answer_characters: 1..=20_000, grounded_min: None, near_min: 0.85 }
    }
}

impl Rules {
    pub(crate) fn check(&self) -> Result<(), GenerateError> {
        for (name, share) in [("grounded", self.grounded_min), ("near", Some(self.near_min))] {
            if let Some(share) = share.filter(|share| !(0.0..=1.0).contains(share)) {
                return Err(setting(name, share, "0 to 1"));
            }
        }
        Ok(())
    }

    /// Why the pair is no row, if so. `question` and `answer` are trimmed.
    pub(crate) fn refuse(&self, question: &str, answer: &str, chunk: &Words) -> Option<&'static str> {
        if question.is_empty() {
            return Some("empty question");
        }
        if answer.is_empty() {
            return Some("empty answer");
        }
        if !self.question_characters.contains(&question.chars().count()) {
            return Some("question too short or too long");
        }
        if !self.answer_characters.contains(&answer.chars().count()) {
            return Some("answer too short or too long");
        }
        if words(question) == words(answer) {
            return Some("answer repeats the question");
        }
        if holds_template_token(question) || holds_template_token(answer) {
            return Some("token of a chat template");
        }
        let ungrounded = self.grounded_min.is_some_and(|least| chunk.share_of(answer) < least);
        ungrounded.then_some("not grounded in the chunk")
    }
}

/// `<|im_start|>`, `<|eot_id|>`: in a row they would train the model to write its own turns.
fn holds_template_token(text: &str) -> bool {
    text.match_indices("<|").any(|(at, _)| {
        let rest = text[at + 2..].trim_start_matches(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-'));
        rest.starts_with("|>") && !text[at + 2..].starts_with("|>")
    })
}

/// The content words of a chunk.
pub(crate) struct Words(HashSet<String>);

impl Words {
    pub(crate) fn of(text: &str) -> Words {
        Words(words(text).into_iter().filter(|word| is_content(word)).collect())
    }

    /// Share of `answer`'s content words that stand here; 1 if it has none.
    fn share_of(&self, answer: &str) -> f64 {
        let wanted: HashSet<String> = words(answer).into_iter().filter(|word| is_content(word)).collect();
        match wanted.len() {
            0 => 1.0,
            all => wanted.iter().filter(|word| self.0.contains(*word)).count() as f64 / all as f64,
        }
    }
}

fn is_content(word: &str) -> bool {
    is_number(word) || word.chars().nth(4).is_some() || word.chars().next().is_some_and(stands_alone)
}

/// Whether `word` holds a digit.
pub(crate) fn is_number(word: &str) -> bool {
    word.chars().any(char::is_numeric)
}

/// Lower-case runs of letters and digits (NFKC), in order. Characters of scripts that write no spaces are words of their own.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    for c in text.nfkc().flat_map(char::to_lowercase) {
        if !c.is_alphanumeric() || stands_alone(c) {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            if c.is_alphanumeric() {
                words.push(c.to_string());
            }
        } else {
            word.push(c);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Thai, Lao, Khmer, Burmese; kana and Chinese characters.
fn stands_alone(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{2e80}'..='\u{a4cf}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}
