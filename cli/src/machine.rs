//! What this machine has, read from the system.
//!
//! In:    /proc/meminfo, the control group's files, the processor's features, `nvidia-smi` in builds with CUDA.
//! Out:   a [`Machine`] for the planner.
//! Never: measures; numbers come from the kernel.

use std::fs;
use std::path::Path;

use anyhow::Context;
use planner::Machine;

/// Reads everything a plan depends on.
pub fn read() -> anyhow::Result<Machine> {
    let info =
        fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo; only Linux tells its memory so far")?;
    let field = |name: &str| {
        let bytes = kilobytes(&info, name).map(|kilobytes| kilobytes * 1024);
        bytes.with_context(|| format!("/proc/meminfo has no {name}"))
    };
    Ok(Machine {
        memory_available_bytes: field("MemAvailable:")?,
        memory_total_bytes: field("MemTotal:")?,
        cgroup_available_bytes: cgroup_available_bytes(),
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        fast_bf16: fast_bf16(),
        cuda_available_bytes: cuda_available_bytes(),
    })
}

fn kilobytes(info: &str, name: &str) -> Option<u64> {
    let line = info.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Where a version of control groups keeps a group's numbers.
struct MemoryFiles {
    /// How the line of `/proc/self/cgroup` names the memory controller.
    controller: &'static str,
    root: &'static str,
    limit: &'static str,
    used: &'static str,
    /// Field of `memory.stat`: file cache that the kernel can drop.
    droppable: &'static str,
}

/// Version 2, and version 1, which some systems still mount for memory.
const MEMORY_FILES: [MemoryFiles; 2] = [
    MemoryFiles {
        controller: "",
        root: "/sys/fs/cgroup",
        limit: "memory.max",
        used: "memory.current",
        droppable: "inactive_file ",
    },
    MemoryFiles {
        controller: "memory",
        root: "/sys/fs/cgroup/memory",
        limit: "memory.limit_in_bytes",
        used: "memory.usage_in_bytes",
        droppable: "total_inactive_file ",
    },
];
/// Version 1 writes a number near 2^63 where there is no limit.
const LIMIT_BYTES_MAX: u64 = 1 << 60;

/// The tightest limit on the way from this process's control group to the root, less what is in use there.
fn cgroup_available_bytes() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    MEMORY_FILES.iter().filter_map(|files| files.available_bytes(&groups)).min()
}

impl MemoryFiles {
    fn available_bytes(&self, groups: &str) -> Option<u64> {
        let group = groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|name| name == self.controller).then(|| path.trim_start_matches('/'))
        })?;
        let root = Path::new(self.root);
        let folder = root.join(group);
        let on_the_way = folder.ancestors().take_while(|folder| folder.starts_with(root)).map(Path::to_path_buf);
        on_the_way.filter_map(|folder| self.group_available_bytes(&folder)).min()
    }

    /// File cache that the kernel can drop does not count as use.
    fn group_available_bytes(&self, folder: &Path) -> Option<u64> {
        let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        let limit = number(self.limit).filter(|&limit| limit < LIMIT_BYTES_MAX)?;
        let used = number(self.used)?;
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let droppable =
            stat.lines().find_map(|line| line.strip_prefix(self.droppable)?.trim().parse().ok()).unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(droppable)))
    }
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
