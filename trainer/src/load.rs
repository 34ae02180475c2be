//! The device of a run, and the model's tokenizer.
//!
//! In:    the planned device; opened model files.
//! Out:   Burn's device; a [`Tokenizer`] that fits the embedding.
//! Never: Burn's own default device.

use burn::tensor::Device;
use checkpoints::weights::{TokenizerFiles, Weights};
use datasets::{GgufVocabulary, Tokenizer};
use planner::plan::DeviceChoice;

use crate::error::TrainError;

/// Burn's device for the plan's choice, never Burn's own default.
pub fn device(choice: DeviceChoice) -> Result<Device, TrainError> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::flex()),
        DeviceChoice::Cuda(index) => cuda(index),
    }
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device, TrainError> {
    use burn::tensor::DeviceType;
    let found = Device::enumerate(DeviceType::Cuda).into_vec();
    if index < found.len() {
        return Ok(Device::cuda(index));
    }
    let reason = format!("{} CUDA devices are there; check the driver with nvidia-smi, or use \"cpu\"", found.len());
    Err(TrainError::Device { wanted: format!("cuda:{index}"), reason })
}

#[cfg(not(feature = "cuda"))]
fn cuda(index: usize) -> Result<Device, TrainError> {
    let reason = "this binary was built without it; build with --features cuda, or use \"cpu\"".to_string();
    Err(TrainError::Device { wanted: format!("cuda:{index}"), reason })
}

/// The model's tokenizer, checked against its embedding.
pub fn tokenizer(weights: &Weights) -> Result<Tokenizer, TrainError> {
    let tokenizer = match (weights.tokenizer(), weights.gguf()) {
        (TokenizerFiles::Gguf, Some(file)) => Tokenizer::from_gguf(gguf_vocabulary(file)?)?,
        (TokenizerFiles::Folder(folder), _) => Tokenizer::from_folder(&folder)?,
        (TokenizerFiles::Gguf, None) => unreachable!("a GGUF tokenizer comes with its file"),
    };
    tokenizer.check_vocabulary(weights.spec().vocabulary)?;
    Ok(tokenizer)
}

/// The vocabulary in a GGUF file's metadata.
pub fn gguf_vocabulary(file: &checkpoints::gguf::File) -> Result<GgufVocabulary, TrainError> {
    let metadata = file.metadata();
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let text = |name: &str| metadata.text(&key(name)).map(|text| text.map(str::to_string));
    let texts = |name: &str| metadata.texts(&key(name)).map(|texts| texts.unwrap_or_default().to_vec());
    Ok(GgufVocabulary {
        model: text("model")?.unwrap_or_default(),
        pre: text("pre")?,
        tokens: texts("tokens")?,
        scores: metadata.f32s(&key("scores"))?.map(<[f32]>::to_vec),
        token_types: metadata.i32s(&key("token_type"))?,
        merges: texts("merges")?,
        bos: metadata.u32(&key("bos_token_id"))?,
        eos: metadata.u32(&key("eos_token_id"))?,
        eot: metadata.u32(&key("eot_token_id"))?,
        unknown: metadata.u32(&key("unknown_token_id"))?,
        padding: metadata.u32(&key("padding_token_id"))?,
        add_bos: metadata.bool(&key("add_bos_token"))?,
        add_eos: metadata.bool(&key("add_eos_token"))?,
        add_space_prefix: metadata.bool(&key("add_space_prefix"))?,
        chat_template: metadata.text("tokenizer.chat_template")?.map(str::to_string),
    })
}
