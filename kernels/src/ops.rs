//! Public operations and the backend trait behind them.
//!
//! In:    tensors on any Burn device, with or without autodiff.
//! Out:   tensors on the same device. On Flex the fused kernels run; other devices run the plain-Burn [`twin`].
//! Never: falls back silently on a device that has a kernel; a wrong dtype is a panic, because dtypes are planned.

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::cpu::AttentionShape;
pub use crate::cpu::{Dropout, Gate, Rotation};
use crate::twin;
use crate::weight::{BackendWeight, Weight};

/// Which rows see which in causal self-attention over packed rows.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionGeometry {
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Factor on q·k before the softmax.
    pub scale: f32,
    /// A query at `i` sees keys `j <= i` with `i - j < window`.
    pub window: Option<usize>,
    /// Cumulative bounds of the rows: first 0, last the number of tokens. Attention stays inside a row.
    pub segments: Arc<Vec<u32>>,
}

impl AttentionGeometry {
    /// All but the rows, as the processor's kernels take it.
    pub(crate) fn shape(&self) -> AttentionShape {
        AttentionShape {
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            scale: self.scale,
            window: self.window,
        }
    }
}

/// Numbers of one low-rank adapter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lora {
    /// Factor on the adapter's output, no unit.
    pub scale: f32,
    /// Dropout on the adapter's input; `None` in evaluation.
    pub dropout: Option<Dropout>,
}

/// Backend side of every operation: what Flex computes with fused kernels and what `Autodiff` wraps with
/// hand-written backward passes. The twin needs none of this.
#[backend_extension(Cube: cfg(feature = "card"), Flex, Autodiff)]
pub trait BlockOps: Backend {
    /// `y = x * rstd * w`; also returns `rstd`, `[t]`, for the backward pass.
    fn rms_norm(x: FloatTensor<Self>, w: FloatTensor<Self>, epsilon: f32) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// Gradient of [`BlockOps::rms_norm`] for `x`.
    fn rms_norm_dx(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        rstd: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
    /// Rotate-half rotary embedding of every head.
    fn rotary(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        head_dim: usize,
        rotation: Rotation,
    ) -> FloatTensor<Self>;
    /// `activation(gate) * up`.
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, kind: Gate) -> FloatTensor<Self>;
    /// Gradients of [`BlockOps::gated`] for gate and up.
    fn gated_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        kind: Gate,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// Attention output and the log-sum-exp of each (head, token), `[h, t]` in f32.
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        geometry: AttentionGeometry,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// Gradients of [`BlockOps::attention`] for q, k and v.
    #[allow(clippy::too_many_arguments)]
    fn attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        geometry: AttentionGeometry,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    /// `y = x wᵀ`.
    fn linear(x: FloatTensor<Self>, #[extension_type] w: BackendWeight<Self>) -> FloatTensor<Self>;
    /// `dx = dy w`.
    fn linear_dx(#[extension_type] w: BackendWeight<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self>;
    /// `(y, u)` with `u = dropout(x) aᵀ` and `y = x wᵀ + scale * u bᵀ`.
    fn lora_linear(
        x: FloatTensor<Self>,
        #[extension_type] w: BackendWeight<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        lora: Lora,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// `y = x wᵀ + scale * (x aᵀ) b` with factors in the format of `x` and `b` stored `[r, o]`; not trained.
    fn adapted_linear(
        x: FloatTensor<Self>,
        #[extension_type] w: BackendWeight<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self>;
    /// `du = scale * dy b`, `[t, r]`.
    fn lora_du(dy: FloatTensor<Self>, b: FloatTensor<Self>, lora: Lora) -> FloatTensor<Self>;
    /// `dx = dy w + dropout(du a)`.
    fn lora_dx(
        dy: FloatTensor<Self>,
        #[extension_type] w: BackendWeight<Self>,
        du: FloatTensor<Self>,
        a: FloatTensor<Self>,
        lora: Lora,
    ) -> FloatTensor<Self>;
    /// `da = duᵀ dropout(x)` in f32.
    fn lora_da(du: FloatTensor<Self>, x: FloatTensor<Self>, lora: Lora) -> FloatTensor<Self>;
    /// `db = scale * dyᵀ u` in f32.
    fn lora_db(dy: FloatTensor<Self>, u: FloatTensor<Self>, lora: Lora) -> FloatTensor<Self>;
    /// [`BlockOps::rms_norm`] whose weight is trained.
    fn trainable_rms_norm(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// Gradient of [`BlockOps::trainable_rms_norm`] for `w`, in f32.
    fn rms_norm_dw(x: FloatTensor<Self>, rstd: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self>;
    /// [`BlockOps::linear`] whose weight is trained.
    fn trainable_linear(x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self>;
    /// `dw = dyᵀ x` in f32.
    fn linear_dw(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self>;
    /// `y + b`, `b` added to every row.
    fn add_bias(y: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;
    /// Column sums of `dy` in f32.
    fn bias_gradient(dy: FloatTensor<Self>) -> FloatTensor<Self>;
    /// A zero, `[1]`, whose backward pass hands `g` to `y` (vector-Jacobian product without a multiply).
    fn seed_gradient(y: FloatTensor<Self>, g: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Whether the fused CPU kernels serve this device.
pub(crate) fn is_flex(device: &Device) -> bool {
    device.clone().inner() == Device::flex()
}

/// Whether kernels serve this device: all do that this build has a runtime for.
fn has_kernels(device: &Device) -> bool {
    cfg!(feature = "card") || is_flex(device)
}

/// Root-mean-square norm over the last dimension: `x / sqrt(mean(x^2) + epsilon) * w`.
///
/// - `x_td`: `[t, d]` in f32 or bf16; `w_d`: f32, frozen (no gradient). Statistics are f32.
///
/// Source: Zhang & Sennrich 2019, arXiv:1910.07467.
pub fn rms_norm(x_td: Tensor<2>, w_d: Tensor<1>, epsilon: f32) -> Tensor<2> {
    if !has_kernels(&x_td.device()) {
        return twin::rms_norm(x_td, w_d, epsilon);
    }
    let (y, _rstd) = <Dispatch as BlockOps>::rms_norm(x_td.into_dispatch(), w_d.into_dispatch(), epsilon);
    Tensor::from_dispatch(y)
}

/// Rotary position embedding, rotate-half layout as in transformers.
///
/// - `x_th`: `[t, heads * head_dim]`; `cos`, `sin`: f32 `[t, head_dim / 2]`, frozen.
///
/// Source: Su et al. 2021, arXiv:2104.09864.
pub fn rotary(x_th: Tensor<2>, cos: Tensor<2>, sin: Tensor<2>, head_dim: usize) -> Tensor<2> {
    if !has_kernels(&x_th.device()) {
        return twin::rotary(x_th, cos, sin, head_dim);
    }
    Tensor::from_dispatch(<Dispatch as BlockOps>::rotary(
        x_th.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        head_dim,
        Rotation::Forward,
    ))
}

/// Gated activation of a feed-forward part: `activation(gate) * up`.
///
/// Source: Shazeer 2020, arXiv:2002.05202 (SwiGLU, GeGLU).
pub fn gated(gate: Tensor<2>, up: Tensor<2>, kind: Gate) -> Tensor<2> {
    if !has_kernels(&gate.device()) {
        return twin::gated(gate, up, kind);
    }
    Tensor::from_dispatch(<Dispatch as BlockOps>::gated(gate.into_dispatch(), up.into_dispatch(), kind))
}

/// Causal self-attention inside each row, without a tokens-by-tokens matrix on the CPU.
///
/// - `q`: `[t, n_heads * head_dim]`; `k`, `v`: `[t, n_kv_heads * head_dim]`; result as `q`.
///
/// Source: Dao et al. 2022, arXiv:2205.14135 (tiling, log-sum-exp kept for the backward pass).
pub fn attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, geometry: AttentionGeometry) -> Tensor<2> {
    if !has_kernels(&q.device()) {
        return twin::attention(q, k, v, &geometry);
    }
    let (out, _lse) =
        <Dispatch as BlockOps>::attention(q.into_dispatch(), k.into_dispatch(), v.into_dispatch(), geometry);
    Tensor::from_dispatch(out)
}

/// Frozen linear layer: `x_ti w_oiᵀ`. The weight gets no gradient and keeps no input alive. One in 4 bits is decoded panel by panel inside
/// the product, and again in the backward pass.
pub fn frozen_linear(x_ti: Tensor<2>, w_oi: impl Into<Weight>) -> Tensor<2> {
    let w_oi = w_oi.into();
    if !has_kernels(&x_ti.device()) {
        let w_oi = w_oi.to_dense(x_ti.dtype());
        return twin::frozen_linear(x_ti, w_oi);
    }
    Tensor::from_dispatch(<Dispatch as BlockOps>::linear(x_ti.into_dispatch(), w_oi.into_dispatch()))
}

/// [`rms_norm`] whose weight is trained as well: same values, and `w_d` gets a gradient in f32.
pub fn trainable_rms_norm(x_td: Tensor<2>, w_d: Tensor<1>, epsilon: f32) -> Tensor<2> {
    if !has_kernels(&x_td.device()) {
        return twin::rms_norm(x_td, w_d, epsilon);
    }
    let (y, _rstd) = <Dispatch as BlockOps>::trainable_rms_norm(x_td.into_dispatch(), w_d.into_dispatch(), epsilon);
    Tensor::from_dispatch(y)
}

/// [`frozen_linear`] whose weight is trained as well: same values, and `x_ti` stays alive for the backward pass.
///
/// - `x_ti`, `w_oi`: f32 or bf16, the same. The gradient of `w_oi` is summed and returned in f32 (on a device without
///   kernels in `w_oi`'s dtype), the gradient of `x_ti` in its own dtype. An operand that is not tracked gets none.
pub fn trainable_linear(x_ti: Tensor<2>, w_oi: Tensor<2>) -> Tensor<2> {
    if !has_kernels(&x_ti.device()) {
        return twin::frozen_linear(x_ti, w_oi);
    }
    Tensor::from_dispatch(<Dispatch as BlockOps>::trainable_linear(x_ti.into_dispatch(), w_oi.into_dispatch()))
}

/// Adds a bias, trained or frozen, to every row: `y_to + b_o`, in one dtype. A tracked `b_o` gets its gradient in f32
/// (on a device without kernels in its own dtype).
pub fn add_bias(y_to: Tensor<2>, b_o: Tensor<1>) -> Tensor<2> {
    if !has_kernels(&y_to.device()) {
        return twin::add_bias(y_to, b_o);
    }
    Tensor::from_dispatch(<Dispatch as BlockOps>::add_bias(y_to.into_dispatch(), b_o.into_dispatch()))
}

/// Frozen linear layer with a low-rank update: `x wᵀ + scale * dropout(x) aᵀ bᵀ`.
///
/// - `x_ti`, `w_oi`: f32 or bf16, the same, or `w_oi` in 4 bits; `a_ri`, `b_or`: f32, trainable. `b` at zero equals the base layer.
///
/// Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
pub fn lora_linear(
    x_ti: Tensor<2>,
    w_oi: impl Into<Weight>,
    a_ri: Tensor<2>,
    b_or: Tensor<2>,
    lora: Lora,
) -> Tensor<2> {
    let w_oi = w_oi.into();
    if !has_kernels(&x_ti.device()) {
        let w_oi = w_oi.to_dense(x_ti.dtype());
        return twin::lora_linear(x_ti, w_oi, a_ri, b_or, lora);
    }
    let (y, _u) = <Dispatch as BlockOps>::lora_linear(
        x_ti.into_dispatch(),
        w_oi.into_dispatch(),
        a_ri.into_dispatch(),
        b_or.into_dispatch(),
        lora,
    );
    Tensor::from_dispatch(y)
}

/// [`lora_linear`] of an adapter that is not trained, bit for bit: its factors were converted once, by [`ready_factors`].
pub fn adapted_linear(
    x_ti: Tensor<2>,
    w_oi: impl Into<Weight>,
    a_ri: Tensor<2>,
    b_ro: Tensor<2>,
    scale: f32,
) -> Tensor<2> {
    let w_oi = w_oi.into();
    if !has_kernels(&x_ti.device()) {
        let w_oi = w_oi.to_dense(x_ti.dtype());
        return twin::adapted_linear(x_ti, w_oi, a_ri, b_ro, scale);
    }
    Tensor::from_dispatch(<Dispatch as BlockOps>::adapted_linear(
        x_ti.into_dispatch(),
        w_oi.into_dispatch(),
        a_ri.into_dispatch(),
        b_ro.into_dispatch(),
        scale,
    ))
}

/// The factors of [`lora_linear`], `[r, i]` and `[o, r]` in f32, as [`adapted_linear`] takes them: in the format of activations, the second
/// one transposed.
pub fn ready_factors(a_ri: Tensor<2>, b_or: Tensor<2>, dtype: DType) -> (Tensor<2>, Tensor<2>) {
    let [outputs, rank] = b_or.dims();
    let device = b_or.device();
    let values: Vec<f32> = b_or.into_data().try_into_vec().expect("factors are f32");
    let transposed: Vec<f32> = (0..rank).flat_map(|r| values.iter().skip(r).step_by(rank).copied()).collect();
    let b_ro = Tensor::<2>::from_data(TensorData::new(transposed, [rank, outputs]), (&device, DType::F32));
    (a_ri.cast(dtype), b_ro.cast(dtype))
}

/// A scalar whose `backward()` starts the backward pass of `y` with gradient `g` (a plain tensor of `y`'s shape).
pub fn seed_gradient(y_td: Tensor<2>, g_td: Tensor<2>) -> Tensor<1> {
    if !has_kernels(&y_td.device()) {
        return twin::seed_gradient(y_td, g_td);
    }
    let g = Tensor::<2>::from_inner(g_td);
    Tensor::from_dispatch(<Dispatch as BlockOps>::seed_gradient(y_td.into_dispatch(), g.into_dispatch()))
}
