//! Whole tiny blocks of every family in full training: against plain Burn, and bit for bit over copies and recomputing.
#![allow(clippy::unwrap_used)]

mod outer;
mod reference;

use burn::tensor::{DType, Device, Tensor, TensorData, bf16};
use planner::architecture::{Activation, DecoderSpec, Family, LayerSpec, RopeScaling, RopeSpec};

use crate::{Block, BlockAdapters, HostValues, RowContext};

/// A tiny decoder of two blocks with the features of a family.
pub fn spec(family: Family) -> DecoderSpec {
    let gemma = family == Family::Gemma3;
    let rope = |theta| RopeSpec { theta, scaling: RopeScaling::None };
    let layer = |window| LayerSpec { window, rope: usize::from(window.is_none() && gemma) };
    DecoderSpec {
        family,
        vocabulary: 53,
        hidden: 24,
        intermediate: 40,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 8,
        norm_epsilon: 1e-5,
        norm_offset: gemma,
        activation: if gemma { Activation::GeluTanh } else { Activation::Silu },
        qkv_bias: family == Family::Qwen2,
        output_bias: false,
        mlp_bias: false,
        qk_norm: gemma || family == Family::Qwen3,
        sandwich_norms: gemma,
        embedding_scale: gemma.then_some(24f64.sqrt()),
        attention_scale: 8f64.sqrt().recip(),
        tied_head: gemma,
        layers: vec![layer(gemma.then_some(3)), layer(None)],
        ropes: if gemma { vec![rope(1e4), rope(1e6)] } else { vec![rope(1e4)] },
        max_positions: 64,
    }
}

pub const FAMILIES: [Family; 5] = [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3, Family::Gemma3];
const PRECISIONS: [DType; 2] = [DType::F32, DType::BF16];
/// Bounds of three packed rows.
pub const SEGMENTS: [u32; 4] = [0, 5, 6, 19];

/// Deterministic values in ±1.
pub fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

pub fn matrix(seed: u64, shape: [usize; 2], dtype: DType) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values(seed, shape[0] * shape[1]), shape), (&Device::flex(), dtype))
}

pub fn flat<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.cast(DType::F32).into_data().try_into_vec().unwrap()
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[track_caller]
pub fn assert_close(what: &str, ours: &[f32], theirs: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let size = theirs.iter().fold(0.05f32, |most, value| most.max(value.abs()));
    for (at, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= tolerance * size, "{what}[{at}]: {a}, not {b}, among values of {size}");
    }
}

/// The tensors of block `index` as a file would hold them.
pub fn file_values(spec: &DecoderSpec, index: usize) -> Vec<Vec<f32>> {
    let tensors = spec.block_tensors(index).into_iter().enumerate();
    let tensor = |(at, (_, shape)): (usize, (String, Vec<usize>))| {
        let base = if shape.len() == 1 && !spec.norm_offset { 1.0 } else { 0.0 };
        let spread = if shape.len() == 1 { 0.3 } else { 0.4 };
        let seed = (index * 100 + at) as u64;
        values(seed, shape.iter().product()).iter().map(|value| base + spread * value).collect()
    };
    tensors.map(tensor).collect()
}

/// A block in f32 or bf16; norms come from f32 in both.
pub fn block(spec: &DecoderSpec, index: usize, dtype: DType) -> Block {
    let tensors = file_values(spec, index);
    let narrow: Vec<Vec<bf16>> =
        tensors.iter().map(|tensor| tensor.iter().map(|&value| bf16::from_f32(value)).collect()).collect();
    let norms = spec.block_norms(index).len();
    let first_norm = tensors.len() - norms;
    let host = (0..tensors.len()).map(|at| match dtype {
        DType::BF16 if at < first_norm => HostValues::Bf16(narrow[at].clone()),
        _ => HostValues::F32(tensors[at].clone()),
    });
    Block::from_host(spec, index, host, &Device::flex())
}

/// Output, input gradient and the flat gradient of every tensor in canonical order.
#[derive(Debug, PartialEq)]
pub struct Passed {
    pub output: Vec<f32>,
    pub dx: Option<Vec<f32>>,
    pub gradients: Vec<Vec<f32>>,
}

/// A graph of one block in full training.
struct Graph {
    input: Tensor<2>,
    output: Tensor<2>,
    block: Block,
}

fn graph(spec: &DecoderSpec, block: &Block, x_td: Tensor<2>) -> Graph {
    let block = block.tracked();
    let context = RowContext::packed(spec, &SEGMENTS, 0, &Device::flex());
    let input = Tensor::<2>::from_inner(x_td);
    let input = if block.index > 0 { input.require_grad() } else { input };
    let output = block.forward(spec, input.clone(), &context, &BlockAdapters::default());
    Graph { input, output, block }
}

fn backward(graph: Graph, incoming: Tensor<2>) -> (Option<Tensor<2>>, Vec<Vec<f32>>) {
    let mut found = kernels::seed_gradient(graph.output, incoming).backward();
    let mut gradients = Vec::new();
    let taken = graph.block.take_gradients(&mut found, |at, values| {
        assert_eq!(at, gradients.len());
        gradients.push(values.to_vec());
        Ok::<(), std::convert::Infallible>(())
    });
    taken.unwrap();
    (graph.input.grad_remove(&mut found), gradients)
}

fn pass(spec: &DecoderSpec, block: &Block, x_td: Tensor<2>) -> Passed {
    let incoming = matrix(77, x_td.dims(), x_td.dtype());
    let graph = graph(spec, block, x_td);
    let output = flat(graph.output.clone().inner());
    let (dx, gradients) = backward(graph, incoming);
    Passed { output, dx: dx.map(flat), gradients }
}

#[test]
fn every_familys_block_in_full_training_matches_plain_burn() {
    for family in FAMILIES {
        let spec = spec(family);
        for (dtype, tolerance) in [(DType::F32, 3e-5), (DType::BF16, 4e-2)] {
            let x = matrix(5, [19, spec.hidden], dtype);
            let ours = pass(&spec, &block(&spec, 1, dtype), x.clone());
            // The reference computes in f32, on the values the block has after rounding.
            let theirs = reference::pass(&spec, &block(&spec, 1, dtype), x.cast(DType::F32));
            assert_close(&format!("{family:?} output"), &ours.output, &theirs.output, tolerance);
            assert_close(&format!("{family:?} dx"), &ours.dx.unwrap(), &theirs.dx.unwrap(), tolerance);
            let tensors = spec.block_tensors(1);
            assert_eq!(ours.gradients.len(), tensors.len());
            for (((name, shape), ours), theirs) in tensors.iter().zip(&ours.gradients).zip(&theirs.gradients) {
                assert_eq!(ours.len(), shape.iter().product::<usize>(), "{name}");
                assert_close(&format!("{family:?} {dtype:?} {name}"), ours, theirs, tolerance);
            }
        }
    }
}

/// Packing must not let rows see each other: on the reference path not one bit of a row's logits depends on the packed row it stands in.
#[test]
fn logits_of_a_packed_row_are_those_of_its_parts_alone_bit_for_bit_on_the_reference_path() {
    for family in FAMILIES {
        let spec = spec(family);
        let blocks = [block(&spec, 0, DType::F32), block(&spec, 1, DType::F32)];
        let head = matrix(9, [spec.vocabulary, spec.hidden], DType::F32);
        let x = matrix(5, [19, spec.hidden], DType::F32);
        let together = reference::logits(&spec, &blocks, &head, x.clone(), &SEGMENTS);
        for bound in SEGMENTS.windows(2) {
            let (start, length) = (bound[0] as usize, (bound[1] - bound[0]) as usize);
            let part = x.clone().narrow(0, start, length);
            let alone = reference::logits(&spec, &blocks, &head, part, &[0, length as u32]);
            let packed = &together[start * spec.vocabulary..][..alone.len()];
            assert_eq!(bits(&alone), bits(packed), "{family:?}, tokens {bound:?}");
        }
        // The test can fail: rows that see each other have other logits.
        let mixed = reference::logits(&spec, &blocks, &head, x, &[0, 19]);
        assert_ne!(bits(&mixed[5 * spec.vocabulary..]), bits(&together[5 * spec.vocabulary..]), "{family:?}");
    }
}

#[test]
fn a_weights_gradient_is_the_slope_of_the_output_along_it() {
    for family in [Family::Qwen2, Family::Gemma3] {
        let spec = spec(family);
        let x = matrix(5, [19, spec.hidden], DType::F32);
        let incoming: Vec<f64> = flat(matrix(77, [19, spec.hidden], DType::F32)).iter().map(|&g| g.into()).collect();
        let analytic = pass(&spec, &block(&spec, 1, DType::F32), x.clone()).gradients;
        let names = spec.block_tensors(1);
        for (at, gradient) in analytic.iter().enumerate() {
            let direction = values(900 + at as u64, gradient.len());
            let moved = |distance: f32| {
                let mut tensors = file_values(&spec, 1);
                tensors[at].iter_mut().zip(&direction).for_each(|(value, d)| *value += distance * d);
                let host = tensors.iter().cloned().map(HostValues::F32);
                let block = Block::from_host(&spec, 1, host, &Device::flex());
                let output = reference::output(&spec, &block, x.clone());
                output.iter().zip(&incoming).map(|(&y, g)| f64::from(y) * g).sum::<f64>()
            };
            let step = 2e-3;
            let slope = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            let expected: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
            let bound = 2e-3 * gradient.iter().map(|g| f64::from(g * g)).sum::<f64>().sqrt().max(1.0);
            assert!((slope - expected).abs() <= bound, "{family:?} {}: {slope}, not {expected}", names[at].0);
        }
    }
}

#[test]
fn a_block_fetched_again_gives_the_bits_of_the_resident_one() {
    for family in FAMILIES {
        let spec = spec(family);
        for dtype in PRECISIONS {
            let x = matrix(5, [19, spec.hidden], dtype);
            let resident = block(&spec, 1, dtype);
            let first = pass(&spec, &resident, x.clone());
            assert_eq!(first, pass(&spec, &resident.clone(), x.clone()), "{family:?} {dtype:?}, a clone");
            assert_eq!(first, pass(&spec, &block(&spec, 1, dtype), x), "{family:?} {dtype:?}, fetched");
        }
    }
}

/// Gradients of both blocks, last block first, and the output. Recomputing keeps the blocks' inputs only.
fn two_blocks(spec: &DecoderSpec, dtype: DType, recompute: bool) -> (Vec<f32>, Vec<Vec<f32>>) {
    let context = RowContext::packed(spec, &SEGMENTS, 0, &Device::flex());
    let blocks = [block(spec, 0, dtype), block(spec, 1, dtype)];
    let mut x = matrix(5, [19, spec.hidden], dtype);
    let mut kept = Vec::new();
    for block in &blocks {
        let input = x.clone();
        if recompute {
            x = block.forward(spec, x, &context, &BlockAdapters::default());
            kept.push((input, None));
        } else {
            let graph = graph(spec, block, x);
            x = graph.output.clone().inner();
            kept.push((input, Some(graph)));
        }
    }
    let mut incoming = matrix(77, x.dims(), dtype);
    let mut all = Vec::new();
    for (block, (input, retained)) in blocks.iter().zip(kept).rev() {
        let (dx, gradients) = backward(retained.unwrap_or_else(|| graph(spec, block, input)), incoming.clone());
        all.extend(gradients);
        assert_eq!(dx.is_some(), block.index > 0, "the first block's input needs no gradient");
        incoming = dx.unwrap_or(incoming);
    }
    (flat(x), all)
}

#[test]
fn recomputed_blocks_in_full_training_give_the_bits_of_retained_ones() {
    for family in FAMILIES {
        for dtype in PRECISIONS {
            let spec = spec(family);
            let (retained, recomputed) = (two_blocks(&spec, dtype, false), two_blocks(&spec, dtype, true));
            assert_eq!(bits(&retained.0), bits(&recomputed.0), "{family:?} {dtype:?}");
            for (a, b) in retained.1.iter().zip(&recomputed.1) {
                assert_eq!(bits(a), bits(b), "{family:?} {dtype:?}");
            }
        }
    }
}

#[test]
fn an_error_of_the_taker_ends_the_walk_over_gradients() {
    let spec = spec(Family::Llama);
    let graph = graph(&spec, &block(&spec, 1, DType::F32), matrix(5, [19, spec.hidden], DType::F32));
    let mut found = kernels::seed_gradient(graph.output, matrix(77, [19, spec.hidden], DType::F32)).backward();
    let mut seen = 0;
    let result = graph.block.take_gradients(&mut found, |at, _| {
        seen += 1;
        if at == 2 { Err("no space") } else { Ok(()) }
    });
    assert_eq!((result, seen), (Err("no space"), 3));
}

#[test]
fn norms_take_the_offset_on_the_way_to_the_device_and_stay_f32() {
    let spec = spec(Family::Gemma3);
    let tensors = file_values(&spec, 0);
    let block = block(&spec, 0, DType::BF16);
    let first = tensors.len() - block.norms.len();
    for (norm, file) in block.norms.iter().zip(&tensors[first..]) {
        assert_eq!(norm.dtype(), DType::F32);
        let expected: Vec<f32> = file.iter().map(|value| value + 1.0).collect();
        assert_eq!(bits(&flat(norm.clone())), bits(&expected));
    }
}
