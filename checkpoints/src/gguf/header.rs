//! The header of a GGUF file: counts, metadata, tensor descriptions; each claim checked against the file's length.
//!
//! In:    all bytes of the file.
//! Out:   a [`Header`] whose tensor extents lie inside the file and do not overlap.
//! Never: reads tensor data.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::HashMap;
use std::ops::Range;

use super::blocks::BlockType;
use super::cursor::Cursor;
use super::metadata::Metadata;
use super::{GgufError, blocks};

/// Where one tensor lies and how it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// GGUF name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Shape, outermost first (the file stores it innermost first).
    pub shape: Vec<usize>,
    /// Storage format.
    pub kind: BlockType,
    /// Bytes of the file that hold the data.
    pub extent: Range<usize>,
}

/// A checked header.
#[derive(Debug)]
pub struct Header {
    /// Version stated: 2 or 3.
    pub version: u32,
    /// Key/values.
    pub metadata: Metadata,
    /// Tensors in the order of the file.
    pub tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

/// Smallest tensor description: name length (8), dimension count (4), one dimension (8), type (4), offset (8).
const TENSOR_BYTES_MIN: u64 = 32;
const DIMENSIONS_MAX: u32 = 4;
const ALIGNMENT_DEFAULT: u64 = 32;

/// A tensor description as stated, before its extent is known to lie in the file.
struct Stated {
    name: String,
    shape: Vec<usize>,
    kind: BlockType,
    offset: u64,
    bytes: u64,
}

impl Header {
    /// Parses and checks the header of a file whose bytes are `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Header, GgufError> {
        let mut cursor = Cursor::new(bytes);
        let version = opening(&mut cursor, bytes)?;
        let n_tensors = cursor.count(TENSOR_BYTES_MIN, "the number of tensors")?;
        let n_entries = Metadata::count(&mut cursor)?;
        let metadata = Metadata::parse(&mut cursor, n_entries)?;
        let alignment = alignment(&metadata)?;
        let mut stated = Vec::with_capacity(n_tensors.min(bytes.len() / TENSOR_BYTES_MIN as usize));
        for _ in 0..n_tensors {
            stated.push(tensor(&mut cursor)?);
        }
        let data = (cursor.position() as u64).next_multiple_of(alignment);
        let placed: Result<Vec<TensorInfo>, GgufError> =
            stated.into_iter().map(|tensor| place(tensor, data, alignment, bytes.len() as u64)).collect();
        let tensors = placed?;
        refuse_overlaps(&tensors)?;
        let mut by_name = HashMap::with_capacity(tensors.len());
        for (index, tensor) in tensors.iter().enumerate() {
            if by_name.insert(tensor.name.clone(), index).is_some() {
                return Err(GgufError::Duplicate { name: tensor.name.clone() });
            }
        }
        Ok(Header { version, metadata, tensors, by_name })
    }

    /// One tensor by its GGUF name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&index| &self.tensors[index])
    }
}

fn opening(cursor: &mut Cursor, bytes: &[u8]) -> Result<u32, GgufError> {
    if !bytes.starts_with(b"GGUF") {
        return Err(GgufError::Magic { found: bytes.iter().copied().take(4).collect() });
    }
    cursor.take(4, "the magic")?;
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        1 => Err(GgufError::Version { found: 1, hint: "; convert the model again with a current llama.cpp" }),
        swapped if matches!(swapped.swap_bytes(), 1..=3) => {
            Err(GgufError::Version { found: version, hint: "; this is a big-endian file" })
        }
        found => Err(GgufError::Version { found, hint: "" }),
    }
}

fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    let found = metadata.u64("general.alignment")?.unwrap_or(ALIGNMENT_DEFAULT);
    match found.is_power_of_two() && (8..=65_536).contains(&found) {
        true => Ok(found),
        false => Err(GgufError::Alignment { found }),
    }
}

fn tensor(cursor: &mut Cursor) -> Result<Stated, GgufError> {
    let name = cursor.string("a tensor name")?.to_string();
    let n_dimensions = cursor.u32("a tensor's number of dimensions")?;
    if !(1..=DIMENSIONS_MAX).contains(&n_dimensions) {
        let dimensions = vec![u64::from(n_dimensions)];
        return Err(GgufError::Shape { name, dimensions, rule: "the number of dimensions must be 1 to 4" });
    }
    let mut dimensions = Vec::new();
    for _ in 0..n_dimensions {
        dimensions.push(cursor.u64("a tensor dimension")?);
    }
    let code = cursor.u32("a tensor type")?;
    let Some(kind) = BlockType::from_code(code) else {
        return Err(GgufError::BlockType { name, found: blocks::unsupported_name(code) });
    };
    let offset = cursor.u64("a tensor offset")?;
    let bytes = match stored_bytes(&dimensions, kind) {
        Ok(bytes) => bytes,
        Err(rule) => return Err(GgufError::Shape { name, dimensions, rule }),
    };
    // Every dimension divides a count that fits in memory's address range, so none is cut here.
    let shape = dimensions.iter().rev().map(|&n| n as usize).collect();
    Ok(Stated { name, shape, kind, offset, bytes })
}

fn stored_bytes(dimensions: &[u64], kind: BlockType) -> Result<u64, &'static str> {
    let elements = dimensions.iter().try_fold(1u64, |product, &n| product.checked_mul(n));
    // 2^56 elements are far beyond any disk, and leave room for the multiplication by bytes per block.
    match elements.ok_or("the number of elements overflows")? {
        0 => return Err("no dimension may be zero"),
        n if n > 1 << 56 => return Err("more elements than any disk holds"),
        _ => {}
    }
    let (block, block_bytes) = (kind.elements() as u64, kind.bytes() as u64);
    match dimensions[0].is_multiple_of(block) {
        true => Ok(elements.unwrap_or(0) / block * block_bytes),
        false => Err("a row is not a whole number of blocks"),
    }
}

fn place(tensor: Stated, data: u64, alignment: u64, length: u64) -> Result<TensorInfo, GgufError> {
    let Stated { name, shape, kind, offset, bytes } = tensor;
    if !offset.is_multiple_of(alignment) {
        return Err(GgufError::Misaligned { name, offset, alignment });
    }
    let start = data.saturating_add(offset);
    let end = start.saturating_add(bytes);
    if end > length {
        return Err(GgufError::PastEnd { name, start, end, length });
    }
    Ok(TensorInfo { name, shape, kind, extent: start as usize..end as usize })
}

fn refuse_overlaps(tensors: &[TensorInfo]) -> Result<(), GgufError> {
    let mut ordered: Vec<&TensorInfo> = tensors.iter().collect();
    ordered.sort_by_key(|tensor| tensor.extent.start);
    match ordered.windows(2).find(|pair| pair[0].extent.end > pair[1].extent.start) {
        Some(pair) => Err(GgufError::Overlap { first: pair[0].name.clone(), second: pair[1].name.clone() }),
        None => Ok(()),
    }
}
