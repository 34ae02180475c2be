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
}
