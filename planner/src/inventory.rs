//! What a model is made of, whether or not this program can train it: counted from its configuration, or known by name.
//!
//! In:    the text of a `config.json`, GGUF metadata, a [`DecoderSpec`], or a name of the built-in list.
//! Out:   an [`Inventory`]: exact numbers of parameters by kind, or an [`InventoryError`].
//! Never: opens a file.

mod families;
mod fields;
mod known;
mod tally;
#[cfg(test)]
mod tests;
mod vision;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::architecture::{DecoderSpec, Linear};
use crate::config::{self, ConfigError, GgufFacts, MetadataValue};
use tally::{Cache, Tally};

pub use known::{ModelEntry, find, known};

/// `architectures` entries of a `config.json` that can be counted; the first six can be trained too.
pub const COUNTED_ARCHITECTURES: &str = "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, \
     Gemma3ForCausalLM, Gemma3ForConditionalGeneration, Phi3ForCausalLM, SmolLM3ForCausalLM, MixtralForCausalLM, \
     Qwen2MoeForCausalLM, Qwen3MoeForCausalLM, GptOssForCausalLM, DeepseekV2ForCausalLM, DeepseekV3ForCausalLM";

/// More parameters than any plan can hold; below it every number of bytes fits 64 bits.
pub const PARAMETERS_MAX: u64 = 1_000_000_000_000_000;

/// Keys that change what a network computes or how its files are stored, and no number of parameters.
const KEYS_WITHOUT_WEIGHTS: [&str; 9] = [
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "quantization_config",
    "final_logit_softcapping",
    "attn_logit_softcapping",
    "use_bidirectional_attention",
    "hidden_act",
    "hidden_activation",
];

/// Why a model cannot be counted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InventoryError {
    /// The description is broken: a key is missing, of another type, or out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A network whose tensors are not known.
    #[error("architecture `{found}` cannot be counted; known are {COUNTED_ARCHITECTURES}")]
    Architecture {
        /// What the file says.
        found: String,
    },
    /// The numbers multiply to more than any machine holds.
    #[error(
        "the configuration describes {parameters} parameters, more than {PARAMETERS_MAX}; check its sizes and layers"
    )]
    TooLarge {
        /// Number of parameters.
        parameters: u128,
    },
    /// A name that the built-in list does not hold.
    #[error(
        "model `{name}` is not one of the {known} built in; nearest are {}; or give the folder of its config.json",
        nearest.join(", ")
    )]
    Unknown {
        /// What was asked for, shortened.
        name: String,
        /// Names of the list that resemble it most, best first.
        nearest: Vec<String>,
        /// Length of the list.
        known: usize,
    },
}

/// Role of a weight matrix inside a block; formats of weights treat them differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MatrixKind {
    /// Query projection.
    Query,
    /// Key projection.
    Key,
    /// Value projection.
    Value,
    /// Query, key and value in one matrix (Phi-3).
    FusedAttention,
    /// Down and up projections of latent attention (DeepSeek).
    LatentAttention,
    /// Projection of the heads back to the residual stream.
    AttentionOutput,
    /// Gate and up projections, apart or in one.
    GateUp,
    /// Down projection.
    Down,
    /// Gate and up projections of routed experts.
    ExpertGateUp,
    /// Down projections of routed experts.
    ExpertDown,
}

/// Equal matrices of the whole model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Matrices {
    /// Role.
    pub kind: MatrixKind,
    /// Length of a row.
    pub inputs: u64,
    /// Rows.
    pub outputs: u64,
    /// How many there are, all layers and all experts.
    pub count: u64,
    /// How many of them one token passes through.
    pub active: u64,
}

impl Matrices {
    /// Weights of all of them.
    pub fn parameters(&self) -> u64 {
        u64::try_from(self.wide(self.count)).unwrap_or(u64::MAX)
    }

    /// Weights of `count` of them, in a width that cannot overflow.
    fn wide(&self, count: u64) -> u128 {
        u128::from(self.inputs).saturating_mul(u128::from(self.outputs)).saturating_mul(u128::from(count))
    }
}

/// A part of the published files that the numbers of an [`Inventory`] leave out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftOut {
    /// What it is: `vision tower and projector`.
    pub part: String,
    /// Its parameters.
    pub parameters: u64,
}

/// Numbers of parameters by kind, and the sizes that memory follows from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Inventory {
    /// `llama-3.1-8b`, or what the file says.
    pub name: String,
    /// Repository on the hub, where known: `meta-llama/Llama-3.1-8B`.
    pub repository: Option<String>,
    /// All parameters, a tied head once.
    pub parameters: u64,
    /// Parameters that one token uses: everything but the experts that the router did not choose. Embedding and head
    /// count, as in the figures of Mistral and Qwen; OpenAI and DeepSeek leave the embedding out of theirs.
    pub active_parameters: u64,
    /// Weights of linear layers inside blocks (experts, not routers): what 4-bit formats store.
    pub linear_parameters: u64,
    /// Token embedding.
    pub embedding_parameters: u64,
    /// Head, 0 if tied.
    pub head_parameters: u64,
    /// Blocks.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Rows of the embedding.
    pub vocabulary: u64,
    /// Longest position.
    pub max_positions: u64,
    /// Routed experts a layer, 0 for dense models.
    pub experts: u64,
    /// Routed experts that one token passes through, 0 for dense models.
    pub experts_per_token: u64,
    /// Matrices inside blocks by role and shape; their sum is `linear_parameters`.
    pub matrices: Vec<Matrices>,
    /// Numbers that the key/value cache keeps for one token, all layers that see everything. A model all of whose layers
    /// have a window (Mistral 7B v0.1) counts here: servers keep its whole context.
    pub cache_elements_per_token: u64,
    /// Numbers that it keeps at most for layers with a window: window times width, all such layers.
    pub cache_elements_windowed: u64,
    /// That window, tokens; 0 without windowed layers.
    pub window_tokens: u64,
    /// Format that the publisher stores the weights in, if not a plain one: `mxfp4`, `fp8`.
    pub stored_format: Option<String>,
    /// Parts of the published files that are not counted.
    pub left_out: Vec<LeftOut>,
    /// What the trainer needs; `None` where it cannot train this model yet.
    pub spec: Option<DecoderSpec>,
    /// Why `spec` is `None`.
    pub untrainable: Option<String>,
}

impl Inventory {
    /// Counts the model that the text of a `config.json` describes. Models that the trainer does not know are counted all the
    /// same; [`Inventory::untrainable`] then says why there is no [`DecoderSpec`].
    pub fn from_hf(text: &str) -> Result<Inventory, InventoryError> {
        let root: Value = serde_json::from_str(text).map_err(|error| ConfigError::NotJson(error.to_string()))?;
        let root = root.as_object().ok_or_else(|| ConfigError::NotJson("the top level is not an object".into()))?;
        let name = named(root);
        let counted = match config::from_hf(text) {
            Ok(spec) => Inventory::of_spec(&name, spec),
            Err(reason @ ConfigError::Architecture { .. }) => {
                Inventory { untrainable: Some(reason.to_string()), ..families::read(&name, root)? }
            }
            Err(reason @ (ConfigError::Unsupported { .. } | ConfigError::Rope { .. })) => {
                let spec = config::from_hf(&without_features(root))?;
                Inventory { spec: None, untrainable: Some(reason.to_string()), ..Inventory::of_spec(&name, spec) }
            }
            Err(error) => return Err(error.into()),
        };
        let mut left_out = counted.left_out;
        left_out.extend(vision::left_out(root, counted.hidden)?);
        bounded(Inventory { stored_format: stored_format(root), left_out, ..counted })
    }

    /// Counts the model that GGUF metadata describe (dense families only; see [`config::from_gguf`]).
    pub fn from_gguf(
        lookup: &dyn Fn(&str) -> Option<MetadataValue>,
        facts: &GgufFacts,
    ) -> Result<Inventory, InventoryError> {
        let spec = config::from_gguf(lookup, facts)?;
        let name = match lookup("general.name") {
            Some(MetadataValue::Text(name)) if !name.is_empty() => shortened(&name),
            _ => "unnamed GGUF model".to_string(),
        };
        bounded(Inventory::of_spec(&name, spec))
    }

    /// Counts a network that the trainer knows. Numbers beyond 64 bits saturate.
    pub fn of_spec(name: &str, spec: DecoderSpec) -> Inventory {
        let layers = spec.n_layers() as u64;
        let mut tally = Tally::new(name, spec.vocabulary as u64, spec.hidden as u64, layers);
        for linear in Linear::ALL {
            let [outputs, inputs] = spec.linear_shape(linear).map(|side| side as u64);
            tally.every_layer(kind(linear), inputs, outputs);
            if spec.has_bias(linear) {
                tally.rest(layers, outputs);
            }
        }
        for (_, width) in spec.block_norms(0) {
            tally.rest(layers, width as u64);
        }
        tally.rest(1, spec.hidden as u64);
        if !spec.tied_head {
            tally.untied_head();
        }
        let windows: Vec<u64> =
            spec.layers.iter().filter_map(|layer| layer.window).map(|tokens| tokens as u64).collect();
        tally.cache = Cache {
            elements: 2u64.saturating_mul(spec.n_kv_heads as u64).saturating_mul(spec.head_dim as u64),
            windowed_layers: windows.len() as u64,
            window: windows.iter().copied().max().unwrap_or(0),
        };
        tally.max_positions = spec.max_positions as u64;
        Inventory { spec: Some(spec), ..tally.inventory() }
    }

    /// Norms, biases and routers: what is in neither linear layers, embedding nor head.
    pub fn rest_parameters(&self) -> u64 {
        let others = [self.linear_parameters, self.embedding_parameters, self.head_parameters];
        others.iter().fold(self.parameters, |rest, part| rest.saturating_sub(*part))
    }

    /// Whether head and embedding are one tensor.
    pub fn tied_head(&self) -> bool {
        self.head_parameters == 0
    }
}

fn kind(linear: Linear) -> MatrixKind {
    match linear {
        Linear::Query => MatrixKind::Query,
        Linear::Key => MatrixKind::Key,
        Linear::Value => MatrixKind::Value,
        Linear::Output => MatrixKind::AttentionOutput,
        Linear::Gate | Linear::Up => MatrixKind::GateUp,
        Linear::Down => MatrixKind::Down,
    }
}

fn bounded(inventory: Inventory) -> Result<Inventory, InventoryError> {
    match inventory.parameters {
        parameters if parameters > PARAMETERS_MAX => {
            Err(InventoryError::TooLarge { parameters: u128::from(parameters) })
        }
        _ => Ok(inventory),
    }
}

/// What the file calls itself: where it was saved from, or its architecture.
fn named(root: &Map<String, Value>) -> String {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(shortened);
    let architecture = || root.get("architectures").and_then(|names| names.get(0)).and_then(text);
    root.get("_name_or_path").and_then(text).or_else(architecture).unwrap_or_else(|| "unnamed model".into())
}

/// A string short enough for one line: hostile files hold megabytes in one.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// The same configuration without the keys that no number of parameters depends on.
fn without_features(root: &Map<String, Value>) -> String {
    let mut plain = root.clone();
    let strip = |map: &mut Map<String, Value>| KEYS_WITHOUT_WEIGHTS.iter().for_each(|key| drop(map.remove(*key)));
    strip(&mut plain);
    if let Some(text) = plain.get_mut("text_config").and_then(Value::as_object_mut) {
        strip(text);
    }
    Value::Object(plain).to_string()
}

fn stored_format(root: &Map<String, Value>) -> Option<String> {
    root.get("quantization_config")?.get("quant_method")?.as_str().map(shortened)
}
