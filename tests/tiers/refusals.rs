//! What cannot work on the NVMe tier: one line with the numbers, the promised exit code, nothing left behind.
//!
//! In:    bad directories, small disks, small budgets, a kernel that refuses io_uring.
//! Out:   facts about one line of stderr.
//! Never: changes a setting of the machine; what needs a right that is not there is skipped, and says so.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{Runs, error_line, said};

fn nvme(path: &Path) -> String {
    format!("offload.nvme=[{:?}]", path.display().to_string())
}

#[test]
fn directory_that_is_missing_or_a_file_is_refused_by_name() {
    let runs = Runs::new();
    runs.refuses(&[&nvme(&runs.path("gone"))], 2, &["offload.nvme", "gone", "make it"]);
    runs.refuses(&[&nvme(&runs.path("recipe.toml"))], 2, &["offload.nvme", "recipe.toml"]);
}

#[test]
fn directory_without_the_right_to_write_is_refused_by_name() {
    let runs = Runs::new();
    if let Some(disk) = Mounted::new("ro,size=1m") {
        runs.refuses(&[&nvme(&disk.path)], 2, &[&disk.path.display().to_string(), "Read-only file system"]);
        return;
    }
    let drive = runs.path("closed");
    fs::create_dir(&drive).unwrap();
    fs::set_permissions(&drive, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(drive.join("probe"), b"").is_ok() {
        return eprintln!("SKIPPED directory_without_the_right_to_write...: all rights but that to mount");
    }
    runs.refuses(&[&nvme(&drive)], 2, &["closed", "Permission denied"]);
}

#[test]
fn class_on_nvme_without_a_directory_is_refused_with_both_keys() {
    let runs = Runs::new();
    runs.refuses(&["offload.nvme=[]"], 2, &["offload.weights = \"nvme\"", "offload.nvme"]);
}

#[test]
fn memory_that_looks_like_a_disk_works_and_is_told() {
    let memory = Path::new("/dev/shm");
    let Ok(folder) = tempfile::tempdir_in(memory) else {
        return eprintln!("SKIPPED memory_that_looks_like_a_disk...: no /dev/shm here");
    };
    let runs = Runs::new();
    let text = runs.succeeds("out", &[&nvme(folder.path())]);
    assert!(text.contains("a file system in memory"), "{text}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let text = runs.succeeds("on-disk", &[]);
    assert_eq!(text.contains("a file system in memory"), is_tmpfs(&runs.path("drive")), "{text}");
}

fn is_tmpfs(path: &Path) -> bool {
    let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(path).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == "tmpfs")
}

#[test]
fn disk_that_is_too_small_is_refused_with_the_bytes_needed_and_free() {
    let runs = Runs::new();
    let Some(disk) = Mounted::new("size=256k") else {
        return eprintln!("SKIPPED disk_that_is_too_small...: no right to mount here");
    };
    let words = ["does not fit", "bytes are needed for tensor", "are free", "the files of this run need 643 KB"];
    runs.refuses(&[&nvme(&disk.path)], 3, &words);
    assert_eq!(fs::read_dir(&disk.path).unwrap().count(), 0);
    let automatic = ["offload.chunk=auto", "offload.queue_depth=auto"];
    let output = runs.run("refused", &[&nvme(&disk.path), automatic[0], automatic[1]]);
    error_line(&output, 3);
    assert!(said(&output).contains("not measured"), "{}", said(&output));
    assert!(!runs.path("refused").exists());
}

#[test]
fn memory_budgets_that_are_too_small_are_refused_with_both_numbers() {
    let runs = Runs::new();
    let words = ["does not fit: offload.dram_budget", "needs 1.57 MB", "10.0 KB"];
    runs.refuses(&["offload.dram_budget=10KB"], 3, &words);
    runs.refuses(&["offload.device_budget=1MB"], 3, &["does not fit: offload.device_budget", "1.00 MB"]);
    runs.refuses(&["hardware.memory=1MB"], 3, &["does not fit: memory", "1.00 MB"]);
}

#[test]
fn update_during_backward_with_clipping_is_refused() {
    let runs = Runs::new();
    let set = ["optimizer.max_grad_norm=1.0", "offload.update_during_backward=true"];
    runs.refuses(&set, 2, &["offload.update_during_backward", "max_grad_norm = \"none\""]);
}

#[test]
fn write_budget_below_one_step_is_refused_with_the_numbers() {
    let runs = Runs::new();
    // Placing the arrays alone writes more than 0.1 MB, and a step 0.86 MB more.
    runs.refuses(&["offload.write_budget_tb=1e-7"], 3, &["the write budget of 100000 bytes"]);
    runs.refuses(&["offload.write_budget_tb=1e-6"], 3, &["offload.write_budget_tb allows 1.00 MB", "864 KB"]);
}

#[test]
fn run_that_meets_its_write_budget_stops_after_a_step_and_resumes_to_the_same_bytes() {
    let runs = Runs::new();
    runs.succeeds("whole", &["train.steps=9"]);
    let set = ["train.steps=9", "offload.write_budget_tb=4e-6"];
    let line = error_line(&runs.run("out", &set), 1);
    assert!(line.contains("4.00 MB") && line.contains("--resume") && line.contains("is complete"), "{line}");
    assert!(runs.left_on_drive().is_empty());
    let done = runs.steps("out").len();
    assert!((1..9).contains(&done), "{done} steps");
    let written: u64 = runs.steps("out").iter().map(|step| step["nvme_write_bytes"].as_u64().unwrap()).sum();
    assert!(written <= 4_000_000, "{written}");
    // What was written counts for the resumed process too.
    let line = error_line(&runs.run("out", &["train.steps=9", "offload.write_budget_tb=4e-6", "--resume"]), 3);
    assert!(line.contains("write budget") || line.contains("write_budget_tb"), "{line}");
    runs.succeeds("out", &["train.steps=9", "offload.write_budget_tb=1", "--resume"]);
    assert_eq!(runs.model("out"), runs.model("whole"));
    assert_eq!(runs.state("out", 9), runs.state("whole", 9));
}

/// Runs its arguments in a process to which io_uring_setup answers EPERM, as the default profile of containers does.
const WITHOUT_IO_URING: &str = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
# Load the number; number 425 (io_uring_setup) falls through to EPERM, others skip it and are allowed.
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(rules), ctypes.addressof(code)))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0):
    sys.exit(99)
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// The run without io_uring; `None` where there is no python3 or no filter.
fn run_without_io_uring(runs: &Runs, output: &str, set: &[&str]) -> Option<Output> {
    let wanted = runs.command(output, set);
    let mut command = Command::new("python3");
    command.args(["-c", WITHOUT_IO_URING]).arg(wanted.get_program()).args(wanted.get_args());
    command.current_dir(runs.path("")).env("TUNE_CACHE", runs.path("cache"));
    command.output().ok().filter(|output| output.status.code() != Some(99))
}

#[test]
fn where_io_uring_is_refused_threads_take_over_with_the_reason_or_the_run_is_refused() {
    let runs = Runs::new();
    let Some(refused) = run_without_io_uring(&runs, "refused", &["offload.engine=io_uring"]) else {
        return eprintln!("SKIPPED where_io_uring_is_refused...: no python3, or no right to filter system calls");
    };
    let line = error_line(&refused, 2);
    assert!(line.contains("io_uring") && line.contains("Operation not permitted"), "{line}");
    assert!(!runs.path("refused").exists(), "{line}");
    let fallback = run_without_io_uring(&runs, "threads", &[]).unwrap();
    let text = said(&fallback);
    assert_eq!(fallback.status.code(), Some(0), "{text}");
    assert!(text.contains("nvme: threads") && text.contains("io_uring refused: Operation not permitted"), "{text}");
    runs.succeeds("any", &[]);
    assert_eq!(runs.model("threads"), runs.model("any"));
}

/// A file system in memory, unmounted on drop.
struct Mounted {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Mounted {
    fn new(options: &str) -> Option<Mounted> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_path_buf();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path).output();
        mounted.ok().filter(|output| output.status.success()).map(|_| Mounted { path, _folder: folder })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: the kernel closes the files of a ring some time after the process has ended.
        let _unmounted = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
