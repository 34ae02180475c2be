//! NVIDIA's driver and the compiler beside it.
//!
//! In:    `libcuda`, `libnvrtc`, the toolkit's headers.
//! Out:   cards in CUDA's order; Burn's handle of one.
//! Never: makes a context only to look; calls into a library that was not found.

use std::path::PathBuf;

use burn::tensor::Device;
use cudarc::driver::{result, sys};
use cudarc::nvrtc;

use super::{Card, Missing};

/// Headers that generated kernels include.
const HEADER: &str = "cuda_runtime.h";
/// Compute capability, major, of the first cards that multiply bfloat16.
const AMPERE: i32 = 8;
/// Oldest NVRTC whose headers know what the code generator may write.
const NVRTC_MIN: (i32, i32) = (12, 8);

pub(super) fn cards() -> Result<Vec<Card>, Missing> {
    // SAFETY: only tries to load the library by its usual names.
    if !unsafe { sys::is_culib_present() } {
        return Err(Missing("no NVIDIA driver: libcuda.so.1 is not there; install the driver (nvidia-smi must list the card), or use \"cpu\"".to_string()));
    }
    let says =
        |error: result::DriverError| Missing(format!("NVIDIA's driver says {error:?}; see nvidia-smi, or use \"cpu\""));
    match result::init() {
        Ok(()) => {}
        // The driver is there and no card is.
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => return Ok(Vec::new()),
        Err(error) => return Err(says(error)),
    }
    let count = result::device::get_count().map_err(says)?;
    (0..count).map(|index| card(index).map_err(says)).collect()
}

fn card(index: i32) -> Result<Card, result::DriverError> {
    let device = result::device::get(index)?;
    // SAFETY: the device comes from the driver.
    let attribute = |attribute| unsafe { result::device::get_attribute(device, attribute) };
    // SAFETY: the same.
    let memory = unsafe { result::device::total_mem(device)? };
    let integrated = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED)?;
    let capability = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    Ok(Card {
        name: result::device::get_name(device)?,
        memory_bytes: memory as u64,
        free_bytes: None,
        shares_memory: integrated == 1,
        is_software: false,
        fast_bf16: capability >= AMPERE,
        address: address(device),
    })
}

fn address(device: sys::CUdevice) -> Option<String> {
    let mut text = [0u8; 32];
    // SAFETY: the driver writes at most as many bytes as it is told, a terminator among them.
    let answer = unsafe { sys::cuDeviceGetPCIBusId(text.as_mut_ptr().cast(), text.len() as i32 - 1, device) };
    answer.result().ok()?;
    let end = text.iter().position(|&byte| byte == 0)?;
    Some(std::str::from_utf8(&text[..end]).ok()?.to_ascii_lowercase())
}

pub(super) fn open(index: usize) -> Result<Device, Missing> {
    let found = cards()?.len();
    if index >= found {
        return Err(Missing(format!("NVIDIA's driver lists {found} cards; see nvidia-smi, or use \"cpu\"")));
    }
    compiler()?;
    headers()?;
    Ok(Device::cuda(index))
}

/// The library that compiles kernels while the program runs.
fn compiler() -> Result<(), Missing> {
    let hint = "it comes with the CUDA toolkit, or with the packages nvidia-cuda-nvrtc and nvidia-cuda-runtime of the Python index: \
                put their lib folder into LD_LIBRARY_PATH";
    // SAFETY: only tries to load the library by its usual names.
    if !unsafe { nvrtc::sys::is_culib_present() } {
        return Err(Missing(format!("no CUDA compiler: libnvrtc.so is not there; {hint}")));
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library was found; both are places for one number.
    let answer = unsafe { nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    match answer {
        nvrtc::sys::nvrtcResult::NVRTC_SUCCESS if (major, minor) >= NVRTC_MIN => Ok(()),
        nvrtc::sys::nvrtcResult::NVRTC_SUCCESS => Err(Missing(format!(
            "the CUDA compiler is too old: libnvrtc.so is {major}.{minor}, {}.{} is needed; {hint}",
            NVRTC_MIN.0, NVRTC_MIN.1
        ))),
        other => Err(Missing(format!("libnvrtc.so is there but says {other:?}; {hint}"))),
    }
}

/// Headers where the code generator will look for them.
fn headers() -> Result<(), Missing> {
    let hint =
        "install the toolkit, or set CUDA_PATH to the folder that has include/ (nvidia/cu13 of the Python package)";
    let root: Option<PathBuf> = cubecl_cuda::install::cuda_path();
    let Some(root) = root else {
        return Err(Missing(format!("no CUDA headers: neither CUDA_PATH nor /usr/local/cuda nor /opt/cuda; {hint}")));
    };
    let header = root.join("include").join(HEADER);
    match header.is_file() {
        true => Ok(()),
        false => Err(Missing(format!("no CUDA headers: {} is not there; {hint}", header.display()))),
    }
}
