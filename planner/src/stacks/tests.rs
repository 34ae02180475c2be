//! What the published runs say about the arithmetic.
#![allow(clippy::unwrap_used)]

use crate::architecture::Linear;

use super::memory::{Run, estimate, nf4};
use super::rows::{Quality, RowError, RowResult, RowSet, calibrated, calibration, networks};
use super::speed::{EngineClass, engine_band};
use super::speed_rows::{SpeedResult, speed_calibration};
use super::stack::{
    Counter, Gradients, Keep, Kernels, Loading, Loss, Optimizer, Sharding, Stack, States, Storage, Streaming, Weights,
};
use super::tables::calibration_markdown;

const DOCUMENT: &str = include_str!("../../../docs/calibration.md");

fn share(rows: &[&RowResult], within: f64) -> f64 {
    rows.iter().filter(|row| row.within(within)).count() as f64 / rows.len() as f64
}

#[test]
fn published_memory_is_predicted_within_10_percent_for_80_percent_of_rows_and_20_for_all_of_quality_a() {
    println!("{}", calibration_markdown().unwrap());
    let rows = calibration().unwrap();
    let wanted: Vec<&RowResult> = rows.iter().filter(|row| row.set != RowSet::Aside).collect();
    assert!(wanted.len() >= 100, "{} rows", wanted.len());
    assert!(share(&wanted, 0.1) >= 0.8, "{}", share(&wanted, 0.1));
    for row in wanted.iter().filter(|row| row.quality == Quality::A) {
        assert!(row.within(0.2), "row {} is off: {:.3}", row.id, row.ratio());
    }
}

#[test]
fn rows_that_gave_no_constant_are_predicted_as_well() {
    let rows = calibration().unwrap();
    let held_out: Vec<&RowResult> = rows.iter().filter(|row| row.set == RowSet::HeldOut).collect();
    let plain: Vec<&RowResult> = held_out.iter().copied().filter(|row| row.assumed.is_none()).collect();
    let aside: Vec<&RowResult> = rows.iter().filter(|row| row.set == RowSet::Aside).collect();
    for (name, rows, fewest) in [("held out", held_out, 40), ("nothing assumed", plain, 20), ("aside", aside, 9)] {
        assert!(rows.len() >= fewest, "{name}: {} rows", rows.len());
        assert!(share(&rows, 0.1) >= 0.8, "{name}: {}", share(&rows, 0.1));
    }
}

#[test]
fn every_missed_row_says_why_and_no_other_does() {
    for row in calibration().unwrap() {
        assert_eq!(row.reason.is_some(), !row.within(0.1), "row {}: {:.3}", row.id, row.ratio());
    }
    for row in speed_calibration().unwrap() {
        assert_eq!(row.reason.is_some(), !row.inside(), "row {}: {:?}", row.id, row.band);
    }
}

#[test]
fn published_speeds_lie_inside_bands_no_wider_than_2_2_for_80_percent_of_rows() {
    let rows = speed_calibration().unwrap();
    let inside = |chosen: &dyn Fn(&&SpeedResult) -> bool| {
        let rows: Vec<&SpeedResult> = rows.iter().filter(chosen).collect();
        (rows.iter().filter(|row| row.inside()).count() as f64 / rows.len() as f64, rows.len())
    };
    let (all, count) = inside(&|row| row.set != RowSet::Aside);
    assert!(count >= 60 && all >= 0.8, "{all} of {count}");
    let (known, count) = inside(&|row| row.set != RowSet::Aside && row.quality != Quality::C && row.source != "LoHan");
    assert!(count >= 60 && known >= 0.8, "{known} of {count}");
    let (aside, count) = inside(&|row| row.set == RowSet::Aside);
    assert!(count >= 10 && aside >= 0.8, "{aside} of {count}");
    for row in &rows {
        assert!(row.band.high / row.band.low <= 2.2, "row {}", row.id);
    }
}

#[test]
fn better_engines_have_lower_bands() {
    let most = |class| engine_band(class)[1];
    assert!(most(EngineClass::HandWritten) < most(EngineClass::Compiled));
    assert!(most(EngineClass::Compiled) < most(EngineClass::Eager));
}

#[test]
fn parameters_are_the_published_ones() {
    let networks = networks().unwrap();
    // From the checkpoints' own indexes; biases are not counted here, hence 0.1 %.
    for (name, published) in [
        ("Llama-3.2-3B", 3_212_749_824_u64),
        ("Llama-3.1-8B", 8_030_261_248),
        ("Llama-3.1-70B", 70_553_706_496),
        ("Llama-2-7B", 6_738_415_616),
        ("Llama-2-13B", 13_015_864_320),
        ("Qwen2.5-0.5B", 494_032_768),
        ("Qwen2.5-7B", 7_615_616_512),
        ("Qwen2.5-32B", 32_763_876_352),
        ("SmolLM2-135M", 134_515_008),
    ] {
        let counted = networks[name].parameters();
        assert!(counted.abs_diff(published) * 1000 <= published, "{name}: {counted}, published {published}");
    }
    // litgpt prints its trainable parameters: r8 on q and v.
    for (name, published) in [("phi-1.5", 1_572_864_u64), ("StableLM-3B", 2_097_152), ("Llama-2-7B", 4_194_304)] {
        assert_eq!(networks[name].adapters(8, &[Linear::Query, Linear::Value]), published, "{name}");
    }
}

#[test]
fn a_moment_is_the_sum_of_its_terms_and_the_peak_the_largest_moment() {
    for row in calibration().unwrap() {
        let peak = row.estimate.peak().unwrap().bytes();
        for moment in &row.estimate.moments {
            assert_eq!(moment.bytes(), moment.terms.iter().map(|term| term.bytes).sum::<u64>(), "row {}", row.id);
            assert!(moment.bytes() <= peak, "row {}", row.id);
        }
    }
}

#[test]
fn the_document_is_what_the_tables_say() {
    assert!(
        calibration_markdown().unwrap() == DOCUMENT,
        "docs/calibration.md is not up to date; run `cargo run -p planner --example calibration > docs/calibration.md`"
    );
}

fn full_bf16() -> Stack {
    Stack {
        weights: Weights::Bf16,
        storage: Storage::Dense,
        optimizer: Optimizer::AdamwBf16,
        states: States::Device,
        gradients: Gradients::Bf16,
        loss: Loss::EagerF32,
        keep: Keep::All,
        kernels: Kernels::Eager,
        streaming: Streaming::Resident,
        sharding: Sharding::None,
        loading: Loading::Plain,
        adapters: None,
        counter: Counter::Allocated,
    }
}

fn counted(name: &str, stack: &Stack, micro_batch: u64) -> u64 {
    let networks = networks().unwrap();
    estimate(&Run { network: &networks[name], stack, micro_batch, sequence: 2048, cards: 1 }).counted_bytes
}

#[test]
fn double_quantised_nf4_takes_4_127_bits_and_plain_nf4_4_5() {
    let numbers = 1 << 24;
    let bits = |storage| nf4(numbers, storage) as f64 * 8.0 / numbers as f64;
    assert!((bits(Storage::Nf4Dq) - 4.127).abs() < 0.001, "{}", bits(Storage::Nf4Dq));
    assert!((bits(Storage::Nf4) - 4.5).abs() < 1e-9);
}

#[test]
fn each_remedy_of_torchtunes_readme_lowers_the_peak_and_more_rows_raise_it() {
    let mut stack = full_bf16();
    let mut peaks = vec![counted("Llama-3.2-3B", &stack, 4)];
    assert!(counted("Llama-3.2-3B", &stack, 5) > peaks[0]);
    let remedies: [fn(&mut Stack); 6] = [
        |stack| stack.kernels = Kernels::Fused,
        |stack| stack.loss = Loss::Chunked,
        |stack| stack.keep = Keep::Input,
        |stack| stack.gradients = Gradients::Freed,
        |stack| stack.keep = Keep::InputOnHost,
        |stack| stack.optimizer = Optimizer::Adamw8bit,
    ];
    for remedy in remedies {
        remedy(&mut stack);
        peaks.push(counted("Llama-3.2-3B", &stack, 4));
    }
    assert!(peaks.is_sorted_by(|before, after| before > after), "{peaks:?}");
}

#[test]
fn pure_bf16_training_of_few_tokens_takes_8_bytes_a_parameter() {
    let stack = Stack { keep: Keep::Input, ..full_bf16() };
    let networks = networks().unwrap();
    let run = Run { network: &networks["Llama-2-7B"], stack: &stack, micro_batch: 1, sequence: 16, cards: 1 };
    let ratio = estimate(&run).counted_bytes as f64 / (8 * networks["Llama-2-7B"].parameters()) as f64;
    assert!((1.0..1.01).contains(&ratio), "{ratio}");
}

const ROW: &str = r#"
[stacks]
[[rows]]
id = "x"
source = "nobody"
quality = "A"
set = "aside"
network = "Llama-9-9B"
what = "full"
stack = "torchtune"
micro_batch = 1
sequence = 1
cards = 1
gib = 1.0
"#;

#[test]
fn a_row_of_an_unknown_network_or_stack_is_refused_with_its_name() {
    let error = calibrated(ROW).unwrap_err();
    assert!(matches!(&error, RowError::Unknown { kind: "network", name, .. } if name == "Llama-9-9B"), "{error}");
    let error = calibrated(&ROW.replace("Llama-9-9B", "Llama-2-7B")).unwrap_err();
    assert!(matches!(&error, RowError::Unknown { kind: "stack", .. }), "{error}");
    let error = calibrated(&ROW.replace("cards", "card")).unwrap_err();
    assert!(matches!(&error, RowError::Malformed { file: "memory.toml", .. }), "{error}");
}
