//! What survives: checkpoints to resume from, and the adapter that people use.
//!
//! In:    the adapter store and where the run stands.
//! Out:   complete folders, published whole.
//! Never: resumes into another plan.

use std::path::{Path, PathBuf};

use checkpoints::checkpoint::{self, Position, State};
use checkpoints::peft::{AdapterConfig, AdapterTensor, write_adapter};
use checkpoints::tensors::NamedTensor;
use planner::plan::Plan;

use crate::adapters::{AdapterStore, Slot};
use crate::error::TrainError;

/// Losses kept in a checkpoint.
const LOSSES_KEPT: usize = 64;

/// Where the run stands, and what of it goes into checkpoints.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// Updates done.
    pub(crate) step: u64,
    /// Passes over the data done.
    pub(crate) epoch: u64,
    /// Steps of this pass done.
    pub(crate) step_in_epoch: u64,
    /// Losses so far, the newest last.
    pub(crate) losses: Vec<f64>,
}

/// What must be the same for a resumed run to repeat the bits: everything that changes a result.
pub(crate) fn fingerprint(plan: &Plan) -> String {
    let decided = serde_json::json!({
        "spec": plan.model.spec, "precision": plan.model.precision, "method": plan.method, "data": plan.data,
        "train": plan.train, "optimizer": plan.optimizer, "schedule": plan.schedule,
    });
    decided.to_string()
}

/// Names of the three arrays of a factor.
fn state_names(slot: &Slot) -> [String; 3] {
    ["parameter", "first_moment", "second_moment"].map(|kind| format!("{kind}.{}", slot.name))
}

/// Writes a complete checkpoint and removes those beyond the plan's number.
pub(crate) fn save(run: &Path, plan: &Plan, store: &AdapterStore, progress: &Progress) -> Result<PathBuf, TrainError> {
    let arrays = [&store.parameters, &store.first_moment, &store.second_moment];
    let mut tensors = Vec::new();
    for slot in store.slots() {
        for (name, array) in state_names(slot).into_iter().zip(arrays) {
            tensors.push(NamedTensor { name, shape: slot.shape.to_vec(), data: &array[slot.range.clone()] });
        }
    }
    let from = progress.losses.len().saturating_sub(LOSSES_KEPT);
    let position = Position {
        step: progress.step,
        epoch: progress.epoch,
        position_in_epoch: progress.step_in_epoch,
        seed: plan.train.seed,
        plan_fingerprint: fingerprint(plan),
        losses: progress.losses[from..].to_vec(),
    };
    let path = checkpoint::write(run, &State { position, tensors })?;
    checkpoint::prune(run, plan.checkpoint.keep_last)?;
    Ok(path)
}

/// Fills the store from the newest complete checkpoint. Also returns notes on damaged ones.
pub(crate) fn restore(
    run: &Path,
    plan: &Plan,
    store: &mut AdapterStore,
) -> Result<(Progress, Vec<String>), TrainError> {
    let found = checkpoint::newest_complete(run)?;
    let damaged = found.damaged.iter();
    let notes: Vec<String> = damaged.map(|bad| format!("{}: {}", bad.path.display(), bad.reason)).collect();
    let Some((path, _)) = found.newest else {
        let damaged = notes.iter().map(|note| format!("; damaged: {note}")).collect();
        return Err(TrainError::NothingToResume { folder: run.to_path_buf(), damaged });
    };
    let restored = checkpoint::read(&path)?;
    let position = restored.position;
    if position.plan_fingerprint != fingerprint(plan) {
        let problem = difference(&position.plan_fingerprint, &fingerprint(plan));
        return Err(TrainError::OtherPlan { checkpoint: path, problem });
    }
    for slot in store.slots().to_vec() {
        let names = state_names(&slot);
        let arrays = [&mut store.parameters, &mut store.first_moment, &mut store.second_moment];
        for (name, array) in names.iter().zip(arrays) {
            let tensor = restored.tensors.get(name).filter(|tensor| tensor.data.len() == slot.range.len());
            let Some(tensor) = tensor else {
                let problem = format!("{name} is missing or has another size");
                return Err(TrainError::OtherPlan { checkpoint: path, problem });
            };
            array[slot.range.clone()].copy_from_slice(&tensor.data);
        }
    }
    let Position { step, epoch, position_in_epoch, losses, .. } = position;
    Ok((Progress { step, epoch, step_in_epoch: position_in_epoch, losses }, notes))
}

/// The parts of the plan that differ, by name.
fn difference(was: &str, is: &str) -> String {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
    let (was, is) = (parse(was), parse(is));
    let parts = ["spec", "precision", "method", "data", "train", "optimizer", "schedule"];
    let differing: Vec<&str> = parts.into_iter().filter(|&part| was[part] != is[part]).collect();
    format!("{} differ", differing.join(", "))
}

/// Writes the adapter in PEFT's layout and returns its folder.
pub(crate) fn export(run: &Path, plan: &Plan, base: &str, store: &AdapterStore) -> Result<PathBuf, TrainError> {
    let folder = run.join("adapter");
    let config = AdapterConfig {
        base_model: Some(base.to_string()),
        rank: plan.method.rank,
        alpha: plan.method.alpha,
        dropout: plan.method.dropout,
        target_modules: plan.method.targets.iter().map(|target| target.leaf().to_string()).collect(),
        rank_stabilized: plan.method.rank_stabilized,
    };
    let tensors: Vec<AdapterTensor<'_>> = store
        .slots()
        .iter()
        .map(|slot| AdapterTensor {
            name: slot.name.clone(),
            shape: slot.shape.to_vec(),
            data: &store.parameters[slot.range.clone()],
        })
        .collect();
    write_adapter(&folder, &config, &tensors)?;
    Ok(folder)
}
