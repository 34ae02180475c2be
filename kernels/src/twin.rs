//! Plain-Burn twins: the reference of every operation, and the path of devices without a kernel.
//!
//! In:    tensors on any Burn device.
//! Out:   the same values as the kernels, gradients by Burn's own autodiff.
//! Never: fast on purpose. Tests hold kernels to these.

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{DType, Int, Tensor, TensorData};

use crate::ops::{AttentionGeometry, Dropout, Gate, Lora};

fn widened<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.cast(DType::F32)
}

/// Twin of [`crate::rms_norm`] and [`crate::trainable_rms_norm`].
pub fn rms_norm(x_td: Tensor<2>, w_d: Tensor<1>, epsilon: f32) -> Tensor<2> {
    let dtype = x_td.dtype();
    let x = widened(x_td);
    let rstd = (x.clone().square().mean_dim(1) + epsilon).sqrt().recip();
    (x * rstd * w_d.unsqueeze::<2>()).cast(dtype)
}

/// Twin of [`crate::rotary`].
pub fn rotary(x_th: Tensor<2>, cos: Tensor<2>, sin: Tensor<2>, head_dim: usize) -> Tensor<2> {
    let dtype = x_th.dtype();
    let [tokens, width] = x_th.dims();
    let (heads, half) = (width / head_dim, head_dim / 2);
    let x = widened(x_th).reshape([tokens, heads, head_dim]);
    let (first, second) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
    let (cos, sin) = (cos.reshape([tokens, 1, half]), sin.reshape([tokens, 1, half]));
    let rotated_first = first.clone() * cos.clone() - second.clone() * sin.clone();
    let rotated_second = second * cos + first * sin;
    Tensor::cat(vec![rotated_first, rotated_second], 2).reshape([tokens, width]).cast(dtype)
}

/// Twin of [`crate::gated`].
pub fn gated(gate: Tensor<2>, up: Tensor<2>, kind: Gate) -> Tensor<2> {
    let dtype = gate.dtype();
    let (gate, up) = (widened(gate), widened(up));
    let active = match kind {
        Gate::Silu => gate.clone() * sigmoid(gate),
        Gate::GeluTanh => {
            let inner = (gate.clone() + gate.clone().powf_scalar(3.0) * 0.044715) * (2.0 / std::f64::consts::PI).sqrt();
            gate * 0.5 * (inner.tanh() + 1.0)
        }
    };
    (active * up).cast(dtype)
}

/// Twin of [`crate::attention`]: one masked softmax per row and key/value head group.
pub fn attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, geometry: &AttentionGeometry) -> Tensor<2> {
    let dtype = q.dtype();
    let bounds = geometry.segments.windows(2);
    let rows = bounds.map(|bound| {
        let (start, length) = (bound[0] as usize, (bound[1] - bound[0]) as usize);
        let part = |x: &Tensor<2>| widened(x.clone().narrow(0, start, length));
        row_attention(part(&q), part(&k), part(&v), geometry)
    });
    Tensor::cat(rows.collect(), 0).cast(dtype)
}

/// Twin of [`crate::cached_attention`] for one sequence: `q` of its last tokens, `k` and `v` of all.
pub fn onward_attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, geometry: &AttentionGeometry) -> Tensor<2> {
    let dtype = q.dtype();
    row_attention(widened(q), widened(k), widened(v), geometry).cast(dtype)
}

/// The queries are those of the row's last tokens.
fn row_attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, geometry: &AttentionGeometry) -> Tensor<2> {
    let ([queries, width], [tokens, _]) = (q.dims(), k.dims());
    let (heads, kv_heads, head_dim) = (geometry.n_heads, geometry.n_kv_heads, geometry.head_dim);
    let q = q.reshape([queries, heads, head_dim]).swap_dims(0, 1);
    let expand = |x: Tensor<2>| -> Tensor<3> {
        x.reshape([tokens, kv_heads, 1, head_dim])
            .repeat_dim(2, heads / kv_heads)
            .reshape([tokens, heads, head_dim])
            .swap_dims(0, 1)
    };
    let (k, v) = (expand(k), expand(v));
    let scores = q.matmul(k.swap_dims(1, 2)) * geometry.scale;
    let hidden: Vec<f32> = (0..queries * tokens)
        .map(|at| {
            let (i, j) = (tokens - queries + at / tokens, at % tokens);
            let seen = j <= i && geometry.window.is_none_or(|window| i - j < window);
            if seen { 0.0 } else { f32::MIN }
        })
        .collect();
    let mask = Tensor::<3>::from_data(TensorData::new(hidden, [1, queries, tokens]), &scores.device());
    softmax(scores + mask, 2).matmul(v).swap_dims(0, 1).reshape([queries, width])
}

/// Twin of [`crate::frozen_linear`] and [`crate::trainable_linear`].
pub fn frozen_linear(x_ti: Tensor<2>, w_oi: Tensor<2>) -> Tensor<2> {
    x_ti.matmul(w_oi.transpose())
}

/// Twin of [`crate::add_bias`].
pub fn add_bias(y_to: Tensor<2>, b_o: Tensor<1>) -> Tensor<2> {
    y_to + b_o.unsqueeze::<2>()
}

/// Twin of [`crate::lora_linear`].
pub fn lora_linear(x_ti: Tensor<2>, w_oi: Tensor<2>, a_ri: Tensor<2>, b_or: Tensor<2>, lora: Lora) -> Tensor<2> {
    let dtype = x_ti.dtype();
    let base = frozen_linear(x_ti.clone(), w_oi);
    let x = match lora.dropout {
        Some(numbers) => dropout(x_ti, numbers),
        None => x_ti,
    };
    let u = x.matmul(a_ri.cast(dtype).transpose());
    base + u.matmul(b_or.cast(dtype).transpose()) * lora.scale
}

/// Twin of [`crate::adapted_linear`].
pub fn adapted_linear(x_ti: Tensor<2>, w_oi: Tensor<2>, a_ri: Tensor<2>, b_ro: Tensor<2>, scale: f32) -> Tensor<2> {
    let u = x_ti.clone().matmul(a_ri.transpose());
    frozen_linear(x_ti, w_oi) + u.matmul(b_ro) * scale
}

/// Twin of the kernels' inverted dropout: the same counter-based mask, made on the host.
pub fn dropout(x: Tensor<2>, numbers: Dropout) -> Tensor<2> {
    let (dtype, dims) = (x.dtype(), x.dims());
    let ones = vec![1.0f32; dims[0] * dims[1]];
    let mut mask = vec![0.0f32; ones.len()];
    numbers.apply(&ones, &mut mask);
    let mask = Tensor::<2>::from_data(TensorData::new(mask, dims), &x.device());
    x * mask.cast(dtype)
}

/// Twin of [`crate::seed_gradient`]: the product costs one multiply each way.
pub fn seed_gradient(y_td: Tensor<2>, g_td: Tensor<2>) -> Tensor<1> {
    (y_td * Tensor::from_inner(g_td)).sum()
}

/// Twin of [`crate::head::linear_cross_entropy`]: whole logits, Burn's own autodiff.
/// Returns the sum of losses, `[1]`.
pub fn cross_entropy_sum(x_rd: Tensor<2>, w_vd: Tensor<2>, targets: &[u32]) -> Tensor<1> {
    let logits = widened(x_rd.matmul(w_vd.transpose()));
    let [rows, _] = logits.dims();
    let highest = logits.clone().detach().max_dim(1);
    let shifted = logits - highest;
    let log_sum = shifted.clone().exp().sum_dim(1).log();
    let indices: Vec<i32> = targets.iter().map(|&target| target as i32).collect();
    let indices = Tensor::<2, Int>::from_data(TensorData::new(indices, [rows, 1]), &shifted.device());
    (log_sum - shifted.gather(1, indices)).sum()
}
