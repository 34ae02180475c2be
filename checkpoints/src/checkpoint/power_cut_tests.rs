//! A power cut at every moment of saving, replacing, pruning and setting aside: a complete checkpoint is always found.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use offload::durable::Recording;
use offload::durable::power_cut::Cuts;

use super::tests::{losing, state};
use super::*;

/// What a run may have after so many operations: its newest complete checkpoint is of one of these steps.
struct Promise {
    from: usize,
    steps_min: u64,
}

/// Cuts the power at every moment of what `work` does in an empty run directory, and after some of its operations is lost.
fn survives(work: impl FnOnce(&Path, &mut dyn FnMut(u64))) {
    let folder = tempfile::tempdir().unwrap();
    let recording = Recording::start();
    let mut promises = vec![Promise { from: 0, steps_min: 0 }];
    work(folder.path(), &mut |steps_min| promises.push(Promise { from: recording.len(), steps_min }));
    let operations = recording.stop();
    assert!(operations.len() > 20, "{} operations", operations.len());
    let promised = |moment: usize| promises.iter().rev().find(|promise| promise.from <= moment).unwrap().steps_min;
    let check = &mut |moment: usize, disk: &Path| {
        let found = newest_complete(disk).unwrap();
        let step = found.newest.as_ref().map_or(0, |restored| restored.position.step);
        assert!(
            step >= promised(moment),
            "step {} was on the disk after operation {moment} of {}, and step {step} is found: {:?}",
            promised(moment),
            operations.len(),
            found.damaged
        );
        if let Some(restored) = found.newest {
            assert_eq!(restored.tensors.read("w").unwrap().data, tests::WEIGHTS);
        }
    };
    let tried = Cuts::of(folder.path(), &operations).each(0x5eed, check).unwrap();
    eprintln!("{} operations: {tried:?}", operations.len());
    assert!(tried.losses > 500 && tried.trees > 300, "{tried:?}: too few to prove anything");
}

#[test]
fn a_power_cut_while_saving_and_pruning_leaves_the_newest_complete_checkpoint() {
    survives(|run, saved| {
        for step in 1..=4 {
            write(run, state(step)).unwrap();
            saved(step);
            prune(run, Retention { keep_last: 2, keep_best: 0 }).unwrap();
        }
    });
}

#[test]
fn a_power_cut_while_a_checkpoint_is_replaced_by_one_of_the_same_step_leaves_one_of_them() {
    survives(|run, saved| {
        for _ in 0..3 {
            write(run, state(5)).unwrap();
            saved(5);
        }
    });
}

#[test]
fn a_power_cut_while_losses_are_noted_and_the_best_are_kept_leaves_the_newest() {
    survives(|run, saved| {
        for (step, loss) in [(1, 0.5), (2, 0.9), (3, 0.8)] {
            let path = write(run, losing(step, None)).unwrap().path;
            saved(step);
            note_held_out_loss(&path, loss).unwrap();
            prune(run, Retention { keep_last: 1, keep_best: 1 }).unwrap();
        }
        let kept: Vec<u64> = steps(run).unwrap().into_iter().map(|(step, _)| step).collect();
        assert_eq!(kept, [1, 3]);
    });
}

#[test]
fn a_power_cut_while_later_checkpoints_are_set_aside_leaves_the_one_to_go_on_from() {
    survives(|run, saved| {
        for step in [3, 6, 9] {
            write(run, state(step)).unwrap();
        }
        saved(9);
        saved(3);
        assert_eq!(set_aside_after(run, 3).unwrap(), [6, 9]);
        write(run, state(6)).unwrap();
        saved(6);
    });
}
