//! Reads the description of a network out of a `config.json` or out of GGUF metadata.
//!
//! In:    the text of a Hugging Face `config.json` ([`from_hf`]), or GGUF key/values and what its tensors tell ([`from_gguf`]).
//! Out:   a checked [`DecoderSpec`], or a [`ConfigError`] naming the key, the value and the rule it breaks.
//! Never: opens a file; guesses at an architecture it does not know.

mod gguf;
mod hf;
mod rope;
#[cfg(test)]
mod tests;
mod to_gguf;
mod to_hf;

use crate::architecture::DecoderSpec;

pub use gguf::{GgufFacts, MetadataValue, from_gguf};
pub use hf::from_hf;
pub use to_gguf::{GgufDescription, to_gguf};
pub use to_hf::{to_hf, with_dtype};

/// `architectures` entries of a `config.json` that are understood.
pub const SUPPORTED_ARCHITECTURES: &str = "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, \
     Gemma3ForCausalLM, Gemma3ForConditionalGeneration";
/// `general.architecture` values of a GGUF file that are understood.
pub const SUPPORTED_GGUF: &str = "llama, qwen2, qwen3, gemma3";
/// Kinds of rotary scaling that are understood.
pub const SUPPORTED_ROPE: &str = "default, linear, llama3";

/// Why a model description cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not JSON, or not a JSON object.
    #[error("config.json is not a JSON object: {0}")]
    NotJson(String),
    /// A network that this program does not know.
    #[error("architecture `{found}` is not supported; supported are {supported}")]
    Architecture {
        /// What the file says.
        found: String,
        /// What would be understood.
        supported: &'static str,
    },
    /// A kind of rotary scaling that this program does not know.
    #[error("rope scaling `{found}` is not supported; supported are {SUPPORTED_ROPE}")]
    Rope {
        /// What the file says.
        found: String,
    },
    /// A key without which the network is not described.
    #[error("key `{key}` is missing from the model's configuration")]
    Missing {
        /// The key.
        key: String,
    },
    /// A key holds a value of another type.
    #[error("key `{key}` must be {expected}, found {found}")]
    WrongType {
        /// The key.
        key: String,
        /// The type it should have.
        expected: &'static str,
        /// The value found, shortened.
        found: String,
    },
    /// A number outside what any real model has, or that contradicts another one.
    #[error("key `{key}` is {value}: {rule}")]
    Number {
        /// The key.
        key: String,
        /// The value found.
        value: String,
        /// What must hold.
        rule: String,
    },
    /// A feature that changes the result and that this program does not have.
    #[error("`{key}` = {value} is not supported: {hint}")]
    Unsupported {
        /// The key.
        key: String,
        /// The value found, shortened.
        value: String,
        /// What to do.
        hint: &'static str,
    },
}

/// Upper bounds far above any published model; they keep every product of sizes inside 64 bits.
const VOCABULARY_MAX: usize = 1 << 24;
const WIDTH_MAX: usize = 1 << 22;
const HEADS_MAX: usize = 1 << 14;
const HEAD_DIM_MAX: usize = 1 << 10;
const LAYERS_MAX: usize = 1 << 12;
const POSITIONS_MAX: usize = 1 << 40;

/// Refuses numbers that no network can have. Both readers end here, so the bounds hold whatever the file format was.
fn checked(spec: DecoderSpec) -> Result<DecoderSpec, ConfigError> {
    within("vocab_size", spec.vocabulary, VOCABULARY_MAX)?;
    within("hidden_size", spec.hidden, WIDTH_MAX)?;
    within("intermediate_size", spec.intermediate, WIDTH_MAX)?;
    within("num_attention_heads", spec.n_heads, HEADS_MAX)?;
    within("num_key_value_heads", spec.n_kv_heads, HEADS_MAX)?;
    within("head_dim", spec.head_dim, HEAD_DIM_MAX)?;
    within("num_hidden_layers", spec.n_layers(), LAYERS_MAX)?;
    within("max_position_embeddings", spec.max_positions, POSITIONS_MAX)?;
    if !spec.head_dim.is_multiple_of(2) {
        return Err(number("head_dim", spec.head_dim, "rotary positions need an even head width"));
    }
    if !spec.n_heads.is_multiple_of(spec.n_kv_heads) {
        let rule = format!("num_attention_heads ({}) must be a multiple of it", spec.n_heads);
        return Err(number("num_key_value_heads", spec.n_kv_heads, rule));
    }
    if !(spec.norm_epsilon > 0.0 && spec.norm_epsilon < 1.0) {
        return Err(number("rms_norm_eps", spec.norm_epsilon, "must lie between 0 and 1"));
    }
    if !(spec.attention_scale.is_finite() && spec.attention_scale > 0.0) {
        return Err(number("query_pre_attn_scalar", spec.attention_scale, "must be positive and finite"));
    }
    for layer in &spec.layers {
        if let Some(window) = layer.window {
            within("sliding_window", window, POSITIONS_MAX)?;
        }
    }
    spec.ropes.iter().try_for_each(rope::check)?;
    Ok(spec)
}

fn within(key: &str, value: usize, max: usize) -> Result<(), ConfigError> {
    match value {
        0 => Err(number(key, value, "must not be zero")),
        n if n > max => Err(number(key, value, format!("larger than {max}, which no known model reaches"))),
        _ => Ok(()),
    }
}

fn number(key: &str, value: impl std::fmt::Display, rule: impl Into<String>) -> ConfigError {
    ConfigError::Number { key: key.to_string(), value: value.to_string(), rule: rule.into() }
}

/// A value shortened for a message: hostile files hold megabytes in one string.
fn short(value: impl std::fmt::Display) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
