//! A training program described by what decides its memory.
//!
//! In:    the `stack` and `set` parts of `rows/memory.toml`.
//! Out:   [`Stack`], read by the estimate only.
//! Never: a number of bytes: those are derived from these words in one place each.

use serde::Deserialize;

use crate::architecture::Linear;

/// Format that the weights are held in while training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// bf16.
    Bf16,
    /// f32 under autocast: each frozen product keeps its bf16 copy of the weight for backward.
    AmpFrozen,
    /// f32 shards, cast to bf16 as they are gathered.
    F32Shards,
    /// bf16, and beside it e4m3 copies of the blocks' matrices and a second bf16 embedding.
    Bf16AndFp8,
}

/// Format of the frozen base's matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    /// As the weights.
    Dense,
    /// NF4, blocks of 64 with an f32 scale: 4.5 bits; blocks only.
    Nf4,
    /// NF4 with the scales in 8 bits: 4.127 bits; blocks only.
    Nf4Dq,
    /// As `nf4`, and the head too; a product first makes the whole matrix in fp16, then a bf16 copy of it.
    Nf4WithHead,
    /// As `nf4_with_head` with the scales in 8 bits.
    Nf4DqWithHead,
}

/// State of the optimizer for each trained number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Nothing is trained.
    None,
    /// Two moments in f32.
    AdamwF32,
    /// Two moments in bf16.
    AdamwBf16,
    /// Two moments in 8 bits, an f32 scale for each 256.
    Adamw8bit,
    /// Two moments in 4 bits, an f32 scale for each 128.
    Adamw4bit,
}

/// Where the optimizer's state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum States {
    /// In device memory.
    Device,
    /// In unified memory that the allocator's counter does not see; host memory once the device is full.
    Paged,
    /// In host memory, with pinned copies of weights and gradients.
    Host,
}

/// What becomes of gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gradients {
    /// All are kept until the update, bf16.
    Bf16,
    /// bf16 buffers that are there from the start.
    Standing,
    /// All are kept until the update, f32.
    F32,
    /// Each is used for its update, or sent to the host, as soon as it is there.
    Freed,
    /// Collected in two flat buckets of 5e8 bf16 numbers on the way to the host (DeepSpeed's `reduce_bucket_size`, `overlap_comm`).
    Buckets,
}

/// How the loss is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// No loss: inference.
    None,
    /// bf16 logits, an f32 copy, log-probabilities, their gradient: 2 + 4 + 4 + 4 bytes a logit.
    EagerF32,
    /// The same in bf16 throughout: 2 + 2 + 2 + 2.
    EagerBf16,
    /// One compiled kernel reads bf16 logits and writes their gradient: 2 + 2.
    Compiled,
    /// bf16 logits in chunks that become their gradients one by one: 2.
    Chunked,
}

/// What is kept of each block until its backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Nothing: inference.
    None,
    /// All that backward needs.
    All,
    /// Its input; it runs forward again.
    Input,
    /// Its input, in host memory.
    InputOnHost,
    /// Its input, attention's output and every second matrix product.
    Selective,
}

/// Whose operations the blocks are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernels {
    /// Compiled or hand-written: only what the mathematics needs.
    Fused,
    /// Operation by operation, as torchtune and transformers.
    Eager,
    /// Operation by operation with one product for q, k and v, as litgpt; made for frozen weights.
    EagerFrozen,
    /// Operation by operation, LayerNorm and layer scale, as timm.
    EagerVision,
}

/// How the base reaches the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Streaming {
    /// It stays there.
    Resident,
    /// Two blocks at a time, the rest in pinned host memory; embedding and head stay.
    Blocks,
}

/// How cards share a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharding {
    /// They do not.
    None,
    /// FSDP: shards; two blocks and the root are whole while in use.
    Fsdp,
    /// ZeRO-3 with weights and states in host memory.
    Zero3Host,
}

/// What loading needs for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loading {
    /// Nothing beyond what stays.
    Plain,
    /// Each matrix is quantised in one piece against all 16 values: two bf16 tables of 16, minima and 8-byte indices.
    WholeMatrixNf4,
    /// The whole model is gathered on each card, beside its shard.
    Gathered,
    /// The whole model passes through the card at 4 bytes a parameter.
    F32Whole,
}

/// Adapters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapters {
    /// Rank.
    pub rank: u64,
    /// Adapted layers.
    pub targets: Vec<Linear>,
    /// Bytes of one adapter weight, and of its gradient.
    pub bytes: u64,
}

/// What the published figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counter {
    /// Bytes of live tensors on the card.
    Allocated,
    /// Bytes that the caching allocator holds.
    Reserved,
    /// All that the driver counts, modules loaded as they are used.
    DeviceLazy,
    /// All that the driver counts, modules loaded at the start.
    DeviceEager,
    /// Pinned host memory of the base.
    PinnedBase,
    /// Host memory of all processes.
    Host,
    /// Every tier of every card together.
    AllTiers,
}

/// A training program.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stack {
    /// Format of weights.
    pub weights: Weights,
    /// Format of the frozen base.
    pub storage: Storage,
    /// Optimizer state.
    pub optimizer: Optimizer,
    /// Where that is.
    pub states: States,
    /// Gradients.
    pub gradients: Gradients,
    /// Loss.
    pub loss: Loss,
    /// Checkpointing.
    pub keep: Keep,
    /// Operations of the blocks.
    pub kernels: Kernels,
    /// Streaming.
    pub streaming: Streaming,
    /// Sharing between cards.
    pub sharding: Sharding,
    /// Loading.
    pub loading: Loading,
    /// Adapters; absent where the weights themselves are trained, or nothing is.
    #[serde(default)]
    pub adapters: Option<Adapters>,
    /// Counter.
    pub counter: Counter,
}

impl Stack {
    /// The base's weights have gradients.
    pub fn trains_base(&self) -> bool {
        self.adapters.is_none() && self.optimizer != Optimizer::None
    }
}
