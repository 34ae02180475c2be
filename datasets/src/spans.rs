//! One row's token ids, and which of them are trained on.
//!
//! In:    a conversation with its template, or a prompt with its completion.
//! Out:   [`Tokens`].
//! Never: looks for marker strings. Where an answer begins and ends comes from rendering the conversation's beginnings
//!        and from the byte offsets of the tokens.

use std::ops::Range;

use crate::row_error::RowError;
use crate::template::{ChatTemplate, Message};
use crate::tokenizer::{Encoded, Tokenizer};

/// Ids of a row, and per id whether it is trained on. The first never is: nothing predicts it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) ids: Vec<u32>,
    pub(crate) trained: Vec<bool>,
}

/// Renders a conversation; all answers are trained on, each with the special token that ends it, not what follows.
pub(crate) fn conversation(
    messages: &[Message],
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
) -> Result<Tokens, RowError> {
    let full = template.render(messages, false)?;
    let encoded = encode_rendered(&full, tokenizer)?;
    let mut trained = vec![false; encoded.ids.len()];
    for (index, message) in messages.iter().enumerate().filter(|(_, message)| message.role == "assistant") {
        let before = template.render(&messages[..index], true)?;
        let through = template.render(&messages[..=index], false)?;
        let answer = place(&full, &before, &through, message).ok_or(RowError::NotAPrefix { message: index + 1 })?;
        let tokens =
            answer_tokens(&encoded, &answer, tokenizer).ok_or(RowError::NoTerminator { message: index + 1 })?;
        trained[tokens].fill(true);
    }
    finish(encoded.ids, trained)
}

/// The answer's bytes in the rendered text.
struct Answer {
    /// Right after what the template writes to begin an answer.
    start: usize,
    /// The terminator begins here or later.
    text_end: usize,
    /// The terminator begins before.
    end: usize,
}

/// Finds an answer by what the template writes before and through it.
fn place(full: &str, before: &str, through: &str, message: &Message) -> Option<Answer> {
    let rest = full.strip_prefix(before)?;
    let start = before.len();
    let text = message.content.trim();
    if full.starts_with(through) && through.len() > start {
        let inside = &full[start..through.len()];
        // Templates may trim the content; where they change it more, the last special token is the terminator.
        let text_end = inside.find(text).map_or(start, |at| start + at + text.len());
        return Some(Answer { start, text_end, end: through.len() });
    }
    // Some templates (Qwen3) drop the reasoning of earlier answers, so `through` is not a beginning of the whole.
    let leading = rest.len() - rest.trim_start().len();
    rest.trim_start().starts_with(text).then(|| Answer {
        start,
        text_end: start + leading + text.len(),
        end: full.len(),
    })
}

/// The tokens of an answer through its terminator: the first special token after the answer's text.
fn answer_tokens(encoded: &Encoded, answer: &Answer, tokenizer: &Tokenizer) -> Option<Range<usize>> {
    let first = encoded.offsets.iter().position(|bytes| bytes.start >= answer.start && bytes.end > answer.start)?;
    let terminator = encoded.offsets.iter().zip(&encoded.ids).position(|(bytes, id)| {
        bytes.start >= answer.text_end && bytes.start < answer.end && tokenizer.is_special(*id)
    })?;
    (first <= terminator).then_some(first..terminator + 1)
}

/// Encodes rendered text: the template writes beginning-of-text itself, once or never.
pub(crate) fn encode_rendered(text: &str, tokenizer: &Tokenizer) -> Result<Encoded, RowError> {
    let encoded = tokenizer.encode_row(text)?;
    // Some models begin every turn with the same token (SmolLM2), so only a repetition at the very start is wrong.
    let leading = encoded.ids.iter().take_while(|id| Some(**id) == tokenizer.bos()).count();
    if leading > 1 {
        return Err(RowError::RepeatedBos { count: leading });
    }
    Ok(encoded)
}

/// The ids of a prompt: beginning-of-text where the tokenizer adds it, then the text.
pub(crate) fn prompt(prompt: &str, tokenizer: &Tokenizer) -> Result<Vec<u32>, RowError> {
    let ids = tokenizer.encode_row(prompt)?.ids;
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let bos = bos.filter(|bos| ids.first() != Some(bos));
    Ok(bos.into_iter().chain(ids).collect())
}

/// A prompt and its completion; the completion and the end-of-text token are trained on.
pub(crate) fn completion(before: &str, after: &str, end: u32, tokenizer: &Tokenizer) -> Result<Tokens, RowError> {
    let mut ids = prompt(before, tokenizer)?;
    let context = ids.len();
    let joined = prompt(&format!("{before}{after}"), tokenizer)?;
    if joined.starts_with(&ids) {
        ids = joined;
    } else {
        // A token would cross the border: at inference it cannot, so the two are encoded apart.
        ids.extend(tokenizer.encode_row(after)?.ids);
    }
    if ids.last() != Some(&end) {
        ids.push(end);
    }
    let trained = (0..ids.len()).map(|index| index >= context).collect();
    finish(ids, trained)
}

fn finish(ids: Vec<u32>, mut trained: Vec<bool>) -> Result<Tokens, RowError> {
    if let Some(first) = trained.first_mut() {
        *first = false;
    }
    if !trained.contains(&true) {
        return Err(RowError::NothingTrained);
    }
    Ok(Tokens { ids, trained })
}
