//! Times of each operation of a SmolLM2-135M block at T tokens, forward and forward plus backward, on the CPU.
//!
//! `cargo run --release -p kernels --example block_ops [T] [bf16]`; best of five, in milliseconds.

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{DType, Device, Distribution, Tensor};
use kernels::head::HeadGradients;
use kernels::{AttentionGeometry, Gate, Lora};

fn best(mut f: impl FnMut()) -> f64 {
    (0..5).fold(f64::MAX, |best, _| {
        let begun = Instant::now();
        f();
        best.min(begun.elapsed().as_secs_f64() * 1e3)
    })
}

/// Milliseconds of the three products of a trained layer by gemmkit alone (the weight's gradient from f32 operands).
fn three_products<T: gemmkit::GemmScalar>(one: T, zero: T, [tokens, inputs, outputs]: [usize; 3]) -> f64 {
    use gemmkit::{MatMut, MatRef, Parallelism::Rayon, gemm};
    let (x, w, dy) = (vec![one; tokens * inputs], vec![one; outputs * inputs], vec![one; tokens * outputs]);
    let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), vec![0.0f32; w.len()]);
    let (wide_x, wide_dy) = (vec![1.0f32; x.len()], vec![1.0f32; dy.len()]);
    let wt = MatRef::new(&w, inputs, outputs, 1, inputs as isize);
    let forward = best(|| {
        let y = MatMut::from_row_major(&mut y, tokens, outputs);
        gemm(one, MatRef::from_row_major(&x, tokens, inputs), wt, zero, y, Rayon(0));
    });
    let (dy, w) = (MatRef::from_row_major(&dy, tokens, outputs), MatRef::from_row_major(&w, outputs, inputs));
    let input = best(|| gemm(one, dy, w, zero, MatMut::from_row_major(&mut dx, tokens, inputs), Rayon(0)));
    let dyt = MatRef::new(&wide_dy, outputs, tokens, 1, outputs as isize);
    let weight = best(|| {
        let dw = MatMut::from_row_major(&mut dw, outputs, inputs);
        gemm(1.0, dyt, MatRef::from_row_major(&wide_x, tokens, inputs), 0.0, dw, Rayon(0));
    });
    forward + input + weight
}

type Op<'a> = &'a dyn Fn(&[Tensor<2>]) -> Tensor<2>;

fn report(name: &str, inputs: &[Tensor<2>], gflop: f64, f: Op<'_>) {
    let forward = best(|| drop(f(inputs)));
    let both = best(|| {
        let tracked: Vec<_> = inputs.iter().map(|x| Tensor::<2>::from_inner(x.clone()).require_grad()).collect();
        let y = f(&tracked);
        let g = y.clone().inner();
        drop(kernels::seed_gradient(y, g).backward());
    });
    println!("{name:24} forward {forward:7.2} ms {:5.0} GFLOP/s   with backward {both:7.2} ms", gflop / forward * 1e3);
}

fn run() {
    let mut arguments = std::env::args().skip(1);
    let tokens: usize = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(2048);
    let dtype = if arguments.next().is_some() { DType::BF16 } else { DType::F32 };
    let device = Device::flex();
    let random =
        |rows: usize, columns: usize| Tensor::<2>::random([rows, columns], Distribution::Uniform(-1.0, 1.0), &device);
    for (inputs, outputs) in [(576, 1536), (1536, 576), (576, 576), (576, 192)] {
        let w = random(outputs, inputs).cast(dtype);
        let x = [random(tokens, inputs).cast(dtype), random(16, inputs), random(outputs, 16)];
        let lora = Lora { scale: 2.0, dropout: None };
        let gflop = 2e-9 * (tokens * (inputs * outputs + 16 * (inputs + outputs))) as f64;
        report(&format!("lora_linear {inputs}x{outputs}"), &x, gflop, &|x: &[Tensor<2>]| {
            kernels::lora_linear(x[0].clone(), w.clone(), x[1].clone(), x[2].clone(), lora)
        });
        report(&format!("frozen_linear {inputs}x{outputs}"), &x[..1], gflop, &|x: &[Tensor<2>]| {
            kernels::frozen_linear(x[0].clone(), w.clone())
        });
        let both = [x[0].clone(), w.clone()];
        let products = match dtype {
            DType::BF16 => three_products(half::bf16::ONE, half::bf16::ZERO, [tokens, inputs, outputs]),
            _ => three_products(1.0f32, 0.0, [tokens, inputs, outputs]),
        };
        println!("gemmkit's three products {products:7.2} ms");
        report(&format!("trainable_linear {inputs}x{outputs}"), &both, gflop, &|x: &[Tensor<2>]| {
            kernels::trainable_linear(x[0].clone(), x[1].clone())
        });
    }
    let x = [random(tokens, 576).cast(dtype)];
    let norm = random(1, 576).reshape([576]);
    report("rms_norm", &x, 0.0, &|x: &[Tensor<2>]| kernels::rms_norm(x[0].clone(), norm.clone(), 1e-5));
    let (cos, sin) = (random(tokens, 32), random(tokens, 32));
    report("rotary", &x, 0.0, &|x: &[Tensor<2>]| kernels::rotary(x[0].clone(), cos.clone(), sin.clone(), 64));
    let x = [random(tokens, 1536).cast(dtype), random(tokens, 1536).cast(dtype)];
    report("gated", &x, 0.0, &|x: &[Tensor<2>]| kernels::gated(x[0].clone(), x[1].clone(), Gate::Silu));
    let x = [random(tokens, 576).cast(dtype), random(tokens, 576).cast(dtype)];
    report("residual add", &x, 0.0, &|x: &[Tensor<2>]| x[0].clone() + x[1].clone());
    for row in [48, 512, tokens] {
        let bounds: Vec<u32> = (0..tokens).step_by(row).map(|at| at as u32).chain([tokens as u32]).collect();
        let geometry = AttentionGeometry {
            n_heads: 9,
            n_kv_heads: 3,
            head_dim: 64,
            scale: 0.125,
            window: None,
            segments: Arc::new(bounds),
        };
        let x = [random(tokens, 576), random(tokens, 192), random(tokens, 192)].map(|x| x.cast(dtype));
        let gflop = 2e-9 * (9 * 64 * tokens * row) as f64;
        report(&format!("attention rows of {row}"), &x, gflop, &|x: &[Tensor<2>]| {
            kernels::attention(x[0].clone(), x[1].clone(), x[2].clone(), geometry.clone())
        });
    }
    let (h, head) = (random(tokens, 576).cast(dtype), random(49152, 576).cast(dtype));
    let targets = vec![7u32; tokens];
    let loss = |wanted: &mut dyn FnMut() -> Option<HeadGradients<'static>>| {
        best(|| drop(kernels::head::linear_cross_entropy(h.clone(), head.clone(), &targets, wanted())))
    };
    let forward = loss(&mut || None);
    let hidden = loss(&mut || Some(HeadGradients::of_hidden_states(1.0)));
    let mut sum = vec![0.0; 49152 * 576];
    let both = best(|| {
        let wanted = HeadGradients { scale: 1.0, weight_vd: Some(&mut sum) };
        drop(kernels::head::linear_cross_entropy(h.clone(), head.clone(), &targets, Some(wanted)));
    });
    println!(
        "head and loss            forward {forward:7.2} ms   with dx {hidden:7.2} ms   with dx and dw {both:7.2} ms"
    );
}

fn main() {
    // As the trainer does: from a worker of the pool.
    rayon::scope(|_| run());
}
