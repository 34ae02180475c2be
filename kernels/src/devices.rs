//! Devices beside the processor: what their drivers say of them, and Burn's handle of each.
//!
//! In:    the drivers' libraries, loaded while the program runs.
//! Out:   [`Card`]s in the order that recipes count them; a [`Device`], or the one thing that is missing.
//! Never: panics where a driver is missing; needs one.

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod trials;
#[cfg(feature = "wgpu")]
mod vulkan;
mod watch;

use std::path::Path;

use burn::tensor::Device;

pub use watch::{LIBRARY, Reading, Throttle, Watch};

/// A device that this build can compute on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// As its driver calls it.
    pub name: String,
    /// Its memory, bytes.
    pub memory_bytes: u64,
    /// What this process may still take of it, bytes; `None` where its driver does not say.
    pub free_bytes: Option<u64>,
    /// It computes in the host's memory.
    pub shares_memory: bool,
    /// The processor itself stands in for a card.
    pub is_software: bool,
    /// It multiplies bfloat16 in hardware.
    pub fast_bf16: bool,
    /// Its place on the bus, `0000:01:00.0`, where it has one.
    pub address: Option<String>,
}

/// Why a device cannot be used: what is missing, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Missing(String);

/// Keeps in `folder` which kernels won their trials on a device, and what was compiled for it; later processes take both from there, so that they
/// compute the same bits. Before a device is opened; the first call counts. Where the folder cannot be written, each process makes its own trials.
pub fn keep_trials_in(folder: &Path) {
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    trials::keep_in(folder);
    #[cfg(not(any(feature = "cuda", feature = "wgpu")))]
    let _ = folder;
}

/// The driver's CUDA cards, in CUDA's own order.
///
/// # Errors
/// [`Missing`]: the feature, the driver, any card.
pub fn cuda_cards() -> Result<Vec<Card>, Missing> {
    #[cfg(feature = "cuda")]
    {
        let mut cards = cuda::cards()?;
        let addresses: Vec<Option<&str>> = cards.iter().map(|card| card.address.as_deref()).collect();
        let free = watch::nvidia_free_bytes(&addresses);
        cards.iter_mut().zip(free).for_each(|(card, free)| card.free_bytes = free);
        some(cards, "NVIDIA's driver lists no card; see nvidia-smi, or use \"cpu\"")
    }
    #[cfg(not(feature = "cuda"))]
    Err(not_built("cuda"))
}

/// Vulkan devices: cards, then processors' graphics, then software.
///
/// # Errors
/// [`Missing`]: the feature, the loader, any device.
pub fn vulkan_cards() -> Result<Vec<Card>, Missing> {
    #[cfg(feature = "wgpu")]
    return some(
        vulkan::cards()?,
        "Vulkan lists no device; install the card's driver (Debian: mesa-vulkan-drivers), or use \"cpu\"",
    );
    #[cfg(not(feature = "wgpu"))]
    Err(not_built("wgpu"))
}

/// The CUDA card `index`, after everything was looked up that the first kernel will load.
///
/// # Errors
/// [`Missing`]: the feature, the driver, the card, the compiler's library, the toolkit's headers.
pub fn cuda(index: usize) -> Result<Device, Missing> {
    #[cfg(feature = "cuda")]
    return cuda::open(index);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = index;
        Err(not_built("cuda"))
    }
}

/// The Vulkan device `index` of [`vulkan_cards`].
///
/// # Errors
/// [`Missing`]: the feature, the loader, the device.
pub fn vulkan(index: usize) -> Result<Device, Missing> {
    #[cfg(feature = "wgpu")]
    return vulkan::open(index);
    #[cfg(not(feature = "wgpu"))]
    {
        let _ = index;
        Err(not_built("wgpu"))
    }
}

#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn some(cards: Vec<Card>, none: &str) -> Result<Vec<Card>, Missing> {
    if cards.is_empty() { Err(Missing(none.to_string())) } else { Ok(cards) }
}

#[cfg(not(all(feature = "cuda", feature = "wgpu")))]
fn not_built(feature: &str) -> Missing {
    Missing(format!("this binary was built without it; build with --features {feature}, or use \"cpu\""))
}
