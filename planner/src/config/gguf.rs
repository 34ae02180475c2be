//! Reads the description of a network out of GGUF metadata.
//!
//! In:    key/values through a lookup function, and the facts that only the file's tensors tell ([`GgufFacts`]).
//! Out:   a checked [`DecoderSpec`] with Hugging Face tensor names; norms already hold `1 + w` where the family offsets them.
//! Never: opens a file.

use super::{ConfigError, LAYERS_MAX, SUPPORTED_GGUF, checked, number, rope, short, within};
use crate::architecture::{Activation, DecoderSpec, Family, LayerSpec, RopeScaling, RopeSpec};

/// llama.cpp: every sixth layer of Gemma 3 sees everything where the file does not say.
pub(super) const PATTERN_DEFAULT: usize = 6;

/// One metadata value, reduced to what model descriptions use.
#[derive(Debug, Clone, PartialEq)]
pub enum MetadataValue {
    /// Any unsigned integer, or a signed one that is not negative.
    Unsigned(u64),
    /// Any floating-point number.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A string.
    Text(String),
    /// A list of whole numbers (some files give one head count per layer).
    UnsignedList(Vec<u64>),
    /// Anything else.
    Other,
}

/// What the tensors of a GGUF file say about the network; the keys are silent on it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufFacts {
    /// Rows of `token_embd.weight`.
    pub vocabulary: usize,
    /// There is no `output.weight`.
    pub tied_head: bool,
    /// `blk.0.attn_q.bias` exists.
    pub qkv_bias: bool,
    /// `blk.0.attn_output.bias` exists.
    pub output_bias: bool,
    /// `blk.0.ffn_up.bias` exists.
    pub mlp_bias: bool,
    /// Contents of `rope_freqs.weight`, where it exists: divisors of the rotary frequencies.
    pub rope_divisors: Option<Vec<f32>>,
}

/// Keys of one architecture: `{arch}.suffix`.
struct Keys<'a> {
    architecture: String,
    lookup: &'a dyn Fn(&str) -> Option<MetadataValue>,
}

/// Parses GGUF metadata. `lookup` returns the value of a key, or `None` where the file has no such key.
pub fn from_gguf(
    lookup: &dyn Fn(&str) -> Option<MetadataValue>,
    facts: &GgufFacts,
) -> Result<DecoderSpec, ConfigError> {
    let architecture = match lookup("general.architecture") {
        Some(MetadataValue::Text(name)) => name,
        Some(_) => return Err(wrong_type("general.architecture", "a string")),
        None => return Err(ConfigError::Missing { key: "general.architecture".into() }),
    };
    let keys = Keys { architecture, lookup };
    keys.refuse_features()?;
    let windowed = keys.count("attention.sliding_window")?.filter(|&window| window > 0);
    let family = match (keys.architecture.as_str(), windowed) {
        ("llama", None) => Family::Llama,
        ("llama", Some(_)) => Family::Mistral,
        ("qwen2", None) => Family::Qwen2,
        ("qwen3", None) => Family::Qwen3,
        ("gemma3", _) => Family::Gemma3,
        ("qwen2" | "qwen3", Some(window)) => {
            return Err(ConfigError::Unsupported {
                key: format!("{}.attention.sliding_window", keys.architecture),
                value: window.to_string(),
                hint: "the file does not say which layers slide; use the model's safetensors folder",
            });
        }
        _ => return Err(ConfigError::Architecture { found: short(&keys.architecture), supported: SUPPORTED_GGUF }),
    };
    checked(decoder(family, windowed, &keys, facts)?)
}

fn decoder(family: Family, window: Option<usize>, keys: &Keys, facts: &GgufFacts) -> Result<DecoderSpec, ConfigError> {
    let gemma = family == Family::Gemma3;
    let hidden = keys.required("embedding_length")?;
    let n_heads = keys.required("attention.head_count")?;
    let n_layers = keys.required("block_count")?;
    within("block_count", n_layers, LAYERS_MAX)?;
    let head_dim = keys.head_dim(hidden, n_heads)?;
    let ropes = keys.ropes(gemma && window.is_some(), head_dim, facts)?;
    // llama.cpp: every sixth layer of Gemma 3 is global unless the file says otherwise; a window of other families is
    // on every layer.
    let pattern = keys.count("attention.sliding_window_pattern")?.unwrap_or(PATTERN_DEFAULT);
    within("attention.sliding_window_pattern", pattern, LAYERS_MAX)?;
    let slides = |layer: usize| !gemma || !(layer + 1).is_multiple_of(pattern);
    let layer = |index: usize| {
        let own = window.filter(|_| slides(index));
        LayerSpec { window: own, rope: usize::from(gemma && own.is_some()) }
    };
    Ok(DecoderSpec {
        family,
        vocabulary: facts.vocabulary,
        hidden,
        intermediate: keys.required("feed_forward_length")?,
        n_heads,
        n_kv_heads: keys.count("attention.head_count_kv")?.unwrap_or(n_heads),
        head_dim,
        norm_epsilon: keys.required_number("attention.layer_norm_rms_epsilon")?,
        norm_offset: false,
        activation: if gemma { Activation::GeluTanh } else { Activation::Silu },
        qkv_bias: facts.qkv_bias,
        output_bias: facts.output_bias,
        mlp_bias: facts.mlp_bias,
        qk_norm: matches!(family, Family::Qwen3 | Family::Gemma3),
        sandwich_norms: gemma,
        embedding_scale: gemma.then(|| (hidden as f64).sqrt()),
        attention_scale: (scale_width(gemma, n_layers, hidden, n_heads, head_dim) as f64).powf(-0.5),
        tied_head: facts.tied_head,
        layers: (0..n_layers).map(layer).collect(),
        ropes,
        max_positions: keys.required("context_length")?,
    })
}

/// GGUF has no `query_pre_attn_scalar`: llama.cpp knows that the 27B Gemma 3 (62 layers) scales by hidden / heads.
pub(super) fn scale_width(gemma: bool, n_layers: usize, hidden: usize, n_heads: usize, head_dim: usize) -> usize {
    match gemma && n_layers == 62 && n_heads > 0 {
        true => hidden / n_heads,
        false => head_dim,
    }
}

impl Keys<'_> {
    fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.architecture)
    }

    fn refuse_features(&self) -> Result<(), ConfigError> {
        let refused = [
            ("expert_count", "mixtures of experts are not implemented"),
            ("final_logit_softcapping", "capped logits are not implemented"),
            ("attn_logit_softcapping", "capped attention scores are not implemented"),
        ];
        for (suffix, hint) in refused {
            let value = self.number(suffix)?.unwrap_or(0.0);
            if value != 0.0 {
                return Err(ConfigError::Unsupported { key: self.key(suffix), value: value.to_string(), hint });
            }
        }
        Ok(())
    }

    fn count(&self, suffix: &str) -> Result<Option<usize>, ConfigError> {
        let key = self.key(suffix);
        let value = match (self.lookup)(&key) {
            None => return Ok(None),
            Some(MetadataValue::Unsigned(value)) => value,
            Some(MetadataValue::UnsignedList(list)) => same_everywhere(&key, &list)?,
            Some(_) => return Err(wrong_type(&key, "a whole number")),
        };
        let fits = usize::try_from(value).map_err(|_| number(&key, value, "too large for this machine"))?;
        Ok(Some(fits))
    }

    fn required(&self, suffix: &str) -> Result<usize, ConfigError> {
        self.count(suffix)?.ok_or_else(|| ConfigError::Missing { key: self.key(suffix) })
    }

    fn number(&self, suffix: &str) -> Result<Option<f64>, ConfigError> {
        let key = self.key(suffix);
        match (self.lookup)(&key) {
            None => Ok(None),
            Some(MetadataValue::Float(value)) => Ok(Some(value)),
            Some(MetadataValue::Unsigned(value)) => Ok(Some(value as f64)),
            Some(_) => Err(wrong_type(&key, "a number")),
        }
    }

    fn required_number(&self, suffix: &str) -> Result<f64, ConfigError> {
        self.number(suffix)?.ok_or_else(|| ConfigError::Missing { key: self.key(suffix) })
    }

    fn head_dim(&self, hidden: usize, n_heads: usize) -> Result<usize, ConfigError> {
        let head_dim = match self.count("attention.key_length")? {
            Some(width) => width,
            None if n_heads != 0 && hidden.is_multiple_of(n_heads) => hidden / n_heads,
            None => {
                let rule = format!("embedding_length ({hidden}) must be a multiple of it");
                return Err(number(&self.key("attention.head_count"), n_heads, rule));
            }
        };
        for suffix in ["attention.value_length", "rope.dimension_count"] {
            if let Some(other) = self.count(suffix)?.filter(|&other| other != head_dim) {
                let rule = format!("only heads of one width ({head_dim}), rotated whole, are supported");
                return Err(number(&self.key(suffix), other, rule));
            }
        }
        Ok(head_dim)
    }

    fn ropes(&self, local: bool, head_dim: usize, facts: &GgufFacts) -> Result<Vec<RopeSpec>, ConfigError> {
        let theta = self.number("rope.freq_base")?.unwrap_or(10_000.0);
        let kind_key = self.key("rope.scaling.type");
        let kind = match (self.lookup)(&kind_key) {
            None => "none".to_string(),
            Some(MetadataValue::Text(kind)) => kind,
            Some(_) => return Err(wrong_type(&kind_key, "a string")),
        };
        let scaling = match (kind.as_str(), &facts.rope_divisors) {
            ("none", None) => RopeScaling::None,
            ("linear", None) => RopeScaling::Linear { factor: self.required_number("rope.scaling.factor")? },
            ("none", Some(divisors)) => rope::from_divisors(divisors, theta, head_dim)?,
            _ => return Err(ConfigError::Rope { found: short(kind) }),
        };
        let mut ropes = vec![RopeSpec { theta, scaling }];
        if local {
            let theta = self.number("rope.freq_base_swa")?.unwrap_or(10_000.0);
            ropes.push(RopeSpec { theta, scaling: RopeScaling::None });
        }
        Ok(ropes)
    }
}

fn same_everywhere(key: &str, list: &[u64]) -> Result<u64, ConfigError> {
    match list {
        [first, rest @ ..] if rest.iter().all(|value| value == first) => Ok(*first),
        _ => Err(number(key, format!("{} values", list.len()), "layers of different sizes are not supported")),
    }
}

fn wrong_type(key: &str, expected: &'static str) -> ConfigError {
    ConfigError::WrongType { key: key.to_string(), expected, found: "another type".into() }
}
