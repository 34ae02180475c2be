//! Network, trained numbers and optimizer of a run, placed as planned: what makes one update.
//!
//! In:    opened weights, the plan; the batches of a step.
//! Out:   the step's loss and gradient norm; parameters changed.
//! Never: updates with a loss or a gradient norm that is not a number; knows files of the run.

use std::sync::Arc;

use burn::tensor::Device;
use checkpoints::peft::read_adapter;
use checkpoints::weights::Weights;
use datasets::Batch;
use offload::array::Tiers;
use offload::rules::Step;
use offload::slab::Slabs;
use offload::store::{EngineChoice, Store, StoreOptions};
use offload::update::Updater;
use planner::plan::{IoEngine, MethodPlan, OffloadPlan, Plan, Tier};

use crate::activations::Activations;
use crate::adapters;
use crate::engine::{Engine, Pass};
use crate::error::TrainError;
use crate::layout;
use crate::optimizer::{Finish, Optimizer};
use crate::parameters::{Parameters, SharedParameters};
use crate::residency::Residency;
use crate::stalls::Stalls;

/// Loss and gradient norm of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepResult {
    /// Mean over trained tokens.
    pub loss: f64,
    /// Global norm before clipping.
    pub norm: f64,
}

/// Everything that is placed in tiers. Fields are dropped in order: threads that move bytes end before the tiers do.
#[derive(Debug)]
pub struct Learner {
    optimizer: Optimizer,
    /// The network.
    pub engine: Engine,
    /// The trained numbers.
    pub parameters: SharedParameters,
    /// Where bytes live.
    pub tiers: Tiers,
    /// Time spent waiting.
    pub stalls: Arc<Stalls>,
    plan: Plan,
}

impl Learner {
    /// Arrays at their start values, not yet the network: a checkpoint may replace them first.
    pub fn parameters(weights: &Weights, plan: &Plan, tiers: &Tiers) -> Result<SharedParameters, TrainError> {
        let layout = match &plan.method {
            MethodPlan::Lora(lora) => layout::adapters(lora, weights.spec()),
            MethodPlan::Full(full) => layout::whole_model(full, weights.spec()),
        };
        Ok(Arc::new(Parameters::new(layout, plan, tiers)?))
    }

    /// Fills parameters as a fresh run starts: adapters at random or from a folder, weights from the model's files.
    pub fn initialise(parameters: &Parameters, weights: &Weights, plan: &Plan) -> Result<(), TrainError> {
        match &plan.method {
            MethodPlan::Lora(lora) => match &lora.start_from {
                None => adapters::initialise(parameters, plan.train.seed),
                Some(folder) => adapters::start_from(parameters, lora, &read_adapter(folder)?, folder),
            },
            MethodPlan::Full(_) => {
                for (number, group) in parameters.layout().iter().enumerate() {
                    for slot in &group.slots {
                        parameters.set(number, slot, &weights.read(&slot.name)?.data)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Places the network and starts the threads. `parameters` are filled.
    pub fn start(
        weights: &Weights,
        plan: &Plan,
        device: &Device,
        parameters: SharedParameters,
        tiers: Tiers,
    ) -> Result<Learner, TrainError> {
        let stalls = Arc::new(Stalls::default());
        let residency = Residency::place(weights, plan, (parameters.clone(), &tiers), device, stalls.clone())?;
        let activations = Activations::new(plan, &tiers, device, stalls.clone())?;
        let engine = Engine {
            residency,
            activations,
            parameters: parameters.clone(),
            keep: plan.model.keep.clone(),
            method: plan.method.clone(),
            seed: plan.train.seed,
        };
        let updater = Updater::new(*parameters.rule());
        let cores = rayon::current_num_threads();
        let optimizer = Optimizer::start(parameters.clone(), updater, cores, stalls.clone())?;
        Ok(Learner { optimizer, engine, parameters, tiers, stalls, plan: plan.clone() })
    }

    /// A whole fresh learner.
    pub fn fresh(weights: &Weights, plan: &Plan, device: &Device) -> Result<Learner, TrainError> {
        let tiers = tiers(plan, 0)?;
        let parameters = Learner::parameters(weights, plan, &tiers)?;
        Learner::initialise(&parameters, weights, plan)?;
        Learner::start(weights, plan, device, parameters, tiers)
    }

    /// Forward and backward passes of update `number`. Where the plan says so, parameters are updated on the way.
    pub fn pass(&self, batches: &[Batch], number: u64, learning_rate: f64) -> Result<StepResult, TrainError> {
        let trained: usize = batches.iter().map(|batch| batch.targets.len()).sum();
        let trained = trained.max(1);
        let mut sum = 0.0;
        for (index, batch) in batches.iter().enumerate() {
            let last = index + 1 == batches.len();
            let finish = match last && self.plan.offload.update_during_backward {
                true => Finish::Update(self.step(number, learning_rate, 1.0)),
                false => Finish::Add,
            };
            let stream = number * batches.len() as u64 + index as u64;
            let pass = Pass { gradient_scale: 1.0 / trained as f32, stream, finish };
            sum += self.engine.train(batch, pass, &self.optimizer)?.sum;
            let loss = sum / trained as f64;
            if !loss.is_finite() {
                return Err(TrainError::LossNotFinite { step: number, loss, learning_rate });
            }
        }
        let norm = self.optimizer.settle()?;
        if !norm.is_finite() {
            return Err(TrainError::GradientNotFinite { step: number, norm, learning_rate });
        }
        Ok(StepResult { loss: sum / trained as f64, norm })
    }

    /// The update that [`Learner::pass`] has not made, and the network as it is after it.
    pub fn update(&self, number: u64, learning_rate: f64, norm: f64) -> Result<(), TrainError> {
        if !self.plan.offload.update_during_backward {
            // PyTorch's clip_grad_norm_ adds 1e-6 to the norm.
            let clip = self.plan.optimizer.max_grad_norm.map_or(1.0, |bound| (bound / (norm + 1e-6)).min(1.0));
            self.optimizer.update_all(self.step(number, learning_rate, clip as f32))?;
        }
        self.engine.residency.renew()
    }

    fn step(&self, number: u64, learning_rate: f64, gradient_scale: f32) -> Step {
        Step { number, learning_rate, gradient_scale, seed: self.plan.train.seed }
    }
}

/// The tiers of a plan. `written_before` are bytes that earlier processes of the run wrote to NVMe.
pub fn tiers(plan: &Plan, written_before: u64) -> Result<Tiers, TrainError> {
    tiers_of(&plan.name, &plan.offload, written_before)
}

/// [`tiers`] of what is placed as `offload` says; `name` names the files.
pub(crate) fn tiers_of(name: &str, offload: &OffloadPlan, written_before: u64) -> Result<Tiers, TrainError> {
    let classes = [offload.weights, offload.gradients, offload.optimizer, offload.activations];
    let nvme = match classes.contains(&Tier::Nvme) {
        false => None,
        true => Some(Store::open(StoreOptions {
            run: name.to_string(),
            paths: offload.nvme.clone(),
            engine: match offload.engine {
                IoEngine::Auto => EngineChoice::Auto,
                IoEngine::IoUring => EngineChoice::IoUring,
                IoEngine::Threads => EngineChoice::Threads,
            },
            buffers: offload.buffers,
            buffer_bytes: offload.span_elements * 4,
            queue_depth: offload.queue_depth,
            write_budget_bytes: offload.write_budget_bytes.map(|budget| budget.saturating_sub(written_before)),
            faults: None,
        })?),
    };
    // The device tier of a CPU is ordinary memory; on a card the optimizer's arrays stay on the host all the same.
    let device = Slabs::new("device", offload.device_budget_bytes);
    Ok(Tiers { device, dram: Slabs::new("dram", offload.dram_budget_bytes), nvme })
}
