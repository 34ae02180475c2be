//! What this machine has, read from the system.
//!
//! In:    /proc/meminfo, the control group's files, the processor's features, `nvidia-smi` in builds with CUDA.
//! Out:   a [`Machine`] for the planner.
//! Never: measures; numbers come from the kernel.

use std::fs;

use anyhow::Context;
use planner::hardware::{Catalogue, Described};
use planner::rates::Rates;
use planner::{IoProfile, Machine};

use crate::rates;

/// Taken for a card that the catalogue does not know: a small one, so that times are not too good.
const USUAL_CARD: &str = "rtx-3060-12gb";

/// Reads everything a plan depends on; `io` was measured now or earlier.
pub fn read(io: Vec<IoProfile>) -> anyhow::Result<Machine> {
    let info =
        fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo; only Linux tells its memory so far")?;
    let field = |name: &str| {
        let bytes = kilobytes(&info, name).map(|kilobytes| kilobytes * 1024);
        bytes.with_context(|| format!("/proc/meminfo has no {name}"))
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let processor = rates::known().unwrap_or(Rates::usual(cores));
    let cards = cards();
    let of_device = cards.first().map_or(processor, |card| card.rates(&processor));
    let rates = Rates { nvme: rates::drives(&io), ..of_device };
    Ok(Machine {
        memory_available_bytes: field("MemAvailable:")?,
        memory_total_bytes: field("MemTotal:")?,
        cgroup_available_bytes: offload::host_memory_limit_bytes(),
        cores,
        fast_bf16: fast_bf16(),
        cuda_available_bytes: cards.iter().map(|card| card.free_bytes).collect(),
        io,
        cards: 1,
        rates,
    })
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

/// A card that this build can use.
struct Card {
    name: String,
    free_bytes: u64,
}

impl Card {
    /// Published figures of the card beside this machine's own host memory; usual ones of a card that the catalogue does not know.
    fn rates(&self, processor: &Rates) -> Rates {
        let catalogue = Catalogue::built_in();
        let gpu = catalogue.gpu(&self.name).or_else(|_| catalogue.gpu(USUAL_CARD)).ok().cloned();
        let described =
            Described { gpu: gpu.map(|gpu| (gpu, 1)), cpu: None, ram_bytes: 0, ssds: Vec::new(), notes: Vec::new() };
        let dram_bytes_per_second = processor.dram_bytes_per_second;
        Rates { dram_bytes_per_second, host: processor.host, ..planner::hardware::rates(&described) }
    }
}

/// Every card with its free memory; none in a build that could not use them.
fn cards() -> Vec<Card> {
    if !cfg!(feature = "cuda") {
        return Vec::new();
    }
    let arguments = ["--query-gpu=name,memory.free", "--format=csv,noheader,nounits"];
    let Ok(output) = std::process::Command::new("nvidia-smi").args(arguments).output() else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout).lines().map_while(card).collect()
}

fn card(line: &str) -> Option<Card> {
    let (name, mebibytes) = line.rsplit_once(',')?;
    let mebibytes: u64 = mebibytes.trim().parse().ok()?;
    Some(Card { name: name.trim().to_string(), free_bytes: mebibytes.checked_mul(1 << 20)? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_card_that_the_catalogue_knows_brings_its_own_rates() {
        let known = card("NVIDIA GeForce RTX 4090, 23028").unwrap();
        assert_eq!((known.name.as_str(), known.free_bytes), ("NVIDIA GeForce RTX 4090", 23028 << 20));
        let unknown = card("NVIDIA Something 9, 8000").unwrap();
        let processor = Rates::usual(2);
        assert!(known.rates(&processor).bf16.matmul_flops > 2.0 * unknown.rates(&processor).bf16.matmul_flops);
        assert_eq!(known.rates(&processor).dram_bytes_per_second, processor.dram_bytes_per_second);
        assert!(card("No devices were found").is_none());
    }
}
