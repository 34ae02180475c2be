//! What a checkpoint keeps of the trained numbers, and how they come back.
//!
//! In:    parameters in their tiers; a restored checkpoint.
//! Out:   tensors that are read while the file is written, group after group in the order of updates; filled parameters.
//! Never: holds more than a piece of a tensor on the way out, or depends on the tier that a number lives in.

use std::path::Path;

use checkpoints::checkpoint::Restored;
use checkpoints::stream::{Fill, Format, StreamedTensor};
use checkpoints::tensors::TensorFile;
use offload::array::Array;
use offload::group::Group;
use offload::rules::Rule;

use crate::error::TrainError;
use crate::layout::Slot;
use crate::parameters::Parameters;

/// Begins the name of every master.
pub(crate) const PARAMETER: &str = "parameter.";

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

/// Name of a trained tensor's master in a checkpoint.
pub(crate) fn stored(name: &str) -> String {
    format!("{PARAMETER}{name}")
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

/// Every tensor of a checkpoint. The groups come in the order in which updates want them; `written` hears of each whose last byte was read.
pub(crate) fn streamed<'a>(parameters: &'a Parameters, written: &'a dyn Fn(usize)) -> Vec<StreamedTensor<'a>> {
    let mut tensors = Vec::new();
    for number in parameters.update_order() {
        let first = tensors.len();
        of_group(number, parameters, &mut tensors);
        let end = tensors.len();
        match tensors[first..end].iter_mut().rev().find(|tensor| tensor.bytes() > 0) {
            Some(last) => tell_of_its_end(last, Box::new(move || written(number))),
            None => written(number),
        }
    }
    tensors
}

/// Calls `tell` when the last byte of a tensor has been read.
fn tell_of_its_end<'a>(tensor: &mut StreamedTensor<'a>, tell: Box<dyn Fn() + 'a>) {
    let end = tensor.bytes();
    let fill = std::mem::replace(&mut tensor.fill, Box::new(|_, _| Ok(())));
    tensor.fill = Box::new(move |at, out| {
        fill(at, out)?;
        if at + out.len() as u64 == end {
            tell();
        }
        Ok(())
    });
}

fn of_group<'a>(number: usize, parameters: &'a Parameters, tensors: &mut Vec<StreamedTensor<'a>>) {
    let layout = &parameters.layout()[number];
    let mut kept_of_group: Vec<Kept> = layout.slots.iter().flat_map(|slot| kept(slot, parameters.rule())).collect();
    // Wide formats first, so that within a group every tensor is aligned.
    kept_of_group.sort_by_key(|kept| std::cmp::Reverse(kept.format.bytes()));
    for kept in kept_of_group {
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

/// Fills parameters and states from a checkpoint of the same plan.
pub(crate) fn restore(restored: &Restored, parameters: &Parameters) -> Result<(), TrainError> {
    (0..parameters.layout().len())
        .try_for_each(|number| restore_group(number, parameters, &restored.tensors, &restored.path))
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

/// Little-endian f32 numbers.
pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect()
}
