//! How other trainers spend memory and time, and how far this arithmetic is from what their authors published.
//!
//! In:    tables of published runs under `stacks/rows/`, each with the program that made it described by closed enums.
//! Out:   [`calibration`] and [`speed_calibration`]: predicted against published, row by row; [`engine_band`].
//! Never: a constant of its own for one row. What a source does not say stands in that row as `assumed`.

mod activations;
mod cards;
mod host;
mod memory;
mod network;
mod rows;
mod speed;
mod speed_rows;
mod stack;
mod tables;

pub use cards::{Card, PUBLISHED_CARDS};
pub use memory::{Estimate, Moment, MomentMemory, Run, Term, estimate};
pub use network::{FeedForward, Head, Network, Norm, Residual};
pub use rows::{Measured, Quality, RowError, RowResult, RowSet, calibration};
pub use speed::{
    Band, Drives, EngineClass, Overlap, Placement, Products, Recompute, SpeedRun, Trained, engine_band,
    tokens_per_second,
};
pub use speed_rows::{SpeedResult, speed_calibration};
pub use stack::{
    Adapters, Counter, Gradients, Keep, Kernels, Loading, Loss, Optimizer, Sharding, Stack, States, Storage, Streaming,
    Weights,
};
pub use tables::calibration_markdown;

#[cfg(test)]
mod tests;
