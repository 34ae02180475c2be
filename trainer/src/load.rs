//! From opened model files to a decoder on the device, tensor by tensor.
//!
//! In:    weights by name, the planned precision and device.
//! Out:   a [`Decoder`] and the model's tokenizer.
//! Never: holds more than one tensor twice.

use burn::tensor::{DType, Device, Tensor, TensorData};
use checkpoints::weights::{HostTensor, TokenizerFiles, Weights};
use datasets::{GgufVocabulary, Tokenizer};
use half::bf16;
use models::{Block, Decoder, FrozenLinear};
use planner::architecture::{DecoderSpec, EMBEDDING, FINAL_NORM, HEAD, Linear};
use planner::plan::{DeviceChoice, Precision};

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

/// Loads every tensor in the given precision; norm weights stay f32 with the family's offset added.
pub fn decoder(weights: &Weights, precision: Precision, device: &Device) -> Result<Decoder, TrainError> {
    let spec = weights.spec().clone();
    let loader = Loader { weights, precision, device };
    let embedding = loader.matrix(EMBEDDING)?;
    let head = if spec.tied_head { embedding.clone() } else { loader.matrix(HEAD)? };
    let final_norm = loader.norm(FINAL_NORM, &spec)?;
    let blocks = (0..spec.n_layers()).map(|index| loader.block(index, &spec)).collect::<Result<_, _>>()?;
    Ok(Decoder { spec, embedding, head, final_norm, blocks, device: device.clone() })
}

struct Loader<'a> {
    weights: &'a Weights,
    precision: Precision,
    device: &'a Device,
}

impl Loader<'_> {
    fn block(&self, index: usize, spec: &DecoderSpec) -> Result<Block, TrainError> {
        let linear = |linear: Linear| {
            let weight = self.matrix(&format!("{}.weight", linear.path(index)))?;
            let bias =
                spec.has_bias(linear).then(|| self.vector(&format!("{}.bias", linear.path(index)))).transpose()?;
            Ok(FrozenLinear { weight, bias })
        };
        let linears = Linear::ALL.into_iter().map(linear).collect::<Result<_, TrainError>>()?;
        let norms = spec.block_norms(index).iter().map(|(name, _)| self.norm(name, spec)).collect::<Result<_, _>>()?;
        Ok(Block { index, linears, norms })
    }

    fn matrix(&self, name: &str) -> Result<Tensor<2>, TrainError> {
        Ok(self.upload(self.weights.read(name)?))
    }

    fn vector(&self, name: &str) -> Result<Tensor<1>, TrainError> {
        Ok(self.upload(self.weights.read(name)?))
    }

    fn norm(&self, name: &str, spec: &DecoderSpec) -> Result<Tensor<1>, TrainError> {
        let mut tensor = self.weights.read(name)?;
        if spec.norm_offset {
            tensor.data.iter_mut().for_each(|weight| *weight += 1.0);
        }
        Ok(Tensor::from_data(TensorData::new(tensor.data, tensor.shape), (self.device, DType::F32)))
    }

    fn upload<const D: usize>(&self, tensor: HostTensor) -> Tensor<D> {
        match self.precision {
            Precision::F32 => Tensor::from_data(TensorData::new(tensor.data, tensor.shape), (self.device, DType::F32)),
            Precision::Bf16 => {
                let narrow: Vec<bf16> = tensor.data.iter().map(|&value| bf16::from_f32(value)).collect();
                Tensor::from_data(TensorData::new(narrow, tensor.shape), (self.device, DType::BF16))
            }
        }
    }
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
