//! Attention, forward and backward.

use half::bf16;

use super::super::*;
use super::{Source, assert_close, assert_within, exact, tolerance, with_threads};

struct Case {
    shape: AttentionShape,
    segments: Vec<u32>,
}

fn case(heads: (usize, usize), head_dim: usize, window: Option<usize>, lengths: &[u32]) -> Case {
    let mut segments = vec![0];
    segments.extend(lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end)
    }));
    let scale = 1.0 / (head_dim as f32).sqrt();
    Case { shape: AttentionShape { n_heads: heads.0, n_kv_heads: heads.1, head_dim, scale, window }, segments }
}

fn cases() -> Vec<Case> {
    vec![
        case((1, 1), 16, None, &[1]),
        case((3, 1), 32, None, &[1, 1, 5, 1]),
        case((2, 2), 64, None, &[131]),
        case((6, 2), 80, None, &[70, 200, 3]),
        case((4, 1), 128, Some(1), &[140]),
        case((2, 1), 256, Some(67), &[150, 9]),
        case((3, 3), 16, Some(130), &[300]),
        case((2, 1), 24, Some(1000), &[0, 257, 0, 64]),
    ]
}

struct Data<E> {
    q: Vec<E>,
    k: Vec<E>,
    v: Vec<E>,
    dout: Vec<E>,
}

fn data<E: Element>(case: &Case) -> Data<E> {
    let tokens = *case.segments.last().unwrap() as usize;
    let (n_query, n_key) =
        (tokens * case.shape.n_heads * case.shape.head_dim, tokens * case.shape.n_kv_heads * case.shape.head_dim);
    let mut source = Source(0x1234_5678_9abc_def1 + n_query as u64);
    let [q, k, v, dout] = [n_query, n_key, n_key, n_query].map(|n| source.values(n));
    Data { q, k, v, dout }
}

struct Results<E> {
    out: Vec<E>,
    lse: Vec<f32>,
    dq: Vec<E>,
    dk: Vec<E>,
    dv: Vec<E>,
}

fn compute<E: Element>(case: &Case, data: &Data<E>) -> Results<E> {
    let inputs = AttentionInputs { q_thd: &data.q, k_tgd: &data.k, v_tgd: &data.v, segments: &case.segments };
    let tokens = *case.segments.last().unwrap() as usize;
    let junk = |n: usize| vec![E::from_f32(7.0); n];
    let mut r = Results {
        out: junk(data.q.len()),
        lse: vec![7.0; tokens * case.shape.n_heads],
        dq: junk(data.q.len()),
        dk: junk(data.k.len()),
        dv: junk(data.k.len()),
    };
    attention_forward(&inputs, &case.shape, &mut r.out, &mut r.lse);
    let outputs = AttentionOutputs { out_thd: &r.out, lse_ht: &r.lse, dout_thd: &data.dout };
    let gradients = AttentionGradients { dq_thd: &mut r.dq, dk_tgd: &mut r.dk, dv_tgd: &mut r.dv };
    attention_backward(&inputs, &outputs, &case.shape, gradients);
    r
}

/// The textbook formulas, row by row, in `f64`: output, log-sum-exp and the three gradients.
fn twin<E: Element>(case: &Case, data: &Data<E>) -> [Vec<f64>; 5] {
    let (q, k, v, dout) = (exact(&data.q), exact(&data.k), exact(&data.v), exact(&data.dout));
    let AttentionShape { n_heads, n_kv_heads, head_dim: d, scale, window } = case.shape;
    let tokens = *case.segments.last().unwrap() as usize;
    let [mut out, mut dq] = [(); 2].map(|()| vec![0.0; q.len()]);
    let [mut dk, mut dv] = [(); 2].map(|()| vec![0.0; k.len()]);
    let mut lse = vec![0.0; tokens * n_heads];
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for bounds in case.segments.windows(2) {
        for i in bounds[0] as usize..bounds[1] as usize {
            let first = (i + 1).saturating_sub(window.unwrap_or(usize::MAX)).max(bounds[0] as usize);
            for h in 0..n_heads {
                let row = (i * n_heads + h) * d;
                let at = |j: usize| (j * n_kv_heads + h / (n_heads / n_kv_heads)) * d;
                let scores: Vec<f64> =
                    (first..=i).map(|j| dot(&q[row..row + d], &k[at(j)..at(j) + d]) * f64::from(scale)).collect();
                let max = scores.iter().fold(f64::MIN, |a, b| a.max(*b));
                let l = max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
                lse[h * tokens + i] = l;
                let weights: Vec<f64> = scores.iter().map(|s| (s - l).exp()).collect();
                for (j, w) in (first..=i).zip(&weights) {
                    (0..d).for_each(|c| out[row + c] += w * v[at(j) + c]);
                }
                let delta = dot(&out[row..row + d], &dout[row..row + d]);
                for (j, w) in (first..=i).zip(&weights) {
                    let ds = w * (dot(&dout[row..row + d], &v[at(j)..at(j) + d]) - delta) * f64::from(scale);
                    for c in 0..d {
                        dv[at(j) + c] += w * dout[row + c];
                        dk[at(j) + c] += ds * q[row + c];
                        dq[row + c] += ds * k[at(j) + c];
                    }
                }
            }
        }
    }
    [out, lse, dq, dk, dv]
}

fn compare<E: Element>() {
    for case in cases() {
        let data = data::<E>(&case);
        let found = compute(&case, &data);
        let [out, lse, dq, dk, dv] = twin(&case, &data);
        let name = format!("{:?} {:?}", case.shape, case.segments);
        let tolerance = tolerance::<E>() * 2.0;
        assert_close(&format!("out {name}"), &found.out, &out, tolerance);
        assert_close(&format!("lse {name}"), &found.lse, &lse, 2e-6);
        // Gradients of scores are differences of numbers of the size of `dout . v`, so a true 0 may come out as their noise.
        let size = |x: &[f64]| x.iter().fold(1.0f64, |a, b| a.max(b.abs()));
        assert_within(&format!("dq {name}"), &found.dq, &dq, tolerance * size(&dq));
        assert_within(&format!("dk {name}"), &found.dk, &dk, tolerance * size(&dk));
        assert_within(&format!("dv {name}"), &found.dv, &dv, tolerance * size(&dv));
    }
}

#[test]
fn attention_and_its_gradients_equal_the_textbook_in_f32() {
    compare::<f32>();
}

#[test]
fn attention_and_its_gradients_equal_the_textbook_in_bf16() {
    compare::<bf16>();
}

#[test]
fn attention_is_bitwise_equal_for_one_two_and_five_threads() {
    for case in cases() {
        let data = data::<f32>(&case);
        let bits = |threads| {
            let r = with_threads(threads, || compute(&case, &data));
            [r.out, r.lse, r.dq, r.dk, r.dv].map(|x| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
        };
        let one = bits(1);
        assert!(one == bits(2) && one == bits(5), "{:?} {:?}", case.shape, case.segments);
    }
}

#[test]
fn attention_of_a_packed_segment_equals_that_segment_alone_bit_for_bit() {
    let packed = case((4, 2), 32, None, &[37, 150]);
    let all = data::<f32>(&packed);
    let alone = case((4, 2), 32, None, &[150]);
    let cut = |x: &[f32], width: usize| x[37 * width..].to_vec();
    let part = Data { q: cut(&all.q, 128), k: cut(&all.k, 64), v: cut(&all.v, 64), dout: cut(&all.dout, 128) };
    let (whole, single) = (compute(&packed, &all), compute(&alone, &part));
    assert_eq!(cut(&whole.out, 128), single.out);
    assert_eq!(cut(&whole.dq, 128), single.dq);
    assert_eq!(cut(&whole.dk, 64), single.dk);
    assert_eq!(cut(&whole.dv, 64), single.dv);
}

#[test]
fn a_nan_in_one_segment_shows_in_it_and_nowhere_else() {
    let case = case((2, 1), 16, None, &[20, 20]);
    let mut data = data::<f32>(&case);
    data.k[0] = f32::NAN;
    let result = compute(&case, &data);
    assert!(result.out[..20 * 32].iter().all(|x| x.is_nan()));
    assert!(result.out[20 * 32..].iter().all(|x| x.is_finite()));
}
