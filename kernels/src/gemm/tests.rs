//! Outer products in f32 against a plain f64 loop, for both ways bf16 operands take.
#![allow(clippy::unwrap_used)]

use half::bf16;

use super::{Operand, Scalar, add_outer_widened};
use crate::cpu::Element;

/// A deterministic value in ±1 for a position.
fn value<E: Element>(seed: u64, at: usize) -> E {
    let mixed =
        (seed ^ at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    E::from_f32((mixed >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
}

fn values<E: Element>(seed: u64, count: usize) -> Vec<E> {
    (0..count).map(|at| value(seed, at)).collect()
}

/// `sum + leftᵀ right` in f64.
fn exact<E: Element>(left: &[E], right: &[E], [tokens, outputs, inputs]: [usize; 3], sum: &[f32]) -> Vec<f64> {
    let mut exact: Vec<f64> = sum.iter().map(|&x| f64::from(x)).collect();
    for t in 0..tokens {
        for o in 0..outputs {
            let dy = f64::from(left[t * outputs + o].to_f32());
            for i in 0..inputs {
                exact[o * inputs + i] += dy * f64::from(right[t * inputs + i].to_f32());
            }
        }
    }
    exact
}

fn assert_close(what: &str, found: &[f32], exact: &[f64], tokens: usize) {
    let bound = 1e-6 * (tokens as f64).sqrt().max(1.0) * 4.0;
    for (at, (found, exact)) in found.iter().zip(exact).enumerate() {
        assert!(
            (f64::from(*found) - exact).abs() <= bound * exact.abs().max(1.0),
            "{what}[{at}]: {found}, not {exact}"
        );
    }
}

const SHAPES: [[usize; 3]; 7] =
    [[1, 1, 1], [3, 2, 5], [17, 33, 31], [64, 96, 65], [129, 1, 70], [700, 40, 24], [2050, 19, 130]];

fn outer<E: Scalar>(name: &str) {
    for shape @ [tokens, outputs, inputs] in SHAPES {
        let (left, right) = (values::<E>(1, tokens * outputs), values::<E>(2, tokens * inputs));
        let before = values::<f32>(3, outputs * inputs);
        let expected = exact(&left, &right, shape, &before);
        let mut sum = before.clone();
        E::add_outer(Operand::new(&left, tokens, outputs), Operand::new(&right, tokens, inputs), &mut sum);
        assert_close(&format!("{name} {shape:?}"), &sum, &expected, tokens);
        let mut sum = before;
        add_outer_widened(1.0, (&left, outputs), (&right, inputs), &mut sum);
        assert_close(&format!("{name} widened {shape:?}"), &sum, &expected, tokens);
    }
}

#[test]
fn outer_products_add_to_what_is_there_with_f32_accuracy_from_f32_and_from_bf16() {
    outer::<f32>("f32");
    outer::<bf16>("bf16");
}

fn bits_with<E: Scalar>(threads: usize, [tokens, outputs, inputs]: [usize; 3]) -> Vec<u32> {
    let (left, right) = (values::<E>(1, tokens * outputs), values::<E>(2, tokens * inputs));
    let mut sum = values::<f32>(3, outputs * inputs);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
        E::add_outer(Operand::new(&left, tokens, outputs), Operand::new(&right, tokens, inputs), &mut sum);
    });
    sum.iter().map(|x| x.to_bits()).collect()
}

/// The driver's orientation and strides, with the widening kernel where the machine has no bf16 dot product.
#[cfg(target_arch = "x86_64")]
#[test]
fn bf16_products_with_an_f32_result_have_f32_accuracy_and_the_same_bits_for_one_and_two_threads() {
    use super::x86::{add_outer, drive, has_dot_product};
    use gemmkit::{kernel::MixedGemmF32, simd::Fma};
    let has_fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    for shape @ [tokens, outputs, inputs] in SHAPES.into_iter().chain([[512, 300, 576]]) {
        let (left, right) = (values::<bf16>(1, tokens * outputs), values::<bf16>(2, tokens * inputs));
        let before = values::<f32>(3, outputs * inputs);
        let expected = exact(&left, &right, shape, &before);
        for dot in [true, false].into_iter().filter(|dot| if *dot { has_dot_product() } else { has_fma }) {
            let run = |threads| {
                let mut sum = before.clone();
                let (left, right) = (Operand::new(&left, tokens, outputs), Operand::new(&right, tokens, inputs));
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| match dot {
                    true => add_outer(left, right, &mut sum),
                    // SAFETY: the instructions were found, the sizes are those of the shape.
                    false => unsafe { drive::<MixedGemmF32<bf16>, Fma, 2, 6>(Fma, left, right, &mut sum) },
                });
                sum
            };
            let (one, two) = (run(1), run(2));
            assert_close(&format!("dot {dot} {shape:?}"), &one, &expected, tokens);
            assert!(one.iter().zip(&two).all(|(a, b)| a.to_bits() == b.to_bits()), "dot {dot} {shape:?}");
        }
    }
}

#[test]
fn outer_products_have_the_same_bits_for_one_two_and_five_threads() {
    for shape in SHAPES.into_iter().chain([[512, 576, 576]]) {
        for threads in [2, 5] {
            assert_eq!(bits_with::<f32>(1, shape), bits_with::<f32>(threads, shape), "f32 {shape:?}");
            assert_eq!(bits_with::<bf16>(1, shape), bits_with::<bf16>(threads, shape), "bf16 {shape:?}");
        }
    }
}

#[test]
fn an_outer_product_of_no_tokens_adds_nothing() {
    let mut sum = vec![1.5f32; 6];
    bf16::add_outer(Operand::new(&[], 0, 2), Operand::new(&[], 0, 3), &mut sum);
    assert_eq!(sum, [1.5; 6]);
}
