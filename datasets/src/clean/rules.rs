//! Rules that say which texts are not worth training on, in numbers that hold for every script.
//!
//! In:    `data.clean`; a text.
//! Out:   nothing, or the first rule it breaks with what was measured.
//! Never: knows a language or a word.

use std::collections::HashSet;

use planner::plan::CleanRules;
use twox_hash::XxHash3_64;

use super::units::{SEQUENCE_UNITS, is_letter, sequences};

/// A rule that a text breaks.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Too short.
    #[error("{characters} characters, fewer than min_characters = {min}")]
    MinCharacters {
        /// Measured: Unicode characters, white space included.
        characters: u64,
        /// The rule.
        min: u64,
    },
    /// Too long.
    #[error("{characters} characters, more than max_characters = {max}")]
    MaxCharacters {
        /// Measured: Unicode characters, white space included.
        characters: u64,
        /// The rule.
        max: u64,
    },
    /// The same lines again and again.
    #[error("{repeated} of {lines} lines repeat an earlier one, a larger share than max_repeated_lines = {max}")]
    MaxRepeatedLines {
        /// Lines that stand earlier too, white space at their ends aside.
        repeated: u64,
        /// Lines with anything but white space.
        lines: u64,
        /// The rule.
        max: f64,
    },
    /// The same words again and again.
    #[error(
        "{repeated} of {sequences} five-word sequences repeat an earlier one, a larger share than max_repeated_words = {max}"
    )]
    MaxRepeatedWords {
        /// Sequences that stand earlier too.
        repeated: u64,
        /// All.
        sequences: u64,
        /// The rule.
        max: f64,
    },
    /// Mostly signs.
    #[error("{letters} of {characters} characters are letters or digits, a smaller share than min_letters = {min}")]
    MinLetters {
        /// Letters, digits and combining marks of any script.
        letters: u64,
        /// Characters that are no white space.
        characters: u64,
        /// The rule.
        min: f64,
    },
    /// One character over and over.
    #[error("{character:?} stands {times} times in a row, more than max_same_character = {max}")]
    MaxSameCharacter {
        /// Which; white space counts too.
        character: char,
        /// Length of its longest run.
        times: u64,
        /// The rule.
        max: u64,
    },
}

impl Refusal {
    /// The rule as recipes write it, without numbers.
    pub fn rule(&self) -> &'static str {
        match self {
            Refusal::MinCharacters { .. } => "min_characters",
            Refusal::MaxCharacters { .. } => "max_characters",
            Refusal::MaxRepeatedLines { .. } => "max_repeated_lines",
            Refusal::MaxRepeatedWords { .. } => "max_repeated_words",
            Refusal::MinLetters { .. } => "min_letters",
            Refusal::MaxSameCharacter { .. } => "max_same_character",
        }
    }
}

/// The rules of one plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules(CleanRules);

impl Rules {
    /// Those of `rules` that look at one text.
    pub(crate) fn new(rules: &CleanRules) -> Rules {
        Rules(*rules)
    }

    /// Whether `text` obeys all rules; cheap ones first, and none that is not written is measured.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub(crate) fn check(&self, text: &str) -> Result<(), Refusal> {
        let rules = &self.0;
        let of_characters = rules.min_letters.is_some() || rules.max_same_character.is_some();
        if of_characters || rules.min_characters.is_some() || rules.max_characters.is_some() {
            self.check_characters(&Characters::of(text))?;
        }
        if let Some(max) = rules.max_repeated_lines {
            let (repeated, lines) = repeated_lines(text);
            refuse_if(share(repeated, lines) > max, Refusal::MaxRepeatedLines { repeated, lines, max })?;
        }
        if let Some(max) = rules.max_repeated_words {
            let (repeated, sequences) = repeated_words(text);
            refuse_if(share(repeated, sequences) > max, Refusal::MaxRepeatedWords { repeated, sequences, max })?;
        }
        Ok(())
    }

    fn check_characters(&self, measured: &Characters) -> Result<(), Refusal> {
        let Characters { characters, visible, letters, longest: (times, character), .. } = *measured;
        if let Some(min) = self.0.min_characters {
            refuse_if(characters < min, Refusal::MinCharacters { characters, min })?;
        }
        if let Some(max) = self.0.max_characters {
            refuse_if(characters > max, Refusal::MaxCharacters { characters, max })?;
        }
        if let Some(min) = self.0.min_letters {
            refuse_if(share(letters, visible) < min, Refusal::MinLetters { letters, characters: visible, min })?;
        }
        if let Some(max) = self.0.max_same_character {
            refuse_if(times > max, Refusal::MaxSameCharacter { character, times, max })?;
        }
        Ok(())
    }
}

/// What one pass over the characters counts.
struct Characters {
    characters: u64,
    visible: u64,
    letters: u64,
    run: (u64, char),
    longest: (u64, char),
}

impl Characters {
    fn of(text: &str) -> Characters {
        let mut counted = Characters { characters: 0, visible: 0, letters: 0, run: (0, '\0'), longest: (0, '\0') };
        text.chars().for_each(|char| counted.add(char));
        counted
    }

    fn add(&mut self, char: char) {
        self.characters += 1;
        self.visible += u64::from(!char.is_whitespace());
        self.letters += u64::from(is_letter(char));
        self.run = if self.run.1 == char { (self.run.0 + 1, char) } else { (1, char) };
        if self.run.0 > self.longest.0 {
            self.longest = self.run;
        }
    }
}

fn refuse_if(broken: bool, refusal: Refusal) -> Result<(), Refusal> {
    if broken { Err(refusal) } else { Ok(()) }
}

/// 0 of nothing.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// (lines that stand earlier too, lines), blank ones aside.
fn repeated_lines(text: &str) -> (u64, u64) {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    repeats(lines.map(|line| XxHash3_64::oneshot(line.as_bytes())))
}

/// (five-word sequences that stand earlier too, five-word sequences).
fn repeated_words(text: &str) -> (u64, u64) {
    let mut hashes = Vec::with_capacity(text.len() / (SEQUENCE_UNITS + 1));
    sequences(text, |hash| hashes.push(hash));
    repeats(hashes.into_iter())
}

fn repeats(hashes: impl Iterator<Item = u64>) -> (u64, u64) {
    let mut seen = HashSet::new();
    hashes.fold((0, 0), |(repeated, all), hash| (repeated + u64::from(!seen.insert(hash)), all + 1))
}
