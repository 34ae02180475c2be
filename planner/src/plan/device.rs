//! The device of a plan.
//!
//! In:    nothing.
//! Out:   [`DeviceChoice`], its name in a recipe and its memory's.
//! Never: looks for the device.

use std::fmt;

use recipes::DeviceName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the network computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    /// The host processor.
    Cpu,
    /// NVIDIA card by index.
    Cuda(usize),
    /// Vulkan device.
    Vulkan {
        /// Cards first, software last.
        index: usize,
        /// It computes in the host's memory: a processor's own graphics, or software.
        shares_memory: bool,
    },
}

impl DeviceChoice {
    /// Its name in a recipe.
    pub fn name(self) -> DeviceName {
        match self {
            DeviceChoice::Cpu => DeviceName::Cpu,
            DeviceChoice::Cuda(index) => DeviceName::Cuda(index),
            DeviceChoice::Vulkan { index, .. } => DeviceName::Vulkan(index),
        }
    }

    /// The host's processor itself.
    pub fn is_host(self) -> bool {
        self == DeviceChoice::Cpu
    }

    /// What it computes in is other memory than the host's.
    pub fn has_own_memory(self) -> bool {
        match self {
            DeviceChoice::Cpu => false,
            DeviceChoice::Cuda(_) => true,
            DeviceChoice::Vulkan { shares_memory, .. } => !shares_memory,
        }
    }

    /// How its memory is called.
    pub fn memory_name(self) -> String {
        if self.has_own_memory() { format!("{self} memory") } else { "memory".to_string() }
    }
}

/// As a recipe names it.
impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}
