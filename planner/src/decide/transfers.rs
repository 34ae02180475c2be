//! How many bytes one transfer to NVMe has and how many are in flight.
//!
//! In:    the recipe, what was measured on its drives.
//! Out:   [`Transfers`]: the recipe's numbers; for `auto` those that suit every drive, or usual ones where one was never measured.
//! Never: measures.

use recipes::Recipe;
use recipes::recipe::{ChunkSize, QueueDepth};

use crate::machine::{IoProfile, Machine};

/// Where a drive was never measured: 1 Mi parameters a transfer.
const CHUNK_BYTES_UNMEASURED: u64 = 4 << 20;
const QUEUE_DEPTH_UNMEASURED: usize = 32;

/// How bytes move to NVMe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transfers {
    /// Bytes of f32 parameters of one transfer.
    pub(super) chunk_bytes: u64,
    /// In flight per path.
    pub(super) queue_depth: usize,
}

/// The recipe's numbers. Drives that differ get the larger of both: a drive loses nothing by more than it needs.
pub(super) fn transfers(recipe: &Recipe, machine: &Machine) -> Transfers {
    let offload = &recipe.offload;
    let profile = |path| machine.io.iter().find(|profile| &profile.path == path);
    let measured: Option<Vec<&IoProfile>> = offload.nvme.iter().map(profile).collect();
    let measured = measured.unwrap_or_default();
    Transfers {
        chunk_bytes: match offload.chunk {
            ChunkSize::Bytes(bytes) => bytes,
            ChunkSize::Auto => {
                measured.iter().map(|profile| profile.chunk_bytes).max().unwrap_or(CHUNK_BYTES_UNMEASURED)
            }
        },
        queue_depth: match offload.queue_depth {
            QueueDepth::Transfers(depth) => depth,
            QueueDepth::Auto => {
                measured.iter().map(|profile| profile.queue_depth).max().unwrap_or(QUEUE_DEPTH_UNMEASURED)
            }
        },
    }
}
