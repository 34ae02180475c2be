//! The tensors of a GGUF model file: names, formats, and how their numbers follow from Hugging Face's.
//!
//! In:    a model's description, the mix of formats.
//! Out:   a [`Layout`].
//! Never: reads a weight, except the rotary divisors that a GGUF base brings along.

use std::collections::BTreeMap;

use checkpoints::gguf::{BlockType, Mix, MixNetwork, NewTensor};
use checkpoints::weights::{Weights, names};
use planner::architecture::DecoderSpec;
use planner::config::{GgufDescription, to_gguf};

use super::{GgufExportError, TensorSource};

/// Divisors of the rotary frequencies.
const ROPE_FREQS: &str = "rope_freqs.weight";
/// Largest number of 16-bit floats.
const F16_MAX: f32 = 65_504.0;

/// All tensors of a file, in order.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) description: GgufDescription,
    pub(super) tensors: Vec<Planned>,
    /// Matrices stored otherwise than the mix says: wanted, taken, row length -> how many.
    replaced: BTreeMap<(String, String, usize), usize>,
}

/// One tensor.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) new: NewTensor,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    /// The model's tensor of this Hugging Face name.
    Model(String),
    /// These numbers.
    Values(Vec<f32>),
}

impl Layout {
    pub(super) fn of(model: &Weights, mix: Mix) -> Result<Layout, GgufExportError> {
        let spec = model.spec();
        let description = to_gguf(spec)?;
        let network = MixNetwork { layers: spec.n_layers(), tied_head: spec.tied_head };
        let mut replaced = BTreeMap::new();
        let mut tensors = Vec::new();
        if let Some(values) = divisors(model, &description)? {
            let new = NewTensor { name: ROPE_FREQS.to_string(), shape: vec![values.len()], kind: BlockType::F32 };
            tensors.push(Planned { new, origin: Origin::Values(values) });
        }
        for (hugging_face, shape) in spec.tensors() {
            let name = names::gguf(&hugging_face, spec.family).ok_or_else(|| GgufExportError::Tensor {
                name: hugging_face.clone(),
                problem: "llama.cpp has no name for it".to_string(),
            })?;
            let choice = mix.choose(&name, &shape, network);
            if let (Some(wanted), Some(&row)) = (choice.instead_of, shape.last()) {
                *replaced.entry((format!("{wanted:?}"), format!("{:?}", choice.kind), row)).or_default() += 1;
            }
            let new = NewTensor { name, shape, kind: choice.kind };
            tensors.push(Planned { new, origin: Origin::Model(hugging_face) });
        }
        Ok(Layout { description, tensors, replaced })
    }

    /// What the user should know.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = self.description.notes.clone();
        for ((wanted, taken, row), count) in &self.replaced {
            notes.push(format!(
                "{count} matrices are stored as {taken} instead of {wanted}, whose blocks do not divide rows of {row} numbers"
            ));
        }
        notes
    }
}

/// Those of a GGUF base as they are; otherwise those that follow from the description.
fn divisors(model: &Weights, description: &GgufDescription) -> Result<Option<Vec<f32>>, GgufExportError> {
    match model.gguf() {
        Some(file) if file.tensor(ROPE_FREQS).is_some() => Ok(Some(file.read(ROPE_FREQS)?)),
        Some(_) => Ok(None),
        None => Ok(description.rope_divisors.clone()),
    }
}

impl Planned {
    /// Its numbers in GGUF's order, all of them such that the format can hold them.
    pub(super) fn values(
        &self,
        spec: &DecoderSpec,
        weights: &mut TensorSource<'_>,
    ) -> Result<Vec<f32>, GgufExportError> {
        let name = match &self.origin {
            Origin::Values(values) => return Ok(values.clone()),
            Origin::Model(name) => name,
        };
        let mut values = weights(name).map_err(|source| GgufExportError::Source { name: name.clone(), source })?;
        let refused = |problem: String| GgufExportError::Tensor { name: name.clone(), problem };
        if values.len() != self.new.elements() {
            return Err(refused(format!("{} numbers were given for shape {:?}", values.len(), self.new.shape)));
        }
        if spec.norm_offset && name.ends_with("norm.weight") {
            values.iter_mut().for_each(|value| *value += 1.0);
        }
        if let Some(heads) = permuted_heads(name, spec) {
            values = names::permuted(&values, heads, spec.head_dim);
        }
        check_range(&values, self.new.kind).map_err(refused)?;
        Ok(values)
    }
}

/// llama.cpp computes rotations of the architecture `llama` on interleaved rows.
pub(super) fn permuted_heads(name: &str, spec: &DecoderSpec) -> Option<usize> {
    use planner::architecture::Family;
    match spec.family {
        Family::Llama | Family::Mistral => names::rotary_heads(name, spec),
        Family::Qwen2 | Family::Qwen3 | Family::Gemma3 => None,
    }
}

/// Refuses numbers that the format would turn into infinities or nonsense.
pub(super) fn check_range(values: &[f32], kind: BlockType) -> Result<(), String> {
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(format!("number {at} is {}; the training has diverged, take an earlier checkpoint", values[at]));
    }
    // Every quantised format scales its blocks by 16-bit floats.
    let halves = !matches!(kind, BlockType::F32 | BlockType::BF16);
    match values.iter().copied().find(|value| halves && value.abs() > F16_MAX) {
        Some(value) => Err(format!("{value} does not fit 16-bit floats (largest {F16_MAX}); take bf16 or f32")),
        None => Ok(()),
    }
}
