//! Cuts a span into the blocks that threads work on.
//!
//! In:    a span and the runs of it that agree on weight decay.
//! Out:   each block's slices, given to a rule's arithmetic in parallel.
//! Never: makes a block whose borders change a result: they are multiples of 256 elements, and rules work by element or by 256.

use rayon::prelude::*;

use super::{ALIGNMENT, Span, SpanContext, StateArray, decay_runs};

/// Elements a thread updates at a time.
pub(crate) const BLOCK: usize = 16 * 1024;
/// Elements that are updated and then rounded to bf16, while they are in the first-level cache.
pub(crate) const TILE: usize = 1024;

/// A block's part of each array; `states` beyond those of the rule are empty.
pub(crate) struct Block<'a> {
    pub first_element: u64,
    pub decay: bool,
    pub parameters: &'a mut [f32],
    pub gradients: &'a [f32],
    pub states: [&'a mut [u8]; 4],
    pub working: Option<&'a mut [u16]>,
}

/// Calls `update` for every block of `span`, on all threads of the current pool.
pub(crate) fn for_each_block(
    states: &[StateArray],
    context: &SpanContext<'_>,
    span: Span<'_>,
    update: impl Fn(Block<'_>) + Sync + Send,
) {
    let runs = decay_runs(context.slots, span.first_element, span.parameters.len());
    let mut rest = whole(span);
    let mut blocks = Vec::with_capacity(rest.parameters.len() / BLOCK + runs.len());
    for (run, decay) in runs {
        for start in run.clone().step_by(BLOCK) {
            let (mut block, after) = split(rest, BLOCK.min(run.end - start), states);
            block.decay = decay;
            blocks.push(block);
            rest = after;
        }
    }
    blocks.into_par_iter().for_each(update);
}

fn whole(span: Span<'_>) -> Block<'_> {
    let mut states = span.states.into_iter();
    let states = std::array::from_fn(|_| states.next().unwrap_or_default());
    let Span { first_element, parameters, gradients, working, .. } = span;
    Block { first_element, decay: false, parameters, gradients, states, working }
}

/// The first `elements` of a block, and the rest.
fn split<'a>(block: Block<'a>, elements: usize, arrays: &[StateArray]) -> (Block<'a>, Block<'a>) {
    let (parameters, parameters_after) = block.parameters.split_at_mut(elements);
    let (gradients, gradients_after) = block.gradients.split_at(elements);
    let (working, working_after) = block.working.map(|working| working.split_at_mut(elements)).unzip();
    let mut states_after: [&mut [u8]; 4] = Default::default();
    let mut states = block.states;
    for (i, array) in arrays.iter().enumerate() {
        let bytes = elements / ALIGNMENT as usize * array.bytes_per_256;
        (states[i], states_after[i]) = std::mem::take(&mut states[i]).split_at_mut(bytes);
    }
    let (first_element, decay) = (block.first_element, block.decay);
    let after = Block {
        first_element: first_element + elements as u64,
        decay,
        parameters: parameters_after,
        gradients: gradients_after,
        states: states_after,
        working: working_after,
    };
    (Block { first_element, decay, parameters, gradients, states, working }, after)
}
