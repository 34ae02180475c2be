//! Checkpoints that are damaged, foreign or of another version, and disks that do not take them.
//!
//! In:    files changed by hand; a tmpfs that fills up, a folder that becomes read-only, where this process may mount them.
//! Out:   each its own words; the checkpoint before untouched, and the run able to go on.
//! Never: a skip in silence.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::{Runs, refused, waits};

#[test]
fn damaged_checkpoints_are_named_and_the_newest_complete_one_is_used() {
    let runs = Runs::new();
    runs.trains("out", &[]);
    let (adapter, losses) = (runs.adapter("out"), runs.losses("out"));
    let bytes = fs::read(runs.state("out", 12)).unwrap();
    fs::write(runs.state("out", 12), &bytes[..bytes.len() - 5]).unwrap();
    fs::remove_file(runs.path("out/checkpoints/step-000009/manifest.json")).unwrap();
    let text = runs.checkpoints(&["verify", "out"], 1);
    assert!(text.contains("step-000006") && text.contains("as written"), "{text}");
    assert!(text.contains("manifest.json is missing") && text.contains("2 of 4 checkpoints are damaged"), "{text}");
    let text = runs.trains("out", &["--resume"]);
    assert!(
        text.contains("passed over") && text.contains("step-000012") && text.contains("manifest.json says"),
        "{text}"
    );
    assert!(text.contains("step-000009") && text.contains("going on after step 6"), "{text}");
    assert_eq!((runs.adapter("out"), runs.losses("out")), (adapter, losses));
    runs.checkpoints(&["verify", "out"], 0);
    // One flipped bit: only reading the bytes tells.
    let mut bytes = fs::read(runs.state("out", 12)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(runs.state("out", 12), bytes).unwrap();
    runs.checkpoints(&["list", "out"], 0);
    let text = runs.checkpoints(&["verify", "out", "step-000012"], 1);
    assert!(text.contains("SHA-256"), "{text}");
    let text = refused(&runs.run("out", &["--resume", "step-000012"]));
    assert!(text.contains("bits changed after it was written"), "{text}");
}

#[test]
fn a_checkpoint_of_another_version_is_its_own_error() {
    let runs = Runs::new();
    runs.trains("out", &["--set", "train.steps=3"]);
    let path = runs.path("out/checkpoints/step-000003/manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"format_version\": 2", "\"format_version\": 1")).unwrap();
    let text = refused(&runs.run("out", &["--resume", "--set", "train.steps=3"]));
    assert!(text.contains("format version 1; this program reads 2"), "{text}");
}

/// A long run into `output` that saves after every step; its words go to `log`.
fn endless(runs: &Runs, output: &str) -> Child {
    let set = [
        "train.steps=100000",
        "checkpoint.every_steps=1",
        "checkpoint.keep_last=2",
        "eval.every_steps=99999",
        "log.tensorboard=true",
    ];
    let set = set.iter().flat_map(|one| ["--set", one]);
    let words: Vec<&str> = ["run", "recipe.toml", "--output", output].into_iter().chain(set).collect();
    runs.tune(&words).stderr(fs::File::create(runs.path("log")).unwrap()).spawn().unwrap()
}

/// Something makes saves fail: the run tells, goes on, and what was saved before stays whole; when it is `mended`, saves and history go on.
fn fails_and_goes_on(
    (runs, output): (&Runs, &str),
    mut child: Child,
    words: &str,
    mut break_it: impl FnMut(),
    mend: impl FnOnce(),
) {
    let said = || fs::read_to_string(runs.path("log")).unwrap();
    waits("warning", &mut child, || {
        break_it();
        said().contains("warning: ") && said().contains(words)
    });
    let kept = runs.steps_at(output);
    let kept = *kept.last().expect("complete checkpoints stay");
    runs.checkpoints(&["verify", output, &kept.to_string()], 0);
    let steps = runs.losses(output).len();
    mend();
    waits("later checkpoint", &mut child, || runs.steps_at(output).last() > Some(&kept));
    waits("later step", &mut child, || runs.losses(output).len() > steps);
    child.kill().unwrap();
    child.wait().unwrap();
    let counted: Vec<u64> = runs.losses(output).iter().map(|(step, _)| *step).collect();
    assert_eq!(counted, (1..=counted.len() as u64).collect::<Vec<_>>(), "no line of the history is lost");
}

#[test]
fn a_disk_that_fills_up_costs_checkpoints_but_neither_the_last_one_nor_the_run() {
    let Some(disk) = Mount::small_disk("64m") else {
        eprintln!("SKIPPED a_disk_that_fills_up_costs_checkpoints...: no right to mount a tmpfs here");
        return;
    };
    let runs = Runs::new();
    let output = disk.path.join("out");
    let output = output.to_str().unwrap();
    let mut child = endless(&runs, output);
    waits("checkpoint", &mut child, || runs.steps_at(output).len() >= 2);
    let ballast = disk.path.join("ballast");
    // Again and again: what the run frees when it removes a checkpoint is taken too.
    fails_and_goes_on(
        (&runs, output),
        child,
        "no space left",
        || fill(&ballast),
        || fs::remove_file(&ballast).unwrap(),
    );
}

#[test]
fn a_folder_that_becomes_read_only_costs_checkpoints_but_neither_the_last_one_nor_the_run() {
    let runs = Runs::new();
    let output = runs.path("out");
    let output = output.to_str().unwrap();
    let mut child = endless(&runs, output);
    waits("checkpoint", &mut child, || runs.steps_at(output).len() >= 2);
    let Some(mount) = Mount::read_only(&runs.path("out/checkpoints")) else {
        eprintln!("SKIPPED a_folder_that_becomes_read_only...: no right to mount a folder here");
        child.kill().unwrap();
        child.wait().unwrap();
        return;
    };
    fails_and_goes_on((&runs, output), child, "Read-only file system", || (), || drop(mount));
}

/// Adds to a file until the disk is full.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    while file.write(&[1u8; 4096]).is_ok_and(|count| count > 0) {}
}

impl Runs {
    /// Steps of complete checkpoints, while a run may write.
    fn steps_at(&self, output: &str) -> Vec<u64> {
        checkpoints::checkpoint::steps(Path::new(output)).unwrap().into_iter().map(|(step, _)| step).collect()
    }
}

/// Something mounted for a while.
struct Mount {
    path: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

fn mounted(words: &[&str], path: &Path) -> bool {
    let output = Command::new("mount").args(words).arg(path).output();
    output.is_ok_and(|output| output.status.success())
}

impl Mount {
    /// A file system of that size.
    fn small_disk(size: &str) -> Option<Mount> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_path_buf();
        let size = format!("size={size}");
        mounted(&["-t", "tmpfs", "-o", &size, "tmpfs"], &path).then_some(Mount { path, _folder: Some(folder) })
    }

    /// The folder itself once more, over itself, read-only.
    fn read_only(path: &Path) -> Option<Mount> {
        let name = path.to_str().unwrap();
        let mount = mounted(&["--bind", name], path).then(|| Mount { path: path.to_path_buf(), _folder: None })?;
        mounted(&["-o", "remount,bind,ro"], path).then_some(mount)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: the run may be looking into it.
        let _unmounted = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
