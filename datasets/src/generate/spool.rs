//! The chunks of all documents, on disk while a job runs.
//!
//! In:    documents, read one at a time.
//! Out:   the same chunks, in the same order, as often as they are read.
//! Never: holds more than one document in memory; leaves a file behind.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::chunks::{self, Chunk};
use super::documents::{self, Skipped};
use super::error::GenerateError;
use super::job::{Event, Input};

/// Letters and digits below which a chunk is not asked about: a lone heading, a page number.
const LETTERS_MIN: usize = 40;

/// What reading the documents gave.
pub(crate) struct Spooled {
    pub(crate) spool: Spool,
    /// Documents with text.
    pub(crate) documents: usize,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) chunks_short: usize,
}

/// Chunks in an unnamed file.
pub(crate) struct Spool {
    file: File,
    folder: PathBuf,
    chunks: usize,
}

impl Spool {
    /// Reads and cuts all documents of `input`; the file lies on the disk of `output`.
    pub(crate) fn fill(input: &Input, output: &Path, progress: &dyn Fn(Event)) -> Result<Spooled, GenerateError> {
        let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|error| GenerateError::io("create", folder, error))?;
        let failed = |error| GenerateError::io("write chunks in", folder, error);
        let paths = documents::list(&input.documents)?;
        let file = tempfile::tempfile_in(folder).map_err(failed)?;
        let mut writer = BufWriter::new(&file);
        let (mut chunks, mut documents, mut chunks_short, mut skipped) = (0, 0, 0, Vec::new());
        let chunks_max = input.chunks_max.unwrap_or(usize::MAX);
        for path in &paths {
            if chunks >= chunks_max {
                break;
            }
            let document = match documents::read(path) {
                Ok(document) => document,
                Err(reason) => {
                    progress(Event::Skipped(reason.clone()));
                    skipped.push(reason);
                    continue;
                }
            };
            documents += 1;
            let (long, short): (Vec<Chunk>, Vec<Chunk>) =
                chunks::cut(&document, input.chunking).into_iter().partition(has_letters);
            chunks_short += short.len();
            for chunk in long.iter().take(chunks_max - chunks) {
                serde_json::to_writer(&mut writer, chunk).map_err(|error| failed(error.into()))?;
                writer.write_all(b"\n").map_err(failed)?;
                chunks += 1;
            }
        }
        writer.flush().map_err(failed)?;
        drop(writer);
        if documents == 0 {
            let first = skipped.first().map(|skipped| format!("{}: {}", skipped.path.display(), skipped.reason));
            return Err(GenerateError::NothingUsable { documents: paths.len(), first: first.unwrap_or_default() });
        }
        Ok(Spooled { spool: Spool { file, folder: folder.to_path_buf(), chunks }, documents, skipped, chunks_short })
    }

    /// How many chunks there are.
    pub(crate) fn chunks(&self) -> usize {
        self.chunks
    }

    /// All chunks from the beginning. Only one reader at a time: they share the file's position.
    pub(crate) fn read(&self) -> Result<impl Iterator<Item = Result<Chunk, GenerateError>>, GenerateError> {
        let failed = |error| GenerateError::io("read chunks in", &self.folder, error);
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let lines = BufReader::new(file).lines();
        Ok(lines.map(move |line| {
            let line = line.map_err(failed)?;
            serde_json::from_str(&line).map_err(|error| failed(error.into()))
        }))
    }
}

fn has_letters(chunk: &Chunk) -> bool {
    chunk.text.chars().filter(|c| c.is_alphanumeric()).nth(LETTERS_MIN - 1).is_some()
}
