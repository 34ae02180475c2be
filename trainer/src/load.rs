//! The device of a run, and the model's tokenizer.
//!
//! In:    the planned device; opened model files.
//! Out:   Burn's device; a [`Tokenizer`] that fits the embedding.
//! Never: Burn's own default device.

use burn::tensor::Device;
use checkpoints::weights::{TokenizerFiles, Weights};
use datasets::{GgufVocabulary, Tokenizer};
use kernels::check::computes_in;
use kernels::devices::{self, Watch};
use kernels::measure::Format;
use planner::plan::{DeviceChoice, Precision};

use crate::error::TrainError;

/// Burn's device for the plan's choice, never Burn's own default.
pub fn device(choice: DeviceChoice) -> Result<Device, TrainError> {
    let opened = match choice {
        DeviceChoice::Cpu => Ok(Device::flex()),
        DeviceChoice::Cuda(index) => devices::cuda(index),
        DeviceChoice::Vulkan { index, .. } => devices::vulkan(index),
    };
    opened.map_err(|missing| TrainError::Device { wanted: choice.to_string(), reason: missing.to_string() })
}

/// [`device`], which must compute in the planned precision.
pub(crate) fn device_for(choice: DeviceChoice, precision: Precision) -> Result<Device, TrainError> {
    let device = device(choice)?;
    let format = match precision {
        Precision::F32 => Format::F32,
        Precision::Bf16 => Format::Bf16,
    };
    match computes_in(&device, format) {
        true => Ok(device),
        false => Err(TrainError::Device {
            wanted: choice.to_string(),
            reason: "it does not compute in bf16; take model.precision = \"f32\" (--precision f32), or another device"
                .to_string(),
        }),
    }
}

/// Watches the card, where its driver tells how it fares.
pub(crate) fn watch(choice: DeviceChoice) -> Option<Watch> {
    let (index, cards) = match choice {
        DeviceChoice::Cpu => return None,
        DeviceChoice::Cuda(index) => (index, devices::cuda_cards()),
        DeviceChoice::Vulkan { index, .. } => (index, devices::vulkan_cards()),
    };
    Watch::nvidia(cards.ok()?.get(index)?.address.as_deref()?)
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
