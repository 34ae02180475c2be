//! Facts about checkpoints: real folders, real damage.
#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;
use crate::tensors::NamedTensor;

pub(super) const WEIGHTS: [f32; 6] = [0.1, -0.0, f32::MIN_POSITIVE, 1e-42, 3.4e38, -7.25];

pub(super) fn state(step: u64) -> State<'static> {
    losing(step, None)
}

/// A state whose held-out loss is known.
pub(super) fn losing(step: u64, held_out_loss: Option<f64>) -> State<'static> {
    let tensor = |name: &str| NamedTensor { name: name.into(), shape: vec![2, 3], data: &WEIGHTS }.into();
    let position = Position {
        step,
        steps: 1000,
        epoch: 1,
        position_in_epoch: 17,
        micro_batches_done: 0,
        seed: u64::MAX,
        plan_fingerprint: "ab12".into(),
        losses: vec![0.1 + 0.2, 2.0f64.sqrt(), 1e-300, f64::from(1.1f32)],
        metrics_bytes: 4711,
        nvme_written_bytes: 12,
    };
    let facts = Facts { reason: Reason::EverySteps, held_out_loss, model: "cd34".into(), started_from: None };
    let recipe = "name = \"tiny\"\n".to_string();
    State { position, facts, recipe, history: None, tensors: vec![tensor("w"), tensor("m"), tensor("v")] }
}

fn last(keep_last: usize) -> Retention {
    Retention { keep_last, keep_best: 0 }
}

fn found_steps(run: &Path) -> Vec<u64> {
    steps(run).unwrap().into_iter().map(|(step, _)| step).collect()
}

#[test]
fn a_checkpoint_comes_back_bit_for_bit() {
    let run = tempfile::tempdir().unwrap();
    let path = write(run.path(), state(100)).unwrap().path;
    assert_eq!(path, run.path().join("checkpoints/step-000100"));
    let restored = open(&path).unwrap();
    assert_eq!(restored.position.seed, u64::MAX);
    let bits = |losses: &[f64]| losses.iter().map(|loss| loss.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&restored.position.losses), bits(&state(100).position.losses));
    assert_eq!(restored.tensors.tensors().map(|(name, _)| name).collect::<Vec<_>>(), ["m", "v", "w"]);
    for name in ["m", "v", "w"] {
        let tensor = restored.tensors.read(name).unwrap();
        assert_eq!(tensor.shape, [2, 3]);
        assert!(tensor.data.iter().zip(WEIGHTS).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

#[test]
fn the_same_step_may_be_written_again() {
    let run = tempfile::tempdir().unwrap();
    write(run.path(), state(5)).unwrap();
    let path = write(run.path(), state(5)).unwrap().path;
    open(&path).unwrap();
    assert_eq!(fs::read_dir(run.path().join("checkpoints")).unwrap().count(), 1);
}

#[test]
fn the_newest_complete_one_is_found_behind_damaged_ones_which_are_named() {
    let run = tempfile::tempdir().unwrap();
    let found = newest_complete(run.path()).unwrap();
    assert!(found.newest.is_none() && found.damaged.is_empty());
    let paths: Vec<PathBuf> = (1..=5).map(|step| write(run.path(), state(step)).unwrap().path).collect();
    let file = paths[4].join(STATE);
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, &bytes).unwrap();
    fs::write(paths[3].join(STATE), &bytes[..last]).unwrap();
    fs::remove_file(paths[2].join(MANIFEST)).unwrap();
    let found = newest_complete(run.path()).unwrap();
    assert_eq!(found.newest.unwrap().path, paths[1]);
    let reasons: Vec<&str> = found.damaged.iter().map(|damaged| damaged.reason.as_str()).collect();
    assert!(reasons[0].contains("step-000005") && reasons[0].contains("SHA-256"), "{reasons:?}");
    assert!(reasons[1].contains("step-000004") && reasons[1].contains("bytes, manifest.json says"), "{reasons:?}");
    assert!(reasons[2].contains("step-000003") && reasons[2].contains("manifest.json is missing"), "{reasons:?}");
}

/// Changes one file of a fresh checkpoint; returns what opening it then says.
fn broken(file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> CheckpointError {
    let run = tempfile::tempdir().unwrap();
    let path = write(run.path(), state(1)).unwrap().path;
    let bytes = fs::read(path.join(file)).unwrap_or_default();
    fs::write(path.join(file), change(bytes)).unwrap();
    open(&path).unwrap_err()
}

fn replaced(bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    text.replace(from, to).into_bytes()
}

#[test]
fn every_way_in_which_a_checkpoint_can_lie_has_its_own_error() {
    for file in [STATE, RECIPE] {
        let error = broken(file, |mut bytes| {
            bytes.pop();
            bytes
        });
        assert!(matches!(&error, CheckpointError::Size { file: named, .. } if named == file), "{error}");
        let error = broken(file, |mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            bytes
        });
        assert!(matches!(&error, CheckpointError::Digest { file: named, .. } if named == file), "{error}");
    }
    let error = broken("optimizer.pt", |_| b"theirs".to_vec());
    assert!(matches!(&error, CheckpointError::ForeignFile { file, .. } if file == "optimizer.pt"), "{error}");
    let error = broken(MANIFEST, |bytes| replaced(bytes, "\"format_version\": 2", "\"format_version\": 1"));
    assert!(matches!(error, CheckpointError::Version { found: 1, .. }), "{error}");
    assert!(error.to_string().contains("this program reads 2") && error.to_string().contains("tune 0."), "{error}");
    let error = broken(MANIFEST, |_| b"{\"metadata\": {\"total_size\": 1}, \"weight_map\": {}}".to_vec());
    assert!(matches!(error, CheckpointError::Foreign { .. }), "{error}");
    for cut in [0, 1, 100] {
        let error = broken(MANIFEST, |bytes| bytes[..cut].to_vec());
        assert!(matches!(error, CheckpointError::Manifest { .. }), "{cut} bytes: {error}");
    }
    for file in [STATE, RECIPE, MANIFEST] {
        let run = tempfile::tempdir().unwrap();
        let path = write(run.path(), state(1)).unwrap().path;
        fs::remove_file(path.join(file)).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(&error, CheckpointError::Missing { file: named, .. } if named == file), "{error}");
    }
}

#[test]
fn any_change_of_a_manifest_is_noticed() {
    let changes = [
        ("\"epoch\": 1", "\"epoch\": 2"),
        ("ab12", "ab13"),
        ("cd34", "cd35"),
        ("\"held_out_loss\": null", "\"held_out_loss\": 0.1"),
        ("state.safetensors", "../../etc/passwd"),
        ("\"metrics_bytes\"", "\"metric_bytes\""),
    ];
    for (from, to) in changes {
        let error = broken(MANIFEST, |bytes| replaced(bytes, from, to));
        assert!(matches!(error, CheckpointError::Manifest { .. }), "{from}: {error}");
    }
    let run = tempfile::tempdir().unwrap();
    let path = write(run.path(), state(1)).unwrap().path;
    fs::write(path.join(".DS_Store"), b"the system's").unwrap();
    assert_eq!(verify(&path).unwrap().position, state(1).position);
}

#[test]
fn a_newest_checkpoint_of_another_version_is_not_passed_over_in_silence() {
    let run = tempfile::tempdir().unwrap();
    write(run.path(), state(1)).unwrap();
    let path = write(run.path(), state(2)).unwrap().path;
    let newer = replaced(fs::read(path.join(MANIFEST)).unwrap(), "\"format_version\": 2", "\"format_version\": 3");
    fs::write(path.join(MANIFEST), newer).unwrap();
    assert!(matches!(newest_complete(run.path()), Err(CheckpointError::Version { found: 3, .. })));
    assert_eq!(open_step(run.path(), 1).unwrap().position.step, 1, "an older one can be asked for");
}

#[test]
fn a_step_that_does_not_exist_is_refused_with_those_that_do() {
    let run = tempfile::tempdir().unwrap();
    write(run.path(), state(100)).unwrap();
    write(run.path(), state(200)).unwrap();
    let text = open_step(run.path(), 150).unwrap_err().to_string();
    assert!(text.contains("no checkpoint of step 150") && text.contains("step-000100, step-000200"), "{text}");
    assert_eq!(step_of("step-000100"), Some(100));
    for name in ["step-", "step-+1", "step-1x", "step", "step-000100.superseded", "step-99999999999999999999"] {
        assert_eq!(step_of(name), None, "{name}");
    }
}

#[test]
fn what_a_killed_writer_leaves_is_not_a_checkpoint_and_does_not_disturb_the_next() {
    let run = tempfile::tempdir().unwrap();
    let left = run.path().join("checkpoints/.step-000007.tmp");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join(STATE), "half").unwrap();
    let found = newest_complete(run.path()).unwrap();
    assert!(found.newest.is_none() && found.damaged.is_empty());
    write(run.path(), state(7)).unwrap();
    assert!(!left.exists());
    assert_eq!(newest_complete(run.path()).unwrap().newest.unwrap().position.step, 7);
}

#[test]
fn pruning_keeps_the_newest_complete_ones() {
    let run = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = (1..=4).map(|step| write(run.path(), state(step)).unwrap().path).collect();
    fs::remove_file(paths[3].join(MANIFEST)).unwrap();
    assert_eq!(surplus(run.path(), last(2)).unwrap(), [paths[0].clone()]);
    assert!(paths[0].exists(), "asking removes nothing");
    assert_eq!(prune(run.path(), last(2)).unwrap(), [paths[0].clone()]);
    assert_eq!(prune(run.path(), last(0)).unwrap(), [paths[1].clone()], "one complete checkpoint always stays");
    open(&paths[2]).unwrap();
}

#[test]
fn pruning_keeps_the_best_besides_the_last_and_never_counts_those_without_a_loss() {
    let run = tempfile::tempdir().unwrap();
    for (step, loss) in [(1, Some(0.5)), (2, Some(0.3)), (3, None), (4, Some(0.3)), (5, Some(0.9)), (6, None)] {
        write(run.path(), losing(step, loss)).unwrap();
    }
    prune(run.path(), Retention { keep_last: 1, keep_best: 2 }).unwrap();
    assert_eq!(found_steps(run.path()), [2, 4, 6]);
    prune(run.path(), Retention { keep_last: 1, keep_best: 1 }).unwrap();
    assert_eq!(found_steps(run.path()), [2, 6], "of equal ones the one that took less training");
}

#[test]
fn pruning_removes_older_damaged_ones_and_what_killed_processes_left_but_never_the_only_complete_one() {
    let run = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = (1..=3).map(|step| write(run.path(), state(step)).unwrap().path).collect();
    fs::remove_file(paths[0].join(STATE)).unwrap();
    fs::remove_file(paths[2].join(STATE)).unwrap();
    fs::create_dir(run.path().join("checkpoints/.step-000002.tmp")).unwrap();
    assert_eq!(prune(run.path(), last(1)).unwrap(), [paths[0].clone()]);
    assert_eq!(found_steps(run.path()), [2, 3], "the newer damaged one is left for a person to look at");
    assert!(!run.path().join("checkpoints/.step-000002.tmp").exists());
    open(&paths[1]).unwrap();
}

#[test]
fn later_checkpoints_are_set_aside_and_no_longer_found() {
    let run = tempfile::tempdir().unwrap();
    (1..=3).for_each(|step| drop(write(run.path(), state(step)).unwrap()));
    assert_eq!(set_aside_after(run.path(), 1).unwrap(), [2, 3]);
    assert_eq!(found_steps(run.path()), [1]);
    assert_eq!(superseded(run.path()).unwrap().len(), 2);
    write(run.path(), state(2)).unwrap();
    assert_eq!(set_aside_after(run.path(), 1).unwrap(), [2], "a second time replaces the first");
    assert_eq!(superseded(run.path()).unwrap().len(), 2);
}

#[test]
fn a_save_that_fails_leaves_nothing_and_the_checkpoint_before_it_untouched() {
    let run = tempfile::tempdir().unwrap();
    let before = write(run.path(), state(1)).unwrap().path;
    let mut failing = state(2);
    failing.tensors[1].fill = Box::new(|_, _| Err("the drive is gone".into()));
    let error = write(run.path(), failing).unwrap_err().to_string();
    assert!(error.contains("tensor m") && error.contains("the drive is gone"), "{error}");
    assert_eq!(fs::read_dir(run.path().join("checkpoints")).unwrap().count(), 1);
    open(&before).unwrap();
}

#[test]
fn a_loss_that_is_not_finite_is_never_kept() {
    let run = tempfile::tempdir().unwrap();
    let mut bad = state(3);
    bad.position.losses.push(f64::NAN);
    assert!(matches!(write(run.path(), bad), Err(CheckpointError::NotFinite { step: 3, .. })));
    assert!(!run.path().join("checkpoints").exists());
}
