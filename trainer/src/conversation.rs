//! A conversation with a network: what was read once stays read.
//!
//! In:    the whole conversation's token ids before each answer, what ends an answer, how tokens are chosen.
//! Out:   an answer, token by token as they come.
//! Never: reads again what stands in the cache already; goes beyond the context.

use std::ops::ControlFlow;
use std::time::Instant;

use burn::tensor::DType;
use models::Session;

use crate::error::{TrainError, fetched};
use crate::network::Network;
use crate::sampling::Sampling;

/// Tokens that are read at once: enough for fast products, few enough to need little memory.
pub const READ_TOKENS: usize = 1024;

/// How an answer is made.
#[derive(Debug, Clone, Copy)]
pub struct Answering<'a> {
    /// Ids that end it.
    pub endings: &'a [u32],
    /// Longest answer, tokens.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The network ended its turn.
    Turn,
    /// It is as long as was asked for.
    Length,
    /// The context is full.
    Context,
    /// The listener said so.
    Stopped,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its tokens, without the one that ended it.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub ended: Ended,
    /// Tokens of the prompt that were read for it.
    pub read_tokens: usize,
    /// Tokens of the prompt that stood in the cache.
    pub kept_tokens: usize,
    /// Time until the first token.
    pub reading_seconds: f64,
    /// Time of the others.
    pub writing_seconds: f64,
}

impl Answer {
    /// Tokens after the first, a second.
    pub fn tokens_per_second(&self) -> f64 {
        self.ids.len().saturating_sub(1) as f64 / self.writing_seconds.max(1e-9)
    }
}

/// A network and what it has read.
#[derive(Debug)]
pub struct Conversation {
    network: Network,
    context_tokens: usize,
    session: Session,
    /// The ids that stand in the cache.
    read: Vec<u32>,
}

impl Conversation {
    /// Nothing read yet; prompts and answers together may have `context_tokens`.
    pub fn new(network: Network, context_tokens: usize) -> Conversation {
        let session = Session::new(network.spec().n_layers(), 1);
        Conversation { network, context_tokens, session, read: Vec::new() }
    }

    /// Continues `prompt`, which is the whole conversation so far. What it has in common with what was read before is not read again.
    /// `each` hears every token of the answer as it comes, and may stop it.
    pub fn answer(
        &mut self,
        prompt: &[u32],
        how: Answering<'_>,
        each: &mut (dyn FnMut(u32) -> ControlFlow<()> + Send),
    ) -> Result<Answer, TrainError> {
        if prompt.is_empty() || prompt.len() >= self.context_tokens {
            return Err(TrainError::Context { prompt: prompt.len(), context: self.context_tokens });
        }
        // From outside the pool every product would add a thread (see `crate::train`).
        let answer = rayon::scope(|_| self.answer_here(prompt, how, each));
        if answer.is_err() {
            self.forget();
        }
        answer
    }

    fn forget(&mut self) {
        self.session = Session::new(self.network.spec().n_layers(), 1);
        self.read.clear();
    }

    fn answer_here(
        &mut self,
        prompt: &[u32],
        how: Answering<'_>,
        each: &mut (dyn FnMut(u32) -> ControlFlow<()> + Send),
    ) -> Result<Answer, TrainError> {
        let begun = Instant::now();
        let kept_tokens = self.keep_common(prompt);
        let mut logits = self.read_on(&prompt[kept_tokens..])?;
        let (mut ids, mut first) = (Vec::new(), None);
        let ended = loop {
            if ids.len() == how.max_new_tokens {
                break Ended::Length;
            }
            let text = [prompt, &ids].concat();
            let token = how.sampling.choose(&mut logits, &text, ids.len() as u64);
            first.get_or_insert_with(Instant::now);
            if how.endings.contains(&token) {
                break Ended::Turn;
            }
            ids.push(token);
            if each(token).is_break() {
                break Ended::Stopped;
            }
            if prompt.len() + ids.len() == self.context_tokens {
                break Ended::Context;
            }
            if ids.len() < how.max_new_tokens {
                logits = self.read_on(&[token])?;
            }
        };
        let first = first.unwrap_or_else(Instant::now);
        Ok(Answer {
            ids,
            ended,
            read_tokens: prompt.len() - kept_tokens,
            kept_tokens,
            reading_seconds: (first - begun).as_secs_f64(),
            writing_seconds: first.elapsed().as_secs_f64(),
        })
    }

    /// Takes back what the prompt does not begin with. At least its last token is read: its logits are wanted.
    fn keep_common(&mut self, prompt: &[u32]) -> usize {
        let common = self.read.iter().zip(prompt).take_while(|(read, wanted)| read == wanted).count();
        let kept = common.min(prompt.len() - 1);
        self.session.truncate(0, kept);
        self.read.truncate(kept);
        kept
    }

    /// Reads tokens; returns the logits after the last.
    fn read_on(&mut self, tokens: &[u32]) -> Result<Vec<f32>, TrainError> {
        let (outer, stack) = self.network.parts();
        let mut last = None;
        for piece in tokens.chunks(READ_TOKENS) {
            let x_td = outer.read(stack, &mut self.session, &[piece]).map_err(fetched)?;
            self.read.extend_from_slice(piece);
            last = Some((x_td, piece.len() as u32 - 1));
        }
        let (x_td, row) = last.expect("at least one token is read");
        let logits = outer.logits(x_td, &[row]).cast(DType::F32).into_data();
        Ok(logits.try_into_vec().expect("logits were cast to f32"))
    }
}
