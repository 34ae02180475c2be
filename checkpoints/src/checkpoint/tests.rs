//! Facts about checkpoints: real folders, real damage.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::tensors::NamedTensor;

const WEIGHTS: [f32; 6] = [0.1, -0.0, f32::MIN_POSITIVE, 1e-42, 3.4e38, -7.25];

fn state(step: u64) -> State<'static> {
    let tensor = |name: &str| NamedTensor { name: name.into(), shape: vec![2, 3], data: &WEIGHTS }.into();
    let position = Position {
        step,
        epoch: 1,
        position_in_epoch: 17,
        seed: u64::MAX,
        plan_fingerprint: "ab12".into(),
        losses: vec![0.1 + 0.2, 2.0f64.sqrt(), 1e-300, f64::from(1.1f32)],
        nvme_written_bytes: 12,
    };
    State { position, tensors: vec![tensor("w"), tensor("m"), tensor("v")] }
}

#[test]
fn a_checkpoint_comes_back_bit_for_bit() {
    let run = tempfile::tempdir().unwrap();
    let path = write(run.path(), state(100)).unwrap();
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
    let path = write(run.path(), state(5)).unwrap();
    open(&path).unwrap();
    assert_eq!(fs::read_dir(run.path().join("checkpoints")).unwrap().count(), 1);
}

#[test]
fn the_newest_complete_one_is_found_behind_damaged_ones_which_are_named() {
    let run = tempfile::tempdir().unwrap();
    let found = newest_complete(run.path()).unwrap();
    assert!(found.newest.is_none() && found.damaged.is_empty());
    let paths: Vec<PathBuf> = (1..=5).map(|step| write(run.path(), state(step)).unwrap()).collect();
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
    assert!(reasons[0].contains("SHA-256"), "{reasons:?}");
    assert!(reasons[1].contains("bytes, the manifest says"), "{reasons:?}");
    assert!(reasons[2].contains("manifest.json"), "{reasons:?}");
    assert!(matches!(open(&paths[4]), Err(CheckpointError::Damaged { .. })));
}

#[test]
fn any_change_of_a_manifest_is_noticed() {
    let run = tempfile::tempdir().unwrap();
    let path = write(run.path(), state(1)).unwrap();
    let text = fs::read_to_string(path.join(MANIFEST)).unwrap();
    for (from, to) in
        [("\"epoch\": 1", "\"epoch\": 2"), ("ab12", "ab13"), ("\"format_version\": 1", "\"format_version\": 2")]
    {
        fs::write(path.join(MANIFEST), text.replace(from, to)).unwrap();
        assert!(matches!(verify_position(&path), Err(CheckpointError::Damaged { .. })), "{from}");
    }
    fs::write(path.join(MANIFEST), text.replace("state.safetensors", "../../etc/passwd")).unwrap();
    assert!(verify_position(&path).is_err());
    fs::write(path.join(MANIFEST), &text).unwrap();
    assert_eq!(verify_position(&path).unwrap(), state(1).position);
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
    let paths: Vec<PathBuf> = (1..=4).map(|step| write(run.path(), state(step)).unwrap()).collect();
    fs::remove_file(paths[3].join(MANIFEST)).unwrap();
    assert_eq!(prune(run.path(), 2).unwrap(), [paths[0].clone()]);
    assert_eq!(prune(run.path(), 0).unwrap(), [paths[1].clone()], "one complete checkpoint always stays");
    open(&paths[2]).unwrap();
}

#[test]
fn a_loss_that_is_not_finite_is_never_kept() {
    let run = tempfile::tempdir().unwrap();
    let mut bad = state(3);
    bad.position.losses.push(f64::NAN);
    assert!(matches!(write(run.path(), bad), Err(CheckpointError::NotFinite { step: 3, .. })));
    assert!(!run.path().join("checkpoints").exists());
}
