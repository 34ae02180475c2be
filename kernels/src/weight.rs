//! The weight of a linear layer, in whichever format it is kept.
//!
//! In:    a dense matrix, or a buffer of a [`PackedFormat`].
//! Out:   what linear operations take; the dense matrix again, for twins and tests.
//! Never: makes a dense copy on the way to a kernel.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, ExtensionType, autodiff::checkpoint::strategy::CheckpointStrategy};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use half::bf16;

use crate::packed::PackedFormat;

/// A weight `[outputs, inputs]` on a device. A clone shares it.
#[derive(Debug, Clone)]
pub enum Weight {
    /// Numbers in the format of activations.
    Dense(Tensor<2>),
    /// A frozen matrix in few bits.
    Packed(PackedWeight),
}

/// A matrix in few bits on a device.
#[derive(Debug, Clone)]
pub struct PackedWeight {
    packed: Tensor<1, Int>,
    shape: [usize; 2],
    format: PackedFormat,
}

impl From<Tensor<2>> for Weight {
    fn from(dense: Tensor<2>) -> Weight {
        Weight::Dense(dense)
    }
}

impl From<&Weight> for Weight {
    fn from(weight: &Weight) -> Weight {
        weight.clone()
    }
}

impl PackedWeight {
    /// Moves a buffer of [`PackedFormat::quantise`] to the device, as it is.
    ///
    /// # Panics
    /// If the buffer is not that of a matrix of this shape: our bug.
    pub fn upload(buffer: Vec<u8>, shape: [usize; 2], format: PackedFormat, device: &Device) -> PackedWeight {
        assert_eq!(buffer.len(), format.bytes(shape[0] * shape[1]), "bytes of a matrix of shape {shape:?}");
        let len = buffer.len();
        let packed = Tensor::from_data(TensorData::new(buffer, [len]), (device, DType::U8));
        PackedWeight { packed, shape, format }
    }

    /// Dense on the same device: read back and decoded on the host.
    fn dense(&self, dtype: DType) -> Tensor<2> {
        let buffer: Vec<u8> = self.packed.clone().into_data().try_into_vec().expect("codes are bytes");
        let packed = self.format.view(&buffer, self.shape[0] * self.shape[1]);
        let device = self.packed.device();
        if dtype == DType::BF16 {
            let mut values = vec![bf16::ZERO; self.shape[0] * self.shape[1]];
            packed.decode(0, &mut values);
            return Tensor::from_data(TensorData::new(values, self.shape), (&device, dtype));
        }
        let mut values = vec![0.0f32; self.shape[0] * self.shape[1]];
        packed.decode(0, &mut values);
        Tensor::from_data(TensorData::new(values, self.shape), (&device, dtype))
    }
}

impl Weight {
    /// The numbers that a product in `dtype` uses, as a matrix of their own; a dense weight as it is.
    pub fn to_dense(&self, dtype: DType) -> Tensor<2> {
        match self {
            Weight::Dense(dense) => dense.clone(),
            Weight::Packed(weight) => weight.dense(dtype),
        }
    }

    /// As a backend's operation takes it.
    pub(crate) fn into_dispatch(self) -> BackendWeight<Dispatch> {
        match self {
            Weight::Dense(dense) => BackendWeight::Dense(dense.into_dispatch()),
            Weight::Packed(PackedWeight { packed, shape, format }) => {
                BackendWeight::Packed { packed: packed.into_dispatch(), shape, format }
            }
        }
    }
}

/// [`Weight`] as a backend sees it.
#[derive(Debug, Clone, ExtensionType)]
pub enum BackendWeight<B: Backend> {
    /// Numbers in the format of activations.
    Dense(FloatTensor<B>),
    /// A matrix in few bits.
    Packed {
        /// The buffer.
        packed: IntTensor<B>,
        /// `[outputs, inputs]`
        shape: [usize; 2],
        /// What the buffer holds.
        format: PackedFormat,
    },
}

impl<B: Backend, C: CheckpointStrategy> BackendWeight<Autodiff<B, C>> {
    /// Without its place in the graph: frozen weights have none.
    pub(crate) fn into_primitive(self) -> BackendWeight<B> {
        match self {
            BackendWeight::Dense(dense) => BackendWeight::Dense(dense.into_primitive()),
            BackendWeight::Packed { packed, shape, format } => BackendWeight::Packed { packed, shape, format },
        }
    }
}
