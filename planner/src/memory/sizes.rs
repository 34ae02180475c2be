//! How many numbers the network has and how many of them are trained, counted once a plan.
//!
//! In:    the network and the method.
//! Out:   numbers of elements. What is trained is counted the way the update holds it: flat arrays per group, each tensor padded to 256.
//! Never: bytes; those depend on the rule and the tier.

use crate::architecture::{DecoderSpec, EMBEDDING, FINAL_NORM, HEAD, Linear};
use crate::plan::MethodPlan;

/// Tensors of a group start at multiples of this: no update block of any rule straddles two tensors.
const SLOT_ELEMENTS: u64 = 256;

/// Numbers of elements of a network and of what is trained in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// All parameters, a tied head once.
    pub parameters: u64,
    /// Parameters of one block; all blocks have the same.
    pub block_parameters: u64,
    /// Those of its linear layers' matrices.
    pub block_linear: u64,
    /// The largest of these matrices.
    pub largest_linear: u64,
    /// The largest tensor.
    pub largest_tensor: u64,
    /// Trained numbers, without padding.
    pub trained: u64,
    /// Elements of all groups' arrays.
    pub elements: u64,
    /// Elements of one block's array.
    pub block_elements: u64,
    /// Elements of the array outside of blocks.
    pub outer_elements: u64,
    /// Numbers of a factored second moment: rows and columns of matrices, all of vectors.
    pub factored: u64,
}

impl Sizes {
    /// Counts.
    pub fn of(spec: &DecoderSpec, method: &MethodPlan) -> Sizes {
        let (block, outer) = (block(spec, method), outer(spec, method));
        let blocks = spec.n_layers() as u64;
        let sum =
            |shapes: &[Vec<u64>], count: &dyn Fn(&[u64]) -> u64| shapes.iter().map(|shape| count(shape)).sum::<u64>();
        let total = |count: &dyn Fn(&[u64]) -> u64| blocks * sum(&block, count) + sum(&outer, count);
        Sizes {
            parameters: spec.parameters(),
            block_parameters: spec.block_tensors(0).iter().map(|(_, shape)| wide(shape).iter().product::<u64>()).sum(),
            block_linear: linears(spec).sum(),
            largest_linear: linears(spec).max().unwrap_or(0),
            largest_tensor: spec.tensors().iter().map(|(_, shape)| wide(shape).iter().product()).max().unwrap_or(0),
            trained: total(&|shape| shape.iter().product()),
            elements: total(&padded),
            block_elements: sum(&block, &padded),
            outer_elements: sum(&outer, &padded),
            factored: total(&|shape| shape.iter().sum()),
        }
    }
}

/// Numbers of each linear layer's matrix in a block.
fn linears(spec: &DecoderSpec) -> impl Iterator<Item = u64> {
    Linear::ALL.into_iter().map(|linear| wide(&spec.linear_shape(linear)).iter().product())
}

/// Shapes of the trained tensors of one block.
fn block(spec: &DecoderSpec, method: &MethodPlan) -> Vec<Vec<u64>> {
    match method {
        MethodPlan::Lora(lora) => {
            let factors = lora.targets.iter().flat_map(|&linear| {
                let [outputs, inputs] = spec.linear_shape(linear);
                [wide(&[lora.rank, inputs]), wide(&[outputs, lora.rank])]
            });
            factors.collect()
        }
        MethodPlan::Full(_) => spec.block_tensors(0).iter().map(|(_, shape)| wide(shape)).collect(),
    }
}

/// Shapes of the trained tensors outside of blocks.
fn outer(spec: &DecoderSpec, method: &MethodPlan) -> Vec<Vec<u64>> {
    let Some(full) = method.full() else { return Vec::new() };
    let trains = |name: &str| match name {
        EMBEDDING => full.embeddings,
        HEAD => full.head,
        other => other == FINAL_NORM,
    };
    spec.tensors().iter().filter(|(name, _)| trains(name)).map(|(_, shape)| wide(shape)).collect()
}

fn wide(shape: &[usize]) -> Vec<u64> {
    shape.iter().map(|&side| side as u64).collect()
}

fn padded(shape: &[u64]) -> u64 {
    shape.iter().product::<u64>().next_multiple_of(SLOT_ELEMENTS)
}
