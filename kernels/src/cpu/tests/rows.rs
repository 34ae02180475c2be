//! Kernels with a row structure: normalisation, rotation, cross-entropy, tile products.

use half::bf16;

use super::super::tile::{Extents, Left, Output, Right, multiply, padded};
use super::super::*;
use super::{Source, assert_close, exact, tolerance, with_threads};

fn norm_equals_its_twin<E: Element>(tokens: usize, width: usize) {
    let mut source = Source(77 + width as u64);
    let (x, dy) = (source.values::<E>(tokens * width), source.values::<E>(tokens * width));
    let weight = source.values::<f32>(width);
    let (mut y, mut dx, mut rstd) = (x.clone(), x.clone(), vec![0.0; tokens]);
    let mut dweight = vec![0.0f32; width];
    rms_norm_forward(&x, &weight, 1e-5, &mut y, &mut rstd);
    rms_norm_backward(&x, &weight, &rstd, &dy, &mut dx);
    rms_norm_weight_gradient(&x, &rstd, &dy, &mut dweight);
    let (x, dy, w) = (exact(&x), exact(&dy), exact(&weight));
    let n = width as f64;
    let (mut y_twin, mut dx_twin, mut dw_twin) = (vec![], vec![], vec![0.0; width]);
    for (x, dy) in x.chunks(width).zip(dy.chunks(width)) {
        let r = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / n + f64::from(1e-5f32)).sqrt();
        let inner = (0..width).map(|i| w[i] * dy[i] * x[i]).sum::<f64>() / n;
        y_twin.extend((0..width).map(|i| x[i] * r * w[i]));
        dx_twin.extend((0..width).map(|i| r * (w[i] * dy[i] - x[i] * r * r * inner)));
        (0..width).for_each(|i| dw_twin[i] += dy[i] * x[i] * r);
    }
    assert_close("y", &y, &y_twin, tolerance::<E>());
    assert_close("dx", &dx, &dx_twin, tolerance::<E>());
    assert_close("dweight", &dweight, &dw_twin, 4e-6);
}

#[test]
fn rms_norm_and_its_gradients_equal_their_twins() {
    for (tokens, width) in [(1, 1), (5, 31), (3, 64), (200, 577)] {
        norm_equals_its_twin::<f32>(tokens, width);
        norm_equals_its_twin::<bf16>(tokens, width);
    }
}

#[test]
fn rotation_equals_its_twin_and_the_inverse_undoes_it() {
    for (tokens, heads, head_dim) in [(1, 1, 2), (7, 3, 10), (130, 9, 64)] {
        let mut source = Source(5 + tokens as u64);
        let x = source.values::<f32>(tokens * heads * head_dim);
        let half = head_dim / 2;
        let angles = source.values::<f32>(tokens * half);
        let (cos, sin): (Vec<_>, Vec<_>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
        let table = RotaryTable { cos_tr: &cos, sin_tr: &sin, head_dim };
        let (mut y, mut back) = (x.clone(), x.clone());
        rotate(&x, &table, Rotation::Forward, &mut y);
        rotate(&y, &table, Rotation::Inverse, &mut back);
        let mut twin = exact(&x);
        for (row, pair) in (0..tokens * heads).flat_map(|row| (0..half).map(move |i| (row, i))) {
            let (c, s) = (f64::from(cos[row / heads * half + pair]), f64::from(sin[row / heads * half + pair]));
            let (a, b) = (f64::from(x[row * head_dim + pair]), f64::from(x[row * head_dim + pair + half]));
            twin[row * head_dim + pair] = a * c - b * s;
            twin[row * head_dim + pair + half] = b * c + a * s;
        }
        assert_close("rotated", &y, &twin, 1e-6);
        assert_close("rotated back", &back, &exact(&x), 1e-6);
    }
}

#[test]
fn cross_entropy_and_its_gradient_equal_their_twins_and_ignored_rows_are_zero() {
    for (rows, vocabulary) in [(1, 1), (4, 33), (9, 5003)] {
        let mut source = Source(11 + vocabulary as u64);
        let logits: Vec<f32> = source.values::<f32>(rows * vocabulary).iter().map(|x| x * 20.0).collect();
        let mut targets: Vec<u32> = (0..rows).map(|_| source.below(vocabulary) as u32).collect();
        targets[rows / 2] = if rows > 1 { IGNORED_TARGET } else { 0 };
        let (mut gradient, mut losses, mut alone) = (logits.clone(), vec![1.0; rows], vec![1.0; rows]);
        softmax_cross_entropy_rows(&mut gradient, vocabulary, &targets, 0.25, &mut losses);
        cross_entropy_rows(&logits, vocabulary, &targets, &mut alone);
        assert_eq!(losses, alone, "both forms give the same loss");
        let (mut loss_twin, mut gradient_twin) = (vec![], vec![]);
        for (row, &target) in exact(&logits).chunks(vocabulary).zip(&targets) {
            let max = row.iter().fold(f64::MIN, |a, b| a.max(*b));
            let lse = max + row.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
            let counts = target != IGNORED_TARGET;
            loss_twin.push(if counts { lse - row[target as usize] } else { 0.0 });
            let gradient = |(i, x): (usize, &f64)| (x - lse).exp() - f64::from(i == target as usize);
            gradient_twin.extend(row.iter().enumerate().map(|v| if counts { 0.25 * gradient(v) } else { 0.0 }));
        }
        assert_close("losses", &losses, &loss_twin, 1e-6);
        assert_close("gradient", &gradient, &gradient_twin, 1e-6);
    }
}

#[test]
#[should_panic(expected = "outside the vocabulary")]
fn a_target_outside_the_vocabulary_is_refused() {
    cross_entropy_rows(&[0.0; 4], 4, &[4], &mut [0.0]);
}

#[test]
fn a_nan_logit_gives_a_nan_loss() {
    let mut loss = [0.0];
    cross_entropy_rows(&[0.0, f32::NAN, 1.0], 3, &[0], &mut loss);
    assert!(loss[0].is_nan());
}

#[test]
fn tile_products_equal_their_twin_for_every_remainder_and_both_orientations() {
    let mut source = Source(3);
    for (rows, columns, depth) in [(1, 16, 1), (2, 48, 7), (5, 16, 3), (7, 32, 64), (17, 80, 33), (64, 64, 128)] {
        let a = source.values::<f32>(rows * depth);
        let b = source.values::<f32>(depth * columns);
        let c = source.values::<f32>(rows * columns);
        let mut twin = exact(&c);
        for (r, (d, n)) in (0..rows).flat_map(|r| (0..depth * columns).map(move |i| (r, (i / columns, i % columns)))) {
            twin[r * columns + n] += f64::from(a[r * depth + d]) * f64::from(b[d * columns + n]);
        }
        let flipped: Vec<f32> = (0..rows * depth).map(|i| a[i % rows * depth + i / rows]).collect();
        let (mut straight, mut transposed) = (c.clone(), c);
        let extents = Extents { rows, columns: padded(columns), depth };
        let right = Right { data: &b, stride: columns };
        let left = Left { data: &a, row_stride: depth, depth_stride: 1 };
        multiply(left, right, &mut straight, columns, extents, Output::Accumulate);
        let left = Left { data: &flipped, row_stride: 1, depth_stride: rows };
        multiply(left, right, &mut transposed, columns, extents, Output::Accumulate);
        assert_close("product", &straight, &twin, 2e-6);
        assert_eq!(straight, transposed, "both orientations give the same bits");
    }
}

#[test]
fn row_kernels_are_bitwise_equal_for_one_and_two_threads() {
    let (tokens, width) = (333, 192);
    let mut source = Source(9);
    let (x, dy) = (source.values::<f32>(tokens * width), source.values::<f32>(tokens * width));
    let weight = source.values::<f32>(width);
    let targets: Vec<u32> = (0..tokens).map(|_| source.below(width) as u32).collect();
    let run = |threads| {
        with_threads(threads, || {
            let (mut y, mut dx, mut rstd) = (x.clone(), x.clone(), vec![0.0; tokens]);
            let (mut dweight, mut losses, mut logits) = (vec![0.0f32; width], vec![0.0; tokens], x.clone());
            rms_norm_forward(&x, &weight, 1e-6, &mut y, &mut rstd);
            rms_norm_backward(&x, &weight, &rstd, &dy, &mut dx);
            rms_norm_weight_gradient(&x, &rstd, &dy, &mut dweight);
            softmax_cross_entropy_rows(&mut logits, width, &targets, 1.0, &mut losses);
            [y, dx, rstd, dweight, losses, logits]
        })
    };
    assert_eq!(run(1), run(2));
}
