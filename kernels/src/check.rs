//! Every operation on a device against its slow twin on the processor, forward and backward.
//!
//! In:    a device, a number format.
//! Out:   one [`Checked`] for each result: how far it lies from the twin's, and how far it may.
//! Never: compares a device with itself: twins are plain Burn in f32 on the processor, on the same rounded numbers.

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::head::{HeadGradients, linear_cross_entropy};
use crate::measure::Format;
use crate::{
    AttentionGeometry, Dropout, Gate, KeyValues, Lora, PackedFormat, PackedWeight, Weight, cached_attention, twin,
};

/// One result of one operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The operation and the shape it ran on.
    pub operation: String,
    /// The result: `output`, or the gradient of an input.
    pub result: String,
    /// The largest difference, over the largest number of the twin's result. Infinite where a result is not finite.
    pub error: f64,
    /// What rounding explains.
    pub bound: f64,
}

impl Checked {
    /// Whether rounding explains the difference.
    pub fn holds(&self) -> bool {
        self.error <= self.bound
    }
}

/// Differences that rounding explains, over the largest number of a result.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Norms, rotations, gates, attention, losses.
    pub element: f64,
    /// Products: a card may multiply f32 with the ten bits of TF32.
    pub product: f64,
}

impl Bounds {
    /// f32 throughout.
    pub const F32: Bounds = Bounds { element: 3e-5, product: 3e-5 };
    /// f32 whose products a card rounds to TF32.
    pub const TF32: Bounds = Bounds { element: 3e-5, product: 3e-3 };
    /// bf16 with sums in f32: results are rounded to 8 bits, some of them twice.
    pub const BF16: Bounds = Bounds { element: 1.2e-2, product: 1.6e-2 };
}

/// A small deterministic source of values in ±1.
pub(crate) struct Values(pub(crate) u64);

impl Values {
    pub(crate) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    }

    /// On the processor, in f32.
    pub(crate) fn matrix(&mut self, rows: usize, columns: usize) -> Tensor<2> {
        let values: Vec<f32> = (0..rows * columns).map(|_| self.next()).collect();
        Tensor::from_data(TensorData::new(values, [rows, columns]), (&Device::flex(), DType::F32))
    }
}

/// A tensor's numbers in f32.
pub(crate) fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().convert::<f32>().iter::<f32>().collect()
}

/// Rows of an attention case: bounds, query heads, key/value heads, head width, window.
type Rows = (&'static [u32], [usize; 3], Option<usize>);

pub(crate) type Op<'a> = &'a dyn Fn(&[Tensor<2>]) -> Tensor<2>;

/// A gradient for an output, of its shape and format.
type Gradient<'a> = &'a dyn Fn(&Tensor<2>) -> Tensor<2>;

/// Whether a device computes in a format at all.
pub fn computes_in(device: &Device, format: Format) -> bool {
    device.supports_dtype(format.dtype())
}

/// Checks every operation of this crate on `device`.
pub fn operations(device: &Device, format: Format, bounds: Bounds) -> Vec<Checked> {
    let mut check = Check { device, dtype: format.dtype(), bounds, found: Vec::new() };
    check.element_wise();
    check.attention();
    check.cached_attention();
    check.linear();
    check.head();
    check.found
}

struct Check<'a> {
    device: &'a Device,
    dtype: DType,
    bounds: Bounds,
    found: Vec<Checked>,
}

impl Check<'_> {
    /// Random matrices in f32 on the processor that the format holds exactly.
    fn matrices<const N: usize>(&self, seed: u64, shapes: [[usize; 2]; N]) -> [Tensor<2>; N] {
        let mut random = Values(seed);
        shapes.map(|[rows, columns]| random.matrix(rows, columns).cast(self.dtype).cast(DType::F32))
    }

    /// On the device, in a format.
    fn on<const D: usize>(&self, x: &Tensor<D>, dtype: DType) -> Tensor<D> {
        Tensor::from_data(x.clone().cast(dtype).into_data(), (self.device, dtype))
    }

    fn note(&mut self, operation: &str, result: String, ours: &[f32], twin: &[f32], bound: f64) {
        let scale = twin.iter().fold(0.1f32, |most, value| most.max(value.abs()));
        let errors = ours.iter().zip(twin).map(|(a, b)| f64::from((a - b).abs() / scale));
        // A number that is none compares as nothing.
        let is_finite = ours.len() == twin.len() && ours.iter().all(|value| value.is_finite());
        let error = if is_finite { errors.fold(0.0, f64::max) } else { f64::INFINITY };
        self.found.push(Checked { operation: operation.to_string(), result, error, bound });
    }

    /// The output and a gradient for each input, here and by the twin. Inputs beyond `rounded` are f32 on both sides.
    fn compare(
        &mut self,
        operation: &str,
        (inputs, rounded): (&[Tensor<2>], usize),
        bound: f64,
        ours: Op<'_>,
        twin: Op<'_>,
    ) {
        let g = |y: &Tensor<2>| self.matrices(99, [y.dims()])[0].clone();
        let placed: Vec<Tensor<2>> = inputs
            .iter()
            .enumerate()
            .map(|(at, input)| self.on(input, if at < rounded { self.dtype } else { DType::F32 }))
            .collect();
        let ours = pass(&placed, &|y| self.on(&g(y), self.dtype), ours);
        let twins = pass(inputs, &g, twin);
        for (part, (ours, twins)) in ours.iter().zip(&twins).enumerate() {
            let result = if part == 0 { "output".to_string() } else { format!("gradient of input {part}") };
            self.note(operation, result, ours, twins, bound);
        }
    }

    fn element_wise(&mut self) {
        let bound = self.bounds.element;
        for (tokens, width) in [(1, 2), (17, 34), (64, 576)] {
            let named = |what: &str| format!("{what} {tokens}x{width}");
            let [x, up, row] = self.matrices(3, [[tokens, width], [tokens, width], [1, width]]);
            let vector = |x: &Tensor<2>| x.clone().reshape([width]);
            let w = vector(&row);
            let placed = self.on(&w, DType::F32);
            self.compare(
                &named("rms_norm"),
                (std::slice::from_ref(&x), 1),
                bound,
                &|x| crate::rms_norm(x[0].clone(), placed.clone(), 1e-5),
                &|x| twin::rms_norm(x[0].clone(), w.clone(), 1e-5),
            );
            self.compare(
                &named("trainable_rms_norm"),
                (&[x.clone(), row.clone()], 1),
                bound,
                &|x| crate::trainable_rms_norm(x[0].clone(), vector(&x[1]), 1e-5),
                &|x| twin::rms_norm(x[0].clone(), vector(&x[1]), 1e-5),
            );
            self.compare(
                &named("add_bias"),
                (&[x.clone(), row], 2),
                bound,
                &|x| crate::add_bias(x[0].clone(), vector(&x[1])),
                &|x| twin::add_bias(x[0].clone(), vector(&x[1])),
            );
            let angles = Values(5).matrix(tokens, width / 2);
            let (cos, sin) = (angles.clone().cos(), angles.sin());
            let (cos_there, sin_there) = (self.on(&cos, DType::F32), self.on(&sin, DType::F32));
            self.compare(
                &named("rotary"),
                (std::slice::from_ref(&x), 1),
                bound,
                &|x| crate::rotary(x[0].clone(), cos_there.clone(), sin_there.clone(), width),
                &|x| twin::rotary(x[0].clone(), cos.clone(), sin.clone(), width),
            );
            for (name, kind) in [("gated silu", Gate::Silu), ("gated gelu", Gate::GeluTanh)] {
                self.compare(
                    &named(name),
                    (&[x.clone(), up.clone()], 2),
                    bound,
                    &|x| crate::gated(x[0].clone(), x[1].clone(), kind),
                    &|x| twin::gated(x[0].clone(), x[1].clone(), kind),
                );
            }
        }
    }

    fn attention(&mut self) {
        // The last two are long enough for products, where a device has units for them.
        let cases: [Rows; 7] = [
            (&[0, 1], [1, 1, 2], None),
            (&[0, 5, 6, 19], [4, 2, 16], None),
            (&[0, 70, 131], [9, 3, 64], None),
            (&[0, 3, 50], [2, 2, 80], Some(7)),
            (&[0, 40, 200], [4, 1, 128], None),
            (&[0, 600, 640], [4, 2, 64], None),
            (&[0, 700], [2, 1, 128], Some(520)),
        ];
        for (segments, heads, window) in cases {
            let (geometry, [q, kv]) = geometry(segments, heads, window);
            let inputs = self.matrices(11, [q, kv, kv]);
            let name = format!("attention {}x{} of {}", q[0], heads[0], heads[2]);
            self.compare(
                &name,
                (&inputs, 3),
                self.bounds.element,
                &|x| crate::attention(x[0].clone(), x[1].clone(), x[2].clone(), geometry.clone()),
                &|x| twin::attention(x[0].clone(), x[1].clone(), x[2].clone(), &geometry),
            );
        }
    }

    /// A sequence read piece by piece, against each piece over everything read so far.
    fn cached_attention(&mut self) {
        let mut cache = KeyValues::with_room(&[0]);
        let mut read: Vec<[Tensor<2>; 2]> = Vec::new();
        for (piece, tokens) in [5u32, 1, 3].into_iter().enumerate() {
            let (geometry, [q, kv]) = geometry(&[0, tokens], [4, 2, 16], None);
            let qkv = self.matrices(70 + piece as u64, [q, kv, kv]);
            let placed = qkv.each_ref().map(|x| self.on(x, self.dtype));
            let ours = values(cached_attention(&mut cache, placed, geometry.clone()));
            let [q, k, v] = qkv;
            read.push([k, v]);
            let [k, v] = [0, 1].map(|at| Tensor::cat(read.iter().map(|both| both[at].clone()).collect(), 0));
            let twin = values(twin::onward_attention(q, k, v, &geometry));
            self.note("cached attention", format!("piece {piece}"), &ours, &twin, self.bounds.element);
        }
    }

    fn linear(&mut self) {
        let bound = self.bounds.product;
        for [tokens, inputs, outputs] in [[1, 2, 3], [17, 64, 20], [33, 96, 130], [130, 576, 192]] {
            let rank = 4;
            let [x, w, a, b] = self.matrices(2, [[tokens, inputs], [outputs, inputs], [rank, inputs], [outputs, rank]]);
            // The same numbers where the twin computes, as a product in this format uses them.
            let packed = |format: PackedFormat| {
                let packed = format.quantise(&values(w.clone())).expect("numbers in ±1 have scales");
                let on =
                    |device| Weight::Packed(PackedWeight::upload(packed.clone(), [outputs, inputs], format, device));
                (on(self.device), on(&Device::flex()).to_dense(self.dtype).cast(DType::F32))
            };
            let (nf4, nf4_twin) = packed(PackedFormat::Nf4);
            let (int8, int8_twin) = packed(PackedFormat::Int8);
            let dense = Weight::Dense(self.on(&w, self.dtype));
            for (name, placed, twins) in
                [("dense", dense, w.clone()), ("nf4", nf4, nf4_twin), ("int8", int8, int8_twin)]
            {
                let named = |what: &str| format!("{what} {name} {tokens}x{inputs}x{outputs}");
                self.compare(
                    &named("frozen_linear"),
                    (std::slice::from_ref(&x), 1),
                    bound,
                    &|x| crate::frozen_linear(x[0].clone(), placed.clone()),
                    &|x| twin::frozen_linear(x[0].clone(), twins.clone()),
                );
                for dropout in [None, Some(Dropout { probability: 0.3, seed: 5, stream: 9 })] {
                    let lora = Lora { scale: 2.0, dropout };
                    let what = if dropout.is_some() { "lora_linear with dropout" } else { "lora_linear" };
                    self.compare(
                        &named(what),
                        (&[x.clone(), a.clone(), b.clone()], 1),
                        bound,
                        &|x| crate::lora_linear(x[0].clone(), placed.clone(), x[1].clone(), x[2].clone(), lora),
                        &|x| twin::lora_linear(x[0].clone(), twins.clone(), x[1].clone(), x[2].clone(), lora),
                    );
                }
                let (a_there, b_there) =
                    crate::ready_factors(self.on(&a, DType::F32), self.on(&b, DType::F32), self.dtype);
                let (a_here, b_here) = crate::ready_factors(a.clone(), b.clone(), DType::F32);
                let placed_x = self.on(&x, self.dtype);
                let ours = values(crate::adapted_linear(placed_x, placed.clone(), a_there, b_there, 0.5));
                let twin = values(twin::adapted_linear(x.clone(), twins.clone(), a_here, b_here, 0.5));
                self.note(&named("adapted_linear"), "output".to_string(), &ours, &twin, bound);
            }
            self.trainable_linear([x, w]);
        }
        // Large enough for a device to try out kernels.
        let large = self.matrices(4, [[512, 1024], [768, 1024]]);
        self.trainable_linear(large);
    }

    fn trainable_linear(&mut self, inputs: [Tensor<2>; 2]) {
        let ([tokens, width], [outputs, _]) = (inputs[0].dims(), inputs[1].dims());
        self.compare(
            &format!("trainable_linear {tokens}x{width}x{outputs}"),
            (&inputs, 2),
            self.bounds.product,
            &|x| crate::trainable_linear(x[0].clone(), x[1].clone()),
            &|x| twin::frozen_linear(x[0].clone(), x[1].clone()),
        );
    }

    fn head(&mut self) {
        let bound = self.bounds.product;
        for [rows, width, vocabulary] in [[1, 4, 5], [7, 16, 300], [600, 8, 257]] {
            let [x, w] = self.matrices(rows as u64, [[rows, width], [vocabulary, width]]);
            let targets: Vec<u32> = (0..rows).map(|row| (row * 31 % vocabulary) as u32).collect();
            let mut dw = vec![0.0f32; vocabulary * width];
            let wanted = HeadGradients { scale: 2.0, weight_vd: Some(&mut dw) };
            let placed = [&x, &w].map(|x| self.on(x, self.dtype));
            let ours = linear_cross_entropy(placed[0].clone(), placed[1].clone(), &targets, Some(wanted));
            let [x, w] = [x, w].map(|x| Tensor::<2>::from_inner(x).require_grad());
            let sum = twin::cross_entropy_sum(x.clone(), w.clone(), &targets);
            let twin_sum = values(sum.clone().inner());
            let mut gradients = (sum * 2.0).backward();
            let [dx_twin, dw_twin] = [x, w].map(|x| x.grad_remove(&mut gradients).map(values).unwrap_or_default());
            let name = format!("cross-entropy {rows}x{width}x{vocabulary}");
            self.note(&name, "loss".to_string(), &[ours.sum as f32], &twin_sum, self.bounds.element);
            let dx = ours.dx_rd.map(values).unwrap_or_default();
            self.note(&name, "gradient of hidden states".to_string(), &dx, &dx_twin, bound);
            self.note(&name, "gradient of the head".to_string(), &dw, &dw_twin, bound);
        }
    }
}

/// A geometry, and the shapes of its queries, and of its keys or values.
fn geometry(segments: &[u32], heads: [usize; 3], window: Option<usize>) -> (AttentionGeometry, [[usize; 2]; 2]) {
    let [n_heads, n_kv_heads, head_dim] = heads;
    let tokens = segments.last().map_or(0, |&tokens| tokens as usize);
    let segments = Arc::new(segments.to_vec());
    let geometry = AttentionGeometry { n_heads, n_kv_heads, head_dim, scale: 0.3, window, segments };
    (geometry, [[tokens, n_heads * head_dim], [tokens, n_kv_heads * head_dim]])
}

/// Runs `f` on tracked copies of `inputs` and sends back what `gradient` makes of its output: the output and a gradient for each input.
pub(crate) fn pass(inputs: &[Tensor<2>], gradient: Gradient<'_>, f: Op<'_>) -> Vec<Vec<f32>> {
    let tracked: Vec<Tensor<2>> =
        inputs.iter().map(|input| Tensor::<2>::from_inner(input.clone()).require_grad()).collect();
    let y = f(&tracked);
    let plain = y.clone().inner();
    let mut gradients = crate::seed_gradient(y, gradient(&plain)).backward();
    let mut results = vec![values(plain)];
    let reached = |input: &Tensor<2>| input.grad_remove(&mut gradients).expect("every input takes part in the output");
    results.extend(tracked.iter().map(reached).map(values));
    results
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_processors_kernels_are_their_twins() {
        for (format, bounds) in [(Format::F32, Bounds::F32), (Format::Bf16, Bounds::BF16)] {
            let found = operations(&Device::flex(), format, bounds);
            assert!(found.len() > 150, "{}", found.len());
            let wrong: Vec<&Checked> = found.iter().filter(|one| !one.holds()).collect();
            assert!(wrong.is_empty(), "{format:?}: {wrong:#?}");
        }
    }

    #[test]
    fn a_wrong_number_and_one_that_is_none_do_not_hold() {
        let device = Device::flex();
        let mut check = Check { device: &device, dtype: DType::F32, bounds: Bounds::F32, found: Vec::new() };
        check.note("op", "output".to_string(), &[1.0, 2.001], &[1.0, 2.0], 3e-5);
        check.note("op", "output".to_string(), &[1.0, f32::NAN], &[1.0, 2.0], 3e-5);
        check.note("op", "output".to_string(), &[1.0], &[1.0, 2.0], 3e-5);
        check.note("op", "output".to_string(), &[1.0, 2.00001], &[1.0, 2.0], 3e-5);
        assert_eq!(check.found.iter().map(Checked::holds).collect::<Vec<_>>(), [false, false, false, true]);
    }
}
