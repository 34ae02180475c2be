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
    /// Each kernel by itself, where they were measured; else [`ComputeRates::kernels`] derives them.
    #[serde(default)]
    pub measured: Option<KernelRates>,
}

/// What single kernels sustain where they differ from the rates of their class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KernelRates {
    /// Gradients of weights, floating-point operations a second.
    pub weight_gradient_flops: f64,
    /// Products with one side as short as an adapter's rank, floating-point operations a second.
    pub low_rank_flops: f64,
    /// A product's time grows by what its weight needs to be read and packed, bytes a second; infinite where reading overlaps with
    /// arithmetic, which then takes the longer of both.
    pub weight_bytes_per_second: f64,
    /// Attention's backward pass, floating-point operations a second.
    pub attention_backward_flops: f64,
    /// Gated activations, bytes read and written a second.
    pub gate_bytes_per_second: f64,
    /// What the head takes beside its products, for softmax and its gradient, logits a second: a head that a cache holds.
    pub logits_per_second: f64,
    /// The same for a head beyond [`FAR_HEAD_BYTES`], whose weight comes from memory again and again.
    pub far_logits_per_second: f64,
}

/// A head's weight larger than this is in no cache of usual processors.
pub const FAR_HEAD_BYTES: f64 = 32.0 * 1024.0 * 1024.0;
/// Bytes that softmax over the vocabulary reads and writes of one logit: the largest, the sum, the gradient.
const LOGIT_BYTES: f64 = 16.0;

impl ComputeRates {
    /// Rates of the three classes; single kernels follow from them.
    pub fn new(matmul_flops: f64, attention_flops: f64, vector_bytes_per_second: f64) -> ComputeRates {
        ComputeRates { matmul_flops, attention_flops, vector_bytes_per_second, measured: None }
    }

    /// Kernel by kernel: as measured, or derived.
    pub fn kernels(&self) -> KernelRates {
        self.measured.unwrap_or(KernelRates {
            weight_gradient_flops: self.matmul_flops,
            low_rank_flops: self.matmul_flops,
            weight_bytes_per_second: f64::INFINITY,
            attention_backward_flops: self.attention_flops,
            gate_bytes_per_second: self.vector_bytes_per_second,
            logits_per_second: self.vector_bytes_per_second / LOGIT_BYTES,
            far_logits_per_second: self.vector_bytes_per_second / LOGIT_BYTES,
        })
    }
}

/// What the host's processor does beside the products.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HostRates {
    /// An update with f32 states, bytes read and written a second.
    pub update_bytes_per_second: f64,
    /// An update with states in 8 or 16 bits, which arithmetic bounds: parameters a second.
    pub rounded_parameters_per_second: f64,
    /// One thread copying memory, bytes read and written a second.
    pub copy_bytes_per_second: f64,
    /// Calling one operation, whatever its size: seconds.
    pub call_seconds: f64,
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
    /// The host beside the products, where it was measured; else [`Rates::host`] derives it.
    #[serde(default)]
    pub host: Option<HostRates>,
    /// A real step takes `seconds / band[1] ..= seconds / band[0]` of the estimate: 1.0 is the estimate itself.
    pub band: [f64; 2],
}

/// Parameters a second that one update with rounded states takes for each byte a second of memory: 2.8 ns on one thread beside a triad
/// of 17 GB/s on it (docs/LOG.md).
const ROUNDED_PARAMETERS_PER_BYTE: f64 = 1.0 / 48.0;
/// One thread's part of the memory's rate on a desktop with two channels.
const COPY_SHARE: f64 = 0.4;
/// A drive that nobody measured: reads and writes of a mid-range drive on PCIe 3.
const USUAL_NVME: NvmeRates = NvmeRates { read_bytes_per_second: 2.5e9, write_bytes_per_second: 1.5e9 };

impl Rates {
    /// Usual figures of a desktop processor: what a plan is made with before `tune doctor` has measured.
    pub fn usual(cores: usize) -> Rates {
        let cores = cores as f64;
        let compute = |flops: f64| ComputeRates::new(flops * cores, flops / 2.0 * cores, 5e9 * cores);
        Rates {
            origin: RatesOrigin::Usual,
            f32: compute(50e9),
            bf16: compute(40e9),
            device_bytes_per_second: 20e9,
            dram_bytes_per_second: 20e9,
            host_link_bytes_per_second: None,
            card_link_bytes_per_second: None,
            nvme: None,
            host: None,
            band: [0.5, 2.0],
        }
    }

    /// The host beside the products: as measured, or derived from its memory's rate.
    pub fn host(&self) -> HostRates {
        self.host.unwrap_or(HostRates {
            update_bytes_per_second: self.dram_bytes_per_second,
            rounded_parameters_per_second: self.dram_bytes_per_second * ROUNDED_PARAMETERS_PER_BYTE,
            copy_bytes_per_second: self.dram_bytes_per_second * COPY_SHARE,
            call_seconds: 0.0,
        })
    }

    /// The drives: as measured or described, or usual ones.
    pub fn drives(&self) -> NvmeRates {
        self.nvme.unwrap_or(USUAL_NVME)
    }
}
