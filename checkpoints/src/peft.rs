//! LoRA adapters in PEFT's folder layout.
//!
//! In:    an [`AdapterConfig`] and its factors; or a folder that PEFT or this program wrote.
//! Out:   a folder that PEFT, vLLM and llama.cpp's converter read unchanged; or checked factors.
//! Never: accepts tensors without PEFT's prefix: PEFT itself skips those silently, and the adapter does nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::tensors::{HostTensor, NamedTensor, TensorFile, TensorsError, write_synced};
use offload::durable::{DurableError, publish_directory, staging_folder, write_staged};

#[cfg(test)]
mod tests;

/// A tensor of an adapter: full PEFT name (see [`factor_name`]), shape, numbers.
pub type AdapterTensor<'a> = NamedTensor<'a>;

const CONFIG: &str = "adapter_config.json";
const MODEL: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";
/// Largest rank that is read; vLLM stops at 512.
const RANK_MAX: u64 = 1 << 16;

/// Why an adapter cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeftError {
    /// A file that the system refuses.
    #[error("{path}: cannot be read: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// `adapter_config.json` is damaged, or asks for a feature that is not implemented.
    #[error("{path}: {problem}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A tensor that does not belong into this adapter.
    #[error("{path}: tensor `{name}`: {problem}", path = path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The tensor file is damaged.
    #[error(transparent)]
    Tensors(#[from] TensorsError),
    /// The folder cannot be published.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

/// What `adapter_config.json` says, as far as LoRA on linear layers needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// Model the adapter belongs to; PEFT shows it, nothing depends on it.
    pub base_model: Option<String>,
    /// Rank of the factors.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Dropout of the adapter's input in training.
    pub dropout: f64,
    /// Leaf names of the adapted modules, or what the file says in their place (a pattern, `all-linear`).
    pub target_modules: Vec<String>,
    /// Scale is `alpha / sqrt(rank)` instead of `alpha / rank`.
    pub rank_stabilized: bool,
}

/// The two factors of one linear layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraPair {
    /// `[rank, inputs]`
    pub a: HostTensor,
    /// `[outputs, rank]`
    pub b: HostTensor,
}

/// An adapter as read.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// Its configuration.
    pub config: AdapterConfig,
    /// Factors by module path, such as `model.layers.0.self_attn.q_proj`.
    pub pairs: BTreeMap<String, LoraPair>,
}

/// Which of the two factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factor {
    /// `[rank, inputs]`
    A,
    /// `[outputs, rank]`
    B,
}

/// PEFT's tensor name: `base_model.model.{module}.lora_A.weight`.
pub fn factor_name(module_path: &str, factor: Factor) -> String {
    let letter = match factor {
        Factor::A => "lora_A",
        Factor::B => "lora_B",
    };
    format!("{PREFIX}{module_path}.{letter}.weight")
}

impl AdapterConfig {
    /// Factor on `B A`: `alpha / rank`, or `alpha / sqrt(rank)` with rsLoRA.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilized { rank.sqrt() } else { rank }
    }

    /// The text of `adapter_config.json`: the subset that PEFT, vLLM, llama.cpp and Ollama all take.
    pub fn to_json(&self) -> String {
        // Ollama decodes lora_alpha into an unsigned integer; `16.0` fails there.
        let alpha = match self.alpha.fract() == 0.0 && self.alpha.abs() < 9e15 {
            true => json!(self.alpha as i64),
            false => json!(self.alpha),
        };
        let json = json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": self.base_model, "revision": null,
            "r": self.rank, "lora_alpha": alpha, "lora_dropout": self.dropout, "target_modules": self.target_modules,
            "bias": "none", "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
            "modules_to_save": null, "rank_pattern": {}, "alpha_pattern": {}, "use_rslora": self.rank_stabilized,
            "use_dora": false, "layers_to_transform": null, "layers_pattern": null,
        });
        format!("{json:#}\n")
    }

    /// Reads the text of an `adapter_config.json`; the error says what is wrong, without the file's name.
    pub fn from_json(text: &str) -> Result<AdapterConfig, String> {
        let json: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        let map = json.as_object().ok_or("not a JSON object")?;
        refuse_features(map)?;
        let rank = map.get("r").and_then(Value::as_u64).ok_or("`r` must be a whole number")?;
        if !(1..=RANK_MAX).contains(&rank) {
            return Err(format!("`r` is {rank}; it must lie between 1 and {RANK_MAX}"));
        }
        let alpha = map.get("lora_alpha").and_then(Value::as_f64).ok_or("`lora_alpha` must be a number")?;
        let target_modules = match map.get("target_modules") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(many)) => {
                let names: Option<Vec<String>> = many.iter().map(|name| name.as_str().map(str::to_string)).collect();
                names.ok_or("`target_modules` must hold strings")?
            }
            Some(_) => return Err("`target_modules` must be a list of strings".into()),
        };
        Ok(AdapterConfig {
            base_model: map.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_string),
            rank: rank as usize,
            alpha,
            dropout: map.get("lora_dropout").and_then(Value::as_f64).unwrap_or(0.0),
            target_modules,
            rank_stabilized: map.get("use_rslora").and_then(Value::as_bool).unwrap_or(false),
        })
    }
}

/// Features of PEFT that change the result and that are not implemented.
fn refuse_features(map: &Map<String, Value>) -> Result<(), String> {
    match map.get("peft_type").and_then(Value::as_str) {
        Some("LORA") => {}
        Some(other) => return Err(format!("`peft_type` is {other:?}; only LORA is supported")),
        None => return Err("`peft_type` is missing".into()),
    }
    if let Some(bias) = map.get("bias").and_then(Value::as_str).filter(|&bias| bias != "none") {
        return Err(format!("`bias` is {bias:?}; only \"none\" is supported"));
    }
    let off = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    let refused = [
        "use_dora",
        "lora_bias",
        "fan_in_fan_out",
        "modules_to_save",
        "rank_pattern",
        "alpha_pattern",
        "use_qalora",
        "use_bdlora",
        "trainable_token_indices",
        "target_parameters",
        "layer_replication",
        "alora_invocation_tokens",
    ];
    match refused.iter().find(|&&key| map.get(key).is_some_and(|value| !off(value))) {
        Some(key) => Err(format!("`{key}` is set, which is not supported")),
        None => Ok(()),
    }
}

/// Writes the adapter as a whole folder; what was there before is replaced in one step.
///
/// Tensor names are checked to be PEFT's ([`factor_name`]), since PEFT ignores all others without an error.
pub fn write_adapter(folder: &Path, config: &AdapterConfig, tensors: &[AdapterTensor]) -> Result<(), PeftError> {
    let staging = staging_folder(folder)?;
    stage_adapter(&staging, config, tensors)?;
    Ok(publish_directory(&staging, folder)?)
}

/// Fills a staging folder; the caller publishes it. Names are checked as by [`write_adapter`].
pub fn stage_adapter(staging: &Path, config: &AdapterConfig, tensors: &[AdapterTensor]) -> Result<(), PeftError> {
    for tensor in tensors {
        check_factor(config.rank, &tensor.name, &tensor.shape).map_err(|problem| PeftError::Tensor {
            path: staging.join(MODEL),
            name: tensor.name.clone(),
            problem,
        })?;
    }
    write_synced(&staging.join(MODEL), tensors)?;
    Ok(write_staged(&staging.join(CONFIG), config.to_json().as_bytes())?)
}

impl Adapter {
    /// What `target_modules` must say for exactly these layers: leaf names where every one of `n_layers` blocks has them, else whole paths.
    /// A leaf name alone would make PEFT adapt the other blocks too, at random.
    pub fn target_modules(&self, n_layers: usize) -> Vec<String> {
        let mut leaves: BTreeMap<&str, usize> = BTreeMap::new();
        for module in self.pairs.keys() {
            *leaves.entry(module.rsplit('.').next().unwrap_or(module)).or_default() += 1;
        }
        if leaves.values().any(|&layers| layers != n_layers) {
            return self.pairs.keys().cloned().collect();
        }
        // As the recipe or the file named them, where those are leaves.
        let named = &self.config.target_modules;
        let same = named.len() == leaves.len() && named.iter().all(|name| leaves.contains_key(name.as_str()));
        if same { named.clone() } else { leaves.keys().map(|leaf| leaf.to_string()).collect() }
    }

    /// Every factor under PEFT's name, sorted by module.
    pub fn tensors(&self) -> Vec<AdapterTensor<'_>> {
        let mut tensors = Vec::with_capacity(2 * self.pairs.len());
        for (module, pair) in &self.pairs {
            for (kind, tensor) in [(Factor::A, &pair.a), (Factor::B, &pair.b)] {
                let name = factor_name(module, kind);
                tensors.push(AdapterTensor { name, shape: tensor.shape.clone(), data: &tensor.data });
            }
        }
        tensors
    }
}

/// Module path and factor of a PEFT tensor name, its shape checked against the rank.
fn check_factor(rank: usize, name: &str, shape: &[usize]) -> Result<(String, Factor), String> {
    let inner = name.strip_prefix(PREFIX).ok_or_else(|| format!("the name must start with `{PREFIX}`"))?;
    let (module, factor) = if let Some(module) = inner.strip_suffix(".lora_A.weight") {
        (module, Factor::A)
    } else if let Some(module) = inner.strip_suffix(".lora_B.weight") {
        (module, Factor::B)
    } else {
        return Err("only lora_A.weight and lora_B.weight of linear layers are supported".into());
    };
    let fits = match (factor, shape) {
        (Factor::A, [r, inputs]) => *r == rank && *inputs > 0,
        (Factor::B, [outputs, r]) => *r == rank && *outputs > 0,
        _ => false,
    };
    match fits {
        true => Ok((module.to_string(), factor)),
        false => {
            Err(format!("shape {shape:?} disagrees with rank {rank} ({factor:?} is [rank, inputs] or [outputs, rank])"))
        }
    }
}

/// Reads an adapter folder; every A must have its B.
pub fn read_adapter(folder: &Path) -> Result<Adapter, PeftError> {
    let path = folder.join(CONFIG);
    let text = std::fs::read_to_string(&path).map_err(|source| PeftError::Io { path: path.clone(), source })?;
    let config = AdapterConfig::from_json(&text).map_err(|problem| PeftError::Config { path, problem })?;
    adapter_of(config, &TensorFile::open(&folder.join(MODEL))?, "")
}

/// The adapter that those tensors of a file make whose names begin with `prefix` before PEFT's own; every A must have its B.
pub fn adapter_of(config: AdapterConfig, file: &TensorFile, prefix: &str) -> Result<Adapter, PeftError> {
    let path = file.path().to_path_buf();
    let mut halves: BTreeMap<String, [Option<HostTensor>; 2]> = BTreeMap::new();
    for (name, shape) in file.tensors() {
        let Some(own) = name.strip_prefix(prefix) else { continue };
        let refused = |problem| PeftError::Tensor { path: path.clone(), name: name.to_string(), problem };
        let (module, factor) = check_factor(config.rank, own, shape).map_err(refused)?;
        halves.entry(module).or_default()[factor as usize] = Some(file.read(name)?);
    }
    if halves.is_empty() {
        return Err(PeftError::Config { path, problem: "holds no tensor".into() });
    }
    let mut pairs = BTreeMap::new();
    for (module, pair) in halves {
        let [Some(a), Some(b)] = pair else {
            return Err(PeftError::Tensor {
                path,
                name: module,
                problem: "one of lora_A and lora_B is missing".into(),
            });
        };
        pairs.insert(module, LoraPair { a, b });
    }
    Ok(Adapter { config, pairs })
}
