//! A group: the tensors that are trained together (a decoder block, an adapter) and everything the optimizer keeps about them.
//!
//! In:    the tensors' shapes, the place of each class of array, gradients as they appear.
//! Out:   flat arrays for parameters, gradients, optimizer states and a bf16 working copy; the squared norm of the gradients.
//! Never: zeroes gradients on disk: a group knows whether what lies there still counts.

use rayon::prelude::*;

use crate::array::{Array, Place, Tiers};
use crate::error::TierError;
use crate::pipeline::{Access, Lane, walk};
use crate::rules::{ALIGNMENT, Rule, SlotRange, norms_of_256, round_to_bf16};

/// Elements a thread adds at a time.
const BLOCK: usize = 16 * 1024;
/// Elements that [`Group::write_parameters`] rounds to bf16 at a time.
const PIECE: usize = 1 << 20;

/// Where the arrays of a group live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPlaces {
    /// The `f32` parameters.
    pub parameters: Place,
    /// The `f32` gradients; `None` if they are always given to the update directly.
    pub gradients: Option<Place>,
    /// The optimizer's states. Adafactor's factors are always in host memory.
    pub states: Place,
    /// The bf16 copy that computes; `None` where the parameters themselves do.
    pub working: Option<Place>,
}

/// What a group is made from.
#[derive(Clone, Copy, Debug)]
pub struct GroupLayout<'a> {
    /// Begins the names of its arrays, which also name their bytes on disk.
    pub name: &'a str,
    /// The group's number in the model, from which stochastic rounding draws.
    pub key: u64,
    /// Its tensors, from [`lay_out`].
    pub slots: &'a [SlotRange],
    /// Elements that are moved at a time, a multiple of 256.
    pub span_elements: usize,
}

/// Tensors that are trained together, as flat arrays of one length.
#[derive(Debug)]
pub struct Group {
    /// The group's number in the model.
    pub key: u64,
    /// Its tensors in ascending order.
    pub slots: Vec<SlotRange>,
    /// `f32` parameters.
    pub parameters: Array,
    /// `f32` gradients.
    pub gradients: Option<Array>,
    /// One array for each of [`Rule::states`]; for Adafactor one of [`Rule::factor_elements`] `f32` values.
    pub states: Vec<Array>,
    /// The parameters rounded to bf16.
    pub working: Option<Array>,
    name: String,
    /// Whether the gradients are logically zero, whatever their array holds.
    pub(crate) fresh: bool,
    /// Whether a change of its arrays began and did not end.
    pub(crate) torn: bool,
}

/// Places tensors of (rows, columns, whether weight decay applies) one after another, each start a multiple of 256.
pub fn lay_out(shapes: impl IntoIterator<Item = (u64, u64, bool)>) -> Vec<SlotRange> {
    let mut start = 0;
    let slot = |(rows, columns, decay)| {
        let slot = SlotRange { start, len: rows * columns, rows, columns, decay };
        start = (start + slot.len).next_multiple_of(ALIGNMENT);
        slot
    };
    shapes.into_iter().map(slot).collect()
}

/// Elements of a group with `slots`: a multiple of 256.
pub fn group_elements(slots: &[SlotRange]) -> u64 {
    slots.last().map_or(0, |slot| (slot.start + slot.len).next_multiple_of(ALIGNMENT))
}

impl Group {
    /// A group of zeros.
    ///
    /// # Errors
    /// Those of [`Tiers::array`]: a tier is too small, or absent.
    pub fn new(tiers: &Tiers, rule: &Rule, layout: &GroupLayout<'_>, places: &GroupPlaces) -> Result<Group, TierError> {
        let GroupLayout { name, key, slots, span_elements } = *layout;
        let elements = group_elements(slots);
        let array = |place, class: &str, bytes_per_256| {
            tiers.array(place, &format!("{name}.{class}"), elements, bytes_per_256, span_elements)
        };
        let states = rule.states().iter().map(|state| array(places.states, state.name, state.bytes_per_256));
        let mut states: Vec<Array> = states.collect::<Result<_, _>>()?;
        let factors = rule.factor_elements(slots);
        if factors > 0 {
            let factors = factors.next_multiple_of(ALIGNMENT);
            states.push(tiers.array(Place::Dram, &format!("{name}.factors"), factors, 1024, span_elements)?);
        }
        Ok(Group {
            key,
            slots: slots.to_vec(),
            parameters: array(places.parameters, "parameters", 1024)?,
            gradients: places.gradients.map(|place| array(place, "gradients", 1024)).transpose()?,
            states,
            working: places.working.map(|place| array(place, "working", 512)).transpose()?,
            name: name.to_owned(),
            fresh: true,
            torn: false,
        })
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its length in elements, padding included.
    pub fn elements(&self) -> u64 {
        self.parameters.elements()
    }

    /// Whether no gradient was added since the last update.
    pub fn has_fresh_gradients(&self) -> bool {
        self.fresh
    }

    /// Sets the parameters from element `first` on, and the bf16 copy with them.
    ///
    /// # Errors
    /// What the tiers say; the group then refuses updates.
    pub fn write_parameters(&mut self, first: u64, values: &[f32]) -> Result<(), TierError> {
        let was_torn = std::mem::replace(&mut self.torn, true);
        self.parameters.write(first, bytemuck::cast_slice(values))?;
        if let Some(working) = &mut self.working {
            let mut rounded = vec![0u16; values.len().min(PIECE)];
            for (i, piece) in values.chunks(PIECE).enumerate() {
                let rounded = &mut rounded[..piece.len()];
                round_to_bf16(piece, rounded);
                working.write(first + (i * PIECE) as u64, bytemuck::cast_slice(rounded))?;
            }
        }
        self.torn = was_torn;
        Ok(())
    }

    /// Adds the gradients of one micro-batch; the first after an update replaces what was there.
    ///
    /// Returns the squared norm of the sum so far: blocks of 256 elements added in ascending order, whatever the span.
    ///
    /// # Errors
    /// What the tiers say; some spans may then hold the new sum and some the old, and the group refuses updates.
    ///
    /// # Panics
    /// If `flat` has another length than the group or the group has no array for gradients: our bugs.
    pub fn add_gradients(&mut self, flat: &[f32]) -> Result<f64, TierError> {
        assert_eq!(flat.len() as u64, self.elements(), "gradients of group {}", self.name);
        self.check_whole()?;
        let fresh = self.fresh;
        let array = self.gradients.as_mut().expect("the plan gave this group a place for gradients");
        let (spans, span_elements) = (array.spans(), array.span_elements());
        let access = if fresh { Access::Write } else { Access::Change };
        let mut norm = 0.0;
        self.torn = true;
        walk(&mut [vec![Lane::new(array, access)]], &[spans], |_, span, mut views| {
            let gradients: &mut [f32] = bytemuck::cast_slice_mut(views[0]);
            let new = &flat[span * span_elements..][..gradients.len()];
            let blocks = gradients.par_chunks_mut(BLOCK).zip(new.par_chunks(BLOCK));
            blocks.for_each(|(sum, new)| if fresh { sum.copy_from_slice(new) } else { add(sum, new) });
            norm = norms_of_256(gradients).iter().fold(norm, |norm, block| norm + block);
        })?;
        (self.torn, self.fresh) = (false, false);
        Ok(norm)
    }

    pub(crate) fn check_whole(&self) -> Result<(), TierError> {
        if self.torn { Err(TierError::Torn { group: self.name.clone() }) } else { Ok(()) }
    }
}

fn add(sum: &mut [f32], new: &[f32]) {
    for (sum, new) in sum.iter_mut().zip(new) {
        *sum += new;
    }
}
