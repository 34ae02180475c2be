//! Every operation on a Vulkan device, in software where there is no card, against the processor's kernels on the same numbers.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use burn::tensor::{DType, Device, DeviceKind, Tensor};

use crate::head::{HeadGradients, linear_cross_entropy};
use crate::nf4::quantise;
use crate::tests::{Values, assert_close, values};
use crate::{AttentionGeometry, Dropout, Gate, KeyValues, Lora, Nf4Weight, Weight, cached_attention};

/// The Vulkan device; `None`, visibly, where the machine has none.
fn card() -> Option<Device> {
    let found = std::panic::catch_unwind(|| {
        let device = Device::wgpu(DeviceKind::DefaultDevice);
        Tensor::<1>::from_data([1.0f32], (&device, DType::F32)).into_data();
        device
    });
    if found.is_err() {
        eprintln!("SKIPPED: no Vulkan device; Debian's mesa-vulkan-drivers has one in software");
    }
    found.ok()
}

fn on<const D: usize>(device: &Device, tensor: &Tensor<D>) -> Tensor<D> {
    Tensor::from_data(tensor.clone().into_data(), (device, tensor.dtype()))
}

type Op<'a> = &'a dyn Fn(&Device, &[Tensor<2>]) -> Tensor<2>;

/// The output and a gradient for each input, on one device.
fn pass(device: &Device, inputs: &[Tensor<2>], f: Op<'_>) -> Vec<Vec<f32>> {
    let tracked = |input: &Tensor<2>| Tensor::<2>::from_inner(on(device, input)).require_grad();
    let tracked: Vec<Tensor<2>> = inputs.iter().map(tracked).collect();
    let y = f(device, &tracked);
    let [rows, columns] = y.dims();
    let g = on(device, &Values(99).matrix(rows, columns).cast(y.dtype()));
    let mut results = vec![values(y.clone().inner())];
    let mut gradients = crate::seed_gradient(y, g).backward();
    results.extend(tracked.iter().map(|input| values(input.grad_remove(&mut gradients).unwrap())));
    results
}

fn compare(what: &str, inputs: &[Tensor<2>], f: Op<'_>) {
    let Some(card) = card() else { return };
    let (ours, theirs) = (pass(&card, inputs, f), pass(&Device::flex(), inputs, f));
    for (part, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert_close(&format!("{what}, part {part}"), ours, theirs, 3e-5);
    }
}

fn matrices<const N: usize>(seed: u64, shapes: [[usize; 2]; N]) -> [Tensor<2>; N] {
    let mut random = Values(seed);
    shapes.map(|[rows, columns]| random.matrix(rows, columns))
}

#[test]
fn norms_rotations_and_gates_are_those_of_the_processor() {
    for (tokens, width) in [(1, 2), (17, 34), (64, 576)] {
        let inputs = matrices(3, [[tokens, width]]);
        let w = Values(8).matrix(1, width).reshape([width]);
        let weight = |device: &Device| on(device, &w);
        compare("rms_norm", &inputs, &|device, x| crate::rms_norm(x[0].clone(), weight(device), 1e-5));
        let rows = matrices(4, [[tokens, width], [1, width]]);
        compare("trainable_rms_norm", &rows, &|_, x| {
            crate::trainable_rms_norm(x[0].clone(), x[1].clone().reshape([width]), 1e-5)
        });
        compare("add_bias", &rows, &|_, x| crate::add_bias(x[0].clone(), x[1].clone().reshape([width])));
        let angles = Values(5).matrix(tokens, width / 2);
        compare("rotary", &inputs, &|device, x| {
            let angles = on(device, &angles);
            crate::rotary(x[0].clone(), angles.clone().cos(), angles.sin(), width)
        });
        for kind in [Gate::Silu, Gate::GeluTanh] {
            let inputs = matrices(6, [[tokens, width], [tokens, width]]);
            compare("gated", &inputs, &|_, x| crate::gated(x[0].clone(), x[1].clone(), kind));
        }
    }
}

fn geometry(heads: [usize; 3], window: Option<usize>, segments: &[u32]) -> AttentionGeometry {
    let [n_heads, n_kv_heads, head_dim] = heads;
    AttentionGeometry { n_heads, n_kv_heads, head_dim, scale: 0.3, window, segments: Arc::new(segments.to_vec()) }
}

#[test]
fn attention_is_that_of_the_processor() {
    let cases: [([usize; 3], Option<usize>, &[u32]); 4] = [
        ([1, 1, 2], None, &[0, 1]),
        ([4, 2, 16], None, &[0, 5, 6, 19]),
        ([9, 3, 64], None, &[0, 70, 131]),
        ([2, 2, 80], Some(7), &[0, 3, 50]),
    ];
    for (heads, window, segments) in cases {
        let [n_heads, n_kv_heads, head_dim] = heads;
        let tokens = *segments.last().unwrap() as usize;
        let kv = [tokens, n_kv_heads * head_dim];
        let inputs = matrices(11, [[tokens, n_heads * head_dim], kv, kv]);
        let geometry = geometry(heads, window, segments);
        compare("attention", &inputs, &|_, x| {
            crate::attention(x[0].clone(), x[1].clone(), x[2].clone(), geometry.clone())
        });
    }
}

#[test]
fn attention_over_a_cache_is_that_of_the_processor() {
    let Some(card) = card() else { return };
    let mut caches = [KeyValues::with_room(&[0, 0]), KeyValues::with_room(&[0, 0])];
    for segments in [[0, 5, 6], [0, 1, 2], [0, 0, 3]] {
        let geometry = geometry([4, 2, 16], None, &segments);
        let tokens = segments[2] as usize;
        let qkv = matrices(7, [[tokens, 64], [tokens, 32], [tokens, 32]]);
        let [ours, theirs] = [&card, &Device::flex()];
        let [ours, theirs] = [(ours, 0), (theirs, 1)].map(|(device, at)| {
            values(cached_attention(&mut caches[at], qkv.each_ref().map(|x| on(device, x)), geometry.clone()))
        });
        assert_close("cached attention", &ours, &theirs, 3e-5);
    }
}

#[test]
fn linear_layers_dense_and_in_4_bits_are_those_of_the_processor() {
    for [tokens, inputs, outputs] in [[1, 2, 3], [17, 64, 20], [33, 96, 130]] {
        let rank = 4;
        let [x, w, a, b] = matrices(2, [[tokens, inputs], [outputs, inputs], [rank, inputs], [outputs, rank]]);
        let packed = quantise(&values(w.clone())).unwrap();
        let dense = |device: &Device| Weight::Dense(on(device, &w));
        let in_4_bits = |device: &Device| Weight::Nf4(Nf4Weight::upload(packed.clone(), [outputs, inputs], device));
        let weights: [(&str, &dyn Fn(&Device) -> Weight); 2] = [("dense", &dense), ("nf4", &in_4_bits)];
        for (name, weight) in weights {
            compare(name, &[x.clone()], &|device, x| crate::frozen_linear(x[0].clone(), weight(device)));
            for dropout in [None, Some(Dropout { probability: 0.3, seed: 5, stream: 9 })] {
                let lora = Lora { scale: 2.0, dropout };
                compare(name, &[x.clone(), a.clone(), b.clone()], &|device, x| {
                    crate::lora_linear(x[0].clone(), weight(device), x[1].clone(), x[2].clone(), lora)
                });
            }
            let Some(card) = card() else { return };
            let [ours, theirs] = [&card, &Device::flex()].map(|device| {
                let (a, b) = crate::ready_factors(on(device, &a), on(device, &b), DType::F32);
                values(crate::adapted_linear(on(device, &x), weight(device), a, b, 0.5))
            });
            assert_close(name, &ours, &theirs, 3e-5);
        }
        compare("trained", &[x, w.clone()], &|_, x| crate::trainable_linear(x[0].clone(), x[1].clone()));
    }
}

#[test]
fn a_matrix_in_4_bits_has_the_same_numbers_bit_for_bit() {
    let Some(card) = card() else { return };
    let [w] = matrices(9, [[130, 96]]);
    let packed = quantise(&values(w)).unwrap();
    let [ours, theirs] = [&card, &Device::flex()].map(|device| {
        let weight = Nf4Weight::upload(packed.clone(), [130, 96], device);
        let ones: Vec<f32> = (0..96 * 96).map(|at| f32::from(u8::from(at % 97 == 0))).collect();
        let identity = Tensor::<1>::from_data(ones.as_slice(), (device, DType::F32)).reshape([96, 96]);
        values(crate::frozen_linear(identity, Weight::Nf4(weight)))
    });
    assert_eq!(ours, theirs);
}

#[test]
fn the_heads_loss_and_gradients_are_those_of_the_processor() {
    let Some(card) = card() else { return };
    for [rows, width, vocabulary] in [[1, 4, 5], [7, 16, 300], [600, 8, 257]] {
        let [x, w] = matrices(rows as u64, [[rows, width], [vocabulary, width]]);
        let targets: Vec<u32> = (0..rows).map(|row| (row * 31 % vocabulary) as u32).collect();
        let [ours, theirs] = [&card, &Device::flex()].map(|device| {
            let mut dw = vec![0.5f32; vocabulary * width];
            let wanted = HeadGradients { scale: 2.0, weight_vd: Some(&mut dw) };
            let loss = linear_cross_entropy(on(device, &x), on(device, &w), &targets, Some(wanted));
            let alone = linear_cross_entropy(on(device, &x), on(device, &w), &targets, None);
            assert_eq!(alone.sum.to_bits(), loss.sum.to_bits());
            (loss.sum, values(loss.dx_rd.unwrap()), dw)
        });
        assert!((ours.0 - theirs.0).abs() <= 1e-5 * theirs.0, "{} against {}", ours.0, theirs.0);
        assert_close("dx", &ours.1, &theirs.1, 3e-5);
        assert_close("dw", &ours.2, &theirs.2, 3e-5);
    }
}
