//! Greedy decoding of many prompts at once, with a key/value cache.
//!
//! In:    prompts as token ids, adapters or none, the ids that end an answer.
//! Out:   each prompt's continuation, without the ending id.
//! Never: samples; the same model and prompts give the same answers.
//!
//! Prompts run once as packed rows; their keys and values are laid right-aligned in the cache, so that every later
//! token of every sequence is written to the same column. Shapes: `b` sequences, `k` key/value heads, `g` query
//! heads per key/value head, `l` cache columns, `e` head width.

use burn::tensor::activation::softmax;
use burn::tensor::{DType, Int, Tensor, TensorData};

use crate::block::{Block, BlockAdapters, Projections};
use crate::context::RowContext;
use crate::decoder::Decoder;
use crate::source::{BlockSource, BoxedError};

/// The blocks that prompts walk through, each with its adapters.
#[derive(Clone, Copy)]
pub struct Stack<'a> {
    /// Where blocks come from.
    pub blocks: &'a dyn BlockSource,
    /// One entry a block; empty pairs for the base model.
    pub adapters: &'a [BlockAdapters],
}

/// What ends an answer.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    /// Ids that end it.
    pub ids: &'a [u32],
    /// Longest answer, tokens.
    pub max_new_tokens: usize,
}

/// Keys and values of one block, `[b, k, l, e]`.
struct Cache {
    k: Tensor<4>,
    v: Tensor<4>,
}

/// Where the sequences stand in the cache.
struct Columns {
    lengths: Vec<usize>,
    prompt_max: usize,
    total: usize,
}

impl Columns {
    /// Additive mask `[b, 1, 1, l]` when columns up to `newest` are written.
    fn mask(&self, newest: usize, window: Option<usize>, decoder: &Decoder) -> Tensor<4> {
        let mut mask = vec![f32::MIN; self.lengths.len() * self.total];
        for (row, &length) in mask.chunks_mut(self.total).zip(&self.lengths) {
            let first = self.prompt_max - length;
            let oldest = window.map_or(first, |window| first.max((newest + 1).saturating_sub(window)));
            row[oldest..=newest].fill(0.0);
        }
        let data = TensorData::new(mask, [self.lengths.len(), 1, 1, self.total]);
        Tensor::from_data(data, (&decoder.device, DType::F32))
    }

    /// For every cache cell of the prompts, the packed token it holds (0 where it holds none).
    fn sources(&self) -> Vec<i32> {
        let mut sources = vec![0; self.lengths.len() * self.total];
        let mut start = 0;
        for (row, &length) in sources.chunks_mut(self.total).zip(&self.lengths) {
            for at in 0..length {
                row[self.prompt_max - length + at] = (start + at) as i32;
            }
            start += length;
        }
        sources
    }
}

impl Decoder {
    /// Continues every prompt greedily. Each token
    /// walks all blocks of the stack; an error is that of a block that could not be fetched.
    pub fn generate(
        &self,
        stack: Stack<'_>,
        prompts: &[Vec<u32>],
        ending: Ending<'_>,
    ) -> Result<Vec<Vec<u32>>, BoxedError> {
        let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
        let prompt_max = lengths.iter().copied().max().unwrap_or(0);
        if prompt_max == 0 || ending.max_new_tokens == 0 {
            return Ok(vec![Vec::new(); prompts.len()]);
        }
        let columns = Columns { lengths, prompt_max, total: prompt_max + ending.max_new_tokens };
        let (mut caches, mut next) = self.prefill(stack, prompts, &columns)?;
        let mut answers = vec![Vec::new(); prompts.len()];
        let mut open = vec![true; prompts.len()];
        for step in 0..ending.max_new_tokens {
            for ((answer, open), &token) in answers.iter_mut().zip(&mut open).zip(&next) {
                *open = *open && !ending.ids.contains(&token);
                if *open {
                    answer.push(token);
                }
            }
            if !open.contains(&true) || step + 1 == ending.max_new_tokens {
                break;
            }
            next = self.decode(stack, &next, step, &columns, &mut caches)?;
        }
        Ok(answers)
    }

    fn prefill(
        &self,
        stack: Stack<'_>,
        prompts: &[Vec<u32>],
        columns: &Columns,
    ) -> Result<(Vec<Cache>, Vec<u32>), BoxedError> {
        let tokens: Vec<u32> = prompts.concat();
        let mut segments = vec![0u32];
        segments.extend(columns.lengths.iter().scan(0u32, |end, &length| {
            *end += length as u32;
            Some(*end)
        }));
        let context = RowContext::packed(&self.spec, &segments, 0, &self.device);
        let sources = self.indices(columns.sources());
        let mut x_td = self.embed(&tokens);
        let mut caches = Vec::with_capacity(stack.blocks.n_blocks());
        for (index, adapters) in stack.adapters.iter().enumerate() {
            let block = stack.blocks.block(index)?;
            let projections = block.project(&self.spec, x_td.clone(), &context, adapters);
            caches.push(self.cache(&projections, &sources, columns));
            x_td = block.finish(&self.spec, x_td, projections, &context, adapters);
        }
        let last: Vec<u32> = segments[1..].iter().map(|end| end - 1).collect();
        let next = argmax(self.logits(x_td, &last));
        Ok((caches, next))
    }

    fn cache(&self, projections: &Projections, sources: &Tensor<1, Int>, columns: &Columns) -> Cache {
        let spec = &self.spec;
        let spread = |x: &Tensor<2>| {
            let shape = [columns.lengths.len(), columns.total, spec.n_kv_heads, spec.head_dim];
            x.clone().select(0, sources.clone()).reshape(shape).swap_dims(1, 2).cast(DType::F32)
        };
        Cache { k: spread(&projections.k), v: spread(&projections.v) }
    }

    fn decode(
        &self,
        stack: Stack<'_>,
        tokens: &[u32],
        step: usize,
        columns: &Columns,
        caches: &mut [Cache],
    ) -> Result<Vec<u32>, BoxedError> {
        let positions: Vec<u32> = columns.lengths.iter().map(|&length| (length + step) as u32).collect();
        let context = RowContext::single_tokens(&self.spec, &positions, &self.device);
        let newest = columns.prompt_max + step;
        let mut x_bd = self.embed(tokens);
        // One mask a window: a family has one or two, a model dozens of blocks.
        let mut masks: Vec<(Option<usize>, Tensor<4>)> = Vec::new();
        for (index, (cache, adapters)) in caches.iter_mut().zip(stack.adapters).enumerate() {
            let block = stack.blocks.block(index)?;
            let window = self.spec.layers[block.index].window;
            let known = masks.iter().position(|(of, _)| *of == window).unwrap_or_else(|| {
                masks.push((window, columns.mask(newest, window, self)));
                masks.len() - 1
            });
            let mask = masks[known].1.clone();
            x_bd = self.decode_block(&block, x_bd, (cache, newest, mask), &context, adapters);
        }
        Ok(argmax(self.logits(x_bd, &(0..tokens.len() as u32).collect::<Vec<_>>())))
    }

    fn decode_block(
        &self,
        block: &Block,
        x_bd: Tensor<2>,
        (cache, newest, mask): (&mut Cache, usize, Tensor<4>),
        context: &RowContext,
        adapters: &BlockAdapters,
    ) -> Tensor<2> {
        let spec = &self.spec;
        let (kv_heads, width, batch) = (spec.n_kv_heads, spec.head_dim, x_bd.dims()[0]);
        let groups = spec.n_heads / kv_heads;
        let dtype = x_bd.dtype();
        let new = block.project(spec, x_bd.clone(), context, adapters);
        let write = |cache: &mut Tensor<4>, x: Tensor<2>| {
            let column = x.cast(DType::F32).reshape([batch, kv_heads, 1, width]);
            let empty = Tensor::<4>::empty([1, 1, 1, 1], &self.device);
            let full = std::mem::replace(cache, empty);
            *cache = full.slice_assign([0..batch, 0..kv_heads, newest..newest + 1, 0..width], column);
        };
        write(&mut cache.k, new.k);
        write(&mut cache.v, new.v);
        let q = new.q.cast(DType::F32).reshape([batch, kv_heads, groups, width]);
        let scores = q.matmul(cache.k.clone().swap_dims(2, 3)) * spec.attention_scale + mask;
        let mixed = softmax(scores, 3).matmul(cache.v.clone());
        let mixed_bh = mixed.reshape([batch, spec.n_heads * width]).cast(dtype);
        block.after_attention(spec, x_bd, mixed_bh, context, adapters)
    }
}

fn argmax(logits: Tensor<2>) -> Vec<u32> {
    let ids = logits.argmax(1).into_data().convert::<i64>();
    ids.iter::<i64>().map(|id| id as u32).collect()
}
