//! Facts about plans: which answer every `auto` gets, and what is refused with which numbers.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::architecture::{Activation, Family, LayerSpec, RopeScaling, RopeSpec};
use crate::machine::{CudaCard, MissingDevices, NoSuchDevice, VulkanMemory};
use crate::memory;
use crate::units::bytes_text;
use recipes::DeviceName;

const RECIPE: &str = r#"name = "r"
model.source = "x.gguf"
method = { kind = "lora", rank = 16, alpha = 32 }
data = { sequence_length = 512, sources = [{ path = "a.jsonl" }] }
train = { steps = 10, tokens_per_step = 16384 }
optimizer = { kind = "adamw", learning_rate = 1e-4 }
schedule = { kind = "cosine" }
"#;

/// SmolLM2-135M's numbers.
pub(crate) fn smollm2() -> DecoderSpec {
    DecoderSpec {
        family: Family::Llama,
        vocabulary: 49152,
        hidden: 576,
        intermediate: 1536,
        n_heads: 9,
        n_kv_heads: 3,
        head_dim: 64,
        norm_epsilon: 1e-5,
        norm_offset: false,
        activation: Activation::Silu,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        sandwich_norms: false,
        embedding_scale: None,
        attention_scale: 0.125,
        tied_head: true,
        layers: vec![LayerSpec { window: None, rope: 0 }; 30],
        ropes: vec![RopeSpec { theta: 1e5, scaling: RopeScaling::None }],
        max_positions: 8192,
    }
}

pub(crate) fn machine(available: u64) -> Machine {
    Machine {
        memory_available_bytes: available,
        memory_total_bytes: 24_000_000_000,
        cgroup_available_bytes: None,
        cores: 2,
        fast_bf16: false,
        cuda: vec![],
        vulkan: Vec::new(),
        missing: Default::default(),
        device_rates: Vec::new(),
        io: Vec::new(),
        cards: 1,
        rates: crate::rates::Rates::usual(2),
    }
}

pub(super) fn recipe(set: &[&str]) -> Recipe {
    let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
    recipes::parse(RECIPE, "r.toml", &set).unwrap()
}

pub(crate) fn plan_of(set: &[&str], machine: &Machine) -> Result<Plan, PlanError> {
    plan(&recipe(set), smollm2(), machine)
}

#[test]
fn smollm2_has_134_515_008_parameters_and_rank_16_adapters_4_884_480() {
    assert_eq!(smollm2().parameters(), 134_515_008);
    assert_eq!(memory::lora_parameters(&smollm2(), &Linear::ALL, 16), 4_884_480);
}

#[test]
fn precision_auto_is_bf16_only_where_the_device_multiplies_it() {
    let mut machine = machine(20_000_000_000);
    assert_eq!(plan_of(&[], &machine).unwrap().model.precision, Precision::F32);
    machine.fast_bf16 = true;
    assert_eq!(plan_of(&[], &machine).unwrap().model.precision, Precision::Bf16);
    assert_eq!(plan_of(&["model.precision=f32"], &machine).unwrap().model.precision, Precision::F32);
    for (fast_bf16, expected) in [(false, Precision::F32), (true, Precision::Bf16)] {
        machine.cuda = vec![CudaCard { available_bytes: 8_000_000_000, fast_bf16 }];
        assert_eq!(plan_of(&["hardware.device=cuda:0"], &machine).unwrap().model.precision, expected);
    }
}

#[test]
fn plenty_of_memory_gives_the_token_cap_and_retains_all() {
    let plan = plan_of(&["train.tokens_per_step=65536", "model.precision=bf16"], &machine(24_000_000_000)).unwrap();
    assert_eq!(plan.train.rows_per_step, 128);
    assert_eq!(plan.train.micro_batch, 16);
    assert_eq!(plan.model.keep, vec![Keep::Retain; 30]);
    assert!(plan.memory.peak_bytes <= plan.memory.budget_bytes);
    assert_eq!(plan.memory.peak_bytes, plan.memory.terms.iter().map(|t| t.bytes).sum::<u64>());
}

#[test]
fn micro_batch_divides_the_rows_of_a_step() {
    let plan = plan_of(&["train.tokens_per_step=3072"], &machine(24_000_000_000)).unwrap();
    assert_eq!((plan.train.rows_per_step, plan.train.micro_batch), (6, 2));
}

#[test]
fn less_memory_gives_a_smaller_micro_batch_then_fewer_retained_last_blocks() {
    let half = plan_of(&[], &machine(4_000_000_000)).unwrap();
    assert!(half.train.micro_batch < 16 && half.train.micro_batch >= 1);
    assert_eq!(half.model.keep, vec![Keep::Retain; 30]);
    let little = plan_of(&[], &machine(1_300_000_000)).unwrap();
    assert_eq!(little.train.micro_batch, 1);
    let retained = little.model.keep.iter().filter(|&&k| k == Keep::Retain).count();
    assert!((1..30).contains(&retained), "{retained}");
    assert_eq!(little.model.keep.last(), Some(&Keep::Retain));
    assert_eq!(little.model.keep.first(), Some(&Keep::Recompute));
}

#[test]
fn what_does_not_fit_is_refused_with_both_numbers_and_a_remedy_that_fits() {
    let set = ["train.micro_batch=32", "train.keep=retain"];
    let error = plan_of(&set, &machine(2_000_000_000)).unwrap_err();
    let PlanError::DoesNotFit(misfit) = &error else { panic!("{error}") };
    let shortfall = &misfit.shortfall;
    assert!(shortfall.needed_bytes > shortfall.budget_bytes);
    assert_eq!(shortfall.needed_bytes, misfit.plan.memory.peak_bytes);
    assert_eq!(shortfall.budget_bytes, 1_800_000_000);
    assert!(error.to_string().contains("; train.micro_batch="), "{error}");
    assert!(plan_of(&["train.micro_batch=1", "train.keep=recompute"], &machine(2_000_000_000)).is_ok());
    assert!(error.is_does_not_fit());
    let none = plan_of(&[], &machine(100_000_000)).unwrap_err().to_string();
    assert!(none.contains("smaller model"), "{none}");
}

#[test]
fn budget_short_by_one_byte_retains_one_block_less() {
    let roomy = plan_of(&["train.micro_batch=1", "train.keep=retain"], &machine(20_000_000_000)).unwrap();
    let exact = format!("hardware.memory={}B", roomy.memory.peak_bytes);
    let short = format!("hardware.memory={}B", roomy.memory.peak_bytes - 1);
    let retained = |memory: &str| {
        let plan = plan_of(&["train.micro_batch=1", memory], &machine(20_000_000_000)).unwrap();
        plan.model.keep.iter().filter(|&&k| k == Keep::Retain).count()
    };
    assert_eq!(retained(&exact), 30);
    assert!(retained(&short) < 30);
}

#[test]
fn control_group_limit_lowers_the_budget() {
    let mut machine = machine(20_000_000_000);
    machine.cgroup_available_bytes = Some(3_000_000_000);
    assert_eq!(plan_of(&[], &machine).unwrap().memory.budget_bytes, 2_700_000_000);
}

#[test]
fn promised_memory_beyond_the_machine_is_refused() {
    let error = plan_of(&["hardware.memory=64GB"], &machine(20_000_000_000)).unwrap_err();
    assert_eq!(
        error,
        PlanError::MemoryBeyondMachine {
            key: "hardware.memory",
            asked_bytes: 64_000_000_000,
            total_bytes: 24_000_000_000
        }
    );
}

#[test]
fn target_that_matches_nothing_names_the_known_layers() {
    let set = ["method.targets=[\"q_proj\", \"mlp.up_proj\", \"query\"]"];
    let error = plan_of(&set, &machine(20_000_000_000)).unwrap_err().to_string();
    assert!(error.contains("\"query\"") && error.contains("q_proj, k_proj, v_proj, o_proj"), "{error}");
}

#[test]
fn targets_match_leafs_and_longer_suffixes_in_forward_order() {
    let set = ["method.targets=[\"mlp.up_proj\", \"q_proj\"]"];
    let plan = plan_of(&set, &machine(20_000_000_000)).unwrap();
    assert_eq!(plan.method.lora().unwrap().targets, [Linear::Query, Linear::Up]);
    let partial = plan_of(&["method.targets=[\"proj\"]"], &machine(20_000_000_000));
    assert!(partial.is_err(), "a part of a word is no match");
}

#[test]
fn scale_is_alpha_over_rank_or_over_its_root() {
    let scale = |set: &[&str]| plan_of(set, &machine(20_000_000_000)).unwrap().method.lora().unwrap().scale;
    assert_eq!(scale(&[]), 2.0);
    assert_eq!(scale(&["method.rank_stabilized=true"]), 8.0);
}

#[test]
fn card_that_is_not_there_is_refused() {
    let error = plan_of(&["hardware.device=cuda:1"], &machine(20_000_000_000)).unwrap_err();
    assert_eq!(error, PlanError::NoSuchDevice(NoSuchDevice { name: DeviceName::Cuda(1), found: 0, missing: None }));
    let vulkan = vec![VulkanMemory { available_bytes: 8_000_000_000, shares_memory: false }];
    let machine = Machine { vulkan, ..machine(20_000_000_000) };
    let error = plan_of(&["hardware.device=vulkan:2"], &machine).unwrap_err().to_string();
    assert!(error.contains("vulkan:2: 1 of its kind"), "{error}");
    let missing = MissingDevices { cuda: None, vulkan: Some("no loader".to_string()) };
    let error = plan_of(&["hardware.device=vulkan:0"], &Machine { vulkan: vec![], missing, ..machine }).unwrap_err();
    assert_eq!(error.to_string(), "hardware.device: no such device: vulkan:0: no loader");
}

#[test]
fn resolved_recipe_has_no_auto_and_gives_the_same_plan() {
    let machine = machine(1_300_000_000);
    let recipe = recipe(&[]);
    let first = plan(&recipe, smollm2(), &machine).unwrap();
    let resolved = resolved(&recipe, &first);
    assert!(!resolved.to_toml().contains("auto"), "{}", resolved.to_toml());
    assert_eq!(plan(&resolved, smollm2(), &machine).unwrap(), first);
}

#[test]
fn sequence_longer_than_the_models_positions_is_refused() {
    let set = ["data.sequence_length=16384"];
    let error = plan_of(&set, &machine(20_000_000_000)).unwrap_err();
    assert_eq!(error, PlanError::SequenceTooLong { asked: 16384, positions: 8192 });
}

#[test]
fn bytes_are_shown_with_three_digits() {
    assert_eq!(bytes_text(999), "999 B");
    assert_eq!(bytes_text(1_234_567), "1.23 MB");
    assert_eq!(bytes_text(99_960_000_000), "100 GB");
}
