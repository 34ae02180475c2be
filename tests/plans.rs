//! Plans for tests that drive the trainer's parts directly.
//!
//! In:    a model, recipe keys to override.
//! Out:   opened weights and the plan that `tune run` would make on a machine with 16 GB.
//! Never: looks at the machine.

use std::path::Path;

use checkpoints::weights::Weights;
use planner::Machine;
use planner::plan::{DeviceChoice, Plan};
use trainer::Learner;

const RECIPE: &str = r#"
name = "test"
[model]
source = "set by the test"
precision = "f32"
[method]
kind = "lora"
rank = 1
alpha = 1
[data]
sequence_length = 16
[[data.sources]]
path = "none.jsonl"
[train]
steps = 20
tokens_per_step = 16
micro_batch = 1
keep = "retain"
[optimizer]
kind = "adamw"
learning_rate = 1e-3
[schedule]
kind = "constant"
[hardware]
device = "cpu"
memory = "12GB"
"#;

/// The same recipe for full training.
pub const FULL: [&str; 1] = ["method={kind=\"full\"}"];

/// Weights and plan; `set` as after `--set`.
pub fn plan(model: &Path, set: &[&str]) -> (Weights, Plan) {
    let weights = Weights::open(model).unwrap();
    let set: Vec<String> = set.iter().map(|text| text.to_string()).collect();
    let recipe = recipes::parse(RECIPE, "test.toml", &set).unwrap();
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
    let plan = planner::plan(&recipe, weights.spec().clone(), &machine).unwrap();
    (weights, plan)
}

/// A learner in f32 that goes on from an adapter of all layers.
pub fn adapted(model: &Path, adapter: &Path) -> Learner {
    let config = checkpoints::peft::read_adapter(adapter).unwrap().config;
    let set = [
        format!("method.rank={}", config.rank),
        format!("method.alpha={}", config.alpha),
        format!("method.start_from=\"{}\"", adapter.display()),
    ];
    learner(&plan(model, &set.each_ref().map(String::as_str)))
}

/// The learner of a plan, fresh, on the CPU.
pub fn learner((weights, plan): &(Weights, Plan)) -> Learner {
    let device = trainer::device(DeviceChoice::Cpu).unwrap();
    Learner::fresh(weights, plan, &device).unwrap()
}
