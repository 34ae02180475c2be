//! Facts about counting models; configurations and figures are those that the publishers ship.
#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;

/// A configuration of the list with some keys replaced or added.
fn with(name: &str, changes: Value) -> String {
    let entry = known().iter().find(|entry| entry.name == name).expect(name);
    let mut config: Value = serde_json::from_str(&entry.config).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config.to_string()
}

fn error_of(text: &str) -> String {
    Inventory::from_hf(text).unwrap_err().to_string()
}

fn vision_parameters(inventory: &Inventory) -> u64 {
    inventory.left_out.iter().filter(|part| part.part.contains("vision")).map(|part| part.parameters).sum()
}

#[test]
fn every_model_of_the_list_has_the_published_number_of_parameters() {
    for entry in known() {
        let counted = entry.inventory().unwrap();
        let all = counted.parameters + vision_parameters(&counted);
        assert!(!entry.source.is_empty(), "{}", entry.name);
        assert!(entry.published_parameters.is_some() || entry.published_billions.is_some(), "{}", entry.name);
        if let Some(published) = entry.published_parameters {
            assert_eq!(all, published, "{} ({})", entry.name, entry.source);
        }
        if let Some(billions) = entry.published_billions {
            let decimals = if billions.fract() == 0.0 { 0.5 } else { 0.005 };
            let found = all as f64 / 1e9;
            assert!((found - billions).abs() <= decimals, "{}: {found} for {billions}", entry.name);
        }
    }
}

#[test]
fn mixtures_of_experts_use_the_published_number_of_parameters_for_a_token() {
    let mixtures = known().iter().filter(|entry| entry.published_active_billions.is_some());
    let mut compared = 0;
    for entry in mixtures {
        let counted = entry.inventory().unwrap();
        let published = entry.published_active_billions.unwrap();
        // OpenAI states its figure without the embedding and to three digits; others round or cut to two.
        let (left_out, tolerance) = match entry.source.contains("without the embedding") {
            true => (counted.embedding_parameters, 0.002),
            false => (0, 0.02),
        };
        let active = (counted.active_parameters - left_out) as f64 / 1e9;
        assert!((active / published - 1.0).abs() <= tolerance, "{}: {active} for {published}", entry.name);
        compared += 1;
    }
    assert_eq!(compared, 8);
}

#[test]
fn parts_add_up_to_the_whole() {
    for entry in known() {
        let counted = entry.inventory().unwrap();
        assert_eq!(counted.matrices.iter().map(Matrices::parameters).sum::<u64>(), counted.linear_parameters);
        let parts = counted.linear_parameters + counted.embedding_parameters + counted.head_parameters;
        assert_eq!(parts + counted.rest_parameters(), counted.parameters, "{}", entry.name);
        assert!(counted.rest_parameters() * 500 < counted.parameters, "{}", entry.name);
        assert_eq!(counted.experts == 0, counted.active_parameters == counted.parameters, "{}", entry.name);
        assert_eq!(counted.experts == 0, counted.experts_per_token == 0, "{}", entry.name);
    }
}

#[test]
fn models_that_the_trainer_knows_come_with_the_network_of_their_config_json() {
    let mut trainable = 0;
    for entry in known() {
        let counted = entry.inventory().unwrap();
        match (config::from_hf(&entry.config), &counted.spec) {
            (Ok(expected), Some(spec)) => {
                assert_eq!(&expected, spec, "{}", entry.name);
                assert_eq!(spec.parameters(), counted.parameters, "{}", entry.name);
                assert_eq!(counted.untrainable, None);
                trainable += 1;
            }
            (Err(reason), None) => assert_eq!(counted.untrainable, Some(reason.to_string()), "{}", entry.name),
            (reading, spec) => panic!("{}: {reading:?} but {spec:?}", entry.name),
        }
    }
    // All but Phi-4, Phi-4-mini, SmolLM3, two Mixtral, two Qwen3 mixtures, DeepSeek V3 and R1, two gpt-oss.
    assert_eq!(trainable, known().len() - 11);
}

#[test]
fn the_list_holds_every_family_from_the_smallest_to_the_largest() {
    let names: HashSet<&str> = known().iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names.len(), known().len(), "names are unique");
    let sizes = [
        ("llama-3.1-", "8b 70b 405b"),
        ("llama-3.2-", "1b 3b"),
        ("llama-3.3-", "70b"),
        ("llama-2-", "7b 13b 70b"),
        ("qwen2.5-", "0.5b 1.5b 3b 7b 14b 32b 72b"),
        ("qwen3-", "0.6b 1.7b 4b 8b 14b 32b 30b-a3b 235b-a22b"),
        ("gemma-3-", "270m 1b 4b 12b 27b"),
        ("mistral-", "7b-v0.1 7b-v0.3 nemo-12b small-24b"),
        ("mixtral-", "8x7b 8x22b"),
        ("phi-4-", "14b mini"),
        ("smollm2-", "135m 360m 1.7b"),
        ("smollm3-", "3b"),
        ("tinyllama-", "1.1b"),
        ("deepseek-r1-distill-", "qwen-1.5b qwen-7b qwen-14b qwen-32b llama-8b llama-70b"),
        ("deepseek-", "v3-671b r1-671b"),
        ("gpt-oss-", "20b 120b"),
    ];
    let expected = sizes.iter().flat_map(|(family, sizes)| sizes.split(' ').map(move |size| format!("{family}{size}")));
    let missing: Vec<String> = expected.filter(|name| !names.contains(name.as_str())).collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn names_are_found_in_any_usual_spelling() {
    for (spelling, name) in [
        ("llama-3.1-8b", "llama-3.1-8b"),
        ("Llama 3.1 8B", "llama-3.1-8b"),
        ("llama3.1:8b", "llama-3.1-8b"),
        ("meta-llama/Llama-3.1-8B", "llama-3.1-8b"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("hf:meta-llama/Llama-3.1-8B-Instruct@main", "llama-3.1-8b"),
        ("HF:Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b"),
        ("qwen2.5_0.5b", "qwen2.5-0.5b"),
        ("gemma3:4b", "gemma-3-4b"),
        ("google/gemma-3-27b-it", "gemma-3-27b"),
        ("microsoft/phi-4", "phi-4-14b"),
        ("Phi-4-mini-instruct", "phi-4-mini"),
        ("mistralai/Mistral-Small-24B-Instruct-2501", "mistral-small-24b"),
        ("mistralai/Mistral-Nemo-Instruct-2407", "mistral-nemo-12b"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "tinyllama-1.1b"),
        ("deepseek-ai/DeepSeek-R1", "deepseek-r1-671b"),
        ("Llama-2-7b-chat-hf", "llama-2-7b"),
    ] {
        assert_eq!(find(spelling).unwrap().name, name, "{spelling}");
    }
    assert_eq!(find("llama-3.2-1b").unwrap().repository.unwrap(), "meta-llama/Llama-3.2-1B");
}

#[test]
fn no_two_models_share_a_spelling() {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for entry in known() {
        let own = [&entry.name, &entry.repository].into_iter().chain(&entry.variants);
        for spelling in own.map(|name| known::key(name)).collect::<HashSet<_>>() {
            let other = seen.insert(spelling.clone(), &entry.name);
            assert_eq!(other, None, "`{spelling}` is also {}", entry.name);
        }
    }
}

#[test]
fn unknown_names_get_the_three_nearest() {
    let InventoryError::Unknown { nearest, known: count, .. } = find("llama-3.1-9b").unwrap_err() else { panic!() };
    assert_eq!((nearest.len(), count), (3, known().len()));
    assert!(nearest.contains(&"llama-3.1-8b".to_string()), "{nearest:?}");
    let text = find("qwen3-9b").unwrap_err().to_string();
    assert!(text.contains("`qwen3-9b`") && text.contains("qwen3-8b") && text.contains("config.json"), "{text}");
    for absurd in ["", "   ", "hf:", "///", "@", &"x".repeat(1_000_000)] {
        let text = find(absurd).unwrap_err().to_string();
        assert!(text.len() < 400 && !text.contains('\n'), "{text}");
    }
}

#[test]
fn a_model_is_found_in_less_than_a_millisecond() {
    find("llama-3.1-405b").unwrap();
    let once = || {
        let start = Instant::now();
        find("hf:meta-llama/Llama-3.1-405B-Instruct@main").unwrap();
        start.elapsed()
    };
    // The least of many: other work on the machine does not count.
    let least = (0..50).map(|_| once()).min().unwrap();
    println!("found in {least:?}");
    assert!(least < Duration::from_millis(1), "{least:?}");
}

#[test]
fn caches_hold_what_their_papers_say() {
    let elements = |name: &str| {
        let counted = find(name).unwrap();
        (counted.cache_elements_per_token, counted.cache_elements_windowed, counted.window_tokens)
    };
    // 128, 320 and 512 KiB a token in f16.
    assert_eq!(elements("llama-3.1-8b"), (128 * 512, 0, 0));
    assert_eq!(elements("llama-3.1-70b"), (320 * 512, 0, 0));
    assert_eq!(elements("llama-2-7b"), (512 * 512, 0, 0));
    // DeepSeek-V3: 512 + 64 numbers a layer.
    assert_eq!(elements("deepseek-v3"), (61 * 576, 0, 0));
    // gpt-oss: every second layer sees 128 tokens.
    assert_eq!(elements("gpt-oss-20b"), (12 * 1024, 12 * 1024 * 128, 128));
    // Gemma 3 27B: 10 of 62 layers see everything, the others 1024 tokens.
    assert_eq!(elements("gemma-3-27b"), (10 * 4096, 52 * 4096 * 1024, 1024));
    // A window on every layer is kept whole.
    assert_eq!(elements("mistral-7b-v0.1"), elements("mistral-7b-v0.3"));
}

#[test]
fn what_is_left_out_is_named_and_counted() {
    let gemma = find("gemma-3-4b").unwrap();
    // SigLIP so400m/14 at 896 pixels, 416,866,032, and a projector of 1152 x 2560 with its norm.
    assert_eq!(vision_parameters(&gemma), 416_866_032 + 1152 * 2560 + 1152);
    assert_eq!(gemma.parameters, 3_880_263_168);
    let deepseek = find("deepseek-r1").unwrap();
    let [module] = deepseek.left_out.as_slice() else { panic!() };
    // README_WEIGHTS.md of the repository: 11.5B that no other part has.
    assert!((module.parameters as f64 / 11.5e9 - 1.0).abs() < 0.02, "{module:?}");
    assert!(module.part.contains("prediction"));
    assert_eq!(find("gemma-3-1b").unwrap().left_out, Vec::new());
}

#[test]
fn mixtures_and_latent_attention_outside_the_list_are_counted_exactly() {
    let qwen = json!({"architectures":["Qwen2MoeForCausalLM"],"decoder_sparse_step":1,"hidden_size":2048,
        "intermediate_size":5632,"max_position_embeddings":8192,"moe_intermediate_size":1408,"num_attention_heads":16,
        "num_experts":60,"num_experts_per_tok":4,"num_hidden_layers":24,"num_key_value_heads":16,
        "shared_expert_intermediate_size":5632,"tie_word_embeddings":false,"vocab_size":151936});
    let counted = Inventory::from_hf(&qwen.to_string()).unwrap();
    // Qwen1.5-MoE-A2.7B.
    assert_eq!(counted.parameters, 14_315_784_192);
    assert!((counted.active_parameters as f64 / 2.7e9 - 1.0).abs() < 0.02, "{}", counted.active_parameters);
    let lite = json!({"architectures":["DeepseekV2ForCausalLM"],"first_k_dense_replace":1,"hidden_size":2048,
        "intermediate_size":10944,"kv_lora_rank":512,"max_position_embeddings":163840,"moe_intermediate_size":1408,
        "moe_layer_freq":1,"n_routed_experts":64,"n_shared_experts":2,"num_attention_heads":16,"num_experts_per_tok":6,
        "num_hidden_layers":27,"num_key_value_heads":16,"q_lora_rank":null,"qk_nope_head_dim":128,"qk_rope_head_dim":64,
        "tie_word_embeddings":false,"v_head_dim":128,"vocab_size":102400});
    assert_eq!(Inventory::from_hf(&lite.to_string()).unwrap().parameters, 15_706_484_224);
    let phi3 = json!({"architectures":["Phi3ForCausalLM"],"hidden_size":3072,"intermediate_size":8192,
        "max_position_embeddings":4096,"num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":32,
        "vocab_size":32064});
    assert_eq!(Inventory::from_hf(&phi3.to_string()).unwrap().parameters, 3_821_079_552);
}

#[test]
fn features_without_weights_are_counted_and_say_why_they_are_not_trained() {
    let yarn = json!({"rope_scaling":{"type":"yarn","factor":4.0,"original_max_position_embeddings":32768}});
    let counted = Inventory::from_hf(&with("qwen2.5-7b", yarn)).unwrap();
    assert_eq!((counted.parameters, counted.spec), (7_615_616_512, None));
    assert!(counted.untrainable.unwrap().contains("yarn"));
    let gptq = json!({"quantization_config":{"bits":4,"quant_method":"gptq"}});
    let counted = Inventory::from_hf(&with("llama-3.1-8b", gptq)).unwrap();
    assert_eq!((counted.parameters, counted.stored_format.as_deref()), (8_030_261_248, Some("gptq")));
    assert!(counted.untrainable.unwrap().contains("quantization_config"));
    // Experts in a dense family do change the number of weights.
    assert!(error_of(&with("llama-3.1-8b", json!({"num_local_experts":8}))).contains("num_local_experts"));
}

#[test]
fn gguf_metadata_count_like_the_config_json() {
    let values = HashMap::from([
        ("general.architecture", MetadataValue::Text("llama".into())),
        ("general.name", MetadataValue::Text("SmolLM2 135M".into())),
        ("llama.embedding_length", MetadataValue::Unsigned(576)),
        ("llama.feed_forward_length", MetadataValue::Unsigned(1536)),
        ("llama.block_count", MetadataValue::Unsigned(30)),
        ("llama.attention.head_count", MetadataValue::Unsigned(9)),
        ("llama.attention.head_count_kv", MetadataValue::Unsigned(3)),
        ("llama.attention.layer_norm_rms_epsilon", MetadataValue::Float(1e-5)),
        ("llama.rope.freq_base", MetadataValue::Float(100_000.0)),
        ("llama.context_length", MetadataValue::Unsigned(8192)),
    ]);
    let facts = GgufFacts { vocabulary: 49152, tied_head: true, ..GgufFacts::default() };
    let counted = Inventory::from_gguf(&|key| values.get(key).cloned(), &facts).unwrap();
    let expected = find("smollm2-135m").unwrap();
    assert_eq!(counted.name, "SmolLM2 135M");
    assert_eq!(Inventory { name: expected.name.clone(), repository: expected.repository.clone(), ..counted }, expected);
    let unknown = Inventory::from_gguf(&|_| Some(MetadataValue::Text("mamba".into())), &facts).unwrap_err().to_string();
    assert!(unknown.contains("mamba"), "{unknown}");
}

#[test]
fn unknown_architectures_are_refused_with_the_known_ones() {
    for name in ["MllamaForConditionalGeneration", "MambaForCausalLM", ""] {
        let text = error_of(&json!({"architectures":[name],"hidden_size":64}).to_string());
        assert!(text.contains(&format!("`{name}`")) && text.contains("DeepseekV3ForCausalLM"), "{text}");
    }
    let long = error_of(&json!({"architectures":["A".repeat(100_000)]}).to_string());
    assert!(long.len() < 600, "{long}");
    for broken in ["", "[]", "{", "{\"architectures\":[]}", "{\"architectures\":7}", "null"] {
        assert!(!error_of(broken).is_empty());
    }
}

#[test]
fn ten_trillion_parameters_are_counted_and_more_than_memory_can_address_is_refused() {
    let large = json!({"num_experts":6144,"num_experts_per_tok":8});
    let counted = Inventory::from_hf(&with("qwen3-235b-a22b", large)).unwrap();
    assert!(counted.parameters > 10_000_000_000_000, "{}", counted.parameters);
    assert_eq!(
        find("qwen3-235b-a22b").unwrap().linear_parameters + 94 * (6144 - 128) * 3 * 4096 * 1536,
        counted.linear_parameters
    );
    let absurd =
        json!({"num_experts":16384,"moe_intermediate_size":1 << 22,"hidden_size":1 << 22,"num_hidden_layers":4096});
    let text = error_of(&with("qwen3-235b-a22b", absurd));
    assert!(text.contains("parameters, more than 1000000000000000") && !text.contains('\n'), "{text}");
    let text = error_of(&with(
        "llama-3.1-8b",
        json!({"num_attention_heads":16384,"num_key_value_heads":16384,
        "head_dim":1024,"hidden_size":1 << 22,"num_hidden_layers":4096}),
    ));
    assert!(text.contains("more than"), "{text}");
}

#[test]
fn contradictions_name_both_numbers() {
    let text = error_of(&with("mixtral-8x7b", json!({"num_experts_per_tok":9})));
    assert!(text.contains("num_experts_per_tok") && text.contains('9') && text.contains("(8)"), "{text}");
    let text = error_of(&with("gpt-oss-20b", json!({"layer_types":["full_attention"]})));
    assert!(text.contains("layer_types") && text.contains("24"), "{text}");
    let text = error_of(&with("gpt-oss-20b", json!({"num_key_value_heads":7})));
    assert!(text.contains("num_key_value_heads") && text.contains("64"), "{text}");
    let text = error_of(&with("phi-4-14b", json!({"vocab_size":null})));
    assert!(text.contains("vocab_size") && text.contains("missing"), "{text}");
}

/// Every value of an object and of the objects inside it, replaced one at a time.
fn mutations(config: &Value, hostile: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    for (key, value) in config.as_object().unwrap() {
        let mut changed = config.clone();
        changed[key] = hostile.clone();
        found.push(changed);
        if value.is_object() {
            for inner in mutations(value, hostile) {
                let mut changed = config.clone();
                changed[key] = inner;
                found.push(changed);
            }
        }
    }
    found
}

#[test]
fn no_single_hostile_value_panics_or_fills_the_screen() {
    let hostile =
        [json!(0), json!(1), json!(u32::MAX), json!(u64::MAX), json!(-1), json!(1.5), json!("x"), json!([]), json!({})];
    let (mut counted, mut refused) = (0, 0);
    for name in
        ["llama-3.1-8b", "gemma-3-4b", "gpt-oss-20b", "deepseek-v3-671b", "qwen3-30b-a3b", "phi-4-mini", "smollm3-3b"]
    {
        let config: Value = serde_json::from_str(&with(name, json!({}))).unwrap();
        for value in &hostile {
            for changed in mutations(&config, value) {
                match Inventory::from_hf(&changed.to_string()) {
                    Ok(inventory) => {
                        assert!(inventory.parameters <= PARAMETERS_MAX && inventory.parameters > 0);
                        assert!(inventory.active_parameters <= inventory.parameters);
                        counted += 1;
                    }
                    Err(error) => {
                        let text = error.to_string();
                        assert!(text.len() < 600 && !text.contains('\n'), "{text}");
                        refused += 1;
                    }
                }
            }
        }
    }
    println!("{counted} counted, {refused} refused");
    assert!(counted > 100 && refused > 100, "{counted} counted, {refused} refused");
}
