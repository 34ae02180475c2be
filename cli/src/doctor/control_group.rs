//! Limits that a container or a service manager sets.
//!
//! In:    `/proc/self/cgroup` and the controllers' files, version 1 or 2.
//! Out:   the tightest limit on the way to the root.
//! Never: subtracts what is in use: that is the planner's question.

use super::fact::Tree;

const ROOT: &str = "/sys/fs/cgroup";
/// Version 1 writes "no limit" as the largest multiple of a page.
const UNLIMITED: u64 = 1 << 60;

/// Memory that this process's groups may take, bytes; `None` without a limit.
pub fn memory_limit_bytes(tree: &Tree) -> Option<u64> {
    let limit = |folder: &str, version: Version| {
        let name = match version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        tree.number::<u64>(&format!("{folder}/{name}")).filter(|limit| *limit < UNLIMITED)
    };
    folders(tree, "memory").iter().filter_map(|(folder, version)| limit(folder, *version)).min()
}

/// Processor time that this process's groups may take, in threads; `None` without a limit.
pub fn quota_threads(tree: &Tree) -> Option<f64> {
    let quota = |folder: &str, version: Version| match version {
        Version::One => {
            let part = |name: &str| tree.number::<f64>(&format!("{folder}/{name}"));
            Some((part("cpu.cfs_quota_us")?, part("cpu.cfs_period_us")?))
        }
        Version::Two => {
            let line = tree.word(&format!("{folder}/cpu.max"))?;
            let (quota, period) = line.split_once(' ')?;
            Some((quota.parse().ok()?, period.trim().parse().ok()?))
        }
    };
    let found = folders(tree, "cpu");
    let quotas = found.iter().filter_map(|(folder, version)| quota(folder, *version));
    quotas
        .filter(|(quota, period)| *quota > 0.0 && *period > 0.0)
        .map(|(quota, period)| quota / period)
        .reduce(f64::min)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Folders of this process's groups for a controller, up to the root.
fn folders(tree: &Tree, controller: &str) -> Vec<(String, Version)> {
    let mut found = Vec::new();
    for line in tree.text("/proc/self/cgroup").unwrap_or_default().lines() {
        let Some((controllers, group)) = line.split_once(':').and_then(|(_, rest)| rest.split_once(':')) else {
            continue;
        };
        if controllers.is_empty() {
            // Systems with both versions mount the second one aside.
            found.extend(upwards(ROOT, group).map(|folder| (folder, Version::Two)));
            found.extend(upwards(&format!("{ROOT}/unified"), group).map(|folder| (folder, Version::Two)));
        } else if controllers.split(',').any(|name| name == controller) {
            // The folder is named by one of the controllers that share it, or by all of them.
            found.extend(upwards(&format!("{ROOT}/{controller}"), group).map(|folder| (folder, Version::One)));
            found.extend(upwards(&format!("{ROOT}/{controllers}"), group).map(|folder| (folder, Version::One)));
        }
    }
    found
}

/// A group's folder and those above it, up to the root.
fn upwards(root: &str, group: &str) -> impl Iterator<Item = String> {
    let parts: Vec<&str> = group.split('/').filter(|part| !part.is_empty() && *part != "..").collect();
    let folder = |count: usize| format!("{root}/{}", parts[..count].join("/")).trim_end_matches('/').to_string();
    (0..=parts.len()).rev().map(folder).collect::<Vec<_>>().into_iter()
}
