//! Attention over a cache against its plain-Burn twin, and adapters that were made ready against those that were not.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use burn::tensor::{DType, Tensor};

use crate::cached::on_device;
use crate::tests::{Values, assert_close, values};
use crate::{AttentionGeometry, KeyValues, Lora, cached_attention};

fn geometry(heads: [usize; 3], window: Option<usize>, lengths: &[usize]) -> AttentionGeometry {
    let mut segments = vec![0u32];
    lengths.iter().for_each(|length| segments.push(segments[segments.len() - 1] + *length as u32));
    let [n_heads, n_kv_heads, head_dim] = heads;
    AttentionGeometry { n_heads, n_kv_heads, head_dim, scale: 0.3, window, segments: Arc::new(segments) }
}

/// Two sequences that grow by turns of several lengths: one token, none, a few, more than a tile.
#[test]
fn attention_over_a_cache_matches_the_twin_turn_by_turn() {
    let turns: [[usize; 2]; 7] = [[5, 1], [1, 1], [1, 0], [3, 1], [0, 1], [130, 70], [1, 1]];
    for (heads, window) in [([6, 2, 16], None), ([4, 4, 32], Some(5)), ([3, 1, 6], Some(64)), ([2, 1, 128], None)] {
        for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::BF16, 2e-2)] {
            let mut random = Values(7);
            let (mut ours, mut twin) = (KeyValues::with_room(&[7, 0]), KeyValues::with_room(&[0, 0]));
            for lengths in turns {
                let geometry = geometry(heads, window, &lengths);
                let tokens: usize = lengths.iter().sum();
                let mut matrix = |heads: usize| random.matrix(tokens, heads * geometry.head_dim).cast(dtype);
                let qkv = [matrix(geometry.n_heads), matrix(geometry.n_kv_heads), matrix(geometry.n_kv_heads)];
                let mixed = values(cached_attention(&mut ours, qkv.clone(), geometry.clone()));
                let expected = values(on_device(&mut twin, qkv, &geometry));
                assert_close(&format!("{heads:?}, window {window:?}, {lengths:?}"), &mixed, &expected, tolerance);
            }
            for cache in [&ours, &twin] {
                assert_eq!([cache.tokens(0), cache.tokens(1)], [141, 75]);
            }
        }
    }
}

#[test]
fn a_cache_with_room_does_not_move_until_it_is_full() {
    let mut random = Values(5);
    let (mut roomy, mut at) = (KeyValues::with_room(&[9, 2]), Vec::new());
    for tokens in [4, 1, 4, 3] {
        let geometry = geometry([4, 2, 16], None, &[tokens, 0]);
        let mut matrix = |heads: usize| random.matrix(tokens, heads * 16);
        let qkv = [matrix(4), matrix(2), matrix(2)];
        cached_attention(&mut roomy, qkv, geometry);
        at.push(roomy.place());
    }
    assert_eq!(at[0].1, (9 + 2) * 32);
    assert!(at[..3].iter().all(|place| *place == at[0]), "{at:?}");
    assert_eq!(at[3].1, (256 + 2) * 32, "twelve tokens of nine");
}

#[test]
fn a_cache_that_was_cut_goes_on_as_one_that_never_was_longer() {
    let mut random = Values(11);
    let mut turn = |cache: &mut KeyValues, tokens: usize| {
        let geometry = geometry([4, 2, 16], Some(9), &[tokens]);
        let mut matrix = |heads: usize| random.matrix(tokens, heads * 16);
        let qkv = [matrix(4), matrix(2), matrix(2)];
        (qkv.clone(), geometry.clone(), values(cached_attention(cache, qkv, geometry)))
    };
    let mut cut = KeyValues::with_room(&[0]);
    turn(&mut cut, 6);
    let mut straight = cut.clone();
    turn(&mut cut, 5);
    cut.truncate(0, 6);
    let (qkv, geometry, expected) = turn(&mut straight, 3);
    assert_eq!(values(cached_attention(&mut cut, qkv, geometry)), expected);
    cut.truncate(0, 0);
    assert_eq!(cut.tokens(0), 0);
}

#[test]
fn adapters_made_ready_give_the_same_bits() {
    let mut random = Values(3);
    for dtype in [DType::F32, DType::BF16] {
        for tokens in [1, 2, 40] {
            let (x, w) = (random.matrix(tokens, 64).cast(dtype), random.matrix(96, 64).cast(dtype));
            let (a, b) = (random.matrix(8, 64), random.matrix(96, 8));
            let lora = Lora { scale: 1.7, dropout: None };
            let trained = crate::lora_linear(x.clone(), w.clone(), a.clone(), b.clone(), lora);
            let (a, b) = crate::ready_factors(a, b, dtype);
            let ready = crate::adapted_linear(x, w, a, b, lora.scale);
            let bits = |y: Tensor<2>| values(y).into_iter().map(f32::to_bits).collect::<Vec<_>>();
            assert_eq!(bits(trained), bits(ready), "{dtype:?}, {tokens} tokens");
        }
    }
}
