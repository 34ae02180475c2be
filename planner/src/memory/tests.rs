//! Facts about single terms, computed by hand for SmolLM2-135M: h 576, f 1536, q 576, kv 192, 30 blocks, 49152 tokens, tied head.
//!
//! A block has 3,540,096 parameters; its two norms are padded from 576 to 768, so its array has 3,540,480 elements. Outside of blocks:
//! 28,312,128 parameters in 28,312,320 elements. Together 134,515,008 parameters in 134,526,720 elements.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::Machine;
use crate::decide::tests::smollm2;
use crate::machine::CudaCard;
use crate::plan::Plan;

const RECIPE: &str = r#"name = "r"
model = { source = "x.gguf", precision = "f32" }
method = { kind = "full" }
data = { sequence_length = 512, sources = [{ path = "a.jsonl" }] }
train = { steps = 10, tokens_per_step = 512, micro_batch = 1 }
optimizer = { kind = "adamw", learning_rate = 1e-4 }
schedule = { kind = "cosine" }
offload = { nvme = ["/var/tmp"], weights = "device", gradients = "device", optimizer = "device", activations = "device" }
"#;
const ALL_NVME: [&str; 4] =
    ["offload.weights=nvme", "offload.gradients=nvme", "offload.optimizer=nvme", "offload.activations=nvme"];

fn plan_with(spec: DecoderSpec, set: &[&str]) -> Plan {
    let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
    let machine = Machine {
        memory_available_bytes: 24_000_000_000,
        memory_total_bytes: 24_000_000_000,
        cgroup_available_bytes: None,
        cores: 2,
        fast_bf16: false,
        cuda: vec![CudaCard { available_bytes: 24_000_000_000, fast_bf16: true }],
        vulkan: Vec::new(),
        missing: Default::default(),
        device_rates: Vec::new(),
        io: Vec::new(),
        cards: 1,
        rates: crate::rates::Rates::usual(2),
    };
    let set = [vec!["hardware.device=cpu".to_string()], set].concat();
    crate::plan(&recipes::parse(RECIPE, "r.toml", &set).unwrap(), spec, &machine).unwrap()
}

fn plan_of(set: &[&str]) -> Plan {
    plan_with(smollm2(), set)
}

/// Tier and bytes of the term; `None` if there is none.
fn term_of(plan: &Plan, name: &str) -> Option<(Tier, u64)> {
    let mut terms = plan.memory.terms.iter().chain(&plan.memory.nvme).filter(|term| term.name == name);
    let found = terms.next().map(|term| (term.tier, term.bytes));
    assert!(terms.next().is_none(), "{name} stands twice");
    found
}

fn assert_terms(plan: &Plan, expected: &[(&str, Tier, u64)]) {
    for (name, tier, bytes) in expected {
        assert_eq!(term_of(plan, name), Some((*tier, *bytes)), "{name}");
    }
}

#[test]
fn full_training_on_the_device_holds_weights_masters_states_and_gradients() {
    let plan = plan_of(&[]);
    assert_terms(
        &plan,
        &[
            ("weights", Tier::Device, 538_060_032),
            ("masters", Tier::Device, 538_106_880),
            ("optimizer states", Tier::Device, 1_076_213_760),
            ("gradients", Tier::Device, 538_106_880),
            // 49,152 x 576 numbers of the tied embedding and the last norm, padded to 768
            ("outer gradients", Tier::Device, 28_312_320 * 4),
            ("gradients in flight", Tier::Device, 512 * 576 * 4),
            ("block inputs", Tier::Device, 30 * 512 * 576 * 4),
            // 30 blocks x 512 tokens x (7872 numbers x 4 + 9 heads x 8)
            ("kept graphs", Tier::Device, 30 * 512 * 31_560),
            // 341 rows of 49,152 logits and of 2064 columns of them, and three times 512 hidden states
            ("loss", Tier::Device, 341 * (49_152 + 2064) * 4 + 3 * 512 * 576 * 4),
        ],
    );
    for absent in ["stored weights", "streamed blocks", "I/O buffers", "stored block inputs", "blocks of kept graphs"] {
        assert_eq!(term_of(&plan, absent), None, "{absent}");
    }
    assert_eq!(plan.memory.peak_bytes, total(&plan.memory.terms));
}

#[test]
fn full_training_on_nvme_keeps_the_outer_tensors_two_blocks_and_buffers_in_memory() {
    let plan = plan_of(&[&ALL_NVME[..], &["optimizer.max_grad_norm=none"]].concat());
    assert_terms(
        &plan,
        &[
            ("weights", Tier::Device, 113_248_512),
            ("streamed blocks", Tier::Device, 28_320_768),
            ("I/O buffers", Tier::Dram, 100_663_296),
            ("block inputs", Tier::Device, 2_359_296),
            ("outer gradients", Tier::Device, 28_312_320 * 4),
            ("masters", Tier::Nvme, 538_106_880),
            ("optimizer states", Tier::Nvme, 1_076_213_760),
            ("stored block inputs", Tier::Nvme, 35_389_440),
        ],
    );
    assert_eq!(term_of(&plan, "gradients"), None, "one micro-batch, updated during backward");
    assert_eq!(term_of(&plan, "stored weights"), None, "f32 masters are the stored weights");
    assert_eq!(plan.memory.nvme_bytes, 538_106_880 + 1_076_213_760 + 35_389_440);
    assert_eq!((plan.memory.dram_bytes, plan.memory.pinned_bytes), (100_663_296, 100_663_296));
    assert_eq!(plan.memory.peak_bytes, total(&plan.memory.terms));
}

#[test]
fn gradient_arrays_exist_with_clipping_or_with_several_micro_batches() {
    let gradients = |set: &[&str]| term_of(&plan_of(&[&ALL_NVME[..], set].concat()), "gradients");
    let array = Some((Tier::Nvme, 538_106_880));
    assert_eq!(gradients(&[]), array);
    assert_eq!(gradients(&["optimizer.max_grad_norm=none", "train.tokens_per_step=1024"]), array);
    let whole = ["optimizer.max_grad_norm=none", "train.tokens_per_step=1024", "train.micro_batch=2"];
    assert_eq!(gradients(&whole), None);
    assert_eq!(gradients(&["optimizer.max_grad_norm=none", "offload.update_during_backward=false"]), array);
}

#[test]
fn states_take_the_bytes_of_their_rule() {
    for (set, bytes) in [
        (vec!["optimizer.kind=adamw"], 1_076_213_760),
        // 525,495 blocks of 256 numbers x 2 moments x (256 + 4)
        (vec!["optimizer.kind=adamw8bit"], 273_257_400),
        (vec!["optimizer.kind=adamw_bf16"], 538_106_880),
        (vec!["optimizer.kind=lion"], 538_106_880),
        (vec!["optimizer.kind=sgd"], 0),
        (vec!["optimizer.kind=sgd", "optimizer.momentum=0.9"], 538_106_880),
        // 30 blocks x 11,328 rows, columns and norms, and 49,152 + 576 + 576 outside
        (vec!["optimizer.kind=adafactor"], 1_560_576),
    ] {
        let expected = Some((Tier::Device, bytes)).filter(|_| bytes > 0);
        assert_eq!(term_of(&plan_of(&set), "optimizer states"), expected, "{set:?}");
    }
}

#[test]
fn adafactors_statistics_stay_in_memory_even_if_the_optimizer_is_on_nvme() {
    let plan = plan_of(&["optimizer.kind=adafactor", "offload.optimizer=nvme"]);
    assert_terms(&plan, &[("optimizer states", Tier::Dram, 1_560_576), ("masters", Tier::Nvme, 538_106_880)]);
}

#[test]
fn masters_go_with_the_weights_only_where_blocks_are_made_from_them() {
    let masters = |set: &[&str]| term_of(&plan_of(set), "masters").unwrap().0;
    assert_eq!(masters(&["offload.weights=dram", "offload.optimizer=nvme"]), Tier::Dram);
    assert_eq!(masters(&["offload.optimizer=nvme"]), Tier::Nvme);
    assert_eq!(masters(&["offload.weights=dram", "offload.optimizer=nvme", "model.precision=bf16"]), Tier::Nvme);
}

#[test]
fn bf16_weights_elsewhere_are_a_second_copy_of_two_bytes() {
    let plan = plan_of(&["offload.weights=dram", "model.precision=bf16"]);
    assert_terms(
        &plan,
        &[
            ("stored weights", Tier::Dram, 269_053_440),
            ("weights", Tier::Device, 56_624_256),
            ("streamed blocks", Tier::Device, 14_160_384),
            ("masters", Tier::Device, 538_106_880),
        ],
    );
}

#[test]
fn lora_streams_its_frozen_blocks_and_keeps_16_bytes_an_adapter_parameter() {
    let lora = ["method.kind=lora", "method.rank=16", "method.alpha=32", "train.keep=recompute"];
    let plan = plan_of(&[&lora[..], &["offload.weights=nvme", "offload.optimizer=dram"]].concat());
    assert_terms(
        &plan,
        &[
            ("stored weights", Tier::Nvme, 424_811_520),
            ("weights", Tier::Device, 113_248_512),
            ("adapters", Tier::Dram, 19_537_920),
            ("optimizer states", Tier::Dram, 39_075_840),
            ("gradients", Tier::Device, 19_537_920),
        ],
    );
}

#[test]
fn graphs_that_are_kept_hold_the_weights_of_their_blocks() {
    let held = |keep: &str| {
        term_of(&plan_of(&["offload.weights=nvme", keep]), "blocks of kept graphs").map_or(0, |term| term.1)
    };
    assert_eq!(held("train.keep=recompute"), 0);
    assert_eq!(held("train.keep=3"), 3 * 3_540_096 * 4);
    assert_eq!(held("train.keep=retain"), 28 * 3_540_096 * 4, "two blocks are counted as streamed");
}

#[test]
fn frozen_embedding_and_head_have_no_arrays_and_no_gradients() {
    let plan = plan_of(&["method.train_embeddings=false", "method.train_head=false"]);
    let elements = 134_526_720 - 49152 * 576;
    assert_terms(
        &plan,
        &[
            ("masters", Tier::Device, elements * 4),
            ("outer gradients", Tier::Device, 768 * 4),
            ("weights", Tier::Device, 538_060_032),
        ],
    );
}

#[test]
fn untied_head_is_a_second_outer_gradient() {
    let spec = DecoderSpec { tied_head: false, ..smollm2() };
    let flat = |set: &[&str]| term_of(&plan_with(spec.clone(), set), "outer gradients").unwrap().1;
    let matrix = 49152 * 576;
    assert_eq!(flat(&[]), (768 + 2 * matrix) * 4);
    assert_eq!(flat(&["method.train_embeddings=false"]), (768 + matrix) * 4);
}

#[test]
fn beside_a_card_flat_gradients_are_host_memory() {
    let plan = plan_of(&["hardware.device=cuda:0", "offload.optimizer=dram", "offload.gradients=dram"]);
    assert_terms(&plan, &[("outer gradients", Tier::Dram, 28_312_320 * 4)]);
    let device: u64 = plan.memory.terms.iter().filter(|term| term.tier == Tier::Device).map(|term| term.bytes).sum();
    assert_eq!(plan.memory.peak_bytes, device);
    assert!(plan.memory.dram_bytes >= 4 * 538_106_880);
}

#[test]
fn norms_on_queries_and_keys_and_after_sublayers_keep_their_inputs() {
    let graph = |spec: DecoderSpec| {
        let plan = plan_with(spec, &["train.keep=retain"]);
        let phase = plan.memory.phases.iter().find(|phase| phase.phase == Phase::BackwardStart).unwrap();
        phase.terms.iter().find(|term| term.name == "kept graphs").unwrap().bytes / 30
    };
    let plain = graph(smollm2());
    assert_eq!(plain, 512 * 31_560);
    assert_eq!(graph(DecoderSpec { qk_norm: true, ..smollm2() }) - plain, 512 * (576 + 192) * 4);
    assert_eq!(graph(DecoderSpec { sandwich_norms: true, ..smollm2() }) - plain, 512 * 2 * 576 * 4);
}

#[test]
fn every_phase_is_planned_and_the_largest_is_the_peak() {
    for set in [&[][..], &ALL_NVME, &["method.kind=lora", "method.rank=8", "method.alpha=8", "train.keep=recompute"]] {
        let memory = plan_of(set).memory;
        assert_eq!(memory.phases.iter().map(|phase| phase.phase).collect::<Vec<_>>(), PHASES);
        let largest = memory.phases.iter().max_by_key(|phase| phase.counted_bytes).unwrap();
        assert_eq!((memory.peak_bytes, memory.peak_phase), (largest.counted_bytes, largest.phase));
        assert!(memory.phases.iter().all(|phase| phase.counted_bytes == total(&phase.terms)), "{set:?}");
    }
}

#[test]
fn a_search_counts_the_same_bytes_as_the_plan_that_is_shown() {
    let method = MethodPlan::Full(crate::plan::FullPlan { embeddings: true, head: true });
    let (plan, spec) = (plan_of(&ALL_NVME), smollm2());
    let shape = Shape {
        spec: &spec,
        device: DeviceChoice::Cpu,
        cores: 2,
        fast_bf16: false,
        precision: Precision::F32,
        method: &method,
        sizes: Sizes::of(&spec, &method),
        optimizer: &plan.optimizer,
        placement: Placement {
            weights: Tier::Nvme,
            gradients: Tier::Nvme,
            optimizer: Tier::Nvme,
            activations: Tier::Nvme,
        },
        has_gradient_arrays: true,
        buffers_bytes: plan.offload.buffers as u64 * plan.offload.buffer_bytes(),
        tokens: 512,
        keep: plan.model.keep.clone(),
        answers: None,
    };
    assert_eq!(shape.needs().memory_bytes, plan.memory.peak_bytes);
    assert_eq!(shape.needs().dram_bytes, plan.memory.dram_bytes);
}

#[test]
fn answers_take_no_more_memory_than_training_unless_one_row_does() {
    let eval = |tokens: usize| {
        let sets = [
            "eval.source.path=b.jsonl".to_string(),
            "eval.exact_match=true".to_string(),
            format!("eval.max_new_tokens={tokens}"),
            "train.keep=recompute".to_string(),
        ];
        plan_of(&sets.each_ref().map(String::as_str))
    };
    let plan = eval(8);
    let (without, evaluation) = (plan_of(&["train.keep=recompute"]), plan.evaluation.unwrap());
    assert_eq!(plan.memory.peak_bytes, without.memory.peak_bytes);
    assert!(evaluation.batch_rows > 10 && evaluation.batch_tokens >= 520, "{evaluation:?}");
    let long = eval(7000);
    assert_eq!((long.memory.peak_phase, long.evaluation.unwrap().batch_tokens >= 7512), (Phase::Evaluation, true));
}

#[test]
fn a_base_in_4_bits_takes_0_5159_bytes_a_linear_weight() {
    let plan = plan_of(&["method.kind=qlora", "method.rank=8", "method.alpha=8"]);
    let linear = 3_538_944u64;
    let block = linear / 2 + linear / 64 + linear / 16_384 * 4;
    assert!((block as f64 / linear as f64 - 0.5159).abs() < 1e-4);
    // Two norms of 576 in each block; embedding and last norm in f32.
    let rest = (30 * 2 * 576 + 49_152 * 576 + 576) * 4;
    assert_terms(
        &plan,
        &[("weights", Tier::Device, 30 * block + rest), ("decoded weights", Tier::Device, (1 << 19) * 4)],
    );
    // In 8 bits: a byte each, and an f32 for 64.
    let plan = plan_of(&["method.kind=qlora", "method.bits=8", "method.rank=8", "method.alpha=8"]);
    assert_terms(&plan, &[("weights", Tier::Device, 30 * (linear + linear / 16) + rest)]);
}
