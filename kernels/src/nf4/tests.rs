//! The format against bitsandbytes, and against itself in parts.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use half::bf16;
use safetensors::{Dtype, SafeTensors};

use super::*;

struct Golden(Vec<u8>);

impl Golden {
    fn open() -> Golden {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/nf4/golden.safetensors");
        Golden(std::fs::read(path).unwrap())
    }

    fn bytes(&self, name: &str) -> (Dtype, Vec<u8>) {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        (tensor.dtype(), tensor.data().to_vec())
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        match self.bytes(name) {
            (Dtype::F32, bytes) => bytes.chunks_exact(4).map(float).collect(),
            (Dtype::BF16, bytes) => {
                bytes.chunks_exact(2).map(|two| bf16::from_le_bytes([two[0], two[1]]).to_f32()).collect()
            }
            (other, _) => panic!("{name} is {other:?}"),
        }
    }
}

const CASES: [&str; 6] = ["normal", "heavy_tails", "zero_blocks", "short_last_block", "halfway", "all_zero"];

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn the_tables_are_those_of_bitsandbytes_bit_for_bit() {
    let golden = Golden::open();
    assert_eq!(bits(&CODE), bits(&golden.floats("code")));
    assert_eq!(bits(&*SCALES), bits(&golden.floats("scale_code")));
}

#[test]
fn codes_scales_and_groups_are_those_of_bitsandbytes_bit_for_bit() {
    let golden = Golden::open();
    for case in CASES {
        let values = golden.floats(&format!("{case}.values"));
        let maxima: Vec<f32> = values.chunks(BLOCK).map(|block| maximum(block, BLOCK)).collect();
        let mean = golden.floats(&format!("{case}.mean"))[0];
        let buffer = quantise_around(&values, &maxima, mean).unwrap();
        let packed = Packed::new(&buffer, values.len());
        assert_eq!(packed.codes(), golden.bytes(&format!("{case}.codes")).1, "{case}: codes");
        assert_eq!(packed.scale_codes(), golden.bytes(&format!("{case}.scales")).1, "{case}: scales");
        assert_eq!(bits(&packed.groups()), bits(&golden.floats(&format!("{case}.groups"))), "{case}: groups");
        let mut wide = vec![0.0f32; values.len()];
        packed.decode(0, &mut wide);
        assert_eq!(bits(&wide), bits(&golden.floats(&format!("{case}.f32"))), "{case}: f32");
        let mut narrow = vec![bf16::ZERO; values.len()];
        packed.decode(0, &mut narrow);
        let narrow: Vec<f32> = narrow.into_iter().map(bf16::to_f32).collect();
        assert_eq!(bits(&narrow), bits(&golden.floats(&format!("{case}.bf16"))), "{case}: bf16");
    }
}

#[test]
fn the_mean_is_that_of_bitsandbytes_to_its_last_bit_or_two() {
    // torch sums in f32 in an order that depends on the processor.
    let golden = Golden::open();
    for case in CASES {
        let values = golden.floats(&format!("{case}.values"));
        let buffer = quantise(&values).unwrap();
        let (ours, theirs) = (Packed::new(&buffer, values.len()).mean(), golden.floats(&format!("{case}.mean"))[0]);
        assert!((ours - theirs).abs() <= 2.0 * f32::EPSILON * theirs.abs(), "{case}: {ours:e}, {theirs:e}");
    }
}

#[test]
fn every_range_has_the_numbers_of_the_whole() {
    let values: Vec<f32> = (0..850).map(|at| ((at * 37) % 101) as f32 - 50.0).collect();
    let buffer = quantise(&values).unwrap();
    let packed = Packed::new(&buffer, values.len());
    let mut whole = vec![0.0f32; values.len()];
    packed.decode(0, &mut whole);
    for first in [0, 1, 63, 64, 65, 127, 500, 849] {
        for len in [0, 1, 2, 63, 64, 66, 200].into_iter().filter(|len| first + len <= values.len()) {
            let mut part = vec![0.0f32; len];
            packed.decode(first, &mut part);
            assert_eq!(bits(&part), bits(&whole[first..first + len]), "{len} from {first}");
        }
    }
}

#[test]
fn a_number_takes_0_516_bytes_and_its_error_is_bounded_by_the_widest_gap() {
    let elements = 4096 * 4096;
    let bytes = Layout::of(elements).bytes() as f64 / elements as f64;
    assert!((bytes - 0.516).abs() < 0.0005, "{bytes}");
    let values: Vec<f32> = (0..64 * 300).map(|at| ((at * 7919 % 10_007) as f32 / 10_007.0 - 0.5) * 0.2).collect();
    let buffer = quantise(&values).unwrap();
    let mut again = vec![0.0f32; values.len()];
    Packed::new(&buffer, values.len()).decode(0, &mut again);
    let widest = CODE.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f32::max) / 2.0;
    for (block, (values, again)) in values.chunks(BLOCK).zip(again.chunks(BLOCK)).enumerate() {
        // A scale is off by at most half a step of 8 bits, which is 0.7 % of the largest deviation from the mean.
        let bound = magnitude(values) * (widest + 0.02);
        assert!(values.iter().zip(again).all(|(value, again)| (value - again).abs() <= bound), "block {block}");
    }
}

#[test]
fn numbers_that_are_not_finite_are_refused_with_their_place() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![0.5f32; 200];
        values[131] = value;
        let refused = quantise(&values).unwrap_err();
        assert_eq!(refused.at, 131);
        assert!(refused.to_string().contains("131"), "{refused}");
    }
}

#[test]
fn a_matrix_without_numbers_has_an_empty_view() {
    let buffer = quantise(&[]).unwrap();
    assert!(Packed::new(&buffer, 0).codes().is_empty());
}
