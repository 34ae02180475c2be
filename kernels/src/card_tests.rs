//! Every operation on a Vulkan device, in software where there is no card, against the twins on the processor.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};

use crate::check::{Bounds, Checked, Values, operations, values};
use crate::head::{HeadGradients, linear_cross_entropy};
use crate::measure::Format;
use crate::tests::assert_close;
use crate::{AttentionGeometry, PackedFormat, PackedWeight, Weight};

/// The Vulkan device; `None`, visibly, where the machine has none.
fn card() -> Option<Device> {
    let found = crate::devices::vulkan(0);
    if let Err(missing) = &found {
        eprintln!("SKIPPED: {missing}");
    }
    found.ok()
}

fn on<const D: usize>(device: &Device, tensor: &Tensor<D>) -> Tensor<D> {
    Tensor::from_data(tensor.clone().into_data(), (device, tensor.dtype()))
}

#[test]
fn every_operation_is_its_twin() {
    let Some(card) = card() else { return };
    let found = operations(&card, Format::F32, Bounds::F32);
    let wrong: Vec<&Checked> = found.iter().filter(|one| !one.holds()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_matrix_in_few_bits_has_the_same_numbers_bit_for_bit() {
    let Some(card) = card() else { return };
    let w = Values(9).matrix(130, 96);
    for format in [PackedFormat::Nf4, PackedFormat::Int8] {
        let packed = format.quantise(&values(w.clone())).unwrap();
        let [ours, theirs] = [&card, &Device::flex()].map(|device| {
            let weight = PackedWeight::upload(packed.clone(), [130, 96], format, device);
            let ones: Vec<f32> = (0..96 * 96).map(|at| f32::from(u8::from(at % 97 == 0))).collect();
            let identity = Tensor::<1>::from_data(ones.as_slice(), (device, DType::F32)).reshape([96, 96]);
            values(crate::frozen_linear(identity, Weight::Packed(weight)))
        });
        assert_eq!(ours, theirs, "{format:?}");
    }
}

#[test]
fn attention_by_products_is_that_of_the_kernels() {
    let Some(card) = card() else { return };
    let cases: [([usize; 3], Option<usize>, &[u32]); 4] = [
        ([1, 1, 2], None, &[0, 1]),
        ([4, 2, 16], None, &[0, 5, 6, 119]),
        ([9, 3, 64], None, &[0, 70, 131]),
        ([2, 2, 80], Some(7), &[0, 3, 90]),
    ];
    for ([n_heads, n_kv_heads, head_dim], window, segments) in cases {
        let segments = Arc::new(segments.to_vec());
        let tokens = *segments.last().unwrap() as usize;
        let geometry = AttentionGeometry { n_heads, n_kv_heads, head_dim, scale: 0.3, window, segments };
        let mut random = Values(11);
        let [q, k, v, dout] =
            [n_heads, n_kv_heads, n_kv_heads, n_heads].map(|heads| on(&card, &random.matrix(tokens, heads * head_dim)));
        let [by_products, by_kernels] = crate::card::attention_both_ways([q, k, v], dout, &geometry);
        for (part, (ours, theirs)) in by_products.into_iter().zip(by_kernels).enumerate() {
            assert_close(&format!("{tokens} tokens, part {part}"), &values(ours), &values(theirs), 3e-5);
        }
    }
}

#[test]
fn a_loss_is_the_same_with_and_without_gradients() {
    let Some(card) = card() else { return };
    let mut random = Values(4);
    let [x, w] = [[600, 8], [257, 8]].map(|[rows, columns]| on(&card, &random.matrix(rows, columns)));
    let targets: Vec<u32> = (0..600).map(|row| row * 31 % 257).collect();
    let alone = linear_cross_entropy(x.clone(), w.clone(), &targets, None);
    let both = linear_cross_entropy(x, w, &targets, Some(HeadGradients::of_hidden_states(2.0)));
    assert_eq!(alone.sum.to_bits(), both.sum.to_bits());
}
