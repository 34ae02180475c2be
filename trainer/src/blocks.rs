//! A block's weights from where they are kept to the device.
//!
//! In:    masters or their bf16 copy (full training), a frozen base in a tier, or the model's files.
//! Out:   a [`Block`] on the device.
//! Never: differs by a bit between a block that stayed on the device and one that was paged.

use burn::tensor::{Device, Tensor};
use checkpoints::weights::HostTensor;
use half::bf16;
use models::{Block, HostValues};
use offload::array::{Array, Tiers};
use planner::architecture::DecoderSpec;
use planner::plan::{OffloadPlan, Precision};

use crate::error::TrainError;
use crate::layout::GroupLayout;
use crate::numbers::Numbers;
use crate::parameters::{Parameters, SharedParameters, place, read_slots};

/// What turns host numbers into tensors.
#[derive(Debug, Clone)]
pub(crate) struct Uploader {
    pub(crate) spec: DecoderSpec,
    pub(crate) precision: Precision,
    pub(crate) device: Device,
}

impl Uploader {
    /// Numbers of the model's files, in the planned precision.
    pub(crate) fn host(&self, values: Vec<f32>) -> HostValues {
        match self.precision {
            Precision::F32 => HostValues::F32(values),
            Precision::Bf16 => HostValues::Bf16(values.into_iter().map(bf16::from_f32).collect()),
        }
    }

    /// A matrix of the model's files on the device.
    pub(crate) fn matrix(&self, numbers: Numbers<'_>, name: &str) -> Result<Tensor<2>, TrainError> {
        let HostTensor { shape, data } = numbers.read(name)?;
        Ok(self.host(data).upload([shape[0], shape[1]], &self.device))
    }

    /// The weight of a norm, which frozen stays f32.
    pub(crate) fn norm(&self, values: HostValues) -> Tensor<1> {
        values.upload_norm(&self.spec, &self.device)
    }
}

/// A group's slots in the precision that compute uses.
pub(crate) fn group_values(
    parameters: &Parameters,
    number: usize,
    precision: Precision,
) -> Result<Vec<HostValues>, TrainError> {
    Ok(match precision {
        Precision::F32 => parameters.masters(number)?.into_iter().map(HostValues::F32).collect(),
        Precision::Bf16 => parameters.rounded(number)?.into_iter().map(HostValues::Bf16).collect(),
    })
}

/// Where a thread takes blocks from.
#[derive(Debug)]
pub(crate) enum BlockStore {
    /// Trained blocks: the groups themselves.
    Trained(SharedParameters),
    /// A frozen base, copied into its tier once; norms are small and stay in memory.
    Frozen(Vec<FrozenBlock>),
}

/// One block of a frozen base.
#[derive(Debug)]
pub(crate) struct FrozenBlock {
    array: Array,
    layout: GroupLayout,
    /// As the files hold them, f32.
    norms: Vec<Vec<f32>>,
}

impl FrozenBlock {
    fn values(&self, precision: Precision) -> Result<Vec<HostValues>, TrainError> {
        let mut values: Vec<HostValues> = match precision {
            Precision::F32 => read_slots(&self.array, &self.layout)?.into_iter().map(HostValues::F32).collect(),
            Precision::Bf16 => read_slots(&self.array, &self.layout)?.into_iter().map(HostValues::Bf16).collect(),
        };
        values.extend(self.norms.iter().cloned().map(HostValues::F32));
        Ok(values)
    }
}

impl BlockStore {
    /// Makes block `index`.
    pub(crate) fn load(&self, index: usize, uploader: &Uploader) -> Result<Block, TrainError> {
        let values = match self {
            BlockStore::Trained(parameters) => group_values(parameters, index, uploader.precision)?,
            BlockStore::Frozen(blocks) => blocks[index].values(uploader.precision)?,
        };
        Ok(Block::from_host(&uploader.spec, index, values, &uploader.device))
    }

    /// Copies a frozen base from the model's files into its tier.
    pub(crate) fn frozen(
        numbers: Numbers<'_>,
        offload: &OffloadPlan,
        tiers: &Tiers,
        uploader: &Uploader,
    ) -> Result<BlockStore, TrainError> {
        let mut blocks = Vec::with_capacity(uploader.spec.n_layers());
        for index in 0..uploader.spec.n_layers() {
            blocks.push(frozen_block(index, numbers, offload, tiers, uploader)?);
        }
        Ok(BlockStore::Frozen(blocks))
    }
}

fn frozen_block(
    index: usize,
    numbers: Numbers<'_>,
    offload: &OffloadPlan,
    tiers: &Tiers,
    uploader: &Uploader,
) -> Result<FrozenBlock, TrainError> {
    let (spec, precision) = (&uploader.spec, uploader.precision);
    let norms = spec.block_norms(index);
    let mut linears = spec.block_tensors(index);
    linears.truncate(linears.len() - norms.len());
    let layout = GroupLayout::new(format!("block.{index:03}.frozen"), linears);
    let bytes_per_256 = 256 * precision.bytes() as usize;
    let place = place(offload.weights);
    let mut array = tiers.array(place, &layout.name, layout.elements, bytes_per_256, offload.span_elements)?;
    let mut flat = Vec::with_capacity(layout.elements as usize * precision.bytes() as usize);
    for slot in &layout.slots {
        flat.resize(slot.start as usize * precision.bytes() as usize, 0u8);
        match uploader.host(numbers.read(&slot.name)?.data) {
            HostValues::F32(values) => flat.extend_from_slice(bytemuck::cast_slice(&values)),
            HostValues::Bf16(values) => flat.extend_from_slice(bytemuck::cast_slice(&values)),
        }
    }
    array.write(0, &flat)?;
    let norm = |(name, _): &(String, usize)| numbers.norm(name, precision);
    let norms = norms.iter().map(norm).collect::<Result<_, TrainError>>()?;
    Ok(FrozenBlock { array, layout, norms })
}

/// A block straight from the model's files: linear layers in the planned precision, norms in f32.
pub(crate) fn from_files(index: usize, numbers: Numbers<'_>, uploader: &Uploader) -> Result<Block, TrainError> {
    let tensors = uploader.spec.block_tensors(index);
    let first_norm = tensors.len() - uploader.spec.block_norms(index).len();
    let mut values = Vec::with_capacity(tensors.len());
    for (at, (name, _)) in tensors.iter().enumerate() {
        values.push(match at < first_norm {
            true => uploader.host(numbers.read(name)?.data),
            false => HostValues::F32(numbers.norm(name, uploader.precision)?),
        });
    }
    Ok(Block::from_host(&uploader.spec, index, values, &uploader.device))
}
