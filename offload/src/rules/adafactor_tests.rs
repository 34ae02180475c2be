//! Adafactor against a plain `f64` loop, and what spans, threads and NaN do to it.

#![allow(clippy::unwrap_used)]
use super::super::Rule;
use super::super::testing::{GROUP, group_values, slots};
use super::*;

const ADAFACTOR: Adafactor = Adafactor { weight_decay: 0.1 };

/// Parameters and factors after `steps` updates in spans of `span` elements.
fn run(steps: u64, span: usize) -> (Vec<f32>, Vec<f32>) {
    let mut p = group_values(1);
    let mut factors = vec![0.0; Rule::Adafactor(ADAFACTOR).factor_elements(&slots()) as usize];
    for number in 1..=steps {
        let g = group_values(100 + number);
        let step = Step { number, learning_rate: 1e-2 / number as f64, gradient_scale: 0.5, seed: 0 };
        let mut pass = AdafactorPass::new(&ADAFACTOR, &slots(), step, &factors);
        let first = |i: usize| (i * span) as u64;
        g.chunks(span).enumerate().for_each(|(i, g)| pass.observe(first(i), g));
        pass.finish_statistics();
        g.chunks(span).enumerate().for_each(|(i, g)| pass.measure(first(i), g));
        pass.finish_measure();
        let spans = p.chunks_mut(span).zip(g.chunks(span)).enumerate();
        spans.for_each(|(i, (p, g))| pass.apply(first(i), p, g, None));
        pass.store_factors(&mut factors);
    }
    (p, factors)
}

/// One tensor in `f64`, straight from the paper: second moment of rows and columns, or of each element.
fn reference(slot: &SlotRange) -> Vec<f64> {
    let (rows, columns) = (slot.rows as usize, slot.columns as usize);
    let of = |seed| -> Vec<f64> {
        group_values(seed)[slot.start as usize..][..slot.len as usize].iter().map(|x| f64::from(*x)).collect()
    };
    let (mut p, mut row, mut column, mut full) =
        (of(1), vec![0.0; rows], vec![0.0; columns], vec![0.0; rows * columns]);
    for t in 1..=5u64 {
        let g: Vec<f64> = of(100 + t).iter().map(|g| g * 0.5).collect();
        let (beta, rate) = (1.0 - (t as f64).powf(-0.8), 1e-2 / t as f64);
        let square = |i: usize| g[i] * g[i] + 1e-30;
        (0..g.len()).for_each(|i| full[i] = beta * full[i] + (1.0 - beta) * square(i));
        for (r, row) in row.iter_mut().enumerate() {
            let mean = (0..columns).map(|c| square(r * columns + c)).sum::<f64>() / columns as f64;
            *row = beta * *row + (1.0 - beta) * mean;
        }
        for (c, column) in column.iter_mut().enumerate() {
            let mean = (0..rows).map(|r| square(r * columns + c)).sum::<f64>() / rows as f64;
            *column = beta * *column + (1.0 - beta) * mean;
        }
        let row_mean = row.iter().sum::<f64>() / rows as f64;
        let second = |i: usize| if rows > 1 { row[i / columns] * column[i % columns] / row_mean } else { full[i] };
        let update: Vec<f64> = (0..g.len()).map(|i| g[i] / second(i).sqrt()).collect();
        let rms = (update.iter().map(|u| u * u).sum::<f64>() / g.len() as f64).sqrt();
        for (p, u) in p.iter_mut().zip(&update) {
            *p -= if slot.decay { rate * 0.1 * *p } else { 0.0 };
            *p -= rate * u / rms.max(1.0);
        }
    }
    p
}

#[test]
fn five_updates_of_matrices_and_vectors_equal_the_same_updates_in_f64() {
    let (found, _) = run(5, GROUP);
    for slot in slots() {
        for (i, expected) in reference(&slot).iter().enumerate() {
            let found = f64::from(found[slot.start as usize + i]);
            assert!((found - expected).abs() < 1e-6, "{slot:?} {i}: {found} instead of {expected}");
        }
    }
}

#[test]
fn spans_and_threads_change_no_bit_and_padding_stays_zero() {
    let whole = run(3, GROUP);
    for blocks in [1, 7, 64] {
        assert!(run(3, 256 * blocks) == whole, "spans of {blocks} blocks");
    }
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(pool.install(|| run(3, 256 * 64)) == whole, "{threads} threads");
    }
    assert!(whole.0[60 * 300..71 * 256].iter().all(|p| *p == 0.0));
}

#[test]
fn a_nan_gradient_shows_in_its_tensor_only() {
    let slots = slots();
    let mut g = group_values(1);
    g[slots[2].start as usize + 17] = f32::NAN;
    let mut p = group_values(2);
    let step = Step { number: 1, learning_rate: 0.1, gradient_scale: 1.0, seed: 0 };
    let factors = vec![0.0; Rule::Adafactor(ADAFACTOR).factor_elements(&slots) as usize];
    let mut pass = AdafactorPass::new(&ADAFACTOR, &slots, step, &factors);
    pass.observe(0, &g);
    pass.finish_statistics();
    pass.measure(0, &g);
    pass.finish_measure();
    pass.apply(0, &mut p, &g, None);
    let nan = |slot: &SlotRange| p[slot.start as usize..][..slot.len as usize].iter().filter(|p| p.is_nan()).count();
    assert_eq!(nan(&slots[2]) as u64, slots[2].len);
    assert!([0, 1, 3, 4].iter().all(|i| nan(&slots[*i]) == 0));
}
