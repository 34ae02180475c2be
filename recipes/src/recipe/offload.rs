//! `[offload]`: in which memory the four classes of a run live, and how bytes move to NVMe. No number of the training depends on it.
//!
//! In:    TOML, through serde.
//! Out:   [`OffloadSection`]; `auto` is a value of its own.
//! Never: looks at the paths.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::values::{MemorySize, bytes_of};

/// `[offload]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OffloadSection {
    /// Where the weights of blocks live; f32 masters of full training live with them where compute is f32 and this is not the device.
    pub weights: TierChoice,
    /// Where parameter gradients wait for the update.
    pub gradients: TierChoice,
    /// Where optimizer states live, and trained f32 parameters that do not live with the weights.
    pub optimizer: TierChoice,
    /// Where block inputs wait for the backward pass.
    pub activations: TierChoice,
    /// Directories on NVMe drives; extents are striped over all of them.
    pub nvme: Vec<PathBuf>,
    /// Host memory that the dram tier may take.
    pub dram_budget: MemorySize,
    /// Memory that the device tier may take.
    pub device_budget: MemorySize,
    /// How files are read and written. Not written out while it is `auto`: the run finds out what the kernel allows.
    #[serde(skip_serializing_if = "EngineChoice::is_auto")]
    pub engine: EngineChoice,
    /// Bytes of f32 parameters that one transfer covers.
    pub chunk: ChunkSize,
    /// Transfers in flight per path at most.
    pub queue_depth: QueueDepth,
    /// Bytes that the run may write to NVMe, in 10^12; absent: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_budget_tb: Option<f64>,
    /// Parameters are updated as soon as their gradients are complete.
    pub update_during_backward: UpdateDuringBackward,
}

impl Default for OffloadSection {
    fn default() -> Self {
        OffloadSection {
            weights: TierChoice::Auto,
            gradients: TierChoice::Auto,
            optimizer: TierChoice::Auto,
            activations: TierChoice::Auto,
            nvme: Vec::new(),
            dram_budget: MemorySize::Auto,
            device_budget: MemorySize::Auto,
            engine: EngineChoice::Auto,
            chunk: ChunkSize::Auto,
            queue_depth: QueueDepth::Auto,
            write_budget_tb: None,
            update_during_backward: UpdateDuringBackward::Auto,
        }
    }
}

/// Where a class of bytes lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TierChoice {
    /// The planner answers.
    #[default]
    Auto,
    /// Memory of the device that computes.
    Device,
    /// Host memory.
    Dram,
    /// Files under `offload.nvme`.
    Nvme,
}

/// `offload.engine`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineChoice {
    /// io_uring where the kernel allows it, else threads.
    #[default]
    Auto,
    /// io_uring, or an error.
    IoUring,
    /// A pool of threads with pread and pwrite.
    Threads,
}

impl EngineChoice {
    fn is_auto(&self) -> bool {
        *self == EngineChoice::Auto
    }
}

/// `offload.chunk`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum ChunkSize {
    /// The planner answers, from what was measured on the drives.
    Auto,
    /// Bytes.
    Bytes(u64),
}

impl TryFrom<Value> for ChunkSize {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value.as_str() {
            Some("auto") => Ok(ChunkSize::Auto),
            text => text
                .and_then(bytes_of)
                .map(ChunkSize::Bytes)
                .ok_or_else(|| format!("chunk is {value}; expected \"auto\" or a size such as \"4MiB\"")),
        }
    }
}

impl From<ChunkSize> for Value {
    fn from(size: ChunkSize) -> Value {
        Value::String(match size {
            ChunkSize::Auto => "auto".to_string(),
            ChunkSize::Bytes(bytes) => format!("{bytes}B"),
        })
    }
}

/// `offload.queue_depth`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum QueueDepth {
    /// The planner answers, from what was measured on the drives.
    Auto,
    /// Transfers per path.
    Transfers(usize),
}

impl TryFrom<Value> for QueueDepth {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match &value {
            Value::String(word) if word == "auto" => Ok(QueueDepth::Auto),
            Value::Integer(depth) if *depth >= 0 => Ok(QueueDepth::Transfers(*depth as usize)),
            _ => Err(format!("queue_depth is {value}; expected \"auto\" or 1 to 4096")),
        }
    }
}

impl From<QueueDepth> for Value {
    fn from(depth: QueueDepth) -> Value {
        match depth {
            QueueDepth::Auto => Value::String("auto".to_string()),
            QueueDepth::Transfers(depth) => Value::Integer(depth as i64),
        }
    }
}

/// `offload.update_during_backward`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum UpdateDuringBackward {
    /// Yes where gradients are not clipped.
    Auto,
    /// Each group is updated as soon as its gradients are complete; not possible with clipping by the global norm.
    Yes,
    /// All groups are updated after the backward pass.
    No,
}

impl TryFrom<Value> for UpdateDuringBackward {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match &value {
            Value::String(word) if word == "auto" => Ok(UpdateDuringBackward::Auto),
            Value::Boolean(true) => Ok(UpdateDuringBackward::Yes),
            Value::Boolean(false) => Ok(UpdateDuringBackward::No),
            _ => Err(format!("update_during_backward is {value}; expected \"auto\", true or false")),
        }
    }
}

impl From<UpdateDuringBackward> for Value {
    fn from(choice: UpdateDuringBackward) -> Value {
        match choice {
            UpdateDuringBackward::Auto => Value::String("auto".to_string()),
            UpdateDuringBackward::Yes => Value::Boolean(true),
            UpdateDuringBackward::No => Value::Boolean(false),
        }
    }
}
