//! Facts about opening models: the same tiny network as folders and as GGUF, honest and damaged.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, TensorView, serialize};

use super::*;
use crate::gguf::tests::Builder;

/// Two layers, hidden 8, two query heads of width 4, one key/value head.
fn config(architecture: &str) -> String {
    serde_json::json!({"architectures":[architecture],"hidden_size":8,"intermediate_size":16,"num_hidden_layers":2,
        "num_attention_heads":2,"num_key_value_heads":1,"head_dim":4,"vocab_size":10,"max_position_embeddings":64,
        "rms_norm_eps":1e-5,"rope_theta":10000.0,"tie_word_embeddings":false,"sliding_window":16})
    .to_string()
}

/// Every tensor of a description, filled with numbers that tell position and tensor.
fn tensors(config: &str) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let spec = planner::config::from_hf(config).unwrap();
    let fill = |(index, (name, shape)): (usize, (String, Vec<usize>))| {
        let count = shape.iter().product::<usize>();
        let data = (0..count).map(|n| index as f32 + n as f32 / 1024.0).collect();
        (name, (shape, data))
    };
    spec.tensors().into_iter().enumerate().map(fill).collect()
}

fn write_safetensors(path: &Path, tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) {
    let views = tensors.iter().map(|(name, (shape, data))| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(data)).unwrap())
    });
    std::fs::write(path, serialize(views, None).unwrap()).unwrap();
}

fn folder(config: &str, tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    write_safetensors(&folder.path().join("model.safetensors"), tensors);
    folder
}

#[test]
fn every_tensor_of_a_folder_is_read_as_written() {
    for architecture in
        ["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Gemma3ForCausalLM"]
    {
        let config = config(architecture);
        let tensors = tensors(&config);
        let folder = folder(&config, &tensors);
        let weights = Weights::open(folder.path()).unwrap();
        for (name, (shape, data)) in &tensors {
            let read = weights.read(name).unwrap();
            assert_eq!((&read.shape, &read.data), (shape, data), "{architecture} {name}");
        }
        assert_eq!(weights.folder(), Some(folder.path()));
        assert!(weights.gguf().is_none());
        assert!(weights.bytes_on_disk() > 4 * weights.spec().parameters());
        assert!(matches!(weights.read("model.layers.9.nothing"), Err(WeightsError::Unknown { .. })));
    }
}

#[test]
fn sharded_folders_read_like_single_ones() {
    let config = config("LlamaForCausalLM");
    let all = tensors(&config);
    let folder = folder(&config, &all);
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    for shard in 0..2 {
        let file = format!("model-{:05}-of-00002.safetensors", shard + 1);
        let part: BTreeMap<_, _> =
            all.clone().into_iter().enumerate().filter(|(n, _)| n % 2 == shard).map(|(_, t)| t).collect();
        part.keys().for_each(|name| drop(map.insert(name.clone(), file.clone().into())));
        write_safetensors(&folder.path().join(file), &part);
    }
    let index = folder.path().join("model.safetensors.index.json");
    std::fs::write(&index, serde_json::json!({"metadata":{},"weight_map":map}).to_string()).unwrap();
    let weights = Weights::open(folder.path()).unwrap();
    all.iter().for_each(|(name, (_, data))| assert_eq!(&weights.read(name).unwrap().data, data));
    std::fs::write(&index, r#"{"weight_map":{"x":"../../secret.safetensors"}}"#).unwrap();
    assert!(Weights::open(folder.path()).unwrap_err().to_string().contains("not a plain file name"));
    std::fs::remove_file(index).unwrap();
    assert!(Weights::open(folder.path()).unwrap_err().to_string().contains("holds neither"));
}

#[test]
fn multimodal_gemma_prefixes_lead_to_the_text_decoder() {
    let text: serde_json::Value = serde_json::from_str(&config("Gemma3ForCausalLM")).unwrap();
    let config = serde_json::json!({"architectures":["Gemma3ForConditionalGeneration"],"text_config":text}).to_string();
    let own = tensors(&config);
    for old in [true, false] {
        let renamed = own.iter().map(|(name, tensor)| match (old, name.strip_prefix("model.")) {
            (false, Some(rest)) => (format!("model.language_model.{rest}"), tensor.clone()),
            (true, _) => (format!("language_model.{name}"), tensor.clone()),
            (false, None) => (name.clone(), tensor.clone()),
        });
        let folder = folder(&config, &renamed.collect());
        let weights = Weights::open(folder.path()).unwrap();
        own.iter().for_each(|(name, (_, data))| assert_eq!(&weights.read(name).unwrap().data, data));
    }
}

#[test]
fn missing_and_misshapen_tensors_are_refused_before_loading() {
    let config = config("LlamaForCausalLM");
    let mut damaged = tensors(&config);
    damaged.retain(|name, _| !name.contains("layers.1.mlp"));
    let text = Weights::open(folder(&config, &damaged).path()).unwrap_err().to_string();
    assert!(text.contains("3 of the model's 21 tensors") && text.contains("layers.1.mlp.gate_proj"), "{text}");
    let mut damaged = tensors(&config);
    damaged.insert("model.norm.weight".into(), (vec![7], vec![0.0; 7]));
    let text = Weights::open(folder(&config, &damaged).path()).unwrap_err().to_string();
    assert!(text.contains("`model.norm.weight` has shape [7]") && text.contains("[8]"), "{text}");
    let mut extra = tensors(&config);
    extra.insert("rotary.inv_freq".into(), (vec![2], vec![0.0; 2]));
    Weights::open(folder(&config, &extra).path()).unwrap();
}

/// llama.cpp's converter, as its source writes it: `w.reshape(n_head, 2, d / 2, …).swapaxes(1, 2)`.
fn permuted(data: &[f32], heads: usize, head_dim: usize) -> Vec<f32> {
    let (width, half) = (data.len() / heads / head_dim, head_dim / 2);
    let mut out = vec![0.0; data.len()];
    for head in 0..heads {
        for part in 0..2 {
            for index in 0..half {
                let from = (head * head_dim + part * half + index) * width;
                let to = (head * head_dim + index * 2 + part) * width;
                out[to..to + width].copy_from_slice(&data[from..from + width]);
            }
        }
    }
    out
}

fn gguf_of(architecture: &str, hf: &str, tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Builder {
    let key = |suffix: &str| format!("{architecture}.{suffix}");
    let family = planner::config::from_hf(&config(hf)).unwrap().family;
    let mut builder = Builder::new()
        .text("general.architecture", architecture)
        .u32(&key("block_count"), 2)
        .u32(&key("embedding_length"), 8)
        .u32(&key("feed_forward_length"), 16)
        .u32(&key("attention.head_count"), 2)
        .u32(&key("attention.head_count_kv"), 1)
        .u32(&key("attention.key_length"), 4)
        .u32(&key("context_length"), 64)
        .f32(&key("attention.layer_norm_rms_epsilon"), 1e-5);
    for (name, (shape, data)) in tensors {
        let heads = match name.rsplit('.').nth(1) {
            Some("q_proj") if architecture == "llama" => 2,
            Some("k_proj") if architecture == "llama" => 1,
            _ => 0,
        };
        let data = if heads > 0 { permuted(data, heads, 4) } else { data.clone() };
        builder = builder.f32_tensor(&names::gguf(name, family).unwrap(), shape, &data);
    }
    builder
}

#[test]
fn gguf_tensors_come_back_under_their_hugging_face_names_and_rows() {
    for (architecture, hf) in [
        ("llama", "LlamaForCausalLM"),
        ("qwen2", "Qwen2ForCausalLM"),
        ("qwen3", "Qwen3ForCausalLM"),
        ("gemma3", "Gemma3ForCausalLM"),
    ] {
        let tensors = tensors(&config(hf));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, gguf_of(architecture, hf, &tensors).bytes()).unwrap();
        let weights = Weights::open(&path).unwrap();
        for (name, (shape, data)) in &tensors {
            let read = weights.read(name).unwrap();
            assert_eq!((&read.shape, &read.data), (shape, data), "{architecture} {name}");
        }
        assert_eq!(weights.tokenizer(), TokenizerFiles::Gguf);
        assert!(!weights.spec().tied_head);
    }
}

#[test]
fn a_gguf_without_a_head_is_tied_and_one_without_an_embedding_is_refused() {
    let mut tensors = tensors(&config("LlamaForCausalLM"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    tensors.remove("lm_head.weight");
    std::fs::write(&path, gguf_of("llama", "LlamaForCausalLM", &tensors).bytes()).unwrap();
    assert!(Weights::open(&path).unwrap().spec().tied_head);
    tensors.remove("model.layers.1.mlp.up_proj.weight");
    std::fs::write(&path, gguf_of("llama", "LlamaForCausalLM", &tensors).bytes()).unwrap();
    let text = Weights::open(&path).unwrap_err().to_string();
    assert!(text.contains("1 of the model's 20 tensors") && text.contains("`blk.1.ffn_up.weight`"), "{text}");
    tensors.remove("model.embed_tokens.weight");
    std::fs::write(&path, gguf_of("llama", "LlamaForCausalLM", &tensors).bytes()).unwrap();
    assert!(Weights::open(&path).unwrap_err().to_string().contains("token_embd.weight"));
}

#[test]
fn paths_that_are_no_model_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no-model");
    assert!(matches!(Weights::open(&missing), Err(WeightsError::NotFound { .. })));
    assert!(Weights::open(folder.path()).unwrap_err().to_string().contains("config.json"));
    let text = folder.path().join("readme.txt");
    std::fs::write(&text, "hello").unwrap();
    assert!(Weights::open(&text).unwrap_err().to_string().contains("not a GGUF file"));
}
