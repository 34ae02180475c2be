//! Who is where: hands out blocks, adapters and the parts around the blocks in the order the engine walks them.
//!
//! In:    the plan's tiers, the model's files, the trained parameters.
//! Out:   tensors on the device, whenever the engine asks for them.
//! Never: lets the engine know where a block came from, or hands out a tensor from before an update.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Device, Tensor};
use checkpoints::weights::Weights;
use models::{Block, BlockAdapters, BlockSource, BoxedError, Decoder, HostValues};
use offload::array::Tiers;
use planner::architecture::{DecoderSpec, EMBEDDING, FINAL_NORM, HEAD};
use planner::plan::{MethodPlan, OffloadPlan, Plan, Tier};

use crate::adapters;
use crate::blocks::{BlockStore, Uploader, from_files, group_values};
use crate::error::TrainError;
use crate::network::dtype;
use crate::numbers::Numbers;
use crate::pager::Pager;
use crate::parameters::SharedParameters;
use crate::stalls::Stalls;

/// The network and the place of its parts.
#[derive(Debug)]
pub struct Residency {
    uploader: Uploader,
    parameters: SharedParameters,
    method: MethodPlan,
    outer: Mutex<Arc<Decoder>>,
    /// A block each; empty pairs where none are trained.
    adapters: Mutex<Arc<Vec<BlockAdapters>>>,
    blocks: Blocks,
}

/// Blocks of a network.
#[derive(Debug)]
pub(crate) enum Blocks {
    /// All of them on the device.
    Resident(Mutex<Vec<Block>>),
    /// Brought to the device one by one.
    Paged(Pager),
}

impl Blocks {
    /// Frozen blocks, in the planned tier.
    pub(crate) fn frozen(
        numbers: Numbers<'_>,
        (offload, tiers): (&OffloadPlan, &Tiers),
        uploader: &Uploader,
        stalls: Arc<Stalls>,
    ) -> Result<Blocks, TrainError> {
        if offload.weights != Tier::Device {
            let store = BlockStore::frozen(numbers, offload, tiers, uploader)?;
            return Ok(Blocks::Paged(Pager::start(store, uploader.clone(), stalls)?));
        }
        let blocks = (0..uploader.spec.n_layers()).map(|index| from_files(index, numbers, uploader));
        Ok(Blocks::Resident(Mutex::new(blocks.collect::<Result<_, _>>()?)))
    }

    /// Block `index`, on the device when this returns; `next` is the one that will be wanted after it.
    pub(crate) fn get(&self, index: usize, next: Option<usize>) -> Result<Block, TrainError> {
        match self {
            Blocks::Resident(blocks) => Ok(blocks.lock().unwrap_or_else(PoisonError::into_inner)[index].clone()),
            Blocks::Paged(pager) => pager.get(index, next),
        }
    }
}

impl Residency {
    /// Places every tensor as planned. Full training starts from the parameters, which must be filled.
    pub fn place(
        weights: &Weights,
        plan: &Plan,
        (parameters, tiers): (SharedParameters, &Tiers),
        device: &Device,
        stalls: Arc<Stalls>,
    ) -> Result<Residency, TrainError> {
        let spec = weights.spec().clone();
        let base = plan.method.base();
        let uploader = Uploader { spec, precision: plan.model.precision, base, device: device.clone() };
        let numbers = Numbers::of(weights);
        let outer = Arc::new(outer_from_files(numbers, trained_matrices(&plan.method), &uploader)?);
        let full = matches!(plan.method, MethodPlan::Full(_));
        let blocks = match (plan.offload.weights, full) {
            (_, false) => Blocks::frozen(numbers, (&plan.offload, tiers), &uploader, stalls)?,
            (Tier::Device, true) => Blocks::Resident(Mutex::new(Vec::new())),
            (_, true) => {
                Blocks::Paged(Pager::start(BlockStore::Trained(parameters.clone()), uploader.clone(), stalls)?)
            }
        };
        let adapters = Mutex::new(Arc::new(vec![BlockAdapters::default(); uploader.spec.n_layers()]));
        let method = plan.method.clone();
        let residency = Residency { uploader, parameters, method, outer: Mutex::new(outer), adapters, blocks };
        residency.renew()?;
        Ok(residency)
    }

    /// The network's description.
    pub fn spec(&self) -> &DecoderSpec {
        &self.uploader.spec
    }

    /// Format of activations.
    pub(crate) fn dtype(&self) -> DType {
        dtype(self.uploader.precision)
    }

    /// The parts around the blocks, always on the device.
    pub fn outer(&self) -> Arc<Decoder> {
        self.outer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adapters of every block.
    pub fn adapters(&self) -> Arc<Vec<BlockAdapters>> {
        self.adapters.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Block `index`, on the device when this returns; `next` is the one that will be wanted after it.
    pub fn block(&self, index: usize, next: Option<usize>) -> Result<Block, TrainError> {
        self.blocks.get(index, next)
    }

    /// Takes up the parameters as they are now, after an update or a restored checkpoint.
    pub fn renew(&self) -> Result<(), TrainError> {
        match &self.method {
            MethodPlan::Lora(plan) => {
                let renewed = adapters::upload(plan, &self.parameters, &self.uploader.device)?;
                *self.adapters.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
            }
            MethodPlan::Full(_) => {
                self.renew_outer()?;
                self.renew_blocks()?;
            }
        }
        Ok(())
    }

    fn renew_blocks(&self) -> Result<(), TrainError> {
        let n_layers = self.uploader.spec.n_layers();
        match &self.blocks {
            Blocks::Paged(pager) => pager.renew(0),
            Blocks::Resident(blocks) => {
                let blocks = &mut *blocks.lock().unwrap_or_else(PoisonError::into_inner);
                let store = BlockStore::Trained(self.parameters.clone());
                for index in 0..n_layers {
                    let block = store.load(index, &self.uploader)?;
                    match blocks.get_mut(index) {
                        Some(known) => *known = block,
                        None => blocks.push(block),
                    }
                }
            }
        }
        Ok(())
    }

    fn renew_outer(&self) -> Result<(), TrainError> {
        let number = self.uploader.spec.n_layers();
        let layout = &self.parameters.layout()[number];
        let outer = &mut *self.outer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut renewed = Decoder::clone(outer);
        // The tensors from before the update go first: an embedding may be the largest tensor of a model.
        forget_trained(&mut renewed, &self.method);
        *outer = Arc::new(renewed.clone());
        let values = group_values(&self.parameters, number, self.uploader.precision)?;
        for (slot, values) in layout.slots.iter().zip(values) {
            match slot.name.as_str() {
                FINAL_NORM => renewed.final_norm = self.uploader.norm(values),
                EMBEDDING => renewed.embedding = values.upload(matrix(&slot.shape), &self.uploader.device),
                _ => renewed.head = values.upload(matrix(&slot.shape), &self.uploader.device),
            }
        }
        if self.uploader.spec.tied_head {
            renewed.head = renewed.embedding.clone();
        }
        *outer = Arc::new(renewed);
        Ok(())
    }
}

impl BlockSource for Residency {
    fn block(&self, index: usize) -> Result<Block, BoxedError> {
        let next = (index + 1) % self.uploader.spec.n_layers();
        Ok(Residency::block(self, index, Some(next))?)
    }

    fn n_blocks(&self) -> usize {
        self.uploader.spec.n_layers()
    }
}

fn matrix(shape: &[usize]) -> [usize; 2] {
    [shape[0], shape[1]]
}

/// Puts an empty tensor in the place of each trained matrix.
fn forget_trained(outer: &mut Decoder, method: &MethodPlan) {
    let (embedding, head) = trained_matrices(method);
    let nothing = || Tensor::empty([0, outer.spec.hidden], &outer.device);
    if embedding {
        outer.embedding = nothing();
    }
    if head {
        outer.head = nothing();
    }
}

/// Whether embedding and head are trained.
fn trained_matrices(method: &MethodPlan) -> (bool, bool) {
    method.full().map_or((false, false), |full| (full.embeddings, full.head))
}

/// What the files hold of the parts around the blocks; trained matrices are empty until they are renewed.
pub(crate) fn outer_from_files(
    numbers: Numbers<'_>,
    (embedding_trained, head_trained): (bool, bool),
    uploader: &Uploader,
) -> Result<Decoder, TrainError> {
    let spec = uploader.spec.clone();
    let matrix = |name: &str, trained: bool| match trained {
        true => Ok(Tensor::empty([0, spec.hidden], &uploader.device)),
        false => uploader.matrix(numbers, name),
    };
    let embedding = matrix(EMBEDDING, embedding_trained)?;
    let head = if spec.tied_head { embedding.clone() } else { matrix(HEAD, head_trained)? };
    let final_norm = uploader.norm(HostValues::F32(numbers.norm(FINAL_NORM, uploader.precision)?));
    Ok(Decoder { spec, embedding, head, final_norm, device: uploader.device.clone() })
}
