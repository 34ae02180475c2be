//! Random faults below the real NVMe tier: every run ends with the right bytes or a typed error that names the place.
#![allow(missing_docs)]

mod fault_model;

use std::collections::BTreeMap;

use fault_model::run_many;

#[test]
fn three_hundred_seeded_runs_keep_every_promise() {
    let mut endings: BTreeMap<String, u64> = BTreeMap::new();
    let result = run_many(1, 300, 8, |_, ending| *endings.entry(format!("{ending:?}")).or_default() += 1);
    assert_eq!(result, Ok(()), "after {endings:?}");
    // The faults do happen, and they do not happen everywhere.
    let correct: u64 = endings.iter().filter(|(name, _)| name.starts_with("Correct")).map(|(_, count)| count).sum();
    assert!((75..=285).contains(&correct), "{endings:?}");
}
