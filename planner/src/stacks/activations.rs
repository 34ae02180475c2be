//! Bytes per token that a block keeps for its backward pass, counted operation by operation.
//!
//! In:    a [`Network`] and the [`Stack`] that runs it.
//! Out:   bytes per token of one block.
//! Never: a fitted factor.
//!
//! Legend: `h` width of the residual stream, `f` of the feed-forward part, `kv` of all keys. Two bytes a number unless it says f32.

use super::network::{FeedForward, Network, Norm, Residual};
use super::stack::{Keep, Kernels, Stack, Storage, Weights};

/// What one block keeps for one token once its forward pass is over, bytes.
pub(super) fn kept(network: &Network, stack: &Stack) -> u64 {
    match stack.keep {
        Keep::None | Keep::InputOnHost => 0,
        Keep::Input => 2 * network.hidden,
        // Input, q, v, attention's output, gate, the block's last product: every second product and what attention returns.
        Keep::Selective => 8 * network.hidden + 2 * network.kv + 2 * network.intermediate,
        Keep::All => whole(network, stack),
    }
}

/// What the block in work holds for one token during its backward pass: all of it, and the gradients that are on their way.
pub(super) fn live(network: &Network, stack: &Stack) -> u64 {
    // Gradients of the stream and of a sublayer's output (2h each), of the gate and of up (2f each).
    let gradients = 4 * (network.hidden + network.intermediate);
    if stack.keep == Keep::None { 0 } else { whole(network, stack) + gradients }
}

fn whole(network: &Network, stack: &Stack) -> u64 {
    match stack.kernels {
        Kernels::Fused => fused(network),
        Kernels::Eager => eager(network),
        Kernels::EagerFrozen => eager_frozen(network, stack),
        Kernels::EagerVision => eager_vision(network),
    }
}

/// x, its norm, q, attention's output, the stream, its norm (2h each), k and v; gate, up, product (the activation is recomputed).
fn fused(network: &Network) -> u64 {
    let feed_forward = if network.feed_forward == FeedForward::Gated { 6 } else { 4 };
    12 * network.hidden + 4 * network.kv + feed_forward * network.intermediate
}

/// A norm made of single operations keeps its input in f32 (4h), the normed number (2h, for the gain's gradient) and its output (2h); keys and
/// values are repeated to all query heads before attention (q, k, v, output: 8h); gate, activation, up, product (8f).
fn eager(network: &Network) -> u64 {
    let norm = if network.norm == Norm::Rms { 8 } else { 4 };
    let feed_forward = if network.feed_forward == FeedForward::Gated { 8 } else { 4 };
    (2 * norm + 8) * network.hidden + feed_forward * network.intermediate
}

/// Frozen weights keep no inputs. What stays: each norm's input, the dropped-out input of the adapters with its mask (3h), q, k, v in one tensor that
/// v is a view of (2h + 4kv), rotated q and k and attention's output (4h + 2kv), what the activation and the gate's product need.
fn eager_frozen(network: &Network, stack: &Stack) -> u64 {
    let (h, f, kv) = (network.hidden, network.intermediate, network.kv);
    let norms = if network.residual == Residual::SharedNorm { 1 } else { 2 };
    let inputs = if network.residual == Residual::Serial { 2 } else { 1 };
    let norm = match network.norm {
        Norm::Rms => 4 * h * norms,
        Norm::Layer => 2 * h * inputs,
    };
    let feed_forward = if network.feed_forward == FeedForward::Gated { 6 * f } else { 2 * f };
    let dense = norm + 3 * h + (2 * h + 4 * kv) + (4 * h + 2 * kv) + feed_forward;
    // bitsandbytes 0.41 keeps the input of each quantised product; autocast keeps f32 next to bf16 before each product.
    let quantised = if stack.storage == Storage::Dense { 0 } else { 2 * h * norms + 2 * h + 2 * f };
    let mixed = if stack.weights == Weights::AmpFrozen { norm + 4 * h } else { 0 };
    dense + quantised + mixed
}

/// LayerNorm's input and output twice (8h), q, k, v, output (8h), two layer scales (4h); packed gate and up, activation, product (8f).
fn eager_vision(network: &Network) -> u64 {
    20 * network.hidden + 8 * network.intermediate
}
