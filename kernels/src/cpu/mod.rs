//! The operations Burn lacks or does slowly, for the CPU, on plain slices.
//!
//! In:    row-major arrays of `f32` or `bf16`, flat over the tokens of a micro-batch (segments laid end to end).
//! Out:   results that are bit-identical from run to run and for every number of threads.
//! Never: imports Burn, allocates large buffers in a steady step, calls libm in an inner loop.
//!
//! Inner loops are compiled for AVX-512, AVX2 and NEON and chosen at run time (`multiversion`); arithmetic is `f32`.
//! Work is cut by shapes, never by the number of threads, and runs on rayon's current pool.

pub mod attention;
pub mod attention_backward;
pub mod attention_cached;
mod attention_schedule;
pub mod bias;
pub mod cross_entropy;
pub mod dropout;
pub mod element;
pub mod elementwise;
pub mod gated;
mod math;
pub mod norm;
mod parallel;
pub mod rotary;
pub(crate) mod scratch;
pub mod tile;

#[cfg(test)]
mod tests;

pub use attention::{AttentionInputs, AttentionShape, attention_forward};
pub use attention_backward::{AttentionGradients, AttentionOutputs, attention_backward};
pub use bias::{add_row, column_sums};
pub use cross_entropy::{IGNORED_TARGET, cross_entropy_rows, softmax_cross_entropy_rows};
pub use dropout::Dropout;
pub use element::{Element, narrow, widen};
pub use elementwise::{add_in_place, add_scaled_in_place, scale_in_place};
pub use gated::{Gate, GatedInputs, gated_backward, gated_forward};
pub use norm::{rms_norm_backward, rms_norm_forward, rms_norm_weight_gradient};
pub use rotary::{RotaryTable, Rotation, rotate};
