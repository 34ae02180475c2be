//! Facts about what fits: rows are plans, the largest first, and more memory never fits less.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::architecture::{Activation, Family, LayerSpec, RopeScaling, RopeSpec};
use crate::machine::CudaCard;
use crate::rates::Rates;

const GB: u64 = 1_000_000_000;

fn llama(vocabulary: usize, hidden: usize, intermediate: usize, heads: [usize; 2], layers: usize) -> DecoderSpec {
    DecoderSpec {
        family: Family::Llama,
        vocabulary,
        hidden,
        intermediate,
        n_heads: heads[0],
        n_kv_heads: heads[1],
        head_dim: 128,
        norm_epsilon: 1e-5,
        norm_offset: false,
        activation: Activation::Silu,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        sandwich_norms: false,
        embedding_scale: None,
        attention_scale: 0.088,
        tied_head: false,
        layers: vec![LayerSpec { window: None, rope: 0 }; layers],
        ropes: vec![RopeSpec { theta: 5e5, scaling: RopeScaling::None }],
        max_positions: 8192,
    }
}

/// Llama 3.1's 405B, 70B and 8B, Llama 2's 13B and 7B, and a small one, as published.
pub(super) fn models() -> Vec<(String, DecoderSpec)> {
    [
        ("llama-2-7b", llama(32_000, 4096, 11_008, [32, 32], 32)),
        ("llama-3.1-70b", llama(128_256, 8192, 28_672, [64, 8], 80)),
        ("llama-3.1-8b", llama(128_256, 4096, 14_336, [32, 8], 32)),
        ("small-1b", llama(32_000, 2048, 5632, [16, 4], 22)),
        ("llama-3.1-405b", llama(128_256, 16_384, 53_248, [128, 8], 126)),
        ("llama-2-13b", llama(32_000, 5120, 13_824, [40, 40], 40)),
    ]
    .map(|(name, spec)| (name.to_string(), spec))
    .to_vec()
}

fn machine(ram: u64, cards: &[u64]) -> Machine {
    Machine {
        memory_available_bytes: ram,
        memory_total_bytes: ram,
        cgroup_available_bytes: None,
        cores: 16,
        fast_bf16: true,
        cuda: cards.iter().map(|&available_bytes| CudaCard { available_bytes, fast_bf16: true }).collect(),
        vulkan: Vec::new(),
        missing: Default::default(),
        device_rates: Vec::new(),
        io: Vec::new(),
        cards: 1,
        rates: Rates::usual(16),
    }
}

fn question(nvme_bytes: Option<u64>) -> Question {
    Question {
        sequence_length: 2048,
        nvme: nvme_bytes.map(|_| PathBuf::from("/mnt/nvme")).into_iter().collect(),
        nvme_bytes,
    }
}

fn rows(machine: &Machine, nvme_bytes: Option<u64>) -> Vec<FitRow> {
    what_fits(machine, &models(), &question(nvme_bytes)).unwrap()
}

/// The largest model of a method and reach, parameters.
fn largest_of(rows: &[FitRow], method: FitMethod, reach: Reach) -> u64 {
    rows.iter().filter(|row| row.method == method && row.reach == reach).map(|row| row.parameters).max().unwrap_or(0)
}

#[test]
fn each_group_has_at_most_three_sizes_the_largest_first() {
    let rows = rows(&machine(128 * GB, &[24 * GB]), Some(2000 * GB));
    assert!(!rows.is_empty());
    for group in rows.chunk_by(|a, b| (a.method, a.reach) == (b.method, b.reach)) {
        assert!(group.len() <= MODELS_MAX);
        assert!(group.windows(2).all(|pair| pair[1].parameters * 10 < pair[0].parameters * 9), "{group:?}");
    }
    let methods: Vec<FitMethod> = rows.chunk_by(|a, b| a.method == b.method).map(|group| group[0].method).collect();
    assert_eq!(methods, FitMethod::ALL);
}

#[test]
fn every_row_stays_within_the_budget_of_the_card_and_of_the_drive() {
    for row in rows(&machine(128 * GB, &[24 * GB]), Some(200 * GB)) {
        assert!(row.peak_bytes <= 24 * GB / 100 * 90, "{row:?}");
        assert!(row.dram_bytes <= 128 * GB / 100 * 90, "{row:?}");
        assert!(row.nvme_bytes <= 200 * GB, "{row:?}");
        assert!(row.tokens_per_second > 0.0 && row.step_seconds > 0.0, "{row:?}");
        assert!(row.reach != Reach::Device || !row.placement.contains("weights"), "{row:?}");
        assert!(row.reach == Reach::Nvme || row.nvme_bytes == 0, "{row:?}");
    }
}

#[test]
fn more_reach_never_trains_a_smaller_model() {
    let rows = rows(&machine(64 * GB, &[16 * GB]), Some(4000 * GB));
    for method in FitMethod::ALL {
        let sizes = [Reach::Device, Reach::Dram, Reach::Nvme].map(|reach| largest_of(&rows, method, reach));
        assert!(sizes.is_sorted(), "{method}: {sizes:?}");
        assert!(sizes[2] > sizes[0], "{method}: {sizes:?}");
    }
}

#[test]
fn qlora_trains_no_less_than_lora_and_full_training_less_than_both() {
    let rows = rows(&machine(16 * GB, &[16 * GB]), None);
    let of = |method| largest_of(&rows, method, Reach::Device);
    assert!(of(FitMethod::Qlora) > of(FitMethod::Lora), "{rows:?}");
    assert!(of(FitMethod::Lora) > of(FitMethod::Full), "{rows:?}");
}

#[test]
fn a_processor_has_one_memory_and_no_row_of_its_own_for_dram() {
    let rows = rows(&machine(64 * GB, &[]), None);
    assert!(!rows.is_empty() && rows.iter().all(|row| row.reach == Reach::Device), "{rows:?}");
}

#[test]
fn the_order_of_the_list_changes_nothing() {
    let machine = machine(64 * GB, &[24 * GB]);
    let mut turned = models();
    turned.reverse();
    let question = question(None);
    assert_eq!(what_fits(&machine, &models(), &question).unwrap(), what_fits(&machine, &turned, &question).unwrap());
}

#[test]
fn a_machine_without_memory_fits_nothing_and_a_row_of_no_tokens_is_refused() {
    assert_eq!(rows(&machine(GB / 10, &[]), None), []);
    let empty = Question { sequence_length: 0, nvme: Vec::new(), nvme_bytes: None };
    let error = what_fits(&machine(64 * GB, &[]), &models(), &empty).unwrap_err().to_string();
    assert!(error.contains("0 is no number of tokens"), "{error}");
}
