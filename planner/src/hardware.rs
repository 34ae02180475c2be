//! Parts that machines are made of: cards, processors with their memory channels, drives.
//!
//! In:    the built-in catalogue, and catalogue files of the user.
//! Out:   entries by name, or an error with the nearest names; a described machine for the planner.
//! Never: looks at the machine it runs on.

mod catalogue;
mod describe;
mod error;
mod links;
mod machine;
mod names;
mod rates;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use catalogue::{Catalogue, Part};
pub use describe::Asked;
pub use error::HardwareError;
pub use links::{CardLink, card_link};
pub use rates::rates;

/// Device memory that driver and firmware keep from programs, bytes: a 24 GiB card offers 23.5 to 23.7 GiB, an 80 GiB one 79.1 to 79.6.
/// Source: `total_memory` as PyTorch reports it on such cards, general knowledge. A display takes more.
const DRIVER_BYTES: u64 = 500_000_000;

/// Who makes a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Vendor {
    /// CUDA.
    Nvidia,
    /// ROCm, Vulkan.
    Amd,
    /// Vulkan, oneAPI.
    Intel,
    /// Metal.
    Apple,
}

/// What a card is sold for: decides how much of its peak it sustains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Boosts beyond the clock of its published figure.
    #[default]
    Consumer,
    /// Workstation and small server cards: board power holds them back.
    Workstation,
    /// Made for long runs at full power.
    DataCentre,
}

/// A card, or a machine whose graphics part shares the machine's memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// As typed: `rtx-4090`.
    pub name: String,
    /// As sold: `GeForce RTX 4090`.
    pub title: String,
    /// Maker.
    pub vendor: Vendor,
    /// What it is sold for.
    #[serde(default)]
    pub class: Class,
    /// Memory as sold, GiB: what is called a 24 GB card has 24 GiB. Of a unified machine all of its memory.
    pub memory_gib: f64,
    /// What driver or firmware shows of it, GiB, where that is known to be less: GDDR6 with error correction on shows 15/16.
    #[serde(default)]
    pub usable_gib: Option<f64>,
    /// The memory is the machine's own.
    #[serde(default)]
    pub unified: bool,
    /// Processor cores of a unified machine.
    #[serde(default)]
    pub cpu_cores: Option<u32>,
    /// Memory bandwidth, GB/s.
    pub bandwidth_gb: f64,
    /// Dense bf16 products with f32 sums, TFLOPS, peak; absent where the hardware has none.
    #[serde(default)]
    pub bf16_tflops: Option<f64>,
    /// Dense fp16 products with f32 sums, TFLOPS, peak, where bf16 is missing.
    #[serde(default)]
    pub fp16_tflops: Option<f64>,
    /// Plain f32, TFLOPS, peak.
    pub fp32_tflops: f64,
    /// Large 16-bit products as somebody measured them, TFLOPS.
    #[serde(default)]
    pub measured_tflops: Option<f64>,
    /// PCIe generation; absent for unified machines.
    #[serde(default)]
    pub pcie_generation: Option<u8>,
    /// PCIe lanes.
    #[serde(default)]
    pub pcie_lanes: Option<u8>,
    /// Link between cards, GB/s of both ways together.
    #[serde(default)]
    pub card_link_gb: Option<f64>,
    /// Board power, W; of a unified machine that of the whole machine.
    pub watts: f64,
    /// Other names it is known by.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Where the figures come from, and how sure they are; of a user's entry without one, its file.
    #[serde(default)]
    pub source: String,
}

impl Gpu {
    /// What a program may take of the memory, bytes: as shown by the driver, less what the driver keeps.
    pub fn memory_bytes(&self) -> u64 {
        gib(self.usable_gib.unwrap_or(self.memory_gib)).saturating_sub(DRIVER_BYTES)
    }
}

/// A processor with its platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// As typed: `threadripper-3960x`.
    pub name: String,
    /// As sold.
    pub title: String,
    /// Cores.
    pub cores: u32,
    /// Memory channels.
    pub memory_channels: u32,
    /// Transfers a second and channel, MT/s, the fastest that is supported.
    pub memory_mts: u32,
    /// PCIe generation of the lanes.
    pub pcie_generation: u8,
    /// PCIe lanes of the processor for cards and drives, without those to the chipset.
    pub pcie_lanes: u32,
    /// What everything behind the chipset shares, GB/s one way; absent where a platform has none.
    #[serde(default)]
    pub chipset_link_gb: Option<f64>,
    /// Sustained f32 products, TFLOPS, all cores.
    pub fp32_tflops: f64,
    /// Sustained bf16 products, TFLOPS, where the processor has instructions for them.
    #[serde(default)]
    pub bf16_tflops: Option<f64>,
    /// The most that the package draws for long, W.
    pub watts: f64,
    /// Largest memory of the platform, GB.
    #[serde(default)]
    pub memory_gb_max: Option<u32>,
    /// Other names it is known by.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Where the figures come from, and how sure they are; of a user's entry without one, its file.
    #[serde(default)]
    pub source: String,
}

impl Cpu {
    /// Sustained rate of the host memory, bytes a second: 0.8 of channels x 8 bytes x transfers (0.75 to 0.85 are reached).
    pub fn dram_bytes_per_second(&self) -> f64 {
        f64::from(self.memory_channels) * 8.0 * f64::from(self.memory_mts) * 1e6 * 0.8
    }

    /// What is assumed where no processor was named: a desktop with eight cores and two channels of DDR5.
    pub fn usual() -> Cpu {
        Cpu {
            name: "desktop".to_string(),
            title: "a usual desktop: 8 cores, 2 channels of DDR5-5200, 20 lanes of PCIe 4".to_string(),
            cores: 8,
            memory_channels: 2,
            memory_mts: 5200,
            pcie_generation: 4,
            pcie_lanes: 20,
            chipset_link_gb: Some(7.0),
            fp32_tflops: 0.8,
            bf16_tflops: None,
            watts: 125.0,
            memory_gb_max: Some(192),
            aliases: Vec::new(),
            source: "assumed".to_string(),
        }
    }
}

/// A drive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ssd {
    /// As typed: `990-pro-2tb`.
    pub name: String,
    /// As sold.
    pub title: String,
    /// Capacity, GB.
    pub capacity_gb: u64,
    /// Sequential reads, MB/s.
    pub read_mb: f64,
    /// Sequential writes, MB/s.
    pub write_mb: f64,
    /// Sequential writes once the drive's fast cache is full, MB/s; absent where it has none.
    #[serde(default)]
    pub sustained_write_mb: Option<f64>,
    /// Rated endurance, TB written.
    pub tbw: f64,
    /// Drive writes per day over the warranty.
    #[serde(default)]
    pub dwpd: Option<f64>,
    /// PCIe generation; four lanes.
    pub pcie_generation: u8,
    /// Other names it is known by.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Where the figures come from, and how sure they are; of a user's entry without one, its file.
    #[serde(default)]
    pub source: String,
}

/// A machine made of catalogue entries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Described {
    /// The card and how many of them; `None` computes on the processor.
    pub gpu: Option<(Gpu, u32)>,
    /// The processor; `None` where none was named: a usual desktop is assumed and said. Always `None` with a unified machine.
    pub cpu: Option<Cpu>,
    /// Host memory, bytes; of a unified machine all of it.
    pub ram_bytes: u64,
    /// Drives.
    pub ssds: Vec<Ssd>,
    /// What was assumed, and what does not go together, in words.
    pub notes: Vec<String>,
}

impl Described {
    /// The unified machine, if it is one.
    pub fn unified(&self) -> Option<&Gpu> {
        self.gpu.as_ref().map(|(gpu, _)| gpu).filter(|gpu| gpu.unified)
    }

    /// The processor named, or [`Cpu::usual`].
    pub fn platform(&self) -> Cpu {
        self.cpu.clone().unwrap_or_else(Cpu::usual)
    }
}

fn gib(amount: f64) -> u64 {
    (amount * f64::from(1 << 30)) as u64
}

#[cfg(test)]
mod tests;
