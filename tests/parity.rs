//! Tiny random models of every family against transformers and PEFT: logits, loss, gradients, ten AdamW losses.
//!
//! In:    `tests/fixtures/<family>/`, made by `make_fixtures.py` with pinned versions.
//! Out:   facts: f32 logits within 1e-4, gradients within 1e-3 relative, ten losses within 1e-4.
//! Never: recomputes a golden.

use std::path::{Path, PathBuf};

use checkpoints::peft::read_adapter;
use checkpoints::tensors::TensorFile;
use checkpoints::weights::Weights;
use datasets::Batch;
use models::{BlockAdapters, RowContext};
use offload::adamw::AdamW;
use planner::architecture::Linear;
use planner::plan::{DeviceChoice, Keep, LoraPlan, Precision};
use serde_json::Value;
use trainer::{AdapterStore, Engine, Residency};

const FAMILIES: [&str; 8] = ["llama", "llama3", "llama-sharded", "mistral", "qwen2", "qwen3", "gemma3", "smollm2"];

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub fn golden(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(name).join("golden.json")).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// All rows of the golden file in one packed batch; also each row's tokens.
fn batch(rows: &[Value]) -> Batch {
    let mut batch = Batch { segments: vec![0], ..Batch::default() };
    for row in rows {
        let offset = batch.tokens.len() as u32;
        let tokens: Vec<u32> = numbers(&row["tokens"]).iter().map(|&token| token as u32).collect();
        for (at, trained) in row["trained"].as_array().unwrap().iter().enumerate().skip(1) {
            if trained.as_bool().unwrap() {
                batch.loss_rows.push(offset + at as u32 - 1);
                batch.targets.push(tokens[at]);
            }
        }
        batch.tokens.extend(&tokens);
        batch.segments.push(batch.tokens.len() as u32);
    }
    batch
}

pub fn engine(path: &Path, precision: Precision, keep: Keep) -> Engine {
    let weights = Weights::open(path).unwrap();
    let device = trainer::device(DeviceChoice::Cpu).unwrap();
    let decoder = trainer::decoder(&weights, precision, &device).unwrap();
    let keep = vec![keep; decoder.blocks.len()];
    Engine { residency: Residency::all_resident(decoder), keep, dropout: None }
}

pub fn base_adapters(engine: &Engine) -> Vec<BlockAdapters> {
    vec![BlockAdapters::default(); engine.residency.decoder().blocks.len()]
}

fn store(engine: &Engine, folder: &Path, targets: &[Linear]) -> AdapterStore {
    let adapter = read_adapter(folder).unwrap();
    let config = &adapter.config;
    let root = if config.rank_stabilized { (config.rank as f64).sqrt() } else { config.rank as f64 };
    let plan = LoraPlan {
        rank: config.rank,
        alpha: config.alpha,
        scale: config.alpha / root,
        rank_stabilized: config.rank_stabilized,
        dropout: 0.0,
        targets: targets.to_vec(),
        start_from: None,
    };
    let mut store = AdapterStore::new(&plan, &engine.residency.decoder().spec, 0);
    store.start_from(&adapter, folder).unwrap();
    store
}

/// Logits of every token of the batch.
pub fn logits(engine: &Engine, batch: &Batch, adapters: &[BlockAdapters]) -> Vec<f32> {
    let decoder = engine.residency.decoder();
    let context = RowContext::packed(&decoder.spec, &batch.segments, 0, &decoder.device);
    let hidden = engine.hidden(batch, adapters, &context);
    let rows: Vec<u32> = (0..batch.tokens.len() as u32).collect();
    decoder.logits(hidden, &rows).into_data().convert::<f32>().iter::<f32>().collect()
}

fn largest_difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_of_every_family_match_transformers_within_1e_4() {
    for family in FAMILIES {
        let engine = engine(&fixture(family), Precision::F32, Keep::Retain);
        let golden_json = golden(family);
        let file = TensorFile::open(&fixture(family).join("golden.safetensors")).unwrap();
        for (row, value) in golden_json["rows"].as_array().unwrap().iter().enumerate() {
            let ours = logits(&engine, &batch(std::slice::from_ref(value)), &base_adapters(&engine));
            let theirs = file.read(&format!("logits.{row}")).unwrap();
            let difference = largest_difference(&ours, &theirs.data);
            assert!(difference < 1e-4, "{family}, row {row}: {difference}");
        }
    }
}

#[test]
fn logits_with_an_adapter_match_peft_within_1e_4() {
    for family in FAMILIES {
        let engine = engine(&fixture(family), Precision::F32, Keep::Retain);
        let store = store(&engine, &fixture(family).join("adapter"), &Linear::ALL);
        let adapters = store.upload(&engine.residency.decoder().device);
        let golden_json = golden(family);
        let file = TensorFile::open(&fixture(family).join("golden.safetensors")).unwrap();
        for row in numbers(&golden_json["adapter_logit_rows"]) {
            let value = &golden_json["rows"][row as usize];
            let ours = logits(&engine, &batch(std::slice::from_ref(value)), &adapters);
            let theirs = file.read(&format!("adapter_logits.{row}")).unwrap();
            let difference = largest_difference(&ours, &theirs.data);
            assert!(difference < 1e-4, "{family}, row {row}: {difference}");
        }
    }
}

/// Ten steps as the golden's optimizer says; the losses, and the first step's gradients.
fn train(engine: &Engine, store: &mut AdapterStore, golden: &Value) -> (Vec<f64>, Vec<f64>, Vec<f32>) {
    let batch = batch(golden["rows"].as_array().unwrap());
    let optimizer = &golden["optimizer"];
    let number = |key: &str| optimizer[key].as_f64().unwrap();
    let rule = AdamW {
        beta1: number("beta1"),
        beta2: number("beta2"),
        epsilon: number("epsilon"),
        weight_decay: number("weight_decay"),
    };
    let scale = 1.0 / batch.targets.len() as f32;
    let (mut losses, mut norms, mut first) = (Vec::new(), Vec::new(), Vec::new());
    for step in 1..=10 {
        let adapters = store.upload(&engine.residency.decoder().device);
        let loss = engine.train(&batch, (&adapters, store), scale, step);
        losses.push(loss.sum / loss.trained_tokens as f64);
        if step == 1 {
            first = store.gradients.clone();
        }
        let norm = store.gradient_norm();
        norms.push(norm);
        let clip = (number("max_grad_norm") / (norm + 1e-6)).min(1.0);
        store.update(&rule, step, number("learning_rate"), clip as f32);
    }
    (losses, norms, first)
}

#[test]
fn first_gradients_and_ten_losses_match_peft_on_packed_rows() {
    for family in FAMILIES {
        let engine = engine(&fixture(family), Precision::F32, Keep::Retain);
        let mut store = store(&engine, &fixture(family).join("adapter"), &Linear::ALL);
        let golden_json = golden(family);
        let (losses, norms, gradients) = train(&engine, &mut store, &golden_json);
        let file = TensorFile::open(&fixture(family).join("golden.safetensors")).unwrap();
        for slot in store.slots() {
            let theirs = file.read(&format!("grad.{}", slot.name)).unwrap();
            let scale = theirs.data.iter().fold(0f32, |most, value| most.max(value.abs()));
            let difference = largest_difference(&gradients[slot.range.clone()], &theirs.data);
            assert!(difference <= 1e-3 * scale, "{family}, {}: {difference} of {scale}", slot.name);
        }
        for (step, (ours, theirs)) in losses.iter().zip(numbers(&golden_json["losses"])).enumerate() {
            assert!((ours - theirs).abs() < 1e-4, "{family}, step {}: {ours} against {theirs}", step + 1);
        }
        for (ours, theirs) in norms.iter().zip(numbers(&golden_json["grad_norms"])) {
            assert!((ours - theirs).abs() < 1e-3 * theirs, "{family}: norm {ours} against {theirs}");
        }
    }
}

#[test]
fn rank_stabilised_adapters_on_two_layers_match_peft() {
    let golden_json = golden("llama");
    let engine = engine(&fixture("llama"), Precision::F32, Keep::Retain);
    let mut store = store(&engine, &fixture("llama/adapter-rslora"), &[Linear::Query, Linear::Value]);
    let (losses, _, _) = train(&engine, &mut store, &golden_json);
    for (ours, theirs) in losses.iter().zip(numbers(&golden_json["rslora"]["losses"])) {
        assert!((ours - theirs).abs() < 1e-4, "{ours} against {theirs}");
    }
}

#[test]
fn recomputed_blocks_give_the_same_bits_as_retained_ones() {
    for family in FAMILIES {
        let run = |keep| {
            let engine = engine(&fixture(family), Precision::F32, keep);
            let mut store = store(&engine, &fixture(family).join("adapter"), &Linear::ALL);
            let (losses, _, _) = train(&engine, &mut store, &golden(family));
            (losses, store.parameters)
        };
        let (retained, recomputed) = (run(Keep::Retain), run(Keep::Recompute));
        assert_eq!(retained.0, recomputed.0, "{family}");
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&retained.1), bits(&recomputed.1), "{family}");
    }
}

#[test]
fn bf16_training_follows_f32_within_two_percent() {
    for family in FAMILIES {
        let engine = engine(&fixture(family), Precision::Bf16, Keep::Retain);
        let mut store = store(&engine, &fixture(family).join("adapter"), &Linear::ALL);
        let golden_json = golden(family);
        let (losses, _, _) = train(&engine, &mut store, &golden_json);
        for (ours, theirs) in losses.iter().zip(numbers(&golden_json["losses"])) {
            assert!((ours - theirs).abs() < 0.02 * theirs, "{family}: {ours} against {theirs}");
        }
    }
}

#[test]
fn gguf_models_give_the_logits_of_their_dequantised_weights() {
    let golden_json: Value =
        serde_json::from_str(&std::fs::read_to_string(fixture("gguf").join("golden.json")).unwrap()).unwrap();
    let file = TensorFile::open(&fixture("gguf/golden.safetensors")).unwrap();
    for name in ["tiny-llama", "tiny-qwen3", "tiny-gemma3"] {
        let engine = engine(&fixture(&format!("gguf/{name}.gguf")), Precision::F32, Keep::Retain);
        for (row, tokens) in golden_json[name]["rows"].as_array().unwrap().iter().enumerate() {
            let tokens: Vec<u32> = numbers(tokens).iter().map(|&token| token as u32).collect();
            let batch = Batch { segments: vec![0, tokens.len() as u32], tokens, ..Batch::default() };
            let ours = logits(&engine, &batch, &base_adapters(&engine));
            let theirs = file.read(&format!("{name}.logits.{row}")).unwrap();
            let difference = largest_difference(&ours, &theirs.data);
            assert!(difference < 1e-4, "{name}, row {row}: {difference}");
        }
    }
}

#[test]
fn greedy_decoding_with_a_cache_repeats_the_argmax_of_whole_forward_passes() {
    for family in FAMILIES {
        let engine = engine(&fixture(family), Precision::F32, Keep::Retain);
        let adapters = base_adapters(&engine);
        let golden_json = golden(family);
        let rows = golden_json["rows"].as_array().unwrap();
        let prompts: Vec<Vec<u32>> =
            rows.iter().map(|row| numbers(&row["tokens"]).iter().map(|&token| token as u32).collect()).collect();
        let ending = models::generate::Ending { ids: &[], max_new_tokens: 6 };
        let answers = engine.residency.decoder().generate(&prompts, &adapters, ending);
        for (prompt, answer) in prompts.iter().zip(answers) {
            let mut tokens = prompt.clone();
            for token in answer {
                let batch =
                    Batch { segments: vec![0, tokens.len() as u32], tokens: tokens.clone(), ..Batch::default() };
                let all = logits(&engine, &batch, &adapters);
                let last = &all[all.len() - engine.residency.decoder().spec.vocabulary..];
                let best = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
                assert_eq!(best as u32, token, "{family}");
                tokens.push(token);
            }
        }
    }
}
