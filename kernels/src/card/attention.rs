//! Attention by products: on devices whose matrix products have units of their own, tensor cores, they are far faster than a kernel that
//! multiplies by itself.
//!
//! In:    queries, keys and values of packed rows.
//! Out:   what [`cube::attention`] gives, and its gradients.
//! Never: holds more scores than [`Tiling::score_bytes`], whatever the number of tokens; rounds a score below f32.
//!
//! A tile is some queries in a row with every key that one of them sees. Its scores are one product for each key/value head, in f32; the
//! kernels of `cube` between the products make probabilities of them. Rows that are much shorter than a tile would mostly multiply what no
//! query sees, so they keep the kernel ([`is_faster`]).

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::backend::{Shape, Slice};
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cube::{AttentionShape, Buffer, Number, Rows, Tile};

use super::{attention_shape, buffer, number, product, rows_beside, tensor};
use crate::ops::AttentionGeometry;

/// The shortest longest row that is worth it.
const ROW_MIN: usize = 512;

/// Fewer queries would leave tensor cores idle.
const QUERIES_MIN: usize = 16;

/// How much is done at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tiling {
    /// Queries of a tile.
    pub(crate) queries: usize,
    /// The most bytes of f32 scores.
    pub(crate) score_bytes: usize,
}

impl Default for Tiling {
    fn default() -> Self {
        Tiling { queries: 512, score_bytes: 128 << 20 }
    }
}

/// Whether a device multiplies bf16 with tensor cores, and rows are long enough to use them.
pub(super) fn is_faster(q: &CubeTensor, geometry: &AttentionGeometry) -> bool {
    let longest = geometry.segments.windows(2).map(|bounds| bounds[1] - bounds[0]).max().unwrap_or(0);
    let features = &q.client.properties().features.matmul;
    let has_tensor_cores = !features.cmma.is_empty() || !features.mma.is_empty();
    has_tensor_cores && q.dtype == DType::BF16 && longest as usize >= ROW_MIN
}

fn turned(x: CubeTensor) -> CubeTensor {
    CubeBackend::float_swap_dims(x, 1, 2)
}

/// `[t, heads * head_dim]` as `[heads, t, head_dim]`, head by head in memory.
fn by_head(x: CubeTensor, heads: usize) -> CubeTensor {
    let shape = x.shape();
    let x = CubeBackend::float_reshape(x, Shape::from([shape[0], heads, shape[1] / heads]));
    burn_cubecl::kernel::into_contiguous(CubeBackend::float_swap_dims(x, 0, 1))
}

/// The other way round.
fn by_token(x: CubeTensor) -> CubeTensor {
    let shape = x.shape();
    let x = CubeBackend::float_swap_dims(x, 0, 1);
    CubeBackend::float_reshape(x, Shape::from([shape[1], shape[0] * shape[2]]))
}

/// Some heads and tokens of `[heads, t, head_dim]`, laid out as `[groups, heads / groups * tokens, head_dim]`.
fn part(x: &CubeTensor, heads: [usize; 2], tokens: [usize; 2], groups: usize) -> CubeTensor {
    let head_dim = x.shape()[2];
    let slices = [heads, tokens, [0, head_dim]].map(|[from, to]| Slice::from(from..to));
    let part = CubeBackend::float_slice(x.clone(), &slices);
    let rows = (heads[1] - heads[0]) / groups * (tokens[1] - tokens[0]);
    CubeBackend::float_reshape(part, Shape::from([groups, rows, head_dim]))
}

/// One step of the walk: key/value heads, and a tile of their query heads.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Key/value heads, from and to.
    kv: [usize; 2],
    /// Their query heads.
    heads: [usize; 2],
    tile: Tile,
}

impl Step {
    fn queries(&self) -> [usize; 2] {
        [self.tile.first_query, self.tile.first_query + self.tile.queries]
    }

    fn keys(&self) -> [usize; 2] {
        [self.tile.first_key, self.tile.first_key + self.tile.keys]
    }

    fn kv_heads(&self) -> usize {
        self.kv[1] - self.kv[0]
    }
}

/// Tiles of all queries, then for each the heads that are taken at a time.
fn steps(geometry: &AttentionGeometry, tiling: Tiling) -> Vec<Step> {
    let tokens = geometry.segments.last().map_or(0, |&tokens| tokens as usize);
    let group = geometry.n_heads / geometry.n_kv_heads;
    // Of one key/value head over all tokens, so that the longest row stays within the bytes.
    let fit = tiling.score_bytes / (group * tokens * size_of::<f32>()).max(1);
    let at_most = tiling.queries.min(fit.max(QUERIES_MIN));
    let mut steps = Vec::new();
    for first_query in (0..tokens).step_by(at_most) {
        let last = (first_query + at_most).min(tokens);
        let row = geometry.segments.iter().rev().find(|&&start| start as usize <= first_query);
        let row = row.map_or(0, |&start| start as usize);
        let seen = geometry.window.map_or(row, |window| row.max((first_query + 1).saturating_sub(window)));
        let (queries, keys) = (last - first_query, last - seen);
        let of_one = group * queries * keys * size_of::<f32>();
        let at_once = (tiling.score_bytes / of_one.max(1)).clamp(1, geometry.n_kv_heads);
        for kv in (0..geometry.n_kv_heads).step_by(at_once) {
            let kv = [kv, (kv + at_once).min(geometry.n_kv_heads)];
            let heads = kv.map(|kv| kv * group);
            let tile = Tile { first_head: heads[0], first_query, queries, first_key: seen, keys };
            steps.push(Step { kv, heads, tile });
        }
    }
    steps
}

/// Lays the results of all steps, `[heads, queries, head_dim]` each, side by side as `[t, heads * head_dim]`.
fn assembled(steps: &[Step], mut parts: Vec<CubeTensor>, shape: &AttentionShape) -> CubeTensor {
    let mut tiles = Vec::new();
    for heads in steps.chunk_by(|a, b| a.tile.first_query == b.tile.first_query) {
        let of_tile: Vec<CubeTensor> = parts.drain(..heads.len()).collect();
        let of_heads = heads.iter().zip(of_tile).map(|(step, part)| {
            let dims = [step.heads[1] - step.heads[0], step.tile.queries, shape.head_dim];
            CubeBackend::float_reshape(part, Shape::from(dims))
        });
        tiles.push(CubeBackend::float_cat(of_heads.collect(), 0));
    }
    by_token(CubeBackend::float_cat(tiles, 1))
}

/// Everything that both passes use.
struct Pass<'a> {
    q: CubeTensor,
    k: CubeTensor,
    v: CubeTensor,
    rows: Rows,
    shape: AttentionShape,
    steps: Vec<Step>,
    like: &'a CubeTensor,
    number: Number,
}

impl Pass<'_> {
    fn of<'a>(qkv: [CubeTensor; 3], like: &'a CubeTensor, geometry: &AttentionGeometry, tiling: Tiling) -> Pass<'a> {
        let [q, k, v] = qkv;
        Pass {
            q: by_head(q, geometry.n_heads),
            k: by_head(k, geometry.n_kv_heads),
            v: by_head(v, geometry.n_kv_heads),
            rows: rows_beside(like, &geometry.segments),
            shape: attention_shape(geometry),
            steps: steps(geometry, tiling),
            like,
            number: number(like.dtype),
        }
    }

    /// `[kv heads, group * queries, head_dim]` of a tensor of all heads.
    fn queries(&self, x: &CubeTensor, step: &Step) -> CubeTensor {
        part(x, step.heads, step.queries(), step.kv_heads())
    }

    /// `[kv heads, keys, head_dim]`
    fn keys(&self, x: &CubeTensor, step: &Step) -> CubeTensor {
        part(x, step.kv, step.keys(), step.kv_heads())
    }

    /// A buffer of a step's scores as a tensor for products.
    fn scores(&self, scores: &Buffer, step: &Step) -> CubeTensor {
        let group = self.shape.n_heads / self.shape.n_kv_heads;
        let shape = [step.kv_heads(), group * step.tile.queries, step.tile.keys];
        tensor(scores, shape, self.like.dtype, self.like)
    }
}

/// [`cube::attention`] by products.
pub(crate) fn forward(qkv: [CubeTensor; 3], geometry: &AttentionGeometry, tiling: Tiling) -> (CubeTensor, CubeTensor) {
    let like = qkv[0].clone();
    let tokens = like.shape()[0];
    let pass = Pass::of(qkv, &like, geometry, tiling);
    let lse = Buffer::empty(&like.client, pass.shape.n_heads * tokens, Number::F32);
    let parts = pass.steps.iter().map(|step| {
        let scores = product(pass.queries(&pass.q, step), turned(pass.keys(&pass.k, step)), DType::F32);
        let scores = buffer(scores);
        let weights = cube::tile_softmax(&like.client, &scores, &pass.rows, &lse, step.tile, pass.shape, pass.number);
        product(pass.scores(&weights, step), pass.keys(&pass.v, step), like.dtype)
    });
    let out = assembled(&pass.steps, parts.collect(), &pass.shape);
    (out, tensor(&lse, [pass.shape.n_heads, tokens], DType::F32, &like))
}

/// [`cube::attention_backward`] by products.
pub(crate) fn backward(
    qkv: [CubeTensor; 3],
    [out, lse, dout]: [CubeTensor; 3],
    geometry: &AttentionGeometry,
    tiling: Tiling,
) -> [CubeTensor; 3] {
    let like = qkv[0].clone();
    let client = &like.client;
    let pass = Pass::of(qkv, &like, geometry, tiling);
    let (shape, lse) = (pass.shape, buffer(lse));
    let delta = cube::attention_delta(client, &buffer(out), &buffer(dout.clone()), shape, pass.number);
    let dout = by_head(dout, shape.n_heads);
    let dims = [shape.n_kv_heads, like.shape()[0], shape.head_dim];
    let zeros = || CubeBackend::float_zeros(Shape::from(dims), &like.device, burn::tensor::FloatDType::F32);
    let [dk, dv] = [zeros(), zeros()].map(buffer);
    let parts = pass.steps.iter().map(|step| {
        let (q, dout) = (pass.queries(&pass.q, step), pass.queries(&dout, step));
        let (k, v) = (pass.keys(&pass.k, step), pass.keys(&pass.v, step));
        let scores = buffer(product(q.clone(), turned(k.clone()), DType::F32));
        let along = buffer(product(dout.clone(), turned(v), DType::F32));
        let results = [&lse, &delta];
        let [weights, gradients] =
            cube::tile_softmax_gradient(client, [&scores, &along], &pass.rows, results, step.tile, shape, pass.number);
        let [weights, gradients] = [weights, gradients].map(|scores| pass.scores(&scores, step));
        let of_values = buffer(product(turned(weights), dout, DType::F32));
        let of_keys = buffer(product(turned(gradients.clone()), q, DType::F32));
        cube::add_tile(client, &of_values, &dv, (step.kv[0], step.tile), shape);
        cube::add_tile(client, &of_keys, &dk, (step.kv[0], step.tile), shape);
        product(gradients, k, like.dtype)
    });
    let dq = assembled(&pass.steps, parts.collect(), &shape);
    let summed = |sums: &Buffer| super::cast(by_token(tensor(sums, dims, DType::F32, &like)), like.dtype);
    [dq, summed(&dk), summed(&dv)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;

    fn geometry(segments: &[u32], window: Option<usize>) -> AttentionGeometry {
        let segments = Arc::new(segments.to_vec());
        AttentionGeometry { n_heads: 6, n_kv_heads: 3, head_dim: 4, scale: 1.0, window, segments }
    }

    #[test]
    fn steps_cover_every_query_with_the_keys_it_sees_and_hold_few_scores() {
        let geometry = geometry(&[0, 10, 11, 40], None);
        let tiling = Tiling { queries: 8, score_bytes: 2 * 8 * 20 * 4 };
        let steps = steps(&geometry, tiling);
        for query in 0..40 {
            let of_query: Vec<&Step> =
                steps.iter().filter(|step| (step.queries()[0]..step.queries()[1]).contains(&query)).collect();
            let heads: usize = of_query.iter().map(|step| step.heads[1] - step.heads[0]).sum();
            assert_eq!(heads, 6, "query {query}");
            let row = [11, 10, 0].into_iter().find(|&start| start <= query).unwrap();
            assert!(of_query.iter().all(|step| step.keys()[0] <= row && step.keys()[1] > query));
        }
        let scores = |step: &Step| (step.heads[1] - step.heads[0]) * step.tile.queries * step.tile.keys * 4;
        assert!(steps.iter().all(|step| scores(step) <= tiling.score_bytes || step.kv_heads() == 1));
        let last = steps.last().unwrap();
        assert_eq!((last.keys(), last.kv), ([11, 40], [2, 3]), "one key/value head at a time where keys are many");
    }

    #[test]
    fn a_window_leaves_out_keys_that_no_query_of_a_tile_sees() {
        let steps = steps(&geometry(&[0, 100], Some(5)), Tiling { queries: 10, score_bytes: 1 << 20 });
        assert!(steps.iter().skip(1).all(|step| step.tile.keys == 14), "{steps:?}");
    }
}
