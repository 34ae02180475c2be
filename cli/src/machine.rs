//! What this machine has, read from the system.
//!
//! In:    /proc/meminfo, the control group's files, the processor's features, the drivers of cards that this build can use.
//! Out:   a [`Machine`] for the planner.
//! Never: measures; numbers come from the kernel.

use std::fs;

use anyhow::Context;
use kernels::devices::{self, Card, Missing};
use planner::hardware::{Catalogue, Described};
use planner::machine::{CudaCard, MissingDevices, VulkanMemory};
use planner::plan::DeviceChoice;
use planner::rates::{ComputeRates, Rates, RatesOrigin};
use planner::{IoProfile, Machine};
use recipes::DeviceName;

use crate::rates;

/// Taken for a card that the catalogue does not know: a small one, so that times are not too good.
const USUAL_CARD: &str = "rtx-3060-12gb";
/// How much slower a Vulkan device in software computes than the same processor's own kernels.
const SOFTWARE_SLOWDOWN: f64 = 10.0;

/// Reads everything that a plan for `device` depends on; `io` was measured now or earlier. Drivers that the name cannot mean are not asked:
/// loading one takes tens of megabytes.
pub fn read(io: Vec<IoProfile>, device: DeviceName) -> anyhow::Result<Machine> {
    let info =
        fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo; only Linux tells its memory so far")?;
    let field = |name: &str| {
        let bytes = kilobytes(&info, name).map(|kilobytes| kilobytes * 1024);
        bytes.with_context(|| format!("/proc/meminfo has no {name}"))
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let processor = rates::known().unwrap_or(Rates::usual(cores));
    let [cuda, vulkan] = asked(device).map(|cards| cards.unwrap_or_else(|| Ok(Vec::new())));
    let why = |cards: &Cards| cards.as_ref().err().map(ToString::to_string);
    let missing = MissingDevices { cuda: why(&cuda), vulkan: why(&vulkan) };
    let (cuda, vulkan) = (cuda.unwrap_or_default(), vulkan.unwrap_or_default());
    let rates = Rates { nvme: rates::drives(&io), ..processor };
    let named = |index: usize, card: &Card| DeviceChoice::Vulkan { index, shares_memory: card.shares_memory };
    let on_cuda = cuda.iter().enumerate().map(|(index, card)| (DeviceChoice::Cuda(index), card_rates(card, &rates)));
    let on_vulkan = vulkan.iter().enumerate().map(|(index, card)| (named(index, card), card_rates(card, &rates)));
    let free = |card: &Card| card.free_bytes.unwrap_or(card.memory_bytes);
    Ok(Machine {
        memory_available_bytes: field("MemAvailable:")?,
        memory_total_bytes: field("MemTotal:")?,
        cgroup_available_bytes: offload::host_memory_limit_bytes(),
        cores,
        fast_bf16: fast_bf16(),
        missing,
        device_rates: on_cuda.chain(on_vulkan).collect(),
        cuda: cuda.iter().map(|card| CudaCard { available_bytes: free(card), fast_bf16: card.fast_bf16 }).collect(),
        vulkan: vulkan
            .iter()
            .map(|card| VulkanMemory { available_bytes: free(card), shares_memory: card.shares_memory })
            .collect(),
        io,
        cards: 1,
        rates,
    })
}

/// Cards of a kind, or why there are none.
pub type Cards = Result<Vec<Card>, Missing>;

/// CUDA's cards and Vulkan's; `None` of a kind that `device` cannot mean: its driver is not loaded.
pub fn asked(device: DeviceName) -> [Option<Cards>; 2] {
    match device {
        DeviceName::Cpu => [None, None],
        DeviceName::Auto | DeviceName::Cuda(_) => [Some(devices::cuda_cards()), None],
        DeviceName::Vulkan(_) => [None, Some(devices::vulkan_cards())],
    }
}

fn kilobytes(info: &str, name: &str) -> Option<u64> {
    let line = info.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(target_arch = "x86_64")]
fn fast_bf16() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn fast_bf16() -> bool {
    false
}

/// Published figures of the card beside this machine's own host memory; usual ones of a card that the catalogue does not know, and of
/// software the processor's, slowed down.
fn card_rates(card: &Card, processor: &Rates) -> Rates {
    if card.is_software {
        let slow = |rates: ComputeRates| {
            let [matmul, attention, vector] =
                [rates.matmul_flops, rates.attention_flops, rates.vector_bytes_per_second]
                    .map(|rate| rate / SOFTWARE_SLOWDOWN);
            ComputeRates::new(matmul, attention, vector)
        };
        return Rates {
            origin: RatesOrigin::Usual,
            f32: slow(processor.f32),
            bf16: slow(processor.bf16),
            ..*processor
        };
    }
    let catalogue = Catalogue::built_in();
    let gpu = catalogue.gpu(&card.name).or_else(|_| catalogue.gpu(USUAL_CARD)).ok().cloned();
    let described =
        Described { gpu: gpu.map(|gpu| (gpu, 1)), cpu: None, ram_bytes: 0, ssds: Vec::new(), notes: Vec::new() };
    let dram_bytes_per_second = processor.dram_bytes_per_second;
    Rates { dram_bytes_per_second, host: processor.host, ..planner::hardware::rates(&described) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_card_that_the_catalogue_knows_brings_its_own_rates() {
        let card = |name: &str, is_software| Card {
            name: name.to_string(),
            memory_bytes: 24 << 30,
            free_bytes: None,
            shares_memory: is_software,
            is_software,
            fast_bf16: false,
            address: None,
        };
        let processor = Rates::usual(2);
        let rates = |name: &str, is_software| card_rates(&card(name, is_software), &processor);
        let known = rates("NVIDIA GeForce RTX 4090", false);
        assert!(known.bf16.matmul_flops > 2.0 * rates("NVIDIA Something 9", false).bf16.matmul_flops);
        assert_eq!(known.dram_bytes_per_second, processor.dram_bytes_per_second);
        assert!(rates("llvmpipe", true).f32.matmul_flops < processor.f32.matmul_flops);
    }
}
