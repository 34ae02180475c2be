//! Every kernel on Vulkan against loops in f64. In software where there is no card; skipped, visibly, where there is no Vulkan at all.
#![allow(clippy::unwrap_used)]

use std::sync::OnceLock;

use cubecl::Device;
use cubecl::client::Client;
use cubecl::prelude::*;
use half::bf16;

use crate::*;

mod attention;
pub(crate) mod cuda;
mod int8;
mod nf4;
mod tiles;

/// A client of this machine's Vulkan device.
pub(crate) fn client() -> Option<Client> {
    static CLIENT: OnceLock<Option<Client>> = OnceLock::new();
    let found = CLIENT.get_or_init(|| Device::vulkan(Default::default()).ok().map(|device| device.client()));
    if found.is_none() {
        eprintln!("SKIPPED: no Vulkan device; Debian's mesa-vulkan-drivers has one in software");
    }
    found.clone()
}

/// Numbers between -1 and 1, the same every time.
pub(crate) struct Values(pub(crate) u64);

impl Values {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }
}

/// The formats that a device computes with: not every Vulkan device has bf16.
pub(crate) fn formats(client: &Client) -> Vec<Number> {
    use cubecl::features::TypeUsage;
    let uses = bf16::supported_uses(client);
    let both = uses.contains(TypeUsage::Conversion) && uses.contains(TypeUsage::Buffer);
    if both { vec![Number::F32, Number::Bf16] } else { vec![Number::F32] }
}

pub(crate) fn upload(client: &Client, values: &[f32], number: Number) -> Buffer {
    let handle = match number {
        Number::F32 => client.create_from_slice(f32::as_bytes(values)),
        Number::Bf16 => {
            let values: Vec<bf16> = values.iter().map(|&value| bf16::from_f32(value)).collect();
            client.create_from_slice(bf16::as_bytes(&values))
        }
    };
    Buffer::new(handle, values.len(), number)
}

pub(crate) fn words(client: &Client, values: &[u32]) -> Buffer {
    Buffer::words(client.create_from_slice(u32::as_bytes(values)), values.len())
}

pub(crate) fn download(client: &Client, buffer: &Buffer, number: Number) -> Vec<f32> {
    let bytes = client.read_one_unchecked(buffer.handle().clone());
    match number {
        Number::F32 => f32::from_bytes(&bytes)[..buffer.len()].to_vec(),
        Number::Bf16 => bf16::from_bytes(&bytes)[..buffer.len()].iter().map(|value| value.to_f32()).collect(),
    }
}

/// As the device has them.
pub(crate) fn rounded(values: &[f32], number: Number) -> Vec<f64> {
    let round = |&value: &f32| match number {
        Number::F32 => f64::from(value),
        Number::Bf16 => f64::from(bf16::from_f32(value).to_f32()),
    };
    values.iter().map(round).collect()
}

pub(crate) fn tolerance(number: Number) -> f64 {
    match number {
        Number::F32 => 2e-5,
        Number::Bf16 => 1e-2,
    }
}

pub(crate) fn assert_close(what: &str, ours: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.1f64, |most, value| most.max(value.abs()));
    for (at, (&a, b)) in ours.iter().zip(expected).enumerate() {
        assert!((f64::from(a) - b).abs() <= tolerance * scale, "{what}[{at}]: kernel {a}, loop {b}, scale {scale}");
    }
}

const SHAPES: [(usize, usize); 6] = [(1, 2), (3, 8), (17, 33), (64, 576), (130, 100), (2, 4096)];

#[test]
fn norms_and_their_gradients_match_loops_in_f64() {
    let Some(client) = client() else { return };
    for number in formats(&client) {
        for (rows, width) in SHAPES {
            let mut random = Values(rows as u64);
            let (x, dy, w) = (random.take(rows * width), random.take(rows * width), random.take(width));
            let [dx, ddy] = [&x, &dy].map(|values| upload(&client, values, number));
            let weight = upload(&client, &w, Number::F32);
            let (y, rstd) = rms_norm(&client, &dx, &weight, 1e-5, number);
            let input_gradient = rms_norm_dx(&client, &dx, &weight, &rstd, &ddy, number);
            let weight_gradient = rms_norm_dw(&client, &dx, &rstd, &ddy, number);
            let (x, dy) = (rounded(&x, number), rounded(&dy, number));
            let (mut y64, mut dx64, mut dw64) = (Vec::new(), Vec::new(), vec![0.0f64; width]);
            for row in 0..rows {
                let (x, dy) = (&x[row * width..][..width], &dy[row * width..][..width]);
                let mean = x.iter().map(|x| x * x).sum::<f64>() / width as f64;
                let scale = (mean + 1e-5).sqrt().recip();
                let along = (0..width).map(|at| x[at] * dy[at] * f64::from(w[at])).sum::<f64>() / width as f64;
                for at in 0..width {
                    y64.push(x[at] * scale * f64::from(w[at]));
                    dx64.push(scale * (dy[at] * f64::from(w[at]) - x[at] * along * scale * scale));
                    dw64[at] += x[at] * scale * dy[at];
                }
            }
            let what = |part: &str| format!("{part} of {rows}x{width} in {number:?}");
            assert_close(&what("norm"), &download(&client, &y, number), &y64, tolerance(number));
            assert_close(&what("dx"), &download(&client, &input_gradient, number), &dx64, tolerance(number));
            assert_close(&what("dw"), &download(&client, &weight_gradient, Number::F32), &dw64, 2e-5);
        }
    }
}

#[test]
fn gated_activations_and_their_gradients_match_loops_in_f64() {
    let Some(client) = client() else { return };
    for number in formats(&client) {
        for (rows, width) in SHAPES {
            for kind in [Gate::Silu, Gate::GeluTanh] {
                let (mut random, count) = (Values(3 + rows as u64), rows * width);
                let gate: Vec<f32> = random.take(count).iter().map(|value| value * 20.0).collect();
                let (up, dy) = (random.take(count), random.take(count));
                let [g, u, d] = [&gate, &up, &dy].map(|values| upload(&client, values, number));
                let y = gated(&client, &g, &u, kind, number);
                let (dgate, dup) = gated_backward(&client, [&g, &u, &d], kind, number);
                let [gate, up, dy] = [&gate, &up, &dy].map(|values| rounded(values, number));
                let active: Vec<(f64, f64)> = gate.iter().map(|&x| activation(x, kind)).collect();
                let expected = |of: &dyn Fn(usize) -> f64| (0..count).map(of).collect::<Vec<f64>>();
                let what = |part: &str| format!("{part} of {kind:?} in {number:?}");
                let limit = tolerance(number);
                assert_close(&what("y"), &download(&client, &y, number), &expected(&|at| active[at].0 * up[at]), limit);
                let wanted = expected(&|at| dy[at] * up[at] * active[at].1);
                assert_close(&what("dgate"), &download(&client, &dgate, number), &wanted, limit);
                let wanted = expected(&|at| dy[at] * active[at].0);
                assert_close(&what("dup"), &download(&client, &dup, number), &wanted, limit);
            }
        }
    }
}

/// The activation, and its derivative by differences.
fn activation(x: f64, kind: Gate) -> (f64, f64) {
    let of = |x: f64| match kind {
        Gate::Silu => x / (1.0 + (-x).exp()),
        Gate::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
    };
    (of(x), (of(x + 1e-5) - of(x - 1e-5)) / 2e-5)
}

#[test]
fn rotations_match_loops_in_f64_and_turn_back() {
    let Some(client) = client() else { return };
    for number in formats(&client) {
        for (tokens, heads, head_dim) in [(1, 1, 2), (5, 3, 16), (33, 2, 64), (7, 5, 128)] {
            let (mut random, half) = (Values(7 + tokens as u64), head_dim / 2);
            let x = random.take(tokens * heads * head_dim);
            let angles = random.take(tokens * half);
            let [cos, sin]: [Vec<f32>; 2] =
                [f32::cos, f32::sin].map(|of| angles.iter().map(|&angle| of(angle)).collect());
            let on_device = upload(&client, &x, number);
            let [c, s] = [&cos, &sin].map(|values| upload(&client, values, Number::F32));
            let y = rotary(&client, &on_device, [&c, &s], head_dim, Rotation::Forward, number);
            let back = rotary(&client, &y, [&c, &s], head_dim, Rotation::Inverse, number);
            let x = rounded(&x, number);
            let mut expected = vec![0.0; x.len()];
            for head in 0..tokens * heads {
                for at in 0..half {
                    let angle = head / heads * half + at;
                    let (cos, sin) = (f64::from(cos[angle]), f64::from(sin[angle]));
                    let (first, second) = (head * head_dim + at, head * head_dim + half + at);
                    expected[first] = x[first] * cos - x[second] * sin;
                    expected[second] = x[second] * cos + x[first] * sin;
                }
            }
            assert_close("rotated", &download(&client, &y, number), &expected, tolerance(number));
            assert_close("turned back", &download(&client, &back, number), &x, tolerance(number));
        }
    }
}

#[test]
fn losses_and_their_gradients_match_loops_in_f64() {
    let Some(client) = client() else { return };
    for number in formats(&client) {
        for (rows, vocabulary) in [(1, 2), (5, 100), (33, 1000), (3, 49_152)] {
            let mut random = Values(rows as u64);
            let logits: Vec<f32> = random.take(rows * vocabulary).iter().map(|value| value * 30.0).collect();
            let targets: Vec<u32> = (0..rows).map(|row| ((row * 7919 + vocabulary - 1) % vocabulary) as u32).collect();
            let on_device = upload(&client, &logits, number);
            let places = words(&client, &targets);
            let losses = cross_entropy(&client, &on_device, &places, None, number);
            assert_eq!(
                download(&client, &on_device, number),
                to_f32(&rounded(&logits, number)),
                "untouched without a scale"
            );
            let again = cross_entropy(&client, &on_device, &places, Some(0.25), number);
            assert_eq!(download(&client, &losses, Number::F32), download(&client, &again, Number::F32));
            let logits = rounded(&logits, number);
            let (mut losses64, mut gradients64) = (Vec::new(), Vec::new());
            for (row, &target) in targets.iter().enumerate() {
                let logits = &logits[row * vocabulary..][..vocabulary];
                let largest = logits.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
                losses64.push(largest + sum.ln() - logits[target as usize]);
                let of = |at: usize| (logits[at] - largest).exp() / sum - f64::from(u8::from(at == target as usize));
                gradients64.extend((0..vocabulary).map(|at| 0.25 * of(at)));
            }
            assert_close("losses", &download(&client, &losses, Number::F32), &losses64, 2e-5);
            assert_close("gradients", &download(&client, &on_device, number), &gradients64, tolerance(number));
        }
    }
}

fn to_f32(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

#[test]
fn updates_match_loops_in_f64_step_after_step() {
    let Some(client) = client() else { return };
    for number in formats(&client) {
        for count in [1, 255, 1000] {
            let mut random = Values(count as u64);
            let start = random.take(count);
            let buffers =
                [start.clone(), vec![0.0; count], vec![0.0; count]].map(|values| upload(&client, &values, Number::F32));
            let [parameters, first, second] = &buffers;
            let copy = Buffer::empty(&client, count, number);
            let (mut p, mut m, mut v) = (rounded(&start, Number::F32), vec![0.0; count], vec![0.0; count]);
            for step in 1..=5 {
                let gradients = random.take(count);
                let rule = AdamW {
                    learning_rate: 0.01,
                    betas: [0.9, 0.999],
                    epsilon: 1e-8,
                    weight_decay: 0.1,
                    gradient_scale: 0.5,
                    step,
                };
                let on_device = upload(&client, &gradients, Number::F32);
                adamw(&client, [parameters, &on_device, first, second], Some((&copy, number)), rule);
                for at in 0..count {
                    let gradient = 0.5 * f64::from(gradients[at]);
                    m[at] = 0.9 * m[at] + 0.1 * gradient;
                    v[at] = 0.999 * v[at] + 0.001 * gradient * gradient;
                    let corrected =
                        (m[at] / (1.0 - 0.9f64.powi(step as i32)), v[at] / (1.0 - 0.999f64.powi(step as i32)));
                    p[at] = p[at] * (1.0 - 0.01 * 0.1) - 0.01 * corrected.0 / (corrected.1.sqrt() + 1e-8);
                }
            }
            let masters = download(&client, parameters, Number::F32);
            assert_close("masters", &masters, &p, 2e-5);
            assert_close("first moments", &download(&client, first, Number::F32), &m, 2e-5);
            assert_close("second moments", &download(&client, second, Number::F32), &v, 2e-4);
            assert_eq!(download(&client, &copy, number), to_f32(&rounded(&masters, number)));
        }
    }
}
