//! What a job is told and what it tells.
//!
//! In:    values the command line parsed.
//! Out:   [`Job`], checked; [`Event`] while it runs; [`Summary`] and [`Preview`] after it.
//! Never: reads files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::address::Address;
use super::chunks::Chunk;
use super::documents::Skipped;
use super::error::GenerateError;
use super::prompts::Prompts;
use super::rules::Rules;

/// All of a job.
#[derive(Debug, Clone)]
pub struct Job {
    /// What to read.
    pub input: Input,
    /// What to ask.
    pub asking: Asking,
    /// Whom to ask.
    pub address: Address,
    /// Sent as `Authorization: Bearer`; never written anywhere.
    pub key: Option<String>,
    /// How hard to try.
    pub limits: Limits,
    /// What becomes a row.
    pub rules: Rules,
    /// The JSONL file of rows.
    pub output: PathBuf,
    /// How a row is written.
    pub row_shape: RowShape,
    /// What to do with an earlier journal.
    pub start: Start,
}

/// Which text is read.
#[derive(Debug, Clone)]
pub struct Input {
    /// Files, folders (all documents below them) and globs, in this order.
    pub documents: Vec<String>,
    /// How it is cut.
    pub chunking: Chunking,
    /// Only so many chunks, the first ones.
    pub chunks_max: Option<usize>,
}

/// Sizes of chunks, in characters (Unicode scalar values).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunking {
    /// Wanted size.
    pub target: usize,
    /// Never more than this, overlap included.
    pub bound: usize,
    /// How much of the chunk before is repeated.
    pub overlap: usize,
}

/// What is asked of the model, for every chunk.
#[derive(Debug, Clone)]
pub struct Asking {
    /// Name of the model, as the server knows it.
    pub model: String,
    /// The texts.
    pub prompts: Prompts,
    /// Pairs a chunk.
    pub pairs: usize,
    /// What `{{language}}` says.
    pub language: String,
    /// Sampling temperature, 0 to 2.
    pub temperature: f64,
    /// Sent with each request; decides the pauses between retries too.
    pub seed: u64,
    /// Most tokens of one reply.
    pub reply_tokens_max: u32,
}

/// How hard the server is tried.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests at the same time.
    pub concurrency: usize,
    /// Attempts a request, the first included.
    pub attempts: usize,
    /// Time of one attempt, from connecting to the last byte.
    pub timeout: Duration,
    /// Pause before the second attempt; doubles with each, up to [`Limits::pause_max`], and is shortened by up to half at random.
    pub pause: Duration,
    /// Longest pause. A server that asks for a longer one (`Retry-After`) is not waited for.
    pub pause_max: Duration,
    /// Most bytes of one reply.
    pub reply_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            concurrency: 4,
            attempts: 5,
            timeout: Duration::from_secs(600),
            pause: Duration::from_secs(1),
            pause_max: Duration::from_secs(120),
            reply_bytes_max: 8 << 20,
        }
    }
}

/// How a row is written. Both hold `source`, the provenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowShape {
    /// `{"question", "answer", "source"}`.
    QuestionAnswer,
    /// `{"messages": [user, assistant], "source"}`.
    Messages,
}

/// What an earlier journal is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// What it holds is not asked for again.
    GoOn,
    /// It is emptied.
    Anew,
}

/// What happens while a job runs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A document cannot be used.
    Skipped(Skipped),
    /// The work is known.
    Planned {
        /// All chunks.
        chunks: usize,
        /// Chunks that the journal holds.
        done: usize,
    },
    /// An attempt failed and another follows.
    Retry {
        /// Document and characters.
        chunk: String,
        /// What went wrong.
        reason: String,
        /// When the next attempt begins.
        pause: Duration,
    },
    /// A chunk's reply is in the journal.
    Done {
        /// Chunks done so far, those of earlier runs included.
        done: usize,
        /// All chunks.
        chunks: usize,
    },
    /// A chunk is given up for this run.
    Failed {
        /// Document and characters.
        chunk: String,
        /// Why.
        reason: String,
    },
}

/// What a job did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Documents with text.
    pub documents: usize,
    /// Documents that could not be used.
    pub skipped: Vec<Skipped>,
    /// Chunks that were to be asked for.
    pub chunks: usize,
    /// Chunks with too few letters to ask about.
    pub chunks_short: usize,
    /// Chunks with a reply, in this run or an earlier one.
    pub chunks_done: usize,
    /// Chunks that an earlier run had done.
    pub chunks_resumed: usize,
    /// Chunks given up, document and characters, with the reason. The same job started again tries them again.
    pub chunks_failed: Vec<(String, String)>,
    /// Chunks to which the model had nothing to ask.
    pub chunks_empty: usize,
    /// Rows written.
    pub rows: usize,
    /// Pairs and replies that the rules refused, by reason.
    pub rejected: BTreeMap<&'static str, usize>,
    /// Tokens of all prompts, as far as the server tells.
    pub prompt_tokens: u64,
    /// Tokens of all replies, as far as the server tells.
    pub reply_tokens: u64,
    /// Torn or foreign lines of the journal; their chunks were asked for again.
    pub journal_lines_dropped: usize,
    /// The stop flag ended it; the output was not written.
    pub stopped: bool,
    /// Time of this run.
    pub seconds: f64,
}

/// What a job would do.
#[derive(Debug, Clone)]
pub struct Preview {
    /// Documents with text.
    pub documents: usize,
    /// Documents that could not be used.
    pub skipped: Vec<Skipped>,
    /// Chunks with too few letters to ask about.
    pub chunks_short: usize,
    /// The chunks; of their text only the beginning.
    pub chunks: Vec<Chunk>,
    /// The first chunk's system prompt.
    pub first_system: String,
    /// The first chunk's user prompt.
    pub first_user: String,
}

impl Job {
    /// Refuses settings that cannot work.
    pub(crate) fn check(&self) -> Result<(), GenerateError> {
        self.input.check()?;
        within("concurrency", self.limits.concurrency, 1, 256)?;
        within("attempts", self.limits.attempts, 1, 100)?;
        within("pairs", self.asking.pairs, 1, 100)?;
        if !(0.0..=2.0).contains(&self.asking.temperature) {
            return Err(setting("temperature", self.asking.temperature, "0 to 2"));
        }
        self.rules.check()
    }
}

impl Input {
    pub(crate) fn check(&self) -> Result<(), GenerateError> {
        let Chunking { target, bound, overlap } = self.chunking;
        within("chunk", target, 200, 1_000_000)?;
        within("chunk-max", bound, target, 1_000_000)?;
        within("overlap", overlap, 0, target / 2)
    }
}

impl Asking {
    /// System and user prompt of `chunk`.
    pub(crate) fn render(&self, chunk: &Chunk) -> (String, String) {
        self.prompts.render(chunk, self.pairs, &self.language)
    }
}

fn within(name: &'static str, value: usize, least: usize, most: usize) -> Result<(), GenerateError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(setting(name, value, &format!("{least} to {most}")))
}

pub(crate) fn setting(name: &'static str, value: impl ToString, expected: &str) -> GenerateError {
    GenerateError::Setting { name, value: value.to_string(), expected: expected.to_string() }
}
