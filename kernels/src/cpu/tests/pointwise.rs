//! Kernels that treat every element alone, and the functions and conversions under them.

use half::bf16;

use super::super::math::{exp, sigmoid_and_complement};
use super::super::*;
use super::{Source, assert_close, exact, tolerance, with_threads};

#[test]
fn exp_is_within_two_units_in_the_last_place_and_right_at_the_ends() {
    let mut worst = 0.0f64;
    for step in -87_000..88_000 {
        let x = step as f32 * 1e-3 + 1.7e-4;
        let truth = f64::from(x).exp();
        let unit = f64::from(f32::from_bits((truth as f32).to_bits() + 1)) - f64::from(truth as f32);
        worst = worst.max((f64::from(exp(x)) - truth).abs() / unit);
    }
    assert!(worst < 2.0, "{worst} units");
    assert_eq!((exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY), exp(-1e30)), (1.0, 0.0, 0.0, 0.0));
    assert_eq!((exp(89.0), exp(f32::INFINITY)), (f32::INFINITY, f32::INFINITY));
    assert!(exp(f32::NAN).is_nan() && sigmoid_and_complement(f32::NAN).0.is_nan());
}

#[test]
fn bf16_conversion_equals_that_of_the_half_crate() {
    let mut source = Source(21);
    let mut bits: Vec<u32> = (0..200_000).map(|_| source.below(1 << 31) as u32 * 2 + source.below(2) as u32).collect();
    bits.extend([0x7f80_0000, 0xff80_0000, 0x7f7f_ffff, 0x3f80_8000, 0x3f81_8000, 0x7f80_0001, 1]);
    let wide: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b)).collect();
    let mut narrowed = vec![bf16::ZERO; wide.len()];
    narrow(&wide, &mut narrowed);
    let mut widened = vec![0.0f32; wide.len()];
    widen(&narrowed, &mut widened);
    for ((x, n), w) in wide.iter().zip(&narrowed).zip(&widened) {
        assert_eq!(n.to_bits(), bf16::from_f32(*x).to_bits(), "{x}");
        assert_eq!(w.to_bits(), (u32::from(n.to_bits())) << 16);
    }
}

/// Activation and derivative, from the definition.
fn activation(kind: Gate, x: f64) -> (f64, f64) {
    match kind {
        Gate::Silu => {
            let s = 1.0 / (1.0 + (-x).exp());
            (x * s, s + x * s * (1.0 - s))
        }
        Gate::GeluTanh => {
            let c = (2.0 / std::f64::consts::PI).sqrt();
            let t = (c * (x + 0.044715 * x * x * x)).tanh();
            (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * c * (1.0 + 3.0 * 0.044715 * x * x))
        }
    }
}

fn gate_equals_its_twin<E: Element>(kind: Gate) {
    let mut source = Source(31);
    let wide = source.values::<f32>(40_001);
    let gate: Vec<E> = wide.iter().map(|x| E::from_f32(x * 6.0)).collect();
    let (up, dy) = (source.values::<E>(gate.len()), source.values::<E>(gate.len()));
    let (mut y, mut dgate, mut dup) = (up.clone(), up.clone(), up.clone());
    let inputs = GatedInputs { gate: &gate, up: &up };
    gated_forward(inputs, kind, &mut y);
    gated_backward(inputs, &dy, kind, &mut dgate, &mut dup);
    let (g, u, d) = (exact(&gate), exact(&up), exact(&dy));
    let twin = |f: &dyn Fn(usize) -> f64| (0..g.len()).map(f).collect::<Vec<_>>();
    assert_close("y", &y, &twin(&|i| activation(kind, g[i]).0 * u[i]), tolerance::<E>());
    assert_close("dgate", &dgate, &twin(&|i| d[i] * u[i] * activation(kind, g[i]).1), tolerance::<E>());
    assert_close("dup", &dup, &twin(&|i| d[i] * activation(kind, g[i]).0), tolerance::<E>());
}

#[test]
fn gated_activations_and_their_gradients_equal_their_twins() {
    for kind in [Gate::Silu, Gate::GeluTanh] {
        gate_equals_its_twin::<f32>(kind);
        gate_equals_its_twin::<bf16>(kind);
    }
}

#[test]
fn gated_activations_stay_finite_for_huge_gates() {
    let gate = [1e30f32, -1e30, 3e38, -3e38, 100.0, -100.0, 0.0];
    let (up, mut y) = ([1.0f32; 7], [0.0f32; 7]);
    let (mut dgate, mut dup) = (y, y);
    for kind in [Gate::Silu, Gate::GeluTanh] {
        gated_forward(GatedInputs { gate: &gate, up: &up }, kind, &mut y);
        gated_backward(GatedInputs { gate: &gate, up: &up }, &up, kind, &mut dgate, &mut dup);
        assert!(y.iter().chain(&dgate).chain(&dup).all(|x| x.is_finite()), "{kind:?} {y:?} {dgate:?}");
    }
}

fn mask(probability: f32, seed: u64, stream: u64, count: usize) -> Vec<f32> {
    let mut y = vec![0.0f32; count];
    Dropout { probability, seed, stream }.apply(&vec![1.0f32; count], &mut y);
    y
}

#[test]
fn dropout_keeps_the_right_share_scaled_and_streams_are_independent() {
    let count = 1_000_001;
    for probability in [0.0f32, 0.1, 0.5, 0.9] {
        let y = mask(probability, 42, 7, count);
        let factor = 1.0 / (1.0 - probability);
        assert!(y.iter().all(|&x| x == 0.0 || x == factor));
        let kept = y.iter().filter(|&&x| x != 0.0).count() as f64 / count as f64;
        let deviation = (f64::from(probability) * (1.0 - f64::from(probability)) / count as f64).sqrt();
        assert!((kept - 1.0 + f64::from(probability)).abs() <= 5.0 * deviation, "{kept} kept at {probability}");
    }
    let reference = mask(0.5, 42, 7, count);
    for (seed, stream) in [(42, 8), (43, 7), (7, 42), (42, 6)] {
        let other = mask(0.5, seed, stream, count);
        let equal = reference.iter().zip(&other).filter(|(a, b)| a == b).count() as f64 / count as f64;
        assert!((equal - 0.5).abs() < 0.0025, "{equal} equal for {seed} {stream}");
    }
    for lag in [1, 2, 3, 64, 576] {
        let equal = reference.iter().zip(&reference[lag..]).filter(|(a, b)| a == b).count() as f64 / count as f64;
        assert!((equal - 0.5).abs() < 0.0025, "{equal} equal at lag {lag}");
    }
}

#[test]
fn a_shorter_dropout_draws_the_same_mask() {
    assert_eq!(mask(0.3, 1, 2, 40_003)[..33_333], mask(0.3, 1, 2, 33_333));
}

#[test]
fn sums_and_multiples_round_once() {
    let mut source = Source(55);
    let (a, b) = (source.values::<bf16>(30_001), source.values::<bf16>(30_001));
    let mut sum = a.clone();
    add_in_place(&mut sum, &b);
    let mut scaled = a.clone();
    scale_in_place(&mut scaled, 0.3);
    for i in 0..a.len() {
        assert_eq!(sum[i], bf16::from_f32(a[i].to_f32() + b[i].to_f32()));
        assert_eq!(scaled[i], bf16::from_f32(a[i].to_f32() * 0.3));
    }
}

#[test]
fn pointwise_kernels_are_bitwise_equal_for_one_and_two_threads() {
    let mut source = Source(91);
    let (gate, up) = (source.values::<f32>(70_001), source.values::<f32>(70_001));
    let run = |threads| {
        with_threads(threads, || {
            let (mut y, mut dropped) = (gate.clone(), gate.clone());
            gated_forward(GatedInputs { gate: &gate, up: &up }, Gate::Silu, &mut y);
            Dropout { probability: 0.2, seed: 3, stream: 4 }.apply(&gate, &mut dropped);
            [y, dropped]
        })
    };
    assert_eq!(run(1), run(2));
}
