//! Tiny random models of every family against transformers and PEFT: logits, loss, gradients, ten AdamW losses.
//!
//! In:    `tests/fixtures/<family>/`, made by `make_fixtures.py` and `make_full_golden.py` with pinned versions.
//! Out:   facts: f32 logits within 1e-4, gradients within 1e-3 relative, ten losses within 1e-4.
//! Never: recomputes a golden.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use checkpoints::peft::read_adapter;
use checkpoints::tensors::TensorFile;
use datasets::Batch;
use models::generate::{Ending, Stack};
use planner::architecture::Linear;
use planner::plan::{LoraPlan, MethodPlan, Plan};
use serde_json::Value;
use trainer::{Engine, Learner};

use crate::plans;

pub const FAMILIES: [&str; 8] = ["llama", "llama3", "llama-sharded", "mistral", "qwen2", "qwen3", "gemma3", "smollm2"];

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
pub fn batch(rows: &[Value]) -> Batch {
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

/// The base model: an adapter of rank one whose B is zero adds nothing.
pub fn base(path: &Path, precision: &str) -> Learner {
    plans::learner(&plans::plan(path, &[&format!("model.precision={precision}")]))
}

/// Tokens of all rows; the plan is made as if they were one row.
fn make_room(plan: &mut Plan, golden: &Value) {
    plan.data.sequence_length = batch(golden["rows"].as_array().unwrap()).tokens.len();
    let optimizer = &golden["optimizer"];
    let number = |key: &str| optimizer[key].as_f64().unwrap();
    (plan.optimizer.beta1, plan.optimizer.beta2) = (number("beta1"), number("beta2"));
    (plan.optimizer.epsilon, plan.optimizer.weight_decay) = (number("epsilon"), number("weight_decay"));
    plan.optimizer.max_grad_norm = Some(number("max_grad_norm"));
}

/// A learner that goes on from PEFT's adapter.
fn adapted(family: &str, folder: &str, targets: &[Linear], set: &[&str]) -> Learner {
    let (weights, mut plan) = plans::plan(&fixture(family), set);
    let folder = fixture(family).join(folder);
    let config = read_adapter(&folder).unwrap().config;
    let root = if config.rank_stabilized { (config.rank as f64).sqrt() } else { config.rank as f64 };
    make_room(&mut plan, &golden(family));
    plan.method = MethodPlan::Lora(LoraPlan {
        rank: config.rank,
        alpha: config.alpha,
        scale: config.alpha / root,
        rank_stabilized: config.rank_stabilized,
        dropout: 0.0,
        targets: targets.to_vec(),
        start_from: Some(folder),
        base: planner::plan::BaseStorage::Dense,
    });
    plans::learner(&(weights, plan))
}

/// Logits of every token of the batch.
pub fn logits(engine: &Engine, batch: &Batch) -> Vec<f32> {
    let hidden = engine.hidden(batch).unwrap();
    let rows: Vec<u32> = (0..batch.tokens.len() as u32).collect();
    engine.residency.outer().logits(hidden, &rows).into_data().convert::<f32>().iter::<f32>().collect()
}

pub fn largest_difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_of_every_family_match_transformers_within_1e_4() {
    for family in FAMILIES {
        let learner = base(&fixture(family), "f32");
        let golden_json = golden(family);
        let file = TensorFile::open(&fixture(family).join("golden.safetensors")).unwrap();
        for (row, value) in golden_json["rows"].as_array().unwrap().iter().enumerate() {
            let ours = logits(&learner.engine, &batch(std::slice::from_ref(value)));
            let theirs = file.read(&format!("logits.{row}")).unwrap();
            let difference = largest_difference(&ours, &theirs.data);
            assert!(difference < 1e-4, "{family}, row {row}: {difference}");
        }
    }
}

/// What a row says must not depend on the rows it shares a packed row with: not one bit changes when those say something else. Alone it
/// takes products with fewer rows, whose sums another kernel may take in another order: that may change the last bits only.
#[test]
fn logits_of_a_packed_row_are_those_of_its_rows_whatever_stands_beside_them_bit_for_bit() {
    let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
    for family in FAMILIES {
        let learner = base(&fixture(family), "f32");
        let golden_json = golden(family);
        let packed = batch(golden_json["rows"].as_array().unwrap());
        assert!(packed.segments.len() > 2, "{family}");
        let together = logits(&learner.engine, &packed);
        let highest = packed.tokens.iter().copied().max().unwrap();
        let width = together.len() / packed.tokens.len();
        for border in packed.segments.windows(2) {
            let range = border[0] as usize..border[1] as usize;
            let of_row = |logits: &[f32]| logits[range.start * width..range.end * width].to_vec();
            let mut others = packed.clone();
            let changed = others.tokens.iter_mut().enumerate().filter(|(at, _)| !range.contains(at));
            changed.for_each(|(_, token)| *token = (*token + 1) % (highest + 1));
            let beside_others = logits(&learner.engine, &others);
            assert!(bits(&of_row(&beside_others)) == bits(&of_row(&together)), "{family}, tokens {range:?}");
            let alone = Batch {
                tokens: packed.tokens[range.clone()].to_vec(),
                segments: vec![0, range.len() as u32],
                ..Batch::default()
            };
            let difference = largest_difference(&logits(&learner.engine, &alone), &of_row(&together));
            assert!(difference < 2e-5, "{family}, tokens {range:?} alone: {difference}");
        }
    }
}

#[test]
fn logits_with_an_adapter_match_peft_within_1e_4() {
    for family in FAMILIES {
        let learner = adapted(family, "adapter", &Linear::ALL, &[]);
        let golden_json = golden(family);
        let file = TensorFile::open(&fixture(family).join("golden.safetensors")).unwrap();
        for row in numbers(&golden_json["adapter_logit_rows"]) {
            let value = &golden_json["rows"][row as usize];
            let ours = logits(&learner.engine, &batch(std::slice::from_ref(value)));
            let theirs = file.read(&format!("adapter_logits.{row}")).unwrap();
            let difference = largest_difference(&ours, &theirs.data);
            assert!(difference < 1e-4, "{family}, row {row}: {difference}");
        }
    }
}

/// What ten steps on all rows leave.
struct Trained {
    losses: Vec<f64>,
    norms: Vec<f64>,
    /// Of the first step, by name.
    gradients: BTreeMap<String, Vec<f32>>,
}

/// Ten steps on all rows in one packed batch.
fn train(learner: &Learner, golden: &Value, rows: &Value) -> Trained {
    let batch = batch(rows.as_array().unwrap());
    let rate = golden["optimizer"]["learning_rate"].as_f64().unwrap();
    let mut trained = Trained { losses: Vec::new(), norms: Vec::new(), gradients: BTreeMap::new() };
    for step in 1..=10 {
        let result = learner.pass(std::slice::from_ref(&batch), step, rate).unwrap();
        trained.losses.push(result.loss);
        trained.norms.push(result.norm);
        if step == 1 {
            for (number, group) in learner.parameters.layout().iter().enumerate() {
                for slot in &group.slots {
                    let gradient = learner.parameters.gradient(number, slot).unwrap();
                    trained.gradients.insert(slot.name.clone(), gradient);
                }
            }
        }
        learner.update(step, rate, result.norm).unwrap();
    }
    trained
}

fn assert_matches(family: &str, trained: &Trained, golden: &Value, file: &TensorFile, prefix: &str) {
    for (name, ours) in &trained.gradients {
        let theirs = file.read(&format!("{prefix}{name}")).unwrap();
        let scale = theirs.data.iter().fold(0f32, |most, value| most.max(value.abs()));
        let difference = largest_difference(ours, &theirs.data);
        assert!(difference <= 1e-3 * scale, "{family}, {name}: {difference} of {scale}");
    }
    for (step, (ours, theirs)) in trained.losses.iter().zip(numbers(&golden["losses"])).enumerate() {
        assert!((ours - theirs).abs() < 1e-4, "{family}, step {}: {ours} against {theirs}", step + 1);
    }
    for (ours, theirs) in trained.norms.iter().zip(numbers(&golden["grad_norms"])) {
        assert!((ours - theirs).abs() < 1e-3 * theirs, "{family}: norm {ours} against {theirs}");
    }
}

#[test]
fn first_gradients_and_ten_losses_match_peft_on_packed_rows() {
    for family in FAMILIES {
        let golden_json = golden(family);
        let learner = adapted(family, "adapter", &Linear::ALL, &[]);
        let trained = train(&learner, &golden_json, &golden_json["rows"]);
        let file = TensorFile::open(&fixture(family).join("golden.safetensors")).unwrap();
        assert_matches(family, &trained, &golden_json, &file, "grad.");
    }
}

/// A learner of every weight.
fn whole(family: &str, full_golden: &Value, set: &[&str]) -> Learner {
    let (weights, mut plan) = plans::plan(&fixture(family), &[&plans::FULL[..], set].concat());
    plan.data.sequence_length = batch(golden(family)["rows"].as_array().unwrap()).tokens.len();
    let mut both = full_golden.clone();
    both["rows"] = golden(family)["rows"].clone();
    make_room(&mut plan, &both);
    plans::learner(&(weights, plan))
}

fn full_golden(family: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(family).join("full_golden.json")).unwrap()).unwrap()
}

#[test]
fn full_training_of_every_family_matches_pytorch() {
    for family in FAMILIES {
        let golden_json = full_golden(family);
        let learner = whole(family, &golden_json, &[]);
        let trained = train(&learner, &golden_json, &golden(family)["rows"]);
        let file = TensorFile::open(&fixture(family).join("full_golden.safetensors")).unwrap();
        assert_eq!(trained.gradients.len(), file.tensors().count(), "{family}: every weight is trained");
        assert_matches(family, &trained, &golden_json, &file, "");
    }
}

#[test]
fn full_training_in_bf16_follows_f32_within_two_percent() {
    for family in FAMILIES {
        let golden_json = full_golden(family);
        let learner = whole(family, &golden_json, &["model.precision=bf16"]);
        let trained = train(&learner, &golden_json, &golden(family)["rows"]);
        for (ours, theirs) in trained.losses.iter().zip(numbers(&golden_json["losses"])) {
            assert!((ours - theirs).abs() < 0.02 * theirs, "{family}: {ours} against {theirs}");
        }
    }
}

#[test]
fn rank_stabilised_adapters_on_two_layers_match_peft() {
    let golden_json = golden("llama");
    let learner = adapted("llama", "adapter-rslora", &[Linear::Query, Linear::Value], &[]);
    let trained = train(&learner, &golden_json, &golden_json["rows"]);
    for (ours, theirs) in trained.losses.iter().zip(numbers(&golden_json["rslora"]["losses"])) {
        assert!((ours - theirs).abs() < 1e-4, "{ours} against {theirs}");
    }
}

#[test]
fn bf16_training_follows_f32_within_two_percent() {
    for family in FAMILIES {
        let golden_json = golden(family);
        let learner = adapted(family, "adapter", &Linear::ALL, &["model.precision=bf16"]);
        let trained = train(&learner, &golden_json, &golden_json["rows"]);
        for (ours, theirs) in trained.losses.iter().zip(numbers(&golden_json["losses"])) {
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
        let learner = base(&fixture(&format!("gguf/{name}.gguf")), "f32");
        for (row, tokens) in golden_json[name]["rows"].as_array().unwrap().iter().enumerate() {
            let tokens: Vec<u32> = numbers(tokens).iter().map(|&token| token as u32).collect();
            let batch = Batch { segments: vec![0, tokens.len() as u32], tokens, ..Batch::default() };
            let ours = logits(&learner.engine, &batch);
            let theirs = file.read(&format!("{name}.logits.{row}")).unwrap();
            let difference = largest_difference(&ours, &theirs.data);
            assert!(difference < 1e-4, "{name}, row {row}: {difference}");
        }
    }
}

#[test]
fn greedy_decoding_with_a_cache_repeats_the_argmax_of_whole_forward_passes() {
    for family in FAMILIES {
        let engine = &base(&fixture(family), "f32").engine;
        let (outer, adapters) = (engine.residency.outer(), engine.residency.adapters());
        let golden_json = golden(family);
        let rows = golden_json["rows"].as_array().unwrap();
        let prompts: Vec<Vec<u32>> =
            rows.iter().map(|row| numbers(&row["tokens"]).iter().map(|&token| token as u32).collect()).collect();
        let ending = Ending { ids: &[], max_new_tokens: 6 };
        let stack = Stack { blocks: &engine.residency, adapters: &adapters };
        let answers = outer.generate(stack, &prompts, ending).unwrap();
        for (prompt, answer) in prompts.iter().zip(answers) {
            let mut tokens = prompt.clone();
            for token in answer {
                let batch =
                    Batch { segments: vec![0, tokens.len() as u32], tokens: tokens.clone(), ..Batch::default() };
                let all = logits(engine, &batch);
                let last = &all[all.len() - outer.spec.vocabulary..];
                let best = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
                assert_eq!(best as u32, token, "{family}");
                tokens.push(token);
            }
        }
    }
}
