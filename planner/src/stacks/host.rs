//! Host memory of programs that keep part of a run there.
//!
//! In:    a [`Network`] and a [`Stack`].
//! Out:   bytes of pinned base, of the whole process, or of all tiers.
//! Never: page cache.

use crate::architecture::Linear;

use super::memory::{Run, Term, base_bytes, nf4};
use super::network::Network;
use super::stack::{Sharding, Stack, States, Storage, Streaming};

/// Python with torch and CUDA's host side. Source: resident size of an idle torch process with a CUDA context, 2-3 GB.
const PROCESS_BYTES: u64 = 2_500_000_000;
/// Bytes a parameter of ZeRO-3 with everything in host memory: f32 weights 4, moments 8, f32 gradients 4, bf16 weights 2.
const ZERO3_BYTES: u64 = 18;
/// Bytes a parameter of mixed-precision Adam kept in tiers: bf16 and f32 weights, bf16 gradients, two f32 moments.
const TIERED_BYTES: u64 = 16;

/// Terms in host memory.
pub(super) fn terms(run: &Run) -> Vec<Term> {
    let (network, stack) = (run.network, run.stack);
    let mut terms = Vec::new();
    if stack.streaming == Streaming::Blocks {
        terms.push(Term::held("pinned base", pinned_base(network, stack)));
    }
    if stack.sharding == Sharding::Zero3Host {
        terms.push(Term::held("ZeRO-3 state", ZERO3_BYTES * network.parameters()));
    } else {
        match stack.states {
            States::Device => {}
            // Paged state is all in host memory when the weights and gradients fill the card: f32 moments.
            States::Paged => terms.push(Term::held("paged state", 8 * network.parameters())),
            States::Host => {
                let pinned = pinned_copy(network);
                terms.push(Term::held("pinned weights", pinned));
                terms.push(Term::held("pinned gradients", pinned));
                terms.push(Term::held("moments", 4 * network.parameters()));
            }
        }
    }
    terms.push(Term::held("process", PROCESS_BYTES));
    terms
}

/// Blocks of the base in pinned memory.
pub(super) fn pinned_base(network: &Network, stack: &Stack) -> u64 {
    match stack.storage {
        Storage::Dense => 2 * network.linear(),
        _ => nf4(network.linear(), stack.storage),
    }
}

/// State of all cards in all tiers, with the kept inputs of each card's micro-batch.
pub(super) fn all_tiers(run: &Run) -> u64 {
    let inputs = 2 * run.network.hidden * run.network.layers * run.micro_batch * run.sequence;
    TIERED_BYTES * run.network.parameters() + run.cards * inputs
}

/// Bytes of every weight in pinned memory: torch rounds each pinned tensor up to a power of two.
fn pinned_copy(network: &Network) -> u64 {
    let round = |numbers: u64| if numbers == 0 { 0 } else { (2 * numbers).next_power_of_two() };
    let block: u64 = Linear::ALL
        .iter()
        .map(|&linear| network.linear_shape(linear))
        .map(|[inputs, outputs]| round(inputs * outputs))
        .sum();
    network.layers * block + round(network.embedding()) + round(network.head_own())
}

/// Weights on the card that stay, for a card of `run.cards`.
pub(super) fn resident_base(run: &Run) -> u64 {
    let (network, stack) = (run.network, run.stack);
    match (stack.streaming, stack.sharding) {
        (Streaming::Blocks, _) => base_bytes(network, stack) - pinned_base(network, stack) + pool(network, stack),
        (Streaming::Resident, Sharding::None) => base_bytes(network, stack),
        (Streaming::Resident, Sharding::Fsdp) => base_bytes(network, stack) / run.cards,
        (Streaming::Resident, Sharding::Zero3Host) => 0,
    }
}

/// Two blocks of a streamed base.
fn pool(network: &Network, stack: &Stack) -> u64 {
    2 * pinned_base(network, stack) / network.layers
}
