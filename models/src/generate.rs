//! Greedy decoding of many prompts at once, with a key/value cache.
//!
//! In:    prompts as token ids, adapters or none, the ids that end an answer.
//! Out:   each prompt's continuation, without the ending id.
//! Never: samples; the same model and prompts give the same answers.

use burn::tensor::Tensor;

use crate::decoder::Decoder;
use crate::session::Session;
use crate::source::BoxedError;

pub use crate::forward::Stack;

/// Tokens of an answer that its sequence has room for from the start; few questions let their answers be longer.
const ANSWER_ROOM_MAX: usize = 1024;

/// What ends an answer.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    /// Ids that end it.
    pub ids: &'a [u32],
    /// Longest answer, tokens.
    pub max_new_tokens: usize,
}

impl Decoder {
    /// Continues every prompt greedily; an empty prompt has an empty answer. Each token walks all blocks of the stack; an error is that of a
    /// block that could not be fetched.
    pub fn generate(
        &self,
        stack: Stack<'_>,
        prompts: &[Vec<u32>],
        ending: Ending<'_>,
    ) -> Result<Vec<Vec<u32>>, BoxedError> {
        let answer = ending.max_new_tokens.min(ANSWER_ROOM_MAX);
        let room: Vec<usize> = prompts.iter().map(|prompt| prompt.len() + answer).collect();
        let mut session = Session::with_room(stack.blocks.n_blocks(), &room);
        let mut answers = vec![Vec::new(); prompts.len()];
        let mut new: Vec<Vec<u32>> = match ending.max_new_tokens {
            0 => Vec::new(),
            _ => prompts.to_vec(),
        };
        while new.iter().any(|new| !new.is_empty()) {
            let read: Vec<&[u32]> = new.iter().map(Vec::as_slice).collect();
            let mut newest = self.newest(stack, &mut session, &read)?.into_iter();
            for (answer, new) in answers.iter_mut().zip(&mut new).filter(|(_, new)| !new.is_empty()) {
                let token = newest.next().expect("a token for each sequence that read one");
                new.clear();
                if !ending.ids.contains(&token) {
                    answer.push(token);
                    // The last token of an answer is not read: nothing follows it.
                    new.extend((answer.len() < ending.max_new_tokens).then_some(token));
                }
            }
        }
        Ok(answers)
    }

    /// The likeliest next token of every sequence that has new tokens.
    fn newest(&self, stack: Stack<'_>, session: &mut Session, new: &[&[u32]]) -> Result<Vec<u32>, BoxedError> {
        let x_td = self.read(stack, session, new)?;
        let ends = new.iter().scan(0u32, |end, new| {
            *end += new.len() as u32;
            Some((*end, new.is_empty()))
        });
        let last: Vec<u32> = ends.filter(|(_, none)| !none).map(|(end, _)| end - 1).collect();
        Ok(argmax(self.logits(x_td, &last)))
    }
}

fn argmax(logits: Tensor<2>) -> Vec<u32> {
    let ids = logits.argmax(1).into_data().convert::<i64>();
    ids.iter::<i64>().map(|id| id as u32).collect()
}
