//! The planner's view of a described machine, freshly started and otherwise idle.
//!
//! In:    a [`Described`] machine, the directories of the nvme tier.
//! Out:   a [`Machine`].
//! Never: reads the machine it runs on.

use std::path::PathBuf;

use super::links::drive_rates;
use super::rates::rates;
use super::{Described, Vendor};
use crate::machine::{CudaCard, IoProfile, Machine};

/// The kernel describes every page of 4096 bytes with 64: a 64th of the memory is gone before a program starts.
const PAGE_TABLE_SHARE: u64 = 64;
/// What a Linux desktop takes before anybody opens a program (1 to 2 GB); a server takes less.
const SYSTEM_BYTES: u64 = 2_000_000_000;
/// Transfers that suit NVMe drives.
const CHUNK_BYTES: u64 = 4 << 20;
const QUEUE_DEPTH: usize = 32;

impl Described {
    /// What a plan can count on: memory less the kernel's 64th and 2 GB for the system, on each card what a CUDA process can get, the
    /// drives' rates spread evenly over `nvme_paths`.
    pub fn machine(&self, nvme_paths: &[PathBuf]) -> Machine {
        let platform = self.platform();
        let total = self.ram_bytes - self.ram_bytes / PAGE_TABLE_SHARE;
        let free = total - SYSTEM_BYTES.min(total / 4);
        let (unified, cards) = (self.unified(), self.gpu.as_ref().filter(|(gpu, _)| !gpu.unified));
        Machine {
            memory_available_bytes: match unified {
                // Metal lets the graphics part work on three quarters unless it is told otherwise.
                Some(machine) if machine.vendor == Vendor::Apple => free.min(total / 4 * 3),
                _ => free,
            },
            memory_total_bytes: total,
            cgroup_available_bytes: None,
            cores: unified.and_then(|machine| machine.cpu_cores).unwrap_or(platform.cores) as usize,
            fast_bf16: match unified {
                Some(machine) => machine.bf16_tflops.is_some(),
                None => platform.bf16_tflops.is_some(),
            },
            cuda: cards.map_or_else(Vec::new, |(gpu, count)| {
                let card = CudaCard { available_bytes: gpu.memory_bytes(), fast_bf16: gpu.bf16_tflops.is_some() };
                vec![card; *count as usize]
            }),
            vulkan: Vec::new(),
            missing: Default::default(),
            device_rates: Vec::new(),
            io: self.io(nvme_paths),
            cards: cards.map_or(1, |(_, count)| *count),
            rates: rates(self),
        }
    }

    fn io(&self, nvme_paths: &[PathBuf]) -> Vec<IoProfile> {
        let Some(drives) = drive_rates(self) else { return Vec::new() };
        let each = |bytes_per_second: f64| (bytes_per_second / nvme_paths.len() as f64) as u64;
        let profile = |path: &PathBuf| IoProfile {
            path: path.clone(),
            chunk_bytes: CHUNK_BYTES,
            queue_depth: QUEUE_DEPTH,
            read_bytes_per_second: each(drives.read_bytes_per_second),
            write_bytes_per_second: each(drives.write_bytes_per_second),
        };
        nvme_paths.iter().map(profile).collect()
    }
}
