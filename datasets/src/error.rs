//! Why rows, a tokenizer or a template cannot be used. Every variant names the file and what to do.
//!
//! In:    nothing.
//! Out:   [`DataError`].
//! Never: prints.

use std::path::PathBuf;

use crate::cache::CacheError;
use crate::clean::CleanError;
use crate::files::FileError;
use crate::order::OrderError;
use crate::prepare::Refused;
use crate::row_error::RowError;

/// A cause that stops the loading of data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file cannot be opened or read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A model folder has no `tokenizer.json`.
    #[error(
        "{path} not found: the folder needs the tokenizer in one JSON file; transformers writes it with \
         AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
    )]
    NoTokenizerFile {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// A tokenizer file or vocabulary is not what it should be.
    #[error("{place}: {reason}")]
    Tokenizer {
        /// File, or `GGUF metadata`.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// The GGUF names a tokenizer family that is not supported.
    #[error(
        "tokenizer.ggml.model = \"{model}\" is not supported; supported are \"gpt2\" (byte-level BPE) and \"llama\" (SPM)"
    )]
    UnsupportedTokenizer {
        /// The family.
        model: String,
    },
    /// The GGUF names a pre-tokenizer whose splitting rule is not known; guessing would give other token ids.
    #[error("tokenizer.ggml.pre = \"{pre}\" is not supported; supported are {supported}")]
    UnsupportedPreTokenizer {
        /// The pre-tokenizer.
        pre: String,
        /// Those that are known.
        supported: String,
    },
    /// A tokenizer that GGUF files cannot hold.
    #[error("the tokenizer cannot be written into a GGUF file: {reason}")]
    NotForGguf {
        /// Which part of it.
        reason: String,
    },
    /// The tokenizer knows more tokens than the model has embeddings.
    #[error(
        "the tokenizer has token ids up to {highest}, the model only {rows} embeddings: they do not belong together"
    )]
    VocabularyTooLarge {
        /// Highest id of the tokenizer.
        highest: u32,
        /// Rows of the embedding.
        rows: usize,
    },
    /// No end-of-text token is known, so a completion could not end.
    #[error(
        "the tokenizer names no end-of-text token; prompt/completion rows need one (eos_token in tokenizer_config.json)"
    )]
    NoEndToken,
    /// `messages` rows but no template.
    #[error("{path} has `messages` rows but the model has no chat template; give one as data.chat_template")]
    NoChatTemplate {
        /// Data file.
        path: PathBuf,
    },
    /// The template does not compile.
    #[error("the chat template does not compile: {reason}")]
    BadTemplate {
        /// What minijinja said, with the line.
        reason: String,
    },
    /// The file holds no row.
    #[error("{path} holds no row")]
    EmptyFile {
        /// Data file.
        path: PathBuf,
    },
    /// One line cannot be used.
    #[error("{path}:{line}: {cause}")]
    Row {
        /// Data file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What is wrong with it.
        cause: RowError,
    },
    /// A conversation that is going on cannot be written.
    #[error("{cause}")]
    Conversation {
        /// Why.
        cause: RowError,
    },
    /// Rows beyond the sequence length under `data.too_long = "error"`.
    #[error(
        "{count} rows are longer than data.sequence_length = {limit} tokens (longest {longest}, first at {path}:{line}); \
         raise data.sequence_length, or set data.too_long to \"drop\" or \"truncate\""
    )]
    TooLong {
        /// Rows beyond the limit.
        count: usize,
        /// The limit.
        limit: usize,
        /// Tokens of the longest row.
        longest: usize,
        /// File of the first such row.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
    },
    /// Rows that gates refuse.
    #[error(transparent)]
    Refused(#[from] Box<Refused>),
    /// A file of rows.
    #[error(transparent)]
    File(#[from] FileError),
    /// The token cache.
    #[error(transparent)]
    CacheFolder(#[from] CacheError),
    /// What was kept beside the rows.
    #[error("the token cache: {reason}; remove the folder and prepare again")]
    Cache {
        /// What is wrong.
        reason: String,
    },
    /// Cleaning.
    #[error(transparent)]
    Clean(#[from] CleanError),
    /// The order of rows.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// Nothing but preference rows.
    #[error("all {rows} rows are preference rows: they are checked, but no method of this version trains on them")]
    OnlyPreferences {
        /// How many.
        rows: u64,
    },
    /// Nothing to learn from.
    #[error(
        "no token is left to train on: {read} rows read, {dropped} of them dropped for being longer than \
         data.sequence_length = {limit}"
    )]
    NothingToTrain {
        /// Rows in the files.
        read: usize,
        /// Rows dropped for their length.
        dropped: usize,
        /// The limit.
        limit: usize,
    },
    /// `data.template_date` is no day.
    #[error("data.template_date = {text:?} is not a day of the calendar; write it as YYYY-MM-DD")]
    TemplateDate {
        /// What the recipe says.
        text: String,
    },
    /// The recipe's template renders conversations otherwise than the model's own, which serving uses.
    #[error(
        "data.chat_template renders {differing} of {probes} probe conversations otherwise than the model's own template, \
         which serving uses (first difference at byte {at} of the {probe}); use data.chat_template = \"model\", or serve \
         with the recipe's template and set data.allow = [\"serving-template\"]"
    )]
    ServingTemplate {
        /// Probes that differ.
        differing: usize,
        /// Probes rendered.
        probes: usize,
        /// The first that differs.
        probe: &'static str,
        /// Where, in bytes of the rendered text.
        at: usize,
    },
}

impl DataError {
    /// Places a row's fault in its file.
    pub(crate) fn row(path: &std::path::Path, line: u64, cause: RowError) -> DataError {
        DataError::Row { path: path.to_path_buf(), line, cause }
    }

    /// A fault of the tokenizer at `place`.
    pub(crate) fn tokenizer(place: impl Into<String>, reason: impl ToString) -> DataError {
        DataError::Tokenizer { place: place.into(), reason: reason.to_string() }
    }
}
