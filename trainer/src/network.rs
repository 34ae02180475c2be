//! A trained network ready to run forward: to be measured, compared with an export, or talked to.
//!
//! In:    opened weights, what was trained over them, an [`InferencePlan`].
//! Out:   logits, losses, answers; with the adapter or without it.
//! Never: a gradient; a result that differs by a bit between tiers.
//!
//! Everything runs on a worker of rayon's pool, as training does (see [`crate::train`]): results have the bits of a run's own evaluation.

use std::sync::Arc;

use burn::tensor::DType;
use checkpoints::checkpoint::Restored;
use checkpoints::peft::Adapter;
use checkpoints::weights::Weights;
use datasets::Batch;
use models::generate::{Ending, Stack};
use models::{Block, BlockAdapters, BlockSource, BoxedError, Decoder};
use offload::array::Tiers;
use planner::architecture::DecoderSpec;
use planner::inference::InferencePlan;
use planner::plan::{MethodPlan, Precision};

use crate::adapters;
use crate::blocks::Uploader;
use crate::engine::MicroLoss;
use crate::error::{TrainError, fetched};
use crate::learner::tiers_of;
use crate::load;
use crate::numbers::Numbers;
use crate::residency::{Blocks, outer_from_files};
use crate::stalls::Stalls;

/// What was trained over a model's files.
#[derive(Debug)]
pub enum Tuned {
    /// Nothing: the model as its files are.
    Nothing,
    /// Nothing yet: the files as full training begins with them.
    Start,
    /// A PEFT adapter.
    Adapter(Box<Adapter>),
    /// A checkpoint of a run with this method.
    Checkpoint(Box<Restored>, MethodPlan),
}

/// A frozen network in its tier. A clone shares it.
#[derive(Debug, Clone)]
pub struct Network {
    placed: Arc<Placed>,
    adapters: Arc<Vec<BlockAdapters>>,
}

/// Fields are dropped in order: the thread that moves blocks ends before the tiers do.
#[derive(Debug)]
struct Placed {
    blocks: Blocks,
    outer: Decoder,
    tiers: Tiers,
}

impl BlockSource for Placed {
    fn block(&self, index: usize) -> Result<Block, BoxedError> {
        Ok(self.blocks.get(index, Some((index + 1) % self.n_blocks()))?)
    }

    fn n_blocks(&self) -> usize {
        self.outer.spec.n_layers()
    }
}

impl Network {
    /// Places a network as planned.
    pub fn open(weights: &Weights, tuned: &Tuned, plan: &InferencePlan) -> Result<Network, TrainError> {
        kernels::memory::pack_by_panels();
        rayon::scope(|_| Network::open_here(weights, tuned, plan))
            .map_err(|error| error.before_training(plan.memory.nvme_bytes))
    }

    fn open_here(weights: &Weights, tuned: &Tuned, plan: &InferencePlan) -> Result<Network, TrainError> {
        let device = load::device_for(plan.device, plan.precision)?;
        let uploader = Uploader { spec: weights.spec().clone(), precision: plan.precision, base: plan.base, device };
        let numbers = match tuned {
            Tuned::Checkpoint(restored, MethodPlan::Full(_)) => {
                Numbers::with(weights, &restored.tensors).checked(&restored.path)?
            }
            Tuned::Start => Numbers::at_start(weights),
            _ => Numbers::of(weights),
        };
        let adapters = match tuned {
            Tuned::Adapter(adapter) => adapters::of_folder(adapter, &uploader.spec, &uploader.device)?,
            Tuned::Checkpoint(restored, MethodPlan::Lora(lora)) => {
                adapters::of_checkpoint(lora, restored, &uploader.spec, &uploader.device)?
            }
            _ => nothing(&uploader.spec),
        };
        let adapters: Vec<BlockAdapters> =
            adapters.iter().map(|adapters| adapters.ready(dtype(plan.precision))).collect();
        let tiers = tiers_of(&plan.name, &plan.offload, 0)?;
        let outer = outer_from_files(numbers, (false, false), &uploader)?;
        let blocks = Blocks::frozen(numbers, (&plan.offload, &tiers), &uploader, Arc::new(Stalls::default()))?;
        kernels::memory::give_back_small();
        Ok(Network { placed: Arc::new(Placed { blocks, outer, tiers }), adapters: Arc::new(adapters) })
    }

    /// The same weights without the adapter: the base, after LoRA. After full training this is the trained network itself.
    pub fn bare(&self) -> Network {
        let adapters = Arc::new(nothing(self.spec()));
        Network { placed: Arc::clone(&self.placed), adapters }
    }

    /// What the network is.
    pub fn spec(&self) -> &DecoderSpec {
        &self.placed.outer.spec
    }

    /// What people should know about the tiers: fallbacks, each with its cost.
    pub fn notes(&self) -> Vec<String> {
        self.placed.tiers.nvme.as_ref().map(|store| store.notes()).unwrap_or_default()
    }

    /// Logits after each of `tokens`, one row of a vocabulary a token.
    pub fn logits(&self, tokens: &[u32]) -> Result<Vec<Vec<f32>>, TrainError> {
        rayon::scope(|_| {
            let segments = [0, tokens.len() as u32];
            let (outer, stack) = self.parts();
            let hidden = outer.hidden(stack, tokens, &segments).map_err(fetched)?;
            let rows: Vec<u32> = (0..segments[1]).collect();
            let logits = outer.logits(hidden, &rows).cast(DType::F32).into_data();
            let values: Vec<f32> = logits.try_into_vec().expect("logits were cast to f32");
            Ok(values.chunks(self.spec().vocabulary).map(<[f32]>::to_vec).collect())
        })
    }

    /// Loss of a batch.
    pub fn loss(&self, batch: &Batch) -> Result<MicroLoss, TrainError> {
        self.run(|forward| forward.loss(batch))
    }

    /// The greedy continuation of every prompt, without the id that ends it.
    pub fn answers(&self, prompts: &[Vec<u32>], ending: Ending<'_>) -> Result<Vec<Vec<u32>>, TrainError> {
        self.run(|forward| forward.answers(prompts, ending))
    }

    /// Runs `work` on a worker of rayon's pool.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce(Forward<'_>) -> T + Send) -> T {
        rayon::scope(|_| {
            let (outer, stack) = self.parts();
            work(Forward { outer, stack })
        })
    }

    /// The parts around the blocks, and the blocks with their adapters.
    pub(crate) fn parts(&self) -> (&Decoder, Stack<'_>) {
        (&self.placed.outer, Stack { blocks: &*self.placed, adapters: &self.adapters })
    }
}

/// A network for one pass: that of a run, or an opened one.
#[derive(Clone, Copy)]
pub(crate) struct Forward<'a> {
    pub(crate) outer: &'a Decoder,
    pub(crate) stack: Stack<'a>,
}

impl Forward<'_> {
    /// Loss of a batch without gradients.
    pub(crate) fn loss(self, batch: &Batch) -> Result<MicroLoss, TrainError> {
        let x_td = self.outer.hidden(self.stack, &batch.tokens, &batch.segments).map_err(fetched)?;
        let loss = self.outer.loss(x_td, &batch.loss_rows, &batch.targets, None);
        Ok(MicroLoss { sum: loss.sum, trained_tokens: batch.targets.len() })
    }

    /// Greedy continuations.
    pub(crate) fn answers(self, prompts: &[Vec<u32>], ending: Ending<'_>) -> Result<Vec<Vec<u32>>, TrainError> {
        self.outer.generate(self.stack, prompts, ending).map_err(fetched)
    }
}

/// The format of activations.
pub(crate) fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    }
}

fn nothing(spec: &DecoderSpec) -> Vec<BlockAdapters> {
    vec![BlockAdapters::default(); spec.n_layers()]
}
