//! Weights as host values: from there to the device, and gradients back.
//!
//! In:    flat values of a block's tensors in canonical order ([`DecoderSpec::block_tensors`]), as files hold them.
//! Out:   a [`Block`] on the device; each gradient as a flat f32 slice, in the same order.
//! Never: copies a value that it was given to keep, or has more than one gradient on the host at a time.

use burn::tensor::{DType, Device, Gradients, Tensor, TensorData, bf16};
use kernels::{PackedFormat, PackedWeight, Weight};
use planner::architecture::{DecoderSpec, Linear};

use crate::block::{Block, LinearLayer};

/// One tensor's values on the host; they stay in their format on the device.
#[derive(Debug, Clone)]
pub enum HostValues {
    /// Single precision.
    F32(Vec<f32>),
    /// A bf16 working copy.
    Bf16(Vec<bf16>),
    /// The buffer of a matrix in few bits.
    Packed(PackedFormat, Vec<u8>),
}

impl HostValues {
    /// Moves the values to the device, in their own format; on the CPU without a copy.
    ///
    /// # Panics
    /// If `shape` has another number of elements: shapes come from the inventory, so that is our bug.
    pub fn upload<const D: usize>(self, shape: [usize; D], device: &Device) -> Tensor<D> {
        match self {
            HostValues::F32(values) => upload(values, shape, (device, DType::F32)),
            HostValues::Bf16(values) => upload(values, shape, (device, DType::BF16)),
            HostValues::Packed(..) => unreachable!("only the weights of linear layers are packed"),
        }
    }

    /// The weight of a linear layer on the device, in its own format.
    pub fn upload_weight(self, shape: [usize; 2], device: &Device) -> Weight {
        match self {
            HostValues::Packed(format, buffer) => Weight::Packed(PackedWeight::upload(buffer, shape, format, device)),
            values => Weight::Dense(values.upload(shape, device)),
        }
    }

    /// The weight of a norm on the device: f32 whatever the format here, the family's offset added.
    pub fn upload_norm(self, spec: &DecoderSpec, device: &Device) -> Tensor<1> {
        let offset = if spec.norm_offset { 1.0 } else { 0.0 };
        let values: Vec<f32> = match self {
            HostValues::F32(values) => values.into_iter().map(|value| value + offset).collect(),
            HostValues::Bf16(values) => values.iter().map(|value| value.to_f32() + offset).collect(),
            HostValues::Packed(..) => unreachable!("only the weights of linear layers are packed"),
        };
        let width = values.len();
        upload(values, [width], (device, DType::F32))
    }
}

fn upload<E: burn::tensor::Element, const D: usize>(
    values: Vec<E>,
    shape: [usize; D],
    place: (&Device, DType),
) -> Tensor<D> {
    assert_eq!(values.len(), shape.iter().product::<usize>(), "elements of a tensor of shape {shape:?}");
    Tensor::from_data(TensorData::new(values, shape), place)
}

/// A gradient, flat and in f32, handed to `each`.
pub(crate) fn with_values<const D: usize, R>(gradient: Tensor<D>, each: impl FnOnce(&[f32]) -> R) -> R {
    let values: Vec<f32> =
        gradient.cast(DType::F32).into_data().try_into_vec().expect("a gradient that was cast to f32");
    each(&values)
}

impl Block {
    /// Block `index` from its tensors in the order of [`DecoderSpec::block_tensors`], values as files hold them: the
    /// norm offset is added here.
    ///
    /// # Panics
    /// If there are fewer or more tensors than the block has, or one has another size: our bug.
    pub fn from_host(
        spec: &DecoderSpec,
        index: usize,
        values: impl IntoIterator<Item = HostValues>,
        device: &Device,
    ) -> Block {
        let mut values = values.into_iter();
        let mut next = || values.next().expect("a value for each tensor of the block");
        let linear = |linear: Linear| {
            let shape = spec.linear_shape(linear);
            let weight = next().upload_weight(shape, device);
            let bias = spec.has_bias(linear).then(|| next().upload([shape[0]], device));
            LinearLayer { weight, bias }
        };
        let linears = Linear::ALL.into_iter().map(linear).collect();
        let norm = |(name, width): (String, usize)| {
            let norm = values.next().expect("a value for each norm of the block").upload_norm(spec, device);
            assert_eq!(norm.dims(), [width], "{name}");
            norm
        };
        let norms = spec.block_norms(index).into_iter().map(norm).collect();
        assert!(values.next().is_none(), "more values than the block has tensors");
        Block { index, linears, norms }
    }

    /// The same weights as leaves of a graph of their own: a forward pass of the result trains every one of them.
    pub fn tracked(&self) -> Block {
        fn leaf<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
            Tensor::from_inner(tensor.clone()).require_grad()
        }
        let linear = |layer: &LinearLayer| match &layer.weight {
            Weight::Dense(weight) => LinearLayer { weight: leaf(weight).into(), bias: layer.bias.as_ref().map(leaf) },
            Weight::Packed(_) => unreachable!("a packed base is not trained"),
        };
        Block {
            index: self.index,
            linears: self.linears.iter().map(linear).collect(),
            norms: self.norms.iter().map(leaf).collect(),
        }
    }

    /// Takes the gradients of a [`Block::tracked`] block out of `gradients`, in the order of
    /// [`DecoderSpec::block_tensors`]. `each` gets the tensor's position in that order and the gradient, flat, f32; a
    /// norm's offset does not change it. An error of `each` ends the walk.
    ///
    /// # Panics
    /// If a weight has no gradient: every weight takes part in the forward pass, so that is our bug.
    pub fn take_gradients<E>(
        self,
        gradients: &mut Gradients,
        mut each: impl FnMut(usize, &[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        const TRACKED: &str = "each weight of a tracked block takes part in its forward pass";
        let mut at = 0..;
        let mut next = || at.next().expect("an endless range");
        for layer in self.linears {
            let Weight::Dense(weight) = layer.weight else { unreachable!("a packed base is not trained") };
            let gradient = weight.grad_remove(gradients).expect(TRACKED);
            with_values(gradient, |values| each(next(), values))?;
            if let Some(bias) = layer.bias {
                let gradient = bias.grad_remove(gradients).expect(TRACKED);
                with_values(gradient, |values| each(next(), values))?;
            }
        }
        for norm in self.norms {
            let gradient = norm.grad_remove(gradients).expect(TRACKED);
            with_values(gradient, |values| each(next(), values))?;
        }
        Ok(())
    }
}
