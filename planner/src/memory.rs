//! How much memory a run needs, term by term.
//!
//! In:    the network, what is trained, the shape of a micro-batch, what each block keeps.
//! Out:   [`MemoryTerm`]s of the phase that needs most.
//! Never: measures. The measured peak is compared with this sum after the run.
//!
//! Notation: `T` tokens of a micro-batch, `h` hidden, `f` intermediate, `q` and `kv` widths of all query and key/value heads,
//! `b` bytes of a number in `model.precision`, `P` adapter parameters.
//!
//! | term | bytes | alive |
//! |---|---|---|
//! | weights | every tensor once x b; a tied head is the embedding | always |
//! | adapters | 16 P: parameter, gradient, two moments, f32 | always |
//! | block inputs | (blocks + 1) T h b: also the embedding lookup | training |
//! | kept graphs | retained blocks x graph | training |
//! | live graph | one graph, if any block recomputes | training |
//! | gradients in flight | T (3h + q + 2kv + 3f) b: of one block's intermediates | training |
//! | loss | 64 MiB: logits of one chunk, and T h x 4 for the gradient of the head's input | training |
//! | batch | T x 32: ids, positions, row numbers, labels | training |
//! | answers | rows x (longest prompt + answer) x 2 kv x blocks x b, and rows x vocabulary x 4 | evaluation |
//! | reading | the largest tensor in f32, while it is converted | loading |
//! | runtime | 300 MB: code, thread pool, tokenizer, data, freed pages the allocator keeps; 600 MB with a CUDA context | always |
//!
//! graph = T ((5h + 2q + 2kv + 3f) b + 4 heads + linears x rank x 4), the tensors that a block's backward reads:
//! input, norm 1, (q, k, v) after rotation, attention output and its log-sum-exp, residual, norm 2, gate, up, product, output, and
//! each adapter's low-rank value; with dropout also the dropped adapter inputs, T x (sum of the adapted layers' inputs) x b.

use crate::architecture::{DecoderSpec, Linear};
use crate::plan::{DeviceChoice, Keep, MemoryTerm, Precision};

/// Largest block of logits that the loss holds at once, bytes.
const LOSS_CHUNK_BYTES: u64 = 64 << 20;
/// What the process needs before it holds a tensor, bytes.
const RUNTIME_CPU_BYTES: u64 = 300_000_000;
const RUNTIME_CUDA_BYTES: u64 = 600_000_000;
/// Adapter parameter, gradient and two moments in f32.
const ADAPTER_STATE_BYTES: u64 = 4 * 4;
const BATCH_BYTES_PER_TOKEN: u64 = 32;

/// What the estimate depends on.
#[derive(Debug, Clone)]
pub struct Shape<'a> {
    /// The network.
    pub spec: &'a DecoderSpec,
    /// Where it computes.
    pub device: DeviceChoice,
    /// Number format of weights and activations.
    pub precision: Precision,
    /// Adapted linear layers.
    pub targets: &'a [Linear],
    /// Rank of the adapters.
    pub rank: usize,
    /// Adapter dropout is on.
    pub dropout: bool,
    /// Tokens of one micro-batch.
    pub tokens: u64,
    /// Per block: graph or input.
    pub keep: Vec<Keep>,
    /// Answers generated at once and tokens of the longest, prompt included; `None` without generation.
    pub answers: Option<(u64, u64)>,
}

/// Trainable numbers of rank-`rank` adapters on `targets` of every block.
pub fn lora_parameters(spec: &DecoderSpec, targets: &[Linear], rank: usize) -> u64 {
    let sides = |linear: &Linear| spec.linear_shape(*linear).iter().map(|&side| side as u64).sum::<u64>();
    spec.n_layers() as u64 * rank as u64 * targets.iter().map(sides).sum::<u64>()
}

/// Key/value bytes that one token costs while answers are generated.
pub fn cache_bytes_per_token(spec: &DecoderSpec, precision: Precision) -> u64 {
    2 * (spec.n_kv_heads * spec.head_dim) as u64 * spec.n_layers() as u64 * precision.bytes()
}

impl Shape<'_> {
    /// Terms of the phase that needs most: loading, training or evaluation.
    pub fn peak(&self) -> Vec<MemoryTerm> {
        let phases = [self.loading(), self.training(), self.answering()];
        phases.into_iter().max_by_key(|terms| total(terms)).unwrap_or_default()
    }

    /// Sum of [`Shape::peak`].
    pub fn peak_bytes(&self) -> u64 {
        total(&self.peak())
    }

    fn always(&self) -> Vec<MemoryTerm> {
        let runtime = match self.device {
            DeviceChoice::Cpu => RUNTIME_CPU_BYTES,
            DeviceChoice::Cuda(_) => RUNTIME_CUDA_BYTES,
        };
        let adapters = lora_parameters(self.spec, self.targets, self.rank);
        vec![
            term("weights", self.spec.parameters().saturating_mul(self.precision.bytes())),
            term("adapters", adapters.saturating_mul(ADAPTER_STATE_BYTES)),
            term("runtime", runtime),
        ]
    }

    fn loading(&self) -> Vec<MemoryTerm> {
        let elements = |shape: &[usize]| shape.iter().map(|&n| n as u64).product::<u64>();
        let largest = self.spec.tensors().iter().map(|(_, shape)| elements(shape)).max().unwrap_or(0);
        let mut terms = self.always();
        terms.push(term("reading", largest.saturating_mul(4)));
        terms
    }

    fn training(&self) -> Vec<MemoryTerm> {
        let (b, h) = (self.precision.bytes(), self.spec.hidden as u64);
        let retained = self.keep.iter().filter(|&&keep| keep == Keep::Retain).count() as u64;
        let live = u64::from(retained < self.keep.len() as u64);
        let mut terms = self.always();
        terms.push(term("block inputs", self.for_tokens(h * b).saturating_mul(self.keep.len() as u64 + 1)));
        terms.push(term("kept graphs", self.graph_bytes().saturating_mul(retained)));
        terms.push(term("live graph", self.graph_bytes().saturating_mul(live)));
        let (q, kv, f) = self.widths();
        terms.push(term("gradients in flight", self.for_tokens((3 * h + q + 2 * kv + 3 * f) * b)));
        terms.push(term("loss", LOSS_CHUNK_BYTES.saturating_add(self.for_tokens(h * 4))));
        terms.push(term("batch", self.for_tokens(BATCH_BYTES_PER_TOKEN)));
        terms
    }

    fn answering(&self) -> Vec<MemoryTerm> {
        let mut terms = self.always();
        if let Some((rows, tokens)) = self.answers {
            let cache = rows.saturating_mul(tokens).saturating_mul(cache_bytes_per_token(self.spec, self.precision));
            let logits = rows.saturating_mul(self.spec.vocabulary as u64 * 4);
            terms.push(term("answers", cache.saturating_add(logits)));
        }
        terms
    }

    /// What a block's backward reads, bytes (the formula is in the head of this file).
    fn graph_bytes(&self) -> u64 {
        let (b, h, (q, kv, f)) = (self.precision.bytes(), self.spec.hidden as u64, self.widths());
        let tensors = (5 * h + 2 * q + 2 * kv + 3 * f) * b;
        let sums = 4 * self.spec.n_heads as u64;
        let low_rank = 4 * self.targets.len() as u64 * self.rank as u64;
        let inputs: u64 = self.targets.iter().map(|&linear| self.spec.linear_shape(linear)[1] as u64).sum();
        let dropped = if self.dropout { inputs * b } else { 0 };
        self.for_tokens(tensors + sums + low_rank + dropped)
    }

    fn widths(&self) -> (u64, u64, u64) {
        let heads = |count: usize| (count * self.spec.head_dim) as u64;
        (heads(self.spec.n_heads), heads(self.spec.n_kv_heads), self.spec.intermediate as u64)
    }

    fn for_tokens(&self, bytes_per_token: u64) -> u64 {
        self.tokens.saturating_mul(bytes_per_token)
    }
}

/// Sum of terms.
pub fn total(terms: &[MemoryTerm]) -> u64 {
    terms.iter().fold(0, |sum, term| sum.saturating_add(term.bytes))
}

fn term(name: &str, bytes: u64) -> MemoryTerm {
    MemoryTerm { name: name.to_string(), bytes }
}
