//! A LoRA adapter as llama.cpp's loader takes it.
//!
//! In:    an adapter in PEFT's words, the model it belongs to.
//! Out:   a GGUF file of the type `adapter`.
//! Never: leaves the scale to chance: llama.cpp multiplies by `alpha / rank` whatever PEFT's rule was, so rank-stabilised and mixed
//!        ranks go into alpha and B.

use std::path::Path;

use checkpoints::gguf::{BlockType, Entry, NewTensor, Writer};
use checkpoints::peft::{Adapter, LoraPair};
use checkpoints::weights::{Weights, names};
use planner::architecture::{DecoderSpec, EMBEDDING};
use planner::config::to_gguf;

use super::entries::{file_type_of, general};
use super::layout::{check_range, permuted_heads};
use super::{GgufExportError, GgufWritten};

/// An adapter to write.
#[derive(Debug, Clone, Copy)]
pub struct AdapterFile<'a> {
    /// The model it belongs to; only its description is used.
    pub model: &'a Weights,
    /// `general.name`.
    pub name: &'a str,
    /// F32, F16 or BF16: llama.cpp multiplies adapters in these.
    pub kind: BlockType,
}

/// One tensor of the file.
pub(super) struct Factor {
    pub(super) new: NewTensor,
    pub(super) values: Vec<f32>,
}

/// Writes the adapter, replacing a file of that name in one step.
pub fn write_adapter(path: &Path, file: &AdapterFile<'_>, adapter: &Adapter) -> Result<GgufWritten, GgufExportError> {
    let factors = factors(file, adapter)?;
    let architecture = to_gguf(file.model.spec())?.architecture;
    let mut entries = general(architecture, "adapter", file.name, file_type_of(file.kind));
    entries.push(("adapter.type".to_string(), Entry::Text("lora".to_string())));
    entries.push(("adapter.lora.alpha".to_string(), Entry::F32(alpha(adapter) as f32)));
    let tensors: Vec<NewTensor> = factors.iter().map(|factor| factor.new.clone()).collect();
    let mut writer = Writer::create(path, &entries, tensors)?;
    for factor in &factors {
        writer.append(&factor.values)?;
    }
    Ok(GgufWritten { bytes: writer.finish()?, tensors: factors.len(), notes: Vec::new() })
}

/// What stands in the file, such that `alpha / rank` is PEFT's scale for the adapter's own rank.
pub(super) fn alpha(adapter: &Adapter) -> f64 {
    let config = &adapter.config;
    if config.rank_stabilized { config.alpha * (config.rank as f64).sqrt() } else { config.alpha }
}

/// Both factors of every layer as the file holds them.
pub(super) fn factors(file: &AdapterFile<'_>, adapter: &Adapter) -> Result<Vec<Factor>, GgufExportError> {
    let spec = file.model.spec();
    let mut factors = Vec::new();
    for (module, pair) in &adapter.pairs {
        let refused = |problem: String| GgufExportError::Tensor { name: module.clone(), problem };
        let weight = format!("{module}.weight");
        let name = base_name(spec, &weight, pair).map_err(refused)?;
        let rank = pair.a.shape[0];
        let fold = folded(adapter, rank);
        let mut b: Vec<f32> = pair.b.data.iter().map(|&value| (f64::from(value) * fold) as f32).collect();
        if let Some(heads) = permuted_heads(&weight, spec) {
            b = names::permuted(&b, heads, spec.head_dim);
        }
        for (suffix, shape, values) in [("lora_a", &pair.a.shape, pair.a.data.clone()), ("lora_b", &pair.b.shape, b)] {
            check_range(&values, file.kind).map_err(refused)?;
            let new = NewTensor { name: format!("{name}.{suffix}"), shape: shape.clone(), kind: file.kind };
            factors.push(Factor { new, values });
        }
    }
    Ok(factors)
}

/// What B is multiplied by, so that llama.cpp's `alpha / rank` becomes PEFT's scale for this rank.
fn folded(adapter: &Adapter, rank: usize) -> f64 {
    let (rank, config) = (rank as f64, &adapter.config);
    let wanted = if config.rank_stabilized { config.alpha / rank.sqrt() } else { config.alpha / rank };
    match alpha(adapter) / rank {
        0.0 => 1.0,
        given => wanted / given,
    }
}

/// The GGUF name of the matrix that a pair belongs to.
fn base_name(spec: &DecoderSpec, weight: &str, pair: &LoraPair) -> Result<String, String> {
    let tensors = spec.tensors();
    let Some((_, shape)) = tensors.iter().find(|(name, _)| name == weight) else {
        return Err("the model has no such layer of its own; export the merged model instead".to_string());
    };
    if weight == EMBEDDING {
        return Err("adapters of the embedding are not written; export the merged model instead".to_string());
    }
    let expected = [pair.b.shape[0], pair.a.shape[1]];
    if shape.as_slice() != expected {
        return Err(format!("the adapter is made for a matrix of {expected:?}, the model's is {shape:?}"));
    }
    names::gguf(weight, spec.family).ok_or_else(|| "llama.cpp has no name for it".to_string())
}
