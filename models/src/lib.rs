//! The network: one decoder described by data, run one block at a time.
//!
//! In:    a [`planner::architecture::DecoderSpec`], tensors on a Burn device, token ids.
//! Out:   hidden states, block by block, on plain tensors or on the block's own autodiff graph.
//! Never: opens a file, knows an optimizer, knows where blocks wait, or holds more than one block's graph by itself.

pub mod block;
pub mod context;
pub mod decoder;
pub mod forward;
pub mod generate;
pub mod host;
pub mod session;
pub mod source;

pub use block::{AdapterPair, Block, BlockAdapters, LinearLayer};
pub use context::RowContext;
pub use decoder::{Decoder, NormTraining, OuterGradients, TrainingLoss};
pub use forward::Stack;
pub use host::HostValues;
pub use session::Session;
pub use source::{BlockSource, BoxedError};

#[cfg(test)]
mod tests;
