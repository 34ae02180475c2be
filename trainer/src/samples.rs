//! A few held-out questions with the answers given before and after training: `samples.jsonl`.
//!
//! In:    answers of an evaluation, the run directory.
//! Out:   one line a question and evaluation: `step line question expected answer`; earlier evaluations stay.
//! Never: more than [`SAMPLES`] questions of an evaluation, or a text of more than [`CHARACTERS_MAX`] characters.

use std::path::Path;

use datasets::{Question, Tokenizer};
use offload::durable::publish_file;

use crate::error::TrainError;
use crate::metrics::step_of;

/// Questions that are kept: the first ones, so that every evaluation keeps the same.
pub(crate) const SAMPLES: usize = 8;
/// Longest text kept.
const CHARACTERS_MAX: usize = 4000;
const FILE: &str = "samples.jsonl";
/// A file that is longer was not written here.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// One question with the answer of the moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// Line of the row in its file.
    line: u64,
    /// The prompt as the model reads it; of a long one the end.
    question: String,
    /// The right answer.
    expected: String,
    /// What the model answered.
    answer: String,
}

impl Sample {
    /// `answer` is text without the tokens that end it, white space around it removed.
    pub(crate) fn new(question: &Question, answer: &str, tokenizer: &Tokenizer) -> Result<Sample, TrainError> {
        let prompt = tokenizer.decode_with_special(&question.prompt)?;
        Ok(Sample {
            line: question.place.line,
            question: the_end(&prompt),
            expected: the_beginning(&question.answer),
            answer: the_beginning(answer),
        })
    }
}

fn the_beginning(text: &str) -> String {
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}

fn the_end(text: &str) -> String {
    match text.char_indices().rev().nth(CHARACTERS_MAX - 1) {
        Some((at, _)) if at > 0 => format!("…{}", &text[at..]),
        _ => text.to_string(),
    }
}

/// Keeps the samples of an evaluation after `step`; those of the same or a later step, of a run that went back, are replaced.
pub(crate) fn keep(run: &Path, step: u64, samples: &[Sample]) -> Result<(), TrainError> {
    if samples.is_empty() {
        return Ok(());
    }
    let path = run.join(FILE);
    let failed = |source| TrainError::Metrics { path: path.clone(), source };
    let earlier = match std::fs::metadata(&path) {
        Ok(found) if found.len() <= FILE_BYTES_MAX => std::fs::read_to_string(&path).map_err(failed)?,
        _ => String::new(),
    };
    let mut text: String = earlier.split_inclusive('\n').filter(|line| step_of(line) < step).collect();
    for sample in samples {
        let line = serde_json::json!({
            "step": step, "line": sample.line, "question": sample.question, "expected": sample.expected, "answer": sample.answer,
        });
        text.push_str(&format!("{line}\n"));
    }
    publish_file(&path, text.as_bytes()).map_err(|error| failed(std::io::Error::other(error.to_string())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample(answer: &str) -> Sample {
        Sample { line: 1, question: "why?".into(), expected: "so".into(), answer: answer.into() }
    }

    #[test]
    fn a_later_evaluation_is_added_and_one_of_the_same_step_replaced() {
        let run = tempfile::tempdir().unwrap();
        let lines = || std::fs::read_to_string(run.path().join(FILE)).unwrap();
        keep(run.path(), 0, &[sample("a"), sample("b")]).unwrap();
        keep(run.path(), 9, &[sample("c")]).unwrap();
        keep(run.path(), 9, &[sample("d")]).unwrap();
        let text = lines();
        assert_eq!(text.lines().map(step_of).collect::<Vec<_>>(), [0, 0, 9]);
        assert!(text.contains(r#""answer":"d""#) && !text.contains(r#""answer":"c""#), "{text}");
        keep(run.path(), 0, &[sample("e")]).unwrap();
        assert_eq!(lines().lines().count(), 1, "a run that begins anew keeps nothing of the old one");
    }

    #[test]
    fn long_texts_keep_the_end_of_the_question_and_the_beginning_of_the_answer() {
        let long: String = (0..5000).map(|at| if at < 2500 { 'ä' } else { 'b' }).collect();
        assert_eq!(the_beginning(&long).chars().count(), CHARACTERS_MAX + 1);
        assert_eq!(the_end(&long).chars().count(), CHARACTERS_MAX + 1);
        assert!(the_beginning(&long).starts_with('ä') && the_end(&long).ends_with('b'));
        let exact: String = "x".repeat(CHARACTERS_MAX);
        assert_eq!((the_beginning(&exact), the_end(&exact)), (exact.clone(), exact));
    }
}
