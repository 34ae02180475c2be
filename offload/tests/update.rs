//! Groups are updated to the same bytes wherever their arrays live, and errors leave nothing behind.
//!
//! In:    small groups in memory and in real files under a temporary directory, both engines, injected faults.
//! Out:   a failure for each byte that differs.
//! Never: skips an engine silently.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use offload::group::lay_out;
use offload::rules::{Adafactor, AdamW, Lion, Rule, Sgd, SlotRange, Step};
use offload::{
    Array, EngineChoice, FaultPlan, GradientSource, Group, GroupLayout, GroupPlaces, Place, Slabs, Store, StoreOptions,
    TierError, Tiers, Updater, buffers_needed,
};

const ADAMW: AdamW = AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };
/// More than any rule needs; the exact number has a test of its own.
const BUFFERS: usize = 24;

fn rules() -> [Rule; 7] {
    [
        Rule::AdamW(ADAMW),
        Rule::AdamW8bit(ADAMW),
        Rule::AdamWBf16(ADAMW),
        Rule::Lion(Lion { beta1: 0.9, beta2: 0.99, weight_decay: 0.3 }),
        Rule::Sgd(Sgd { momentum: 0.9, weight_decay: 0.1 }),
        Rule::Sgd(Sgd { momentum: 0.0, weight_decay: 0.1 }),
        Rule::Adafactor(Adafactor { weight_decay: 0.1 }),
    ]
}

/// Two groups of different lengths.
fn slots() -> [Vec<SlotRange>; 2] {
    [lay_out([(60, 300, true), (1, 300, false), (50, 100, true)]), lay_out([(1, 512, false), (35, 255, true)])]
}

fn places(parameters: Place, gradients: Place, states: Place, working: Place) -> GroupPlaces {
    GroupPlaces { parameters, gradients: Some(gradients), states, working: Some(working) }
}

const DRAM: GroupPlaces = GroupPlaces {
    parameters: Place::Dram,
    gradients: Some(Place::Dram),
    states: Place::Dram,
    working: Some(Place::Dram),
};

fn store(path: &Path, engine: EngineChoice, buffers: usize, faults: Option<FaultPlan>) -> Result<Store, TierError> {
    Store::open(StoreOptions {
        run: "test".to_owned(),
        paths: vec![path.to_owned()],
        engine,
        buffers,
        buffer_bytes: 64 * 1024,
        queue_depth: 8,
        write_budget_bytes: None,
        faults,
    })
}

fn tiers(nvme: Option<Store>) -> Tiers {
    Tiers { device: Slabs::new("device", 16 << 20), dram: Slabs::new("dram", 64 << 20), nvme }
}

fn values(count: usize, mut state: u64) -> Vec<f32> {
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

/// Values that are zero between the slots.
fn flat(slots: &[SlotRange], seed: u64) -> Vec<f32> {
    let mut flat = vec![0.0; offload::group::group_elements(slots) as usize];
    for slot in slots {
        let range = slot.start as usize..(slot.start + slot.len) as usize;
        flat[range].copy_from_slice(&values(slot.len as usize, seed + slot.start));
    }
    flat
}

fn groups(
    tiers: &Tiers,
    rule: &Rule,
    places: [&GroupPlaces; 2],
    span_elements: usize,
) -> Result<Vec<Group>, TierError> {
    let make = |(i, slots): (usize, &Vec<SlotRange>)| {
        let layout = GroupLayout { name: ["first", "second"][i], key: i as u64, slots, span_elements };
        let mut group = Group::new(tiers, rule, &layout, places[i])?;
        group.write_parameters(0, &flat(slots, 1))?;
        Ok(group)
    };
    slots().iter().enumerate().map(make).collect()
}

fn bytes(array: &Array) -> Vec<u8> {
    let mut bytes = vec![0; array.bytes() as usize];
    array.read(0, &mut bytes).unwrap();
    bytes
}

/// Everything that a run leaves: the bytes of all arrays, and the norms on the way.
#[derive(PartialEq)]
struct Outcome {
    arrays: Vec<(String, Vec<u8>)>,
    norms: Vec<u64>,
}

/// Three steps of two micro-batches each.
fn train(rule: Rule, groups: &mut [Group]) -> Result<Vec<u64>, TierError> {
    let mut norms = Vec::new();
    for number in 1..=3 {
        for micro_batch in 0..2 {
            for (group, slots) in groups.iter_mut().zip(slots()) {
                norms.push(group.add_gradients(&flat(&slots, 1000 * number + 500 * micro_batch))?.to_bits());
            }
        }
        let step = Step { number, learning_rate: 1e-2 / number as f64, gradient_scale: 0.5, seed: 9 };
        let mut all: Vec<&mut Group> = groups.iter_mut().collect();
        Updater::new(rule).update(&mut all, &step, GradientSource::FromArray)?;
    }
    Ok(norms)
}

fn outcome(groups: &[Group], norms: Vec<u64>) -> Outcome {
    let arrays =
        groups.iter().flat_map(|group| [&group.parameters].into_iter().chain(&group.states).chain(&group.working));
    Outcome { arrays: arrays.map(|array| (array.name().to_owned(), bytes(array))).collect(), norms }
}

fn run(rule: Rule, tiers: &Tiers, places: [&GroupPlaces; 2], span_elements: usize) -> Outcome {
    let mut groups = groups(tiers, &rule, places, span_elements).unwrap();
    let norms = train(rule, &mut groups).unwrap();
    outcome(&groups, norms)
}

fn assert_same(found: &Outcome, expected: &Outcome, what: &str) {
    for ((name, found), (_, expected)) in found.arrays.iter().zip(&expected.arrays) {
        assert!(found == expected, "{name} differs: {what}");
    }
    assert!(found == expected, "norms or arrays differ: {what}");
}

/// Both engines, or the one that runs here.
fn engines(path: &Path) -> Vec<EngineChoice> {
    match store(path, EngineChoice::IoUring, 1, None) {
        Ok(_) => vec![EngineChoice::IoUring, EngineChoice::Threads],
        Err(error) => {
            println!("skipped io_uring: {error}");
            vec![EngineChoice::Threads]
        }
    }
}

#[test]
fn memory_nvme_and_mixtures_give_the_same_bytes_for_every_rule_span_and_engine() {
    let directory = tempfile::tempdir().unwrap();
    let (d, n, v) = (Place::Dram, Place::Nvme, Place::Device);
    let nvme = places(n, n, n, n);
    let mixtures = [
        [&nvme, &nvme],
        [&nvme, &DRAM],
        [&places(n, d, n, v), &places(d, n, n, d)],
        [&places(d, d, n, n), &places(v, n, d, v)],
    ];
    for engine in engines(directory.path()) {
        let tiers = tiers(Some(store(directory.path(), engine, BUFFERS, None).unwrap()));
        for rule in rules() {
            let expected = run(rule, &tiers, [&DRAM, &DRAM], 256 * 1024);
            // A transfer of 1 KiB is slow; one rule of each kind shows what there is to see.
            let each_block = matches!(rule, Rule::AdamW(_) | Rule::AdamW8bit(_) | Rule::Adafactor(_));
            for blocks in if each_block { &[1, 7, 64][..] } else { &[7, 64][..] }.iter().copied() {
                let spans = format!("{rule:?} in spans of {blocks} blocks, {engine:?}");
                assert_same(
                    &run(rule, &tiers, [&DRAM, &DRAM], 256 * blocks),
                    &expected,
                    &format!("{spans}, all in memory"),
                );
                let mixtures = if blocks == 1 { &mixtures[..1] } else { &mixtures[..] };
                for (i, places) in mixtures.iter().enumerate() {
                    assert_same(&run(rule, &tiers, *places, 256 * blocks), &expected, &format!("{spans}, mixture {i}"));
                }
            }
        }
    }
}

#[test]
fn gradients_given_directly_give_the_same_bytes_as_gradients_in_an_array() {
    let directory = tempfile::tempdir().unwrap();
    let tiers = tiers(Some(store(directory.path(), EngineChoice::Auto, BUFFERS, None).unwrap()));
    let nvme = places(Place::Nvme, Place::Nvme, Place::Nvme, Place::Nvme);
    for rule in rules() {
        let train = |places: &GroupPlaces, direct: bool| {
            let mut groups = groups(&tiers, &rule, [places, places], 256 * 7).unwrap();
            for (group, slots) in groups.iter_mut().zip(slots()) {
                let step = Step { number: 1, learning_rate: 1e-2, gradient_scale: 0.5, seed: 9 };
                let gradients = flat(&slots, 77);
                if !direct {
                    group.add_gradients(&gradients).unwrap();
                }
                let source = if direct { GradientSource::Flat(&gradients) } else { GradientSource::FromArray };
                let report = Updater::new(rule).update(&mut [group], &step, source).unwrap();
                assert_eq!(report.elements, group.elements());
            }
            outcome(&groups, Vec::new())
        };
        let expected = train(&DRAM, false);
        let without = GroupPlaces { gradients: None, ..nvme };
        assert_same(&train(&nvme, false), &expected, &format!("{rule:?}"));
        assert_same(&train(&without, true), &expected, &format!("{rule:?}, direct"));
    }
}

#[test]
fn gradients_are_forgotten_after_an_update_and_never_zeroed_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let tiers = tiers(Some(store(directory.path(), EngineChoice::Auto, BUFFERS, None).unwrap()));
    let nvme = places(Place::Nvme, Place::Nvme, Place::Nvme, Place::Nvme);
    let rule = Rule::Sgd(Sgd { momentum: 0.0, weight_decay: 0.0 });
    for places in [DRAM, nvme] {
        let mut groups = groups(&tiers, &rule, [&places, &places], 256 * 7).unwrap();
        let (group, slots) = (&mut groups[0], &slots()[0]);
        let step = Step { number: 1, learning_rate: 1.0, gradient_scale: 1.0, seed: 0 };
        let first = group.add_gradients(&flat(slots, 5)).unwrap();
        assert!(!group.has_fresh_gradients());
        Updater::new(rule).update(&mut [group], &step, GradientSource::FromArray).unwrap();
        assert!(group.has_fresh_gradients());
        assert_eq!(bytes(group.gradients.as_ref().unwrap()), bytemuck::cast_slice::<f32, u8>(&flat(slots, 5)));
        let before = bytes(&group.parameters);
        Updater::new(rule).update(&mut [group], &step, GradientSource::FromArray).unwrap();
        assert!(bytes(&group.parameters) == before, "a group without gradients does not move");
        assert_eq!(group.add_gradients(&flat(slots, 5)).unwrap(), first, "the old sum is replaced, not added to");
        let expected: f64 = flat(slots, 5).iter().map(|g| f64::from(*g) * f64::from(*g)).sum();
        assert!((first - expected).abs() < 1e-9 * expected, "{first} instead of {expected}");
    }
}

#[test]
fn the_stated_number_of_buffers_suffices_less_goes_slower_and_too_few_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let nvme = places(Place::Nvme, Place::Nvme, Place::Nvme, Place::Nvme);
    for rule in rules() {
        let expected = run(rule, &tiers(None), [&DRAM, &DRAM], 256 * 7);
        let needed = buffers_needed(&rule, true);
        for buffers in [needed, needed / 3 * 2, needed / 3] {
            let store = store(directory.path(), EngineChoice::Auto, buffers, None).unwrap();
            let tiers = tiers(Some(store.clone()));
            assert_same(
                &run(rule, &tiers, [&nvme, &nvme], 256 * 7),
                &expected,
                &format!("{rule:?} with {buffers} buffers"),
            );
            assert_eq!(store.pool().free_count(), buffers);
        }
    }
    let tiers = tiers(Some(store(directory.path(), EngineChoice::Auto, 4, None).unwrap()));
    let mut groups = groups(&tiers, &Rule::AdamW(ADAMW), [&nvme, &nvme], 256 * 7).unwrap();
    let error = train(Rule::AdamW(ADAMW), &mut groups).unwrap_err();
    assert!(matches!(error, TierError::TooFewBuffers { needed: 5, count: 4 }), "{error}");
}

#[test]
fn after_an_error_every_buffer_is_back_and_the_groups_refuse_to_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let nvme = places(Place::Nvme, Place::Nvme, Place::Nvme, Place::Nvme);
    let mut failed = 0;
    for (i, rule) in rules().into_iter().cycle().take(28).enumerate() {
        let faults = FaultPlan { eio: 0.01, flip: 0.005, short: 0.2, reorder: 0.5, ..FaultPlan::none(i as u64) };
        let store = store(directory.path(), EngineChoice::Auto, BUFFERS, Some(faults)).unwrap();
        let tiers = tiers(Some(store.clone()));
        let Ok(mut groups) = groups(&tiers, &rule, [&nvme, &nvme], 256 * 7) else { continue };
        if let Err(error) = train(rule, &mut groups) {
            failed += 1;
            assert!(matches!(error, TierError::Io { .. } | TierError::Checksum { .. }), "plan {i}: {error}");
            let step = Step { number: 4, learning_rate: 1e-2, gradient_scale: 1.0, seed: 0 };
            let mut all: Vec<&mut Group> = groups.iter_mut().collect();
            let again = Updater::new(rule).update(&mut all, &step, GradientSource::FromArray).unwrap_err();
            assert!(matches!(again, TierError::Torn { .. }), "plan {i}: {again}");
        }
        assert_eq!(store.pool().free_count(), BUFFERS, "plan {i}");
    }
    assert!(failed > 5, "{failed} plans of 28 failed");
}

#[test]
fn a_write_budget_stops_an_update_with_a_typed_error_and_its_need_can_be_asked_before() {
    let directory = tempfile::tempdir().unwrap();
    let nvme = places(Place::Nvme, Place::Dram, Place::Nvme, Place::Nvme);
    let open = |write_budget_bytes| {
        let options = StoreOptions {
            run: "budget".to_owned(),
            paths: vec![directory.path().to_owned()],
            engine: EngineChoice::Auto,
            buffers: BUFFERS,
            buffer_bytes: 64 * 1024,
            queue_depth: 8,
            write_budget_bytes,
            faults: None,
        };
        tiers(Some(Store::open(options).unwrap()))
    };
    let rule = Rule::AdamW(ADAMW);
    let tiers = open(Some(400_000));
    let mut groups = groups(&tiers, &rule, [&nvme, &nvme], 256 * 64).unwrap();
    let elements: u64 = groups.iter().map(Group::elements).sum();
    let all: Vec<&Group> = groups.iter().collect();
    assert_eq!(Updater::new(rule).nvme_write_bytes(&all), elements * 14);
    let error = train(rule, &mut groups).unwrap_err();
    assert!(error.is_write_budget(), "{error}");
    assert_eq!(tiers.nvme.unwrap().pool().free_count(), BUFFERS);
}

#[test]
fn waiting_for_a_slow_disk_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let nvme = places(Place::Nvme, Place::Nvme, Place::Nvme, Place::Nvme);
    let faults = FaultPlan { delay: 1.0, delay_max: Duration::from_millis(5), ..FaultPlan::none(3) };
    let slow = tiers(Some(store(directory.path(), EngineChoice::Threads, BUFFERS, Some(faults)).unwrap()));
    let rule = Rule::AdamW(ADAMW);
    let stall = |tiers: &Tiers, places: &GroupPlaces| {
        let mut groups = groups(tiers, &rule, [places, places], 256 * 7).unwrap();
        let mut all: Vec<&mut Group> = groups.iter_mut().collect();
        let step = Step { number: 1, learning_rate: 1e-2, gradient_scale: 1.0, seed: 0 };
        Updater::new(rule).update(&mut all, &step, GradientSource::FromArray).unwrap().stall()
    };
    assert!(stall(&slow, &nvme) > Duration::from_millis(10));
    assert!(stall(&tiers(None), &DRAM) < Duration::from_millis(5));
}
