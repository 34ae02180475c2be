//! One row's token ids, and which of them are trained on.
//!
//! In:    the plan's data part, a tokenizer, what a row says.
//! Out:   [`Tokens`].
//! Never: looks for marker strings: where an answer begins and ends comes from rendering the conversation's beginnings and
//!        from the byte offsets of the tokens; adds or removes a special token of a rendered template.
//!
//! Content that spells a special token becomes that token, as in transformers' `apply_chat_template`; an answer's end is
//! looked for behind its text, so such a token inside an answer does not end it.

mod answers;
mod choice;
mod pieces;

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;

use std::ops::Range;

use planner::plan::{DataPlan, TrainOn};
use serde_json::Value;

use crate::content::{Content, Conversation, Message, Segment};
use crate::error::DataError;
use crate::gates::Gates;
use crate::row_error::RowError;
use crate::template::{Template, Turns, Until};
use crate::tokenizer::{Encoded, Tokenizer};

/// The template of the plan alone, for a server.
pub(crate) fn settled_template(plan: &DataPlan, tokenizer: &Tokenizer) -> Result<Option<Template>, DataError> {
    Ok(choice::settle(plan, tokenizer, Gates::of(&plan.allow))?.0)
}

/// Ids of a row and the ranges of them that are trained on: sorted, apart from each other, not empty, never with index 0,
/// which nothing predicts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// Token ids.
    pub(crate) ids: Vec<u32>,
    /// Indices of trained ids.
    pub(crate) trained: Vec<Range<u32>>,
}

/// What turns rows into tokens; shared by all workers.
#[derive(Debug)]
pub(crate) struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<Template>,
    /// What the choice of the template has to say to the user.
    pub(crate) notes: Vec<String>,
    train_on: TrainOn,
    allowed: Gates,
    /// Whether the tokenizer writes a space before a text's beginning, so that parts need care.
    spaced: bool,
}

impl<'a> Encoder<'a> {
    /// Settles the template (see [`choice`]) and reads its file if the plan names one.
    pub(crate) fn new(plan: &DataPlan, tokenizer: &'a Tokenizer) -> Result<Encoder<'a>, DataError> {
        let allowed = Gates::of(&plan.allow);
        let (template, notes) = choice::settle(plan, tokenizer, allowed)?;
        let spaced = pieces::is_spaced(tokenizer)?;
        Ok(Encoder { tokenizer, template, notes, train_on: plan.train_on, allowed, spaced })
    }

    /// Tokens of one row; gates that `data.allow` switches off are noted in `findings`. Text may be longer than a model
    /// reads: the caller cuts or splits.
    pub(crate) fn encode(&self, content: &Content, findings: &mut Gates) -> Result<Tokens, RowError> {
        match content {
            Content::Conversation(conversation) => self.conversation(conversation, findings),
            Content::Completion { prompt, completion } => self.completion(prompt, completion, findings),
            Content::Text(text) => self.segments(&[(text, true)], findings),
            Content::Segments(segments) => {
                let parts: Vec<_> = segments.iter().map(|Segment { text, train }| (text.as_str(), *train)).collect();
                self.segments(&parts, findings)
            }
            Content::Preference(_) => {
                Err(RowError::Shape { reason: "preference rows are checked, not trained on".to_owned() })
            }
        }
    }

    /// The conversation as the template writes it.
    #[cfg(test)]
    pub(crate) fn render(&self, conversation: &Conversation) -> Result<String, RowError> {
        let rendered = self.template()?.render(&turns(conversation), Until::End).map_err(render_fault)?;
        Ok(rendered.text)
    }

    /// Jinja source of the template; `None` where there is none.
    pub(crate) fn template_text(&self) -> Option<&str> {
        self.template.as_ref().map(Template::source)
    }

    fn template(&self) -> Result<&Template, RowError> {
        self.template.as_ref().ok_or_else(|| RowError::Render {
            reason:
                "the model has no chat template and its tokenizer no end-of-text token for ChatML; give a template as \
                     data.chat_template"
                    .to_owned(),
        })
    }

    fn conversation(&self, conversation: &Conversation, findings: &mut Gates) -> Result<Tokens, RowError> {
        let template = self.template()?;
        let wanted = self.wanted(&conversation.messages)?;
        let turns = turns(conversation);
        let full = template.render(&turns, Until::End).map_err(render_fault)?;
        let row = answers::Row { template, turns: &turns, messages: &conversation.messages, full: &full.text };
        let answers = match template.marks() {
            true => row.marked(&full.generation, &wanted)?,
            false => row.located(&wanted)?,
        };
        let borders: Vec<usize> = answers.iter().map(|answer| answer.start).collect();
        let encoded = pieces::encode(self, &full.text, &borders)?;
        self.check_beginning(&encoded.ids, findings)?;
        let mut trained = Vec::new();
        for answer in &answers {
            trained.extend(answers::tokens(self, &row, answer, &encoded, findings)?);
        }
        self.finish(encoded.ids, trained, findings)
    }

    /// Ids of a conversation through the beginning of the next answer; token borders are those of training.
    pub(crate) fn prompt(&self, values: &[Value]) -> Result<Vec<u32>, RowError> {
        let template = self.template()?;
        let turns = Turns::new(values.iter(), None);
        let full = template.render(&turns, Until::Answer(values.len())).map_err(render_fault)?;
        let messages: Vec<Message> = values.iter().map(Message::of).collect();
        let is_answer = |index: &usize| messages[*index].role == "assistant";
        let earlier: Vec<usize> = (0..messages.len()).filter(is_answer).collect();
        let row = answers::Row { template, turns: &turns, messages: &messages, full: &full.text };
        let located = match (self.train_on, template.marks()) {
            // The only border is where the prompt ends.
            (TrainOn::Last, _) => Vec::new(),
            (TrainOn::All, true) => row.marked(&full.generation, &earlier).unwrap_or_default(),
            // An answer that cannot be found was in no training row, so it has no border.
            (TrainOn::All, false) => row.located(&earlier).unwrap_or_default(),
        };
        let borders: Vec<usize> = located.iter().map(|answer| answer.start).collect();
        let ids = pieces::encode(self, &full.text, &borders)?.ids;
        self.check_beginning(&ids, &mut Gates::default())?;
        Ok(ids)
    }

    /// Ids of a text that is to be continued.
    pub(crate) fn plain(&self, text: &str) -> Result<Vec<u32>, RowError> {
        Ok(self.opened(self.tokenizer.encode_row(text)?.ids))
    }

    /// Indices of the messages that are trained on.
    fn wanted(&self, messages: &[Message]) -> Result<Vec<usize>, RowError> {
        let last = messages.iter().rposition(|message| message.role == "assistant").ok_or(RowError::NoAnswer)?;
        if let Some(index) = messages.iter().position(|m| m.train == Some(true) && m.role != "assistant") {
            let role = &messages[index].role;
            let reason = format!(
                "message {}: \"train\": true on a message of role {role:?}; only answers are trained on",
                index + 1
            );
            return Err(RowError::Shape { reason });
        }
        let rule = |index: usize| self.train_on == TrainOn::All || index == last;
        let chosen = |(index, message): (usize, &Message)| {
            (message.role == "assistant" && message.train.unwrap_or(rule(index))).then_some(index)
        };
        Ok(messages.iter().enumerate().filter_map(chosen).collect())
    }

    /// The gate of one beginning-of-text token. Some models begin every turn with the same token (SmolLM2), so only a
    /// repetition at the very start is wrong.
    fn check_beginning(&self, ids: &[u32], findings: &mut Gates) -> Result<(), RowError> {
        let Some(bos) = self.tokenizer.bos() else { return Ok(()) };
        let count = ids.iter().take_while(|id| **id == bos).count();
        match count {
            0 if self.tokenizer.adds_bos() => {
                let token = self.tokenizer.token(bos).unwrap_or_default();
                self.allowed.pass(RowError::MissingBos { token }, findings)
            }
            0 | 1 => Ok(()),
            count => self.allowed.pass(RowError::RepeatedBos { count }, findings),
        }
    }

    fn completion(&self, prompt: &str, completion: &str, findings: &mut Gates) -> Result<Tokens, RowError> {
        let before = self.tokenizer.encode_row(prompt)?.ids;
        let mut ids = self.tokenizer.encode_row(&format!("{prompt}{completion}"))?.ids;
        if !ids.starts_with(&before) {
            // A token would cross the border: at inference it cannot, so the two are encoded apart.
            let after = pieces::continued(self, completion)?.ids;
            ids = before.iter().copied().chain(after).collect();
        }
        let context = self.opened(before).len();
        let ids = self.closed(self.opened(ids))?;
        let trained = std::iter::once(context..ids.len()).collect();
        self.finish(ids, trained, findings)
    }

    /// Parts encoded one by one, so that no token crosses a border; the end-of-text token goes with the last part.
    fn segments(&self, parts: &[(&str, bool)], findings: &mut Gates) -> Result<Tokens, RowError> {
        let mut ids = self.opened(Vec::new());
        let mut trained = Vec::new();
        for (index, (text, train)) in parts.iter().enumerate() {
            let start = ids.len();
            let encoded = if index == 0 { self.tokenizer.encode_row(text)? } else { pieces::continued(self, text)? };
            // A text that spells the beginning-of-text token itself has it once.
            let repeated = index == 0 && !ids.is_empty() && encoded.ids.first() == ids.first();
            ids.extend(encoded.ids.into_iter().skip(usize::from(repeated)));
            if *train {
                trained.push(start..ids.len());
            }
        }
        let end = ids.len();
        let ids = self.closed(ids)?;
        if parts.last().is_some_and(|(_, train)| *train) {
            trained.push(end..ids.len());
        }
        self.finish(ids, trained, findings)
    }

    /// With beginning-of-text in front where the tokenizer adds it to plain text.
    fn opened(&self, ids: Vec<u32>) -> Vec<u32> {
        let bos = self.tokenizer.bos().filter(|bos| self.tokenizer.adds_bos() && ids.first() != Some(bos));
        bos.into_iter().chain(ids).collect()
    }

    /// With end-of-text behind, once.
    fn closed(&self, mut ids: Vec<u32>) -> Result<Vec<u32>, RowError> {
        let missing = || RowError::Encode { reason: DataError::NoEndToken.to_string() };
        let end = *self.tokenizer.eos().first().ok_or_else(missing)?;
        if ids.last() != Some(&end) {
            ids.push(end);
        }
        Ok(ids)
    }

    fn finish(&self, ids: Vec<u32>, trained: Vec<Range<usize>>, findings: &mut Gates) -> Result<Tokens, RowError> {
        let too_long = |_| RowError::Encode { reason: format!("{} tokens in one row are more than 2^32", ids.len()) };
        u32::try_from(ids.len()).map_err(too_long)?;
        let mut ranges: Vec<Range<u32>> = Vec::new();
        for range in trained {
            let (start, end) = (range.start.max(1) as u32, range.end as u32);
            match ranges.last_mut() {
                Some(last) if start <= last.end => last.end = last.end.max(end),
                _ if start < end => ranges.push(start..end),
                _ => {}
            }
        }
        if ranges.is_empty() {
            self.allowed.pass(RowError::NothingTrained, findings)?;
        }
        Ok(Tokens { ids, trained: ranges })
    }
}

fn turns(conversation: &Conversation) -> Turns {
    Turns::new(conversation.messages.iter().map(|message| &message.value), conversation.tools.as_ref())
}

fn render_fault(error: crate::template::TemplateError) -> RowError {
    RowError::Render { reason: error.to_string() }
}

/// The tokens that begin in `bytes`, or share its first byte.
fn tokens_in(encoded: &Encoded, bytes: &Range<usize>) -> Range<usize> {
    let first = encoded.offsets.partition_point(|token| token.start < bytes.start || token.end <= bytes.start);
    let end = encoded.offsets.partition_point(|token| token.start < bytes.end);
    first..end.max(first)
}
