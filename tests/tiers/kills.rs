//! Killed at any moment, a run on NVMe goes on to the bytes of the uninterrupted one, and its files do not pile up.
//!
//! In:    SIGKILL after a time that a printed seed decides; another placement, chunk and engine for each resume.
//! Out:   model, weights and optimizer state, byte for byte; an empty drive.
//! Never: a time that a result depends on: it decides only where the kill falls.

use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use super::{ALL_DEVICE, ALL_NVME, Runs, error_line, said};

const SEEDS: u64 = 20;
/// Kills of one run; then it may end.
const KILLS_MAX: usize = 4;
const STEPS: u64 = 12;
const ALL_STEPS: &str = "train.steps=12";

/// How a resumed process moves bytes: nothing of it may change a bit.
fn ways() -> [Vec<&'static str>; 5] {
    let with = |placement: [&'static str; 4], more: &[&'static str]| [&placement[..], more].concat();
    [
        with(ALL_NVME, &["offload.chunk=64KiB"]),
        with(ALL_NVME, &["offload.chunk=1MiB", "offload.engine=threads"]),
        with(ALL_DEVICE, &[]),
        vec!["offload.weights=dram", "offload.optimizer=nvme", "offload.activations=device", "offload.queue_depth=1"],
        vec!["offload.weights=nvme", "offload.optimizer=device", "offload.gradients=dram", "offload.chunk=128KiB"],
    ]
}

/// Marsaglia's xorshift.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Waits up to `time`, then kills. A process that ended by itself ended well; returns how long it took.
fn killed_after(mut child: Child, time: Duration) -> Option<Duration> {
    let begun = Instant::now();
    while begun.elapsed() < time {
        if child.try_wait().unwrap().is_some() {
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{}", said(&output));
            return Some(begun.elapsed());
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

fn has_checkpoint(runs: &Runs, output: &str) -> bool {
    let folder = runs.path(output).join("checkpoints");
    fs::read_dir(folder)
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("step-")))
}

#[test]
fn runs_killed_at_random_moments_resume_on_any_tier_to_the_same_bytes() {
    let runs = Runs::new();
    let begun = Instant::now();
    runs.succeeds("whole", &[ALL_STEPS]);
    let mut whole = begun.elapsed();
    let (mut kills, mut resumed) = (0, 0);
    for seed in 1..=SEEDS {
        let output = format!("killed-{seed}");
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for _ in 0..KILLS_MAX {
            let way = &ways()[next(&mut state) as usize % 5];
            let mut set = [&[ALL_STEPS], &way[..]].concat();
            let goes_on = has_checkpoint(&runs, &output);
            match goes_on {
                true => {
                    set.push("--resume");
                    resumed += 1;
                }
                // Nothing to resume from: it begins again.
                false => drop(fs::remove_dir_all(runs.path(&output))),
            }
            let child = runs.command(&output, &set).spawn().unwrap();
            let time = Duration::from_micros(next(&mut state) % whole.as_micros() as u64);
            if let Some(time) = killed_after(child, time) {
                // What else the machine did when the first run was timed must not keep kills from falling into these.
                whole = if goes_on { whole } else { whole.min(time) };
                break;
            }
            kills += 1;
        }
        let way = &ways()[seed as usize % 5];
        let mut set = [&[ALL_STEPS], &way[..]].concat();
        match has_checkpoint(&runs, &output) {
            true => set.push("--resume"),
            false => drop(fs::remove_dir_all(runs.path(&output))),
        }
        let end = runs.run(&output, &set);
        assert_eq!(end.status.code(), Some(0), "seed {seed}, {set:?}: {}", said(&end));
        assert_eq!(runs.model(&output), runs.model("whole"), "seed {seed}, {set:?}");
        assert_eq!(runs.state(&output, STEPS), runs.state("whole", STEPS), "seed {seed}, {set:?}");
        let losses = |output: &str| runs.steps(output).iter().map(|step| step["loss"].clone()).collect::<Vec<_>>();
        assert_eq!(losses(&output), losses("whole"), "seed {seed}");
        fs::remove_dir_all(runs.path(&output)).unwrap();
    }
    eprintln!("{SEEDS} seeds: {kills} kills, {resumed} resumes before the last");
    assert!(kills >= SEEDS as usize / 4 && resumed > 0, "{kills} kills, {resumed} resumes: too few to prove anything");
    runs.succeeds("after", &[ALL_STEPS]);
}

/// Starts a long run and kills it while its files are on the drive.
fn leave_files(runs: &Runs, output: &str) {
    let mut child = runs.command(output, &["train.steps=100000"]).spawn().unwrap();
    let begun = Instant::now();
    while runs.steps(output).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended by itself");
        assert!(begun.elapsed() < Duration::from_secs(60), "no step within a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(runs.path("drive/tune-swap-tiny/swap.bin").is_file(), "{:?}", runs.left_on_drive());
}

#[test]
fn what_a_killed_run_left_on_the_drive_is_removed_by_the_next_start_of_any_run() {
    let runs = Runs::new();
    leave_files(&runs, "killed");
    let text = runs.succeeds("same", &[]);
    assert!(text.contains("left by a run that died"), "{text}");
    leave_files(&runs, "again");
    let text = runs.succeeds("other", &["name=other"]);
    assert!(text.contains("tune-swap-tiny") && text.contains("left by a run that died"), "{text}");
}

#[test]
fn one_drive_serves_two_runs_of_different_names_but_not_one_run_twice() {
    let runs = Runs::new();
    let mut first = runs.command("first", &["train.steps=100000"]).spawn().unwrap();
    let begun = Instant::now();
    while runs.steps("first").is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no step within a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
    let line = error_line(&runs.run("second", &[]), 2);
    assert!(line.contains("in use by another process") && line.contains("tune-swap-tiny"), "{line}");
    assert!(!runs.path("second").exists(), "{line}");
    let other = runs.run("other", &["name=other"]);
    assert_eq!(other.status.code(), Some(0), "{}", said(&other));
    assert!(first.try_wait().unwrap().is_none(), "the first run goes on");
    assert_eq!(runs.left_on_drive(), [runs.path("drive/tune-swap-tiny")]);
    first.kill().unwrap();
    first.wait().unwrap();
}
