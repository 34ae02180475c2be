//! Attention and its gradients against loops in f64.

use super::*;
use crate::attention::{Rows, Shape, attention, attention_backward};

/// Bounds of the rows, query heads, key/value heads, head width, window.
type Case = (&'static [u32], usize, usize, usize, Option<usize>);

const CASES: [Case; 9] = [
    (&[0, 1], 1, 1, 2, None),
    (&[0, 5, 6, 19], 4, 2, 16, None),
    (&[0, 70, 201], 9, 3, 64, None),
    (&[0, 40], 4, 1, 32, Some(7)),
    (&[0, 3, 150], 2, 2, 80, Some(1)),
    (&[0, 16, 32, 33, 64], 2, 1, 128, Some(16)),
    (&[0, 37], 1, 1, 6, Some(1000)),
    (&[0, 20, 50], 2, 1, 256, Some(9)),
    (&[0, 9], 3, 3, 24, None),
];

/// Output, log-sum-exp and the three gradients.
struct Loops {
    out: Vec<f64>,
    lse: Vec<f64>,
    gradients: [Vec<f64>; 3],
}

fn loops([q, k, v, dout]: [&[f64]; 4], segments: &[u32], shape: Shape) -> Loops {
    let tokens = *segments.last().unwrap() as usize;
    let Shape { n_heads, n_kv_heads, head_dim, scale, window } = shape;
    let (scale, group) = (f64::from(scale), n_heads / n_kv_heads);
    let mut found = Loops {
        out: vec![0.0; q.len()],
        lse: vec![0.0; n_heads * tokens],
        gradients: [vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; k.len()]],
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for (head, bounds) in (0..n_heads).flat_map(|head| segments.windows(2).map(move |bounds| (head, bounds))) {
        for i in bounds[0] as usize..bounds[1] as usize {
            let first = window.map_or(0, |window| (i + 1).saturating_sub(window)).max(bounds[0] as usize);
            let query = (i * n_heads + head) * head_dim..(i * n_heads + head + 1) * head_dim;
            let key =
                |j: usize| (j * n_kv_heads + head / group) * head_dim..(j * n_kv_heads + head / group + 1) * head_dim;
            let scores: Vec<f64> = (first..=i).map(|j| scale * dot(&q[query.clone()], &k[key(j)])).collect();
            let largest = scores.iter().copied().fold(f64::MIN, f64::max);
            let lse = largest + scores.iter().map(|score| (score - largest).exp()).sum::<f64>().ln();
            found.lse[head * tokens + i] = lse;
            let weights: Vec<f64> = scores.iter().map(|score| (score - lse).exp()).collect();
            let g = &dout[query.clone()];
            for (j, weight) in (first..=i).zip(&weights) {
                for (at, place) in key(j).enumerate() {
                    found.out[query.start + at] += weight * v[place];
                    found.gradients[2][place] += weight * g[at];
                }
            }
            let delta = dot(&found.out[query.clone()], g);
            for (j, weight) in (first..=i).zip(&weights) {
                let product = weight * (dot(g, &v[key(j)]) - delta) * scale;
                for (at, place) in key(j).enumerate() {
                    found.gradients[0][query.start + at] += product * k[place];
                    found.gradients[1][place] += product * q[query.start + at];
                }
            }
        }
    }
    found
}

#[test]
fn attention_over_packed_rows_and_its_gradients_match_loops_in_f64() {
    let Some(client) = client() else { return };
    for number in formats(&client) {
        for (segments, n_heads, n_kv_heads, head_dim, window) in CASES {
            let shape = Shape { n_heads, n_kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt(), window };
            let (tokens, mut random) = (*segments.last().unwrap() as usize, Values(11 + head_dim as u64));
            let [q, dout] = [0, 1].map(|_| random.take(tokens * n_heads * head_dim));
            let [k, v] = [0, 1].map(|_| random.take(tokens * n_kv_heads * head_dim));
            let q: Vec<f32> = q.iter().map(|value| value * 4.0).collect();
            let on_device = [&q, &k, &v, &dout].map(|values| upload(&client, values, number));
            let [dq, dk, dv, ddout] = &on_device;
            let rows = Rows::new(&client, segments);
            let (out, lse) = attention(&client, [dq, dk, dv], &rows, shape, number);
            let gradients = attention_backward(&client, [dq, dk, dv], [&out, &lse, ddout], &rows, shape, number);
            let [q, k, v, dout] = [&q, &k, &v, &dout].map(|values| rounded(values, number));
            let expected = loops([&q, &k, &v, &dout], segments, shape);
            let what = |part: &str| {
                format!("{part} of {segments:?}, {n_heads}/{n_kv_heads} heads of {head_dim}, {window:?}, {number:?}")
            };
            assert_close(&what("output"), &download(&client, &out, number), &expected.out, tolerance(number));
            assert_close(&what("lse"), &download(&client, &lse, Number::F32), &expected.lse, 2e-5);
            for ((name, ours), wanted) in ["dq", "dk", "dv"].iter().zip(&gradients).zip(&expected.gradients) {
                assert_close(&what(name), &download(&client, ours, number), wanted, 2.0 * tolerance(number));
            }
        }
    }
}

#[test]
fn two_calls_give_the_same_bits() {
    let Some(client) = client() else { return };
    let shape = Shape { n_heads: 4, n_kv_heads: 2, head_dim: 64, scale: 0.125, window: None };
    let mut random = Values(5);
    let [q, dout] = [0, 1].map(|_| upload(&client, &random.take(300 * 256), Number::F32));
    let [k, v] = [0, 1].map(|_| upload(&client, &random.take(300 * 128), Number::F32));
    let rows = Rows::new(&client, &[0, 120, 300]);
    let call = || {
        let (out, lse) = attention(&client, [&q, &k, &v], &rows, shape, Number::F32);
        let gradients = attention_backward(&client, [&q, &k, &v], [&out, &lse, &dout], &rows, shape, Number::F32);
        let [dq, dk, dv] = gradients;
        [out, lse, dq, dk, dv].map(|buffer| download(&client, &buffer, Number::F32))
    };
    assert!(call() == call());
}
