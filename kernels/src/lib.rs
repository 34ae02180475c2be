//! The operations Burn lacks for training a decoder block by block, as a Burn backend extension.
//!
//! In:    Burn tensors; tokens of a micro-batch laid end to end (`t`), no padding, rows bounded by segments.
//! Out:   Burn tensors that carry gradients; on the CPU through fused kernels, elsewhere through plain Burn.
//! Never: knows a model, a file or a plan.
//!
//! Each operation exists as a plain-Burn twin ([`twin`]) that runs on every device and is the reference, and
//! as a CPU kernel ([`cpu`], glued to Burn's Flex backend in [`flex`]). [`autodiff`] holds the hand-written
//! backward passes once for all backends. Shape letters: `t` tokens, `i` inputs, `o` outputs, `r` rank,
//! `d` model width, `h` heads times head width, `v` vocabulary.

pub mod autodiff;
mod cached;
#[cfg(feature = "card")]
mod card;
pub mod check;
pub mod cpu;
pub mod devices;
pub mod embedding;
mod flex;
mod gemm;
pub mod head;
pub mod int8;
pub mod measure;
pub mod memory;
pub mod nf4;
pub mod ops;
mod packed;
pub mod twin;
mod weight;

pub use cached::{KeyValues, cached_attention};
pub use ops::{
    AttentionGeometry, Dropout, Gate, Lora, adapted_linear, add_bias, attention, frozen_linear, gated, lora_linear,
    ready_factors, rms_norm, rotary, seed_gradient, trainable_linear, trainable_rms_norm,
};

pub use packed::{PackedFormat, PackedView};
pub use weight::{PackedWeight, Weight};

#[cfg(test)]
mod cached_tests;
#[cfg(all(test, feature = "wgpu"))]
mod card_tests;
#[cfg(test)]
mod nf4_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod training_tests;
