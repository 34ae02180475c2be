//! What this machine has, read from the system.
//!
//! In:    /proc/meminfo, the control group's files, the processor's features, `nvidia-smi` in builds with CUDA.
//! Out:   a [`Machine`] for the planner.
//! Never: measures; numbers come from the kernel.

use std::fs;

use anyhow::Context;
use planner::rates::Rates;
use planner::{IoProfile, Machine};

/// Reads everything a plan depends on; `io` was measured now or earlier.
pub fn read(io: Vec<IoProfile>) -> anyhow::Result<Machine> {
    let info =
        fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo; only Linux tells its memory so far")?;
    let field = |name: &str| {
        let bytes = kilobytes(&info, name).map(|kilobytes| kilobytes * 1024);
        bytes.with_context(|| format!("/proc/meminfo has no {name}"))
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    Ok(Machine {
        memory_available_bytes: field("MemAvailable:")?,
        memory_total_bytes: field("MemTotal:")?,
        cgroup_available_bytes: offload::host_memory_limit_bytes(),
        cores,
        fast_bf16: fast_bf16(),
        cuda_available_bytes: cuda_available_bytes(),
        io,
        cards: 1,
        rates: Rates::usual(cores),
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

/// Free memory of each card; none in a build that could not use them.
fn cuda_available_bytes() -> Vec<u64> {
    if !cfg!(feature = "cuda") {
        return Vec::new();
    }
    let arguments = ["--query-gpu=memory.free", "--format=csv,noheader,nounits"];
    let Ok(output) = std::process::Command::new("nvidia-smi").args(arguments).output() else { return Vec::new() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map_while(|line| line.trim().parse::<u64>().ok()).map(|mebibytes| mebibytes << 20).collect()
}
