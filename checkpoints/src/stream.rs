//! Writing safetensors files whose tensors are larger than memory allows to hold.
//!
//! In:    names, shapes and formats, and for each tensor a function that fills in its bytes piece by piece.
//! Out:   a synced file, its size and its SHA-256, computed on a thread of its own while the next bytes are fetched and written.
//! Never: holds more than a few pieces of [`PIECE_BYTES`]. The header is the `safetensors` crate's own.

use std::collections::HashMap;
use std::path::Path;

mod hashed;

use self::hashed::HashedFile;
use crate::tensors::NamedTensor;
use offload::durable::DurableError;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

/// Bytes asked of a tensor at once.
pub const PIECE_BYTES: usize = 1 << 20;

/// Number format of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 32-bit IEEE float.
    F32,
    /// bfloat16.
    Bf16,
    /// 16-bit IEEE float; nothing beyond 65504.
    F16,
    /// Bytes: codes of a quantised state.
    U8,
}

impl Format {
    /// Bytes of one number.
    pub fn bytes(self) -> u64 {
        match self {
            Format::F32 => 4,
            Format::Bf16 | Format::F16 => 2,
            Format::U8 => 1,
        }
    }

    /// As configuration files and command lines write it.
    pub fn name(self) -> &'static str {
        match self {
            Format::F32 => "f32",
            Format::Bf16 => "bf16",
            Format::F16 => "f16",
            Format::U8 => "u8",
        }
    }

    /// The format of a stored tensor, if it is one of these.
    pub(crate) fn of(dtype: Dtype) -> Option<Format> {
        match dtype {
            Dtype::F32 => Some(Format::F32),
            Dtype::BF16 => Some(Format::Bf16),
            Dtype::F16 => Some(Format::F16),
            Dtype::U8 => Some(Format::U8),
            _ => None,
        }
    }

    fn dtype(self) -> Dtype {
        match self {
            Format::F32 => Dtype::F32,
            Format::Bf16 => Dtype::BF16,
            Format::F16 => Dtype::F16,
            Format::U8 => Dtype::U8,
        }
    }
}

/// Why a tensor's bytes could not be had.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Fills the slice with the tensor's bytes from the given offset on.
pub type Fill<'a> = Box<dyn Fn(u64, &mut [u8]) -> Result<(), SourceError> + 'a>;

/// A tensor to write, little-endian, row-major.
pub struct StreamedTensor<'a> {
    /// Name in the file.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Number format.
    pub format: Format,
    /// Its bytes.
    pub fill: Fill<'a>,
}

impl StreamedTensor<'_> {
    /// Bytes in the file.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product::<u64>() * self.format.bytes()
    }
}

impl<'a> From<NamedTensor<'a>> for StreamedTensor<'a> {
    fn from(tensor: NamedTensor<'a>) -> Self {
        let elements: usize = tensor.shape.iter().product();
        assert_eq!(
            elements,
            tensor.data.len(),
            "shape {:?} of `{}` disagrees with its data",
            tensor.shape,
            tensor.name
        );
        let bytes: &'a [u8] = bytemuck::cast_slice(tensor.data);
        let fill: Fill<'a> = Box::new(move |at, out| {
            out.copy_from_slice(&bytes[at as usize..][..out.len()]);
            Ok(())
        });
        StreamedTensor { name: tensor.name, shape: tensor.shape, format: Format::F32, fill }
    }
}

#[cfg(target_endian = "big")]
compile_error!("safetensors files are little-endian; writing them from a big-endian machine is not implemented");

/// Size and digest of a written file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// Writes the tensors into a new file and syncs it. The caller publishes the file.
pub(crate) fn write_streamed(path: &Path, mut tensors: Vec<StreamedTensor>) -> Result<Written, DurableError> {
    // Wide formats first, so that every tensor is aligned; then by name, so that the file is a function of its content.
    tensors.sort_by(|a, b| b.format.bytes().cmp(&a.format.bytes()).then_with(|| a.name.cmp(&b.name)));
    write_in_order(path, &tensors, PIECE_BYTES)
}

/// As [`write_streamed`] in the order given, which also is the order in which bytes are asked for, `piece_bytes` at a time.
pub(crate) fn write_in_order(
    path: &Path,
    tensors: &[StreamedTensor],
    piece_bytes: usize,
) -> Result<Written, DurableError> {
    let header = header(tensors).map_err(|error| DurableError::io("write", path, std::io::Error::other(error)))?;
    HashedFile::write(path, |out| {
        out.add_bytes(&(header.len() as u64).to_le_bytes())?;
        out.add_bytes(&header)?;
        for tensor in tensors {
            let end = tensor.bytes();
            let mut at = 0;
            while at < end {
                let length = (end - at).min(piece_bytes as u64) as usize;
                out.add(length, |piece| {
                    (tensor.fill)(at, piece).map_err(|source| DurableError::source(path, &tensor.name, source))
                })?;
                at += length as u64;
            }
        }
        Ok(())
    })
}

fn header(tensors: &[StreamedTensor]) -> Result<Vec<u8>, SourceError> {
    let mut end = 0usize;
    let mut infos = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let start = end;
        end += usize::try_from(tensor.bytes())?;
        let info = TensorInfo { dtype: tensor.format.dtype(), shape: tensor.shape.clone(), data_offsets: (start, end) };
        infos.push((tensor.name.clone(), info));
    }
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let mut text = serde_json::to_vec(&Metadata::new(Some(metadata), infos)?)?;
    // The data begins at a multiple of eight bytes; the format allows trailing spaces.
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tensors::TensorFile;

    fn streamed(name: &str, format: Format, bytes: Vec<u8>) -> StreamedTensor<'static> {
        let shape = vec![bytes.len() / format.bytes() as usize];
        let fill: Fill<'static> = Box::new(move |at, out| {
            out.copy_from_slice(&bytes[at as usize..][..out.len()]);
            Ok(())
        });
        StreamedTensor { name: name.into(), shape, format, fill }
    }

    #[test]
    fn tensors_of_all_formats_and_of_more_than_a_piece_come_back_with_the_files_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let large: Vec<u8> = (0..PIECE_BYTES as u32 / 4 + 1000).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let tensors = vec![
            streamed("codes", Format::U8, vec![7, 0, 255]),
            streamed("half", Format::Bf16, vec![0x80, 0x3f, 0x00, 0xc0]),
            streamed("large", Format::F32, large.clone()),
        ];
        let written = write_streamed(&path, tensors).unwrap();
        let (bytes, sha256) = crate::source::digest_of_file(&path).unwrap();
        assert_eq!(written, Written { bytes, sha256 });
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.bytes_of("codes").unwrap(), [7, 0, 255]);
        assert_eq!(file.read("half").unwrap().data, [1.0, -2.0]);
        assert!(file.bytes_of("large").unwrap() == large);
    }

    #[test]
    fn a_source_that_fails_names_the_file_and_the_tensor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let fill: Fill<'static> = Box::new(|_, _| Err("the disk is gone".into()));
        let tensor = StreamedTensor { name: "layer.3".into(), shape: vec![4], format: Format::F32, fill };
        let error = write_streamed(&path, vec![tensor]).unwrap_err().to_string();
        assert!(error.contains("t.safetensors") && error.contains("layer.3") && error.contains("the disk is gone"));
    }
}
