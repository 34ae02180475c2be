//! Embedding, final norm and head in full training; decoding over blocks that are fetched.

use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{DType, Device, Tensor, TensorData};
use kernels::twin;
use planner::architecture::{DecoderSpec, Family};

use super::{FAMILIES, assert_close, bits, block, flat, matrix, spec};
use crate::generate::{Ending, Stack};
use crate::{Block, BlockAdapters, BlockSource, BoxedError, Decoder, NormTraining, OuterGradients};

fn decoder(spec: DecoderSpec, dtype: DType) -> Decoder {
    let embedding = matrix(1, [spec.vocabulary, spec.hidden], dtype);
    let head = if spec.tied_head { embedding.clone() } else { matrix(2, [spec.vocabulary, spec.hidden], dtype) };
    let final_norm = matrix(3, [1, spec.hidden], DType::F32).reshape([spec.hidden]) * 0.3 + 1.0;
    Decoder { spec, embedding, head, final_norm, device: Device::flex() }
}

const ROWS: [u32; 5] = [0, 3, 4, 9, 18];
const TARGETS: [u32; 5] = [7, 0, 52, 7, 11];

#[test]
fn the_loss_and_all_outer_gradients_match_plain_burn() {
    for family in [Family::Llama, Family::Gemma3] {
        let decoder = decoder(spec(family), DType::F32);
        let (width, vocabulary) = (decoder.spec.hidden, decoder.spec.vocabulary);
        let x = matrix(5, [19, width], DType::F32);
        let mut dhead = vec![0.0f32; vocabulary * width];
        let wanted = OuterGradients { scale: 0.5, head_vd: Some(&mut dhead), final_norm: NormTraining::Trained };
        let ours = decoder.loss_training(x.clone(), &ROWS, &TARGETS, wanted);

        let tracked = |tensor: &Tensor<2>| Tensor::<2>::from_inner(tensor.clone()).require_grad();
        let (x, head) = (tracked(&x), tracked(&decoder.head));
        let norm = Tensor::<1>::from_inner(decoder.final_norm.clone()).require_grad();
        let indices = TensorData::from(ROWS.map(|row| row as i32));
        let rows = x.clone().select(0, Tensor::from_data(indices, &Device::flex().autodiff()));
        let normed = twin::rms_norm(rows, norm.clone(), decoder.spec.norm_epsilon as f32);
        let sum = twin::cross_entropy_sum(normed, head.clone(), &TARGETS);
        let mut found = (sum.clone() * 0.5).backward();
        let expected = f64::from(sum.inner().into_scalar::<f32>());
        assert!((ours.sum - expected).abs() < 1e-5 * expected, "{} against {expected}", ours.sum);
        assert_close("dx", &flat(ours.dx_td), &flat(x.grad_remove(&mut found).unwrap()), 1e-5);
        assert_close("dhead", &dhead, &flat(head.grad_remove(&mut found).unwrap()), 1e-5);
        assert_close("dnorm", &ours.final_norm_d.unwrap(), &flat(norm.grad_remove(&mut found).unwrap()), 1e-5);
    }
}

#[test]
fn what_is_trained_around_the_blocks_changes_no_bit_of_the_rest() {
    for dtype in [DType::F32, DType::BF16] {
        let decoder = decoder(spec(Family::Llama), dtype);
        let x = matrix(5, [19, decoder.spec.hidden], dtype);
        let frozen = decoder.loss(x.clone(), &ROWS, &TARGETS, Some(0.5));
        let mut dhead = vec![0.0f32; decoder.spec.vocabulary * decoder.spec.hidden];
        let wanted = OuterGradients { scale: 0.5, head_vd: Some(&mut dhead), final_norm: NormTraining::Trained };
        let trained = decoder.loss_training(x.clone(), &ROWS, &TARGETS, wanted);
        assert_eq!(frozen.sum.to_bits(), trained.sum.to_bits());
        assert_eq!(bits(&flat(frozen.dx_rd.unwrap())), bits(&flat(trained.dx_td)));
        assert_eq!(decoder.loss(x, &ROWS, &TARGETS, None).sum.to_bits(), trained.sum.to_bits());
    }
}

#[test]
fn a_batch_without_targets_has_no_loss_and_zero_gradients() {
    let decoder = decoder(spec(Family::Llama), DType::F32);
    let mut dhead = vec![0.0f32; decoder.spec.vocabulary * decoder.spec.hidden];
    let wanted = OuterGradients { scale: 0.5, head_vd: Some(&mut dhead), final_norm: NormTraining::Trained };
    let loss = decoder.loss_training(matrix(5, [19, decoder.spec.hidden], DType::F32), &[], &[], wanted);
    assert_eq!(loss.sum, 0.0);
    assert_eq!(flat(loss.dx_td), vec![0.0; 19 * decoder.spec.hidden]);
    assert_eq!(loss.final_norm_d.unwrap(), vec![0.0; decoder.spec.hidden]);
    assert!(dhead.iter().all(|&value| value == 0.0));
}

#[test]
fn the_embeddings_gradient_carries_the_familys_factor() {
    for family in [Family::Llama, Family::Gemma3] {
        let decoder = decoder(spec(family), DType::F32);
        let (width, tokens) = (decoder.spec.hidden, [3u32, 9, 3, 52]);
        let dx = matrix(6, [tokens.len(), width], DType::F32);
        let mut ours = vec![0.0f32; decoder.spec.vocabulary * width];
        decoder.embedding_gradient(dx.clone(), &tokens, &mut ours);
        let embedding = Tensor::<2>::from_inner(decoder.embedding.clone()).require_grad();
        let device = Device::flex().autodiff();
        let tracked = Decoder { embedding: embedding.clone(), device, spec: decoder.spec.clone(), ..decoder };
        let mut found = kernels::seed_gradient(tracked.embed(&tokens), dx).backward();
        assert_close("embedding", &ours, &flat(embedding.grad_remove(&mut found).unwrap()), 1e-6);
    }
}

/// A stack whose blocks are made anew for every request, and that can fail.
struct Fetched {
    spec: DecoderSpec,
    requests: AtomicUsize,
    fail_at: usize,
}

impl BlockSource for Fetched {
    fn block(&self, index: usize) -> Result<Block, BoxedError> {
        match self.requests.fetch_add(1, Ordering::Relaxed) {
            request if request == self.fail_at => Err(format!("block {index} could not be read").into()),
            _ => Ok(block(&self.spec, index, DType::F32)),
        }
    }

    fn n_blocks(&self) -> usize {
        self.spec.n_layers()
    }
}

#[test]
fn decoding_over_fetched_blocks_gives_the_answers_of_resident_ones() {
    for family in FAMILIES {
        let spec = spec(family);
        let decoder = decoder(spec.clone(), DType::F32);
        let resident: Vec<Block> = (0..spec.n_layers()).map(|index| block(&spec, index, DType::F32)).collect();
        let adapters = vec![BlockAdapters::default(); spec.n_layers()];
        let prompts = [vec![3, 4, 5], vec![9]];
        let ending = Ending { ids: &[], max_new_tokens: 4 };
        let answers =
            |blocks: &dyn BlockSource| decoder.generate(Stack { blocks, adapters: &adapters }, &prompts, ending);
        let fetched = Fetched { spec: spec.clone(), requests: AtomicUsize::new(0), fail_at: usize::MAX };
        let expected = answers(&resident).unwrap();
        assert!(expected.iter().all(|answer| answer.len() == 4));
        assert_eq!(answers(&fetched).unwrap(), expected);
        assert_eq!(fetched.requests.into_inner(), spec.n_layers() * 4);
        let failing = Fetched { spec, requests: AtomicUsize::new(0), fail_at: 3 };
        assert_eq!(answers(&failing).unwrap_err().to_string(), "block 1 could not be read");
    }
}
