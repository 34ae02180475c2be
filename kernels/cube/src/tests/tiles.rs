//! What lies between the products of attention, against loops in f64.

use super::*;

const TOKENS: usize = 20;
const HEADS: usize = 2;
/// Rows of 7 and 13 tokens; a query sees five keys at most.
const BOUNDS: [u32; 3] = [0, 7, 20];
const WINDOW: usize = 5;
/// The second and the third of three heads.
const TILE: Tile = Tile { first_head: 1, first_query: 9, queries: 6, first_key: 5, keys: 10 };

fn shape() -> AttentionShape {
    AttentionShape { n_heads: HEADS + 1, n_kv_heads: HEADS + 1, head_dim: 4, scale: 0.7, window: Some(WINDOW) }
}

/// Whether the tile's query sees its key.
fn is_seen(query: usize, key: usize) -> bool {
    let (query, key) = (TILE.first_query + query, TILE.first_key + key);
    key >= 7 && key <= query && query - key < WINDOW
}

/// For each head and query: log-sum-exp and probabilities of its keys.
fn softmax(scores: &[f32]) -> Vec<(f64, Vec<f64>)> {
    let rows = scores.chunks(TILE.keys).enumerate();
    rows.map(|(row, scores)| {
        let weight = |key: usize| match is_seen(row % TILE.queries, key) {
            true => (f64::from(scores[key]) * 0.7).exp(),
            false => 0.0,
        };
        let weights: Vec<f64> = (0..TILE.keys).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        (sum.ln(), weights.iter().map(|weight| weight / sum).collect())
    })
    .collect()
}

fn assert_near(ours: &[f32], theirs: &[f64], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (at, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((f64::from(*a) - b).abs() < 2e-5, "{what}[{at}]: {a}, {b} in f64");
    }
}

#[test]
fn a_tiles_probabilities_and_gradients_are_those_of_f64() {
    let Some(client) = client() else { return };
    let count = HEADS * TILE.queries * TILE.keys;
    let mut random = Values(5);
    let [scores, along] = [0, 1].map(|_| random.take(count));
    let delta = random.take((HEADS + 1) * TOKENS);
    let rows = Rows::new(&client, &BOUNDS);
    let lse = upload(&client, &vec![9.0; (HEADS + 1) * TOKENS], Number::F32);
    let on_device = |values: &[f32]| upload(&client, values, Number::F32);
    let (scores_there, along_there, delta_there) = (on_device(&scores), on_device(&along), on_device(&delta));

    let weights = tile_softmax(&client, &scores_there, &rows, &lse, TILE, shape(), Number::F32);
    let expected = softmax(&scores);
    let flat: Vec<f64> = expected.iter().flat_map(|(_, weights)| weights.clone()).collect();
    assert_near(&download(&client, &weights, Number::F32), &flat, "probabilities");
    let mut sums = vec![9.0f64; (HEADS + 1) * TOKENS];
    for (row, (sum, _)) in expected.iter().enumerate() {
        sums[(TILE.first_head + row / TILE.queries) * TOKENS + TILE.first_query + row % TILE.queries] = *sum;
    }
    assert_near(&download(&client, &lse, Number::F32), &sums, "log-sum-exps, and what was not the tile's");

    let inputs = [&scores_there, &along_there];
    let results = [&lse, &delta_there];
    let [again, gradients] = tile_softmax_gradient(&client, inputs, &rows, results, TILE, shape(), Number::F32);
    assert_near(&download(&client, &again, Number::F32), &flat, "probabilities again");
    let of_row =
        |row: usize| delta[(TILE.first_head + row / TILE.queries) * TOKENS + TILE.first_query + row % TILE.queries];
    let expected: Vec<f64> =
        (0..count).map(|at| flat[at] * (f64::from(along[at]) - f64::from(of_row(at / TILE.keys))) * 0.7).collect();
    assert_near(&download(&client, &gradients, Number::F32), &expected, "gradients of scores");
}

#[test]
fn a_tiles_part_is_added_where_its_keys_are() {
    let Some(client) = client() else { return };
    let mut random = Values(6);
    let (part, mut sums) = (random.take(HEADS * TILE.keys * 4), random.take((HEADS + 1) * TOKENS * 4));
    let [part_there, sums_there] = [&part, &sums].map(|values| upload(&client, values, Number::F32));
    add_tile(&client, &part_there, &sums_there, (1, TILE), shape());
    for (at, value) in part.iter().enumerate() {
        let (column, key, head) = (at % 4, at / 4 % TILE.keys, at / 4 / TILE.keys);
        sums[((1 + head) * TOKENS + TILE.first_key + key) * 4 + column] += value;
    }
    assert!(download(&client, &sums_there, Number::F32) == sums);
}
