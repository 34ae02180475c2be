//! Kernels for every CubeCL runtime: one source for CUDA, Vulkan and what else CubeCL compiles to.
//!
//! In:    buffers on a device, row-major, contiguous; a client to launch on.
//! Out:   buffers on the same device, enqueued, not waited for.
//! Never: sums in another order from call to call: no atomics; sums in less than f32.
//!
//! Numbers are f32 or bf16; what a kernel reduces it reduces in f32. Tests run every kernel on Vulkan, in software where there is no card.

mod attention;
mod cross_entropy;
mod elementwise;
mod int8;
mod launch;
mod nf4;
mod norm;
mod optimizer;

pub use attention::{
    Rows, Shape as AttentionShape, Tile, add_tile, attention, attention_backward, attention_delta, tile_softmax,
    tile_softmax_gradient,
};
pub use cross_entropy::cross_entropy;
pub use elementwise::{Gate, Rotation, gated, gated_backward, rotary};
pub use int8::decode_int8;
pub use launch::{Buffer, Number};
pub use nf4::{Nf4, decode};
pub use norm::{rms_norm, rms_norm_dw, rms_norm_dx};
pub use optimizer::{AdamW, adamw};

#[cfg(test)]
mod tests;
