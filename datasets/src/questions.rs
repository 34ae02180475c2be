//! Questions for greedy exact-match evaluation.
//!
//! In:    one source.
//! Out:   per row, the tokens up to where its last answer begins, and that answer.
//! Never: generates.

use planner::plan::{DataSource, TemplateChoice};

use crate::error::DataError;
use crate::rows::Encoder;
use crate::tokenizer::Tokenizer;

/// One row to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Token ids, the template's beginning of an answer included.
    pub prompt: Vec<u32>,
    /// The right answer, white space around it removed; compare with the generated text likewise trimmed.
    pub answer: String,
    /// Line, from 1.
    pub line: usize,
}

/// All questions of a source, in file order. `chat_template` is the recipe's, which wins over the model's.
pub fn questions(
    source: &DataSource,
    chat_template: &TemplateChoice,
    tokenizer: &Tokenizer,
) -> Result<Vec<Question>, DataError> {
    let encoder = Encoder::new(source, crate::rows::template_text(chat_template), tokenizer)?;
    let mut questions = Vec::new();
    encoder.map(
        |content| encoder.question(content),
        |line, (prompt, answer)| questions.push(Question { prompt, answer, line }),
    )?;
    Ok(questions)
}
