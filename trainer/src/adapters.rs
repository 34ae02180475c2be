//! Low-rank adapters: how they start, and how they come to the device.
//!
//! In:    the plan's LoRA part, the trained parameters.
//! Out:   filled slots; a [`BlockAdapters`] a block.
//! Never: knows the optimizer.

use std::collections::BTreeSet;

use burn::tensor::{DType, Device, Tensor, TensorData};
use checkpoints::checkpoint::{CheckpointError, Restored};
use checkpoints::peft::Adapter;
use checkpoints::tensors::HostTensor;
use models::{AdapterPair, BlockAdapters};
use planner::architecture::{DecoderSpec, Linear};
use planner::plan::LoraPlan;

use crate::error::TrainError;
use crate::layout::{self, GroupLayout};
use crate::parameters::Parameters;
use crate::state::stored;

/// Fresh adapters: A uniform in ±1/sqrt(inputs) (PEFT's Kaiming-uniform with a = sqrt 5), B zero.
pub(crate) fn initialise(parameters: &Parameters, seed: u64) -> Result<(), TrainError> {
    let mut tensor = 0u64;
    for (number, group) in parameters.layout().iter().enumerate() {
        for pair in group.slots.chunks(2) {
            let bound = 1.0 / (pair[0].shape[1] as f64).sqrt();
            let value = |at: u64| (bound * (2.0 * uniform(seed, tensor, at) - 1.0)) as f32;
            let values: Vec<f32> = (0..pair[0].len as u64).map(value).collect();
            parameters.set(number, &pair[0], &values)?;
            tensor += 2;
        }
    }
    Ok(())
}

/// Replaces the parameters by those of a PEFT adapter, which must have exactly the planned layers and rank.
pub(crate) fn start_from(
    parameters: &Parameters,
    plan: &LoraPlan,
    adapter: &Adapter,
    folder: &std::path::Path,
) -> Result<(), TrainError> {
    let refused = |problem: String| TrainError::StartFrom { folder: folder.to_path_buf(), problem };
    let config = &adapter.config;
    if config.rank != plan.rank || config.rank_stabilized != plan.rank_stabilized {
        return Err(refused(format!(
            "rank {} (rsLoRA: {}) against method.rank {} (method.rank_stabilized: {})",
            config.rank, config.rank_stabilized, plan.rank, plan.rank_stabilized
        )));
    }
    if config.alpha != plan.alpha {
        return Err(refused(format!("alpha {} against method.alpha {}", config.alpha, plan.alpha)));
    }
    let expected: usize = parameters.layout().iter().map(|group| group.slots.len() / 2).sum();
    if adapter.pairs.len() != expected {
        return Err(refused(format!(
            "it adapts {} layers, the plan {expected}; set method.targets to what it adapts",
            adapter.pairs.len()
        )));
    }
    for (layer, group) in parameters.layout().iter().enumerate() {
        for (slots, target) in group.slots.chunks(2).zip(&plan.targets) {
            let path = target.path(layer);
            let pair = adapter.pairs.get(&path).ok_or_else(|| refused(format!("no factors for {path}")))?;
            for (slot, tensor) in slots.iter().zip([&pair.a, &pair.b]) {
                if tensor.shape != slot.shape {
                    return Err(refused(format!("{} is {:?}, planned {:?}", slot.name, tensor.shape, slot.shape)));
                }
                parameters.set(layer, slot, &tensor.data)?;
            }
        }
    }
    Ok(())
}

/// The adapters of a PEFT folder on the device, whatever layers it adapts.
pub(crate) fn of_folder(
    adapter: &Adapter,
    spec: &DecoderSpec,
    device: &Device,
) -> Result<Vec<BlockAdapters>, TrainError> {
    let scale = adapter.config.scale() as f32;
    let layers = 0..spec.n_layers();
    let known: BTreeSet<String> =
        layers.clone().flat_map(|layer| Linear::ALL.map(|linear| linear.path(layer))).collect();
    if let Some(path) = adapter.pairs.keys().find(|path| !known.contains(*path)) {
        return Err(TrainError::Adapter { problem: format!("{path} is no linear layer of it") });
    }
    let mut blocks = Vec::with_capacity(spec.n_layers());
    for layer in layers {
        let mut adapters = BlockAdapters { scale, ..BlockAdapters::default() };
        for linear in Linear::ALL {
            let Some(pair) = adapter.pairs.get(&linear.path(layer)) else { continue };
            let ([outputs, inputs], rank) = (spec.linear_shape(linear), adapter.config.rank);
            for (factor, expected) in [(&pair.a, [rank, inputs]), (&pair.b, [outputs, rank])] {
                if factor.shape != expected {
                    let (path, found) = (linear.path(layer), &factor.shape);
                    let problem = format!("a factor of {path} is {found:?}, the model asks for {expected:?}");
                    return Err(TrainError::Adapter { problem });
                }
            }
            let tensor = |factor: &HostTensor| matrix(factor.data.clone(), &factor.shape, device);
            adapters.pairs[linear as usize] = Some(AdapterPair { a: tensor(&pair.a), b: tensor(&pair.b) });
        }
        blocks.push(adapters);
    }
    Ok(blocks)
}

/// The adapters that a checkpoint of a LoRA run holds, on the device.
pub(crate) fn of_checkpoint(
    plan: &LoraPlan,
    checkpoint: &Restored,
    spec: &DecoderSpec,
    device: &Device,
) -> Result<Vec<BlockAdapters>, TrainError> {
    let mut blocks = Vec::with_capacity(spec.n_layers());
    for group in layout::adapters(plan, spec) {
        let mut values = Vec::with_capacity(group.slots.len());
        for slot in &group.slots {
            let factor = checkpoint.tensors.read(&stored(&slot.name)).map_err(CheckpointError::from)?;
            if factor.shape != slot.shape {
                let problem = format!("{} is {:?}, the plan's is {:?}", slot.name, factor.shape, slot.shape);
                return Err(TrainError::OtherPlan { checkpoint: checkpoint.path.clone(), problem });
            }
            values.push(factor.data);
        }
        blocks.push(of_group(plan, &group, values, device));
    }
    Ok(blocks)
}

/// The adapters as plain tensors on the device, a [`BlockAdapters`] a block.
pub(crate) fn upload(
    plan: &LoraPlan,
    parameters: &Parameters,
    device: &Device,
) -> Result<Vec<BlockAdapters>, TrainError> {
    let groups = parameters.layout().iter().enumerate();
    groups.map(|(number, group)| Ok(of_group(plan, group, parameters.masters(number)?, device))).collect()
}

/// One block's adapters from the values of its slots.
fn of_group(plan: &LoraPlan, group: &GroupLayout, values: Vec<Vec<f32>>, device: &Device) -> BlockAdapters {
    let mut adapters = BlockAdapters { scale: plan.scale as f32, ..BlockAdapters::default() };
    let mut factors = group.slots.iter().zip(values);
    for &linear in &plan.targets {
        let mut next =
            || factors.next().map(|(slot, values)| matrix(values, &slot.shape, device)).expect("two factors a target");
        adapters.pairs[linear as usize] = Some(AdapterPair { a: next(), b: next() });
    }
    adapters
}

fn matrix(values: Vec<f32>, shape: &[usize], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, [shape[0], shape[1]]), (device, DType::F32))
}

/// A number in `[0, 1)` that depends on its coordinates only (SplitMix64 finaliser; Steele et al. 2014).
pub(crate) fn uniform(seed: u64, tensor: u64, at: u64) -> f64 {
    let mut z = seed ^ tensor.wrapping_mul(0xd1b5_4a32_d192_ed03) ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for _ in 0..2 {
        z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
    }
    (z >> 11) as f64 / (1u64 << 53) as f64
}
