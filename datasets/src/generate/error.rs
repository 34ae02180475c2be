//! Why rows could not be generated.
//!
//! In:    nothing.
//! Out:   [`GenerateError`]; one line each: what, where, the numbers, what to do.
//! Never: holds more than a bounded part of what a server said.

use std::path::{Path, PathBuf};

use offload::durable::DurableError;

/// Why a job ended without its rows. What the journal holds by then is kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// A setting outside its range.
    #[error("{name} is {value}, expected {expected}")]
    Setting {
        /// The option.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is possible.
        expected: String,
    },
    /// The address cannot be used as one.
    #[error("endpoint {address}: {reason}")]
    Address {
        /// As given.
        address: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The address lies outside this machine and its private network.
    #[error(
        "endpoint {address} is {ip}, which is not on this machine or a private network: your documents would leave it; \
         if that is meant, say --allow-remote"
    )]
    Remote {
        /// As given.
        address: String,
        /// What the name stands for.
        ip: String,
    },
    /// Nothing listens there.
    #[error(
        "nothing answers at {address}: {reason}; start the server first, for example `ollama serve`, \
         `llama-server -m MODEL.gguf --port 8080` or `vllm serve MODEL`"
    )]
    NotListening {
        /// The address.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The server refuses requests of this kind.
    #[error("{address} answers {status}: {message}{hint}")]
    Refused {
        /// The address.
        address: String,
        /// HTTP status.
        status: u16,
        /// The server's own words, cut.
        message: String,
        /// What to do, or nothing.
        hint: &'static str,
    },
    /// The server sends the request elsewhere.
    #[error("{address} redirects to {target}: only the given address is contacted; give that one if it is right")]
    Redirected {
        /// The address.
        address: String,
        /// Where to.
        target: String,
    },
    /// Chunk after chunk failed.
    #[error(
        "stopped after {failures} chunks failed in a row, the last ({chunk}): {reason}; what is done is kept, the same \
         command goes on from there"
    )]
    Failing {
        /// How many.
        failures: usize,
        /// Document and characters.
        chunk: String,
        /// Why the last one failed.
        reason: String,
    },
    /// A pattern, file or folder without a document.
    #[error("{pattern}: {reason}")]
    NoDocument {
        /// As given.
        pattern: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Not one document has text.
    #[error("none of {documents} documents could be used; the first: {first}")]
    NothingUsable {
        /// How many were tried.
        documents: usize,
        /// Path and reason of the first.
        first: String,
    },
    /// The rules left nothing.
    #[error("{chunks} chunks gave no row that passes the rules; see {rejects}", rejects = rejects.display())]
    NoRows {
        /// Chunks with a reply.
        chunks: usize,
        /// Where the rejected ones are.
        rejects: PathBuf,
    },
    /// A prompt file that cannot be used.
    #[error("{path}: {reason}", path = path.display())]
    Prompt {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Another process works on the same output.
    #[error("{path} is in use by another process; wait for it or choose another --output", path = path.display())]
    JournalInUse {
        /// The journal.
        path: PathBuf,
    },
    /// The output, the rejects or the journal could not be written.
    #[error(transparent)]
    Publish(#[from] DurableError),
}

impl GenerateError {
    /// Names the file; tells a full disk from other errors.
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> GenerateError {
        GenerateError::Publish(DurableError::io(action, path, source))
    }
}

/// At most `chars_max` characters of `text` on one line, without control characters.
pub(crate) fn short(text: &str, chars_max: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let clean: String = line.chars().filter(|c| !c.is_control()).collect();
    match clean.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}...", &clean[..end]),
        None => clean,
    }
}
