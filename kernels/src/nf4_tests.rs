//! Products with a weight in 4 bits against the same products with its numbers as a matrix.
#![allow(clippy::unwrap_used)]

use burn::tensor::{DType, Device, Tensor};

use crate::nf4::quantise;
use crate::tests::{Values, assert_close, values};
use crate::{Dropout, Lora, PackedFormat, PackedWeight, Weight, twin};

/// Tokens, inputs, outputs; the last ones take more than one panel each way, of blocks that rows cut.
const SHAPES: [[usize; 3]; 6] = [[1, 2, 3], [3, 8, 5], [17, 64, 20], [64, 96, 130], [5, 1100, 700], [33, 700, 1100]];
const DTYPES: [DType; 2] = [DType::F32, DType::BF16];

fn tolerance(dtype: DType) -> f32 {
    if dtype == DType::BF16 { 1e-2 } else { 2e-5 }
}

fn packed(outputs: usize, inputs: usize) -> Weight {
    let numbers = values(Values(5).matrix(outputs, inputs));
    let packed = quantise(&numbers).unwrap();
    Weight::Packed(PackedWeight::upload(packed, [outputs, inputs], PackedFormat::Nf4, &Device::flex()))
}

/// Output and gradients of `x` and of two factors, for an incoming gradient that depends on the shape only.
fn pass(x: &Tensor<2>, factors: [&Tensor<2>; 2], f: impl Fn(Tensor<2>, [Tensor<2>; 2]) -> Tensor<2>) -> Vec<Vec<f32>> {
    let tracked = |tensor: &Tensor<2>| Tensor::<2>::from_inner(tensor.clone()).require_grad();
    let (x, factors) = (tracked(x), factors.map(tracked));
    let y = f(x.clone(), factors.clone());
    let [rows, columns] = y.dims();
    let incoming = Values(99).matrix(rows, columns).cast(y.dtype());
    let mut found = crate::seed_gradient(y.clone(), incoming).backward();
    let [a, b] = factors.map(|factor| factor.grad_remove(&mut found).map(values).unwrap_or_default());
    vec![values(y.inner()), values(x.grad_remove(&mut found).unwrap()), a, b]
}

#[test]
fn products_with_a_weight_in_4_bits_are_those_with_its_numbers() {
    for [tokens, inputs, outputs] in SHAPES {
        for dtype in DTYPES {
            let w = packed(outputs, inputs);
            let dense = w.to_dense(dtype);
            let x = Values(1).matrix(tokens, inputs).cast(dtype);
            let (a, b) = (Values(2).matrix(4, inputs), Values(3).matrix(outputs, 4));
            let frozen = pass(&x, [&a, &b], |x, _| crate::frozen_linear(x, &w));
            let expected = pass(&x, [&a, &b], |x, _| twin::frozen_linear(x, Tensor::from_inner(dense.clone())));
            for (frozen, expected) in frozen.iter().zip(&expected).take(2) {
                assert_close("frozen", frozen, expected, tolerance(dtype));
            }
            for dropout in [None, Some(Dropout { probability: 0.3, seed: 7, stream: 3 })] {
                let lora = Lora { scale: 0.5, dropout };
                let ours = pass(&x, [&a, &b], |x, [a, b]| crate::lora_linear(x, &w, a, b, lora));
                let theirs = pass(&x, [&a, &b], |x, [a, b]| {
                    crate::lora_linear(x, Tensor::from_inner(dense.clone()), a, b, lora)
                });
                for (ours, theirs) in ours.iter().zip(&theirs) {
                    assert_close("adapted", ours, theirs, tolerance(dtype));
                }
            }
        }
    }
}

#[test]
fn an_adapter_that_is_ready_gives_the_bits_of_the_trained_one_over_a_weight_in_4_bits() {
    for dtype in DTYPES {
        let w = packed(130, 96);
        let x = Values(1).matrix(9, 96).cast(dtype);
        let (a, b) = (Values(2).matrix(4, 96), Values(3).matrix(130, 4));
        let lora = Lora { scale: 0.5, dropout: None };
        let trained = values(crate::lora_linear(x.clone(), &w, a.clone(), b.clone(), lora));
        let (a, b) = crate::ready_factors(a, b, dtype);
        let ready = values(crate::adapted_linear(x, &w, a, b, 0.5));
        assert!(trained.iter().zip(&ready).all(|(a, b)| a.to_bits() == b.to_bits()), "{dtype:?}");
    }
}

#[test]
fn results_have_the_same_bits_for_every_number_of_threads() {
    let w = packed(700, 1100);
    let x = Values(1).matrix(33, 1100);
    let product = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| values(crate::frozen_linear(x.clone(), &w)))
    };
    let one = product(1);
    for threads in [2, 5] {
        assert!(one.iter().zip(&product(threads)).all(|(a, b)| a.to_bits() == b.to_bits()), "{threads} threads");
    }
}
