//! Hand-written backward passes of [`BlockOps`], once for every backend.
//!
//! In:    autodiff tensors.
//! Out:   autodiff tensors whose backward keeps only what the comment at each step names.
//! Never: computes a gradient nobody asked for: a parent without gradient is skipped.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::ops::{AttentionGeometry, BlockOps, Gate, Lora, Rotation};
use crate::weight::BackendWeight;

type F<B> = FloatTensor<B>;
type W<B> = BackendWeight<B>;

/// Keeps x (the residual stream already holds it), w and one number a token.
#[derive(Debug)]
struct RmsNormStep;
impl<B: BlockOps> Backward<B, 1> for RmsNormStep {
    type State = (F<B>, F<B>, F<B>);
    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, w, rstd) = ops.state;
        if let [Some(parent)] = ops.parents {
            grads.register::<B>(parent.id, B::rms_norm_dx(x, w, rstd, dy));
        }
    }
}

/// Keeps the two tables only: the inverse rotation is the gradient.
#[derive(Debug)]
struct RotaryStep;
impl<B: BlockOps> Backward<B, 1> for RotaryStep {
    type State = (F<B>, F<B>, usize, Rotation);
    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (cos, sin, head_dim, rotation) = ops.state;
        let back = match rotation {
            Rotation::Forward => Rotation::Inverse,
            Rotation::Inverse => Rotation::Forward,
        };
        if let [Some(parent)] = ops.parents {
            grads.register::<B>(parent.id, B::rotary(dy, cos, sin, head_dim, back));
        }
    }
}

/// Keeps gate and up; the activation is computed again.
#[derive(Debug)]
struct GatedStep;
impl<B: BlockOps> Backward<B, 2> for GatedStep {
    type State = (F<B>, F<B>, Gate);
    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (gate, up, kind) = ops.state;
        let [gate_parent, up_parent] = ops.parents;
        let (dgate, dup) = B::gated_backward(gate, up, dy, kind);
        if let Some(parent) = gate_parent {
            grads.register::<B>(parent.id, dgate);
        }
        if let Some(parent) = up_parent {
            grads.register::<B>(parent.id, dup);
        }
    }
}

/// Keeps q, k, v, the output and one number per head and token; never a tokens-by-tokens matrix.
#[derive(Debug)]
struct AttentionStep;
impl<B: BlockOps> Backward<B, 3> for AttentionStep {
    type State = (F<B>, F<B>, F<B>, F<B>, F<B>, AttentionGeometry);
    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dout = grads.consume::<B>(&ops.node);
        let (q, k, v, out, lse, geometry) = ops.state;
        let (dq, dk, dv) = B::attention_backward(q, k, v, out, lse, dout, geometry);
        for (parent, gradient) in ops.parents.into_iter().zip([dq, dk, dv]) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// Keeps the weight's handle only.
#[derive(Debug)]
struct LinearStep;
impl<B: BlockOps> Backward<B, 1> for LinearStep {
    type State = W<B>;
    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(parent)] = ops.parents {
            grads.register::<B>(parent.id, B::linear_dx(ops.state, dy));
        }
    }
}

/// Keeps x (shared between the layers that read it), the weights' handles and the rank-wide product u.
#[derive(Debug)]
struct LoraLinearStep;
impl<B: BlockOps> Backward<B, 3> for LoraLinearStep {
    type State = (F<B>, W<B>, F<B>, F<B>, F<B>, Lora);
    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, w, a, b, u, lora) = ops.state;
        let [x_parent, a_parent, b_parent] = ops.parents;
        let du = B::lora_du(dy.clone(), b, lora);
        if let Some(parent) = a_parent {
            grads.register::<B>(parent.id, B::lora_da(du.clone(), x, lora));
        }
        if let Some(parent) = b_parent {
            grads.register::<B>(parent.id, B::lora_db(dy.clone(), u, lora));
        }
        if let Some(parent) = x_parent {
            grads.register::<B>(parent.id, B::lora_dx(dy, w, du, a, lora));
        }
    }
}

/// Keeps x, w and one number a token, as [`RmsNormStep`].
#[derive(Debug)]
struct TrainableRmsNormStep;
impl<B: BlockOps> Backward<B, 2> for TrainableRmsNormStep {
    type State = (F<B>, F<B>, F<B>);
    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, w, rstd) = ops.state;
        let [x_parent, w_parent] = ops.parents;
        if let Some(parent) = w_parent {
            grads.register::<B>(parent.id, B::rms_norm_dw(x.clone(), rstd.clone(), dy.clone()));
        }
        if let Some(parent) = x_parent {
            grads.register::<B>(parent.id, B::rms_norm_dx(x, w, rstd, dy));
        }
    }
}

/// Keeps x (shared between the layers that read it) and the weight's handle.
#[derive(Debug)]
struct TrainableLinearStep;
impl<B: BlockOps> Backward<B, 2> for TrainableLinearStep {
    type State = (F<B>, F<B>);
    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, w) = ops.state;
        let [x_parent, w_parent] = ops.parents;
        if let Some(parent) = w_parent {
            grads.register::<B>(parent.id, B::linear_dw(x, dy.clone()));
        }
        if let Some(parent) = x_parent {
            grads.register::<B>(parent.id, B::linear_dx(W::<B>::Dense(w), dy));
        }
    }
}

/// Keeps nothing: the sum's gradient is each term's.
#[derive(Debug)]
struct AddBiasStep;
impl<B: BlockOps> Backward<B, 2> for AddBiasStep {
    type State = ();
    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [y_parent, b_parent] = ops.parents;
        if let Some(parent) = b_parent {
            grads.register::<B>(parent.id, B::bias_gradient(dy.clone()));
        }
        if let Some(parent) = y_parent {
            grads.register::<B>(parent.id, dy);
        }
    }
}

/// Keeps the gradient to hand over.
#[derive(Debug)]
struct SeedStep;
impl<B: BlockOps> Backward<B, 1> for SeedStep {
    type State = F<B>;
    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let _ones = grads.consume::<B>(&ops.node);
        if let [Some(parent)] = ops.parents {
            grads.register::<B>(parent.id, ops.state);
        }
    }
}

const FORWARD_ONLY: &str = "first-order only: this operation runs inside a backward pass, on plain tensors";

impl<B: BlockOps, C: CheckpointStrategy> BlockOps for Autodiff<B, C> {
    fn rms_norm(x: F<Self>, w: F<Self>, epsilon: f32) -> (F<Self>, F<Self>) {
        let prep = RmsNormStep.prepare::<C>([x.node()]).compute_bound().stateful();
        let (x, w) = (x.into_primitive(), w.into_primitive());
        let (y, rstd) = B::rms_norm(x.clone(), w.clone(), epsilon);
        match prep {
            OpsKind::Tracked(prep) => (prep.finish((x, w, rstd.clone()), y), F::<Self>::new(rstd)),
            OpsKind::UnTracked(prep) => (prep.finish(y), F::<Self>::new(rstd)),
        }
    }

    fn rotary(x: F<Self>, cos: F<Self>, sin: F<Self>, head_dim: usize, rotation: Rotation) -> F<Self> {
        let prep = RotaryStep.prepare::<C>([x.node()]).compute_bound().stateful();
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        let y = B::rotary(x.into_primitive(), cos.clone(), sin.clone(), head_dim, rotation);
        match prep {
            OpsKind::Tracked(prep) => prep.finish((cos, sin, head_dim, rotation), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn gated(gate: F<Self>, up: F<Self>, kind: Gate) -> F<Self> {
        let prep = GatedStep.prepare::<C>([gate.node(), up.node()]).compute_bound().stateful();
        let (gate, up) = (gate.into_primitive(), up.into_primitive());
        let y = B::gated(gate.clone(), up.clone(), kind);
        match prep {
            OpsKind::Tracked(prep) => prep.finish((gate, up, kind), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn attention(q: F<Self>, k: F<Self>, v: F<Self>, geometry: AttentionGeometry) -> (F<Self>, F<Self>) {
        let prep = AttentionStep.prepare::<C>([q.node(), k.node(), v.node()]).compute_bound().stateful();
        let (q, k, v) = (q.into_primitive(), k.into_primitive(), v.into_primitive());
        let (out, lse) = <B as BlockOps>::attention(q.clone(), k.clone(), v.clone(), geometry.clone());
        match prep {
            OpsKind::Tracked(prep) => {
                (prep.finish((q, k, v, out.clone(), lse.clone(), geometry), out), F::<Self>::new(lse))
            }
            OpsKind::UnTracked(prep) => (prep.finish(out), F::<Self>::new(lse)),
        }
    }

    fn linear(x: F<Self>, w: W<Self>) -> F<Self> {
        let prep = LinearStep.prepare::<C>([x.node()]).compute_bound().stateful();
        let w = w.into_primitive();
        let y = <B as BlockOps>::linear(x.into_primitive(), w.clone());
        match prep {
            OpsKind::Tracked(prep) => prep.finish(w, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn lora_linear(x: F<Self>, w: W<Self>, a: F<Self>, b: F<Self>, lora: Lora) -> (F<Self>, F<Self>) {
        let prep = LoraLinearStep.prepare::<C>([x.node(), a.node(), b.node()]).compute_bound().stateful();
        let (x, w) = (x.into_primitive(), w.into_primitive());
        let (a, b) = (a.into_primitive(), b.into_primitive());
        let (y, u) = B::lora_linear(x.clone(), w.clone(), a.clone(), b.clone(), lora);
        match prep {
            OpsKind::Tracked(prep) => (prep.finish((x, w, a, b, u.clone(), lora), y), F::<Self>::new(u)),
            OpsKind::UnTracked(prep) => (prep.finish(y), F::<Self>::new(u)),
        }
    }

    fn trainable_rms_norm(x: F<Self>, w: F<Self>, epsilon: f32) -> (F<Self>, F<Self>) {
        let prep = TrainableRmsNormStep.prepare::<C>([x.node(), w.node()]).compute_bound().stateful();
        let (x, w) = (x.into_primitive(), w.into_primitive());
        let (y, rstd) = B::trainable_rms_norm(x.clone(), w.clone(), epsilon);
        match prep {
            OpsKind::Tracked(prep) => (prep.finish((x, w, rstd.clone()), y), F::<Self>::new(rstd)),
            OpsKind::UnTracked(prep) => (prep.finish(y), F::<Self>::new(rstd)),
        }
    }

    fn trainable_linear(x: F<Self>, w: F<Self>) -> F<Self> {
        let prep = TrainableLinearStep.prepare::<C>([x.node(), w.node()]).compute_bound().stateful();
        let (x, w) = (x.into_primitive(), w.into_primitive());
        let y = B::trainable_linear(x.clone(), w.clone());
        match prep {
            OpsKind::Tracked(prep) => prep.finish((x, w), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn add_bias(y: F<Self>, b: F<Self>) -> F<Self> {
        let prep = AddBiasStep.prepare::<C>([y.node(), b.node()]).compute_bound().stateful();
        let sum = B::add_bias(y.into_primitive(), b.into_primitive());
        match prep {
            OpsKind::Tracked(prep) => prep.finish((), sum),
            OpsKind::UnTracked(prep) => prep.finish(sum),
        }
    }

    fn seed_gradient(y: F<Self>, g: F<Self>) -> F<Self> {
        let prep = SeedStep.prepare::<C>([y.node()]).compute_bound().stateful();
        let g = g.into_primitive();
        let zero = B::seed_gradient(y.into_primitive(), g.clone());
        match prep {
            OpsKind::Tracked(prep) => prep.finish(g, zero),
            OpsKind::UnTracked(prep) => prep.finish(zero),
        }
    }

    fn rms_norm_dx(_: F<Self>, _: F<Self>, _: F<Self>, _: F<Self>) -> F<Self> {
        unreachable!("{FORWARD_ONLY}")
    }
    fn rms_norm_dw(_: F<Self>, _: F<Self>, _: F<Self>) -> F<Self> {
        unreachable!("{FORWARD_ONLY}")
    }
    fn linear_dw(_: F<Self>, _: F<Self>) -> F<Self> {
        unreachable!("{FORWARD_ONLY}")
    }
    fn bias_gradient(_: F<Self>) -> F<Self> {
        unreachable!("{FORWARD_ONLY}")
    }
    fn gated_backward(_: F<Self>, _: F<Self>, _: F<Self>, _: Gate) -> (F<Self>, F<Self>) {
        unreachable!("{FORWARD_ONLY}")
    }
    fn attention_backward(
        _: F<Self>,
        _: F<Self>,
        _: F<Self>,
        _: F<Self>,
        _: F<Self>,
        _: F<Self>,
        _: AttentionGeometry,
    ) -> (F<Self>, F<Self>, F<Self>) {
        unreachable!("{FORWARD_ONLY}")
    }
    fn linear_dx(_: W<Self>, _: F<Self>) -> F<Self> {
        unreachable!("{FORWARD_ONLY}")
    }
    fn adapted_linear(_: F<Self>, _: W<Self>, _: F<Self>, _: F<Self>, _: f32) -> F<Self> {
        unreachable!("{FORWARD_ONLY}")
    }
    fn lora_du(_: F<Self>, _: F<Self>, _: Lora) -> F<Self> {
        unreachable!("{FORWARD_ONLY}")
    }
    fn lora_dx(_: F<Self>, _: W<Self>, _: F<Self>, _: F<Self>, _: Lora) -> F<Self> {
        unreachable!("{FORWARD_ONLY}")
    }
    fn lora_da(_: F<Self>, _: F<Self>, _: Lora) -> F<Self> {
        unreachable!("{FORWARD_ONLY}")
    }
    fn lora_db(_: F<Self>, _: F<Self>, _: Lora) -> F<Self> {
        unreachable!("{FORWARD_ONLY}")
    }
}
