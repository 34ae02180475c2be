//! Writes GGUF version 3: header first, then tensors in order, piece by piece.
//!
//! In:    keys and values, the names, shapes and formats of all tensors, then their numbers as f32.
//! Out:   a file that is there whole or not at all.
//! Never: holds more than [`PIECE_ELEMENTS`](super::PIECE_ELEMENTS) encoded numbers.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::io::Write;
use std::path::{Path, PathBuf};

use offload::durable::{DurableError, publish_temporary};
use tempfile::NamedTempFile;

use super::PIECE_ELEMENTS;
use super::blocks::BlockType;

const VERSION: u32 = 3;
/// The format's default, so it need not be stated.
const ALIGNMENT: u64 = 32;

/// A metadata value to write; llama.cpp asks for exactly these widths.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// u32.
    U32(u32),
    /// u64.
    U64(u64),
    /// f32.
    F32(f32),
    /// bool.
    Bool(bool),
    /// UTF-8 string.
    Text(String),
    /// List of strings.
    Texts(Vec<String>),
    /// List of f32.
    F32s(Vec<f32>),
    /// List of i32.
    I32s(Vec<i32>),
    /// Type number and value as another file holds them ([`super::File::stored_entries`]).
    Stored(Vec<u8>),
}

/// A tensor to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTensor {
    /// GGUF name.
    pub name: String,
    /// Sizes, outermost first; the last one is a whole number of blocks.
    pub shape: Vec<usize>,
    /// Storage format.
    pub kind: BlockType,
}

impl NewTensor {
    /// How many numbers.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn bytes(&self) -> u64 {
        (self.elements() / self.kind.elements()) as u64 * self.kind.bytes() as u64
    }
}

/// A file being written.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    temporary: NamedTempFile,
    tensors: Vec<NewTensor>,
    /// The tensor that is being written.
    current: usize,
    /// Its numbers written so far.
    filled: usize,
    bytes: u64,
    piece: Vec<u8>,
}

impl Writer {
    /// Writes the header. Every tensor must then be given to [`Writer::append`], in this order.
    ///
    /// # Panics
    /// If a row is no whole number of blocks: the mix of formats sees to that.
    pub fn create(path: &Path, entries: &[(String, Entry)], tensors: Vec<NewTensor>) -> Result<Writer, DurableError> {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(folder).map_err(|error| DurableError::io("create", folder, error))?;
        let temporary = tempfile::Builder::new()
            .prefix(".publish-")
            .suffix(".tmp")
            .tempfile_in(folder)
            .map_err(|error| DurableError::io("create a file in", folder, error))?;
        let mut writer =
            Writer { path: path.to_path_buf(), temporary, tensors, current: 0, filled: 0, bytes: 0, piece: Vec::new() };
        writer.put(&header(entries, &writer.tensors))?;
        writer.pad()?;
        Ok(writer)
    }

    /// The tensor whose numbers come next; `None` after the last.
    pub fn next_tensor(&self) -> Option<&NewTensor> {
        self.tensors.get(self.current)
    }

    /// Encodes and writes the next numbers of the current tensor: whole blocks, not beyond its end.
    ///
    /// # Panics
    /// If `values` reaches beyond the tensor or cuts a block: the caller knows the shape.
    pub fn append(&mut self, values: &[f32]) -> Result<(), DurableError> {
        let tensor = &self.tensors[self.current];
        let (kind, elements) = (tensor.kind, tensor.elements());
        assert!(self.filled + values.len() <= elements, "`{}` has {elements} numbers, more were given", tensor.name);
        let mut piece = std::mem::take(&mut self.piece);
        for values in values.chunks(PIECE_ELEMENTS) {
            piece.resize(values.len() / kind.elements() * kind.bytes(), 0);
            kind.encode_into(values, &mut piece);
            self.put(&piece)?;
        }
        self.piece = piece;
        self.filled += values.len();
        if self.filled == elements {
            (self.current, self.filled) = (self.current + 1, 0);
            self.pad()?;
        }
        Ok(())
    }

    /// Syncs the file, publishes it, and tells its size.
    ///
    /// # Panics
    /// If a tensor is missing or unfinished.
    pub fn finish(self) -> Result<u64, DurableError> {
        assert!(self.current == self.tensors.len(), "tensor {} of {} is not written", self.current, self.tensors.len());
        let synced = self.temporary.as_file().sync_all();
        synced.map_err(|error| DurableError::io("sync", &self.path, error))?;
        publish_temporary(self.temporary, &self.path)?;
        Ok(self.bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), DurableError> {
        let written = self.temporary.as_file_mut().write_all(bytes);
        written.map_err(|error| DurableError::io("write", &self.path, error))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self) -> Result<(), DurableError> {
        let missing = self.bytes.next_multiple_of(ALIGNMENT) - self.bytes;
        self.put(&[0; ALIGNMENT as usize][..missing as usize])
    }
}

fn header(entries: &[(String, Entry)], tensors: &[NewTensor]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((entries.len() as u64).to_le_bytes());
    for (key, entry) in entries {
        put_text(&mut out, key);
        put_entry(&mut out, entry);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        let row = tensor.shape.last().copied().unwrap_or(0);
        let whole = row != 0 && row.is_multiple_of(tensor.kind.elements());
        assert!(whole, "a row of `{}` ({row} numbers) is no whole number of {:?} blocks", tensor.name, tensor.kind);
        put_text(&mut out, &tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|&size| out.extend((size as u64).to_le_bytes()));
        out.extend(tensor.kind.code().to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    out
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    let kind: u32 = match entry {
        Entry::U32(_) => 4,
        Entry::F32(_) => 6,
        Entry::Bool(_) => 7,
        Entry::Text(_) => 8,
        Entry::Texts(_) | Entry::F32s(_) | Entry::I32s(_) => 9,
        Entry::U64(_) => 10,
        Entry::Stored(bytes) => return out.extend(bytes),
    };
    out.extend(kind.to_le_bytes());
    let list = |out: &mut Vec<u8>, kind: u32, count: usize| {
        out.extend(kind.to_le_bytes());
        out.extend((count as u64).to_le_bytes());
    };
    match entry {
        Entry::U32(value) => out.extend(value.to_le_bytes()),
        Entry::U64(value) => out.extend(value.to_le_bytes()),
        Entry::F32(value) => out.extend(value.to_le_bytes()),
        Entry::Bool(value) => out.push(u8::from(*value)),
        Entry::Text(text) => put_text(out, text),
        Entry::Texts(texts) => {
            list(out, 8, texts.len());
            texts.iter().for_each(|text| put_text(out, text));
        }
        Entry::F32s(values) => {
            list(out, 6, values.len());
            values.iter().for_each(|value| out.extend(value.to_le_bytes()));
        }
        Entry::I32s(values) => {
            list(out, 5, values.len());
            values.iter().for_each(|value| out.extend(value.to_le_bytes()));
        }
        Entry::Stored(_) => unreachable!("returned above"),
    }
}
