//! Facts about adapter folders.
#![allow(clippy::unwrap_used)]

use super::*;

fn config(alpha: f64) -> AdapterConfig {
    AdapterConfig {
        base_model: Some("org/model".into()),
        rank: 2,
        alpha,
        dropout: 0.05,
        target_modules: vec!["q_proj".into()],
        rank_stabilized: true,
    }
}

const MODULE: &str = "model.layers.0.self_attn.q_proj";

fn pair<'a>(a: &'a [f32], b: &'a [f32]) -> Vec<AdapterTensor<'a>> {
    vec![
        NamedTensor { name: factor_name(MODULE, Factor::A), shape: vec![2, 3], data: a },
        NamedTensor { name: factor_name(MODULE, Factor::B), shape: vec![4, 2], data: b },
    ]
}

const A: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
const B: [f32; 8] = [0.5; 8];

#[test]
fn an_adapter_comes_back_as_written_and_replaces_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("adapter");
    write_adapter(&target, &config(1.0), &pair(&[9.0; 6], &B)).unwrap();
    write_adapter(&target, &config(32.0), &pair(&A, &B)).unwrap();
    let adapter = read_adapter(&target).unwrap();
    assert_eq!(adapter.config, config(32.0));
    assert_eq!(adapter.pairs[MODULE].a, HostTensor { shape: vec![2, 3], data: A.to_vec() });
    assert_eq!(adapter.pairs[MODULE].b, HostTensor { shape: vec![4, 2], data: B.to_vec() });
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the adapter");
}

#[test]
fn names_are_those_of_peft_and_alpha_is_an_integer_literal_where_it_can_be() {
    assert_eq!(factor_name(MODULE, Factor::A), "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
    assert!(config(32.0).to_json().contains("\"lora_alpha\": 32,"));
    assert!(config(0.5).to_json().contains("\"lora_alpha\": 0.5,"));
    let json: Value = serde_json::from_str(&config(32.0).to_json()).unwrap();
    assert_eq!(json.as_object().unwrap().len(), 19, "the portable subset, nothing else");
}

#[test]
fn tensors_that_peft_would_skip_silently_are_never_written() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("adapter");
    let mut tensors = pair(&A, &B);
    tensors[0].name = format!("{MODULE}.lora_A.weight");
    let text = write_adapter(&target, &config(1.0), &tensors).unwrap_err().to_string();
    assert!(text.contains("must start with `base_model.model.`"), "{text}");
    assert!(!target.exists());
}

#[test]
fn adapters_that_lie_about_rank_or_lack_a_factor_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_adapter(folder.path().join("a").as_path(), &config(1.0), &pair(&A, &B)).unwrap();
    let text = config(1.0).to_json().replace("\"r\": 2", "\"r\": 3");
    std::fs::write(folder.path().join("a/adapter_config.json"), text).unwrap();
    let text = read_adapter(&folder.path().join("a")).unwrap_err().to_string();
    assert!(text.contains("disagrees with rank 3"), "{text}");
    write_adapter(folder.path().join("b").as_path(), &config(1.0), &pair(&A, &B)[..1]).unwrap();
    let text = read_adapter(&folder.path().join("b")).unwrap_err().to_string();
    assert!(text.contains("one of lora_A and lora_B is missing"), "{text}");
    assert!(read_adapter(&folder.path().join("c")).unwrap_err().to_string().contains("adapter_config.json"));
}

#[test]
fn features_that_are_not_implemented_are_refused_by_name() {
    for (key, value) in [
        ("use_dora", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("rank_pattern", json!({"q": 4})),
        ("bias", json!("all")),
        ("peft_type", json!("IA3")),
        ("r", json!(0)),
        ("r", json!(-1)),
        ("lora_alpha", json!("x")),
    ] {
        let mut json: Value = serde_json::from_str(&config(1.0).to_json()).unwrap();
        json[key] = value;
        let text = AdapterConfig::from_json(&json.to_string()).unwrap_err();
        assert!(text.contains(key), "{key}: {text}");
    }
}
