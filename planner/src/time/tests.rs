//! Facts about step times: what is counted, what overlaps, what a change buys.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::architecture::{DecoderSpec, Linear};
use crate::decide::tests::smollm2;
use crate::memory::{Placement, Sizes};
use crate::plan::*;
use crate::rates::{ComputeRates, NvmeRates, RatesOrigin};

const ADAMW: OptimizerPlan = OptimizerPlan {
    kind: OptimizerKind::Adamw,
    learning_rate: 1e-4,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    momentum: 0.0,
    weight_decay: 0.0,
    max_grad_norm: Some(1.0),
};

fn lora(rank: usize) -> MethodPlan {
    MethodPlan::Lora(LoraPlan {
        rank,
        alpha: 32.0,
        scale: 2.0,
        rank_stabilized: false,
        dropout: 0.0,
        targets: Linear::ALL.to_vec(),
        start_from: None,
        base: BaseStorage::Dense,
    })
}

fn full() -> MethodPlan {
    MethodPlan::Full(FullPlan { embeddings: true, head: true })
}

fn shape<'a>(spec: &'a DecoderSpec, method: &'a MethodPlan, tier: Tier) -> Shape<'a> {
    Shape {
        cores: 2,
        fast_bf16: false,
        spec,
        device: DeviceChoice::Cpu,
        precision: Precision::F32,
        method,
        sizes: Sizes::of(spec, method),
        optimizer: &ADAMW,
        placement: Placement { weights: tier, gradients: tier, optimizer: tier, activations: tier },
        has_gradient_arrays: true,
        buffers_bytes: 0,
        tokens: 1024,
        keep: vec![Keep::Retain; spec.n_layers()],
        answers: None,
    }
}

fn work<'a>(shape: &'a Shape<'a>) -> Work<'a> {
    Work { shape, sequence_length: 512, micro_batches: 1, update_during_backward: false, cards: 1, trained_share: 1.0 }
}

/// A machine on which nothing but arithmetic takes time, 1e12 operations a second.
fn only_arithmetic() -> Rates {
    let compute = ComputeRates::new(1e12, 1e12, f64::INFINITY);
    Rates {
        origin: RatesOrigin::Catalogue,
        f32: compute,
        bf16: compute,
        device_bytes_per_second: f64::INFINITY,
        dram_bytes_per_second: f64::INFINITY,
        host_link_bytes_per_second: None,
        card_link_bytes_per_second: None,
        nvme: Some(NvmeRates { read_bytes_per_second: 2e9, write_bytes_per_second: 4e9 }),
        host: None,
        band: [0.5, 2.0],
    }
}

fn phase(plan: &TimePlan, phase: Phase) -> &PhaseTime {
    plan.phases.iter().find(|known| known.phase == phase).unwrap()
}

fn amount(phase: &PhaseTime, resource: Resource) -> f64 {
    phase.resources.iter().find(|known| known.resource == resource).map_or(0.0, |known| known.amount)
}

#[test]
fn a_forward_pass_takes_two_operations_a_weight_and_token_and_four_a_key_query_width_and_token() {
    let (spec, method) = (smollm2(), full());
    let shape = shape(&spec, &method, Tier::Device);
    let plan = estimate(&work(&shape), &only_arithmetic(), None);
    let weights = 2.0 * 30.0 * (576.0 * (576.0 * 2.0 + 192.0 * 2.0) + 3.0 * 576.0 * 1536.0) * 1024.0;
    // Keys of a query: half of the row and half of a tile.
    let attention = 4.0 * 30.0 * 1024.0 * 576.0 * (512.0 + 128.0) / 2.0;
    let forward = phase(&plan, Phase::Forward);
    assert_eq!(amount(forward, Resource::Compute), weights + attention);
    assert!((forward.seconds - (weights + attention) / 1e12).abs() < 1e-9);
    let backward = phase(&plan, Phase::Backward);
    assert_eq!(amount(backward, Resource::Compute), 2.0 * weights + 2.5 * attention);
    let head = phase(&plan, Phase::BackwardStart);
    assert_eq!(amount(head, Resource::Compute), 3.0 * 2.0 * 1024.0 * 576.0 * 49152.0);
}

#[test]
fn recompute_adds_one_forward_pass_and_frozen_weights_leave_their_gradients_out() {
    let (spec, method, frozen) = (smollm2(), full(), lora(16));
    let retained = shape(&spec, &method, Tier::Device);
    let recomputed = Shape { keep: vec![Keep::Recompute; 30], ..retained.clone() };
    let rates = only_arithmetic();
    let [kept, again] = [&retained, &recomputed].map(|shape| estimate(&work(shape), &rates, None));
    let more = phase(&again, Phase::Backward).seconds - phase(&kept, Phase::Backward).seconds;
    assert!((more - phase(&kept, Phase::Forward).seconds).abs() < 1e-9);
    let frozen = shape(&spec, &frozen, Tier::Device);
    let frozen = estimate(&work(&frozen), &rates, None);
    let share = phase(&frozen, Phase::Backward).seconds / phase(&kept, Phase::Backward).seconds;
    assert!((0.5..0.65).contains(&share), "{share}");
}

#[test]
fn the_head_computes_trained_tokens_only_and_a_window_bounds_attention() {
    let (mut spec, method) = (smollm2(), lora(16));
    let (rates, whole) = (only_arithmetic(), spec.clone());
    let shape_of_all = shape(&whole, &method, Tier::Device);
    let all = estimate(&work(&shape_of_all), &rates, None);
    let half = estimate(&Work { trained_share: 0.5, ..work(&shape_of_all) }, &rates, None);
    let head = |plan: &TimePlan| phase(plan, Phase::BackwardStart).seconds;
    assert!((head(&half) / head(&all) - 0.5).abs() < 1e-9);
    let long = Work { sequence_length: 1024, ..work(&shape_of_all) };
    spec.layers.iter_mut().for_each(|layer| layer.window = Some(128));
    let windowed = shape(&spec, &method, Tier::Device);
    let short = Work { sequence_length: 1024, ..work(&windowed) };
    assert!(step_seconds(&short, &rates) < step_seconds(&long, &rates));
    assert!(step_seconds(&long, &rates) > step_seconds(&work(&shape_of_all), &rates));
}

#[test]
fn an_update_on_the_drive_takes_its_reads_and_writes_one_after_the_other_and_says_so() {
    let (spec, method) = (smollm2(), full());
    let placed = shape(&spec, &method, Tier::Nvme);
    let plan = estimate(&work(&placed), &only_arithmetic(), None);
    let update = phase(&plan, Phase::Update);
    let elements = placed.sizes.elements as f64;
    // Masters, moments and the gradient in; masters and moments out; the masters around the blocks once more.
    let read = 16.0 * elements + 4.0 * placed.sizes.outer_elements as f64;
    assert_eq!(amount(update, Resource::NvmeRead), read);
    assert_eq!(amount(update, Resource::NvmeWrite), 12.0 * elements);
    assert!((update.seconds - read / 2e9 - 12.0 * elements / 4e9).abs() < 1e-9);
    assert_eq!(update.bottleneck, Resource::NvmeRead);
    let ahead = estimate(&Work { update_during_backward: true, ..work(&placed) }, &only_arithmetic(), None);
    assert!(phase(&ahead, Phase::Update).seconds < 0.4 * update.seconds);
    assert!(ahead.step_seconds < plan.step_seconds);
}

#[test]
fn remedies_are_the_model_on_the_changed_work_the_best_first_and_none_buys_less_than_3_percent() {
    let (spec, method) = (smollm2(), full());
    let placed = Shape { keep: vec![Keep::Recompute; 30], ..shape(&spec, &method, Tier::Nvme) };
    let (work, rates) = (work(&placed), only_arithmetic());
    let now = step_seconds(&work, &rates);
    let found = improvements(&work, &rates);
    assert!(found.iter().all(|tried| tried.step_seconds < 0.97 * now));
    assert!(found.is_sorted_by(|a, b| a.step_seconds <= b.step_seconds));
    let drive = found.iter().find(|tried| tried.change == Change::SecondDrive).unwrap();
    let two = NvmeRates { read_bytes_per_second: 4e9, write_bytes_per_second: 8e9 };
    assert_eq!(drive.step_seconds, step_seconds(&work, &Rates { nvme: Some(two), ..rates }));
    assert!(found.iter().any(|tried| tried.change == Change::OptimizerInDram));
    assert!(!found.iter().any(|tried| tried.change == Change::WiderLink), "there is no link on the processor");
    let plan = estimate(&work, &rates, Some(10));
    assert_eq!(plan.step_seconds, now);
    assert_eq!(plan.run_seconds, Some(10.0 * now));
    assert!(plan.remedies.len() <= 5 && plan.remedies[0].step_seconds == found[0].step_seconds);
}

#[test]
fn two_cards_share_the_passes_and_add_up_their_gradients_and_a_slow_link_bounds_streamed_weights() {
    let (spec, method) = (smollm2(), full());
    let on_card = Shape { device: DeviceChoice::Cuda(0), ..shape(&spec, &method, Tier::Device) };
    let rates = Rates {
        host_link_bytes_per_second: Some(10e9),
        card_link_bytes_per_second: Some(50e9),
        dram_bytes_per_second: 1e12,
        ..only_arithmetic()
    };
    let one = Work { micro_batches: 8, ..work(&on_card) };
    let two = Work { cards: 2, ..one };
    let [one, two] = [&one, &two].map(|work| estimate(work, &rates, None));
    assert!((phase(&two, Phase::Forward).seconds / phase(&one, Phase::Forward).seconds - 0.5).abs() < 1e-9);
    let reduced = amount(phase(&two, Phase::Backward), Resource::AllReduce);
    assert_eq!(reduced, 4.0 * on_card.sizes.elements as f64);
    let streamed = Placement { weights: Tier::Dram, ..on_card.placement };
    let streamed = Shape { placement: streamed, tokens: 64, ..on_card.clone() };
    let streamed = estimate(&work(&streamed), &rates, None);
    assert_eq!(phase(&streamed, Phase::Forward).bottleneck, Resource::HostLink);
}

#[test]
fn a_search_may_ask_a_thousand_times_for_a_network_of_126_layers_in_a_second() {
    let mut spec = smollm2();
    spec.layers = vec![spec.layers[0]; 126];
    let method = lora(16);
    let placed = shape(&spec, &method, Tier::Nvme);
    let (work, rates, begun) = (work(&placed), Rates::usual(8), std::time::Instant::now());
    let sum: f64 = (0..1000).map(|_| step_seconds(&work, &rates)).sum();
    assert!(sum > 0.0 && begun.elapsed().as_secs_f64() < 1.0, "{:?}", begun.elapsed());
}
