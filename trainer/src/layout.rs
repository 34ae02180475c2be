//! Which tensors are trained, and where each stands in the flat arrays of its group.
//!
//! In:    the plan's method, the network's description.
//! Out:   a [`GroupLayout`] for each block, and one for the tensors around the blocks where those are trained.
//! Never: holds a number.

use checkpoints::peft::{Factor, factor_name};
use planner::architecture::{DecoderSpec, EMBEDDING, FINAL_NORM, HEAD};
use planner::plan::{FullPlan, LoraPlan};

/// Every slot begins at a multiple of this: the block of 8-bit optimizer states.
const ALIGNMENT: u64 = 256;

/// Name of the group around the blocks.
pub(crate) const OUTER: &str = "outer";

/// One tensor's place in the flat arrays of its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Name in checkpoints and exports.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// First element, a multiple of 256.
    pub start: u64,
    /// Elements.
    pub len: usize,
}

impl Slot {
    /// Element range in the group's arrays.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.start as usize..self.start as usize + self.len
    }

    /// Norm weights and biases are vectors; weight decay leaves them alone.
    pub fn is_matrix(&self) -> bool {
        self.shape.len() == 2
    }
}

/// The trained tensors of one block, or those around the blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLayout {
    /// For messages and for the swap file's index: `block.003` or `outer`.
    pub name: String,
    /// Its tensors, in forward order.
    pub slots: Vec<Slot>,
    /// Elements of its arrays with the padding between slots; a multiple of 256.
    pub elements: u64,
}

impl GroupLayout {
    /// Lays tensors one after another.
    pub fn new(name: String, tensors: impl IntoIterator<Item = (String, Vec<usize>)>) -> GroupLayout {
        let mut elements = 0u64;
        let mut slots = Vec::new();
        for (name, shape) in tensors {
            let len: usize = shape.iter().product();
            slots.push(Slot { name, shape, start: elements, len });
            elements = (elements + len as u64).next_multiple_of(ALIGNMENT);
        }
        GroupLayout { name, slots, elements }
    }

    /// Trained numbers, without padding.
    pub fn trained(&self) -> u64 {
        self.slots.iter().map(|slot| slot.len as u64).sum()
    }
}

fn block_name(layer: usize) -> String {
    format!("block.{layer:03}")
}

/// A group a block: for each target the factors A `[rank, inputs]` and B `[outputs, rank]`.
pub fn adapters(plan: &LoraPlan, spec: &DecoderSpec) -> Vec<GroupLayout> {
    let factors = |layer: usize| {
        plan.targets.iter().flat_map(move |&linear| {
            let [outputs, inputs] = spec.linear_shape(linear);
            let path = linear.path(layer);
            [
                (factor_name(&path, Factor::A), vec![plan.rank, inputs]),
                (factor_name(&path, Factor::B), vec![outputs, plan.rank]),
            ]
        })
    };
    (0..spec.n_layers()).map(|layer| GroupLayout::new(block_name(layer), factors(layer))).collect()
}

/// A group a block with every tensor of it, and a last one with the final norm and, where they are trained, embedding and head.
pub fn whole_model(plan: &FullPlan, spec: &DecoderSpec) -> Vec<GroupLayout> {
    let blocks = (0..spec.n_layers()).map(|layer| GroupLayout::new(block_name(layer), spec.block_tensors(layer)));
    let mut outer = vec![(FINAL_NORM.to_string(), vec![spec.hidden])];
    if plan.embeddings {
        outer.push((EMBEDDING.to_string(), vec![spec.vocabulary, spec.hidden]));
    }
    if plan.head && !spec.tied_head {
        outer.push((HEAD.to_string(), vec![spec.vocabulary, spec.hidden]));
    }
    blocks.chain([GroupLayout::new(OUTER.to_string(), outer)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_begin_at_blocks_of_256_and_do_not_overlap() {
        let tensors = [("a", vec![3, 100]), ("b", vec![7]), ("c", vec![256])];
        let group = GroupLayout::new("g".into(), tensors.map(|(name, shape)| (name.to_string(), shape)));
        let starts: Vec<u64> = group.slots.iter().map(|slot| slot.start).collect();
        assert_eq!(starts, [0, 512, 768]);
        assert_eq!((group.elements, group.trained()), (1024, 563));
    }
}
