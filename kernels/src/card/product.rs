//! Matrix products on cards.
//!
//! In:    matrices of one device and format, batches of them.
//! Out:   their product, enqueued; sums are f32.
//! Never: tries out kernels where that takes longer than it saves.
//!
//! Large products go through Burn's trials, tensor cores among them. Small ones take the plain kernel without them: it takes every shape, and a card is
//! done with it before the next one is enqueued, while a dozen kernels would be compiled for each of its sizes.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::CubeDevice;
use burn_cubecl::cubecl::device::WgpuDeviceKind;
use burn_cubecl::kernel::matmul::{MatmulStrategy, init_matmul_output, matmul};
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level::Strategy;
use cubek::std::InputBinding;

use super::number;

/// Multiplications from which on kernels are tried out.
const TRIED_FROM: usize = 1 << 26;

/// `a b` for each matrix of a batch, rounded to `dtype`.
pub(super) fn product(a: CubeTensor, b: CubeTensor, dtype: DType) -> CubeTensor {
    let is_software = matches!(&a.device, CubeDevice::Wgpu(device) if device.kind == WgpuDeviceKind::Cpu);
    let right = b.shape();
    let multiplications = a.shape().num_elements() * right[right.num_dims() - 1];
    match is_software || multiplications < TRIED_FROM {
        true => untried(a, b, dtype),
        false => matmul(a, b, None, MatmulStrategy::Autotune, dtype)
            .expect("Burn's trials end with a kernel that takes all shapes"),
    }
}

fn untried(a: CubeTensor, b: CubeTensor, dtype: DType) -> CubeTensor {
    let out = init_matmul_output(&a, &b, dtype);
    let client = out.client.clone();
    let [left, right, result] = [a.dtype, b.dtype, dtype].map(|dtype| number(dtype).element());
    let mut elements = MatmulElems::from_globals(&MatmulGlobalElems { lhs: left, rhs: right, out: result });
    let (a, b) = (InputBinding::new(a.binding(), left), InputBinding::new(b.binding(), right));
    let plain = Strategy::SimpleUnit(Default::default()).into();
    launch_ref(&plain, &client, a, b, out.clone().binding(), &mut elements).expect("the plain kernel takes all shapes");
    out
}
