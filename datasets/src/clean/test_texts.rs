//! Texts for tests: made of invented words, with edits whose true similarity is counted.
//!
//! In:    a random source.
//! Out:   texts, edited copies, exact Jaccard similarities.
//! Never: uses the code under test.

use std::collections::HashSet;

use crate::random::Random;

const SYLLABLES: [&str; 24] = [
    "ba", "ke", "li", "mo", "nu", "sa", "te", "ri", "vo", "du", "pan", "gel", "tor", "mis", "kun", "sha", "fre", "blo",
    "qui", "zan", "wo", "hy", "jap", "cer",
];

/// A word of one to three syllables: 14,424 different ones, short ones more often.
fn word(random: &mut Random) -> String {
    (0..=random.below(3)).map(|_| SYLLABLES[random.below(SYLLABLES.len())]).collect()
}

/// `sentences` sentences of 8 to 16 words.
pub(super) fn text(random: &mut Random, sentences: usize) -> String {
    let sentence = |random: &mut Random| {
        let words: Vec<String> = (0..8 + random.below(9)).map(|_| word(random)).collect();
        format!("{}{}.", words[0][..1].to_uppercase(), &words.join(" ")[1..])
    };
    (0..sentences).map(|_| sentence(random)).collect::<Vec<_>>().join(" ")
}

/// What people do to a text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Edit {
    /// One word in so many is another.
    Words(usize),
    /// Words before it.
    Prefix,
    /// All capitals.
    Case,
    /// Other signs between words, other white space.
    Punctuation,
    /// Sentences in another order.
    Shuffled,
}

/// An edited copy of `text`.
pub(super) fn edited(text: &str, edit: Edit, random: &mut Random) -> String {
    match edit {
        Edit::Words(every) => {
            let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            (every / 2..words.len()).step_by(every).for_each(|at| words[at] = format!("x{}", word(random)));
            words.join(" ")
        }
        Edit::Prefix => format!("Here is the answer to it: {text}"),
        Edit::Case => text.to_uppercase(),
        Edit::Punctuation => text.replace(". ", " --\n\n").replace(" b", ", b"),
        Edit::Shuffled => {
            let mut sentences: Vec<&str> = text.split_inclusive(". ").collect();
            random.shuffle(&mut sentences);
            sentences.join(" ")
        }
    }
}

/// The Jaccard similarity of the sets of five-word sequences, counted.
pub(super) fn jaccard(one: &str, other: &str) -> f64 {
    let [one, other] = [one, other].map(five_words);
    one.intersection(&other).count() as f64 / one.union(&other).count() as f64
}

fn five_words(text: &str) -> HashSet<Vec<String>> {
    let small = text.to_lowercase();
    let words: Vec<String> = small.split(|char: char| !char.is_alphanumeric()).map(str::to_owned).collect();
    let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
    words.windows(5.min(words.len())).map(<[String]>::to_vec).collect()
}
