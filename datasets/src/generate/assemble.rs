//! Makes rows of the replies.
//!
//! In:    spooled chunks and the journal.
//! Out:   the output and the rejects, each published whole, in the order of the chunks.
//! Never: depends on the order in which replies came.

use std::io::{BufWriter, Write};
use std::path::Path;

use offload::durable::publish_temporary;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::chunks::Chunk;
use super::documents::normalise;
use super::error::{GenerateError, short};
use super::job::{Job, RowShape, Summary};
use super::journal::{Journal, key};
use super::questions::Questions;
use super::rejects_path;
use super::reply::{self, Candidate};
use super::rules::Words;
use super::spool::Spool;

/// Characters kept of a reply without JSON.
const REPLY_CHARACTERS: usize = 2_000;

/// JSON lines on their way to a file.
struct Lines<'a> {
    path: &'a Path,
    writer: BufWriter<NamedTempFile>,
}

/// Writes output and rejects, and counts.
pub(crate) fn publish(
    job: &Job,
    spool: &Spool,
    journal: &mut Journal,
    summary: &mut Summary,
) -> Result<(), GenerateError> {
    let rejects_file = rejects_path(&job.output);
    let mut rows = Lines::begin(&job.output)?;
    let mut rejects = Lines::begin(&rejects_file)?;
    let mut questions = Questions::new(job.rules.near_min);
    let mut counted = std::collections::HashSet::new();
    for chunk in spool.read()? {
        let chunk = chunk?;
        let key = key(&job.asking, &chunk);
        let Some(entry) = journal.get(&key)? else { continue };
        if counted.insert(key) {
            summary.prompt_tokens += entry.prompt_tokens;
            summary.reply_tokens += entry.reply_tokens;
        }
        let Some(candidates) = reply::candidates(&entry.reply) else {
            let said = json!({"reply": short(&entry.reply, REPLY_CHARACTERS)});
            reject(job, "no JSON in the reply", said, &chunk, &mut rejects, summary)?;
            continue;
        };
        summary.chunks_empty += usize::from(candidates.is_empty());
        let words = Words::of(&format!("{}\n{}", chunk.title, chunk.text));
        for candidate in candidates {
            match judge(job, candidate, &words, &mut questions) {
                Ok((question, answer)) => {
                    rows.push(&row(job, &question, &answer, &chunk))?;
                    summary.rows += 1;
                }
                Err((reason, said)) => reject(job, reason, said, &chunk, &mut rejects, summary)?,
            }
        }
    }
    rejects.publish()?;
    if summary.rows == 0 {
        return Err(GenerateError::NoRows { chunks: summary.chunks_done, rejects: rejects_file });
    }
    rows.publish()
}

/// The pair as it is written, or the reason and what was said.
fn judge(
    job: &Job,
    candidate: Candidate,
    chunk: &Words,
    questions: &mut Questions,
) -> Result<(String, String), (&'static str, Value)> {
    let (question, answer) = match candidate {
        Candidate::Pair { question, answer } => (normalise(question.trim()), normalise(answer.trim())),
        Candidate::Other(text) => {
            return Err(("not a question with an answer", json!({"pair": short(&text, REPLY_CHARACTERS)})));
        }
    };
    let refused = job.rules.refuse(&question, &answer, chunk).or_else(|| questions.keep(&question).err());
    match refused {
        Some(reason) => Err((reason, json!({"question": question, "answer": answer}))),
        None => Ok((question, answer)),
    }
}

fn row(job: &Job, question: &str, answer: &str, chunk: &Chunk) -> Value {
    let source = source(job, chunk);
    match job.row_shape {
        RowShape::QuestionAnswer => json!({"question": question, "answer": answer, "source": source}),
        RowShape::Messages => json!({
            "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            "source": source,
        }),
    }
}

fn source(job: &Job, chunk: &Chunk) -> Value {
    let mut source = json!({"document": chunk.document, "title": chunk.title, "headings": chunk.headings});
    source["characters"] = json!(chunk.characters);
    if let Some(pages) = chunk.pages {
        source["pages"] = json!(pages);
    }
    source["model"] = json!(job.asking.model);
    source
}

fn reject(
    job: &Job,
    reason: &'static str,
    mut said: Value,
    chunk: &Chunk,
    rejects: &mut Lines,
    summary: &mut Summary,
) -> Result<(), GenerateError> {
    *summary.rejected.entry(reason).or_default() += 1;
    said["reason"] = json!(reason);
    said["source"] = source(job, chunk);
    rejects.push(&said)
}

impl<'a> Lines<'a> {
    fn begin(path: &'a Path) -> Result<Lines<'a>, GenerateError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let temporary = tempfile::Builder::new().prefix(".publish-").suffix(".tmp").tempfile_in(folder);
        let temporary = temporary.map_err(|error| GenerateError::io("create a file in", folder, error))?;
        Ok(Lines { path, writer: BufWriter::new(temporary) })
    }

    fn push(&mut self, value: &Value) -> Result<(), GenerateError> {
        writeln!(self.writer, "{value}").map_err(|error| GenerateError::io("write", self.path, error))
    }

    fn publish(self) -> Result<(), GenerateError> {
        let failed = |error| GenerateError::io("write", self.path, error);
        let temporary = self.writer.into_inner().map_err(|error| failed(error.into_error()))?;
        temporary.as_file().sync_all().map_err(failed)?;
        Ok(publish_temporary(temporary, self.path)?)
    }
}
