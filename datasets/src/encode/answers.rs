//! Where the answers stand in a rendered conversation.
//!
//! In:    a conversation, its template, the whole rendered text.
//! Out:   the bytes of each answer, and its tokens through the one that ends the turn.
//! Never: renders more than it must: one beginning per answer; two where the template rewrites the answer.

use std::cell::OnceCell;
use std::ops::Range;

use crate::content::Message;
use crate::gates::Gates;
use crate::row_error::RowError;
use crate::template::{Template, Turns, Until};
use crate::tokenizer::Encoded;

use super::{Encoder, render_fault, tokens_in};

/// A conversation while it is worked on.
pub(crate) struct Row<'a> {
    /// Its template.
    pub(crate) template: &'a Template,
    /// Its turns as the template gets them.
    pub(crate) turns: &'a Turns,
    /// Its turns as the row says them.
    pub(crate) messages: &'a [Message],
    /// All of it, rendered.
    pub(crate) full: &'a str,
}

/// An answer's place in the rendered text, bytes.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Which message.
    message: usize,
    /// Right behind what the template writes to begin an answer.
    pub(crate) start: usize,
    /// The token that ends the turn begins here or later.
    text_end: usize,
    /// Where a generation block ends; `None` where the template has none.
    block_end: Option<usize>,
    /// Where the turn ends, once it was needed.
    turn_end: OnceCell<Option<usize>>,
}

impl Row<'_> {
    /// Answers as `{% generation %}` blocks mark them.
    pub(crate) fn marked(&self, blocks: &[Range<usize>], wanted: &[usize]) -> Result<Vec<Answer>, RowError> {
        let answers = || (0..self.messages.len()).filter(|index| self.messages[*index].role == "assistant");
        let count = answers().count();
        if blocks.len() != count && wanted.len() != count {
            let reason = format!(
                "the template marks {} generation blocks for {count} answers, so {} of them cannot be chosen",
                blocks.len(),
                wanted.len()
            );
            return Err(RowError::Render { reason });
        }
        let last = self.messages.len().saturating_sub(1);
        let indices = answers().chain(std::iter::repeat(last));
        let chosen = indices.zip(blocks).filter(|(index, _)| blocks.len() != count || wanted.contains(index));
        Ok(chosen
            .map(|(message, block)| Answer {
                message,
                start: block.start,
                text_end: block.start,
                block_end: Some(block.end),
                turn_end: OnceCell::new(),
            })
            .collect())
    }

    /// Answers by what the template writes before them.
    pub(crate) fn located(&self, wanted: &[usize]) -> Result<Vec<Answer>, RowError> {
        wanted.iter().map(|index| self.locate(*index)).collect()
    }

    fn locate(&self, index: usize) -> Result<Answer, RowError> {
        let before = self.rendered(Until::Answer(index))?;
        let message = &self.messages[index];
        let start = match self.full.starts_with(&before) {
            true => before.len(),
            false => self.start_without_prompt(index, &before).ok_or(RowError::NotAPrefix { message: index + 1 })?,
        };
        let rest = &self.full[start..];
        let text = message.text.trim();
        let space = rest.len() - rest.trim_start().len();
        let at = match rest[space..].starts_with(text) {
            true => Some(space),
            // Behind its reasoning, or trimmed; where the template changes it more, the answer begins at `start` still.
            false => rest.find(text).filter(|at| self.is_in_turn(index, start + at)),
        };
        let text_end = at.map_or(start, |at| start + at + text.len());
        Ok(Answer { message: index, start, text_end, block_end: None, turn_end: OnceCell::new() })
    }

    /// Where an answer begins if the prompt opens a reasoning block that the finished turn does not have (DeepSeek R1,
    /// earlier turns of Qwen3-Thinking): behind what prompt and conversation have in common.
    fn start_without_prompt(&self, index: usize, before: &str) -> Option<usize> {
        let turns = self.rendered(Until::Turn(index)).ok()?;
        let base = common(self.full, &turns);
        let shared = common(self.full, before);
        if base < turns.trim_end().len() || shared <= turns.len() || !before.starts_with(&turns) {
            return None;
        }
        let text = self.messages[index].text.trim();
        let text_at = self.full[turns.len()..].find(text).map_or(shared, |at| at + turns.len());
        Some(shared.min(text_at))
    }

    /// Whether a byte of the whole lies in the turn of a message; the last turn goes through the end.
    fn is_in_turn(&self, index: usize, at: usize) -> bool {
        index + 1 == self.messages.len() || self.turn_end(index).is_some_and(|end| at < end)
    }

    /// Where a message's turn ends; `None` where the template renders it otherwise once others follow.
    fn turn_end(&self, index: usize) -> Option<usize> {
        if index + 1 >= self.messages.len() {
            return Some(self.full.len());
        }
        let through = self.rendered(Until::Turn(index + 1)).ok()?;
        self.full.starts_with(&through).then_some(through.len())
    }

    fn rendered(&self, until: Until) -> Result<String, RowError> {
        self.template.render(self.turns, until).map(|rendered| rendered.text).map_err(render_fault)
    }
}

/// The tokens of an answer through the one that ends the turn.
pub(crate) fn tokens(
    encoder: &Encoder,
    row: &Row,
    answer: &Answer,
    encoded: &Encoded,
    findings: &mut Gates,
) -> Result<Option<Range<usize>>, RowError> {
    if let Some(end) = answer.block_end {
        let block = tokens_in(encoded, &(answer.start..end));
        if !encoded.ids[block.clone()].iter().any(|id| encoder.tokenizer.is_special(*id)) {
            encoder.allowed.pass(RowError::NoTerminator { message: answer.message + 1 }, findings)?;
        }
        return Ok(Some(block));
    }
    let first = tokens_in(encoded, &(answer.start..row.full.len())).start;
    if let Some(end) = terminator(encoder, row, answer, encoded) {
        return Ok((first <= end).then_some(first..end + 1));
    }
    encoder.allowed.pass(RowError::NoTerminator { message: answer.message + 1 }, findings)?;
    let end = answer.turn_end(row).unwrap_or(answer.text_end);
    Ok(Some(first..tokens_in(encoded, &(answer.start..end)).end))
}

impl Answer {
    fn turn_end(&self, row: &Row) -> Option<usize> {
        *self.turn_end.get_or_init(|| row.turn_end(self.message))
    }
}

/// The token that ends the turn: the first behind the answer's text that ends generation; else, inside the turn, the
/// first special one. Tool calls stand behind the text and may begin with a special token: the last one ends those.
fn terminator(encoder: &Encoder, row: &Row, answer: &Answer, encoded: &Encoded) -> Option<usize> {
    let message = &row.messages[answer.message];
    let calls = message.value["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty());
    let ends = |index: usize| encoder.tokenizer.eos().contains(&encoded.ids[index]);
    let special = |index: &usize| encoder.tokenizer.is_special(encoded.ids[*index]);
    let behind = tokens_in(encoded, &(answer.text_end..row.full.len()));
    let found = behind.clone().find(special)?;
    if ends(found) && (answer.text_end > answer.start || answer.message + 1 == row.messages.len()) {
        return Some(found);
    }
    let inside = match answer.turn_end(row) {
        Some(end) => tokens_in(encoded, &(answer.text_end..end)),
        // The template renders this turn otherwise on its own: it ends before the next special token that is no end.
        None => behind.start..behind.clone().find(|index| special(index)).map_or(behind.start, |index| index + 1),
    };
    inside.clone().find(|index| ends(*index)).or_else(|| match calls {
        true => inside.rev().find(special),
        false => inside.clone().find(special).filter(|_| answer.turn_end(row).is_some()),
    })
}

/// Bytes that two texts begin with in common, up to a border of characters.
fn common(left: &str, right: &str) -> usize {
    let mut at = left.bytes().zip(right.bytes()).take_while(|(left, right)| left == right).count();
    while !left.is_char_boundary(at) {
        at -= 1;
    }
    at
}
