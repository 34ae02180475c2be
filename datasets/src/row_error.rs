//! What can be wrong with one row, and which gate refuses it.
//!
//! In:    nothing.
//! Out:   [`RowError`]; [`RowError::gate`] names the gate whose switch in `data.allow` lets such a row pass.
//! Never: knows the file: the caller adds it.

use planner::plan::Gate;

/// What is wrong with one line of a data file.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowError {
    /// Not JSON.
    #[error("column {column}: not valid JSON: {reason}")]
    Json {
        /// Column, from 1.
        column: usize,
        /// What the parser said.
        reason: String,
    },
    /// Not UTF-8.
    #[error("column {column}: not valid UTF-8")]
    Utf8 {
        /// Byte column, from 1.
        column: usize,
    },
    /// Neither of the known forms, or another one than the file's.
    #[error("{reason}")]
    Shape {
        /// What was expected and found.
        reason: String,
    },
    /// A conversation that does not alternate.
    #[error("message {message}: {reason}")]
    Roles {
        /// Which message, from 1.
        message: usize,
        /// What is wrong.
        reason: String,
    },
    /// Nothing to learn in this row: it does not end with an answer.
    #[error("the row has no answer: its last message must have role \"assistant\"")]
    NoAnswer,
    /// An answer without text.
    #[error("the answer is empty")]
    EmptyAnswer,
    /// The template refused the conversation.
    #[error("the chat template fails on this row: {reason}")]
    Render {
        /// What minijinja or `raise_exception` said.
        reason: String,
    },
    /// The template writes an answer's place differently with and without the answer.
    #[error(
        "message {message}: the chat template does not render a conversation's beginning as the beginning of the \
         conversation, so the answer cannot be located; give another template as data.chat_template"
    )]
    NotAPrefix {
        /// Which message, from 1.
        message: usize,
    },
    /// The template ends no answer with a special token, so a trained model would never stop.
    #[error(
        "message {message}: the chat template ends the answer with no special token of the tokenizer, so the model would \
         not learn to stop; give another template as data.chat_template"
    )]
    NoTerminator {
        /// Which message, from 1.
        message: usize,
    },
    /// Beginning-of-text twice.
    #[error(
        "the rendered row begins with {count} beginning-of-text tokens; a message repeats what the template writes"
    )]
    RepeatedBos {
        /// How often.
        count: usize,
    },
    /// All tokens are context.
    #[error("the row has no token to train on")]
    NothingTrained,
    /// The tokenizer failed.
    #[error("the tokenizer fails on this row: {reason}")]
    Encode {
        /// What it said.
        reason: String,
    },
    /// No beginning-of-text where the model was trained with one.
    #[error(
        "the chat template writes no beginning-of-text token, but the tokenizer puts {token:?} before every text; write \
         {{{{ bos_token }}}} at the template's beginning, or allow it with data.allow = [\"one-bos\"]"
    )]
    MissingBos {
        /// The token's name.
        token: String,
    },
    /// The end of an answer would not be trained.
    #[error(
        "the row has {tokens} tokens and data.too_long = \"truncate\" would cut an answer at {limit}; raise data.sequence_length or \
         drop such rows"
    )]
    TruncatedAnswer {
        /// Tokens of the row.
        tokens: usize,
        /// `data.sequence_length`.
        limit: usize,
    },
    /// A row to train on says what a held-out row says.
    #[error(
        "the row stands in the held-out rows too (row {row} there, {percent} % alike), so the measurement would flatter; remove it, \
         or let data.clean.deduplicate = \"near\" do that"
    )]
    HeldOut {
        /// Held-out row, from 1.
        row: u64,
        /// Estimated similarity, percent.
        percent: u8,
    },
    /// An id that the model has no embedding for.
    #[error("token id {id} is outside the model's {rows} embeddings")]
    TokenOutsideModel {
        /// The id.
        id: u32,
        /// Rows of the embedding.
        rows: usize,
    },
}

impl RowError {
    /// The gate that found it; `None` for what no switch lets pass.
    pub fn gate(&self) -> Option<Gate> {
        match self {
            RowError::RepeatedBos { .. } | RowError::MissingBos { .. } => Some(Gate::OneBos),
            RowError::NoTerminator { .. } => Some(Gate::AnswerEnd),
            RowError::NothingTrained => Some(Gate::TrainedTokens),
            RowError::TruncatedAnswer { .. } => Some(Gate::TruncatedAnswer),
            RowError::HeldOut { .. } => Some(Gate::EvalOverlap),
            RowError::EmptyAnswer => Some(Gate::EmptyAnswer),
            RowError::Utf8 { .. } => Some(Gate::Utf8),
            RowError::Roles { .. } | RowError::NoAnswer => Some(Gate::Roles),
            _ => None,
        }
    }
}
