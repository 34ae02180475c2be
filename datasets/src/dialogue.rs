//! A conversation that is still going on, as training would have written it.
//!
//! In:    the plan's data part, a tokenizer; messages as JSON, the next answer not among them.
//! Out:   token ids up to where the next answer begins.
//! Never: writes a turn otherwise than the rows of training: template, day and token borders are those of [`crate::Request`].

use planner::plan::DataPlan;
use serde_json::Value;

use crate::encode::Encoder;
use crate::error::DataError;
use crate::tokenizer::Tokenizer;

/// The chat template of a run, ready for conversations.
#[derive(Debug)]
pub struct Dialogue<'a> {
    encoder: Encoder<'a>,
}

impl<'a> Dialogue<'a> {
    /// Settles the template as preparing rows does.
    pub fn new(plan: &DataPlan, tokenizer: &'a Tokenizer) -> Result<Dialogue<'a>, DataError> {
        Ok(Dialogue { encoder: Encoder::new(plan, tokenizer)? })
    }

    /// What the choice of the template has to say.
    pub fn notes(&self) -> &[String] {
        &self.encoder.notes
    }

    /// Whether there is a template.
    pub fn has_template(&self) -> bool {
        self.encoder.template_text().is_some()
    }

    /// Ids of the conversation through the beginning of the next answer.
    pub fn prompt(&self, messages: &[Value]) -> Result<Vec<u32>, DataError> {
        self.encoder.prompt(messages).map_err(|cause| DataError::Conversation { cause })
    }

    /// Ids of a text to be continued, without a template: what a completion row has before its completion.
    pub fn plain(&self, text: &str) -> Result<Vec<u32>, DataError> {
        self.encoder.plain(text).map_err(|cause| DataError::Conversation { cause })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::content::{Content, Conversation, Message};
    use crate::gates::Gates;
    use crate::test_tokenizers::{CHATML, byte_level};
    use serde_json::json;

    fn conversation(turns: &[(&str, &str)]) -> (Vec<Value>, Content) {
        let values: Vec<Value> = turns.iter().map(|(role, text)| json!({ "role": role, "content": text })).collect();
        let messages = values.iter().map(Message::of).collect();
        (values, Content::Conversation(Conversation { messages, tools: None }))
    }

    /// What stands before each answer at inference is what stood before it in training, whatever the borders of tokens.
    #[test]
    fn a_prompt_has_the_ids_that_stand_before_the_answer_in_a_training_row() {
        for tokenizer in [byte_level(Some(CHATML)), byte_level(None)] {
            let plan = DataPlan::of(Vec::new(), 4096);
            let dialogue = Dialogue::new(&plan, &tokenizer).unwrap();
            let turns = [
                ("user", "Hello there"),
                ("assistant", "  Good day \u{1f600}"),
                ("user", "again?"),
                ("assistant", "yes"),
            ];
            let (values, content) = conversation(&turns);
            let row = dialogue.encoder.encode(&content, &mut Gates::default()).unwrap();
            for (count, range) in [(1, &row.trained[0]), (3, &row.trained[1])] {
                let prompt = dialogue.prompt(&values[..count]).unwrap();
                assert_eq!(prompt, row.ids[..range.start as usize], "{count} messages");
            }
        }
    }
}
