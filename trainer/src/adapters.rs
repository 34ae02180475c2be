//! The trainable parameters: low-rank factors in one flat host array, with gradients and moments beside it.
//!
//! In:    the plan's method, the network's description, gradients from the engine.
//! Out:   adapters on the device; names and ranges for checkpoints and exports.
//! Never: changes a parameter outside [`AdapterStore::update`].

use std::ops::Range;

use burn::tensor::{DType, Device, Tensor, TensorData};
use checkpoints::peft::{Adapter, Factor, factor_name};
use models::{AdapterPair, BlockAdapters};
use offload::adamw::{AdamW, AdamWState, squared_norm};
use planner::architecture::{DecoderSpec, Linear};
use planner::plan::LoraPlan;

use crate::error::TrainError;

/// One factor's place in the flat arrays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// PEFT's tensor name.
    pub name: String,
    /// `[rank, inputs]` or `[outputs, rank]`.
    pub shape: [usize; 2],
    /// Elements in the flat arrays.
    pub range: Range<usize>,
}

/// All adapters of a run. Memory is taken once: four flat f32 arrays of the same length.
#[derive(Debug)]
pub struct AdapterStore {
    plan: LoraPlan,
    n_layers: usize,
    slots: Vec<Slot>,
    /// Parameters.
    pub parameters: Vec<f32>,
    /// Sum of the step's gradients.
    pub gradients: Vec<f32>,
    /// AdamW's first moment.
    pub first_moment: Vec<f32>,
    /// AdamW's second moment.
    pub second_moment: Vec<f32>,
}

impl AdapterStore {
    /// Fresh adapters: A uniform in ±1/sqrt(inputs) (PEFT's Kaiming-uniform with a = sqrt 5), B zero.
    pub fn new(plan: &LoraPlan, spec: &DecoderSpec, seed: u64) -> AdapterStore {
        let mut slots = Vec::new();
        let mut end = 0;
        for layer in 0..spec.n_layers() {
            for &linear in &plan.targets {
                let [outputs, inputs] = spec.linear_shape(linear);
                for (factor, shape) in [(Factor::A, [plan.rank, inputs]), (Factor::B, [outputs, plan.rank])] {
                    let range = end..end + shape[0] * shape[1];
                    end = range.end;
                    slots.push(Slot { name: factor_name(&linear.path(layer), factor), shape, range });
                }
            }
        }
        let mut store = AdapterStore {
            plan: plan.clone(),
            n_layers: spec.n_layers(),
            slots,
            parameters: vec![0.0; end],
            gradients: vec![0.0; end],
            first_moment: vec![0.0; end],
            second_moment: vec![0.0; end],
        };
        store.initialise(seed);
        store
    }

    fn initialise(&mut self, seed: u64) {
        for (index, slot) in self.slots.iter().enumerate().step_by(2) {
            let bound = 1.0 / (slot.shape[1] as f64).sqrt();
            for (at, value) in self.parameters[slot.range.clone()].iter_mut().enumerate() {
                *value = (bound * (2.0 * uniform(seed, index as u64, at as u64) - 1.0)) as f32;
            }
        }
    }

    /// Replaces the parameters by those of a PEFT adapter, which must have exactly the planned layers and rank.
    pub fn start_from(&mut self, adapter: &Adapter, folder: &std::path::Path) -> Result<(), TrainError> {
        let refused = |problem: String| TrainError::StartFrom { folder: folder.to_path_buf(), problem };
        let config = &adapter.config;
        if config.rank != self.plan.rank || config.rank_stabilized != self.plan.rank_stabilized {
            return Err(refused(format!(
                "rank {} (rsLoRA: {}) against method.rank {} (method.rank_stabilized: {})",
                config.rank, config.rank_stabilized, self.plan.rank, self.plan.rank_stabilized
            )));
        }
        if config.alpha != self.plan.alpha {
            return Err(refused(format!("alpha {} against method.alpha {}", config.alpha, self.plan.alpha)));
        }
        let expected = self.slots.len() / 2;
        if adapter.pairs.len() != expected {
            return Err(refused(format!(
                "it adapts {} layers, the plan {expected}; set method.targets to what it adapts",
                adapter.pairs.len()
            )));
        }
        for layer in 0..self.n_layers {
            for position in 0..self.plan.targets.len() {
                let path = self.plan.targets[position].path(layer);
                let pair = adapter.pairs.get(&path).ok_or_else(|| refused(format!("no factors for {path}")))?;
                let first = 2 * (layer * self.plan.targets.len() + position);
                for (slot, tensor) in [(first, &pair.a), (first + 1, &pair.b)] {
                    let slot = &self.slots[slot];
                    if tensor.shape != slot.shape {
                        return Err(refused(format!("{} is {:?}, planned {:?}", slot.name, tensor.shape, slot.shape)));
                    }
                    self.parameters[slot.range.clone()].copy_from_slice(&tensor.data);
                }
            }
        }
        Ok(())
    }

    /// Number of trained weights.
    pub fn len(&self) -> usize {
        self.parameters.len()
    }

    /// Whether nothing is trained.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// Every factor in order.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The adapters as plain tensors on the device, a [`BlockAdapters`] a block.
    pub fn upload(&self, device: &Device) -> Vec<BlockAdapters> {
        let tensor = |slot: &Slot| {
            let data = TensorData::new(self.parameters[slot.range.clone()].to_vec(), slot.shape);
            Tensor::<2>::from_data(data, (device, DType::F32))
        };
        (0..self.n_layers)
            .map(|layer| {
                let mut adapters = self.empty();
                for (position, &linear) in self.plan.targets.iter().enumerate() {
                    let first = self.first_slot(layer, position);
                    let (a, b) = (tensor(&self.slots[first]), tensor(&self.slots[first + 1]));
                    adapters.pairs[linear as usize] = Some(AdapterPair { a, b });
                }
                adapters
            })
            .collect()
    }

    fn empty(&self) -> BlockAdapters {
        BlockAdapters { scale: self.plan.scale as f32, ..BlockAdapters::default() }
    }

    /// Adds one factor's gradient to the step's sum.
    pub fn accumulate(&mut self, layer: usize, linear: Linear, factor: Factor, gradient: Tensor<2>) {
        let position =
            self.plan.targets.iter().position(|&target| target == linear).expect("only targets have factors");
        let slot = self.first_slot(layer, position) + usize::from(factor == Factor::B);
        let values = gradient.into_data().convert::<f32>();
        let sum = &mut self.gradients[self.slots[slot].range.clone()];
        for (sum, value) in sum.iter_mut().zip(values.iter::<f32>()) {
            *sum += value;
        }
    }

    fn first_slot(&self, layer: usize, position: usize) -> usize {
        2 * (layer * self.plan.targets.len() + position)
    }

    /// Root of the sum of squares of all gradients.
    pub fn gradient_norm(&self) -> f64 {
        squared_norm(&self.gradients).sqrt()
    }

    /// One AdamW update with gradients times `gradient_scale`; the gradients start over at zero.
    pub fn update(&mut self, rule: &AdamW, step: u64, learning_rate: f64, gradient_scale: f32) {
        let state = AdamWState {
            parameters: &mut self.parameters,
            gradients: &self.gradients,
            first_moment: &mut self.first_moment,
            second_moment: &mut self.second_moment,
        };
        rule.update(step, learning_rate, gradient_scale, state);
        self.gradients.fill(0.0);
    }
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
