//! What each phase of a run holds besides what is always there.
//!
//! In:    a [`Shape`] and a [`Phase`].
//! Out:   terms, those in files too.
//! Never: an allowance: each term is a tensor, or a buffer whose size stands in the code (the head of [`super`] has the formulas).

use super::{Shape, Sums, Term, fixed::STREAMED_BLOCKS, term};
use crate::architecture::Linear;
use crate::plan::{Keep, MethodPlan, Phase, Precision, Tier};

/// Most tokens of one evaluation batch; a micro-batch bounds it too.
pub const EVALUATION_TOKENS_MAX: usize = 2048;
/// Largest chunk of f32 logits that the loss holds at once, bytes and rows.
const LOSS_CHUNK_BYTES: u64 = 64 << 20;
const LOSS_CHUNK_ROWS: u64 = 512;
/// Columns of the gradient of logits that are laid side by side for the head's gradient.
const LOSS_COLUMNS: u64 = 2064;
/// Ids, positions, row numbers and labels of a token.
const BATCH_BYTES_PER_TOKEN: u64 = 32;
/// Queries and bytes of the scores that attention on a card does at a time.
const SCORE_QUERIES: u64 = 512;
const SCORE_BYTES_MAX: u64 = 128 << 20;
/// Block inputs at once where they live in another tier.
const LIVE_INPUTS: u64 = 2;
/// A tokenizer's file, its parsed text and maps that grow, for each entry of the vocabulary, bytes.
const PARSED_BYTES_PER_ENTRY: u64 = 1600;
/// Two pieces of what is written to a file.
const PIECES_BYTES: u64 = 2 * (4 << 20);

impl Shape<'_> {
    /// Terms of one phase.
    pub(super) fn besides(&self, phase: Phase) -> Vec<Term> {
        let mut terms = Vec::with_capacity(12);
        let device = |name, bytes| term(name, Tier::Device, bytes);
        match phase {
            Phase::Load => terms.push(device("reading", self.reading())),
            Phase::Forward => {
                self.kept(self.blocks(), &mut terms);
                let retains = self.keep.last() == Some(&Keep::Retain);
                terms.push(device("live block", if retains { 0 } else { self.forward_bytes(self.tokens) }));
                terms.push(device("attention scores", self.score_bytes() / 2 * 3));
                terms.push(device("batch", self.batch_bytes()));
            }
            Phase::BackwardStart => {
                self.kept(self.blocks(), &mut terms);
                self.outer_gradients(&mut terms);
                terms.push(device("gradients in flight", self.activations(self.spec.hidden as u64)));
                terms.push(device("loss", self.loss_bytes(self.tokens)));
                terms.push(device("batch", self.batch_bytes()));
            }
            Phase::Backward => self.backward(&mut terms),
            Phase::Update => terms.push(device("renewed weights", self.renewed_bytes())),
            Phase::Evaluation => self.evaluation(&mut terms),
            Phase::Save => terms.push(term("pieces", self.host(), PIECES_BYTES)),
            Phase::Export => terms.push(term("pieces", self.host(), self.export_bytes())),
        }
        terms
    }

    fn blocks(&self) -> u64 {
        self.keep.len() as u64
    }

    fn retained(&self) -> u64 {
        self.keep.iter().filter(|&&keep| keep == Keep::Retain).count() as u64
    }

    /// Inputs of all blocks and graphs of at most `graphs` retained ones, with the weights that those hold.
    fn kept(&self, graphs: u64, terms: &mut Vec<Term>) {
        let (h, tier) = (self.spec.hidden as u64, self.placement.activations);
        let (retained, input) = (self.retained(), self.activations(h));
        let here = if tier == Tier::Device { self.blocks() } else { retained + LIVE_INPUTS };
        terms.push(term("block inputs", Tier::Device, input.saturating_mul(here)));
        if tier != Tier::Device {
            // Each in an array of whole slots.
            let slots = (self.tokens.saturating_mul(h)).checked_next_multiple_of(256).unwrap_or(u64::MAX);
            let stored = slots.saturating_mul(self.precision.bytes()).saturating_mul(self.blocks() - retained);
            terms.push(term("stored block inputs", tier, stored));
        }
        let graphs = retained.min(graphs);
        terms.push(term("kept graphs", Tier::Device, self.graph_bytes().saturating_mul(graphs)));
        if self.placement.weights != Tier::Device {
            let held = graphs.min(self.blocks().saturating_sub(STREAMED_BLOCKS));
            terms.push(term("blocks of kept graphs", Tier::Device, self.block_bytes().saturating_mul(held)));
        }
    }

    fn backward(&self, terms: &mut Vec<Term>) {
        // The block that goes backward has its own term; when those that recompute follow, all graphs are gone.
        self.kept(self.retained().saturating_sub(1), terms);
        self.outer_gradients(terms);
        let (on_the_way, at_end) = self.backward_stages();
        // The flat gradient of the block before is gone before this block's is made. Beside a card it is host memory.
        let waits = [self.placement.gradients, self.placement.optimizer].contains(&Tier::Nvme);
        let flat = self.sizes.block_elements.saturating_mul(4);
        let (live, waiting) = match self.host() {
            Tier::Device if !waits => (on_the_way.max(at_end), 0),
            Tier::Device if on_the_way.saturating_add(flat) > at_end => (on_the_way, flat),
            Tier::Device => (at_end, 0),
            _ => (on_the_way.max(at_end), flat),
        };
        terms.push(term("live block", Tier::Device, live));
        terms.push(term("attention scores", Tier::Device, self.score_bytes().saturating_mul(3)));
        terms.push(term("gradient on its way", self.host(), waiting));
        terms.push(term("batch", Tier::Device, self.batch_bytes()));
    }

    /// Scores in f32 of what attention does at a time on a card in bf16, where products make them; probabilities take half as much
    /// again, and the backward pass twice both.
    fn score_bytes(&self) -> u64 {
        if self.device.is_host() || self.precision != Precision::Bf16 {
            return 0;
        }
        let queries = self.tokens.min(SCORE_QUERIES);
        let all = (self.spec.n_heads as u64).saturating_mul(queries).saturating_mul(self.tokens).saturating_mul(4);
        all.min(SCORE_BYTES_MAX)
    }

    /// What a block holds on its way back: the most at its gate or its attention, and what it holds at its end.
    fn backward_stages(&self) -> (u64, u64) {
        let (h, (q, kv, f)) = (self.spec.hidden as u64, self.widths());
        let sums = self.tokens.saturating_mul(8 * self.spec.n_heads as u64);
        let extra = self.norm_inputs();
        let gate = self.activations(4 * h + 2 * q + 2 * kv + 5 * f + extra).saturating_add(sums);
        let attention = self.activations(2 * h + 4 * q + 4 * kv + extra).saturating_add(sums);
        match self.method {
            MethodPlan::Lora(_) => {
                let widened = self.widened_bytes();
                let gradients = self.sizes.block_elements.saturating_mul(4);
                let on_the_way = gate.max(attention.saturating_add(gradients)).saturating_add(widened);
                (on_the_way, gradients.saturating_mul(2))
            }
            MethodPlan::Full(_) => {
                let all = self.sizes.block_elements.saturating_mul(4);
                // Beside a card the flat copy is host memory.
                let copies = if self.host() == Tier::Device { 2 } else { 1 };
                let end = self.activations(2 * h).saturating_add(all.saturating_mul(copies));
                let gate = gate.saturating_add((f * h).saturating_mul(4));
                (gate.max(attention.saturating_add((3 * f * h + q * h).saturating_mul(4))), end)
            }
        }
    }

    /// bf16 gradients of adapters are sums of rows widened to f32, 512 at a time.
    fn widened_bytes(&self) -> u64 {
        let (h, (q, _, f)) = (self.spec.hidden as u64, self.widths());
        match (self.precision, self.method.lora()) {
            (Precision::Bf16, Some(lora)) => self.tokens.min(512) * 4 * (h.max(q).max(f) + lora.rank as u64),
            _ => 0,
        }
    }

    /// The flat gradient of the tensors around the blocks.
    fn outer_gradients(&self, terms: &mut Vec<Term>) {
        terms.push(term("outer gradients", self.host(), self.sizes.outer_elements.saturating_mul(4)));
    }

    /// Inputs of norms that only some families have.
    fn norm_inputs(&self) -> u64 {
        let (h, (q, kv, _)) = (self.spec.hidden as u64, self.widths());
        let heads = if self.spec.qk_norm { q + kv } else { 0 };
        let late = if self.spec.sandwich_norms { 2 * h } else { 0 };
        heads + late
    }

    /// What a block's backward reads besides the block's input, bytes.
    fn graph_bytes(&self) -> u64 {
        let (h, (q, kv, f)) = (self.spec.hidden as u64, self.widths());
        let (product, low_rank) = match self.method.lora() {
            None => (f, 0),
            Some(lora) => {
                let product = if lora.targets.contains(&Linear::Down) { f } else { 0 };
                (product, (lora.targets.len() * lora.rank) as u64)
            }
        };
        let numbers = 3 * h + 2 * q + 2 * kv + 2 * f + product + low_rank + self.norm_inputs();
        self.activations(numbers).saturating_add(self.tokens.saturating_mul(8 * self.spec.n_heads as u64))
    }

    /// What a block holds at most on its way forward without a graph, besides its input.
    pub(super) fn forward_bytes(&self, tokens: u64) -> u64 {
        let (h, (q, kv, f)) = (self.spec.hidden as u64, self.widths());
        tokens.saturating_mul((h + 3 * f).max(2 * q + 2 * kv) * self.precision.bytes())
    }

    fn loss_bytes(&self, rows: u64) -> u64 {
        let (h, b, vocabulary) = (self.spec.hidden as u64, self.precision.bytes(), self.spec.vocabulary as u64);
        let chunk = rows.min((LOSS_CHUNK_BYTES / (4 * vocabulary.max(1))).clamp(1, LOSS_CHUNK_ROWS));
        let logit = match self.precision {
            Precision::F32 => 4,
            Precision::Bf16 => 4 + b,
        };
        let columns = if self.sizes.outer_elements > 0 { LOSS_COLUMNS * b } else { 0 };
        chunk.saturating_mul(vocabulary.saturating_mul(logit) + columns).saturating_add(rows.saturating_mul(3 * h * b))
    }

    fn batch_bytes(&self) -> u64 {
        let rotary = self.spec.ropes.len() as u64 * self.spec.head_dim as u64 * 4;
        self.tokens.saturating_mul(BATCH_BYTES_PER_TOKEN + rotary)
    }

    /// What is being read and converted. The tokenizer comes first, then arrays, then the tensors around the blocks, then the blocks.
    fn reading(&self) -> u64 {
        let here = Sums::of(&self.fixed());
        let parsed = (self.spec.vocabulary as u64).saturating_mul(PARSED_BYTES_PER_ENTRY);
        self.converted().max(parsed.saturating_sub(self.counted(here)))
    }

    /// f32 numbers of a file on their way to bf16.
    fn converted(&self) -> u64 {
        let sizes = self.sizes;
        if self.precision == Precision::F32 {
            return 0;
        }
        let later = match self.placement.weights {
            Tier::Device => self.block_bytes().saturating_mul(self.spec.n_layers() as u64),
            _ => 0,
        };
        let outer = sizes.largest_tensor.saturating_mul(4).saturating_sub(later);
        sizes.largest_linear.saturating_mul(4).max(outer)
    }

    fn renewed_bytes(&self) -> u64 {
        match self.method {
            MethodPlan::Lora(_) => self.adapters_in_use(),
            MethodPlan::Full(_) => self.sizes.block_parameters.saturating_mul(self.precision.bytes()),
        }
    }

    /// Held-out loss, or answers where they need more.
    fn evaluation(&self, terms: &mut Vec<Term>) {
        let loss = self.loss_pass_bytes(self.tokens.min(EVALUATION_TOKENS_MAX as u64));
        let (rows, at_once) = self.answers_at_once().unwrap_or_default();
        let answers = self.answers_bytes(rows, at_once);
        terms.push(term(if answers > loss { "answers" } else { "held-out loss" }, Tier::Device, answers.max(loss)));
    }

    /// A pass of `tokens` without graphs, and its loss.
    pub(super) fn loss_pass_bytes(&self, tokens: u64) -> u64 {
        let pass = self.forward_bytes(tokens).max(self.loss_bytes(tokens));
        let inputs = tokens.saturating_mul(2 * self.spec.hidden as u64 * self.precision.bytes());
        pass.saturating_add(inputs)
    }

    fn export_bytes(&self) -> u64 {
        match self.method {
            MethodPlan::Lora(_) => PIECES_BYTES.saturating_add(self.sizes.elements.saturating_mul(4)),
            MethodPlan::Full(full) if full.embeddings && full.head => PIECES_BYTES,
            MethodPlan::Full(_) => {
                PIECES_BYTES.saturating_add(self.sizes.largest_tensor.saturating_mul(4 + self.precision.bytes()))
            }
        }
    }

    /// What training needs at most besides what is always there, in the memory that computes.
    pub(super) fn training_bytes(&self) -> u64 {
        let phases = [Phase::Forward, Phase::BackwardStart, Phase::Backward];
        let sums = phases.map(|phase| self.counted(Sums::of(&self.besides(phase))));
        sums.into_iter().max().unwrap_or(0)
    }
}
