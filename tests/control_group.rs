//! Memory control groups of the kernel, versions 1 and 2: a program runs in no more memory than it was given.
//!
//! In:    a limit, a command.
//! Out:   how the command ended, what it said, and the most memory it held that is no file cache.
//! Never: lets swap space help; leaves a group behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How often memory is looked at. What the limit itself allows is the kernel's to watch.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Where a version keeps its numbers.
struct Version {
    /// How the line of `/proc/self/cgroup` names the memory controller.
    controller: &'static str,
    mount: &'static str,
    limit: &'static str,
    /// Version 1 limits memory and swap space together, version 2 swap space alone.
    swap_limit: &'static str,
    swap_limit_counts_memory: bool,
    peak: &'static str,
    /// Field of `memory.stat`: memory of processes that is no file's.
    anonymous: &'static str,
}

const VERSIONS: [Version; 3] = [
    Version {
        controller: "memory",
        mount: "/sys/fs/cgroup/memory",
        limit: "memory.limit_in_bytes",
        swap_limit: "memory.memsw.limit_in_bytes",
        swap_limit_counts_memory: true,
        peak: "memory.max_usage_in_bytes",
        anonymous: "total_rss ",
    },
    Version { mount: "/sys/fs/cgroup", ..SECOND },
    // Beside version 1.
    SECOND,
];
const SECOND: Version = Version {
    controller: "",
    mount: "/sys/fs/cgroup/unified",
    limit: "memory.max",
    swap_limit: "memory.swap.max",
    swap_limit_counts_memory: false,
    peak: "memory.peak",
    anonymous: "anon ",
};

/// A group, removed when dropped.
pub struct MemoryGroup {
    folder: PathBuf,
    version: &'static Version,
}

/// How a command ended.
pub struct Ended {
    pub status: ExitStatus,
    /// Most memory of the group that is no file cache, bytes.
    pub peak_bytes: u64,
    /// What it wrote on stdout and stderr.
    pub said: String,
}

impl MemoryGroup {
    /// A new group of `limit_bytes` without swap space, or why there can be none.
    pub fn new(limit_bytes: u64) -> Result<MemoryGroup, String> {
        let mut why = Vec::new();
        for version in &VERSIONS {
            match version.group(limit_bytes) {
                Ok(group) => return Ok(group),
                Err(reason) => why.push(format!("{}: {reason}", version.mount)),
            }
        }
        Err(why.join("; "))
    }

    /// Runs `command` in the group; what it says passes through `log`.
    pub fn run(&self, command: &Command, log: &Path) -> Ended {
        let output = fs::File::create(log).unwrap();
        let mut inside = Command::new("sh");
        inside.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.folder.join("cgroup.procs"));
        inside.arg(command.get_program()).args(command.get_args());
        inside.stdout(output.try_clone().unwrap()).stderr(output);
        let mut child = inside.spawn().unwrap();
        let mut peak_bytes = 0;
        loop {
            peak_bytes = peak_bytes.max(self.anonymous_bytes());
            if let Some(status) = child.try_wait().unwrap() {
                return Ended { status, peak_bytes, said: fs::read_to_string(log).unwrap() };
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The most that the group ever held, with file cache, as the kernel counted; `None` where it does not.
    pub fn counted_peak_bytes(&self) -> Option<u64> {
        fs::read_to_string(self.folder.join(self.version.peak)).ok()?.trim().parse().ok()
    }

    fn set(&self, file: &str, bytes: u64) -> Result<(), String> {
        fs::write(self.folder.join(file), bytes.to_string()).map_err(|error| format!("{file}: {error}"))
    }

    fn anonymous_bytes(&self) -> u64 {
        let stat = fs::read_to_string(self.folder.join("memory.stat")).unwrap();
        let field = stat.lines().find_map(|line| line.strip_prefix(self.version.anonymous));
        field.unwrap().trim().parse().unwrap()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.folder) {
            eprintln!("{}: {error}", self.folder.display());
        }
    }
}

impl Version {
    fn group(&'static self, limit_bytes: u64) -> Result<MemoryGroup, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tune-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = self.parent()?.join(name);
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let group = MemoryGroup { folder, version: self };
        let swap_bytes = if self.swap_limit_counts_memory { limit_bytes } else { 0 };
        group.set(self.limit, limit_bytes)?;
        // Missing where the kernel does not count swap space; then there must be none.
        match group.set(self.swap_limit, swap_bytes) {
            Err(reason) if has_swap() => Err(reason),
            _ => Ok(group),
        }
    }

    /// The nearest group on the way to the root that can have children with memory limits.
    fn parent(&self) -> Result<PathBuf, String> {
        let groups = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let own = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|name| name == self.controller).then(|| path.trim_start_matches('/'))
        });
        let own = Path::new(self.mount).join(own.ok_or("this process is in no such group")?);
        let mut on_the_way = own.ancestors().take_while(|folder| folder.starts_with(self.mount));
        let found = on_the_way.find(|folder| self.hands_on_limits(folder)).map(Path::to_path_buf);
        found.ok_or_else(|| "no group on the way to the root hands on memory limits".to_string())
    }

    /// Version 1 always does; version 2 where the controller is switched on, which needs a group without processes.
    fn hands_on_limits(&self, folder: &Path) -> bool {
        if self.swap_limit_counts_memory {
            return folder.join("memory.stat").exists();
        }
        let switches = folder.join("cgroup.subtree_control");
        let on =
            || fs::read_to_string(&switches).is_ok_and(|text| text.split_whitespace().any(|name| name == "memory"));
        switches.exists() && (on() || (fs::write(&switches, "+memory").is_ok() && on()))
    }
}

fn has_swap() -> bool {
    fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
}
