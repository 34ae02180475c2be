//! Logits of given tokens, written as safetensors: what scripts under `tests/peers` compare other programs with.
//!
//! In:    `cargo run --release -p trainer --example logits -- SUBJECT MODEL ROWS.json OUTPUT`: a run, a checkpoint, an adapter's folder or
//!        `none`; the model under it; `{"rows": [{"tokens": [...]}]}`; a folder to write.
//! Out:   `OUTPUT/model.safetensors` with `logits.N`, `[tokens, vocabulary]`, of each row by itself, computed in f32.
//! Never: part of what users run.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use checkpoints::model_folder::write_model;
use checkpoints::tensors::NamedTensor;
use checkpoints::weights::Weights;
use planner::Machine;
use planner::inference::{Request, plan};
use planner::memory::Work;
use planner::plan::{BaseStorage, DeviceChoice, Precision};
use trainer::{Network, Subject, Tuned, subject};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, model, rows, output] = arguments.as_slice() else {
        panic!("usage: logits SUBJECT|none MODEL ROWS.json OUTPUT");
    };
    let (tuned, own) = tuned(what);
    let weights = Weights::open(own.as_deref().unwrap_or(Path::new(model))).unwrap();
    let rows = rows_of(rows);
    let network = network(&weights, &tuned, rows.iter().map(Vec::len).max().unwrap());
    let logits: Vec<Vec<f32>> = rows.iter().map(|row| network.logits(row).unwrap().concat()).collect();
    let tensors = logits.iter().enumerate().map(|(at, data)| {
        let shape = vec![rows[at].len(), weights.spec().vocabulary];
        NamedTensor { name: format!("logits.{at}"), shape, data }.into()
    });
    write_model(Path::new(output), tensors.collect(), &[]).unwrap();
}

/// What was trained, and the trained model's own folder where that holds all of it.
fn tuned(what: &str) -> (Tuned, Option<PathBuf>) {
    if what == "none" {
        return (Tuned::Nothing, None);
    }
    match subject(Path::new(what), None).unwrap() {
        Subject::Run(run) => (run.tuned, run.model),
        Subject::Adapter { tuned, .. } => (tuned, None),
        Subject::Model(folder) => (Tuned::Nothing, Some(folder)),
    }
}

fn rows_of(file: &str) -> Vec<Vec<u32>> {
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let tokens = |row: &serde_json::Value| -> Vec<u32> {
        row["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    };
    json["rows"].as_array().unwrap().iter().map(tokens).collect()
}

fn network(weights: &Weights, tuned: &Tuned, tokens: usize) -> Network {
    let machine = Machine {
        memory_available_bytes: 16_000_000_000,
        memory_total_bytes: 16_000_000_000,
        cgroup_available_bytes: None,
        cores: 2,
        fast_bf16: false,
        cuda: Vec::new(),
        vulkan: Vec::new(),
        missing: Default::default(),
        device_rates: Vec::new(),
        io: Vec::new(),
        cards: 1,
        rates: planner::rates::Rates::usual(2),
    };
    let request = Request {
        name: "logits".to_string(),
        spec: weights.spec(),
        precision: Precision::F32,
        base: BaseStorage::Dense,
        device: DeviceChoice::Cpu,
        work: Work { rows: tokens as u64, read_tokens: tokens as u64, ..Work::default() },
        memory_bytes: None,
        nvme: Vec::new(),
    };
    Network::open(weights, tuned, &plan(&request, &machine).unwrap()).unwrap()
}
