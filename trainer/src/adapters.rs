//! Low-rank adapters: how they start, and how they come to the device.
//!
//! In:    the plan's LoRA part, the trained parameters.
//! Out:   filled slots; a [`BlockAdapters`] a block.
//! Never: knows the optimizer.

use burn::tensor::{DType, Device, Tensor, TensorData};
use checkpoints::peft::Adapter;
use models::{AdapterPair, BlockAdapters};
use planner::plan::LoraPlan;

use crate::error::TrainError;
use crate::layout::Slot;
use crate::parameters::Parameters;

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

/// The adapters as plain tensors on the device, a [`BlockAdapters`] a block.
pub(crate) fn upload(
    plan: &LoraPlan,
    parameters: &Parameters,
    device: &Device,
) -> Result<Vec<BlockAdapters>, TrainError> {
    let tensor = |slot: &Slot, values: Vec<f32>| {
        let data = TensorData::new(values, [slot.shape[0], slot.shape[1]]);
        Tensor::<2>::from_data(data, (device, DType::F32))
    };
    let mut blocks = Vec::with_capacity(parameters.layout().len());
    for (number, group) in parameters.layout().iter().enumerate() {
        let mut adapters = BlockAdapters { scale: plan.scale as f32, ..BlockAdapters::default() };
        let mut factors = group.slots.iter().zip(parameters.masters(number)?);
        for &linear in &plan.targets {
            let mut next = || factors.next().map(|(slot, values)| tensor(slot, values)).expect("two factors a target");
            adapters.pairs[linear as usize] = Some(AdapterPair { a: next(), b: next() });
        }
        blocks.push(adapters);
    }
    Ok(blocks)
}

/// A number in `[0, 1)` that depends on its coordinates only (SplitMix64 finaliser; Steele et al. 2014).
fn uniform(seed: u64, tensor: u64, at: u64) -> f64 {
    let mut z = seed ^ tensor.wrapping_mul(0xd1b5_4a32_d192_ed03) ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for _ in 0..2 {
        z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
    }
    (z >> 11) as f64 / (1u64 << 53) as f64
}
