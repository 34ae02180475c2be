//! Values that are a number or a word: `"auto"`, `"all-linear"`, `"8GB"`, `"cuda:0"`.
//!
//! In:    a TOML value.
//! Out:   a closed type, or one sentence that says what would be accepted.
//! Never: guesses.

use std::fmt;

use serde::{Deserialize, Serialize};
use toml::Value;

/// One place or several that hold the same file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Sources(pub Vec<String>);

impl TryFrom<Value> for Sources {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let places = one_or_many(value).ok_or("expected a place or a list of places (texts)")?;
        if places.is_empty() || places.iter().any(String::is_empty) {
            return Err("expected at least one place, none of them empty".to_string());
        }
        Ok(Sources(places))
    }
}

impl From<Sources> for Value {
    fn from(sources: Sources) -> Value {
        match sources.0.as_slice() {
            [one] => Value::String(one.clone()),
            many => Value::Array(many.iter().cloned().map(Value::String).collect()),
        }
    }
}

/// Which linear layers get an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum TargetNames {
    /// All seven of a block.
    AllLinear,
    /// Leaf names as PEFT's `target_modules` spells them.
    Named(Vec<String>),
}

impl TryFrom<Value> for TargetNames {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        if value.as_str() == Some("all-linear") {
            return Ok(TargetNames::AllLinear);
        }
        match one_or_many(value) {
            Some(names) if names.is_empty() => {
                Err("method.targets is an empty list; nothing would be trained".to_string())
            }
            Some(names) => Ok(TargetNames::Named(names)),
            None => Err("expected \"all-linear\" or a list of layer names".to_string()),
        }
    }
}

impl From<TargetNames> for Value {
    fn from(targets: TargetNames) -> Value {
        match targets {
            TargetNames::AllLinear => Value::String("all-linear".to_string()),
            TargetNames::Named(names) => Value::Array(names.into_iter().map(Value::String).collect()),
        }
    }
}

fn one_or_many(value: Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one]),
        Value::Array(many) => many.into_iter().map(|v| v.as_str().map(str::to_string)).collect(),
        _ => None,
    }
}

/// `train.micro_batch`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum MicroBatch {
    /// The planner answers.
    Auto,
    /// Rows.
    Rows(usize),
}

impl TryFrom<Value> for MicroBatch {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match &value {
            Value::String(word) if word == "auto" => Ok(MicroBatch::Auto),
            Value::Integer(rows) if *rows >= 1 => Ok(MicroBatch::Rows(*rows as usize)),
            _ => Err(format!("micro_batch is {value}; expected \"auto\" or rows >= 1")),
        }
    }
}

impl From<MicroBatch> for Value {
    fn from(choice: MicroBatch) -> Value {
        match choice {
            MicroBatch::Auto => Value::String("auto".to_string()),
            MicroBatch::Rows(rows) => Value::Integer(rows as i64),
        }
    }
}

/// `data.sequence_length`, `train.tokens_per_step`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum TokenCount {
    /// The planner answers.
    Auto,
    /// Tokens.
    Tokens(usize),
}

impl TokenCount {
    /// The number, if it is one.
    pub fn fixed(self) -> Option<usize> {
        match self {
            TokenCount::Auto => None,
            TokenCount::Tokens(tokens) => Some(tokens),
        }
    }
}

impl TryFrom<Value> for TokenCount {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match &value {
            Value::String(word) if word == "auto" => Ok(TokenCount::Auto),
            Value::Integer(tokens) if *tokens >= 1 => Ok(TokenCount::Tokens(*tokens as usize)),
            _ => Err(format!("{value} is no number of tokens; expected \"auto\" or tokens >= 1")),
        }
    }
}

impl From<TokenCount> for Value {
    fn from(choice: TokenCount) -> Value {
        match choice {
            TokenCount::Auto => Value::String("auto".to_string()),
            TokenCount::Tokens(tokens) => Value::Integer(tokens as i64),
        }
    }
}

/// `train.keep`: what blocks keep between forward and backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum KeepChoice {
    /// The planner answers.
    Auto,
    /// Every block keeps its graph.
    Retain,
    /// Every block keeps its input only and runs forward again.
    Recompute,
    /// The last so many blocks keep their graph, the others their input.
    RetainLast(usize),
}

impl TryFrom<Value> for KeepChoice {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match &value {
            Value::String(word) if word == "auto" => Ok(KeepChoice::Auto),
            Value::String(word) if word == "retain" => Ok(KeepChoice::Retain),
            Value::String(word) if word == "recompute" => Ok(KeepChoice::Recompute),
            Value::Integer(blocks) if *blocks >= 0 => Ok(KeepChoice::RetainLast(*blocks as usize)),
            _ => Err(format!(
                "keep is {value}; expected \"auto\", \"retain\", \"recompute\" or the number of last blocks that retain"
            )),
        }
    }
}

impl From<KeepChoice> for Value {
    fn from(choice: KeepChoice) -> Value {
        match choice {
            KeepChoice::Auto => Value::String("auto".to_string()),
            KeepChoice::Retain => Value::String("retain".to_string()),
            KeepChoice::Recompute => Value::String("recompute".to_string()),
            KeepChoice::RetainLast(blocks) => Value::Integer(blocks as i64),
        }
    }
}

/// `optimizer.max_grad_norm`
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum MaxGradNorm {
    /// Gradients are not clipped.
    None,
    /// Bound of the global norm.
    Bound(f64),
}

impl TryFrom<Value> for MaxGradNorm {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        if value.as_str() == Some("none") {
            return Ok(MaxGradNorm::None);
        }
        match number(&value) {
            Some(bound) if bound > 0.0 && bound.is_finite() => Ok(MaxGradNorm::Bound(bound)),
            _ => Err(format!("max_grad_norm is {value}; expected a number > 0, or \"none\"")),
        }
    }
}

impl From<MaxGradNorm> for Value {
    fn from(bound: MaxGradNorm) -> Value {
        match bound {
            MaxGradNorm::None => Value::String("none".to_string()),
            MaxGradNorm::Bound(bound) => Value::Float(bound),
        }
    }
}

/// `schedule.warmup`: an integer is steps, a float a share of all steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum WarmupLength {
    /// Optimizer steps.
    Steps(u64),
    /// Share of all steps, `[0, 1]`.
    Share(f64),
}

impl TryFrom<Value> for WarmupLength {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match &value {
            Value::Integer(steps) if *steps >= 0 => Ok(WarmupLength::Steps(*steps as u64)),
            Value::Float(share) if (0.0..=1.0).contains(share) => Ok(WarmupLength::Share(*share)),
            _ => Err(format!(
                "warmup is {value}; expected steps (an integer >= 0) or a share of all steps (a float from 0.0 to 1.0)"
            )),
        }
    }
}

impl From<WarmupLength> for Value {
    fn from(length: WarmupLength) -> Value {
        match length {
            WarmupLength::Steps(steps) => Value::Integer(steps as i64),
            WarmupLength::Share(share) => Value::Float(share),
        }
    }
}

/// `hardware.device`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum DeviceName {
    /// The first CUDA card if this build can use one, else the CPU.
    #[default]
    Auto,
    /// The host processor.
    Cpu,
    /// NVIDIA card by index.
    Cuda(usize),
    /// Vulkan device by index: cards first, software last.
    Vulkan(usize),
}

impl TryFrom<Value> for DeviceName {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let refusal = || {
            format!(
                "device is {value}; expected \"auto\", \"cpu\", \"cuda:0\" or \"vulkan:0\" (or another card's index)"
            )
        };
        let word = value.as_str().ok_or_else(refusal)?;
        let index = |prefix| word.strip_prefix(prefix).and_then(|index: &str| index.parse().ok());
        match (word, index("cuda:"), index("vulkan:")) {
            ("auto", ..) => Ok(DeviceName::Auto),
            ("cpu", ..) => Ok(DeviceName::Cpu),
            (_, Some(index), _) => Ok(DeviceName::Cuda(index)),
            (_, _, Some(index)) => Ok(DeviceName::Vulkan(index)),
            _ => Err(refusal()),
        }
    }
}

impl From<DeviceName> for Value {
    fn from(device: DeviceName) -> Value {
        Value::String(device.to_string())
    }
}

/// As a recipe has it.
impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Auto => f.write_str("auto"),
            DeviceName::Cpu => f.write_str("cpu"),
            DeviceName::Cuda(index) => write!(f, "cuda:{index}"),
            DeviceName::Vulkan(index) => write!(f, "vulkan:{index}"),
        }
    }
}

/// `hardware.memory`, `offload.dram_budget`, `offload.device_budget`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum MemorySize {
    /// The planner answers: what is free.
    #[default]
    Auto,
    /// Bytes.
    Bytes(u64),
}

impl TryFrom<Value> for MemorySize {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let refusal = || format!("the size is {value}; expected \"auto\" or a size such as \"8GB\" or \"7.5GiB\"");
        match &value {
            Value::String(word) if word == "auto" => Ok(MemorySize::Auto),
            Value::String(word) => bytes_of(word).map(MemorySize::Bytes).ok_or_else(refusal),
            _ => Err(refusal()),
        }
    }
}

impl From<MemorySize> for Value {
    fn from(size: MemorySize) -> Value {
        Value::String(match size {
            MemorySize::Auto => "auto".to_string(),
            MemorySize::Bytes(bytes) => format!("{bytes}B"),
        })
    }
}

/// Bytes of `8GB` (powers of ten), `8GiB` (powers of two) or `123B`.
pub fn bytes_of(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (amount, unit) = (text[..digits].parse::<f64>().ok()?, text[digits..].trim());
    let unit_bytes: f64 = match unit.to_ascii_uppercase().as_str() {
        "B" => 1.0,
        "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KIB" => 1024.0,
        "MIB" => 1024.0 * 1024.0,
        "GIB" => 1024.0 * 1024.0 * 1024.0,
        "TIB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = amount * unit_bytes;
    (1.0..1e18).contains(&bytes).then_some(bytes as u64)
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|n| n as f64))
}
