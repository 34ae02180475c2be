//! Writes a network's description as a Hugging Face `config.json`.
//!
//! In:    a [`DecoderSpec`].
//! Out:   the keys of transformers' configuration classes, from which [`super::from_hf`] reads the same description.
//! Never: leaves a key to a default that differs between versions of transformers.

use serde_json::{Map, Value, json};

use crate::architecture::{Activation, DecoderSpec, Family, RopeScaling, RopeSpec};

/// `config.json` for weights in `dtype` (`float32`, `bfloat16`). Token ids are the caller's to add.
pub fn to_hf(spec: &DecoderSpec, dtype: &str) -> Value {
    let (class, model_type) = match spec.family {
        Family::Llama => ("LlamaForCausalLM", "llama"),
        Family::Mistral => ("MistralForCausalLM", "mistral"),
        Family::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
        Family::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
        Family::Gemma3 => ("Gemma3ForCausalLM", "gemma3_text"),
    };
    let mut config = json!({
        "architectures": [class],
        "model_type": model_type,
        "dtype": dtype,
        "vocab_size": spec.vocabulary,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.intermediate,
        "num_hidden_layers": spec.n_layers(),
        "num_attention_heads": spec.n_heads,
        "num_key_value_heads": spec.n_kv_heads,
        "head_dim": spec.head_dim,
        "rms_norm_eps": spec.norm_epsilon,
        "max_position_embeddings": spec.max_positions,
        "tie_word_embeddings": spec.tied_head,
        "attention_dropout": 0.0,
        "use_cache": true,
    });
    let keys = config.as_object_mut().expect("an object literal");
    let activation = match spec.activation {
        Activation::Silu => "silu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
    };
    let gemma = spec.family == Family::Gemma3;
    keys.insert(if gemma { "hidden_activation" } else { "hidden_act" }.into(), activation.into());
    if gemma {
        keys.insert("query_pre_attn_scalar".into(), json!(spec.attention_scale.powi(-2).round()));
    }
    if !matches!(spec.family, Family::Qwen2 | Family::Mistral) {
        keys.insert("attention_bias".into(), spec.qkv_bias.into());
    }
    if spec.family == Family::Llama {
        keys.insert("mlp_bias".into(), spec.mlp_bias.into());
    }
    rope(keys, spec.ropes.first());
    if let (true, Some(local)) = (gemma, spec.ropes.get(1)) {
        keys.insert("rope_local_base_freq".into(), json!(local.theta));
    }
    windows(keys, spec);
    config
}

/// A `config.json` for the same network in another number format: every key as the file has it but `dtype`, in the spelling that it uses.
///
/// Only the text decoder of a multimodal model is trained and written, so its file is written anew, with its token ids.
pub fn with_dtype(config_json: &str, spec: &DecoderSpec, dtype: &str) -> Value {
    let mut config: Value = serde_json::from_str(config_json).unwrap_or_default();
    if let Some(text) = config.get("text_config") {
        let mut alone = to_hf(spec, dtype);
        for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
            if let Some(value) = config.get(key).or_else(|| text.get(key)) {
                alone[key] = value.clone();
            }
        }
        return alone;
    }
    let Some(keys) = config.as_object_mut() else { return to_hf(spec, dtype) };
    let spellings = ["dtype", "torch_dtype"];
    if !spellings.iter().any(|&key| keys.contains_key(key)) {
        keys.insert("torch_dtype".into(), dtype.into());
    }
    for key in spellings {
        if let Some(value) = keys.get_mut(key) {
            *value = dtype.into();
        }
    }
    config
}

fn rope(keys: &mut Map<String, Value>, rope: Option<&RopeSpec>) {
    let Some(rope) = rope else { return };
    keys.insert("rope_theta".into(), json!(rope.theta));
    let scaling = match rope.scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_positions as u64,
        }),
    };
    keys.insert("rope_scaling".into(), scaling);
}

fn windows(keys: &mut Map<String, Value>, spec: &DecoderSpec) {
    let window = spec.layers.iter().find_map(|layer| layer.window);
    match spec.family {
        Family::Llama => {}
        Family::Mistral => {
            keys.insert("sliding_window".into(), window.into());
        }
        Family::Qwen2 | Family::Qwen3 | Family::Gemma3 => {
            let kind = |slides| if slides { "sliding_attention" } else { "full_attention" };
            let kinds: Vec<&str> = spec.layers.iter().map(|layer| kind(layer.window.is_some())).collect();
            keys.insert("layer_types".into(), json!(kinds));
            keys.insert("sliding_window".into(), window.into());
            if spec.family != Family::Gemma3 {
                keys.insert("use_sliding_window".into(), window.is_some().into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::from_hf;
    use super::*;

    #[test]
    fn every_family_reads_back_as_it_was_described() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        for family in ["llama", "llama3", "llama-sharded", "mistral", "qwen2", "qwen3", "gemma3", "smollm2"] {
            let text = std::fs::read_to_string(folder.join(family).join("config.json")).unwrap();
            let spec = from_hf(&text).unwrap();
            assert_eq!(from_hf(&to_hf(&spec, "float32").to_string()).unwrap(), spec, "{family}");
        }
    }

    #[test]
    fn another_number_format_changes_no_other_key_and_keeps_the_spelling() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        for (family, spelling) in [("llama", "torch_dtype"), ("smollm2", "dtype")] {
            let text = std::fs::read_to_string(folder.join(family).join("config.json")).unwrap();
            let mut before: Value = serde_json::from_str(&text).unwrap();
            let after = with_dtype(&text, &from_hf(&text).unwrap(), "float32");
            assert_eq!(after[spelling], "float32");
            before[spelling] = "float32".into();
            assert_eq!(after, before, "{family}");
        }
    }

    #[test]
    fn the_text_part_of_a_multimodal_model_is_described_alone() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        let text: Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("gemma3/config.json")).unwrap()).unwrap();
        let whole = json!({
            "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text,
            "vision_config": {}, "eos_token_id": [1, 106],
        });
        let spec = from_hf(&whole.to_string()).unwrap();
        let alone = with_dtype(&whole.to_string(), &spec, "bfloat16");
        assert_eq!(alone["architectures"], json!(["Gemma3ForCausalLM"]));
        assert_eq!((&alone["eos_token_id"], &alone["bos_token_id"]), (&json!([1, 106]), &json!(2)));
        assert_eq!(from_hf(&alone.to_string()).unwrap(), spec);
    }
}
