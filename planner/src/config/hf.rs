//! Reads a Hugging Face `config.json`; missing keys get the defaults of transformers' configuration classes.
//!
//! In:    the text of the file, in the spelling of transformers 4 or 5.
//! Out:   a checked [`DecoderSpec`].
//! Never: ignores a key that changes the result.

use serde_json::{Map, Value};

use super::rope::{self, LayerKind};
use super::{ConfigError, LAYERS_MAX, SUPPORTED_ARCHITECTURES, checked, number, short};
use crate::architecture::{Activation, DecoderSpec, Family, LayerSpec, RopeSpec};

/// Parses the text of a `config.json`.
pub fn from_hf(config_json: &str) -> Result<DecoderSpec, ConfigError> {
    let root: Value = serde_json::from_str(config_json).map_err(|error| ConfigError::NotJson(error.to_string()))?;
    let root = root.as_object().ok_or_else(|| ConfigError::NotJson("the top level is not an object".into()))?;
    let (family, nested) = family(&Fields(root))?;
    refuse_features(&Fields(root))?;
    let map = match nested {
        true => Fields(root).object("text_config")?.ok_or(ConfigError::Missing { key: "text_config".into() })?,
        false => root,
    };
    let fields = Fields(map);
    refuse_features(&fields)?;
    let tied = Fields(root).flag("tie_word_embeddings")?.filter(|_| nested);
    let spec = decoder(family, &fields)?;
    checked(DecoderSpec { tied_head: tied.unwrap_or(spec.tied_head), ..spec })
}

/// The family, and whether the decoder is described inside `text_config`.
fn family(fields: &Fields) -> Result<(Family, bool), ConfigError> {
    let named = match fields.0.get("architectures") {
        None | Some(Value::Null) => fields.text("model_type")?.map(str::to_string),
        Some(Value::Array(names)) => names.first().and_then(Value::as_str).map(str::to_string),
        Some(other) => return Err(wrong_type("architectures", "a list of strings", other)),
    };
    let named = named.ok_or(ConfigError::Missing { key: "architectures".into() })?;
    match named.as_str() {
        "LlamaForCausalLM" | "llama" => Ok((Family::Llama, false)),
        "MistralForCausalLM" | "mistral" => Ok((Family::Mistral, false)),
        "Qwen2ForCausalLM" | "qwen2" => Ok((Family::Qwen2, false)),
        "Qwen3ForCausalLM" | "qwen3" => Ok((Family::Qwen3, false)),
        "Gemma3ForCausalLM" | "gemma3_text" => Ok((Family::Gemma3, false)),
        "Gemma3ForConditionalGeneration" | "gemma3" => Ok((Family::Gemma3, true)),
        _ => Err(ConfigError::Architecture { found: short(named), supported: SUPPORTED_ARCHITECTURES }),
    }
}

/// Keys whose presence changes what the network computes, or how its weights are stored.
fn refuse_features(fields: &Fields) -> Result<(), ConfigError> {
    let refused = [
        ("quantization_config", "take the unquantized model, or a GGUF file"),
        ("num_local_experts", "mixtures of experts are not implemented"),
        ("num_experts", "mixtures of experts are not implemented"),
        ("final_logit_softcapping", "capped logits are not implemented"),
        ("attn_logit_softcapping", "capped attention scores are not implemented"),
        ("use_bidirectional_attention", "only causal attention is implemented"),
    ];
    for (key, hint) in refused {
        match fields.0.get(key) {
            None | Some(Value::Null) | Some(Value::Bool(false)) => {}
            Some(value) => return Err(ConfigError::Unsupported { key: key.into(), value: short(value), hint }),
        }
    }
    match fields.number("partial_rotary_factor")? {
        Some(share) if share != 1.0 => Err(ConfigError::Unsupported {
            key: "partial_rotary_factor".into(),
            value: share.to_string(),
            hint: "only full rotary heads are implemented",
        }),
        _ => Ok(()),
    }
}

/// What transformers' configuration class assumes where the file is silent. `None`: the file must say.
struct Defaults {
    vocabulary: Option<usize>,
    hidden: Option<usize>,
    intermediate: Option<usize>,
    layers: Option<usize>,
    heads: Option<usize>,
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    positions: usize,
    theta: f64,
    tied: bool,
}

impl Defaults {
    fn of(family: Family) -> Defaults {
        let plain = Defaults {
            vocabulary: None,
            hidden: None,
            intermediate: None,
            layers: None,
            heads: None,
            kv_heads: None,
            head_dim: None,
            positions: 2048,
            theta: 10_000.0,
            tied: false,
        };
        match family {
            Family::Llama => plain,
            Family::Mistral => Defaults { kv_heads: Some(8), positions: 131_072, ..plain },
            Family::Qwen2 => Defaults { kv_heads: Some(32), positions: 32_768, ..plain },
            Family::Qwen3 => Defaults { kv_heads: Some(32), head_dim: Some(128), positions: 32_768, ..plain },
            Family::Gemma3 => Defaults {
                vocabulary: Some(262_208),
                hidden: Some(2304),
                intermediate: Some(9216),
                layers: Some(26),
                heads: Some(8),
                kv_heads: Some(4),
                head_dim: Some(256),
                positions: 131_072,
                theta: 1_000_000.0,
                tied: true,
            },
        }
    }
}

fn decoder(family: Family, fields: &Fields) -> Result<DecoderSpec, ConfigError> {
    let defaults = Defaults::of(family);
    let hidden = fields.count_or("hidden_size", defaults.hidden)?;
    let n_heads = fields.count_or("num_attention_heads", defaults.heads)?;
    // An explicit null means one key/value head per query head; a missing key means the family's default.
    let n_kv_heads = match fields.0.get("num_key_value_heads") {
        Some(Value::Null) => n_heads,
        _ => fields.count("num_key_value_heads")?.or(defaults.kv_heads).unwrap_or(n_heads),
    };
    let head_dim = match fields.count("head_dim")?.or(defaults.head_dim) {
        Some(width) => width,
        None => divided(hidden, n_heads)?,
    };
    let gemma = family == Family::Gemma3;
    let attention_bias = fields.flag("attention_bias")?.unwrap_or(false) && !matches!(family, Family::Mistral);
    let (layers, ropes) = layers_and_ropes(family, fields, &defaults)?;
    let scale_width = match gemma {
        true => fields.number("query_pre_attn_scalar")?.unwrap_or(256.0),
        false => head_dim as f64,
    };
    Ok(DecoderSpec {
        family,
        vocabulary: fields.count_or("vocab_size", defaults.vocabulary)?,
        hidden,
        intermediate: fields.count_or("intermediate_size", defaults.intermediate)?,
        n_heads,
        n_kv_heads,
        head_dim,
        norm_epsilon: fields.number("rms_norm_eps")?.unwrap_or(1e-6),
        norm_offset: gemma,
        activation: activation(fields, gemma)?,
        qkv_bias: family == Family::Qwen2 || attention_bias,
        output_bias: family != Family::Qwen2 && attention_bias,
        mlp_bias: family == Family::Llama && fields.flag("mlp_bias")?.unwrap_or(false),
        qk_norm: matches!(family, Family::Qwen3 | Family::Gemma3),
        sandwich_norms: gemma,
        embedding_scale: gemma.then(|| (hidden as f64).sqrt()),
        attention_scale: scale_width.powf(-0.5),
        tied_head: fields.flag("tie_word_embeddings")?.unwrap_or(defaults.tied),
        layers,
        ropes,
        max_positions: fields.count("max_position_embeddings")?.unwrap_or(defaults.positions),
    })
}

fn divided(hidden: usize, n_heads: usize) -> Result<usize, ConfigError> {
    match n_heads != 0 && hidden.is_multiple_of(n_heads) {
        true => Ok(hidden / n_heads),
        false => {
            let rule = format!("hidden_size ({hidden}) must be a multiple of it where head_dim is not given");
            Err(number("num_attention_heads", n_heads, rule))
        }
    }
}

fn activation(fields: &Fields, gemma: bool) -> Result<Activation, ConfigError> {
    let key = if gemma { "hidden_activation" } else { "hidden_act" };
    let default = if gemma { "gelu_pytorch_tanh" } else { "silu" };
    match fields.text(key)?.unwrap_or(default) {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::GeluTanh),
        other => Err(ConfigError::Unsupported {
            key: key.into(),
            value: short(other),
            hint: "supported are silu and gelu_pytorch_tanh",
        }),
    }
}

fn layers_and_ropes(
    family: Family,
    fields: &Fields,
    defaults: &Defaults,
) -> Result<(Vec<LayerSpec>, Vec<RopeSpec>), ConfigError> {
    let n_layers = fields.count_or("num_hidden_layers", defaults.layers)?;
    super::within("num_hidden_layers", n_layers, LAYERS_MAX)?;
    let sliding = sliding_layers(family, fields, n_layers)?;
    let window = match sliding.contains(&true) {
        true => Some(window(fields)?),
        false => None,
    };
    let gemma = family == Family::Gemma3;
    let full = rope::from_fields(fields, LayerKind::Full, defaults.theta)?;
    let mut ropes = vec![full];
    if gemma && window.is_some() {
        ropes.push(gemma_local_rope(fields)?);
    }
    let layer = |slides: bool| LayerSpec { window: window.filter(|_| slides), rope: usize::from(slides && gemma) };
    Ok((sliding.into_iter().map(layer).collect(), ropes))
}

/// Sliding layers of Gemma 3 rotate with a base of their own and without scaling.
fn gemma_local_rope(fields: &Fields) -> Result<RopeSpec, ConfigError> {
    let theta = fields.number("rope_local_base_freq")?.unwrap_or(10_000.0);
    match fields.object("rope_parameters")? {
        Some(parameters) if rope::is_nested(parameters) => {
            let only = Map::from_iter([("rope_parameters".to_string(), Value::Object(parameters.clone()))]);
            rope::from_fields(&Fields(&only), LayerKind::Sliding, theta)
        }
        _ => Ok(RopeSpec { theta, scaling: crate::architecture::RopeScaling::None }),
    }
}

/// Which layers see only a window.
fn sliding_layers(family: Family, fields: &Fields, n_layers: usize) -> Result<Vec<bool>, ConfigError> {
    match family {
        Family::Llama => Ok(vec![false; n_layers]),
        Family::Mistral => {
            // transformers' MistralConfig assumes a window of 4096 where the key is missing; null switches it off.
            let off = fields.0.get("sliding_window").is_some_and(Value::is_null);
            Ok(vec![!off; n_layers])
        }
        Family::Qwen2 | Family::Qwen3 => {
            let used = fields.flag("use_sliding_window")?.unwrap_or(false)
                && !fields.0.get("sliding_window").is_some_and(Value::is_null);
            let first = fields.count("max_window_layers")?.unwrap_or(28);
            match layer_types(fields, n_layers)? {
                Some(types) => Ok(types.into_iter().map(|slides| slides && used).collect()),
                None => Ok((0..n_layers).map(|layer| used && layer >= first).collect()),
            }
        }
        Family::Gemma3 => match layer_types(fields, n_layers)? {
            Some(types) => Ok(types),
            None => {
                let pattern = match fields.count("sliding_window_pattern")? {
                    Some(pattern) => pattern,
                    None => fields.count("_sliding_window_pattern")?.unwrap_or(6),
                };
                super::within("sliding_window_pattern", pattern, LAYERS_MAX)?;
                Ok((0..n_layers).map(|layer| !(layer + 1).is_multiple_of(pattern)).collect())
            }
        },
    }
}

fn layer_types(fields: &Fields, n_layers: usize) -> Result<Option<Vec<bool>>, ConfigError> {
    let types = match fields.0.get("layer_types") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(types)) => types,
        Some(other) => return Err(wrong_type("layer_types", "a list of strings", other)),
    };
    if types.len() != n_layers {
        return Err(number("layer_types", types.len(), format!("one entry for each of the {n_layers} layers")));
    }
    let slides = |kind: &Value| match kind.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => Err(ConfigError::Unsupported {
            key: "layer_types".into(),
            value: short(kind),
            hint: "supported are full_attention and sliding_attention",
        }),
    };
    types.iter().map(slides).collect::<Result<Vec<bool>, _>>().map(Some)
}

fn window(fields: &Fields) -> Result<usize, ConfigError> {
    match fields.0.get("sliding_window") {
        Some(Value::Null) => Err(ConfigError::Missing { key: "sliding_window".into() }),
        _ => Ok(fields.count("sliding_window")?.unwrap_or(4096)),
    }
}

fn wrong_type(key: &str, expected: &'static str, found: &Value) -> ConfigError {
    ConfigError::WrongType { key: key.to_string(), expected, found: short(found) }
}

/// A JSON object whose fields are read with their type checked; `null` reads as missing.
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| wrong_type(key, expected, value)),
        }
    }

    pub(super) fn count(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.typed(key, "a whole number", |value| value.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    fn count_or(&self, key: &str, default: Option<usize>) -> Result<usize, ConfigError> {
        self.count(key)?.or(default).ok_or_else(|| ConfigError::Missing { key: key.to_string() })
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(super) fn required_number(&self, key: &str) -> Result<f64, ConfigError> {
        self.number(key)?.ok_or_else(|| ConfigError::Missing { key: format!("rope_scaling.{key}") })
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<&'a Map<String, Value>>, ConfigError> {
        self.typed(key, "an object", Value::as_object)
    }
}
