//! A network's numbers by name: those of its files, or those that a checkpoint of full training holds in their place.
//!
//! In:    opened weights, a checkpoint's tensors.
//! Out:   tensors in f32, each as training computes with it.
//! Never: keeps a tensor.

use std::collections::BTreeMap;
use std::path::Path;

use checkpoints::tensors::TensorFile;
use checkpoints::weights::{HostTensor, Weights};
use half::bf16;
use planner::plan::Precision;

use crate::error::TrainError;
use crate::state::stored;

/// Where tensors are read from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers<'a> {
    files: &'a Weights,
    trained: Option<&'a TensorFile>,
    /// Norms of the files are those that full training begins with.
    starts_training: bool,
}

impl<'a> Numbers<'a> {
    /// The model's files alone.
    pub(crate) fn of(files: &'a Weights) -> Numbers<'a> {
        Numbers { files, trained: None, starts_training: false }
    }

    /// The model's files as full training begins with them: its norms too are computed with in the planned precision.
    pub(crate) fn at_start(files: &'a Weights) -> Numbers<'a> {
        Numbers { starts_training: true, ..Numbers::of(files) }
    }

    /// What a checkpoint holds in place of the files' tensors.
    pub(crate) fn with(files: &'a Weights, trained: &'a TensorFile) -> Numbers<'a> {
        Numbers { files, trained: Some(trained), starts_training: false }
    }

    /// Refuses a checkpoint of another network: a tensor of another shape than this one's.
    pub(crate) fn checked(self, checkpoint: &Path) -> Result<Numbers<'a>, TrainError> {
        let Some(file) = self.trained else { return Ok(self) };
        let found: BTreeMap<&str, &[usize]> = file.tensors().collect();
        for (name, expected) in self.files.spec().tensors() {
            match found.get(stored(&name).as_str()) {
                Some(shape) if **shape != expected => {
                    let problem = format!("{name} is {shape:?}, the model's is {expected:?}");
                    return Err(TrainError::OtherPlan { checkpoint: checkpoint.to_path_buf(), problem });
                }
                _ => {}
            }
        }
        Ok(self)
    }

    /// A tensor.
    pub(crate) fn read(&self, name: &str) -> Result<HostTensor, TrainError> {
        match self.trained(name) {
            Some((file, stored)) => Ok(file.read(&stored).map_err(checkpoints::checkpoint::CheckpointError::from)?),
            None => Ok(self.files.read(name)?),
        }
    }

    /// The weight of a norm. A frozen one is computed with as the files hold it, a trained one in the planned precision.
    pub(crate) fn norm(&self, name: &str, precision: Precision) -> Result<Vec<f32>, TrainError> {
        let mut values = self.read(name)?.data;
        let is_trained = self.starts_training || self.trained(name).is_some();
        if precision == Precision::Bf16 && is_trained {
            values.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32());
        }
        Ok(values)
    }

    /// The checkpoint's tensor of that name, if it holds one.
    fn trained(&self, name: &str) -> Option<(&'a TensorFile, String)> {
        let stored = stored(name);
        self.trained.filter(|file| file.bytes_of(&stored).is_ok()).map(|file| (file, stored))
    }
}
