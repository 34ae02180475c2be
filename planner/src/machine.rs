//! What the machine has, as far as a plan depends on it.
//!
//! In:    numbers that `cli/` reads from the system.
//! Out:   the budget of a device.
//! Never: reads the system itself, so that the same numbers give the same plan anywhere.

use std::fmt;
use std::path::PathBuf;

use recipes::DeviceName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::{DeviceChoice, Precision};
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
    /// CUDA cards this build can use.
    pub cuda: Vec<CudaCard>,
    /// Vulkan devices this build can use.
    #[serde(default)]
    pub vulkan: Vec<VulkanMemory>,
    /// Why devices of a kind are not there.
    #[serde(default)]
    pub missing: MissingDevices,
    /// What was measured on the drives, now or earlier; a directory that was never measured is absent.
    pub io: Vec<IoProfile>,
    /// Cards that share the work, each with its own copy of what is on the device; 1 on the CPU.
    pub cards: u32,
    /// What the machine sustains: the described card, or the processor.
    pub rates: Rates,
    /// What devices beside it sustain.
    #[serde(default)]
    pub device_rates: Vec<(DeviceChoice, Rates)>,
}

/// Why devices of a kind are not there, with what to do; `None` where nothing is missing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct MissingDevices {
    /// CUDA.
    pub cuda: Option<String>,
    /// Vulkan.
    pub vulkan: Option<String>,
}

/// A CUDA card, as far as a plan depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CudaCard {
    /// What may still be taken of its memory, bytes.
    pub available_bytes: u64,
    /// It multiplies bfloat16 in hardware (compute capability 8.0).
    pub fast_bf16: bool,
}

/// Memory of a Vulkan device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VulkanMemory {
    /// What may still be taken, bytes.
    pub available_bytes: u64,
    /// It is the host's.
    pub shares_memory: bool,
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

/// The device is not there, or this build cannot use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSuchDevice {
    /// As written.
    pub name: DeviceName,
    /// How many of the kind can be used.
    pub found: usize,
    /// Why there are none.
    pub missing: Option<String>,
}

impl fmt::Display for NoSuchDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no such device: {}: ", self.name)?;
        match &self.missing {
            Some(missing) => f.write_str(missing),
            None => write!(f, "{} of its kind can be used, counted from 0; tune doctor lists them", self.found),
        }
    }
}

impl std::error::Error for NoSuchDevice {}

impl Machine {
    /// Memory that `hardware.memory = "auto"` means on `device`, bytes; zero for a card that is not there.
    pub fn auto_budget_bytes(&self, device: DeviceChoice) -> u64 {
        self.available_bytes(device) / 100 * AUTO_SHARE_PERCENT
    }

    fn available_bytes(&self, device: DeviceChoice) -> u64 {
        let host = self.memory_available_bytes.min(self.cgroup_available_bytes.unwrap_or(u64::MAX));
        let vulkan = |index: usize| self.vulkan.get(index).map_or(0, |memory| memory.available_bytes);
        match device {
            DeviceChoice::Cpu => host,
            DeviceChoice::Cuda(index) => self.cuda.get(index).map_or(0, |card| card.available_bytes),
            DeviceChoice::Vulkan { index, shares_memory: true } => vulkan(index).min(host),
            DeviceChoice::Vulkan { index, shares_memory: false } => vulkan(index),
        }
    }

    /// What `model.precision = "auto"` means on `device`: bf16 where it multiplies that in hardware, else f32.
    pub fn auto_precision(&self, device: DeviceChoice) -> Precision {
        let is_fast = match device {
            DeviceChoice::Cpu => self.fast_bf16,
            DeviceChoice::Cuda(index) => self.cuda.get(index).is_some_and(|card| card.fast_bf16),
            DeviceChoice::Vulkan { .. } => false,
        };
        if is_fast { Precision::Bf16 } else { Precision::F32 }
    }

    /// The most that a recipe may promise of `device`, bytes: all of the host's memory, or what is free of a card's.
    pub fn memory_bytes_max(&self, device: DeviceChoice) -> u64 {
        if device.has_own_memory() { self.available_bytes(device) } else { self.memory_total_bytes }
    }

    fn vulkan_device(&self, index: usize) -> Option<DeviceChoice> {
        let memory = self.vulkan.get(index)?;
        Some(DeviceChoice::Vulkan { index, shares_memory: memory.shares_memory })
    }

    /// What computes at that rate.
    pub fn rates_of(&self, device: DeviceChoice) -> &Rates {
        self.device_rates.iter().find(|(named, _)| *named == device).map_or(&self.rates, |(_, rates)| rates)
    }

    /// The device a name stands for; `auto` takes a CUDA card if there is one, else the processor.
    ///
    /// # Errors
    /// [`NoSuchDevice`] with how many there are.
    pub fn device(&self, name: DeviceName) -> Result<DeviceChoice, NoSuchDevice> {
        let cards = self.cuda.len();
        let refused = |found, missing: &Option<String>| NoSuchDevice { name, found, missing: missing.clone() };
        match name {
            DeviceName::Cpu => Ok(DeviceChoice::Cpu),
            DeviceName::Auto if cards == 0 => Ok(DeviceChoice::Cpu),
            DeviceName::Auto => Ok(DeviceChoice::Cuda(0)),
            DeviceName::Cuda(index) if index < cards => Ok(DeviceChoice::Cuda(index)),
            DeviceName::Cuda(_) => Err(refused(cards, &self.missing.cuda)),
            DeviceName::Vulkan(index) => {
                self.vulkan_device(index).ok_or_else(|| refused(self.vulkan.len(), &self.missing.vulkan))
            }
        }
    }
}
