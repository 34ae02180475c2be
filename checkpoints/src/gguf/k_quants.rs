//! Encodes the super-blocks of 256 numbers: Q4_K, Q5_K, Q6_K.
//!
//! In:    256 finite numbers.
//! Out:   one super-block.
//! Never: uses an importance matrix: without training text at hand there is none.
//!
//! The searches for scales are `make_qkx2_quants` and `make_qx_quants` of ggml's `ggml-quants.c`: twenty-odd scales are tried, each is
//! refined by weighted least squares, the one with the smallest error stays.

use half::f16;

use super::blocks::scale_and_minimum;
use super::encode::put_half;

/// Largest magnitude that counts as zero.
const EPSILON: f32 = 1e-15;
/// Numbers in a sub-block of Q4_K and Q5_K.
const SUB: usize = 32;
/// Numbers in a sub-block of Q6_K.
const SMALL: usize = 16;

/// How wide the search goes: `(first + step * 0.1 + highest)` levels over the range, for `steps + 1` steps.
struct Search {
    highest: u8,
    first: f32,
    steps: usize,
}

pub(super) fn q4_k(values: &[f32], out: &mut [u8]) {
    let quants = scaled_with_minimum(values, &Search { highest: 15, first: -1.0, steps: 20 }, &mut out[..16]);
    put_low_bits(&quants, &mut out[16..]);
}

pub(super) fn q5_k(values: &[f32], out: &mut [u8]) {
    let quants = scaled_with_minimum(values, &Search { highest: 31, first: -0.5, steps: 15 }, &mut out[..16]);
    let (high, low) = out[16..].split_at_mut(32);
    high.fill(0);
    for (sub, quants) in quants.chunks_exact(SUB).enumerate() {
        for (high, quant) in high.iter_mut().zip(quants) {
            *high |= (quant >> 4) << sub;
        }
    }
    put_low_bits(&quants, low);
}

/// Low nibbles of 64 numbers at a time: the first 32 below the other 32.
fn put_low_bits(quants: &[u8; 256], out: &mut [u8]) {
    for (quants, out) in quants.chunks_exact(2 * SUB).zip(out.chunks_exact_mut(SUB)) {
        let (first, second) = quants.split_at(SUB);
        for ((out, first), second) in out.iter_mut().zip(first).zip(second) {
            *out = first & 15 | second << 4;
        }
    }
}

/// Writes the head of Q4_K and Q5_K (two halves, twelve bytes of six-bit scales and minima) and gives the quants.
fn scaled_with_minimum(values: &[f32], search: &Search, head: &mut [u8]) -> [u8; 256] {
    let mut scales = [0.0f32; 8];
    let mut minima = [0.0f32; 8];
    for (index, sub) in values.chunks_exact(SUB).enumerate() {
        (scales[index], minima[index]) = best_scale_and_minimum(sub, search);
    }
    let largest = |list: &[f32; 8]| list.iter().copied().fold(0.0f32, f32::max);
    let (scale, minimum) = (largest(&scales), largest(&minima));
    let six_bits = |value: f32, largest: f32| {
        let inverse = if largest > 0.0 { 63.0 / largest } else { 0.0 };
        nearest(inverse * value).clamp(0, 63) as u8
    };
    put_half(head, 0, scale / 63.0);
    put_half(head, 2, minimum / 63.0);
    let packed = &mut head[4..16];
    for index in 0..8 {
        pack(packed, index, six_bits(scales[index], scale), six_bits(minima[index], minimum));
    }
    let (d, d_minimum) = (f16::from_f32(scale / 63.0).to_f32(), f16::from_f32(minimum / 63.0).to_f32());
    let mut quants = [0u8; 256];
    for (index, (quants, sub)) in quants.chunks_exact_mut(SUB).zip(values.chunks_exact(SUB)).enumerate() {
        let (six, six_minimum) = scale_and_minimum(packed, index);
        let (scale, minimum) = (d * six, d_minimum * six_minimum);
        if scale != 0.0 {
            for (quant, value) in quants.iter_mut().zip(sub) {
                *quant = nearest((value + minimum) / scale).clamp(0, i32::from(search.highest)) as u8;
            }
        }
    }
    quants
}

/// The inverse of [`scale_and_minimum`]; called for index 0 to 7 in order.
fn pack(packed: &mut [u8], index: usize, scale: u8, minimum: u8) {
    match index {
        0..4 => {
            packed[index] = scale;
            packed[index + 4] = minimum;
        }
        _ => {
            packed[index + 4] = scale & 15 | (minimum & 15) << 4;
            packed[index - 4] |= (scale >> 4) << 6;
            packed[index] |= (minimum >> 4) << 6;
        }
    }
}

/// `make_qkx2_quants`: scale and minimum (how far the range goes below zero) such that `scale * q - minimum` is near the values, large
/// values counting more.
fn best_scale_and_minimum(values: &[f32], search: &Search) -> (f32, f32) {
    let mean_square = values.iter().map(|value| value * value).sum::<f32>() / SUB as f32;
    let average = mean_square.sqrt();
    let mut weights = [0.0f32; SUB];
    for (weight, value) in weights.iter_mut().zip(values) {
        *weight = average + value.abs();
    }
    let low = values.iter().copied().fold(f32::INFINITY, f32::min).min(0.0);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // All equal and not positive: the minimum alone says it.
    if high <= low {
        return (0.0, -low);
    }
    let highest = f32::from(search.highest);
    let sum_weight: f32 = weights.iter().sum();
    let sum_value: f32 = weights.iter().zip(values).map(|(weight, value)| weight * value).sum();
    // As in ggml, each step starts from the best minimum so far.
    let quants = |levels: f32, minimum: f32| {
        let inverse = levels / (high - minimum);
        let mut quants = [0.0f32; SUB];
        for (quant, value) in quants.iter_mut().zip(values) {
            *quant = nearest(inverse * (value - minimum)).clamp(0, i32::from(search.highest)) as f32;
        }
        quants
    };
    let error = |quants: &[f32; SUB], scale: f32, minimum: f32| {
        let each = quants.iter().zip(values).zip(&weights);
        each.map(|((quant, value), weight)| weight * (scale * quant + minimum - value).powi(2)).sum::<f32>()
    };
    let (mut scale, mut minimum) = ((high - low) / highest, low);
    let mut best = error(&quants(highest, minimum), scale, minimum);
    for step in 0..=search.steps {
        let quants = quants(search.first + 0.1 * step as f32 + highest, minimum);
        let (mut sum_quant, mut sum_square, mut sum_product) = (0.0f32, 0.0f32, 0.0f32);
        for ((quant, value), weight) in quants.iter().zip(values).zip(&weights) {
            sum_quant += weight * quant;
            sum_square += weight * quant * quant;
            sum_product += weight * quant * value;
        }
        let determinant = sum_weight * sum_square - sum_quant * sum_quant;
        if determinant <= 0.0 {
            continue;
        }
        let mut this_scale = (sum_weight * sum_product - sum_value * sum_quant) / determinant;
        let mut this_minimum = (sum_square * sum_value - sum_quant * sum_product) / determinant;
        if this_minimum > 0.0 {
            this_minimum = 0.0;
            this_scale = sum_product / sum_square;
        }
        let this = error(&quants, this_scale, this_minimum);
        if this < best {
            (best, scale, minimum) = (this, this_scale, this_minimum);
        }
    }
    (scale, -minimum)
}

pub(super) fn q6_k(values: &[f32], out: &mut [u8]) {
    let mut scales = [0.0f32; 16];
    let mut extreme = 0.0f32;
    for (scale, sub) in scales.iter_mut().zip(values.chunks_exact(SMALL)) {
        *scale = best_scale(sub);
        if scale.abs() > extreme.abs() {
            extreme = *scale;
        }
    }
    if extreme.abs() < EPSILON {
        out.fill(0);
        return;
    }
    let inverse = -128.0 / extreme;
    put_half(out, 208, 1.0 / inverse);
    let d = f16::from_f32(1.0 / inverse).to_f32();
    let mut quants = [0u8; 256];
    for (index, (quants, sub)) in quants.chunks_exact_mut(SMALL).zip(values.chunks_exact(SMALL)).enumerate() {
        let eight_bits = nearest(inverse * scales[index]).clamp(-128, 127) as i8;
        out[192 + index] = eight_bits as u8;
        let scale = d * f32::from(eight_bits);
        for (quant, value) in quants.iter_mut().zip(sub) {
            // A scale of zero stands for zeros whatever the quant is.
            let near = if scale == 0.0 { 0 } else { nearest(value / scale).clamp(-32, 31) };
            *quant = (near + 32) as u8;
        }
    }
    let (low, rest) = out.split_at_mut(128);
    let halves = quants.chunks_exact(128).zip(low.chunks_exact_mut(64)).zip(rest[..64].chunks_exact_mut(32));
    for ((quants, low), high) in halves {
        for column in 0..32 {
            let quarter: [u8; 4] = std::array::from_fn(|quarter| quants[quarter * 32 + column]);
            low[column] = quarter[0] & 15 | quarter[2] << 4;
            low[column + 32] = quarter[1] & 15 | quarter[3] << 4;
            high[column] = quarter[0] >> 4 | (quarter[1] >> 4) << 2 | (quarter[2] >> 4) << 4 | (quarter[3] >> 4) << 6;
        }
    }
}

/// `make_qx_quants` with squares as weights: the scale whose multiples from -32 to 31 are nearest to the values.
fn best_scale(values: &[f32]) -> f32 {
    let mut extreme = 0.0f32;
    for &value in values {
        if value.abs() > extreme.abs() {
            extreme = value;
        }
    }
    if extreme.abs() < EPSILON {
        return 0.0;
    }
    let sums = |inverse: f32| {
        let (mut product, mut square) = (0.0f32, 0.0f32);
        for &value in values {
            let (quant, weight) = (nearest(inverse * value).clamp(-32, 31) as f32, value * value);
            product += weight * value * quant;
            square += weight * quant * quant;
        }
        (product, square)
    };
    let (product, square) = sums(-32.0 / extreme);
    let mut scale = if square > 0.0 { product / square } else { 0.0 };
    let mut best = scale * product;
    for step in (-9i8..=9).filter(|&step| step != 0) {
        let (product, square) = sums(-(32.0 + 0.1 * f32::from(step)) / extreme);
        if square > 0.0 && product * product > best * square {
            scale = product / square;
            best = scale * product;
        }
    }
    scale
}

/// The nearest whole number, halves to even: adding 1.5 * 2^23 leaves it in the low bits. Callers stay below 2^22, or clamp what
/// comes out.
fn nearest(value: f32) -> i32 {
    let shifted = value.clamp(-4_194_303.0, 4_194_303.0) + 12_582_912.0;
    (shifted.to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}
