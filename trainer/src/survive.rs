//! What survives: checkpoints to resume from, and the adapter or model that people use.
//!
//! In:    the trained parameters and where the run stands.
//! Out:   complete folders, published whole.
//! Never: resumes into another plan.

use std::path::{Path, PathBuf};

use checkpoints::checkpoint::{self, Position, Restored, State};
use checkpoints::peft::{AdapterConfig, AdapterTensor, write_adapter};
use checkpoints::stream::{Fill, Format, StreamedTensor};
use checkpoints::tensors::TensorFile;
use checkpoints::weights::Weights;
use offload::array::Array;
use offload::group::Group;
use offload::rules::Rule;
use planner::plan::{LoraPlan, MethodPlan, Plan};

use crate::error::TrainError;
use crate::events::Event;
use crate::layout::Slot;
use crate::model_folder::export_model;
use crate::numbers::stored;
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

/// What must be the same for a resumed run to repeat the bits: everything that changes a result.
/// `rows` is the content address of the prepared rows.
pub(crate) fn fingerprint(plan: &Plan, rows: &str) -> String {
    let decided = serde_json::json!({
        "spec": plan.model.spec, "precision": plan.model.precision, "method": plan.method, "data": plan.data, "rows": rows,
        "train": plan.train, "optimizer": plan.optimizer, "schedule": plan.schedule,
    });
    decided.to_string()
}

/// One kept array of a slot: its name, shape and format in the file, and its bytes in the group's arrays.
struct Kept {
    name: String,
    shape: Vec<usize>,
    format: Format,
    /// `None` is the parameters.
    state: Option<usize>,
    /// First element in the array.
    start: u64,
    /// Bytes of one number, and elements that share it: 256 for the scales of 8-bit states.
    shared_by: u64,
}

/// What a checkpoint keeps of a slot: the master and every optimizer state.
fn kept(slot: &Slot, rule: &Rule) -> Vec<Kept> {
    let mut kept = vec![Kept {
        name: stored(&slot.name),
        shape: slot.shape.clone(),
        format: Format::F32,
        state: None,
        start: slot.start,
        shared_by: 1,
    }];
    for (at, state) in rule.states().iter().enumerate() {
        let (format, shared_by) = match state.bytes_per_256 {
            1024 => (Format::F32, 1),
            512 => (Format::Bf16, 1),
            256 => (Format::U8, 1),
            _ => (Format::F32, 256),
        };
        let shape = match shared_by {
            1 => slot.shape.clone(),
            shared => vec![slot.len.div_ceil(shared)],
        };
        let name = format!("{}.{}", state.name, slot.name);
        kept.push(Kept { name, shape, format, state: Some(at), start: slot.start, shared_by: shared_by as u64 });
    }
    kept
}

impl Kept {
    fn array<'a>(&self, group: &'a Group) -> &'a Array {
        self.state.map_or(&group.parameters, |at| &group.states[at])
    }

    /// Element of the array that byte `at` of the tensor belongs to. Pieces begin at whole numbers.
    fn element(&self, at: u64) -> u64 {
        self.start + at / self.format.bytes() * self.shared_by
    }

    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.format.bytes() as usize
    }
}

/// Name of a group's factored state (Adafactor) in a checkpoint.
fn factors_name(group: &str) -> String {
    format!("factors.{group}")
}

/// Length of a group's factored state: the one array that a rule without states for each parameter keeps.
fn factor_elements(parameters: &Parameters, number: usize) -> Option<u64> {
    let group = parameters.group(number);
    let factored = matches!(parameters.rule(), Rule::Adafactor(_));
    group.states.first().filter(|_| factored).map(Array::elements)
}

fn streamed(parameters: &Parameters) -> Vec<StreamedTensor<'_>> {
    let mut tensors = Vec::new();
    for (number, layout) in parameters.layout().iter().enumerate() {
        for kept in layout.slots.iter().flat_map(|slot| kept(slot, parameters.rule())) {
            let (name, shape, format) = (kept.name.clone(), kept.shape.clone(), kept.format);
            let fill: Fill<'_> = Box::new(move |at, out| {
                let group = parameters.group(number);
                Ok(kept.array(&group).read(kept.element(at), out)?)
            });
            tensors.push(StreamedTensor { name, shape, format, fill });
        }
        if let Some(elements) = factor_elements(parameters, number) {
            let fill: Fill<'_> = Box::new(move |at, out| {
                let group = parameters.group(number);
                Ok(group.states[0].read(at / 4, out)?)
            });
            let name = factors_name(&layout.name);
            tensors.push(StreamedTensor { name, shape: vec![elements as usize], format: Format::F32, fill });
        }
    }
    tensors
}

/// Writes a complete checkpoint and removes those beyond the plan's number.
pub(crate) fn save(
    run: &Path,
    plan: &Plan,
    decided: &str,
    parameters: &Parameters,
    progress: &Progress,
) -> Result<PathBuf, TrainError> {
    let from = progress.losses.len().saturating_sub(LOSSES_KEPT);
    let position = Position {
        step: progress.step,
        epoch: progress.epoch,
        position_in_epoch: progress.step_in_epoch,
        seed: plan.train.seed,
        plan_fingerprint: decided.to_string(),
        losses: progress.losses[from..].to_vec(),
        nvme_written_bytes: progress.nvme_written_bytes,
    };
    let path = checkpoint::write(run, State { position, tensors: streamed(parameters) })?;
    checkpoint::prune(run, plan.checkpoint.keep_last)?;
    Ok(path)
}

/// The newest complete checkpoint of this plan. Damaged ones are told.
pub(crate) fn find(run: &Path, decided: &str, events: &mut Listener<'_>) -> Result<Restored, TrainError> {
    let found = checkpoint::newest_complete(run)?;
    let damaged = found.damaged.iter();
    let notes: Vec<String> = damaged.map(|bad| format!("{}: {}", bad.path.display(), bad.reason)).collect();
    let Some(restored) = found.newest else {
        let damaged = notes.iter().map(|note| format!("; damaged: {note}")).collect();
        return Err(TrainError::NothingToResume { folder: run.to_path_buf(), damaged });
    };
    if restored.position.plan_fingerprint != decided {
        let problem = difference(&restored.position.plan_fingerprint, decided);
        return Err(TrainError::OtherPlan { checkpoint: restored.path, problem });
    }
    notes.into_iter().for_each(|note| events(Event::Note(note)));
    events(Event::Note(format!("going on after step {}", restored.position.step)));
    Ok(restored)
}

/// Fills the parameters and states from a checkpoint.
pub(crate) fn restore(restored: &Restored, parameters: &Parameters) -> Result<Progress, TrainError> {
    for number in 0..parameters.layout().len() {
        restore_group(number, parameters, &restored.tensors, &restored.path)?;
    }
    let Position { step, epoch, position_in_epoch, losses, nvme_written_bytes, .. } = restored.position.clone();
    Ok(Progress { step, epoch, step_in_epoch: position_in_epoch, losses, nvme_written_bytes })
}

fn restore_group(number: usize, parameters: &Parameters, tensors: &TensorFile, path: &Path) -> Result<(), TrainError> {
    let layout = &parameters.layout()[number];
    let bytes_of = |name: &str, expected: usize| match tensors.bytes_of(name) {
        Ok(bytes) if bytes.len() == expected => Ok(bytes),
        _ => {
            let problem = format!("{name} is missing or has another size");
            Err(TrainError::OtherPlan { checkpoint: path.to_path_buf(), problem })
        }
    };
    for slot in &layout.slots {
        for kept in kept(slot, parameters.rule()) {
            let bytes = bytes_of(&kept.name, kept.bytes())?;
            match kept.state {
                // Through `set`, which also renews the bf16 copy.
                None => parameters.set(number, slot, &floats(bytes))?,
                Some(at) => parameters.group(number).states[at].write(kept.start, bytes)?,
            }
            tensors.forget(&kept.name);
        }
    }
    if factor_elements(parameters, number).is_some() {
        let factors = &mut parameters.group(number).states[0];
        factors.write(0, bytes_of(&factors_name(&layout.name), factors.bytes() as usize)?)?;
    }
    Ok(())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect()
}

/// The parts of the plan that differ, by name.
fn difference(was: &str, is: &str) -> String {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
    let (was, is) = (parse(was), parse(is));
    let parts = ["spec", "precision", "method", "data", "rows", "train", "optimizer", "schedule"];
    let differing: Vec<&str> = parts.into_iter().filter(|&part| was[part] != is[part]).collect();
    format!("{} differ", differing.join(", "))
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
