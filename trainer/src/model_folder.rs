//! The trained model as a folder that other programs load.
//!
//! In:    the trained parameters, the files of the base for what was frozen.
//! Out:   `model/` in the run directory: safetensors in the planned precision, config and tokenizer.
//! Never: holds more than one frozen tensor in memory.
//!
//! Gemma's norms multiply by `1 + w`. Its Hugging Face files hold `w`, its GGUF files `1 + w`: llama.cpp's converter adds the 1, and what
//! was trained from such a file is written without it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use checkpoints::model_folder::{SideFile, side_files, write_model};
use checkpoints::stream::{Fill, Format, StreamedTensor};
use checkpoints::weights::Weights;
use half::bf16;
use planner::architecture::Family;
use planner::config::to_hf;
use planner::plan::{Plan, Precision};

use crate::error::TrainError;
use crate::layout::Slot;
use crate::parameters::Parameters;
use crate::subject::MODEL_FOLDER;

/// Writes `model/` and returns it.
pub(crate) fn export_model(
    run: &Path,
    plan: &Plan,
    weights: &Weights,
    parameters: &Parameters,
) -> Result<PathBuf, TrainError> {
    let folder = run.join(MODEL_FOLDER);
    let format = match plan.model.precision {
        Precision::F32 => Format::F32,
        Precision::Bf16 => Format::Bf16,
    };
    let mut tensors = Vec::new();
    for (name, shape) in weights.spec().tensors() {
        let offset = norm_offset(weights, &name);
        let fill: Fill<'_> = match trained(parameters, &name) {
            Some((number, slot)) => {
                let written = Written { format, offset };
                Box::new(move |at, out| Ok(from_masters(parameters, (number, slot), written, at, out)?))
            }
            None => from_files(weights, name.clone(), format),
        };
        tensors.push(StreamedTensor { name, shape, format, fill });
    }
    write_model(&folder, tensors, &files_beside(weights, format)?)?;
    Ok(folder)
}

fn trained<'a>(parameters: &'a Parameters, name: &str) -> Option<(usize, &'a Slot)> {
    let groups = parameters.layout().iter().enumerate();
    groups
        .flat_map(|(number, group)| group.slots.iter().map(move |slot| (number, slot)))
        .find(|(_, slot)| slot.name == name)
}

/// What the files hold more than the trained tensor.
fn norm_offset(weights: &Weights, name: &str) -> f32 {
    let holds_more = weights.gguf().is_some() && weights.spec().family == Family::Gemma3;
    if holds_more && name.ends_with("norm.weight") { 1.0 } else { 0.0 }
}

/// How a trained tensor is written.
#[derive(Debug, Clone, Copy)]
struct Written {
    format: Format,
    /// Subtracted from every number.
    offset: f32,
}

fn from_masters(
    parameters: &Parameters,
    (number, slot): (usize, &Slot),
    Written { format, offset }: Written,
    at: u64,
    out: &mut [u8],
) -> Result<(), TrainError> {
    let first = slot.start + at / format.bytes();
    let group = parameters.group(number);
    if format == Format::F32 && offset == 0.0 {
        return Ok(group.parameters.read(first, out)?);
    }
    let mut values = vec![0.0f32; out.len() / format.bytes() as usize];
    group.parameters.read(first, bytemuck::cast_slice_mut(&mut values))?;
    values.iter_mut().for_each(|value| *value -= offset);
    match format {
        Format::F32 => out.copy_from_slice(bytemuck::cast_slice(&values)),
        _ => narrow(&values, out),
    }
    Ok(())
}

fn narrow(values: &[f32], out: &mut [u8]) {
    for (value, bytes) in values.iter().zip(out.as_chunks_mut::<2>().0) {
        *bytes = bf16::from_f32(*value).to_le_bytes();
    }
}

/// A frozen tensor: read when its first piece is asked for, forgotten after its last.
fn from_files<'a>(weights: &'a Weights, name: String, format: Format) -> Fill<'a> {
    let held = RefCell::new(Vec::new());
    Box::new(move |at, out| {
        let mut held = held.borrow_mut();
        if at == 0 {
            let data = weights.read(&name)?.data;
            *held = match format {
                Format::F32 => bytemuck::cast_slice(&data).to_vec(),
                _ => {
                    let mut bytes = vec![0u8; data.len() * 2];
                    narrow(&data, &mut bytes);
                    bytes
                }
            };
        }
        let end = at as usize + out.len();
        out.copy_from_slice(&held[at as usize..end]);
        if end == held.len() {
            *held = Vec::new();
        }
        Ok(())
    })
}

/// Config and tokenizer: those of the base's folder, or made from what its GGUF file says.
fn files_beside(weights: &Weights, format: Format) -> Result<Vec<SideFile>, TrainError> {
    if let Some(folder) = weights.folder() {
        return Ok(side_files(folder)?);
    }
    let dtype = if format == Format::Bf16 { "bfloat16" } else { "float32" };
    let tokenizer = crate::load::tokenizer(weights)?;
    let mut config = to_hf(weights.spec(), dtype);
    config["bos_token_id"] = tokenizer.bos().into();
    config["eos_token_id"] = tokenizer.eos().first().copied().into();
    let file = |name: &str, text: String| SideFile { name: name.to_string(), bytes: text.into_bytes() };
    let pretty = |value: &serde_json::Value| serde_json::to_string_pretty(value).expect("a JSON value is text");
    Ok(vec![
        file("config.json", pretty(&config)),
        file("tokenizer.json", tokenizer.to_json()?),
        file("tokenizer_config.json", pretty(&tokenizer.config())),
    ])
}
