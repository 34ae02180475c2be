//! Single faults below the NVMe tier: what can be made good is, everything else is a typed error.
#![allow(clippy::unwrap_used, missing_docs)]

mod store_folder;

use std::time::Duration;

use offload::{EngineChoice, EngineKind, FaultPlan, Store, TierError};
use store_folder::{ENGINES, Folder, pattern, read, write};

/// What a plan does to 200 reads and writes: which of them fail, and the notes.
fn under(folder: &Folder, engine: EngineChoice, plan: FaultPlan) -> (Vec<bool>, Store) {
    let mut options = folder.options(engine, &["a", "b"]);
    options.faults = Some(plan);
    let store = Store::open(options).unwrap();
    let extent = store.allocate("w", 40 * 12_288, 12_288).unwrap();
    let mut failed = Vec::new();
    for round in 0..100 {
        let chunk = round % extent.chunks();
        let content = pattern(round, extent.chunk_len(chunk));
        let written = write(&store, &extent, chunk, &content);
        let found = read(&store, &extent, chunk);
        failed.extend([written.is_err(), found.is_err()]);
        if let (Ok(()), Ok(found)) = (written, found) {
            assert!(found == content, "round {round}");
        }
    }
    (failed, store)
}

#[test]
fn short_interrupted_late_and_shuffled_transfers_are_made_good() {
    for engine in ENGINES {
        let folder = Folder::new();
        let plan = FaultPlan { short: 0.4, interrupted: 0.2, delay: 0.2, reorder: 0.5, ..FaultPlan::none(11) };
        let (failed, _) = under(&folder, engine, plan);
        assert!(failed.iter().all(|failed| !failed));
    }
}

#[test]
fn flipped_bits_and_torn_writes_are_errors_never_wrong_bytes() {
    let folder = Folder::new();
    for plan in [FaultPlan { flip: 0.2, ..FaultPlan::none(5) }, FaultPlan { torn: 0.2, ..FaultPlan::none(6) }] {
        let (failed, _) = under(&folder, EngineChoice::Auto, plan);
        let count = failed.iter().filter(|failed| **failed).count();
        assert!((5..60).contains(&count), "{count}");
    }
}

#[test]
fn the_same_seed_makes_the_same_requests_fail_on_both_engines() {
    let plan = FaultPlan { eio: 0.1, flip: 0.1, short: 0.3, interrupted: 0.2, ..FaultPlan::none(8) };
    let folder = Folder::new();
    let (first, store) = under(&folder, EngineChoice::Auto, plan.clone());
    drop(store);
    let (second, store) = under(&folder, EngineChoice::Threads, plan.clone());
    drop(store);
    assert!(first == second && first.contains(&true));
    let (other, _) = under(&folder, EngineChoice::Threads, FaultPlan { seed: 9, ..plan });
    assert!(first != other);
}

#[test]
fn an_engine_that_stops_half_way_is_replaced_and_no_request_is_lost() {
    // An even seed refuses every request, an odd one the whole engine.
    for (engine, seed) in [(EngineChoice::Auto, 2), (EngineChoice::Auto, 3), (EngineChoice::Threads, 3)] {
        let folder = Folder::new();
        let (failed, store) = under(&folder, engine, FaultPlan { refuse_after: Some(57), ..FaultPlan::none(seed) });
        assert!(failed.iter().all(|failed| !failed), "{engine:?} {seed}");
        assert_eq!(store.engine().kind, EngineKind::Threads);
        assert!(store.engine().why.contains("stopped"), "{}", store.engine().why);
        let notes = store.notes();
        assert!(notes.iter().any(|note| note.contains("stopped working")), "{notes:?}");
    }
}

#[test]
fn a_disk_that_never_answers_is_a_typed_error_and_later_requests_go_on() {
    for engine in ENGINES {
        let folder = Folder::new();
        let mut options = folder.options(engine, &["a"]);
        options.faults = Some(FaultPlan { lost: 1.0, stall_after: Duration::from_millis(50), ..FaultPlan::none(1) });
        let store = Store::open(options).unwrap();
        let pool = store.pool().clone();
        let extent = store.allocate("layer.7", 8 * 4096, 4096).unwrap();
        // More than there are buffers: nobody waits for those that the disk keeps.
        for chunk in 0..8 {
            let error = write(&store, &extent, chunk, &[1; 4096]).unwrap_err();
            assert!(matches!(&error, TierError::Stalled { tensor, .. } if tensor == "layer.7"), "{error}");
        }
        drop(store);
        assert_eq!(pool.free_count(), pool.count());
        assert!(folder.is_empty());
    }
}
