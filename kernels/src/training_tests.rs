//! Trained weights, norms, biases, heads and embeddings: against the twins, against plain f64 loops, and bit for bit.
#![allow(clippy::unwrap_used)]

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::embedding::embedding_gradient;
use crate::head::{HeadGradients, HeadLoss, linear_cross_entropy, on_any};
use crate::tests::{Values, assert_close, values};
use crate::twin;

const SHAPES: [[usize; 3]; 5] = [[1, 2, 3], [3, 8, 5], [17, 33, 20], [64, 96, 130], [1030, 40, 24]];
const DTYPES: [DType; 2] = [DType::F32, DType::BF16];

/// How far results stored in a dtype may be off, relative to the largest.
fn tolerance(dtype: DType) -> f32 {
    if dtype == DType::BF16 { 8e-3 } else { 2e-5 }
}

type Op<'a> = &'a dyn Fn(Tensor<2>, Tensor<2>) -> Tensor<2>;

/// Output, dx and dw of an operation on tracked copies, for an incoming gradient that depends on the shape only. The
/// weight's gradient comes with the dtype it was handed out in.
fn run(x: &Tensor<2>, w: &Tensor<2>, f: Op<'_>) -> ([Vec<f32>; 3], DType) {
    let tracked = |tensor: &Tensor<2>| Tensor::<2>::from_inner(tensor.clone()).require_grad();
    let (x, w) = (tracked(x), tracked(w));
    let y = f(x.clone(), w.clone());
    let [rows, columns] = y.dims();
    let g = incoming(rows, columns, y.dtype());
    let mut gradients = crate::seed_gradient(y.clone(), g).backward();
    let (dx, dw) = (x.grad_remove(&mut gradients).unwrap(), w.grad_remove(&mut gradients).unwrap());
    assert_eq!(dx.dtype(), x.dtype());
    let dtype = dw.dtype();
    ([values(y.inner()), values(dx), values(dw)], dtype)
}

fn incoming(rows: usize, columns: usize, dtype: DType) -> Tensor<2> {
    Values(99).matrix(rows, columns).cast(dtype)
}

fn exact(x: &Tensor<2>) -> Vec<f64> {
    values(x.clone()).into_iter().map(f64::from).collect()
}

fn narrow(exact: &[f64]) -> Vec<f32> {
    exact.iter().map(|&x| x as f32).collect()
}

fn in_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn linear(x: Tensor<2>, w: Tensor<2>) -> Tensor<2> {
    crate::trainable_linear(x, w)
}

fn norm(x: Tensor<2>, w: Tensor<2>) -> Tensor<2> {
    let width = x.dims()[1];
    crate::trainable_rms_norm(x, w.reshape([width]), 1e-5)
}

fn bias(y: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    let width = y.dims()[1];
    crate::add_bias(y, b.reshape([width]))
}

#[test]
fn a_trained_linear_layer_and_both_gradients_match_the_twin_and_an_f64_loop() {
    for [tokens, inputs, outputs] in SHAPES {
        for dtype in DTYPES {
            let mut random = Values(tokens as u64);
            let (x, w) = (random.matrix(tokens, inputs).cast(dtype), random.matrix(outputs, inputs).cast(dtype));
            let (ours, dw_dtype) = run(&x, &w, &linear);
            assert_eq!(dw_dtype, DType::F32);
            let (twins, _) = run(&x, &w, &|x, w| twin::frozen_linear(x, w));
            for (part, (a, b)) in ours.iter().zip(&twins).enumerate() {
                assert_close(&format!("{dtype:?} linear, part {part}"), a, b, tolerance(dtype));
            }
            let (x, g) = (exact(&x), exact(&incoming(tokens, outputs, dtype)));
            let mut dw = vec![0.0; outputs * inputs];
            for (at, sum) in dw.iter_mut().enumerate() {
                let (o, i) = (at / inputs, at % inputs);
                *sum = (0..tokens).map(|t| g[t * outputs + o] * x[t * inputs + i]).sum();
            }
            // In f32 accuracy also from bf16 operands: their products are exact in f32.
            assert_close(&format!("{dtype:?} dw"), &ours[2], &narrow(&dw), 2e-6);
        }
    }
}

#[test]
fn a_trained_norm_and_both_gradients_match_the_twin_and_an_f64_loop() {
    for [tokens, width, _] in SHAPES {
        for dtype in DTYPES {
            let mut random = Values(7 + tokens as u64);
            let (x, w) = (random.matrix(tokens, width).cast(dtype), random.matrix(1, width));
            let (ours, dw_dtype) = run(&x, &w, &norm);
            assert_eq!(dw_dtype, DType::F32);
            let (twins, _) = run(&x, &w, &|x, w| twin::rms_norm(x, w.reshape([width]), 1e-5));
            for (part, (a, b)) in ours.iter().zip(&twins).enumerate() {
                assert_close(&format!("{dtype:?} norm, part {part}"), a, b, tolerance(dtype));
            }
            let (x, g) = (exact(&x), exact(&incoming(tokens, width, dtype)));
            let mut dw = vec![0.0; width];
            for (x, g) in x.chunks(width).zip(g.chunks(width)) {
                let rstd = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / width as f64 + 1e-5).sqrt();
                dw.iter_mut().zip(x).zip(g).for_each(|((sum, x), g)| *sum += g * x * rstd);
            }
            assert_close(&format!("{dtype:?} norm dw"), &ours[2], &narrow(&dw), 4e-6);
        }
    }
}

#[test]
fn a_bias_and_its_gradient_match_the_twin_and_an_f64_loop() {
    for [tokens, width, _] in SHAPES {
        for dtype in DTYPES {
            let mut random = Values(11 + tokens as u64);
            let (y, b) = (random.matrix(tokens, width).cast(dtype), random.matrix(1, width).cast(dtype));
            let (ours, db_dtype) = run(&y, &b, &bias);
            assert_eq!(db_dtype, DType::F32);
            let (twins, _) = run(&y, &b, &|y, b| twin::add_bias(y, b.reshape([width])));
            assert_eq!(ours[0], twins[0], "both round each sum once");
            assert_eq!(ours[1], twins[1]);
            let g = exact(&incoming(tokens, width, dtype));
            let db: Vec<f64> = (0..width).map(|at| g.iter().skip(at).step_by(width).sum()).collect();
            assert_close(&format!("{dtype:?} db"), &ours[2], &narrow(&db), 2e-6);
        }
    }
}

#[test]
fn trained_layers_give_the_bits_of_frozen_ones_forward_and_towards_their_input() {
    for dtype in DTYPES {
        let mut random = Values(5);
        let (x, w) = (random.matrix(65, 40).cast(dtype), random.matrix(30, 40).cast(dtype));
        let (trained, _) = run(&x, &w, &linear);
        let x_tracked = Tensor::<2>::from_inner(x.clone()).require_grad();
        let y = crate::frozen_linear(x_tracked.clone(), w);
        let mut gradients = crate::seed_gradient(y.clone(), incoming(65, 30, dtype)).backward();
        assert_eq!(bits(&trained[0]), bits(&values(y.inner())));
        assert_eq!(bits(&trained[1]), bits(&values(x_tracked.grad_remove(&mut gradients).unwrap())));
    }
}

#[test]
fn gradients_of_trained_layers_have_the_same_bits_for_one_and_two_threads() {
    for dtype in DTYPES {
        let results = |threads| {
            in_threads(threads, || {
                let mut random = Values(3);
                let (x, w) = (random.matrix(700, 96).cast(dtype), random.matrix(130, 96).cast(dtype));
                let (norm_w, b) = (random.matrix(1, 96), random.matrix(1, 96).cast(dtype));
                [run(&x, &w, &linear).0, run(&x, &norm_w, &norm).0, run(&x, &b, &bias).0]
                    .map(|parts| parts.map(|p| bits(&p)))
            })
        };
        assert_eq!(results(1), results(2), "{dtype:?}");
    }
}

#[test]
fn an_untracked_operand_of_a_trained_layer_gets_no_gradient() {
    let mut random = Values(31);
    let plain_on_graph = |x: Tensor<2>| Tensor::<2>::from_inner(x);
    let (x, w) = (plain_on_graph(random.matrix(9, 12)), plain_on_graph(random.matrix(6, 12)).require_grad());
    let y = crate::trainable_linear(x.clone(), w.clone());
    let y = crate::add_bias(y, random.matrix(1, 6).reshape([6]));
    let y = crate::trainable_rms_norm(y, random.matrix(1, 6).reshape([6]), 1e-6);
    let mut gradients = crate::seed_gradient(y, random.matrix(9, 6)).backward();
    assert!(x.grad_remove(&mut gradients).is_none());
    assert_eq!(w.grad_remove(&mut gradients).unwrap().dims(), [6, 12]);
}

/// A head, rows of hidden states and their targets.
struct HeadCase {
    x: Tensor<2>,
    w: Tensor<2>,
    targets: Vec<u32>,
}

impl HeadCase {
    fn new([rows, width, vocabulary]: [usize; 3], dtype: DType) -> HeadCase {
        let mut random = Values(29 + rows as u64);
        let (x, w) = (random.matrix(rows, width).cast(dtype), random.matrix(vocabulary, width).cast(dtype));
        HeadCase { x, w, targets: (0..rows).map(|_| random.below(vocabulary) as u32).collect() }
    }

    fn loss(&self, scale: f32, weight_vd: Option<&mut [f32]>) -> HeadLoss {
        let wanted = HeadGradients { scale, weight_vd };
        linear_cross_entropy(self.x.clone(), self.w.clone(), &self.targets, Some(wanted))
    }

    /// The head's gradient by its definition, `(softmax - onehot)ᵀ x * scale`.
    fn exact_dw(&self, scale: f64) -> Vec<f64> {
        let (width, vocabulary) = (self.x.dims()[1], self.w.dims()[0]);
        let (x, w) = (exact(&self.x), exact(&self.w));
        let mut dw = vec![0.0; vocabulary * width];
        for (x, &target) in x.chunks(width).zip(&self.targets) {
            let logits: Vec<f64> = w.chunks(width).map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum()).collect();
            let total: f64 = logits.iter().map(|logit: &f64| logit.exp()).sum();
            for (at, (logit, dw)) in logits.iter().zip(dw.chunks_mut(width)).enumerate() {
                let d = (logit.exp() / total - f64::from(u8::from(at == target as usize))) * scale;
                dw.iter_mut().zip(x).for_each(|(sum, x)| *sum += d * x);
            }
        }
        dw
    }
}

/// Rows, width, vocabulary; borders of row chunks (512) and column blocks (2064) lie inside.
const HEADS: [[usize; 3]; 4] = [[1, 4, 5], [7, 16, 300], [1030, 8, 257], [5, 12, 4129]];

#[test]
fn the_heads_gradient_is_added_to_what_is_there_and_matches_an_f64_loop() {
    for shape @ [_, width, vocabulary] in HEADS {
        for dtype in DTYPES {
            let case = HeadCase::new(shape, dtype);
            let mut dw = vec![0.25f32; vocabulary * width];
            case.loss(0.5, Some(&mut dw));
            let added: Vec<f32> = dw.iter().map(|sum| sum - 0.25).collect();
            let bound = if dtype == DType::BF16 { 1.5e-2 } else { 1e-5 };
            assert_close(&format!("{shape:?} {dtype:?}"), &added, &narrow(&case.exact_dw(0.5)), bound);
        }
    }
}

#[test]
fn the_heads_twin_path_gives_the_same_loss_and_gradients_as_the_kernels() {
    for shape @ [_, width, vocabulary] in HEADS {
        let case = HeadCase::new(shape, DType::F32);
        let (mut ours, mut twins) = (vec![0.5f32; vocabulary * width], vec![0.5f32; vocabulary * width]);
        let kernel = case.loss(2.0, Some(&mut ours));
        let wanted = HeadGradients { scale: 2.0, weight_vd: Some(&mut twins) };
        let twin = on_any(case.x.clone(), case.w.clone(), &case.targets, Some(wanted));
        assert!((kernel.sum - twin.sum).abs() <= 1e-5 * twin.sum, "{} against {}", kernel.sum, twin.sum);
        assert_close("dx", &values(kernel.dx_rd.unwrap()), &values(twin.dx_rd.unwrap()), 1e-5);
        assert_close("dw", &ours, &twins, 1e-5);
        let alone = on_any(case.x, case.w, &case.targets, None);
        assert!(alone.dx_rd.is_none());
        assert_eq!(alone.sum.to_bits(), twin.sum.to_bits());
    }
}

#[test]
fn asking_for_the_heads_gradient_changes_no_bit_of_the_rest() {
    for shape @ [_, width, vocabulary] in HEADS {
        for dtype in DTYPES {
            let case = HeadCase::new(shape, dtype);
            let mut dw = vec![0.0f32; vocabulary * width];
            let (with, without) = (case.loss(0.5, Some(&mut dw)), case.loss(0.5, None));
            assert_eq!(with.sum.to_bits(), without.sum.to_bits());
            assert_eq!(bits(&values(with.dx_rd.unwrap())), bits(&values(without.dx_rd.unwrap())));
            let alone = linear_cross_entropy(case.x.clone(), case.w.clone(), &case.targets, None);
            assert_eq!(alone.sum.to_bits(), with.sum.to_bits());
        }
    }
}

#[test]
fn the_heads_gradient_has_the_same_bits_for_one_and_two_threads() {
    for dtype in DTYPES {
        let run = |threads| {
            in_threads(threads, || {
                let mut dw = vec![0.0f32; 257 * 48];
                let loss = HeadCase::new([1030, 48, 257], dtype).loss(0.5, Some(&mut dw));
                (loss.sum.to_bits(), bits(&values(loss.dx_rd.unwrap())), bits(&dw))
            })
        };
        assert_eq!(run(1), run(2), "{dtype:?}");
    }
}

#[test]
fn an_embeddings_gradient_adds_the_rows_of_equal_tokens_in_token_order() {
    let (tokens, width, vocabulary) = ([4u32, 0, 4, 2, 4, 0], 33, 6);
    for dtype in DTYPES {
        for scale in [None, Some(5.5f32)] {
            let dx = Values(41).matrix(tokens.len(), width).cast(dtype);
            let mut found = vec![1.0f32; vocabulary * width];
            embedding_gradient(dx.clone(), &tokens, scale, &mut found);
            let mut expected = vec![1.0f32; vocabulary * width];
            for (dx, &token) in values(dx.clone()).chunks(width).zip(&tokens) {
                for (at, dx) in dx.iter().enumerate() {
                    expected[token as usize * width + at] += dx * scale.unwrap_or(1.0);
                }
            }
            assert_close("rows", &found, &expected, 1e-6);
            let table = Tensor::<2>::zeros([vocabulary, width], (&Device::flex(), DType::F32));
            let table = Tensor::<2>::from_inner(table).require_grad();
            let ids = TensorData::from(tokens.map(|token| token as i32));
            let looked_up = table.clone().select(0, Tensor::from_data(ids, &Device::flex().autodiff()));
            let y = looked_up * scale.unwrap_or(1.0);
            let mut gradients = crate::seed_gradient(y, dx.cast(DType::F32)).backward();
            let twin = values(table.grad_remove(&mut gradients).unwrap() + 1.0);
            assert_close("against autodiff", &found, &twin, 1e-6);
        }
    }
}
