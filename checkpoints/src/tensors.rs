//! Named f32 tensors in safetensors files: how this program writes them, and how it reads anyone's.
//!
//! In:    slices to write; files to read (f32, f16 or bf16).
//! Out:   a synced file; tensors as f32.
//! Never: trusts a header: the `safetensors` crate checks it against the file before any tensor is read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use offload::map::{MapError, MappedFile, map_file};
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors};

use crate::stream::{Format, PIECE_BYTES, write_streamed};
use offload::durable::DurableError;

/// A tensor in host memory, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// The numbers.
    pub data: Vec<f32>,
}

/// A tensor to write; the numbers stay where they are.
#[derive(Debug, Clone)]
pub struct NamedTensor<'a> {
    /// Name in the file.
    pub name: String,
    /// Sizes, outermost first; their product is `data.len()`.
    pub shape: Vec<usize>,
    /// The numbers, row-major.
    pub data: &'a [f32],
}

/// Why a safetensors file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorsError {
    /// The system refuses the file.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The header is damaged, or announces other bytes than the file has.
    #[error("{path}: not a usable safetensors file of {bytes} bytes: {reason} (truncated download, or the header lies)", path = path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// What the header check found.
        reason: String,
    },
    /// A tensor in a format other than f32, f16 and bf16.
    #[error("{path}: tensor `{name}` is stored as {found}; supported are F32, F16, BF16", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its format.
        found: String,
    },
    /// A tensor that the file does not hold.
    #[error("{path}: tensor `{name}` is missing", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
}

/// An open safetensors file with a checked header.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: MappedFile,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    extent: Range<usize>,
}

impl TensorFile {
    /// Maps the file and checks its header.
    pub fn open(path: &Path) -> Result<TensorFile, TensorsError> {
        let map = map_file(path)?;
        let lie = |error: SafeTensorError| TensorsError::Header {
            path: path.to_path_buf(),
            bytes: map.len() as u64,
            reason: error.to_string(),
        };
        // `deserialize` checks that extents are contiguous, cover the file, and agree with shapes; the first 8 bytes exist after it.
        let (header_bytes, metadata) = SafeTensors::read_metadata(&map).map_err(lie)?;
        SafeTensors::deserialize(&map).map_err(lie)?;
        let data = header_bytes + 8;
        let mut entries = BTreeMap::new();
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let extent = data + start..data + end;
            entries.insert(name, Entry { dtype: info.dtype, shape: info.shape.clone(), extent });
        }
        Ok(TensorFile { path: path.to_path_buf(), map, entries })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names and shapes.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry.shape.as_slice()))
    }

    /// A tensor's shape, if the file holds it.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// A tensor's number format, if the file holds it in one that is written here.
    pub fn format(&self, name: &str) -> Option<Format> {
        self.entries.get(name).and_then(|entry| Format::of(entry.dtype))
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
        self.entries.values().map(|entry| entry.extent.start).min().unwrap_or(self.map.len())
    }

    /// Refuses a tensor whose format is not read.
    pub(crate) fn check_format(&self, name: &str) -> Result<(), TensorsError> {
        match self.entry(name)?.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(()),
            other => {
                let found = format!("{other:?}");
                Err(TensorsError::Format { path: self.path.clone(), name: name.to_string(), found })
            }
        }
    }

    /// A tensor's numbers as f32.
    pub fn read(&self, name: &str) -> Result<HostTensor, TensorsError> {
        self.check_format(name)?;
        let entry = self.entry(name)?;
        let mut data = Vec::with_capacity(entry.shape.iter().product());
        for start in entry.extent.clone().step_by(PIECE_BYTES) {
            let piece = start..(start + PIECE_BYTES).min(entry.extent.end);
            let bytes = &self.map[piece.clone()];
            match entry.dtype {
                Dtype::F32 => data.extend(bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word))),
                Dtype::F16 => data.extend(bytes.as_chunks().0.iter().map(|&word| f16::from_le_bytes(word).to_f32())),
                _ => data.extend(bytes.as_chunks().0.iter().map(|&word| bf16::from_le_bytes(word).to_f32())),
            }
            // From the tensor's start: a page that two pieces share goes with the second.
            self.map.forget(entry.extent.start..piece.end);
        }
        Ok(HostTensor { shape: entry.shape.clone(), data })
    }

    /// A tensor's bytes as they stand in the file, whatever their format.
    pub fn bytes_of(&self, name: &str) -> Result<&[u8], TensorsError> {
        Ok(&self.map[self.entry(name)?.extent.clone()])
    }

    /// Gives the memory of a tensor's bytes back; they are read from the file again when they are asked for.
    pub fn forget(&self, name: &str) {
        if let Ok(entry) = self.entry(name) {
            self.map.forget(entry.extent.clone());
        }
    }

    fn entry(&self, name: &str) -> Result<&Entry, TensorsError> {
        let missing = || TensorsError::Missing { path: self.path.clone(), name: name.to_string() };
        self.entries.get(name).ok_or_else(missing)
    }
}

/// Writes `tensors` as f32 into a new file and syncs it. The caller publishes the file.
///
/// # Panics
/// If a shape disagrees with its data: that is our bug.
pub(crate) fn write_synced(path: &Path, tensors: &[NamedTensor]) -> Result<(), DurableError> {
    let streamed = tensors.iter().cloned().map(Into::into).collect();
    write_streamed(path, streamed).map(|_| ())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use safetensors::tensor::{TensorView, serialize};

    #[test]
    fn tensors_come_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let values = [1.0f32, -0.0, f32::MIN_POSITIVE / 2.0, f32::MAX, 3.0000002, 1e-30];
        write_synced(&path, &[NamedTensor { name: "x".into(), shape: vec![2, 3], data: &values }]).unwrap();
        let read = TensorFile::open(&path).unwrap().read("x").unwrap();
        assert_eq!(read.shape, [2, 3]);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&read.data), bits(&values));
    }

    #[test]
    fn half_formats_are_widened_exactly_and_integers_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let half: Vec<u8> = [1.5f32, -2.25].iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
        let brain: Vec<u8> = [1.5f32, -256.0].iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
        let views = [
            ("f16", TensorView::new(Dtype::F16, vec![2], &half).unwrap()),
            ("bf16", TensorView::new(Dtype::BF16, vec![2], &brain).unwrap()),
            ("i16", TensorView::new(Dtype::I16, vec![2], &half).unwrap()),
        ];
        std::fs::write(&path, serialize(views, None).unwrap()).unwrap();
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.read("f16").unwrap().data, [1.5, -2.25]);
        assert_eq!(file.read("bf16").unwrap().data, [1.5, -256.0]);
        assert!(file.read("i16").unwrap_err().to_string().contains("I16"));
        assert!(file.read("none").unwrap_err().to_string().contains("`none` is missing"));
    }

    #[test]
    fn a_file_shorter_or_other_than_its_header_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        write_synced(&path, &[NamedTensor { name: "x".into(), shape: vec![4], data: &[1.0; 4] }]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(
                matches!(TensorFile::open(&path), Err(TensorsError::Header { .. })),
                "{length} bytes were accepted"
            );
        }
        let text = String::from_utf8_lossy(&bytes).replace("[4]", "[5]");
        std::fs::write(&path, text.as_bytes()).unwrap();
        assert!(matches!(TensorFile::open(&path), Err(TensorsError::Header { .. })));
    }
}
