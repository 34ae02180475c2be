//! What `--to` and the flags beside it mean.
//!
//! In:    the arguments, what was found.
//! Out:   a [`Target`] and its words.
//! Never: ignores a flag that means nothing for the target.

use anyhow::anyhow;
use checkpoints::gguf::{BlockType, Mix};
use checkpoints::model_folder::SHARD_BYTES;
use checkpoints::stream::Format;
use checkpoints::weights::Weights;
use planner::architecture::EMBEDDING;
use trainer::export::{Beside, Target};

use super::found::Found;
use super::{ExportArguments, ExportPrecision, ExportTarget};
use crate::failure::{Failure, OrFail};

/// `--quantize`
pub fn mix(text: &str) -> Result<Mix, String> {
    Mix::from_name(text).ok_or_else(|| {
        let names: Vec<String> = Mix::ALL.iter().map(|mix| mix.name().to_lowercase()).collect();
        format!("expected one of {}", names.join(", "))
    })
}

/// Flags that mean nothing for the target are refused, not ignored.
pub fn refuse_mixed(arguments: &ExportArguments) -> Result<(), Failure> {
    let of_folders = [("--precision", arguments.precision.is_some()), ("--shard-size", arguments.shard_size.is_some())];
    let of_gguf = [("--quantize", arguments.quantize.is_some()), ("--adapter-only", arguments.adapter_only)];
    let given = |flags: &[(&'static str, bool)]| flags.iter().find(|(_, given)| *given).map(|(flag, _)| *flag);
    let (is_folder, is_gguf) = match arguments.to {
        ExportTarget::Peft => (false, false),
        ExportTarget::Safetensors => (true, false),
        ExportTarget::Gguf | ExportTarget::Ollama => (false, true),
    };
    match (given(&of_folders), given(&of_gguf)) {
        (Some(flag), _) if !is_folder => Err(anyhow!("{flag} belongs to --to safetensors")).or_input(),
        (_, Some(flag)) if !is_gguf => Err(anyhow!("{flag} belongs to --to gguf and --to ollama")).or_input(),
        _ => Ok(()),
    }
}

/// The target with every default filled in.
pub fn of(arguments: &ExportArguments, found: &Found) -> Result<Target, Failure> {
    let is_ollama = arguments.to == ExportTarget::Ollama;
    match arguments.to {
        ExportTarget::Peft => Ok(Target::Peft { base_name: found.base_name.clone() }),
        ExportTarget::Safetensors => Ok(Target::Folder {
            format: arguments.precision.map_or_else(|| stored_format(&found.base), format),
            shard_bytes: arguments.shard_size.unwrap_or(SHARD_BYTES),
        }),
        _ if arguments.adapter_only => Ok(Target::GgufAdapter {
            name: file_name(found),
            kind: factors(arguments.quantize.unwrap_or(Mix::F16))?,
            beside: if is_ollama { Beside::Modelfile { from: gguf_base(&found.base)? } } else { Beside::Nothing },
        }),
        _ => Ok(Target::Gguf {
            name: file_name(found),
            mix: arguments.quantize.unwrap_or(Mix::F16),
            beside: if is_ollama { Beside::Modelfile { from: String::new() } } else { Beside::Nothing },
        }),
    }
}

fn format(precision: ExportPrecision) -> Format {
    match precision {
        ExportPrecision::F32 => Format::F32,
        ExportPrecision::Bf16 => Format::Bf16,
        ExportPrecision::F16 => Format::F16,
    }
}

/// What the base is stored in; bf16 for a GGUF base, whose blocks no folder holds.
fn stored_format(base: &Weights) -> Format {
    base.format(EMBEDDING).unwrap_or(Format::Bf16)
}

/// llama.cpp multiplies adapters in these.
fn factors(mix: Mix) -> Result<BlockType, Failure> {
    match mix {
        Mix::F32 => Ok(BlockType::F32),
        Mix::F16 => Ok(BlockType::F16),
        Mix::BF16 => Ok(BlockType::BF16),
        other => Err(anyhow!("--adapter-only takes --quantize f32, f16 or bf16; {} is for whole models", other.name()))
            .or_input(),
    }
}

/// Ollama lays an adapter over a file that it can read.
fn gguf_base(base: &Weights) -> Result<String, Failure> {
    let Some(file) = base.gguf() else {
        let hint = "leave --adapter-only out to write the merged model, or give the base as a GGUF file with --model";
        return Err(anyhow!("the base is not a GGUF file, and Ollama lays adapters over nothing else; {hint}"))
            .or_input();
    };
    Ok(std::path::absolute(file.path()).or_input()?.display().to_string())
}

/// Of GGUF files: the run's name, as every program can take it.
fn file_name(found: &Found) -> String {
    let name = found.run.as_ref().map_or("model", |run| run.recipe.name.as_str());
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    name.chars().map(plain).collect()
}

/// Name of the folder inside `RUN/export`.
pub fn folder_name(to: ExportTarget, target: &Target) -> String {
    let program = if to == ExportTarget::Ollama { "ollama" } else { "gguf" };
    match target {
        Target::Peft { .. } => "peft".to_string(),
        Target::Folder { format, .. } => format!("safetensors-{}", format.name()),
        Target::Gguf { mix, .. } => format!("{program}-{}", mix.name().to_lowercase()),
        Target::GgufAdapter { kind, .. } => format!("{program}-adapter-{}", format!("{kind:?}").to_lowercase()),
    }
}

/// What is written, for people.
pub fn what(target: &Target) -> String {
    let beside = |beside: &Beside| if *beside == Beside::Nothing { "" } else { " with a Modelfile" };
    match target {
        Target::Peft { .. } => "a PEFT adapter".to_string(),
        Target::Folder { format, .. } => format!("a safetensors folder in {}", format.name()),
        Target::Gguf { mix, beside: file, .. } => format!("a GGUF model in {}{}", mix.name(), beside(file)),
        Target::GgufAdapter { kind, beside: file, .. } => format!("a GGUF adapter in {kind:?}{}", beside(file)),
    }
}
