//! Bytes between memory and disk, and the optimizer arithmetic that runs over them on the host.
//!
//! In:    paths of files to map or to swap to, memory budgets; flat slices of parameters, gradients and moments.
//! Out:   read-only maps; arrays that live in memory or on NVMe; parameters updated in place, the same bits for every tier, split
//!        and thread count.
//! Never: knows a model.

pub mod array;
pub mod bench_adam;
pub mod bench_io;
pub mod buffer;
pub mod durable;
pub mod error;
pub mod faults;
pub mod group;
pub mod heap;
pub mod host;
pub mod map;
mod memory;
mod pipeline;
pub mod process;
pub mod rules;
pub mod slab;
pub mod store;
mod sync;
pub mod update;

pub use array::{Array, Place, Tiers};
pub use buffer::{Buffer, BufferPool};
pub use error::TierError;
pub use faults::FaultPlan;
pub use group::{Group, GroupLayout, GroupPlaces};
pub use host::host_memory_limit_bytes;
pub use rules::{Rule, SlotRange, Step};
pub use slab::{Slab, Slabs};
pub use store::{EngineChoice, EngineKind, EngineReport, Extent, PathTraffic, Store, StoreOptions, Ticket};
pub use update::{GradientSource, UpdateReport, Updater, buffers_needed};
