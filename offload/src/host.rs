//! How much memory the control groups of this process leave it.
//!
//! In:    `/proc/self/cgroup` and the memory controller's files, version 1 or 2.
//! Out:   the tightest limit on the way to the root, less what is in use there.
//! Never: measures or allocates.

use std::fs;
use std::path::Path;

/// Where the controllers' files are.
const ROOT: &str = "/sys/fs/cgroup";
/// Version 1 writes "no limit" as the largest multiple of a page.
const UNLIMITED: u64 = 1 << 60;

/// The files of one version of control groups.
struct Names {
    limit: &'static str,
    used: &'static str,
    /// The line of `memory.stat` with the file cache that the kernel can drop.
    droppable: &'static str,
}

const V1: Names =
    Names { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", droppable: "total_inactive_file " };
const V2: Names = Names { limit: "memory.max", used: "memory.current", droppable: "inactive_file " };

/// Bytes this process may still take before its control group, or one around it, runs into its limit. `None` without any limit, and
/// on systems without control groups. File cache that can be dropped counts as free.
pub fn host_memory_limit_bytes() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    available(&groups, Path::new(ROOT))
}

fn available(groups: &str, root: &Path) -> Option<u64> {
    let of = |line: &str| {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        if controllers.is_empty() {
            // Systems with both versions mount the second one aside.
            let places = [root.to_path_buf(), root.join("unified")];
            return places.iter().filter_map(|place| tightest(place, group, &V2)).min();
        }
        let memory = controllers.split(',').any(|controller| controller == "memory");
        memory.then(|| tightest(&root.join("memory"), group, &V1)).flatten()
    };
    groups.lines().filter_map(of).min()
}

/// The least that any group from `group` up to `root` has left. Groups that cannot be seen from here (in containers) are passed over.
fn tightest(root: &Path, group: &str, names: &Names) -> Option<u64> {
    let folder = root.join(group.trim_start_matches('/'));
    let on_the_way = folder.ancestors().take_while(|folder| folder.starts_with(root));
    on_the_way.filter_map(|folder| left(folder, names)).min()
}

fn left(folder: &Path, names: &Names) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = number(names.limit).filter(|limit| *limit < UNLIMITED)?;
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let droppable = stat.lines().find_map(|line| line.strip_prefix(names.droppable)?.trim().parse::<u64>().ok());
    let used = number(names.used)?.saturating_sub(droppable.unwrap_or(0));
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn group(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
    }

    #[test]
    fn the_tightest_group_on_the_way_up_counts_and_droppable_cache_is_free() {
        let root = tempfile::tempdir().unwrap();
        let outer = root.path().join("outer");
        group(
            &outer,
            &[("memory.max", "1000\n"), ("memory.current", "900\n"), ("memory.stat", "anon 1\ninactive_file 300\n")],
        );
        group(&outer.join("inner"), &[("memory.max", "max\n"), ("memory.current", "10\n")]);
        assert_eq!(available("0::/outer/inner\n", root.path()), Some(400));
        group(&outer.join("inner"), &[("memory.max", "250\n"), ("memory.current", "10\n")]);
        assert_eq!(available("0::/outer/inner\n", root.path()), Some(240));
        assert_eq!(available("0::/\n", root.path()), None);
    }

    #[test]
    fn version_1_is_read_and_its_largest_number_is_no_limit() {
        let root = tempfile::tempdir().unwrap();
        let limits = |limit| [("memory.limit_in_bytes", limit), ("memory.usage_in_bytes", "100")];
        let lines = "12:cpu,cpuacct:/job\n5:memory:/job\n";
        group(&root.path().join("memory/job"), &limits("9223372036854771712"));
        assert_eq!(available(lines, root.path()), None);
        group(&root.path().join("memory/job"), &limits("4096"));
        assert_eq!(available(lines, root.path()), Some(3996));
        // Inside of a container the path of the host is not there, but the root is the container's own.
        group(&root.path().join("memory"), &limits("5000"));
        assert_eq!(available("5:memory:/docker/0123\n", root.path()), Some(4900));
    }
}
