//! Facts about full training and about where the classes of a run are placed.
#![allow(clippy::unwrap_used)]

use super::tests::{machine, plan_of, recipe, smollm2};
use super::*;
use crate::IoProfile;
use crate::machine::CudaCard;
use crate::units::bytes_text;

const FULL: &str = "method.kind=full";
const NVME: &str = "offload.nvme=[\"/var/tmp\"]";

fn tiers(plan: &Plan) -> [Tier; 4] {
    let offload = &plan.offload;
    [offload.optimizer, offload.gradients, offload.activations, offload.weights]
}

fn with(machine: &Machine, set: &[&str]) -> Result<Plan, PlanError> {
    plan_of(&[&[FULL, "model.precision=f32"], set].concat(), machine)
}

/// The placements that ever smaller budgets lead to, largest budget first.
fn placements(set: &[&str], machines: impl Iterator<Item = Machine>) -> Vec<[Tier; 4]> {
    let mut found: Vec<[Tier; 4]> = machines.map_while(|machine| with(&machine, set).ok()).map(|p| tiers(&p)).collect();
    found.dedup();
    found
}

#[test]
fn full_training_trains_every_parameter_and_may_leave_out_embedding_and_head() {
    let roomy = machine(20_000_000_000);
    let plan = with(&roomy, &[]).unwrap();
    assert_eq!(plan.method, MethodPlan::Full(FullPlan { embeddings: true, head: true }));
    assert_eq!(crate::memory::trained_parameters(&smollm2(), &plan.method), 134_515_008);
    let plan = with(&roomy, &["method.train_embeddings=false", "method.train_head=false"]).unwrap();
    assert_eq!(crate::memory::trained_parameters(&smollm2(), &plan.method), 134_515_008 - 49152 * 576);
}

#[test]
fn tied_head_that_is_trained_without_its_embedding_is_refused_with_the_reason() {
    let error = with(&machine(20_000_000_000), &["method.train_embeddings=false"]).unwrap_err();
    assert_eq!(error, PlanError::TiedHead { embeddings: false, head: true });
    assert!(error.to_string().contains("its embedding (tied), one tensor; set both to the same"), "{error}");
    let untied = DecoderSpec { tied_head: false, ..smollm2() };
    let recipe = recipe(&[FULL, "method.train_embeddings=false"]);
    assert!(plan(&recipe, untied, &machine(20_000_000_000)).is_ok());
}

#[test]
fn every_rule_of_the_recipe_reaches_the_plan() {
    for (word, kind) in [
        ("adamw", OptimizerKind::Adamw),
        ("adamw8bit", OptimizerKind::Adamw8bit),
        ("adamw_bf16", OptimizerKind::AdamwBf16),
        ("lion", OptimizerKind::Lion),
        ("adafactor", OptimizerKind::Adafactor),
        ("sgd", OptimizerKind::Sgd),
    ] {
        let plan = with(&machine(20_000_000_000), &[&format!("optimizer.kind={word}")]).unwrap();
        assert_eq!(plan.optimizer.kind, kind);
        assert_eq!(serde_json::to_value(plan.optimizer.kind).unwrap(), word);
    }
    let set = ["optimizer.kind=sgd", "optimizer.momentum=0.9"];
    let plan = with(&machine(20_000_000_000), &set).unwrap();
    assert_eq!((plan.optimizer.momentum, plan.optimizer.beta1, plan.optimizer.epsilon), (0.9, 0.0, 0.0));
}

#[test]
fn all_stays_on_the_device_where_it_fits_even_if_drives_are_named() {
    let plan = with(&machine(20_000_000_000), &[NVME]).unwrap();
    assert_eq!(tiers(&plan), [Tier::Device; 4]);
    assert_eq!((plan.memory.dram_bytes, plan.memory.nvme_bytes), (0, 0));
    assert_eq!(plan.offload.dram_budget_bytes, plan.memory.budget_bytes);
}

#[test]
fn on_the_cpu_classes_leave_memory_only_as_far_as_ever_smaller_budgets_ask() {
    let budgets = (60..900).rev().step_by(5).map(|tens_of_megabytes| machine(tens_of_megabytes * 5_000_000));
    let found = placements(&[NVME], budgets);
    assert_eq!((found[0], *found.last().unwrap()), ([Tier::Device; 4], [Tier::Nvme; 4]));
    assert!(!found.iter().flatten().any(|&tier| tier == Tier::Dram), "one memory: {found:?}");
}

#[test]
fn block_inputs_elsewhere_mean_that_every_block_recomputes() {
    let plan = with(&machine(20_000_000_000), &[NVME, "offload.activations=nvme"]).unwrap();
    assert_eq!(plan.model.keep, vec![Keep::Recompute; 30]);
    let kept = with(&machine(20_000_000_000), &[NVME, "offload.activations=nvme", "train.keep=retain"]).unwrap();
    assert_eq!(kept.model.keep, vec![Keep::Retain; 30]);
}

#[test]
fn without_drives_a_small_machine_is_refused_and_told_about_them() {
    let error = with(&machine(2_000_000_000), &[]).unwrap_err();
    let PlanError::DoesNotFit(misfit) = &error else { panic!("{error}") };
    let shortfall = &misfit.shortfall;
    assert_eq!((shortfall.tier.as_str(), shortfall.budget_bytes), ("memory", 1_800_000_000));
    assert!(error.to_string().contains("'offload.nvme=[\"DIRECTORY\"]'"), "{error}");
    assert!((1..=3).contains(&shortfall.remedies.len()));
    let plan = with(&machine(2_000_000_000), &[NVME]).unwrap();
    assert!(plan.memory.peak_bytes <= 1_800_000_000 && plan.offload.uses_nvme());
}

#[test]
fn what_the_recipe_fixed_stays_where_it_is() {
    let set = [NVME, "offload.gradients=dram", "offload.weights=nvme"];
    let plan = with(&machine(20_000_000_000), &set).unwrap();
    assert_eq!(tiers(&plan), [Tier::Device, Tier::Dram, Tier::Device, Tier::Nvme]);
    let error = with(&machine(1_500_000_000), &[NVME, "offload.optimizer=device"]).unwrap_err().to_string();
    assert!(error.contains("offload.optimizer=nvme"), "{error}");
}

fn card(bytes: u64, host: u64) -> Machine {
    Machine { cuda: vec![CudaCard { available_bytes: bytes, fast_bf16: false }], ..machine(host) }
}

#[test]
fn on_a_card_classes_go_to_host_memory_first_and_to_nvme_where_that_is_short() {
    use Tier::{Device as D, Dram as H, Nvme as N};
    let shrinking = || (100..900).rev().step_by(5).map(|tens| tens * 5_000_000);
    let roomy_host = placements(&[NVME], shrinking().map(|bytes| card(bytes, 24_000_000_000)));
    assert_eq!((roomy_host[0], roomy_host.last().unwrap()[3]), ([H, H, D, D], H));
    assert!(!roomy_host.iter().flatten().any(|&tier| tier == N), "{roomy_host:?}");
    let little_card = placements(&[NVME], shrinking().map(|bytes| card(1_300_000_000, bytes)));
    assert!(!little_card[0].contains(&N), "{little_card:?}");
    assert!(little_card.last().unwrap().contains(&N));
}

#[test]
fn update_on_a_card_is_refused_by_name() {
    let error = with(&card(20_000_000_000, 24_000_000_000), &["offload.gradients=device"]).unwrap_err();
    assert_eq!(error, PlanError::UpdateOnHost { key: "offload.gradients" });
}

#[test]
fn a_cards_terms_count_against_the_card_and_dram_terms_against_host_memory() {
    let set = ["offload.optimizer=dram", "offload.gradients=dram"];
    let plan = with(&card(20_000_000_000, 10_000_000_000), &set).unwrap();
    let sum = |tier| plan.memory.terms.iter().filter(|term| term.tier == tier).map(|term| term.bytes).sum::<u64>();
    assert_eq!((plan.memory.peak_bytes, plan.memory.budget_bytes), (sum(Tier::Device), 18_000_000_000));
    let dram = plan.memory.phases.iter().map(|phase| phase.dram_bytes).max().unwrap();
    assert_eq!((plan.memory.dram_bytes, plan.offload.dram_budget_bytes), (dram, 9_000_000_000));
    let error = with(&card(20_000_000_000, 1_000_000_000), &set).unwrap_err();
    let PlanError::DoesNotFit(misfit) = &error else { panic!("{error}") };
    let Shortfall { tier, budget_bytes, .. } = &misfit.shortfall;
    assert_eq!((tier.as_str(), *budget_bytes), ("offload.dram_budget", 900_000_000));
}

#[test]
fn device_budget_on_the_cpu_moves_classes_to_dram_which_is_the_same_memory() {
    let plan = with(&machine(20_000_000_000), &["offload.device_budget=2GB"]).unwrap();
    assert_eq!(plan.offload.optimizer, Tier::Dram);
    assert_eq!(plan.offload.device_budget_bytes, 2_000_000_000);
    assert!(plan.memory.peak_bytes - plan.memory.dram_bytes <= 2_000_000_000);
    assert_eq!(plan.memory.budget_bytes, 18_000_000_000);
}

#[test]
fn budgets_beyond_their_memory_are_refused_with_both_numbers() {
    let error = with(&machine(10_000_000_000), &["offload.dram_budget=10GB"]).unwrap_err();
    let (asked_bytes, memory_bytes) = (10_000_000_000, 9_000_000_000);
    assert_eq!(error, PlanError::BudgetBeyondMemory { key: "offload.dram_budget", asked_bytes, memory_bytes });
    let error = with(&card(4_000_000_000, 10_000_000_000), &["offload.dram_budget=30GB"]).unwrap_err();
    let total_bytes = 24_000_000_000;
    let asked_bytes = 30_000_000_000;
    assert_eq!(error, PlanError::MemoryBeyondMachine { key: "offload.dram_budget", asked_bytes, total_bytes });
    let error = with(&machine(10_000_000_000), &["offload.device_budget=9.5GB"]).unwrap_err();
    assert!(
        error.to_string().contains("offload.device_budget = 9.50 GB, but hardware.memory allows 9.00 GB"),
        "{error}"
    );
}

#[test]
fn update_runs_during_backward_where_gradients_are_not_clipped() {
    let during = |set: &[&str]| with(&machine(20_000_000_000), set).unwrap().offload.update_during_backward;
    assert!(!during(&[]));
    assert!(during(&["optimizer.max_grad_norm=none"]));
    assert!(!during(&["optimizer.max_grad_norm=none", "offload.update_during_backward=false"]));
}

#[test]
fn chunk_and_write_budget_become_elements_and_bytes() {
    let set = ["offload.chunk=1MiB", "offload.write_budget_tb=1.5", "offload.engine=threads", "offload.queue_depth=8"];
    let offload = with(&machine(20_000_000_000), &set).unwrap().offload;
    assert_eq!((offload.span_elements, offload.buffer_bytes(), offload.buffers), (262_144, 1 << 20, 24));
    assert_eq!(offload.write_budget_bytes, Some(1_500_000_000_000));
    assert_eq!((offload.engine, offload.queue_depth), (IoEngine::Threads, 8));
}

#[test]
fn automatic_transfers_are_the_largest_that_any_drive_wants_and_usual_ones_where_one_was_never_measured() {
    let profile = |path: &str, chunk_bytes, queue_depth| IoProfile {
        path: path.into(),
        chunk_bytes,
        queue_depth,
        read_bytes_per_second: 5_000_000_000,
        write_bytes_per_second: 4_000_000_000,
    };
    let mut machine = machine(20_000_000_000);
    machine.io = vec![profile("/a", 1 << 20, 8), profile("/b", 256 << 10, 64), profile("/c", 64 << 20, 128)];
    let transfers = |set: &[&str]| {
        let offload = with(&machine, set).unwrap().offload;
        (offload.buffer_bytes(), offload.queue_depth)
    };
    assert_eq!(transfers(&["offload.nvme=[\"/a\"]"]), (1 << 20, 8));
    assert_eq!(transfers(&["offload.nvme=[\"/a\", \"/b\"]"]), (1 << 20, 64));
    assert_eq!(transfers(&["offload.nvme=[\"/b\"]", "offload.chunk=2MiB"]), (2 << 20, 64));
    assert_eq!(transfers(&["offload.nvme=[\"/b\"]", "offload.queue_depth=4"]), (256 << 10, 4));
    assert_eq!(transfers(&["offload.nvme=[\"/a\", \"/never\"]"]), (4 << 20, 32));
    assert_eq!(transfers(&[]), (4 << 20, 32));
}

#[test]
fn resolved_full_recipe_has_no_auto_and_gives_the_same_plan() {
    for (machine, set) in [
        (machine(20_000_000_000), vec![]),
        (machine(1_300_000_000), vec![NVME]),
        (machine(1_300_000_000), vec![NVME, "optimizer.max_grad_norm=none", "optimizer.kind=lion"]),
        (card(2_000_000_000, 20_000_000_000), vec![NVME, "optimizer.kind=adafactor"]),
    ] {
        let recipe = recipe(&[vec![FULL], set].concat());
        let first = plan(&recipe, smollm2(), &machine).unwrap();
        let resolved = resolved(&recipe, &first);
        let text = resolved.to_toml();
        assert!(!text.contains("auto"), "{text}");
        let again = recipes::parse(&text, "recipe.toml", &[]).unwrap();
        assert_eq!(again, resolved);
        assert_eq!(plan(&again, smollm2(), &machine).unwrap(), first);
    }
}

#[test]
fn plan_reads_back_from_its_json() {
    let plan = with(&machine(1_300_000_000), &[NVME]).unwrap();
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["method"]["full"]["embeddings"], true);
    assert_eq!((&json["offload"]["optimizer"], &json["offload"]["engine"]), (&"nvme".into(), &"auto".into()));
    assert_eq!(serde_json::from_value::<Plan>(json).unwrap(), plan);
}

/// Qwen3-4B's numbers.
fn qwen3_4b() -> DecoderSpec {
    DecoderSpec {
        family: crate::architecture::Family::Qwen3,
        vocabulary: 151_936,
        hidden: 2560,
        intermediate: 9728,
        n_heads: 32,
        n_kv_heads: 8,
        head_dim: 128,
        qk_norm: true,
        layers: vec![smollm2().layers[0]; 36],
        max_positions: 40_960,
        ..smollm2()
    }
}

fn shipped(name: &str, set: &[&str]) -> Recipe {
    let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes").join(name);
    recipes::read(&path, &set).unwrap()
}

#[test]
fn shipped_4b_recipe_keeps_12_bytes_a_parameter_on_the_drive_or_in_memory() {
    let mut machine = card(20_000_000_000, 120_000_000_000);
    machine.memory_total_bytes = 128_000_000_000;
    let with_drive = plan(&shipped("4b-full-offload.toml", &[]), qwen3_4b(), &machine).unwrap();
    assert_eq!(qwen3_4b().parameters(), 4_022_468_096);
    assert_eq!(bytes_text(with_drive.memory.nvme_bytes), "48.3 GB");
    let recipe = shipped("4b-full-offload.toml", &["offload.optimizer=dram"]);
    let without_drive = plan(&recipe, qwen3_4b(), &machine).unwrap();
    assert_eq!(without_drive.memory.nvme_bytes, 0);
    let moved = without_drive.memory.dram_bytes - with_drive.memory.dram_bytes;
    assert!(
        (47_500_000_000..=48_300_000_000).contains(&moved),
        "{moved}: what was on the drive, less the buffers for it"
    );
}

#[test]
fn shipped_smollm2_recipe_trains_all_weights_in_less_memory_than_its_states_take() {
    let recipe = shipped("smollm2-135m-full-nvme.toml", &["eval.exact_match=false"]);
    let plan = plan(&recipe, smollm2(), &machine(20_000_000_000)).unwrap();
    assert_eq!((tiers(&plan), plan.train.micro_batch), ([Tier::Nvme; 4], 2));
    assert_eq!((plan.memory.peak_bytes, plan.memory.nvme_bytes), (538_466_624, 1_685_099_520));
}
