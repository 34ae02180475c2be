//! The trained model as a folder that other programs load.
//!
//! In:    the trained parameters, the files of the base for what was frozen.
//! Out:   `model/` in the run directory: safetensors in the planned precision, config and tokenizer.
//! Never: holds more than one frozen tensor in memory.

use std::path::{Path, PathBuf};

use checkpoints::model_folder::{SideFile, side_files, write_model};
use checkpoints::narrow::{narrow, whole};
use checkpoints::stream::{Fill, Format, StreamedTensor};
use checkpoints::weights::Weights;
use datasets::Tokenizer;
use planner::config::{to_hf, with_dtype};
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
        let offset = weights.norm_excess(&name);
        let fill: Fill<'_> = match trained(parameters, &name) {
            Some((number, slot)) => {
                let written = Written { format, offset };
                Box::new(move |at, out| from_masters(parameters, (number, slot), written, at, out))
            }
            None => {
                let name = name.clone();
                whole(format, move || Ok(weights.read(&name)?.data))
            }
        };
        tensors.push(StreamedTensor { name, shape, format, fill });
    }
    let tokenizer = weights.gguf().map(|_| crate::load::tokenizer(weights)).transpose()?;
    write_model(&folder, tensors, &files_beside(weights, format, tokenizer.as_ref())?)?;
    Ok(folder)
}

fn trained<'a>(parameters: &'a Parameters, name: &str) -> Option<(usize, &'a Slot)> {
    let groups = parameters.layout().iter().enumerate();
    groups
        .flat_map(|(number, group)| group.slots.iter().map(move |slot| (number, slot)))
        .find(|(_, slot)| slot.name == name)
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
) -> Result<(), checkpoints::stream::SourceError> {
    let first = at / format.bytes();
    let mut values = vec![0.0f32; out.len() / format.bytes() as usize];
    parameters.group(number).parameters.read(slot.start + first, bytemuck::cast_slice_mut(&mut values))?;
    if offset != 0.0 {
        values.iter_mut().for_each(|value| *value -= offset);
    }
    Ok(narrow(&values, first, format, out)?)
}

/// Config and tokenizer for weights in `format`: those of the base's folder, or made from what its GGUF file says. `tokenizer` is that of a GGUF file.
pub(crate) fn files_beside(
    weights: &Weights,
    format: Format,
    tokenizer: Option<&Tokenizer>,
) -> Result<Vec<SideFile>, TrainError> {
    let pretty = |value: &serde_json::Value| format!("{value:#}\n").into_bytes();
    let file = |name: &str, bytes: Vec<u8>| SideFile { name: name.to_string(), bytes };
    if let Some(folder) = weights.folder() {
        let mut files = side_files(folder)?;
        for config in files.iter_mut().filter(|file| file.name == "config.json") {
            let text = String::from_utf8_lossy(&config.bytes);
            config.bytes = pretty(&with_dtype(&text, weights.spec(), dtype(format)));
        }
        return Ok(files);
    }
    let mut config = to_hf(weights.spec(), dtype(format));
    let Some(tokenizer) = tokenizer else { return Ok(vec![file("config.json", pretty(&config))]) };
    config["bos_token_id"] = tokenizer.bos().into();
    config["eos_token_id"] = tokenizer.eos().first().copied().into();
    let generation = serde_json::json!({ "bos_token_id": tokenizer.bos(), "eos_token_id": tokenizer.eos() });
    Ok(vec![
        file("config.json", pretty(&config)),
        file("generation_config.json", pretty(&generation)),
        file("tokenizer.json", tokenizer.to_json()?.into_bytes()),
        file("tokenizer_config.json", pretty(&tokenizer.config())),
    ])
}

/// As torch names it.
fn dtype(format: Format) -> &'static str {
    match format {
        Format::F32 => "float32",
        Format::Bf16 => "bfloat16",
        Format::F16 => "float16",
        Format::U8 => unreachable!("a model's weights are numbers"),
    }
}
