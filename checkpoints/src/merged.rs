//! A model's tensors as training left them.
//!
//! In:    the base model's files, and what was trained: an adapter, or weights of their own.
//! Out:   each tensor as f32 in Hugging Face's convention, whatever the base's file format is.
//! Never: holds more than one tensor of the model; merges into rounded weights.
//!
//! `W + scale * B A` is summed in f32 and rounded once, when it is written: merging into 4-bit or 16-bit weights rounds a small update away.
//! Gemma's norms multiply by `1 + w`. Its Hugging Face files hold `w`, its GGUF files `1 + w` (llama.cpp's converter adds the 1); here it is
//! always `w`.

use rayon::prelude::*;

use planner::architecture::Linear;

use crate::peft::{Adapter, LoraPair};
use crate::tensors::{HostTensor, TensorFile, TensorsError};
use crate::weights::{Weights, WeightsError};

/// What training changed.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// Nothing: the files are the result.
    Nothing,
    /// Low-rank adapters of linear layers.
    Adapter(&'a Adapter),
    /// Whole tensors, f32, each under this prefix and its Hugging Face name; those that are not there were frozen.
    Tensors {
        /// The file.
        file: &'a TensorFile,
        /// What stands before the names.
        prefix: &'static str,
    },
}

/// Why a merged tensor cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// The base's files.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The trained file.
    #[error(transparent)]
    Tensors(#[from] TensorsError),
    /// The adapter changes a layer that the base does not have.
    #[error("the adapter changes `{module}`, which the base model does not have: it belongs to another model")]
    NoLayer {
        /// Its module path.
        module: String,
    },
    /// The adapter's factors do not fit the base's layer.
    #[error(
        "`{module}` of the base is [{outputs}, {inputs}], the adapter's factors are {a:?} and {b:?}: it belongs to another model"
    )]
    Shape {
        /// Its module path.
        module: String,
        /// Rows of the base's weight.
        outputs: usize,
        /// Columns of the base's weight.
        inputs: usize,
        /// Shape of A.
        a: Vec<usize>,
        /// Shape of B.
        b: Vec<usize>,
    },
    /// A trained tensor of another shape than the base's.
    #[error("`{name}` was trained as {found:?}, the base has {expected:?}: it belongs to another model")]
    Trained {
        /// The tensor.
        name: String,
        /// Shape trained.
        found: Vec<usize>,
        /// Shape of the base.
        expected: Vec<usize>,
    },
}

/// A base model and what training changed in it.
#[derive(Debug)]
pub struct Merged<'a> {
    base: &'a Weights,
    change: Change<'a>,
}

impl<'a> Merged<'a> {
    /// Checks that the change fits the base: every adapted layer is there, every shape agrees.
    pub fn new(base: &'a Weights, change: Change<'a>) -> Result<Merged<'a>, MergeError> {
        match change {
            Change::Nothing => {}
            Change::Adapter(adapter) => check_adapter(base, adapter)?,
            Change::Tensors { file, prefix } => check_tensors(base, file, prefix)?,
        }
        Ok(Merged { base, change })
    }

    /// The model that was trained.
    pub fn base(&self) -> &'a Weights {
        self.base
    }

    /// A tensor, by its Hugging Face name, in Hugging Face's convention.
    pub fn read(&self, name: &str) -> Result<HostTensor, MergeError> {
        let mut tensor = self.read_as_stored(name)?;
        let offset = self.base.norm_excess(name);
        if offset != 0.0 {
            tensor.data.iter_mut().for_each(|value| *value -= offset);
        }
        Ok(tensor)
    }

    /// A tensor, by its Hugging Face name, in the convention of the base's own files.
    pub fn read_as_stored(&self, name: &str) -> Result<HostTensor, MergeError> {
        if let Change::Tensors { file, prefix } = self.change {
            let own = format!("{prefix}{name}");
            if file.shape(&own).is_some() {
                return Ok(file.read(&own)?);
            }
        }
        let mut tensor = self.base.read(name)?;
        if let (Change::Adapter(adapter), Some(module)) = (self.change, name.strip_suffix(".weight"))
            && let Some(pair) = adapter.pairs.get(module)
        {
            add_low_rank(&mut tensor, pair, adapter.config.scale() as f32);
        }
        Ok(tensor)
    }
}

/// `w += scale * (b a)`, as PEFT merges: the product first, then the scale, then the sum, all in f32.
fn add_low_rank(weight: &mut HostTensor, pair: &LoraPair, scale: f32) {
    let (inputs, rank) = (weight.shape[1], pair.a.shape[0]);
    let rows = weight.data.par_chunks_mut(inputs).zip(pair.b.data.par_chunks(rank));
    rows.for_each_init(
        || vec![0.0f32; inputs],
        |update, (weights, factors)| {
            update.fill(0.0);
            for (&factor, a) in factors.iter().zip(pair.a.data.chunks_exact(inputs)) {
                update.iter_mut().zip(a).for_each(|(sum, &value)| *sum += factor * value);
            }
            weights.iter_mut().zip(update.iter()).for_each(|(weight, &update)| *weight += scale * update);
        },
    );
}

fn check_adapter(base: &Weights, adapter: &Adapter) -> Result<(), MergeError> {
    let spec = base.spec();
    for (module, pair) in &adapter.pairs {
        let layers = || (0..spec.n_layers()).flat_map(|layer| Linear::ALL.map(|linear| (linear, linear.path(layer))));
        let Some((linear, _)) = layers().find(|(_, path)| path == module) else {
            return Err(MergeError::NoLayer { module: module.clone() });
        };
        let [outputs, inputs] = spec.linear_shape(linear);
        if pair.a.shape[1] != inputs || pair.b.shape[0] != outputs {
            let (a, b) = (pair.a.shape.clone(), pair.b.shape.clone());
            return Err(MergeError::Shape { module: module.clone(), outputs, inputs, a, b });
        }
    }
    Ok(())
}

fn check_tensors(base: &Weights, file: &TensorFile, prefix: &str) -> Result<(), MergeError> {
    for (name, expected) in base.spec().tensors() {
        match file.shape(&format!("{prefix}{name}")) {
            Some(found) if found != expected.as_slice() => {
                return Err(MergeError::Trained { name, found: found.to_vec(), expected });
            }
            _ => {}
        }
    }
    Ok(())
}
