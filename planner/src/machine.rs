//! What the machine has, as far as a plan depends on it.
//!
//! In:    numbers that `cli/` reads from the system.
//! Out:   the budget of a device.
//! Never: reads the system itself, so that the same numbers give the same plan anywhere.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::DeviceChoice;
use crate::rates::Rates;

/// Share of the free memory that `auto` may plan with; the rest is for what else runs and for what no formula names.
const AUTO_SHARE_PERCENT: u64 = 90;

/// What the machine has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// Memory that programs can still take, bytes (`MemAvailable`).
    pub memory_available_bytes: u64,
    /// Memory in all, bytes (`MemTotal`).
    pub memory_total_bytes: u64,
    /// What this process's control group may still take, bytes; `None` without a limit.
    pub cgroup_available_bytes: Option<u64>,
    /// Processor cores that this process may use.
    pub cores: usize,
    /// The processor multiplies bfloat16 in hardware (AVX512-BF16).
    pub fast_bf16: bool,
    /// Free memory of each CUDA card this build can use, bytes.
    pub cuda_available_bytes: Vec<u64>,
    /// What was measured on the drives, now or earlier; a directory that was never measured is absent.
    pub io: Vec<IoProfile>,
    /// Cards that share the work, each with its own copy of what is on the device; 1 on the CPU.
    pub cards: u32,
    /// What the machine sustains.
    pub rates: Rates,
}

/// How a directory's drive is best read and written, measured once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IoProfile {
    /// The directory, as a recipe names it.
    pub path: PathBuf,
    /// Bytes of one transfer.
    pub chunk_bytes: u64,
    /// Transfers in flight.
    pub queue_depth: usize,
    /// Rate of reading that way.
    pub read_bytes_per_second: u64,
    /// Rate of writing over what was written before that way.
    pub write_bytes_per_second: u64,
}

impl Machine {
    /// Memory that `hardware.memory = "auto"` means on `device`, bytes; zero for a card that is not there.
    pub fn auto_budget_bytes(&self, device: DeviceChoice) -> u64 {
        let free = match device {
            DeviceChoice::Cpu => self.memory_available_bytes.min(self.cgroup_available_bytes.unwrap_or(u64::MAX)),
            DeviceChoice::Cuda(index) => self.cuda_available_bytes.get(index).copied().unwrap_or(0),
        };
        free / 100 * AUTO_SHARE_PERCENT
    }
}
