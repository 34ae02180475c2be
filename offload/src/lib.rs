//! Bytes between memory and disk, and the optimizer arithmetic that runs over them on the host.
//!
//! In:    paths of files to map; flat slices of parameters, gradients and moments.
//! Out:   read-only maps; parameters updated in place, the same bits for every split and thread count.
//! Never: knows a model.

pub mod adamw;
pub mod map;
