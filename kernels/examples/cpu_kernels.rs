//! Measures the CPU kernels: alternating rounds, the best of them, against gemmkit's 512 x 512 x 512 rate in the same run.
//!
//! In:    nothing; rayon's default pool (`RAYON_NUM_THREADS` sets its size).
//! Out:   one line a kernel, in GFLOP/s (attention, counting visible pairs only) or GB/s (bytes read and written once).
//! Never: checks results; the tests do.

use std::time::Instant;

use gemmkit::{MatMut, MatRef, Parallelism, gemm};
use half::bf16;
use kernels::cpu::*;

const ROUNDS: usize = 9;

struct Measurement<'a> {
    name: String,
    unit: &'static str,
    /// Operations or bytes of one run.
    amount: f64,
    best_s: f64,
    run: Box<dyn FnMut() + 'a>,
}

fn measurement<'a>(name: &str, unit: &'static str, amount: f64, run: impl FnMut() + 'a) -> Measurement<'a> {
    Measurement { name: name.to_string(), unit, amount, best_s: f64::MAX, run: Box::new(run) }
}

fn values<E: Element>(count: usize) -> Vec<E> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        E::from_f32((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
    };
    (0..count).map(next).collect()
}

fn matrix_products(all: &mut Vec<Measurement<'_>>) {
    for (name, parallelism) in
        [("gemmkit 512^3, all threads", Parallelism::Rayon(0)), ("gemmkit 512^3, one thread", Parallelism::Serial)]
    {
        let (n, a, b) = (512, values::<f32>(512 * 512), values::<f32>(512 * 512));
        let mut c = vec![0.0f32; n * n];
        all.push(measurement(name, "GFLOP/s", 2.0 * (n * n * n) as f64, move || {
            let (a, b) = (MatRef::from_row_major(&a, n, n), MatRef::from_row_major(&b, n, n));
            gemm(1.0, a, b, 0.0, MatMut::from_row_major(&mut c, n, n), parallelism);
        }));
    }
}

fn attention<E: Element>(
    dtype: &str,
    lengths: &[usize],
    heads: (usize, usize),
    head_dim: usize,
    all: &mut Vec<Measurement<'_>>,
) {
    let shape = AttentionShape {
        n_heads: heads.0,
        n_kv_heads: heads.1,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        window: None,
    };
    let mut segments = vec![0u32];
    for length in lengths {
        segments.push(segments[segments.len() - 1] + *length as u32);
    }
    let tokens: usize = lengths.iter().sum();
    let (n_query, n_key) = (tokens * heads.0 * head_dim, tokens * heads.1 * head_dim);
    let pairs: f64 = lengths.iter().map(|&l| l as f64 * (l as f64 + 1.0) / 2.0).sum();
    let product = 2.0 * pairs * (heads.0 * head_dim) as f64;
    let name = format!("{dtype} {} x {}, heads {}/{} x {head_dim}", lengths.len(), lengths[0], heads.0, heads.1);
    let (q, k, v, dout) = (values::<E>(n_query), values::<E>(n_key), values::<E>(n_key), values::<E>(n_query));
    let (mut out, mut lse) = (q.clone(), vec![0.0; tokens * heads.0]);
    let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), k.clone());
    {
        let (q, k, v, segments) = (q.clone(), k.clone(), v.clone(), segments.clone());
        let (mut out, mut lse) = (out.clone(), lse.clone());
        all.push(measurement(&format!("attention forward {name}"), "GFLOP/s", 2.0 * product, move || {
            let inputs = AttentionInputs { q_thd: &q, k_tgd: &k, v_tgd: &v, segments: &segments };
            attention_forward(&inputs, &shape, &mut out, &mut lse);
        }));
    }
    all.push(measurement(&format!("attention fwd+bwd {name}"), "GFLOP/s", 7.0 * product, move || {
        let inputs = AttentionInputs { q_thd: &q, k_tgd: &k, v_tgd: &v, segments: &segments };
        attention_forward(&inputs, &shape, &mut out, &mut lse);
        let outputs = AttentionOutputs { out_thd: &out, lse_ht: &lse, dout_thd: &dout };
        let gradients = AttentionGradients { dq_thd: &mut dq, dk_tgd: &mut dk, dv_tgd: &mut dv };
        attention_backward(&inputs, &outputs, &shape, gradients);
    }));
}

fn rows<E: Element>(dtype: &str, all: &mut Vec<Measurement<'_>>) {
    let (tokens, width, size) = (2048, 576, size_of::<E>() as f64);
    let bytes = (tokens * width) as f64 * size;
    let (x, dy) = (values::<E>(tokens * width), values::<E>(tokens * width));
    let (mut y, weight, mut rstd) = (x.clone(), values::<f32>(width), vec![1.0f32; tokens]);
    {
        let (x, mut y, weight, mut rstd) = (x.clone(), y.clone(), weight.clone(), rstd.clone());
        all.push(measurement(&format!("rms norm forward {dtype}"), "GB/s", 2.0 * bytes, move || {
            rms_norm_forward(&x, &weight, 1e-5, &mut y, &mut rstd);
        }));
    }
    rms_norm_forward(&x, &weight, 1e-5, &mut y, &mut rstd);
    {
        let (x, mut dx) = (x.clone(), x.clone());
        all.push(measurement(&format!("rms norm backward {dtype}"), "GB/s", 3.0 * bytes, move || {
            rms_norm_backward(&x, &weight, &rstd, &dy, &mut dx);
        }));
    }
    let (cos, sin) = (values::<f32>(tokens * 32), values::<f32>(tokens * 32));
    all.push(measurement(&format!("rotate {dtype}"), "GB/s", 2.0 * bytes, move || {
        let table = RotaryTable { cos_tr: &cos, sin_tr: &sin, head_dim: 64 };
        rotate(&x, &table, Rotation::Forward, &mut y);
    }));
}

fn pointwise<E: Element>(dtype: &str, all: &mut Vec<Measurement<'_>>) {
    let count = 2048 * 1536;
    let bytes = count as f64 * size_of::<E>() as f64;
    for (name, kind) in [("silu", Gate::Silu), ("gelu", Gate::GeluTanh)] {
        let (gate, up, mut y) = (values::<E>(count), values::<E>(count), values::<E>(count));
        let (dy, mut dgate, mut dup) = (gate.clone(), gate.clone(), gate.clone());
        let (gate_2, up_2) = (gate.clone(), up.clone());
        all.push(measurement(&format!("gated {name} forward {dtype}"), "GB/s", 3.0 * bytes, move || {
            gated_forward(GatedInputs { gate: &gate, up: &up }, kind, &mut y);
        }));
        all.push(measurement(&format!("gated {name} backward {dtype}"), "GB/s", 5.0 * bytes, move || {
            gated_backward(GatedInputs { gate: &gate_2, up: &up_2 }, &dy, kind, &mut dgate, &mut dup);
        }));
    }
    let (x, mut y) = (values::<E>(count), values::<E>(count));
    let (source, mut target) = (x.clone(), x.clone());
    all.push(measurement(&format!("dropout {dtype}"), "GB/s", 2.0 * bytes, move || {
        Dropout { probability: 0.1, seed: 1, stream: 2 }.apply(&x, &mut y);
    }));
    all.push(measurement(&format!("add in place {dtype}"), "GB/s", 3.0 * bytes, move || {
        add_in_place(&mut target, &source);
    }));
}

fn cross_entropy(all: &mut Vec<Measurement<'_>>) {
    let (rows, vocabulary) = (128, 49_152);
    let bytes = (rows * vocabulary * 4) as f64;
    let (logits, targets) = (values::<f32>(rows * vocabulary), vec![17u32; rows]);
    let (mut work, mut losses) = (logits.clone(), vec![0.0f32; rows]);
    let (targets_2, mut losses_2) = (targets.clone(), losses.clone());
    all.push(measurement("cross entropy, losses only", "GB/s", bytes, move || {
        cross_entropy_rows(&logits, vocabulary, &targets, &mut losses);
    }));
    all.push(measurement("cross entropy with gradient", "GB/s", 2.0 * bytes, move || {
        softmax_cross_entropy_rows(&mut work, vocabulary, &targets_2, 1.0, &mut losses_2);
    }));
}

fn main() {
    let mut all = Vec::new();
    matrix_products(&mut all);
    attention::<f32>("f32", &[2048], (9, 3), 64, &mut all);
    attention::<f32>("f32", &[512; 4], (9, 3), 64, &mut all);
    attention::<bf16>("bf16", &[2048], (9, 3), 64, &mut all);
    attention::<f32>("f32", &[2048], (8, 2), 128, &mut all);
    rows::<f32>("f32", &mut all);
    rows::<bf16>("bf16", &mut all);
    pointwise::<f32>("f32", &mut all);
    pointwise::<bf16>("bf16", &mut all);
    cross_entropy(&mut all);
    for _ in 0..ROUNDS {
        for measurement in &mut all {
            let start = Instant::now();
            (measurement.run)();
            measurement.best_s = measurement.best_s.min(start.elapsed().as_secs_f64());
        }
    }
    for Measurement { name, unit, amount, best_s, .. } in all {
        println!("{name:48} {:8.2} ms {:8.1} {unit}", best_s * 1e3, amount / best_s / 1e9);
    }
}
