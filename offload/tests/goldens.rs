//! The update rules against PyTorch, transformers and bitsandbytes.
//!
//! In:    `goldens/rules.json`, written by `goldens/make_rules.py`.
//! Out:   a failure for each value that is too far from theirs.
//! Never: runs Python.

#![allow(clippy::unwrap_used)]

use offload::rules::{Adafactor, AdamW, Rule, Sgd, SlotRange, Step, dynamic_map};
use offload::{GradientSource, Group, GroupLayout, GroupPlaces, Place, Slabs, Tiers, Updater};
use serde_json::Value;

const ROWS: u64 = 16;
const COLUMNS: u64 = 48;
const ELEMENTS: usize = (ROWS * COLUMNS) as usize;
const ADAMW: AdamW = AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };

fn golden() -> Value {
    serde_json::from_str(include_str!("goldens/rules.json")).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|bits| f32::from_bits(bits.as_u64().unwrap() as u32)).collect()
}

fn values(count: usize, mut state: u64) -> Vec<f32> {
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

/// A group in memory with one tensor, after three steps.
fn train(rule: Rule, rows: u64) -> Group {
    let tiers = Tiers { device: Slabs::new("device", 0), dram: Slabs::new("dram", 1 << 20), nvme: None };
    let slots = [SlotRange { start: 0, len: ROWS * COLUMNS, rows, columns: ROWS * COLUMNS / rows, decay: true }];
    let layout = GroupLayout { name: "golden", key: 0, slots: &slots, span_elements: 256 };
    let places = GroupPlaces { parameters: Place::Dram, gradients: None, states: Place::Dram, working: None };
    let mut group = Group::new(&tiers, &rule, &layout, &places).unwrap();
    group.write_parameters(0, &values(ELEMENTS, 1)).unwrap();
    for number in 1..=3 {
        let step = Step { number, learning_rate: 1e-2, gradient_scale: 1.0, seed: 0 };
        let gradients = values(ELEMENTS, 100 + number);
        Updater::new(rule).update(&mut [&mut group], &step, GradientSource::Flat(&gradients)).unwrap();
    }
    group
}

fn parameters(group: &Group) -> Vec<f32> {
    let mut found = vec![0.0; ELEMENTS];
    group.parameters.read(0, bytemuck::cast_slice_mut(&mut found)).unwrap();
    found
}

fn assert_near(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance, "parameter {i}: {found} instead of {expected}");
    }
}

#[test]
fn adamw_and_momentum_are_those_of_torch_within_a_rounding() {
    let golden = golden();
    assert_near(&parameters(&train(Rule::AdamW(ADAMW), ROWS)), &floats(&golden["adamw"]), 1.2e-7);
    let sgd = Sgd { momentum: 0.9, weight_decay: 0.1 };
    assert_near(&parameters(&train(Rule::Sgd(sgd), ROWS)), &floats(&golden["sgd"]), 1.2e-7);
}

#[test]
fn adafactor_is_that_of_transformers_for_a_matrix_and_a_vector() {
    let (golden, rule) = (golden(), Rule::Adafactor(Adafactor { weight_decay: 0.1 }));
    assert_near(&parameters(&train(rule, ROWS)), &floats(&golden["adafactor_matrix"]), 2e-7);
    assert_near(&parameters(&train(rule, 1)), &floats(&golden["adafactor_vector"]), 2e-7);
}

#[test]
fn dynamic_maps_are_those_of_bitsandbytes_to_the_bit() {
    let golden = golden();
    for (signed, name) in [(true, "signed_map"), (false, "unsigned_map")] {
        let bits = |map: &[f32]| map.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&dynamic_map(signed)), bits(&floats(&golden[name])), "{name}");
    }
}

#[test]
fn adamw_with_8_bits_is_that_of_bitsandbytes_but_for_values_near_the_middle_of_two_codes() {
    let golden = &golden()["adamw_8bit"];
    let group = train(Rule::AdamW8bit(ADAMW), ROWS);
    let bytes = |state: usize| {
        let mut bytes = vec![0u8; group.states[state].bytes() as usize];
        group.states[state].read(0, &mut bytes).unwrap();
        bytes
    };
    // Its CPU library rounds some values in the middle tenth of a gap the other way, which the next steps carry on.
    let (found, expected) = (parameters(&group), floats(&golden["parameters"]));
    assert_near(&found, &expected, 1e-3);
    let far = found.iter().zip(&expected).filter(|(found, expected)| (*found - *expected).abs() > 2e-7).count();
    assert!(far * 10 < ELEMENTS, "{far} of {ELEMENTS} parameters differ");
    for (moment, codes) in golden["codes"].as_array().unwrap().iter().enumerate() {
        let expected = codes.as_array().unwrap().iter().map(|code| code.as_u64().unwrap() as u8);
        let differences: Vec<u8> = bytes(2 * moment).iter().zip(expected).map(|(a, b)| a.abs_diff(b)).collect();
        assert!(differences.iter().all(|difference| *difference <= 1), "codes of moment {moment}");
        let off = differences.iter().filter(|difference| **difference > 0).count();
        assert!(off * 10 < ELEMENTS, "{off} codes of moment {moment} differ");
    }
    for (moment, magnitudes) in golden["magnitudes"].as_array().unwrap().iter().enumerate() {
        let absmax: Vec<u8> = bytes(2 * moment + 1);
        let found = absmax.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<_>>();
        assert_near(&found, &floats(magnitudes), 1e-3);
    }
}
