//! Tokens a second of a published run: the slowest resource of a step, times the band of its class of engine.
//!
//! In:    a [`SpeedRun`].
//! Out:   a [`Band`] of tokens a second, never wider than a factor of 2.2.
//! Never: a factor that belongs to one row.

use serde::Deserialize;

use super::cards::Card;
use super::network::Network;

/// Host Adam, seconds per 1e9 parameters. Source: DeepSpeed PR 735, 8.2 s for 11.6e9 with AVX-512.
const HOST_ADAM_SECONDS: f64 = 0.71;
/// fp8 and int8 products double the rate; casting and scaling take a fifth of that. Source: llmq's bf16 and fp8 rows of the 4090.
const LOW_PRECISION_SPEEDUP: f64 = 1.6;
/// Time of products with a base that is made bf16 from NF4 first. Source: torchtune's 8B rows, LoRA 3,083 against QLoRA 2,413 tokens/s.
const NF4_SLOWDOWN: f64 = 1.25;
/// Bytes a parameter of an update on the card with bf16 state: weight, gradient and moments read, all but the gradient written.
const DEVICE_UPDATE_BYTES: f64 = 14.0;
/// Bytes a parameter of state that a step reads from drives, and writes: f32 weight and moments, bf16 weight.
const DRIVE_BYTES: f64 = 14.0;

/// How well an engine uses what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineClass {
    /// Operation by operation in Python.
    Eager,
    /// Compiled blocks or fused kernels with flash attention: torchtune, torchtitan, llm-foundry.
    Compiled,
    /// Hand-written kernels throughout: llmq.
    HandWritten,
    /// State, or all, in host memory: DeepSpeed ZeRO, MegaTrain.
    HostOffload,
    /// State on drives: LoHan, aiDAPTIV.
    DriveOffload,
    /// A frozen base streamed block by block by Python: Soup.
    Streamed,
}

/// A step takes so many times what its slowest resource takes alone: `[least, most]`.
///
/// The slowest resource is counted with sustained rates ([`Card::sustained`] of the specified product rate), recomputed products included.
/// Source: the published rows of `rows/speed.toml`, of which [`super::speed_calibration`] shows each.
pub fn engine_band(class: EngineClass) -> [f64; 2] {
    match class {
        EngineClass::Eager => [1.3, 2.8],
        EngineClass::Compiled => [1.1, 2.35],
        EngineClass::HandWritten => [1.05, 2.0],
        EngineClass::HostOffload => [1.1, 2.4],
        EngineClass::DriveOffload => [1.05, 2.25],
        EngineClass::Streamed => [1.2, 2.6],
    }
}

/// Format of the blocks' products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Products {
    /// bf16.
    Bf16,
    /// fp8 or int8.
    EightBit,
}

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trained {
    /// All weights.
    Full,
    /// Adapters on a dense base.
    Lora,
    /// Adapters on an NF4 base.
    Qlora,
}

/// Which products run twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// None.
    None,
    /// Half of a block's.
    Selective,
    /// A block's.
    Blocks,
}

/// Where weights and state are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// On the cards.
    Resident,
    /// Optimizer state and update in host memory.
    StateOnHost,
    /// Weights and state in host memory; blocks come for each pass of each micro-batch.
    AllOnHost,
    /// As `all_on_host`, and the state on drives.
    StateOnDrives,
    /// A frozen base in host memory.
    FrozenOnHost,
}

/// Whether resources work at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The slowest alone counts.
    All,
    /// One after the other.
    None,
}

/// Drives together, GB/s.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drives {
    /// Reads.
    pub read_gb: f64,
    /// Writes.
    pub write_gb: f64,
}

/// A published run.
#[derive(Debug, Clone, Copy)]
pub struct SpeedRun<'a> {
    /// Card.
    pub card: &'a Card,
    /// How many.
    pub cards: f64,
    /// Network.
    pub network: &'a Network,
    /// Engine.
    pub engine: EngineClass,
    /// What is trained.
    pub trained: Trained,
    /// Format of products.
    pub products: Products,
    /// Recomputation.
    pub recompute: Recompute,
    /// Where weights are.
    pub placement: Placement,
    /// Overlap.
    pub overlap: Overlap,
    /// Drives, where state is on them.
    pub drives: Option<Drives>,
    /// Tokens of a row.
    pub sequence: f64,
    /// Tokens of a micro-batch of one card.
    pub micro_tokens: f64,
    /// Tokens of an update, all cards.
    pub step_tokens: f64,
}

/// Tokens a second, all cards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    /// Least.
    pub low: f64,
    /// Most.
    pub high: f64,
}

/// Tokens a second that a run should reach.
pub fn tokens_per_second(run: &SpeedRun) -> Band {
    let resources = [compute_seconds(run), link_seconds(run), host_update_seconds(run), drive_seconds(run)];
    let seconds = match run.overlap {
        Overlap::All => resources.into_iter().fold(0.0, f64::max),
        Overlap::None => resources.into_iter().sum(),
    };
    let [least, most] = engine_band(run.engine);
    Band { low: run.step_tokens / (most * seconds), high: run.step_tokens / (least * seconds) }
}

/// Products, attention and an update on the card.
fn compute_seconds(run: &SpeedRun) -> f64 {
    let network = run.network;
    let full = run.trained == Trained::Full;
    let again = match run.recompute {
        Recompute::None => 0.0,
        Recompute::Selective => 0.5,
        Recompute::Blocks => 1.0,
    };
    // Forward, gradient of inputs, gradient of weights: 2 operations a weight and token each.
    let passes = if full { 3.0 } else { 2.0 };
    let blocks = 2.0 * (passes + again) * network.linear() as f64;
    let head = 2.0 * passes * network.embedding() as f64;
    // Causal attention sees half a row: 2 s h forward, twice that backward. Source: Korthikanti et al. 2022, arXiv:2205.05198, halved.
    let attention = 2.0 * run.sequence * (network.hidden * network.layers) as f64 * (3.0 + again);
    let rate = run.card.tflops * 1e12 * run.card.sustained;
    let blocks_rate = if run.products == Products::EightBit { LOW_PRECISION_SPEEDUP * rate } else { rate };
    let slowdown = if run.trained == Trained::Qlora { NF4_SLOWDOWN } else { 1.0 };
    let products = (slowdown * blocks / blocks_rate + (head + attention) / rate) * run.step_tokens / run.cards;
    let update = if full && run.placement == Placement::Resident {
        DEVICE_UPDATE_BYTES * network.parameters() as f64 / (run.cards * run.card.bandwidth_gb * 1e9)
    } else {
        0.0
    };
    products + update
}

/// Weights to the card for forward and backward of each micro-batch, gradients back.
fn link_seconds(run: &SpeedRun) -> f64 {
    let micro_batches = run.step_tokens / run.cards / run.micro_tokens;
    let parameters = run.network.parameters() as f64;
    let linear = run.network.linear() as f64;
    let bytes = match run.placement {
        Placement::Resident => 0.0,
        Placement::StateOnHost => 4.0 * parameters / run.cards,
        Placement::AllOnHost | Placement::StateOnDrives => 6.0 * linear * micro_batches,
        Placement::FrozenOnHost if run.trained == Trained::Qlora => 2.0 * 0.516 * linear * micro_batches,
        Placement::FrozenOnHost => 4.0 * linear * micro_batches,
    };
    bytes / (run.card.link_gb * 1e9)
}

/// Adam by the host's processor, one for all cards.
fn host_update_seconds(run: &SpeedRun) -> f64 {
    match run.placement {
        Placement::Resident | Placement::FrozenOnHost => 0.0,
        Placement::StateOnHost | Placement::AllOnHost | Placement::StateOnDrives => {
            HOST_ADAM_SECONDS * run.network.parameters() as f64 / 1e9
        }
    }
}

/// State from drives and back, reads and writes at the same time.
fn drive_seconds(run: &SpeedRun) -> f64 {
    let bytes = DRIVE_BYTES * run.network.parameters() as f64;
    let seconds = |drives: Drives| (bytes / drives.read_gb).max(bytes / drives.write_gb) / 1e9;
    run.drives.map_or(0.0, seconds)
}
