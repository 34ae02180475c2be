//! Kernels against their plain-Burn twins, forward and backward, on random shapes. Frozen tensors are plain ones, as
//! in training, so these tests also hold the path that devices without kernels take.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use burn::tensor::{DType, Tensor};

use crate::check::{Op, pass};
pub(crate) use crate::check::{Values, values};
use crate::head::{HeadGradients, linear_cross_entropy};
use crate::{AttentionGeometry, Dropout, Gate, Lora, twin};

impl Values {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((self.next() + 1.0) / 2.0 * bound as f32) as usize % bound
    }
}

pub(crate) fn assert_close(what: &str, ours: &[f32], twin: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), twin.len(), "{what}");
    let scale = twin.iter().fold(0.1f32, |most, value| most.max(value.abs()));
    for (at, (a, b)) in ours.iter().zip(twin).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "{what}[{at}]: kernel {a}, twin {b}, scale {scale}");
    }
}

/// The output of `f` and a gradient for each of `inputs`.
fn with_gradients(inputs: &[Tensor<2>], f: Op<'_>) -> Vec<Vec<f32>> {
    let gradient = |y: &Tensor<2>| {
        let [rows, columns] = y.dims();
        Values(99).matrix(rows, columns).cast(y.dtype())
    };
    pass(inputs, &gradient, f)
}

fn compare(what: &str, inputs: &[Tensor<2>], kernel: Op<'_>, reference: Op<'_>, tolerance: f32) {
    let (ours, twins) = (with_gradients(inputs, kernel), with_gradients(inputs, reference));
    for (part, (a, b)) in ours.iter().zip(&twins).enumerate() {
        assert_close(&format!("{what}, part {part}"), a, b, tolerance);
    }
}

const SHAPES: [(usize, usize); 5] = [(1, 2), (3, 8), (17, 33), (64, 576), (130, 100)];

#[test]
fn rms_norm_and_its_gradient_match_the_twin() {
    for (tokens, width) in SHAPES {
        let mut random = Values(tokens as u64);
        let inputs = [random.matrix(tokens, width)];
        let w = random.matrix(1, width).reshape([width]);
        let kernel = |x: &[Tensor<2>]| crate::rms_norm(x[0].clone(), w.clone(), 1e-5);
        let reference = |x: &[Tensor<2>]| twin::rms_norm(x[0].clone(), w.clone(), 1e-5);
        compare("rms_norm", &inputs, &kernel, &reference, 1e-5);
    }
}

#[test]
fn gated_activations_and_their_gradients_match_the_twin() {
    for (tokens, width) in SHAPES {
        for kind in [Gate::Silu, Gate::GeluTanh] {
            let mut random = Values(3 + tokens as u64);
            let inputs = [random.matrix(tokens, width) * 4.0, random.matrix(tokens, width)];
            let kernel = |x: &[Tensor<2>]| crate::gated(x[0].clone(), x[1].clone(), kind);
            let reference = |x: &[Tensor<2>]| twin::gated(x[0].clone(), x[1].clone(), kind);
            compare("gated", &inputs, &kernel, &reference, 1e-5);
        }
    }
}

#[test]
fn rotary_and_its_gradient_match_the_twin() {
    for (tokens, heads, head_dim) in [(1, 1, 2), (5, 3, 16), (33, 2, 64)] {
        let mut random = Values(7 + tokens as u64);
        let inputs = [random.matrix(tokens, heads * head_dim)];
        let angles = random.matrix(tokens, head_dim / 2);
        let (cos, sin) = (angles.clone().cos(), angles.sin());
        let kernel = |x: &[Tensor<2>]| crate::rotary(x[0].clone(), cos.clone(), sin.clone(), head_dim);
        let reference = |x: &[Tensor<2>]| twin::rotary(x[0].clone(), cos.clone(), sin.clone(), head_dim);
        compare("rotary", &inputs, &kernel, &reference, 1e-5);
    }
}

/// Bounds of the rows, query heads, key/value heads, head width, window.
type Case = (&'static [u32], usize, usize, usize, Option<usize>);

#[test]
fn attention_over_packed_rows_and_its_gradients_match_the_twin() {
    let cases: [Case; 5] = [
        (&[0, 1], 1, 1, 2, None),
        (&[0, 5, 6, 19], 4, 2, 16, None),
        (&[0, 70, 201], 9, 3, 64, None),
        (&[0, 40], 4, 1, 32, Some(7)),
        (&[0, 3, 150], 2, 2, 80, Some(1)),
    ];
    for (segments, n_heads, n_kv_heads, head_dim, window) in cases {
        let tokens = *segments.last().unwrap() as usize;
        let mut random = Values(11 + tokens as u64);
        let inputs = [
            random.matrix(tokens, n_heads * head_dim),
            random.matrix(tokens, n_kv_heads * head_dim),
            random.matrix(tokens, n_kv_heads * head_dim),
        ];
        let geometry = AttentionGeometry {
            n_heads,
            n_kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            window,
            segments: Arc::new(segments.to_vec()),
        };
        let kernel = |x: &[Tensor<2>]| crate::attention(x[0].clone(), x[1].clone(), x[2].clone(), geometry.clone());
        let reference = |x: &[Tensor<2>]| twin::attention(x[0].clone(), x[1].clone(), x[2].clone(), &geometry);
        compare("attention", &inputs, &kernel, &reference, 2e-5);
    }
}

#[test]
fn lora_linear_and_its_three_gradients_match_the_twin_with_and_without_dropout() {
    for (tokens, width, outputs, rank) in [(1, 3, 2, 1), (37, 24, 40, 4), (130, 576, 192, 16)] {
        for dropout in [None, Some(Dropout { probability: 0.3, seed: 5, stream: 9 })] {
            let mut random = Values(13 + tokens as u64);
            let w = random.matrix(outputs, width);
            let inputs = [random.matrix(tokens, width), random.matrix(rank, width), random.matrix(outputs, rank)];
            let lora = Lora { scale: 2.0, dropout };
            let kernel =
                |x: &[Tensor<2>]| crate::lora_linear(x[0].clone(), w.clone(), x[1].clone(), x[2].clone(), lora);
            let reference =
                |x: &[Tensor<2>]| twin::lora_linear(x[0].clone(), w.clone(), x[1].clone(), x[2].clone(), lora);
            compare("lora_linear", &inputs, &kernel, &reference, 2e-5);
        }
    }
}

#[test]
fn frozen_linear_and_its_gradient_match_the_twin() {
    let mut random = Values(17);
    let (x, w) = (random.matrix(19, 48), random.matrix(65, 48));
    let kernel = |x: &[Tensor<2>]| crate::frozen_linear(x[0].clone(), w.clone());
    let reference = |x: &[Tensor<2>]| twin::frozen_linear(x[0].clone(), w.clone());
    compare("frozen_linear", &[x], &kernel, &reference, 1e-5);
}

#[test]
fn bf16_kernels_stay_within_bf16_rounding_of_the_f32_twin() {
    let mut random = Values(23);
    let (x, w) = (random.matrix(65, 96), random.matrix(40, 96));
    let (a, b) = (random.matrix(4, 96), random.matrix(40, 4));
    let lora = Lora { scale: 1.0, dropout: None };
    let narrow = |x: &Tensor<2>| x.clone().cast(DType::BF16);
    let kernel = |inputs: &[Tensor<2>]| {
        crate::lora_linear(inputs[0].clone(), narrow(&w), inputs[1].clone(), inputs[2].clone(), lora)
    };
    let ours = with_gradients(&[narrow(&x), a.clone(), b.clone()], &kernel);
    let reference = |inputs: &[Tensor<2>]| {
        twin::lora_linear(inputs[0].clone(), w.clone(), inputs[1].clone(), inputs[2].clone(), lora)
    };
    let twins = with_gradients(&[x, a, b], &reference);
    for (part, (ours, twin)) in ours.iter().zip(&twins).enumerate() {
        assert_close(&format!("bf16 lora, part {part}"), ours, twin, 2e-2);
    }
}

#[test]
fn linear_cross_entropy_and_its_gradient_match_the_twin_across_chunk_borders() {
    for (rows, width, vocabulary) in [(1, 4, 5), (7, 16, 300), (1030, 8, 257)] {
        let mut random = Values(29 + rows as u64);
        let (x, w) = (random.matrix(rows, width), random.matrix(vocabulary, width));
        let targets: Vec<u32> = (0..rows).map(|_| random.below(vocabulary) as u32).collect();
        let ours = linear_cross_entropy(x.clone(), w.clone(), &targets, Some(HeadGradients::of_hidden_states(0.5)));
        let tracked = Tensor::<2>::from_inner(x.clone()).require_grad();
        let sum = twin::cross_entropy_sum(tracked.clone(), Tensor::from_inner(w.clone()), &targets);
        let mut gradients = (sum.clone() * 0.5).backward();
        let expected = f64::from(sum.inner().into_scalar::<f32>());
        assert!((ours.sum - expected).abs() <= 1e-5 * expected, "{} against {expected}", ours.sum);
        let dx = tracked.grad_remove(&mut gradients).unwrap();
        assert_close("head gradient", &values(ours.dx_rd.unwrap()), &values(dx), 1e-5);
        let forward_only = linear_cross_entropy(x, w, &targets, None);
        assert!(forward_only.dx_rd.is_none());
        assert!((forward_only.sum - expected).abs() <= 1e-5 * expected);
    }
}

#[test]
fn a_frozen_input_gets_no_gradient_and_costs_none() {
    let mut random = Values(31);
    let x = Tensor::<2>::from_inner(random.matrix(9, 12));
    let a = Tensor::<2>::from_inner(random.matrix(2, 12)).require_grad();
    let b = Tensor::<2>::from_inner(random.matrix(6, 2)).require_grad();
    let lora = Lora { scale: 1.0, dropout: None };
    let y = crate::lora_linear(x.clone(), random.matrix(6, 12), a.clone(), b.clone(), lora);
    let mut gradients = crate::seed_gradient(y, random.matrix(9, 6)).backward();
    assert!(x.grad_remove(&mut gradients).is_none());
    assert_eq!(a.grad_remove(&mut gradients).unwrap().dims(), [2, 12]);
    assert_eq!(b.grad_remove(&mut gradients).unwrap().dims(), [6, 2]);
}
