//! CUDA sources of every kernel that the tests launch, for NVRTC (tests/gpu/ptx.py). No card is needed for them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use cubecl::Compiler;
use cubecl::ir::{DeviceIdentity, DeviceProperties, HardwareProperties, MemoryDeviceProperties, TargetProperties};
use cubecl::prelude::*;
use cubecl::profile::TimingMethod;
use cubecl_cpp::shared::{CompilationOptions, CppCompiler, register_supported_types};
use cubecl_cpp::target::Cuda;

use super::*;

/// What a card has, and the kernels made for it.
type Recorded = (Arc<DeviceProperties>, Arc<TargetProperties>, Vec<Box<dyn CubeKernel>>);

thread_local! {
    static RECORDED: RefCell<Option<Recorded>> = const { RefCell::new(None) };
}

/// While this thread records: keeps the kernel that `kernel` makes for a CUDA card, and says so.
pub(crate) fn record(kernel: impl FnOnce(Arc<DeviceProperties>, Arc<TargetProperties>) -> Box<dyn CubeKernel>) -> bool {
    RECORDED.with_borrow_mut(|recorded| {
        if let Some((properties, target, kernels)) = recorded {
            kernels.push(kernel(properties.clone(), target.clone()));
        }
        recorded.is_some()
    })
}

/// What every card from sm_80 on has.
fn properties() -> DeviceProperties {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 1024,
        max_shared_memory_size: 48 << 10,
        max_cube_count: (i32::MAX as u32, 65_535, 65_535),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: Some(100),
        num_tensor_cores: Some(4),
        min_tensor_cores_dim: Some(8),
        num_cpu_cores: None,
        last_level_cache_size: None,
        max_vector_size: VectorSize::MAX,
        cube_mma_reserved_shared_memory: 0,
    };
    let memory = MemoryDeviceProperties::new(1 << 30, 512);
    let identity = DeviceIdentity { name: "none".into(), fingerprint: "none".into(), physical: None };
    let mut properties = DeviceProperties::new(Default::default(), memory, hardware, TimingMethod::Device, identity);
    register_supported_types(&mut properties);
    properties
}

/// Every kernel in both formats, at the sizes of small and large models.
fn call_everything(client: &Client) {
    let buffer = |len: usize, number: Number| Buffer::empty(client, len, number);
    for number in [Number::F32, Number::Bf16] {
        for width in [576, 4096] {
            let (x, weight, rstd) = (buffer(8 * width, number), buffer(width, Number::F32), buffer(8, Number::F32));
            rms_norm(client, &x, &weight, 1e-5, number);
            rms_norm_dx(client, &x, &weight, &rstd, &x, number);
            rms_norm_dw(client, &x, &rstd, &x, number);
            for kind in [Gate::Silu, Gate::GeluTanh] {
                gated(client, &x, &x, kind, number);
                gated_backward(client, [&x, &x, &x], kind, number);
            }
        }
        for (n_heads, n_kv_heads, head_dim) in [(9, 3, 64), (32, 8, 128), (8, 4, 256), (4, 4, 80)] {
            let shape = AttentionShape { n_heads, n_kv_heads, head_dim, scale: 0.1, window: None };
            let rows = Rows::new(client, &[0, 5, 20]);
            let [q, kv] = [n_heads, n_kv_heads].map(|heads| buffer(20 * heads * head_dim, number));
            let (out, lse) = attention(client, [&q, &kv, &kv], &rows, shape, number);
            attention_backward(client, [&q, &kv, &kv], [&out, &lse, &q], &rows, shape, number);
            let scores = buffer(n_heads * 4 * 12, Number::F32);
            let tile = Tile { first_head: 0, first_query: 8, queries: 4, first_key: 0, keys: 12 };
            tile_softmax(client, &scores, &rows, &lse, tile, shape, number);
            tile_softmax_gradient(client, [&scores; 2], &rows, [&lse; 2], tile, shape, number);
            let [part, sums] = [12, 20].map(|tokens| buffer(n_kv_heads * tokens * head_dim, Number::F32));
            add_tile(client, &part, &sums, (0, tile), shape);
            let angles = buffer(20 * head_dim / 2, Number::F32);
            rotary(client, &q, [&angles, &angles], head_dim, Rotation::Forward, number);
        }
        let (logits, targets) = (buffer(4 * 1000, number), words(client, &[1, 2, 3, 4]));
        for scale in [None, Some(1.0)] {
            cross_entropy(client, &logits, &targets, scale, number);
        }
        let [parameters, copy] = [Number::F32, number].map(|number| buffer(1000, number));
        let rule = AdamW {
            learning_rate: 0.1,
            betas: [0.9, 0.99],
            epsilon: 1e-8,
            weight_decay: 0.0,
            gradient_scale: 1.0,
            step: 1,
        };
        for copy in [None, Some((&copy, number))] {
            adamw(client, [&parameters; 4], copy, rule);
        }
        let (packed, tables) = (words(client, &[0; 64]), buffer(272, Number::F32));
        let matrix = Nf4 { packed, tables, elements: 256, scales_at: 128, groups_at: 144, mean_at: 160 };
        decode(client, &matrix, 0, 256, number);
        decode_int8(client, &words(client, &[0; 68]), 256, 256, number);
    }
}

#[test]
#[ignore = "writes to the folder in CUBE_SOURCES: tests/gpu/ptx.py calls it"]
fn cuda_sources_of_every_kernel() {
    let folder = std::path::PathBuf::from(std::env::var("CUBE_SOURCES").expect("a folder in CUBE_SOURCES"));
    let client = client().expect("a Vulkan device, if only in software: buffers have to be somewhere");
    RECORDED.set(Some((Arc::new(properties()), Arc::new(TargetProperties::default()), Vec::new())));
    call_everything(&client);
    let (_, _, kernels) = RECORDED.take().unwrap();
    let options = CompilationOptions { warp_size: 32, ..CompilationOptions::default() };
    let mut sources = BTreeMap::new();
    for kernel in &kernels {
        let definition = cubecl::define_kernel(&**kernel).unwrap();
        let name = definition.settings.kernel_name.clone();
        let compiled = CppCompiler::<Cuda>::default().compile(definition, &options).unwrap();
        sources.insert(compiled.to_string(), name);
    }
    assert!(sources.len() >= 2 * 11, "{} different kernels", sources.len());
    for (number, (source, name)) in sources.iter().enumerate() {
        std::fs::write(folder.join(format!("{number:02}-{name}.cu")), source).unwrap();
    }
}
