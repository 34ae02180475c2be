//! Reads a written GGUF file back and compares it with what it was made from.
//!
//! In:    the file, and once more what it was written from.
//! Out:   how far each format is from the numbers given; or the first difference.
//! Never: trusts the writer: the file goes through the reader that opens anyone's files.

use std::path::Path;

use checkpoints::gguf::{BlockType, File, NewTensor};
use checkpoints::peft::Adapter;
use datasets::{FIXED_TEXT, Tokenizer};

use super::adapter::{AdapterFile, alpha, factors};
use super::layout::Layout;
use super::{GgufExportError, ModelFile, TensorSource};

/// What a comparison found.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// Tensors compared, all of them equal to what their format makes of the numbers given.
    pub tensors: usize,
    /// For each format in the file, the largest root mean square error of a tensor, relative to its root mean square.
    pub errors: Vec<(BlockType, f32)>,
    /// Tokens of the fixed text, equal in the file's tokenizer and the model's.
    pub tokens: usize,
}

/// Compares every tensor of a model file, and the ids of a fixed text.
pub fn check_model(
    path: &Path,
    file: &ModelFile<'_>,
    weights: &mut TensorSource<'_>,
) -> Result<Compared, GgufExportError> {
    let layout = Layout::of(file.model, file.mix)?;
    let written = File::open(path)?;
    let mut comparison = Comparison::new(path, &written, layout.tensors.len())?;
    for tensor in &layout.tensors {
        comparison.tensor(&tensor.new, &tensor.values(file.model.spec(), weights)?)?;
    }
    let ours = crate::load::tokenizer(file.model)?;
    let theirs = Tokenizer::from_gguf(crate::load::gguf_vocabulary(&written)?)?;
    let ids = ours.encode(FIXED_TEXT)?;
    if theirs.encode(FIXED_TEXT)? != ids {
        return Err(comparison.differs("the fixed text has other token ids".to_string()));
    }
    let template = file.chat_template.or(ours.chat_template());
    if theirs.chat_template() != template {
        return Err(comparison.differs("the chat template is another".to_string()));
    }
    Ok(Compared { tensors: layout.tensors.len(), errors: comparison.errors, tokens: ids.len() })
}

/// Compares every tensor of an adapter file, and its scale.
pub fn check_adapter(path: &Path, file: &AdapterFile<'_>, adapter: &Adapter) -> Result<Compared, GgufExportError> {
    let factors = factors(file, adapter)?;
    let written = File::open(path)?;
    let mut comparison = Comparison::new(path, &written, factors.len())?;
    for factor in &factors {
        comparison.tensor(&factor.new, &factor.values)?;
    }
    let found = written.metadata().f32("adapter.lora.alpha")?;
    if found != Some(alpha(adapter) as f32) {
        return Err(comparison.differs(format!("alpha is {found:?} instead of {}", alpha(adapter))));
    }
    Ok(Compared { tensors: factors.len(), errors: comparison.errors, tokens: 0 })
}

struct Comparison<'a> {
    path: &'a Path,
    written: &'a File,
    errors: Vec<(BlockType, f32)>,
}

impl<'a> Comparison<'a> {
    fn new(path: &'a Path, written: &'a File, tensors: usize) -> Result<Comparison<'a>, GgufExportError> {
        let comparison = Comparison { path, written, errors: Vec::new() };
        match written.tensors().len() {
            found if found == tensors => Ok(comparison),
            found => Err(comparison.differs(format!("it holds {found} tensors instead of {tensors}"))),
        }
    }

    fn tensor(&mut self, new: &NewTensor, values: &[f32]) -> Result<(), GgufExportError> {
        let NewTensor { name, shape, kind } = new;
        let Some(found) = self.written.tensor(name) else {
            return Err(self.differs(format!("`{name}` is missing")));
        };
        if (&found.shape, found.kind) != (shape, *kind) {
            let is = format!("{:?} of {:?}", found.kind, found.shape);
            return Err(self.differs(format!("`{name}` is {is} instead of {kind:?} of {shape:?}")));
        }
        let read = self.written.read(name)?;
        let expected = kind.decode(&kind.encode(values));
        let same = read.iter().zip(&expected).position(|(read, expected)| read.to_bits() != expected.to_bits());
        if let Some(at) = same {
            return Err(self.differs(format!("number {at} of `{name}` is {} instead of {}", read[at], expected[at])));
        }
        let error = relative_error(values, &read);
        if error > largest_error(*kind) {
            return Err(self.differs(format!("`{name}` is {error} away from its numbers, too much for {kind:?}")));
        }
        match self.errors.iter_mut().find(|(known, _)| known == kind) {
            Some((_, largest)) => *largest = largest.max(error),
            None => self.errors.push((*kind, error)),
        }
        Ok(())
    }

    fn differs(&self, problem: String) -> GgufExportError {
        GgufExportError::ReadBack { path: self.path.to_path_buf(), problem }
    }
}

/// Root mean square of the differences, relative to that of the numbers.
fn relative_error(values: &[f32], read: &[f32]) -> f32 {
    let square = |value: f32| f64::from(value).powi(2);
    let size: f64 = values.iter().map(|&value| square(value)).sum();
    let difference: f64 = values.iter().zip(read).map(|(value, read)| square(value - read)).sum();
    if size == 0.0 { difference.sqrt() as f32 } else { (difference / size).sqrt() as f32 }
}

/// What no block can exceed: one large number sets the step, all others are half a step off. Numbers below the smallest normal half
/// are the exception; no tensor consists of them.
fn largest_error(kind: BlockType) -> f32 {
    match kind {
        BlockType::F32 => 0.0,
        BlockType::F16 => 1e-3,
        BlockType::BF16 => 4e-3,
        BlockType::Q8_0 => 0.03,
        BlockType::Q6_K => 0.08,
        BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q5_K => 0.2,
        BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q4_K => 0.4,
    }
}
