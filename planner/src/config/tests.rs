//! Facts about the reading of model descriptions; the texts are those that the models' publishers ship, shortened.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use super::*;
use crate::architecture::{Activation, Family, RopeScaling};

const SMOLLM2: &str = r#"{"architectures":["LlamaForCausalLM"],"attention_bias":false,"hidden_act":"silu","hidden_size":576,
  "intermediate_size":1536,"max_position_embeddings":8192,"mlp_bias":false,"model_type":"llama","num_attention_heads":9,
  "num_hidden_layers":30,"num_key_value_heads":3,"rms_norm_eps":1e-05,"rope_scaling":null,"rope_theta":100000,
  "tie_word_embeddings":true,"torch_dtype":"bfloat16","vocab_size":49152}"#;

/// `SMOLLM2` with some keys replaced, added (`{"key": value}`) or removed (`null` in `removed`).
fn smollm2_with(changes: serde_json::Value) -> String {
    let mut config: serde_json::Value = serde_json::from_str(SMOLLM2).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config.to_string()
}

fn error_of(text: &str) -> String {
    from_hf(text).unwrap_err().to_string()
}

#[test]
fn smollm2_is_described_as_published() {
    let spec = from_hf(SMOLLM2).unwrap();
    assert_eq!((spec.family, spec.n_layers(), spec.head_dim), (Family::Llama, 30, 64));
    assert_eq!((spec.n_heads, spec.n_kv_heads, spec.tied_head), (9, 3, true));
    assert_eq!(spec.attention_scale, 0.125);
    assert_eq!(spec.parameters(), 134_515_008);
    assert!(spec.layers.iter().all(|layer| layer.window.is_none() && layer.rope == 0));
}

#[test]
fn old_and_new_rope_spellings_mean_the_same() {
    let llama3 = serde_json::json!({"rope_type":"llama3","factor":32.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
        "original_max_position_embeddings":8192});
    let old = smollm2_with(serde_json::json!({"rope_theta":500000.0,"rope_scaling":llama3}));
    let mut parameters = llama3.clone();
    parameters["rope_theta"] = 500000.0.into();
    let new = smollm2_with(serde_json::json!({"rope_theta":null,"rope_parameters":parameters}));
    assert_eq!(from_hf(&old).unwrap(), from_hf(&new).unwrap());
    let expected = RopeScaling::Llama3 {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_positions: 8192.0,
    };
    assert_eq!(from_hf(&old).unwrap().ropes[0].scaling, expected);
    let linear = smollm2_with(serde_json::json!({"rope_scaling":{"type":"linear","factor":2.0}}));
    assert_eq!(from_hf(&linear).unwrap().ropes[0].scaling, RopeScaling::Linear { factor: 2.0 });
}

#[test]
fn unsupported_rope_kinds_are_named_with_the_supported_ones() {
    for kind in ["yarn", "dynamic", "longrope"] {
        let text = error_of(&smollm2_with(serde_json::json!({"rope_scaling":{"rope_type":kind,"factor":2.0}})));
        assert!(text.contains(kind) && text.contains("linear, llama3"), "{text}");
    }
}

#[test]
fn llama_biases_follow_their_keys() {
    let spec = from_hf(&smollm2_with(serde_json::json!({"attention_bias":true,"mlp_bias":true}))).unwrap();
    assert!(spec.qkv_bias && spec.output_bias && spec.mlp_bias);
}

#[test]
fn mistral_slides_on_every_layer_unless_the_window_is_null() {
    let mistral = |window: &str| {
        format!(
            r#"{{"architectures":["MistralForCausalLM"],"hidden_size":4096,"intermediate_size":14336,{window}
            "num_attention_heads":32,"num_hidden_layers":2,"num_key_value_heads":8,"vocab_size":32000}}"#
        )
    };
    let windows = |text: String| from_hf(&text).unwrap().layers.iter().map(|layer| layer.window).collect::<Vec<_>>();
    assert_eq!(windows(mistral(r#""sliding_window":1024,"#)), [Some(1024), Some(1024)]);
    assert_eq!(windows(mistral(r#""sliding_window":null,"#)), [None, None]);
    assert_eq!(windows(mistral("")), [Some(4096), Some(4096)]);
}

#[test]
fn qwen2_has_biases_on_qkv_only_and_slides_above_max_window_layers() {
    let base = r#""architectures":["Qwen2ForCausalLM"],"hidden_size":896,"intermediate_size":4864,
        "num_attention_heads":14,"num_hidden_layers":4,"num_key_value_heads":2,"rope_theta":1000000.0,"sliding_window":32768,
        "vocab_size":151936,"tie_word_embeddings":true"#;
    let plain = from_hf(&format!("{{{base},\"use_sliding_window\":false,\"max_window_layers\":2}}")).unwrap();
    assert!(plain.qkv_bias && !plain.output_bias && !plain.mlp_bias && !plain.qk_norm);
    assert!(plain.layers.iter().all(|layer| layer.window.is_none()));
    let slides = from_hf(&format!("{{{base},\"use_sliding_window\":true,\"max_window_layers\":2}}")).unwrap();
    let windows: Vec<_> = slides.layers.iter().map(|layer| layer.window).collect();
    assert_eq!(windows, [None, None, Some(32768), Some(32768)]);
    let typed = r#""layer_types":["sliding_attention","full_attention","full_attention","full_attention"]"#;
    let typed = from_hf(&format!("{{{base},\"use_sliding_window\":true,{typed}}}")).unwrap();
    assert_eq!(typed.layers.iter().filter(|layer| layer.window.is_some()).count(), 1);
}

#[test]
fn qwen3_head_width_is_its_own_and_defaults_to_128() {
    let qwen3 = r#"{"architectures":["Qwen3ForCausalLM"],"hidden_size":1024,"intermediate_size":3072,"dtype":"bfloat16",
        "num_attention_heads":16,"num_hidden_layers":28,"num_key_value_heads":8,"rope_parameters":{"rope_theta":1000000,
        "rope_type":"default"},"vocab_size":151936,"tie_word_embeddings":true}"#;
    let spec = from_hf(qwen3).unwrap();
    assert!(spec.qk_norm && !spec.qkv_bias && !spec.norm_offset);
    assert_eq!((spec.head_dim, spec.ropes[0].theta), (128, 1_000_000.0));
    assert_eq!(spec.parameters(), 596_049_920);
}

#[test]
fn gemma3_1b_has_two_ropes_and_a_global_layer_in_six() {
    let gemma = r#"{"architectures":["Gemma3ForCausalLM"],"attention_bias":false,"attn_logit_softcapping":null,
      "final_logit_softcapping":null,"head_dim":256,"hidden_activation":"gelu_pytorch_tanh","hidden_size":1152,
      "intermediate_size":6912,"max_position_embeddings":32768,"num_attention_heads":4,"num_hidden_layers":26,
      "num_key_value_heads":1,"query_pre_attn_scalar":256,"rms_norm_eps":1e-06,"rope_local_base_freq":10000,
      "rope_scaling":null,"rope_theta":1000000,"sliding_window":512,"sliding_window_pattern":6,"vocab_size":262144}"#;
    let spec = from_hf(gemma).unwrap();
    assert!(spec.norm_offset && spec.qk_norm && spec.sandwich_norms && spec.tied_head);
    assert_eq!(spec.activation, Activation::GeluTanh);
    assert_eq!((spec.embedding_scale, spec.attention_scale), (Some(1152f64.sqrt()), 1.0 / 16.0));
    assert_eq!((spec.ropes[0].theta, spec.ropes[1].theta), (1_000_000.0, 10_000.0));
    assert_eq!((spec.layers[4].window, spec.layers[4].rope), (Some(512), 1));
    assert_eq!((spec.layers[5].window, spec.layers[5].rope), (None, 0));
    assert_eq!(spec.parameters(), 999_885_952);
}

#[test]
fn gemma3_4b_is_read_from_its_text_config_with_the_defaults_of_transformers() {
    let old = r#"{"architectures":["Gemma3ForConditionalGeneration"],"model_type":"gemma3","text_config":{"hidden_size":2560,
      "intermediate_size":10240,"model_type":"gemma3_text","num_hidden_layers":34,
      "rope_scaling":{"factor":8.0,"rope_type":"linear"},"sliding_window":1024},"vision_config":{"hidden_size":1152}}"#;
    let new = r#"{"architectures":["Gemma3ForConditionalGeneration"],"text_config":{"hidden_size":2560,
      "intermediate_size":10240,"num_hidden_layers":34,"sliding_window":1024,"rope_parameters":{
      "full_attention":{"factor":8.0,"rope_type":"linear","rope_theta":1000000.0},
      "sliding_attention":{"rope_type":"default","rope_theta":10000.0}}}}"#;
    let spec = from_hf(old).unwrap();
    assert_eq!(spec, from_hf(new).unwrap());
    assert_eq!((spec.vocabulary, spec.n_heads, spec.n_kv_heads, spec.head_dim), (262_208, 8, 4, 256));
    assert_eq!(spec.ropes[0].scaling, RopeScaling::Linear { factor: 8.0 });
    assert_eq!(spec.ropes[1].scaling, RopeScaling::None);
    assert_eq!(spec.parameters(), 3_880_263_168);
}

#[test]
fn features_that_change_the_result_are_refused_by_name() {
    let changes = [
        serde_json::json!({"quantization_config":{"bits":4}}),
        serde_json::json!({"final_logit_softcapping":30.0}),
        serde_json::json!({"num_local_experts":8}),
        serde_json::json!({"partial_rotary_factor":0.5}),
        serde_json::json!({"hidden_act":"relu"}),
    ];
    for change in changes {
        let key = change.as_object().unwrap().keys().next().unwrap().clone();
        let text = error_of(&smollm2_with(change));
        assert!(text.contains(&key) && text.contains("not supported"), "{text}");
    }
    let text = error_of(r#"{"architectures":["MixtralForCausalLM"]}"#);
    assert!(text.contains("MixtralForCausalLM") && text.contains("Qwen3ForCausalLM"), "{text}");
}

#[test]
fn numbers_that_no_network_can_have_are_refused_with_their_key() {
    let lies = [
        ("num_attention_heads", serde_json::json!(0)),
        ("num_key_value_heads", serde_json::json!(2)),
        ("num_key_value_heads", serde_json::json!(0)),
        ("head_dim", serde_json::json!(63)),
        ("hidden_size", serde_json::json!(1u64 << 62)),
        ("vocab_size", serde_json::json!(0)),
        ("num_hidden_layers", serde_json::json!(u64::MAX)),
        ("intermediate_size", serde_json::json!(-1)),
        ("rms_norm_eps", serde_json::json!(0.0)),
        ("rope_theta", serde_json::json!(-10.0)),
        ("hidden_size", serde_json::json!("576")),
    ];
    for (key, value) in lies {
        let text = error_of(&smollm2_with(serde_json::json!({key: value, "head_dim_unused": 1})));
        assert!(text.contains(key) || text.contains("num_attention_heads"), "{key}: {text}");
    }
    assert!(error_of("[1]").contains("not a JSON object"));
    assert!(error_of("{").contains("not a JSON object"));
    assert!(error_of("{}").contains("architectures"));
}

fn llama_metadata() -> HashMap<String, MetadataValue> {
    let text = |value: &str| MetadataValue::Text(value.into());
    let entries = [
        ("general.architecture", text("llama")),
        ("llama.block_count", MetadataValue::Unsigned(30)),
        ("llama.embedding_length", MetadataValue::Unsigned(576)),
        ("llama.feed_forward_length", MetadataValue::Unsigned(1536)),
        ("llama.attention.head_count", MetadataValue::Unsigned(9)),
        ("llama.attention.head_count_kv", MetadataValue::Unsigned(3)),
        ("llama.attention.layer_norm_rms_epsilon", MetadataValue::Float(1e-5)),
        ("llama.rope.freq_base", MetadataValue::Float(100_000.0)),
        ("llama.rope.dimension_count", MetadataValue::Unsigned(64)),
        ("llama.context_length", MetadataValue::Unsigned(8192)),
    ];
    entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

fn facts() -> GgufFacts {
    GgufFacts { vocabulary: 49_152, tied_head: true, ..GgufFacts::default() }
}

fn read(metadata: &HashMap<String, MetadataValue>, facts: &GgufFacts) -> Result<DecoderSpec, ConfigError> {
    from_gguf(&|key| metadata.get(key).cloned(), facts)
}

#[test]
fn gguf_and_config_json_of_one_model_describe_one_network() {
    assert_eq!(read(&llama_metadata(), &facts()).unwrap(), from_hf(SMOLLM2).unwrap());
}

#[test]
fn llama3_scaling_is_recovered_from_rope_freqs_or_refused() {
    let mut metadata = llama_metadata();
    metadata.insert("llama.rope.freq_base".into(), MetadataValue::Float(500_000.0));
    let divisor = |index: i32| {
        let frequency = 1.0f32 / 500_000f32.powf(2.0 * index as f32 / 64.0);
        let wavelength = 2.0 * std::f32::consts::PI / frequency;
        match wavelength {
            short if short < 8192.0 / 4.0 => 1.0,
            long if long > 8192.0 => 32.0,
            middle => {
                let smooth = (8192.0 / middle - 1.0) / 3.0;
                1.0 / ((1.0 - smooth) / 32.0 + smooth)
            }
        }
    };
    let mut divisors: Vec<f32> = (0..32).map(divisor).collect();
    let own = GgufFacts { rope_divisors: Some(divisors.clone()), ..facts() };
    let scaling = read(&metadata, &own).unwrap().ropes[0].scaling;
    assert!(matches!(scaling, RopeScaling::Llama3 { factor: 32.0, .. }), "{scaling:?}");
    divisors[3] = 1.5;
    let lie = GgufFacts { rope_divisors: Some(divisors), ..facts() };
    assert!(read(&metadata, &lie).unwrap_err().to_string().contains("rope_freqs.weight"));
}

#[test]
fn gguf_gemma3_norms_hold_their_offset_and_layers_follow_the_sixth() {
    let renamed = llama_metadata().into_iter().map(|(key, value)| (key.replace("llama.", "gemma3."), value));
    let mut metadata: HashMap<_, _> = renamed.collect();
    metadata.insert("general.architecture".into(), MetadataValue::Text("gemma3".into()));
    metadata.insert("gemma3.attention.sliding_window".into(), MetadataValue::Unsigned(512));
    let spec = read(&metadata, &facts()).unwrap();
    assert!(!spec.norm_offset && spec.sandwich_norms && spec.qk_norm);
    assert_eq!((spec.layers[0].window, spec.layers[5].window), (Some(512), None));
    assert_eq!(spec.ropes[1].theta, 10_000.0);
}

#[test]
fn gguf_lies_are_refused_with_their_key() {
    let lies = [
        ("llama.rope.dimension_count", MetadataValue::Unsigned(32), "rope.dimension_count"),
        ("llama.rope.scaling.type", MetadataValue::Text("yarn".into()), "yarn"),
        ("llama.expert_count", MetadataValue::Unsigned(8), "expert_count"),
        ("llama.block_count", MetadataValue::Unsigned(u64::MAX), "block_count"),
        ("llama.attention.head_count_kv", MetadataValue::UnsignedList(vec![3, 1]), "head_count_kv"),
        ("llama.embedding_length", MetadataValue::Text("576".into()), "embedding_length"),
        ("general.architecture", MetadataValue::Text("mamba".into()), "mamba"),
    ];
    for (key, value, named) in lies {
        let mut metadata = llama_metadata();
        metadata.insert(key.into(), value);
        let text = read(&metadata, &facts()).unwrap_err().to_string();
        assert!(text.contains(named), "{key}: {text}");
    }
    for key in ["llama.context_length", "llama.block_count", "general.architecture"] {
        let mut metadata = llama_metadata();
        metadata.remove(key);
        assert!(read(&metadata, &facts()).unwrap_err().to_string().contains(key));
    }
}
