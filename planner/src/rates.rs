//! What a machine sustains: the rates that turn floating-point operations and bytes into seconds.
//!
//! In:    measured by `tune doctor`, or derived from catalogue entries.
//! Out:   [`Rates`], which the time model divides by.
//! Never: measures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where rates come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RatesOrigin {
    /// Measured on this machine by `tune doctor`.
    Measured,
    /// Derived from published figures of the parts.
    Catalogue,
    /// Usual figures of such a machine: neither measured nor described.
    Usual,
}

/// What one device sustains in one number format.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ComputeRates {
    /// Matrix products of a block's linear layers, floating-point operations a second.
    pub matmul_flops: f64,
    /// Attention over rows, floating-point operations a second.
    pub attention_flops: f64,
    /// Norms, rotations, activations: bytes read and written a second.
    pub vector_bytes_per_second: f64,
}

/// Rates of the drives that hold the nvme tier, all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NvmeRates {
    /// Sequential reads, bytes a second.
    pub read_bytes_per_second: f64,
    /// Sequential writes over what was written before, bytes a second.
    pub write_bytes_per_second: f64,
}

/// What a machine sustains.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rates {
    /// Where they come from.
    pub origin: RatesOrigin,
    /// The computing device in f32.
    pub f32: ComputeRates,
    /// The computing device in bf16 with f32 sums.
    pub bf16: ComputeRates,
    /// Memory of the computing device, bytes a second.
    pub device_bytes_per_second: f64,
    /// Host memory under a plain triad, bytes a second.
    pub dram_bytes_per_second: f64,
    /// One way between host and one card; `None` where the device computes in host memory.
    pub host_link_bytes_per_second: Option<f64>,
    /// One way between two cards; `None` with one card.
    pub card_link_bytes_per_second: Option<f64>,
    /// The drives; `None` where no drive is planned with or measured.
    pub nvme: Option<NvmeRates>,
    /// A real step takes `seconds / band[1] ..= seconds / band[0]` of the estimate: 1.0 is the estimate itself.
    pub band: [f64; 2],
}

impl Rates {
    /// Usual figures of a desktop processor: what a plan is made with before `tune doctor` has measured.
    pub fn usual(cores: usize) -> Rates {
        let per_core = |flops: f64| flops * cores as f64;
        let compute = |flops| ComputeRates {
            matmul_flops: per_core(flops),
            attention_flops: per_core(flops / 2.0),
            vector_bytes_per_second: per_core(5e9),
        };
        Rates {
            origin: RatesOrigin::Usual,
            f32: compute(50e9),
            bf16: compute(40e9),
            device_bytes_per_second: 20e9,
            dram_bytes_per_second: 20e9,
            host_link_bytes_per_second: None,
            card_link_bytes_per_second: None,
            nvme: None,
            band: [0.5, 2.0],
        }
    }
}
