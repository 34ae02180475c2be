//! The trained numbers of a run: f32 masters, gradients and optimizer states of every group, each in its planned tier.
//!
//! In:    a layout, the plan, the tiers.
//! Out:   values of a slot, for the device, for checkpoints and for exports.
//! Never: changes a parameter after the start; only the optimizer does ([`crate::optimizer`]), after passing the [`Gate`] of saves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;
use half::bf16;
use offload::array::{Array, Place, Tiers};
use offload::group::{Group, GroupPlaces};
use offload::rules::{Rule, SlotRange};
use planner::plan::{MethodPlan, Plan, Precision, Tier};

use crate::error::TrainError;
use crate::gate::Gate;
use crate::layout::{GroupLayout, OUTER, Slot};
use crate::rule::rule;

/// All groups of a run.
#[derive(Debug)]
pub struct Parameters {
    layout: Vec<GroupLayout>,
    groups: Vec<Mutex<Group>>,
    rule: Rule,
    gate: Gate,
}

/// The engine's place of a planned tier.
pub(crate) fn place(tier: Tier) -> Place {
    match tier {
        Tier::Device => Place::Device,
        Tier::Dram => Place::Dram,
        Tier::Nvme => Place::Nvme,
    }
}

/// Where the f32 masters live. Full training in f32 computes with the masters themselves, so paged weights are the masters.
fn master_place(plan: &Plan) -> Place {
    let offload = &plan.offload;
    let paged_masters = matches!(plan.method, MethodPlan::Full(_)) && plan.model.precision == Precision::F32;
    match offload.weights {
        Tier::Dram | Tier::Nvme if paged_masters => place(offload.weights),
        _ => place(offload.optimizer),
    }
}

/// Where the bf16 copy lives that full training in bf16 computes with, if it is kept apart from the device's tensors.
fn working_place(plan: &Plan) -> Option<Place> {
    let in_bf16 = matches!(plan.method, MethodPlan::Full(_)) && plan.model.precision == Precision::Bf16;
    (in_bf16 && plan.offload.weights != Tier::Device).then(|| place(plan.offload.weights))
}

/// Whether gradients are kept between backward pass and update: not where each is used as soon as it appears.
pub(crate) fn keeps_gradients(plan: &Plan) -> bool {
    !(plan.offload.update_during_backward && plan.train.rows_per_step == plan.train.micro_batch)
}

impl Parameters {
    /// Every array at zero, in its tier.
    pub fn new(layout: Vec<GroupLayout>, plan: &Plan, tiers: &Tiers) -> Result<Parameters, TrainError> {
        let rule = rule(&plan.optimizer);
        let offload = &plan.offload;
        let places = GroupPlaces {
            parameters: master_place(plan),
            gradients: keeps_gradients(plan).then_some(place(offload.gradients)),
            states: place(offload.optimizer),
            working: working_place(plan),
        };
        let mut groups = Vec::with_capacity(layout.len());
        for (number, group) in layout.iter().enumerate() {
            let slots: Vec<SlotRange> = group.slots.iter().map(slot_range).collect();
            let (name, key, span_elements) = (group.name.as_str(), number as u64, offload.span_elements);
            let layout = offload::group::GroupLayout { name, key, slots: &slots, span_elements };
            groups.push(Mutex::new(Group::new(tiers, &rule, &layout, &places)?));
        }
        Ok(Parameters { layout, groups, rule, gate: Gate::default() })
    }

    /// Names and places.
    pub fn layout(&self) -> &[GroupLayout] {
        &self.layout
    }

    /// The update rule.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The gate that updates pass while a checkpoint is written.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Groups in the order in which the backward pass completes them: the last block first, what is around the blocks at the end.
    pub(crate) fn update_order(&self) -> Vec<usize> {
        let (outer, mut blocks): (Vec<usize>, Vec<usize>) =
            (0..self.layout.len()).partition(|&number| self.layout[number].name == OUTER);
        blocks.reverse();
        blocks.extend(outer);
        blocks
    }

    /// Number of trained weights.
    pub fn trained(&self) -> u64 {
        self.layout.iter().map(GroupLayout::trained).sum()
    }

    /// One group's arrays. The lock is held by whoever moves or updates them.
    pub(crate) fn group(&self, number: usize) -> MutexGuard<'_, Group> {
        self.groups[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a slot's master and its bf16 copy, where there is one.
    pub fn set(&self, number: usize, slot: &Slot, values: &[f32]) -> Result<(), TrainError> {
        assert_eq!(values.len(), slot.len, "values of {}", slot.name);
        Ok(self.group(number).write_parameters(slot.start, values)?)
    }

    /// A slot's master values.
    pub fn get(&self, number: usize, slot: &Slot) -> Result<Vec<f32>, TrainError> {
        let mut values = vec![0.0f32; slot.len];
        self.group(number).parameters.read(slot.start, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// A slot's gradient, as far as it has been added up; zeros where none is kept.
    pub fn gradient(&self, number: usize, slot: &Slot) -> Result<Vec<f32>, TrainError> {
        let mut values = vec![0.0f32; slot.len];
        let group = self.group(number);
        if let Some(gradients) = group.gradients.as_ref().filter(|_| !group.has_fresh_gradients()) {
            gradients.read(slot.start, bytemuck::cast_slice_mut(&mut values))?;
        }
        Ok(values)
    }

    /// Every array of a group but its gradients, byte for byte: what two runs of one recipe must agree on.
    pub fn state_bytes(&self, number: usize) -> Result<Vec<Vec<u8>>, TrainError> {
        let group = self.group(number);
        let arrays = [&group.parameters].into_iter().chain(&group.states);
        let bytes = |array: &Array| {
            let mut bytes = vec![0u8; array.bytes() as usize];
            array.read(0, &mut bytes).map(|()| bytes)
        };
        Ok(arrays.map(bytes).collect::<Result<_, _>>()?)
    }

    /// Every slot of a group in the format that compute uses: f32 masters.
    pub(crate) fn masters(&self, number: usize) -> Result<Vec<Vec<f32>>, TrainError> {
        read_slots(&self.group(number).parameters, &self.layout[number])
    }

    /// Every slot of a group as bf16: the copy, or the masters rounded.
    pub(crate) fn rounded(&self, number: usize) -> Result<Vec<Vec<bf16>>, TrainError> {
        let group = self.group(number);
        if let Some(working) = &group.working {
            return read_slots(working, &self.layout[number]);
        }
        let narrow = |masters: &[f32], rounded: &mut [bf16]| {
            masters.iter().zip(rounded).for_each(|(&master, rounded)| *rounded = bf16::from_f32(master));
        };
        read_slots_as(&group.parameters, &self.layout[number], narrow)
    }
}

fn slot_range(slot: &Slot) -> SlotRange {
    let (rows, columns) = match slot.shape[..] {
        [rows, columns] => (rows, columns),
        _ => (1, slot.len),
    };
    SlotRange {
        start: slot.start,
        len: slot.len as u64,
        rows: rows as u64,
        columns: columns as u64,
        decay: slot.is_matrix(),
    }
}

/// A whole array, cut into its slots, read ahead span by span.
pub(crate) fn read_slots<E: Pod + Default>(array: &Array, layout: &GroupLayout) -> Result<Vec<Vec<E>>, TrainError> {
    read_slots_as(array, layout, |stored: &[E], read: &mut [E]| read.copy_from_slice(stored))
}

/// [`read_slots`] in another format than the array's, converted span by span.
fn read_slots_as<S: Pod, E: Pod + Default>(
    array: &Array,
    layout: &GroupLayout,
    convert: impl Fn(&[S], &mut [E]),
) -> Result<Vec<Vec<E>>, TrainError> {
    let mut slots: Vec<Vec<E>> = layout.slots.iter().map(|slot| vec![E::default(); slot.len]).collect();
    let mut from = 0;
    array.visit(&mut |first, bytes| {
        let values: &[S] = bytemuck::cast_slice(bytes);
        let end = first + values.len() as u64;
        while let Some(slot) = layout.slots.get(from) {
            let slot_end = slot.start + slot.len as u64;
            let (start, stop) = (slot.start.max(first), slot_end.min(end));
            if start < stop {
                let source = &values[(start - first) as usize..(stop - first) as usize];
                convert(source, &mut slots[from][(start - slot.start) as usize..(stop - slot.start) as usize]);
            }
            if slot_end > end {
                break;
            }
            from += 1;
        }
    })?;
    Ok(slots)
}

/// The groups shared between the loop and the threads that move bytes.
pub type SharedParameters = Arc<Parameters>;
