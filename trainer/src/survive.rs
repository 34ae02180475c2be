//! What survives: checkpoints to resume from, and the adapter or model that people use.
//!
//! In:    the trained parameters and where the run stands.
//! Out:   complete folders, published whole.
//! Never: resumes into another plan.

use std::path::{Path, PathBuf};

use checkpoints::checkpoint::{self, Position, Restored};
use checkpoints::difference::{differences, text};
use checkpoints::peft::{AdapterConfig, AdapterTensor, write_adapter};
use checkpoints::weights::Weights;
use planner::plan::{LoraPlan, MethodPlan, Plan};
use serde_json::Value;

use crate::error::TrainError;
use crate::events::{Event, Resume};
use crate::model_folder::export_model;
use crate::parameters::Parameters;
use crate::run::Listener;
use crate::subject::ADAPTER_FOLDER;

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
    /// Bytes that all processes of the run wrote to NVMe tiers.
    pub(crate) nvme_written_bytes: u64,
}

impl Progress {
    /// As a checkpoint of a run of `steps` keeps it; the caller adds what else it knows.
    pub(crate) fn position(&self, plan: &Plan, decided: &str, steps: u64) -> Position {
        let from = self.losses.len().saturating_sub(LOSSES_KEPT);
        Position {
            step: self.step,
            steps,
            epoch: self.epoch,
            position_in_epoch: self.step_in_epoch,
            micro_batches_done: 0,
            seed: plan.train.seed,
            plan_fingerprint: decided.to_string(),
            losses: self.losses[from..].to_vec(),
            metrics_bytes: 0,
            nvme_written_bytes: self.nvme_written_bytes,
        }
    }

    /// As a checkpoint kept it.
    pub(crate) fn of(position: &Position) -> Progress {
        let Position { step, epoch, position_in_epoch, losses, nvme_written_bytes, .. } = position.clone();
        Progress { step, epoch, step_in_epoch: position_in_epoch, losses, nvme_written_bytes }
    }
}

/// What must be the same for a resumed run to repeat the bits: everything that changes a result.
/// `rows` is the content address of the prepared rows, `files` the fingerprint of the model's.
pub(crate) fn fingerprint(plan: &Plan, rows: &str, files: &str) -> String {
    let decided = serde_json::json!({
        "model": { "spec": plan.model.spec, "precision": plan.model.precision, "files": files },
        "method": plan.method, "data": plan.data, "rows": rows,
        "train": plan.train, "optimizer": plan.optimizer, "schedule": plan.schedule,
    });
    decided.to_string()
}

/// The checkpoint to go on from, if the job asks for one. Damaged ones are told; one of another plan is refused with what differs.
pub(crate) fn find(
    run: &Path,
    resume: Resume,
    decided: &str,
    events: &mut Listener<'_>,
) -> Result<Option<Restored>, TrainError> {
    let restored = match resume {
        Resume::No => return Ok(None),
        Resume::Step(step) => checkpoint::open_step(run, step)?,
        Resume::Newest => newest(run, events)?,
    };
    let (was, is) = (parsed(&restored.position.plan_fingerprint), parsed(decided));
    let differing = differences(&was, &is);
    if !differing.is_empty() {
        return Err(TrainError::OtherPlan { checkpoint: restored.path, problem: text(&differing) });
    }
    events(Event::Note(format!("going on after step {}", restored.position.step)));
    Ok(Some(restored))
}

fn newest(run: &Path, events: &mut Listener<'_>) -> Result<Restored, TrainError> {
    let found = checkpoint::newest_complete(run)?;
    let notes: Vec<String> = found.damaged.into_iter().map(|bad| bad.reason).collect();
    let Some(restored) = found.newest else {
        let damaged = notes.iter().map(|note| format!("; {note}")).collect();
        return Err(TrainError::NothingToResume { folder: run.to_path_buf(), damaged });
    };
    notes.into_iter().for_each(|note| events(Event::Note(format!("passed over: {note}"))));
    Ok(restored)
}

/// Checkpoints after `step` no longer belong to a run that goes on from there: they take another name, and that is told.
pub(crate) fn set_later_aside(run: &Path, step: u64, events: &mut Listener<'_>) -> Result<(), TrainError> {
    let later = checkpoint::set_aside_after(run, step)?;
    if !later.is_empty() {
        let names: Vec<String> = later.iter().map(|step| format!("step-{step:06}")).collect();
        events(Event::Note(format!(
            "set aside as superseded: {}; `tune checkpoints prune` removes them, and lines of metrics.jsonl after step {step} are cut",
            names.join(", ")
        )));
    }
    Ok(())
}

fn parsed(fingerprint: &str) -> Value {
    serde_json::from_str(fingerprint).unwrap_or_default()
}

/// Writes what people use: the adapter in PEFT's layout, or the trained model. Returns its folder.
pub(crate) fn export(
    run: &Path,
    plan: &Plan,
    base: &str,
    weights: &Weights,
    parameters: &Parameters,
) -> Result<PathBuf, TrainError> {
    match &plan.method {
        MethodPlan::Lora(lora) => export_adapter(run, lora, base, parameters),
        MethodPlan::Full(_) => export_model(run, plan, weights, parameters),
    }
}

/// What PEFT must know of a run's adapter.
pub(crate) fn adapter_config(plan: &LoraPlan, base_model: Option<String>) -> AdapterConfig {
    AdapterConfig {
        base_model,
        rank: plan.rank,
        alpha: plan.alpha,
        dropout: plan.dropout,
        target_modules: plan.targets.iter().map(|target| target.leaf().to_string()).collect(),
        rank_stabilized: plan.rank_stabilized,
    }
}

fn export_adapter(run: &Path, plan: &LoraPlan, base: &str, parameters: &Parameters) -> Result<PathBuf, TrainError> {
    let folder = run.join(ADAPTER_FOLDER);
    let config = adapter_config(plan, Some(base.to_string()));
    let mut values = Vec::new();
    for (number, group) in parameters.layout().iter().enumerate() {
        for slot in &group.slots {
            values.push((slot, parameters.get(number, slot)?));
        }
    }
    let tensors: Vec<AdapterTensor<'_>> = values
        .iter()
        .map(|(slot, data)| AdapterTensor { name: slot.name.clone(), shape: slot.shape.clone(), data })
        .collect();
    write_adapter(&folder, &config, &tensors)?;
    Ok(folder)
}
