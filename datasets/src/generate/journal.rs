//! What the server answered, one line a chunk, kept as it comes.
//!
//! In:    replies.
//! Out:   the same replies in a later run. A line is on the disk before its chunk counts as done.
//! Never: trusts a line without its end: a torn one is cut off, its chunk is asked for again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use offload::durable::sync_folder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::chunks::Chunk;
use super::error::GenerateError;
use super::job::{Asking, Start};

/// SHA-256 of everything that decides a reply.
pub(crate) type Key = [u8; 32];
/// Format of a line.
const VERSION: u32 = 1;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    version: u32,
    /// Hexadecimal.
    key: String,
    /// The model's words, unparsed: rules and parser may change without asking again.
    pub(crate) reply: String,
    pub(crate) prompt_tokens: u64,
    pub(crate) reply_tokens: u64,
}

impl Entry {
    pub(crate) fn new(key: &Key, reply: String, prompt_tokens: u64, reply_tokens: u64) -> Entry {
        Entry { version: VERSION, key: hexadecimal(key), reply, prompt_tokens, reply_tokens }
    }
}

/// The key of `chunk`: its prompts, the model and the settings; not the server's address and not the document's path.
pub(crate) fn key(asking: &Asking, chunk: &Chunk) -> Key {
    let (system, user) = asking.render(chunk);
    let mut hash = Sha256::new();
    let numbers = format!("{} {} {}", asking.temperature, asking.seed, asking.reply_tokens_max);
    for part in [asking.model.as_str(), &system, &user, &numbers] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

/// An open journal; locked until it is dropped.
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    /// Where each key's line begins and how long it is, in bytes.
    lines: HashMap<String, (u64, u64)>,
    end: u64,
    lines_dropped: usize,
}

impl Journal {
    /// Opens or creates the journal at `path` and cuts off a torn end.
    pub(crate) fn open(path: &Path, start: Start) -> Result<Journal, GenerateError> {
        let failed = |error| GenerateError::io("open", path, error);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(failed)?;
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = opened.map_err(failed)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => GenerateError::JournalInUse { path: path.to_path_buf() },
            TryLockError::Error(error) => GenerateError::io("lock", path, error),
        })?;
        if start == Start::Anew {
            file.set_len(0).map_err(failed)?;
        }
        let mut journal = Journal { file, path: path.to_path_buf(), lines: HashMap::new(), end: 0, lines_dropped: 0 };
        journal.index().map_err(failed)?;
        journal.file.set_len(journal.end).and_then(|()| journal.file.sync_all()).map_err(failed)?;
        sync_folder(folder)?;
        Ok(journal)
    }

    fn index(&mut self) -> std::io::Result<()> {
        let mut reader = BufReader::new(&self.file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let bytes = reader.read_until(b'\n', &mut line)? as u64;
            if bytes == 0 {
                return Ok(());
            }
            if line.last() != Some(&b'\n') {
                self.lines_dropped += 1;
                return Ok(());
            }
            match serde_json::from_slice::<Entry>(&line).ok().filter(|entry| entry.version == VERSION) {
                // The first reply of a key stays, so that a later run assembles what an earlier one did.
                Some(entry) => _ = self.lines.entry(entry.key).or_insert((self.end, bytes)),
                None => self.lines_dropped += 1,
            }
            self.end += bytes;
        }
    }

    /// Lines that could not be used.
    pub(crate) fn lines_dropped(&self) -> usize {
        self.lines_dropped
    }

    /// Whether `key` has its reply.
    pub(crate) fn holds(&self, key: &Key) -> bool {
        self.lines.contains_key(&hexadecimal(key))
    }

    /// Writes `entry` and waits until the disk has it.
    pub(crate) fn append(&mut self, entry: &Entry) -> Result<(), GenerateError> {
        let failed = |error| GenerateError::io("write", &self.path, error);
        let mut line = serde_json::to_vec(entry).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        self.file.seek(SeekFrom::Start(self.end)).map_err(failed)?;
        self.file.write_all(&line).and_then(|()| self.file.sync_data()).map_err(failed)?;
        self.lines.entry(entry.key.clone()).or_insert((self.end, line.len() as u64));
        self.end += line.len() as u64;
        Ok(())
    }

    /// The reply to `key`.
    pub(crate) fn get(&mut self, key: &Key) -> Result<Option<Entry>, GenerateError> {
        let Some(&(begin, bytes)) = self.lines.get(&hexadecimal(key)) else { return Ok(None) };
        let failed = |error| GenerateError::io("read", &self.path, error);
        self.file.seek(SeekFrom::Start(begin)).map_err(failed)?;
        let mut line = Vec::new();
        (&self.file).take(bytes).read_to_end(&mut line).map_err(failed)?;
        serde_json::from_slice(&line).map(Some).map_err(|error| failed(error.into()))
    }
}

fn hexadecimal(key: &Key) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}
