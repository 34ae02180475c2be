//! Writes a network's description as GGUF metadata.
//!
//! In:    a [`DecoderSpec`].
//! Out:   the keys that llama.cpp reads for its architecture, from which [`super::from_gguf`] reads the same description.
//! Never: describes a network that llama.cpp would compute otherwise: that one is refused.

use super::gguf::{MetadataValue, PATTERN_DEFAULT, scale_width};
use super::{ConfigError, number};
use crate::architecture::{DecoderSpec, Family, RopeScaling};

/// A network in GGUF's words.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufDescription {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// Keys and values, `general.architecture` included.
    pub keys: Vec<(String, MetadataValue)>,
    /// Contents of `rope_freqs.weight`: divisors of the rotary frequencies.
    pub rope_divisors: Option<Vec<f32>>,
    /// What the file cannot make llama.cpp do, in words for the user.
    pub notes: Vec<String>,
}

impl GgufDescription {
    fn set(&mut self, suffix: &str, value: MetadataValue) {
        self.keys.push((format!("{}.{suffix}", self.architecture), value));
    }

    fn count(&mut self, suffix: &str, value: usize) {
        self.set(suffix, MetadataValue::Unsigned(value as u64));
    }

    fn float(&mut self, suffix: &str, value: f64) {
        self.set(suffix, MetadataValue::Float(value));
    }
}

/// Describes the network, or says which part of it llama.cpp does not compute.
pub fn to_gguf(spec: &DecoderSpec) -> Result<GgufDescription, ConfigError> {
    refuse_biases(spec)?;
    let architecture = match spec.family {
        Family::Llama | Family::Mistral => "llama",
        Family::Qwen2 => "qwen2",
        Family::Qwen3 => "qwen3",
        Family::Gemma3 => "gemma3",
    };
    let named = ("general.architecture".to_string(), MetadataValue::Text(architecture.to_string()));
    let mut out = GgufDescription { architecture, keys: vec![named], rope_divisors: None, notes: Vec::new() };
    out.count("vocab_size", spec.vocabulary);
    out.count("context_length", spec.max_positions);
    out.count("embedding_length", spec.hidden);
    out.count("block_count", spec.n_layers());
    out.count("feed_forward_length", spec.intermediate);
    out.count("attention.head_count", spec.n_heads);
    out.count("attention.head_count_kv", spec.n_kv_heads);
    out.count("attention.key_length", spec.head_dim);
    out.count("attention.value_length", spec.head_dim);
    out.count("rope.dimension_count", spec.head_dim);
    out.float("attention.layer_norm_rms_epsilon", spec.norm_epsilon);
    attention_scale(spec)?;
    ropes(spec, &mut out)?;
    windows(spec, &mut out)?;
    Ok(out)
}

fn refuse_biases(spec: &DecoderSpec) -> Result<(), ConfigError> {
    let (any, qkv) = match spec.family {
        Family::Llama | Family::Mistral => return Ok(()),
        Family::Qwen2 => (spec.output_bias || spec.mlp_bias, false),
        Family::Qwen3 | Family::Gemma3 => (spec.output_bias || spec.mlp_bias, spec.qkv_bias),
    };
    match any || qkv {
        true => Err(unsupported("attention_bias", "true", "llama.cpp has no such biases in this architecture")),
        false => Ok(()),
    }
}

/// GGUF has no key for it: llama.cpp divides by the root of a width that it knows.
fn attention_scale(spec: &DecoderSpec) -> Result<(), ConfigError> {
    let gemma = spec.family == Family::Gemma3;
    let width = scale_width(gemma, spec.n_layers(), spec.hidden, spec.n_heads, spec.head_dim);
    // Both sides come from one whole number through one root.
    match (spec.attention_scale * (width as f64).sqrt() - 1.0).abs() < 1e-9 {
        true => Ok(()),
        false => {
            let value = spec.attention_scale.powi(-2).round();
            Err(number("query_pre_attn_scalar", value, format!("llama.cpp knows only {width} for this network")))
        }
    }
}

fn ropes(spec: &DecoderSpec, out: &mut GgufDescription) -> Result<(), ConfigError> {
    let Some(main) = spec.ropes.first() else { return Ok(()) };
    out.float("rope.freq_base", main.theta);
    match main.scaling {
        RopeScaling::None => {}
        RopeScaling::Linear { factor } => {
            out.set("rope.scaling.type", MetadataValue::Text("linear".to_string()));
            out.float("rope.scaling.factor", factor);
        }
        RopeScaling::Llama3 { .. } if out.architecture == "llama" => {
            out.rope_divisors = Some(divisors(main.theta, main.scaling, spec.head_dim));
        }
        RopeScaling::Llama3 { .. } => {
            let hint = "llama.cpp reads rotary divisors for the architecture llama only";
            return Err(unsupported("rope_scaling.rope_type", "llama3", hint));
        }
    }
    match spec.ropes.get(1) {
        Some(local) if local.scaling == RopeScaling::None => out.float("rope.freq_base_swa", local.theta),
        Some(_) => {
            let hint = "llama.cpp does not stretch the rotary frequencies of sliding layers";
            return Err(unsupported("rope_parameters.sliding_attention", "a scaling", hint));
        }
        None => {}
    }
    Ok(())
}

/// What llama.cpp divides each frequency by, as its converter computes it (`generate_extra_tensors`).
fn divisors(theta: f64, scaling: RopeScaling, head_dim: usize) -> Vec<f32> {
    let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } = scaling else {
        return vec![1.0; head_dim / 2];
    };
    let divisor = |index: usize| {
        let frequency = theta.powf(-2.0 * index as f64 / head_dim as f64);
        let turns = original_max_positions * frequency / std::f64::consts::TAU;
        let smooth = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
        (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
    };
    (0..head_dim / 2).map(divisor).collect()
}

fn windows(spec: &DecoderSpec, out: &mut GgufDescription) -> Result<(), ConfigError> {
    let mut windows = spec.layers.iter().filter_map(|layer| layer.window);
    let Some(window) = windows.next() else { return Ok(()) };
    if let Some(other) = windows.find(|&other| other != window) {
        return Err(number("sliding_window", other, format!("llama.cpp has one window for all layers, here {window}")));
    }
    let slides: Vec<bool> = spec.layers.iter().map(|layer| layer.window.is_some()).collect();
    match spec.family {
        Family::Mistral if slides.iter().all(|&slides| slides) => {
            out.count("attention.sliding_window", window);
            out.notes.push(format!(
                "llama.cpp has no sliding window for the architecture llama: beyond {window} tokens of context it attends \
                 to more than the model was trained to"
            ));
            Ok(())
        }
        Family::Gemma3 => {
            out.count("attention.sliding_window", window);
            out.count("attention.sliding_window_pattern", pattern(&slides)?);
            Ok(())
        }
        _ => {
            let hint = "llama.cpp has no sliding window for this architecture";
            Err(unsupported("sliding_window", &window.to_string(), hint))
        }
    }
}

/// Every how many layers one sees everything.
fn pattern(slides: &[bool]) -> Result<usize, ConfigError> {
    let pattern = match slides.iter().position(|slides| !slides) {
        Some(first) => first + 1,
        None => PATTERN_DEFAULT.max(slides.len() + 1),
    };
    let regular = slides.iter().enumerate().all(|(layer, &slides)| slides != (layer + 1).is_multiple_of(pattern));
    match regular {
        true => Ok(pattern),
        false => Err(unsupported("layer_types", "an irregular list", "llama.cpp needs every n-th layer to be global")),
    }
}

fn unsupported(key: &str, value: &str, hint: &'static str) -> ConfigError {
    ConfigError::Unsupported { key: key.to_string(), value: value.to_string(), hint }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{GgufFacts, from_gguf, from_hf};
    use super::*;
    use crate::architecture::LayerSpec;

    fn fixture(family: &str) -> DecoderSpec {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        from_hf(&std::fs::read_to_string(folder.join(family).join("config.json")).unwrap()).unwrap()
    }

    fn read_back(spec: &DecoderSpec, written: &GgufDescription) -> DecoderSpec {
        let lookup = |key: &str| written.keys.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        let facts = GgufFacts {
            vocabulary: spec.vocabulary,
            tied_head: spec.tied_head,
            qkv_bias: spec.qkv_bias,
            output_bias: spec.output_bias,
            mlp_bias: spec.mlp_bias,
            rope_divisors: written.rope_divisors.clone(),
        };
        from_gguf(&lookup, &facts).unwrap()
    }

    #[test]
    fn every_family_reads_back_as_it_was_described() {
        for family in ["llama", "llama-sharded", "mistral", "qwen2", "qwen3", "gemma3", "smollm2"] {
            let mut spec = fixture(family);
            if family == "gemma3" {
                spec.attention_scale = (spec.head_dim as f64).powf(-0.5);
            }
            let written = to_gguf(&spec).unwrap();
            // The file holds 1 + w where the folder holds w.
            let expected = DecoderSpec { norm_offset: false, ..spec.clone() };
            assert_eq!(read_back(&spec, &written), expected, "{family}");
            assert_eq!(written.notes.len(), usize::from(family == "mistral"), "{family}");
        }
    }

    #[test]
    fn the_published_scaling_of_llama_3_reads_back_from_its_divisors() {
        let mut spec = fixture("llama3");
        let RopeScaling::Llama3 { original_max_positions, .. } = &mut spec.ropes[0].scaling else {
            panic!("no llama3")
        };
        (*original_max_positions, spec.ropes[0].theta) = (8192.0, 500_000.0);
        let written = to_gguf(&spec).unwrap();
        assert_eq!(written.rope_divisors.as_ref().unwrap().len(), spec.head_dim / 2);
        assert_eq!(read_back(&spec, &written), spec);
    }

    #[test]
    fn what_llama_cpp_would_compute_otherwise_is_refused_with_the_reason() {
        let refused = |spec: &DecoderSpec, part: &str| {
            let text = to_gguf(spec).unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
        };
        refused(&fixture("gemma3"), "query_pre_attn_scalar");
        let qwen = fixture("qwen2");
        let sliding = |window| LayerSpec { window: Some(window), rope: 0 };
        refused(
            &DecoderSpec { layers: vec![sliding(4); 2], ..qwen.clone() },
            "no sliding window for this architecture",
        );
        refused(&DecoderSpec { layers: vec![sliding(4), sliding(5)], ..qwen.clone() }, "one window for all layers");
        refused(&DecoderSpec { ropes: fixture("llama3").ropes, ..qwen }, "architecture llama only");
        refused(&DecoderSpec { qkv_bias: true, ..fixture("qwen3") }, "no such biases");
        let gemma = fixture("gemma3");
        let scale = (gemma.head_dim as f64).powf(-0.5);
        let open = LayerSpec { window: None, rope: 0 };
        let irregular = vec![sliding(5), open, open, sliding(5)];
        refused(&DecoderSpec { layers: irregular, attention_scale: scale, ..gemma }, "every n-th layer");
    }
}
