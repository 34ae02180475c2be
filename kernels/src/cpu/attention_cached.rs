//! Attention of new tokens over the keys and values of all tokens before them.
//!
//! Shape letters: `t` tokens of a sequence, `h` query heads, `g` key-value heads, `d` head width. All arrays are row-major.
//!
//! In:    the new tokens' queries, the keys and values of the whole sequence, theirs included; the shape.
//! Out:   the mixed values of the new tokens.
//! Never: depends on the number of threads; copies a key or a value.
//!
//! One new token takes one pass over keys and values: it is bound by reading them. Several take the tiles of
//! [`super::attention`].

use multiversion::multiversion;

use super::attention::{AttentionInputs, AttentionShape, attention_onward};
use super::element::Element;
use super::math::{exp, sum_lanes};
use super::parallel::{Shared, for_each_task};

/// Partial sums of a product of two rows.
const LANES: usize = 32;

/// New tokens of one sequence.
#[derive(Debug)]
pub struct Onward<'a, E> {
    /// Queries of the new tokens, `[new, n_heads * head_dim]`.
    pub q: &'a [E],
    /// Keys of all tokens, `[t, n_kv_heads * head_dim]`.
    pub k_tgd: &'a [E],
    /// Values of all tokens, `[t, n_kv_heads * head_dim]`.
    pub v_tgd: &'a [E],
    /// The result, `[new, n_heads * head_dim]`.
    pub out: &'a mut [E],
}

/// Computes the attention of every sequence's new tokens.
///
/// # Panics
/// If lengths and shape disagree: they come from the cache's own layout, so that is our bug.
pub fn attention_cached<E: Element>(sequences: Vec<Onward<'_, E>>, shape: &AttentionShape) {
    let width = shape.n_heads * shape.head_dim;
    let (single, several): (Vec<_>, Vec<_>) = sequences.into_iter().partition(|sequence| sequence.q.len() == width);
    for sequence in several {
        let Onward { q, k_tgd, v_tgd, out } = sequence;
        let total = k_tgd.len() / (shape.n_kv_heads * shape.head_dim);
        let first_query = total - q.len() / width;
        let inputs = AttentionInputs { q_thd: q, k_tgd, v_tgd, segments: &[] };
        attention_onward(&inputs, shape, first_query, out);
    }
    let group = shape.n_heads / shape.n_kv_heads;
    let rows: Vec<_> = single.into_iter().map(|one| (one.q, one.k_tgd, one.v_tgd, Shared::new(one.out))).collect();
    for_each_task(rows.len() * shape.n_kv_heads, |task| {
        let ((q, k, v, out), kv_head) = (&rows[task / shape.n_kv_heads], task % shape.n_kv_heads);
        let span = group * shape.head_dim;
        // SAFETY: each (sequence, key-value head) is one task, and this is the only place that writes its query heads.
        let out = unsafe { out.part(kv_head * span, span) };
        one_token(
            &q[kv_head * span..][..span],
            &HeadOf::new(k, kv_head, shape),
            &HeadOf::new(v, kv_head, shape),
            out,
            shape,
        );
    });
}

/// One key-value head of a cache, the tokens that the newest one sees.
struct HeadOf<'a, E> {
    /// Rows, the first one seen first.
    data: &'a [E],
    /// Distance between tokens.
    stride: usize,
    /// Where the head starts inside a token.
    offset: usize,
    width: usize,
}

impl<'a, E> HeadOf<'a, E> {
    fn new(data: &'a [E], kv_head: usize, shape: &AttentionShape) -> HeadOf<'a, E> {
        let (width, stride) = (shape.head_dim, shape.n_kv_heads * shape.head_dim);
        let tokens = data.len() / stride;
        assert!(tokens > 0 && data.len() == tokens * stride, "a cache of {} numbers in rows of {stride}", data.len());
        let first = tokens.saturating_sub(shape.window.unwrap_or(usize::MAX));
        HeadOf { data: &data[first * stride..], stride, offset: kv_head * width, width }
    }

    fn tokens(&self) -> usize {
        self.data.len() / self.stride
    }

    fn rows(&self) -> impl Iterator<Item = &'a [E]> {
        let (offset, width) = (self.offset, self.width);
        self.data.chunks_exact(self.stride).map(move |token| &token[offset..offset + width])
    }
}

/// The query heads that share one key-value head, one after another: their rows of the cache stay near.
fn one_token<E: Element>(q: &[E], k: &HeadOf<'_, E>, v: &HeadOf<'_, E>, out: &mut [E], shape: &AttentionShape) {
    let width = shape.head_dim;
    let mut weights = vec![0.0f32; k.tokens()];
    let (mut query, mut sums) = (vec![0.0f32; width], vec![0.0f32; width]);
    for (q, out) in q.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        super::element::widen(q, &mut query);
        scores(&query, k, shape.scale, &mut weights);
        let total = softmax(&mut weights);
        sums.fill(0.0);
        mix(&weights, v, &mut sums);
        for (out, sum) in out.iter_mut().zip(&sums) {
            *out = E::from_f32(sum / total);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn scores<E: Element>(query: &[f32], k: &HeadOf<'_, E>, scale: f32, scores: &mut [f32]) {
    for (score, row) in scores.iter_mut().zip(k.rows()) {
        let mut lanes = [0.0f32; LANES];
        let (whole, rest) = query.as_chunks::<LANES>();
        for (query, row) in whole.iter().zip(row.as_chunks::<LANES>().0) {
            for ((lane, q), k) in lanes.iter_mut().zip(query).zip(row) {
                *lane = q.mul_add(k.to_f32(), *lane);
            }
        }
        for ((lane, q), k) in lanes.iter_mut().zip(rest).zip(&row[row.len() - rest.len()..]) {
            *lane = q.mul_add(k.to_f32(), *lane);
        }
        *score = sum_lanes(lanes) * scale;
    }
}

/// Scores to weights relative to the largest; returns their sum.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn softmax(scores: &mut [f32]) -> f32 {
    let highest = scores.iter().fold(f32::NEG_INFINITY, |most, &score| if score > most { score } else { most });
    let mut lanes = [0.0f32; LANES];
    for scores in scores.chunks_mut(LANES) {
        for (lane, score) in lanes.iter_mut().zip(scores) {
            *score = exp(*score - highest);
            *lane += *score;
        }
    }
    sum_lanes(lanes)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn mix<E: Element>(weights: &[f32], v: &HeadOf<'_, E>, sums: &mut [f32]) {
    for (weight, row) in weights.iter().zip(v.rows()) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum = weight.mul_add(value.to_f32(), *sum);
        }
    }
}
