//! Rotary position tables: old and new spellings of transformers, and the factors that GGUF files carry as a tensor.
//!
//! In:    `rope_theta` + `rope_scaling`, or `rope_parameters` (flat or per kind of layer), or `rope_freqs.weight`.
//! Out:   a [`RopeSpec`].
//! Never: approximates a kind it does not know.

use serde_json::{Map, Value};

use super::hf::Fields;
use super::{ConfigError, number, short};
use crate::architecture::{RopeScaling, RopeSpec};

/// Kind of layer whose table is wanted, as `rope_parameters` and `layer_types` spell it.
#[derive(Clone, Copy)]
pub(super) enum LayerKind {
    Full,
    Sliding,
}

impl LayerKind {
    pub(super) fn key(self) -> &'static str {
        match self {
            LayerKind::Full => "full_attention",
            LayerKind::Sliding => "sliding_attention",
        }
    }
}

/// The table of layers of `kind`. Keys read, newest spelling first: `rope_parameters[kind]`, `rope_parameters`, `rope_theta` + `rope_scaling`.
pub(super) fn from_fields(fields: &Fields, kind: LayerKind, theta_default: f64) -> Result<RopeSpec, ConfigError> {
    let theta_flat = fields.number("rope_theta")?.unwrap_or(theta_default);
    if let Some(parameters) = fields.object("rope_parameters")? {
        let own = nested(parameters, kind)?.unwrap_or(parameters);
        return from_parameters(own, theta_flat);
    }
    match fields.object("rope_scaling")? {
        Some(scaling) => from_parameters(scaling, theta_flat),
        None => Ok(RopeSpec { theta: theta_flat, scaling: RopeScaling::None }),
    }
}

/// Whether `rope_parameters` holds one table for each kind of layer.
pub(super) fn is_nested(parameters: &Map<String, Value>) -> bool {
    [LayerKind::Full, LayerKind::Sliding].iter().any(|kind| parameters.contains_key(kind.key()))
}

fn nested(parameters: &Map<String, Value>, kind: LayerKind) -> Result<Option<&Map<String, Value>>, ConfigError> {
    if !is_nested(parameters) {
        return Ok(None);
    }
    match Fields(parameters).object(kind.key())? {
        Some(own) => Ok(Some(own)),
        None => Err(ConfigError::Missing { key: format!("rope_parameters.{}", kind.key()) }),
    }
}

fn from_parameters(map: &Map<String, Value>, theta_default: f64) -> Result<RopeSpec, ConfigError> {
    let fields = Fields(map);
    let theta = fields.number("rope_theta")?.unwrap_or(theta_default);
    if let Some(share) = fields.number("partial_rotary_factor")?.filter(|&share| share != 1.0) {
        let hint = "only full rotary heads are implemented";
        return Err(ConfigError::Unsupported { key: "partial_rotary_factor".into(), value: share.to_string(), hint });
    }
    let kind = match fields.text("rope_type")? {
        Some(kind) => kind,
        None => fields.text("type")?.unwrap_or("default"),
    };
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: fields.required_number("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: fields.required_number("factor")?,
            low_freq_factor: fields.required_number("low_freq_factor")?,
            high_freq_factor: fields.required_number("high_freq_factor")?,
            original_max_positions: fields.required_number("original_max_position_embeddings")?,
        },
        other => return Err(ConfigError::Rope { found: short(other) }),
    };
    Ok(RopeSpec { theta, scaling })
}

/// Refuses bases and factors from which no finite frequency follows.
pub(super) fn check(rope: &RopeSpec) -> Result<(), ConfigError> {
    let positive = |key: &str, value: f64| match value.is_finite() && value > 0.0 && value < 1e15 {
        true => Ok(()),
        false => Err(number(key, value, "must be positive and finite")),
    };
    positive("rope_theta", rope.theta)?;
    match rope.scaling {
        RopeScaling::None => Ok(()),
        RopeScaling::Linear { factor } => positive("rope_scaling.factor", factor),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
            positive("rope_scaling.factor", factor)?;
            positive("rope_scaling.low_freq_factor", low_freq_factor)?;
            positive("rope_scaling.original_max_position_embeddings", original_max_positions)?;
            positive("rope_scaling.high_freq_factor", high_freq_factor)?;
            match high_freq_factor > low_freq_factor {
                true => Ok(()),
                false => {
                    let rule = format!("must exceed low_freq_factor ({low_freq_factor})");
                    Err(number("rope_scaling.high_freq_factor", high_freq_factor, rule))
                }
            }
        }
    }
}

/// Recovers Llama 3 scaling from the per-frequency divisors of a GGUF file's `rope_freqs.weight`.
///
/// The converter writes `f / f'` for every frequency; low bound 1, high bound 4 and 8192 original positions are what every published
/// Llama 3.x has, and the largest divisor is the factor. The recomputed table must equal the file's, or the file is refused.
pub(super) fn from_divisors(divisors: &[f32], theta: f64, head_dim: usize) -> Result<RopeScaling, ConfigError> {
    let refused = |value: String| ConfigError::Unsupported {
        key: "rope_freqs.weight".into(),
        value,
        hint: "its factors are not those of Llama 3 scaling; use the model's safetensors folder instead",
    };
    if divisors.len() != head_dim / 2 {
        return Err(refused(format!("{} factors for {} frequencies", divisors.len(), head_dim / 2)));
    }
    let factor = f64::from(divisors.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    if divisors.iter().all(|&divisor| divisor == 1.0) {
        return Ok(RopeScaling::None);
    }
    let (low, high, original) = (1.0, 4.0, 8192.0);
    for (index, &found) in divisors.iter().enumerate() {
        let frequency = theta.powf(-2.0 * index as f64 / head_dim as f64);
        let turns = original * frequency / std::f64::consts::TAU;
        let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        let expected = 1.0 / ((1.0 - smooth) / factor + smooth);
        // 1e-4: the converter computes in f32, and the slope between the bounds magnifies its rounding.
        let close = (f64::from(found) - expected).abs() <= 1e-4 * expected;
        if !close {
            return Err(refused(format!("factor {found} at frequency {index}, expected {expected:.6}")));
        }
    }
    Ok(RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_max_positions: original })
}
