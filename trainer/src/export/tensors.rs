//! Written tensors against what was meant.
//!
//! In:    the merged tensors or the adapter, and the files as they were written.
//! Out:   how many tensors were equal bit for bit, and the bytes of their files.
//! Never: holds more than one tensor of each side; a tolerance.

use std::path::Path;

use checkpoints::merged::Merged;
use checkpoints::narrow::round_trip;
use checkpoints::peft::Adapter;
use checkpoints::stream::Format;
use checkpoints::weights::{HostTensor, Weights};

use super::ExportError;

/// Every tensor of a folder: its format, its shape, its numbers rounded to that format.
pub(super) fn compare_model(
    merged: &Merged<'_>,
    written: &Weights,
    format: Format,
) -> Result<(usize, u64), ExportError> {
    let tensors = merged.base().spec().tensors();
    for (name, _) in &tensors {
        if written.format(name) != Some(format) {
            let found = written.format(name).map_or("another format", Format::name);
            return Err(ExportError::FormatDiffers { name: name.clone(), expected: format.name(), found });
        }
        let mut meant = merged.read(name)?;
        round_trip(&mut meant.data, format);
        equal(name, &meant, &written.read(name)?)?;
    }
    Ok((tensors.len(), written.bytes_on_disk()))
}

/// Every factor of an adapter, and what its configuration says about them.
pub(super) fn compare_adapters(meant: &Adapter, written: &Adapter, folder: &Path) -> Result<(usize, u64), ExportError> {
    let (expected, found) = (meant.config.scale(), written.config.scale());
    if expected != found {
        return Err(ExportError::ScaleDiffers { expected, found });
    }
    for (module, pair) in &meant.pairs {
        let missing = || ExportError::TensorMissing { name: module.clone() };
        let read = written.pairs.get(module).ok_or_else(missing)?;
        equal(&format!("{module}.lora_A"), &pair.a, &read.a)?;
        equal(&format!("{module}.lora_B"), &pair.b, &read.b)?;
    }
    if let Some(name) = written.pairs.keys().find(|module| !meant.pairs.contains_key(*module)) {
        return Err(ExportError::TensorTooMany { name: name.clone() });
    }
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = files.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum();
    Ok((2 * meant.pairs.len(), bytes))
}

fn equal(name: &str, meant: &HostTensor, written: &HostTensor) -> Result<(), ExportError> {
    let name = || name.to_string();
    if meant.shape != written.shape {
        let (expected, found) = (meant.shape.clone(), written.shape.clone());
        return Err(ExportError::ShapeDiffers { name: name(), expected, found });
    }
    let pairs = meant.data.iter().zip(&written.data);
    match pairs.enumerate().find(|(_, (meant, written))| meant.to_bits() != written.to_bits()) {
        None => Ok(()),
        Some((at, (&meant, &written))) => Err(ExportError::TensorDiffers { name: name(), at, meant, written }),
    }
}
