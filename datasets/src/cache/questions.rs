//! Questions for greedy exact-match evaluation, from encoded rows.
//!
//! In:    a dataset, its tokenizer.
//! Out:   per row, the tokens up to where its last answer begins, and that answer as text.
//! Never: generates.

use super::dataset::{Dataset, Row};
use crate::content::Place;
use crate::error::DataError;
use crate::tokenizer::Tokenizer;

/// One row to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Token ids, the template's beginning of an answer included.
    pub prompt: Vec<u32>,
    /// The right answer, white space around it removed; compare with the generated text likewise trimmed.
    pub answer: String,
    /// Where the row stands.
    pub place: Place,
}

/// The first `rows_max` questions, in file order; `None` takes all. The answer is the last trained range without the special tokens
/// that end it. A row without a trained token asks nothing and is passed over.
pub fn questions(
    dataset: &Dataset,
    tokenizer: &Tokenizer,
    rows_max: Option<usize>,
) -> Result<Vec<Question>, DataError> {
    let rows = dataset.rows().filter(|row| !row.trained.is_empty());
    rows.take(rows_max.unwrap_or(usize::MAX)).map(|row| question(row, tokenizer)).collect()
}

fn question(row: Row<'_>, tokenizer: &Tokenizer) -> Result<Question, DataError> {
    let [start, end] = row.trained.last().map_or([0, 0], |range| range.map(|index| index as usize));
    let answer = &row.tokens[start..end];
    let text = answer.iter().rposition(|id| !tokenizer.is_special(*id)).map_or(0, |last| last + 1);
    let answer = tokenizer.decode(&answer[..text])?.trim().to_owned();
    Ok(Question { prompt: row.tokens[..start].to_vec(), answer, place: row.place })
}
