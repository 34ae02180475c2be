//! Peak memory of a published run, moment by moment: the largest moment counts, never the sum.
//!
//! In:    a [`Run`].
//! Out:   an [`Estimate`]: terms by name at each moment, and the figure that the program's counter shows.
//! Never: a constant that belongs to one row; each constant below has its source.

use super::activations;
use super::host;
use super::network::{Head, Network};
use super::stack::{
    Counter, Gradients, Loading, Loss, Optimizer, Sharding, Stack, States, Storage, Streaming, Weights,
};

/// Workspace of the matrix library and small buffers. Source: intercept of the streamed rows of Soup, 13.5 MB.
const WORKSPACE_BYTES: u64 = 13_500_000;
/// Share that the caching allocator holds beyond what it handed out, of memory that comes and goes. Source: lowest of Soup's 1.08-1.41.
const RESERVED_EXTRA: f64 = 0.08;
/// CUDA context with modules loaded as they are used. Source: ml-engineering, 0.47 GiB.
const CONTEXT_LAZY_BYTES: u64 = 505_000_000;
/// CUDA context with all modules. Source: llmq's "other", 903 MiB.
const CONTEXT_EAGER_BYTES: u64 = 947_000_000;
/// DeepSpeed's default `reduce_bucket_size`, numbers.
const BUCKET_NUMBERS: u64 = 500_000_000;

/// Whether bytes stay or come and go within a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Held,
    Churned,
}

/// Bytes under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// What they hold.
    pub name: &'static str,
    /// How many.
    pub bytes: u64,
    life: Life,
}

impl Term {
    pub(super) fn held(name: &'static str, bytes: u64) -> Term {
        Term { name, bytes, life: Life::Held }
    }

    fn churned(name: &'static str, bytes: u64) -> Term {
        Term { name, bytes, life: Life::Churned }
    }
}

/// A moment of a step at which memory may peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The model is being loaded.
    Load,
    /// The forward pass is over, the loss's gradient is there.
    Loss,
    /// The first block's backward pass: all inputs are still there, few gradients.
    FirstBackward,
    /// The last block's: all gradients are there.
    LastBackward,
    /// The update.
    Update,
}

/// Memory at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MomentMemory {
    /// When.
    pub moment: Moment,
    /// On one card, by term.
    pub terms: Vec<Term>,
}

impl MomentMemory {
    /// Bytes of live tensors.
    pub fn bytes(&self) -> u64 {
        self.terms.iter().map(|term| term.bytes).sum()
    }

    fn churned(&self) -> u64 {
        self.terms.iter().filter(|term| term.life == Life::Churned).map(|term| term.bytes).sum()
    }

    fn reserved(&self) -> u64 {
        self.bytes() + (RESERVED_EXTRA * self.churned() as f64) as u64
    }
}

/// One published run.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// What was trained.
    pub network: &'a Network,
    /// By which program.
    pub stack: &'a Stack,
    /// Rows of a micro-batch.
    pub micro_batch: u64,
    /// Tokens of its longest row.
    pub sequence: u64,
    /// Cards.
    pub cards: u64,
}

impl Run<'_> {
    fn tokens(&self) -> u64 {
        self.micro_batch * self.sequence
    }
}

/// What a run needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// Moment by moment.
    pub moments: Vec<MomentMemory>,
    /// Host memory by term.
    pub host: Vec<Term>,
    /// What the run's counter shows at its highest.
    pub counted_bytes: u64,
}

impl Estimate {
    /// The moment of the peak.
    pub fn peak(&self) -> Option<&MomentMemory> {
        self.moments.iter().max_by_key(|moment| moment.bytes())
    }
}

/// Memory of `run`.
pub fn estimate(run: &Run) -> Estimate {
    let moments = moments(run);
    let host = host::terms(run);
    let allocated = moments.iter().map(MomentMemory::bytes).max().unwrap_or(0);
    let reserved = moments.iter().map(MomentMemory::reserved).max().unwrap_or(0);
    let counted_bytes = match run.stack.counter {
        Counter::Allocated => allocated,
        Counter::Reserved => reserved,
        Counter::DeviceLazy => reserved + CONTEXT_LAZY_BYTES,
        Counter::DeviceEager => reserved + CONTEXT_EAGER_BYTES,
        Counter::PinnedBase => host::pinned_base(run.network, run.stack),
        Counter::Host => host.iter().map(|term| term.bytes).sum(),
        Counter::AllTiers => host::all_tiers(run),
    };
    Estimate { moments, host, counted_bytes }
}

fn moments(run: &Run) -> Vec<MomentMemory> {
    let (network, stack) = (run.network, run.stack);
    let tokens = run.tokens();
    let kept = Term::churned("kept activations", network.layers * activations::kept(network, stack) * tokens);
    let live =
        Term::churned("block in work", activations::live(network, stack) * tokens + dequantised_block(network, stack));
    let gradients = gradients(run);
    let at = |moment, extra: Vec<Term>| MomentMemory { moment, terms: [standing(run), extra].concat() };
    let early = matches!(stack.gradients, Gradients::Freed | Gradients::Buckets);
    let few = Term::churned("gradients", if early { gradients } else { 0 });
    vec![
        at(Moment::Load, vec![Term::churned("loading", loading(run))]),
        at(Moment::Loss, [vec![kept.clone()], loss(run)].concat()),
        at(Moment::FirstBackward, vec![kept, live.clone(), few]),
        at(Moment::LastBackward, vec![live, Term::churned("gradients", gradients + second_embedding_gradient(run))]),
        at(Moment::Update, vec![Term::churned("gradients", gradients)]),
    ]
}

/// What is there at every moment.
fn standing(run: &Run) -> Vec<Term> {
    let (network, stack) = (run.network, run.stack);
    let adapters = stack.adapters.as_ref().map_or(0, |adapters| network.adapters(adapters.rank, &adapters.targets));
    let adapter_bytes = stack.adapters.as_ref().map_or(0, |adapters| adapters.bytes);
    let trained = if stack.trains_base() { network.parameters() } else { adapters };
    let states = if stack.states == States::Device { moment_bytes(trained, stack.optimizer) } else { 0 };
    let shards = if stack.sharding == Sharding::Fsdp { run.cards } else { 1 };
    let standing = if stack.gradients == Gradients::Standing { 2 * trained } else { 0 };
    vec![
        Term::held("gradients that stay", standing),
        Term::held("weights", host::resident_base(run)),
        Term::held("gathered weights", gathered(run)),
        Term::held("adapters and their gradients", 2 * adapter_bytes * adapters),
        Term::held("optimizer state", states / shards),
        Term::held("workspace", WORKSPACE_BYTES + dequantised_matrix(network, stack)),
    ]
}

/// Base weights in the format they are held in, all cards together.
pub(super) fn base_bytes(network: &Network, stack: &Stack) -> u64 {
    let (linear, embedding, head) = (network.linear(), network.embedding(), network.head_own());
    let rest = network.parameters() - linear - head;
    match stack.storage {
        Storage::Dense => match stack.weights {
            Weights::Bf16 => 2 * network.parameters(),
            Weights::AmpFrozen => 4 * network.parameters() + 2 * (linear + embedding),
            Weights::F32Shards => 4 * network.parameters(),
            Weights::Bf16AndFp8 => 2 * network.parameters() + linear + 2 * embedding,
        },
        Storage::Nf4 | Storage::Nf4Dq => nf4(linear, stack.storage) + 2 * (rest + head),
        Storage::Nf4WithHead | Storage::Nf4DqWithHead => nf4(linear + head, stack.storage) + 2 * rest,
    }
}

/// `numbers` in NF4: 4 bits and an f32 for each 64, or 8 bits for each 64 and an f32 for each 256 of those. Source: arXiv:2305.14314.
pub(super) fn nf4(numbers: u64, storage: Storage) -> u64 {
    match storage {
        Storage::Nf4Dq | Storage::Nf4DqWithHead => numbers / 2 + numbers / 64 + numbers / (64 * 64),
        Storage::Dense | Storage::Nf4 | Storage::Nf4WithHead => numbers / 2 + numbers / 16,
    }
}

/// Two moments of `numbers` trained numbers.
fn moment_bytes(numbers: u64, optimizer: Optimizer) -> u64 {
    match optimizer {
        Optimizer::None => 0,
        Optimizer::AdamwF32 => 8 * numbers,
        Optimizer::AdamwBf16 => 4 * numbers,
        Optimizer::Adamw8bit => 2 * (numbers + numbers / 64),
        Optimizer::Adamw4bit => 2 * (numbers / 2 + numbers / 32),
    }
}

/// Gradients of the base at the update, on one card.
fn gradients(run: &Run) -> u64 {
    let (network, stack) = (run.network, run.stack);
    if !stack.trains_base() || stack.sharding == Sharding::Zero3Host {
        return 0;
    }
    let shards = if stack.sharding == Sharding::Fsdp { run.cards } else { 1 };
    match stack.gradients {
        Gradients::Standing => 0,
        Gradients::Bf16 => 2 * network.parameters() / shards,
        Gradients::F32 => 4 * network.parameters() / shards,
        Gradients::Freed => 2 * network.largest(),
        Gradients::Buckets => 2 * 2 * BUCKET_NUMBERS.min(network.parameters()),
    }
}

/// A tied embedding has two gradients, the head's and its own, until they are added.
fn second_embedding_gradient(run: &Run) -> u64 {
    if run.stack.trains_base() && run.network.head == Head::Tied { 2 * run.network.embedding() } else { 0 }
}

/// Logits and their gradients; where the head is trained its gradient too, chunk by chunk with a second one being added.
fn loss(run: &Run) -> Vec<Term> {
    let (network, stack) = (run.network, run.stack);
    let per_logit = match stack.loss {
        Loss::None => 0,
        Loss::EagerF32 => 14,
        Loss::EagerBf16 => 8,
        Loss::Compiled => 4,
        Loss::Chunked => 2,
    };
    let head_gradients = match (stack.trains_base(), stack.loss) {
        (false, _) | (_, Loss::None) => 0,
        (true, Loss::Chunked) => 2,
        (true, _) => 1,
    };
    vec![
        Term::churned("logits", per_logit * network.vocabulary * run.tokens()),
        Term::churned("head gradient", head_gradients * 2 * network.embedding()),
    ]
}

/// Whole weights of an FSDP card: two blocks and the root, bf16.
fn gathered(run: &Run) -> u64 {
    let network = run.network;
    if run.stack.sharding == Sharding::None {
        return 0;
    }
    2 * (2 * network.block_linear() + network.embedding() + network.head_own())
}

/// A streamed NF4 block is made bf16 as a whole; a resident one matrix by matrix, the largest counts.
fn dequantised_block(network: &Network, stack: &Stack) -> u64 {
    match (stack.storage, stack.streaming) {
        (Storage::Nf4 | Storage::Nf4Dq, Streaming::Blocks) => 2 * network.block_linear(),
        (Storage::Nf4 | Storage::Nf4Dq, Streaming::Resident) => 2 * network.largest_in_block(),
        _ => 0,
    }
}

/// The quantised head as fp16 and its bf16 copy: bitsandbytes 0.41 quantises through fp16 and casts what it dequantises.
fn dequantised_matrix(network: &Network, stack: &Stack) -> u64 {
    match stack.storage {
        Storage::Nf4WithHead | Storage::Nf4DqWithHead => 4 * network.largest(),
        Storage::Dense | Storage::Nf4 | Storage::Nf4Dq => 0,
    }
}

/// What loading needs beyond what stays.
fn loading(run: &Run) -> u64 {
    let network = run.network;
    match run.stack.loading {
        Loading::Plain => 0,
        Loading::WholeMatrixNf4 => network.largest_in_block() * (2 * 16 * 2 + 2 + 8),
        Loading::Gathered => 2 * network.parameters(),
        Loading::F32Whole => 4 * network.parameters(),
    }
}
