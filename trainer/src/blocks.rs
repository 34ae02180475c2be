//! A block's weights from where they are kept to the device.
//!
//! In:    masters or their bf16 copy (full training), a frozen base in a tier, or the model's files.
//! Out:   a [`Block`] on the device.
//! Never: differs by a bit between a block that stayed on the device and one that was paged.

use burn::tensor::{Device, Tensor};
use checkpoints::weights::HostTensor;
use half::bf16;
use kernels::PackedFormat;
use models::{Block, HostValues};
use offload::array::{Array, Tiers};
use planner::architecture::DecoderSpec;
use planner::plan::{BaseStorage, OffloadPlan, Precision};

use crate::error::TrainError;
use crate::layout::GroupLayout;
use crate::numbers::Numbers;
use crate::parameters::{Parameters, SharedParameters, place, read_slots};

/// What turns host numbers into tensors.
#[derive(Debug, Clone)]
pub(crate) struct Uploader {
    pub(crate) spec: DecoderSpec,
    pub(crate) precision: Precision,
    /// How the matrices of frozen blocks are kept.
    pub(crate) base: BaseStorage,
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

    /// A tensor of a frozen block's linear layers as it is kept: matrices packed where the base is.
    fn frozen(&self, numbers: Numbers<'_>, name: &str) -> Result<HostValues, TrainError> {
        let HostTensor { shape, data } = numbers.read(name)?;
        match packed_format(self.base) {
            Some(format) if shape.len() == 2 => {
                let refused = |source| TrainError::NotFinite { tensor: name.to_string(), source };
                Ok(HostValues::Packed(format, format.quantise(&data).map_err(refused)?))
            }
            _ => Ok(self.host(data)),
        }
    }

    /// Bytes of a tensor as [`Uploader::frozen`] keeps it.
    fn frozen_bytes(&self, shape: &[usize]) -> usize {
        let elements = shape.iter().product();
        match packed_format(self.base) {
            Some(format) if shape.len() == 2 => format.bytes(elements),
            _ => elements * self.precision.bytes() as usize,
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
    base: BaseStorage,
    /// Places of the tensors in the array: in numbers, or in bytes where matrices are packed.
    layout: GroupLayout,
    /// Which tensors are matrices; the others are biases.
    is_matrix: Vec<bool>,
    /// As the files hold them, f32.
    norms: Vec<Vec<f32>>,
}

/// The kernels' format of a base's matrices; `None` where they are numbers in the model's precision.
fn packed_format(base: BaseStorage) -> Option<PackedFormat> {
    match base {
        BaseStorage::Dense => None,
        BaseStorage::Nf4 => Some(PackedFormat::Nf4),
        BaseStorage::Int8 => Some(PackedFormat::Int8),
    }
}

/// A tensor from its bytes in a packed block.
fn from_bytes(bytes: Vec<u8>, packed: Option<PackedFormat>, precision: Precision) -> HostValues {
    match (packed, precision) {
        (Some(format), _) => HostValues::Packed(format, bytes),
        (None, Precision::F32) => HostValues::F32(bytemuck::pod_collect_to_vec(&bytes)),
        (None, Precision::Bf16) => HostValues::Bf16(bytemuck::pod_collect_to_vec(&bytes)),
    }
}

impl FrozenBlock {
    fn values(&self, precision: Precision) -> Result<Vec<HostValues>, TrainError> {
        let mut values: Vec<HostValues> = match (packed_format(self.base), precision) {
            (Some(format), _) => {
                let slots = read_slots::<u8>(&self.array, &self.layout)?.into_iter().zip(&self.is_matrix);
                slots.map(|(bytes, &is_matrix)| from_bytes(bytes, is_matrix.then_some(format), precision)).collect()
            }
            (None, Precision::F32) => read_slots(&self.array, &self.layout)?.into_iter().map(HostValues::F32).collect(),
            (None, Precision::Bf16) => {
                read_slots(&self.array, &self.layout)?.into_iter().map(HostValues::Bf16).collect()
            }
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
    let is_matrix = linears.iter().map(|(_, shape)| shape.len() == 2).collect();
    // Bytes of what the array counts, and a span of as many bytes as one of f32 numbers.
    let (bytes, span) = match uploader.base {
        BaseStorage::Nf4 | BaseStorage::Int8 => (1, offload.span_elements * size_of::<f32>()),
        BaseStorage::Dense => (precision.bytes() as usize, offload.span_elements),
    };
    if uploader.base != BaseStorage::Dense {
        linears.iter_mut().for_each(|(_, shape)| *shape = vec![uploader.frozen_bytes(shape)]);
    }
    let layout = GroupLayout::new(format!("block.{index:03}.frozen"), linears);
    let mut array = tiers.array(place(offload.weights), &layout.name, layout.elements, 256 * bytes, span)?;
    let mut flat = Vec::with_capacity(layout.elements as usize * bytes);
    for slot in &layout.slots {
        flat.resize(slot.start as usize * bytes, 0u8);
        match uploader.frozen(numbers, &slot.name)? {
            HostValues::F32(values) => flat.extend_from_slice(bytemuck::cast_slice(&values)),
            HostValues::Bf16(values) => flat.extend_from_slice(bytemuck::cast_slice(&values)),
            HostValues::Packed(_, buffer) => flat.extend_from_slice(&buffer),
        }
    }
    array.write(0, &flat)?;
    let norm = |(name, _): &(String, usize)| numbers.norm(name, precision);
    let norms = norms.iter().map(norm).collect::<Result<_, TrainError>>()?;
    Ok(FrozenBlock { array, base: uploader.base, layout, is_matrix, norms })
}

/// How a base's matrices are rounded; `None` where they keep the model's precision. A matrix that cannot be kept so, since a number of it is
/// not finite, stays as it is.
pub fn base_rounding(base: BaseStorage) -> Option<fn(&mut [f32])> {
    fn round(format: PackedFormat, values: &mut [f32]) {
        if let Ok(buffer) = format.quantise(values) {
            format.view(&buffer, values.len()).decode(0, values);
        }
    }
    match packed_format(base)? {
        PackedFormat::Nf4 => Some(|values| round(PackedFormat::Nf4, values)),
        PackedFormat::Int8 => Some(|values| round(PackedFormat::Int8, values)),
    }
}

/// A block straight from the model's files: linear layers in the planned precision, norms in f32.
pub(crate) fn from_files(index: usize, numbers: Numbers<'_>, uploader: &Uploader) -> Result<Block, TrainError> {
    let tensors = uploader.spec.block_tensors(index);
    let first_norm = tensors.len() - uploader.spec.block_norms(index).len();
    let mut values = Vec::with_capacity(tensors.len());
    for (at, (name, _)) in tensors.iter().enumerate() {
        values.push(match at < first_norm {
            true => uploader.frozen(numbers, name)?,
            false => HostValues::F32(numbers.norm(name, uploader.precision)?),
        });
    }
    Ok(Block::from_host(&uploader.spec, index, values, &uploader.device))
}
