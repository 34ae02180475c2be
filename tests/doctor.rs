//! `tune doctor` on the machine that runs the tests: plausible, complete, and 0 whatever is wrong.
//!
//! In:    this machine.
//! Out:   facts that another source confirms.
//! Never: a fact about a rate.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn doctor(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tune"));
    command.current_dir(folder).env("TUNE_CACHE", folder.join("cache")).arg("doctor").args(arguments);
    command.output().unwrap()
}

fn json(arguments: &[&str], folder: &Path) -> Value {
    let output = doctor(arguments, folder);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_is_told_agrees_with_the_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let report = json(&["--no-measure", "--json"], folder.path());
    let machine = &report["inventory"];
    let info = fs::read_to_string("/proc/meminfo").unwrap();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    let kilobytes: u64 = total.trim().trim_end_matches(" kB").parse().unwrap();
    assert_eq!(machine["memory"]["total_bytes"], kilobytes * 1024);
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    let allowed = machine["processor"]["threads_allowed"].as_u64().unwrap();
    let quota = machine["processor"]["quota_threads"].as_f64().unwrap_or(f64::MAX);
    assert_eq!((allowed as f64).min(quota.floor().max(1.0)) as u64, cores);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(machine["system"]["kernel"], kernel.trim());
    #[cfg(target_arch = "x86_64")]
    assert_eq!(
        machine["processor"]["instructions"].as_array().unwrap().iter().any(|name| name == "AVX2"),
        std::arch::is_x86_feature_detected!("avx2")
    );
    let real = folder.path().canonicalize().unwrap();
    assert_eq!(machine["folders"][0]["path"], real.to_str().unwrap());
    let room = &machine["folders"][0]["room"];
    assert!(room["free_bytes"].as_u64().unwrap() <= room["total_bytes"].as_u64().unwrap());
}

#[test]
fn every_key_is_there_whether_known_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let report = json(&["--no-measure", "--json"], folder.path());
    for key in ["version", "inventory", "rates", "findings"] {
        assert!(!report[key].is_null(), "{key}");
    }
    for key in ["system", "processor", "memory", "nvidia", "built_for_cuda", "cards", "drives", "folders"] {
        assert!(!report["inventory"][key].is_null(), "{key}");
    }
    for part in ["nvidia", "cards", "drives"] {
        let part = &report["inventory"][part];
        assert!(part.get("unknown").is_none_or(Value::is_string), "why it is not known is a text: {part}");
    }
    for finding in report["findings"].as_array().unwrap() {
        for key in ["code", "severity", "symptom", "constraint", "fix"] {
            assert!(!finding[key].as_str().unwrap().is_empty(), "{finding}");
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "looking leaves nothing");
}

#[test]
fn text_for_a_file_has_no_escapes_and_fits_80_columns() {
    let folder = tempfile::tempdir().unwrap();
    let output = doctor(&["--no-measure"], folder.path());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for section in ["Machine", "Processor", "Memory", "Cards", "Drives", "Folders", "Measured", "What will be slow"] {
        assert!(text.lines().any(|line| line == section), "{section}: {text}");
    }
    assert!(!text.contains('\u{1b}'));
    for line in text.lines().filter(|line| !line.contains(folder.path().to_str().unwrap())) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn a_folder_that_is_not_there_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let output = doctor(&["--no-measure", "--path", "gone"], folder.path());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("no such directory: --path gone") && output.stdout.is_empty(), "{text}");
}

/// In memory where there is such a place: nothing is written to a drive then.
#[test]
fn a_folder_in_memory_is_told_and_not_measured() {
    let Ok(memory) = tempfile::tempdir_in("/dev/shm") else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = memory.path().to_str().unwrap();
    let report = json(&["--no-measure", "--json", "--path", path], folder.path());
    if report["inventory"]["folders"][0]["file_system"] != "tmpfs" {
        return eprintln!("skipped: /dev/shm is not in memory here");
    }
    let codes: Vec<&str> =
        report["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"folder_in_memory"), "{codes:?}");
    assert_eq!(fs::read_dir(memory.path()).unwrap().count(), 0);
}

#[test]
fn what_is_measured_is_kept_for_drives_and_shown_without_measuring() {
    let folder = tempfile::tempdir().unwrap();
    let report = json(&["--json", "--path", "."], folder.path());
    assert!(report["rates"]["dram_bytes_per_second"].as_f64().unwrap() > 0.0, "{}", report["rates"]);
    let profile = &report["inventory"]["folders"][0]["profile"];
    if let Some(why) = profile["unknown"].as_str() {
        return eprintln!("skipped: {why}");
    }
    assert!(profile["read_bytes_per_second"].as_u64().unwrap() > 0);
    let names: Vec<String> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names, ["cache"], "the measurement's files are gone");
    let again = json(&["--json", "--no-measure", "--path", "."], folder.path());
    assert_eq!(&again["inventory"]["folders"][0]["profile"], profile);
}
