//! Question and answer rows from the user's own documents, through a model server that speaks OpenAI's protocol.
//!
//! In:    a [`Job`]: documents, prompts, the server's address, rules; a stop flag.
//! Out:   a JSONL file of rows with their provenance, a file of rejected ones, a journal that lets a stopped job go on; a [`Summary`].
//! Never: contacts an address other than the given one, reads the environment, prints, publishes half a file.
//!
//! The steps: documents are read and cut into chunks (spooled to disk, so memory holds one document); every chunk that the
//! journal does not hold is asked for; then the rows are assembled from the journal in the order of the chunks. The output
//! is therefore a function of documents, settings and replies, not of which reply came first.

mod address;
mod ask;
mod assemble;
mod chunks;
mod client;
mod documents;
mod error;
mod html;
mod job;
mod journal;
mod pdf;
mod prompts;
mod questions;
mod reply;
mod rules;
mod spool;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_documents;
#[cfg(test)]
mod tests_server;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

pub use address::{Address, Reach};
pub use chunks::Chunk;
pub use documents::Skipped;
pub use error::GenerateError;
pub use job::{Asking, Chunking, Event, Input, Job, Limits, Preview, RowShape, Start, Summary};
pub use pdf::PDF_THREAD;
pub use prompts::Prompts;
pub use rules::Rules;

use spool::Spool;

/// The journal of `output`: `rows.jsonl.journal`. It does not end in `.jsonl`, so that no glob takes it for rows.
pub fn journal_path(output: &Path) -> PathBuf {
    with_suffix(output, ".journal")
}

/// The rejected rows of `output`: `rows.jsonl.rejects`, JSON lines.
pub fn rejects_path(output: &Path) -> PathBuf {
    with_suffix(output, ".rejects")
}

/// Makes the rows. When `stop` becomes true, requests under way are finished and kept, the output is left as it was, and the
/// summary says [`Summary::stopped`]; the same job started again asks only for what is missing.
pub fn generate(job: &Job, stop: &AtomicBool, progress: &(dyn Fn(Event) + Sync)) -> Result<Summary, GenerateError> {
    let started = std::time::Instant::now();
    job.check()?;
    let mut journal = journal::Journal::open(&journal_path(&job.output), job.start)?;
    let spooled = Spool::fill(&job.input, &job.output, progress)?;
    let mut summary = Summary { documents: spooled.documents, chunks: spooled.spool.chunks(), ..Summary::default() };
    summary.skipped = spooled.skipped;
    summary.chunks_short = spooled.chunks_short;
    summary.journal_lines_dropped = journal.lines_dropped();
    ask::ask_all(job, &spooled.spool, &mut journal, stop, progress, &mut summary)?;
    if stop.load(Ordering::SeqCst) && summary.chunks_done < summary.chunks {
        summary.stopped = true;
    } else {
        assemble::publish(job, &spooled.spool, &mut journal, &mut summary)?;
    }
    summary.seconds = started.elapsed().as_secs_f64();
    Ok(summary)
}

/// What would be asked; contacts nothing and writes nothing that stays.
pub fn preview(input: &Input, asking: &Asking) -> Result<Preview, GenerateError> {
    input.check()?;
    let spooled = Spool::fill(input, &std::env::temp_dir().join("rows"), &|_| ())?;
    let mut preview = Preview {
        documents: spooled.documents,
        skipped: spooled.skipped,
        chunks_short: spooled.chunks_short,
        chunks: Vec::new(),
        first_system: String::new(),
        first_user: String::new(),
    };
    for chunk in spooled.spool.read()? {
        let mut chunk = chunk?;
        if preview.chunks.is_empty() {
            (preview.first_system, preview.first_user) = asking.render(&chunk);
        }
        chunk.text = chunk.text.chars().take(60).collect();
        preview.chunks.push(chunk);
    }
    Ok(preview)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}
