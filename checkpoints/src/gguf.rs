//! Reads GGUF model files (versions 2 and 3, little-endian), which may be hostile, and writes them ([`Writer`]).
//!
//! In:    a path, or the bytes of a file; metadata and tensors to write.
//! Out:   typed metadata and tensors decoded to f32; a published file.
//! Never: allocates by a count, or slices by an offset, that was not checked against the bytes at hand.

mod blocks;
mod cursor;
mod encode;
mod header;
mod k_quants;
mod metadata;
mod mix;
#[cfg(test)]
pub(crate) mod tests;
mod write;
#[cfg(test)]
mod write_tests;

use std::path::{Path, PathBuf};

use offload::map::{MapError, MappedFile, map_file};

pub use blocks::BlockType;
pub use header::{Header, TensorInfo};
pub use metadata::{Array, Metadata, Value};
pub use mix::{Choice, Mix, MixNetwork};
pub use write::{Entry, NewTensor, Writer};

/// What is wrong with a GGUF file. The file's name stands in [`FileError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: it starts with {found:02x?} instead of \"GGUF\"")]
    Magic {
        /// The first bytes.
        found: Vec<u8>,
    },
    /// A version other than 2 and 3.
    #[error("GGUF version {found} is not supported (2 and 3 are){hint}")]
    Version {
        /// The version stated.
        found: u32,
        /// What it may be instead.
        hint: &'static str,
    },
    /// The file ends before what its header announces.
    #[error(
        "the file is truncated or lies: {what} needs {needed} bytes at offset {offset}, the file has {available} there"
    )]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where.
        offset: u64,
        /// Bytes announced.
        needed: u64,
        /// Bytes there are.
        available: u64,
    },
    /// A string that is not UTF-8.
    #[error("{what} at offset {offset} is not valid UTF-8")]
    Utf8 {
        /// What was being read.
        what: &'static str,
        /// Where.
        offset: u64,
    },
    /// A metadata value type outside the format.
    #[error("metadata key `{key}` has value type {found}, which GGUF does not define or this reader does not take")]
    ValueType {
        /// The key.
        key: String,
        /// The type number stated.
        found: u32,
    },
    /// A key or tensor name that stands twice.
    #[error("`{name}` stands twice in the header")]
    Duplicate {
        /// The key or tensor.
        name: String,
    },
    /// `general.alignment` is unusable.
    #[error("general.alignment is {found}; it must be a power of two from 8 to 65536")]
    Alignment {
        /// The value stated.
        found: u64,
    },
    /// A tensor whose shape cannot be.
    #[error("tensor `{name}` has an impossible shape {dimensions:?}: {rule}")]
    Shape {
        /// The tensor.
        name: String,
        /// Dimensions as stated, innermost first.
        dimensions: Vec<u64>,
        /// What must hold.
        rule: &'static str,
    },
    /// A tensor stored in a block format that this reader does not decode.
    #[error("tensor `{name}` is stored as {found}; supported are {}", blocks::SUPPORTED)]
    BlockType {
        /// The tensor.
        name: String,
        /// Name or number of the format.
        found: String,
    },
    /// A tensor whose data does not start where data may start.
    #[error("tensor `{name}` starts at offset {offset}, which is not a multiple of the alignment {alignment}")]
    Misaligned {
        /// The tensor.
        name: String,
        /// Offset stated, within the data part.
        offset: u64,
        /// Alignment of the file.
        alignment: u64,
    },
    /// A tensor whose data reaches beyond the file.
    #[error(
        "tensor `{name}` needs bytes {start}..{end} of the file, which has {length}: truncated download, or the header lies"
    )]
    PastEnd {
        /// The tensor.
        name: String,
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
        /// Bytes of the file.
        length: u64,
    },
    /// Two tensors share bytes.
    #[error("tensors `{first}` and `{second}` overlap in the file")]
    Overlap {
        /// The one that starts first.
        first: String,
        /// The other.
        second: String,
    },
    /// A metadata value of another type than asked for.
    #[error("metadata key `{key}` must be {expected}, found {found}")]
    WrongType {
        /// The key.
        key: String,
        /// The type asked for.
        expected: &'static str,
        /// The type found.
        found: &'static str,
    },
    /// A tensor that the file does not hold.
    #[error("tensor `{name}` is not in the file, which holds {count} tensors")]
    NoTensor {
        /// The tensor.
        name: String,
        /// Number of tensors there are.
        count: usize,
    },
}

/// A [`GgufError`] with the file it is about, or the reason why the file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refuses the file.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The file is damaged, hostile or unsupported.
    #[error("{path}: {source}", path = path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: GgufError,
    },
}

/// Numbers decoded before the pages they stood on are forgotten; whole blocks of every format.
const PIECE_ELEMENTS: usize = 1 << 22;

/// An open GGUF file: a checked header over a memory map.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    map: MappedFile,
    header: Header,
}

impl File {
    /// Maps the file and checks its whole header, tensor extents included.
    pub fn open(path: &Path) -> Result<File, FileError> {
        let map = map_file(path)?;
        let header = Header::parse(&map).map_err(|source| FileError::Gguf { path: path.to_path_buf(), source })?;
        Ok(File { path: path.to_path_buf(), map, header })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file.
    pub fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    pub(crate) fn map(&self) -> &MappedFile {
        &self.map
    }

    /// Where the numbers begin.
    pub(crate) fn header_bytes(&self) -> usize {
        self.tensors().iter().map(|info| info.extent.start).min().unwrap_or(self.map.len())
    }

    /// Key/values.
    pub fn metadata(&self) -> &Metadata {
        &self.header.metadata
    }

    /// Every tensor, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.header.tensors
    }

    /// One tensor's description, by its GGUF name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.header.tensor(name)
    }

    /// Keys and values as they stand, in the order of the file, to be carried over into another one.
    pub fn stored_entries(&self) -> Vec<(&str, Entry)> {
        let places = self.header.metadata.places();
        places.into_iter().map(|(key, place)| (key, Entry::Stored(self.map[place].to_vec()))).collect()
    }

    /// A tensor's numbers, row-major, by its GGUF name.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, FileError> {
        let info = self.tensor(name).ok_or_else(|| FileError::Gguf {
            path: self.path.clone(),
            source: GgufError::NoTensor { name: name.to_string(), count: self.tensors().len() },
        })?;
        let mut values = vec![0.0f32; info.shape.iter().product()];
        let mut from = info.extent.start;
        for values in values.chunks_mut(PIECE_ELEMENTS) {
            let end = from + values.len() / info.kind.elements() * info.kind.bytes();
            info.kind.decode_into(&self.map[from..end], values);
            self.map.forget(info.extent.start..end);
            from = end;
        }
        Ok(values)
    }
}
