//! Parts that machines are made of: cards, processors with their memory channels, drives.
//!
//! In:    the built-in catalogue, and catalogue files of the user.
//! Out:   entries by name, or an error with the nearest names; a described machine for the planner.
//! Never: looks at the machine it runs on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// A card, or the graphics part of a machine with one memory for all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// As typed: `rtx-4090`.
    pub name: String,
    /// As sold: `GeForce RTX 4090`.
    pub title: String,
    /// Maker.
    pub vendor: Vendor,
    /// Memory, GB (1e9 bytes; for GiB-sized cards the usual round number times 2^30 / 1e9 is taken by [`Gpu::memory_bytes`]).
    pub memory_gib: f64,
    /// The memory is the machine's own.
    #[serde(default)]
    pub unified: bool,
    /// Memory bandwidth, GB/s.
    pub bandwidth_gb: f64,
    /// Dense bf16 products with f32 sums, TFLOPS; absent where the card has none.
    #[serde(default)]
    pub bf16_tflops: Option<f64>,
    /// Dense fp16 products, TFLOPS, where bf16 is missing.
    #[serde(default)]
    pub fp16_tflops: Option<f64>,
    /// Plain f32, TFLOPS.
    #[serde(default)]
    pub fp32_tflops: Option<f64>,
    /// PCIe generation; absent for unified machines.
    #[serde(default)]
    pub pcie_generation: Option<u8>,
    /// PCIe lanes.
    #[serde(default)]
    pub pcie_lanes: Option<u8>,
    /// Link between cards, GB/s both ways.
    #[serde(default)]
    pub card_link_gb: Option<f64>,
    /// Board power, W.
    pub watts: f64,
    /// Where the figures come from, and how sure they are.
    pub source: String,
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
    /// Transfers a second and channel, MT/s.
    pub memory_mts: u32,
    /// PCIe generation of the lanes.
    pub pcie_generation: u8,
    /// PCIe lanes for cards and drives.
    pub pcie_lanes: u32,
    /// Sustained f32 products, TFLOPS, all cores.
    pub fp32_tflops: f64,
    /// Sustained bf16 products, TFLOPS, where the processor has instructions for them.
    #[serde(default)]
    pub bf16_tflops: Option<f64>,
    /// Power, W.
    pub watts: f64,
    /// Largest memory of the platform, GB.
    #[serde(default)]
    pub memory_gb_max: Option<u32>,
    /// Where the figures come from, and how sure they are.
    pub source: String,
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
    /// PCIe generation.
    pub pcie_generation: u8,
    /// Where the figures come from, and how sure they are.
    pub source: String,
}

/// A machine made of catalogue entries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Described {
    /// The card and how many of them; `None` computes on the processor.
    pub gpu: Option<(Gpu, u32)>,
    /// The processor; `None` where none was named: a usual desktop is assumed and said.
    pub cpu: Option<Cpu>,
    /// Host memory, bytes; of a unified machine all of it.
    pub ram_bytes: u64,
    /// Drives.
    pub ssds: Vec<Ssd>,
}
