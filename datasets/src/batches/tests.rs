//! Facts about batches, on caches written to disk.
// A row with one trained range is an ordinary row.
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]

use std::collections::BTreeMap;

use planner::plan::{DataPlan, DataSource};
use serde_json::json;

use super::*;
use crate::cache::tests::{Written, random_rows, written};
use crate::cache::{Cache, Part, Writer};
use crate::content::Place;
use crate::random::Random;

/// Random rows, each beginning with its own number, on disk.
struct Rows {
    root: tempfile::TempDir,
    rows: Vec<Written>,
    dataset: Arc<Dataset>,
}

fn rows(count: usize, longest: usize, files: u32, seed: u64) -> Rows {
    let root = tempfile::tempdir().unwrap();
    let mut rows = random_rows(count, longest, files, &mut Random::new(seed, 99));
    rows.iter_mut().enumerate().for_each(|(number, (_, ids, _))| ids[0] = number as u32);
    let dataset = Arc::new(written(root.path(), "a", &rows).training);
    Rows { root, rows, dataset }
}

fn plan(weights: &[f64]) -> DataPlan {
    let source = |weight: &f64| DataSource { weight: *weight, ..DataSource::of("rows.jsonl") };
    DataPlan { seed: 1, ..DataPlan::of(weights.iter().map(source).collect(), 64) }
}

/// Every way to arrange rows.
fn arrangements(plan: &DataPlan) -> [DataPlan; 3] {
    [plan.clone(), DataPlan { packing: true, ..plan.clone() }, DataPlan { group_by_length: true, ..plan.clone() }]
}

fn steps(batches: &Batches, epoch: u64) -> Vec<Step> {
    (0..batches.steps_in_epoch(epoch)).map(|index| batches.step(epoch, index)).collect()
}

/// The segments of an epoch.
fn segments(steps: &[Step]) -> Vec<&[u32]> {
    let batches = steps.iter().flat_map(|step| &step.batches);

    batches
        .flat_map(|batch| batch.segments.windows(2).map(move |ends| &batch.tokens[ends[0] as usize..ends[1] as usize]))
        .collect()
}

/// How often each row was shown.
fn shown(steps: &[Step]) -> BTreeMap<u32, u32> {
    let mut shown = BTreeMap::new();
    segments(steps).iter().for_each(|segment| *shown.entry(segment[0]).or_default() += 1);
    shown
}

fn assert_batch_is_sound(batch: &Batch, rows: &[Written]) {
    assert_eq!((batch.segments[0], *batch.segments.last().unwrap() as usize), (0, batch.tokens.len()));
    let mut expected = Vec::new();
    for ends in batch.segments.windows(2) {
        let segment = &batch.tokens[ends[0] as usize..ends[1] as usize];
        let (_, ids, trained) = &rows[segment[0] as usize];
        assert_eq!(segment, ids, "a segment is a whole row");
        expected.extend(trained.iter().flat_map(|range| range.clone().map(|token| ends[0] + token - 1)));
    }
    assert_eq!(batch.loss_rows, expected, "exactly the rows' trained tokens are predicted, inside their segments");
    let next: Vec<u32> = batch.loss_rows.iter().map(|row| batch.tokens[*row as usize + 1]).collect();
    assert_eq!(batch.targets, next);
}

#[test]
fn segments_are_whole_rows_and_targets_stay_inside_for_random_rows_however_they_are_arranged() {
    for seed in 0..12 {
        let mut random = Random::new(seed, 0);
        let data = rows(1 + random.below(400), 64, 3, seed);
        let [step_rows, micro, window] = [1 + random.below(9), 1 + random.below(5), 1 + random.below(90)];
        for plan in arrangements(&plan(&[1.0, 1.0])) {
            let batches =
                Batches::with_window(data.dataset.clone(), &plan, &[0, 1, 0], [step_rows, micro], window).unwrap();
            for epoch in 0..2 {
                let steps = steps(&batches, epoch);
                steps.iter().flat_map(|step| &step.batches).for_each(|batch| assert_batch_is_sound(batch, &data.rows));
                assert!(shown(&steps).into_iter().eq((0..data.rows.len() as u32).map(|row| (row, 1))), "seed {seed}");
                let trained: usize = steps.iter().map(Step::trained_tokens).sum();
                assert_eq!(trained as u64, data.dataset.trained_tokens());
                let units = |step: &Step| step.batches.len();
                let whole = step_rows.div_ceil(micro);
                assert!(
                    steps.iter().rev().skip(1).all(|step| units(step) == whole),
                    "only the last step may be smaller"
                );
                assert_eq!(batches.step(epoch, steps.len() as u64), Step::default());
                assert_eq!(batches.step(epoch, u64::MAX), Step::default());
            }
        }
    }
}

#[test]
fn an_epochs_order_is_fixed_by_seed_and_epoch() {
    let data = rows(300, 64, 1, 1);
    for plan in arrangements(&plan(&[1.0])) {
        for window in [WINDOW_ROWS, 70] {
            let make =
                |plan: &DataPlan| Batches::with_window(data.dataset.clone(), plan, &[0], [8, 3], window).unwrap();
            let first = steps(&make(&plan), 0);
            assert_eq!(first, steps(&make(&plan), 0));
            assert_ne!(first, steps(&make(&plan), 1));
            assert_ne!(first, steps(&make(&DataPlan { seed: 2, ..plan.clone() }), 0));
        }
    }
}

/// The order that runs had before there were windows: figures that were published depend on it.
#[test]
fn up_to_a_window_the_order_is_a_shuffle_with_stream_twice_the_epoch() {
    let data = rows(100, 64, 2, 1);
    let batches = Batches::new(data.dataset.clone(), &plan(&[1.0, 1.0]), &[0, 1], 8, 3).unwrap();
    for epoch in 0..3 {
        let mut expected: Vec<u32> = (0..100).collect();
        Random::new(1, epoch * 2).shuffle(&mut expected);
        let steps = steps(&batches, epoch);
        let found: Vec<u32> = segments(&steps).iter().map(|segment| segment[0]).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn packed_rows_stay_below_the_sequence_length_and_save_steps() {
    let data = rows(200, 40, 1, 1);
    let plain = Batches::new(data.dataset.clone(), &plan(&[1.0]), &[0], 1, 1).unwrap();
    let packed = DataPlan { packing: true, ..plan(&[1.0]) };
    let packed = Batches::new(data.dataset.clone(), &packed, &[0], 1, 1).unwrap();
    assert!(packed.steps_in_epoch(0) < plain.steps_in_epoch(0));
    assert!(steps(&packed, 0).iter().all(|step| step.tokens() <= 64));
    let tokens: usize = steps(&packed, 0).iter().map(Step::tokens).sum();
    let efficiency = tokens as f64 / (packed.steps_in_epoch(0) * 64) as f64;
    assert_eq!(packing::efficiency(&data.dataset, 64), efficiency);
}

/// Total that each row was shown over `epochs`, by source; and that no epoch strays from the weight by more than one showing.
fn shown_by_weight(
    data: &Rows,
    weights: &[f64],
    epochs: u64,
    window: usize,
    plan: &DataPlan,
) -> Vec<BTreeMap<u32, u32>> {
    let sources: Vec<u32> = (0..weights.len() as u32).collect();
    let batches = Batches::with_window(data.dataset.clone(), plan, &sources, [4, 2], window).unwrap();
    let mut totals = vec![BTreeMap::new(); weights.len()];
    for (row, (place, ..)) in (0u32..).zip(&data.rows) {
        totals[place.file as usize].insert(row, 0);
    }
    for epoch in 0..epochs {
        let shown = shown(&steps(&batches, epoch));
        for (total, weight) in totals.iter_mut().zip(weights) {
            let times: Vec<u32> = total.keys().map(|row| shown.get(row).copied().unwrap_or(0)).collect();
            let (fewest, most) = (weight.floor() as u32, weight.ceil() as u32);
            assert!(times.iter().all(|times| (fewest..=most).contains(times)), "weight {weight}: {times:?}");
            let expected = weight * times.len() as f64;
            assert!((f64::from(times.iter().sum::<u32>()) - expected).abs() <= 1.0, "weight {weight}");
            total.values_mut().zip(times).for_each(|(total, times)| *total += times);
        }
    }
    totals
}

#[test]
fn a_row_is_shown_as_often_as_its_sources_weight_says() {
    let data = rows(240, 40, 4, 1);
    let weights = [2.0, 0.25, 1.5, 1.0];
    for plan in arrangements(&plan(&weights)) {
        for window in [WINDOW_ROWS, 50] {
            let totals = shown_by_weight(&data, &weights, 4, window, &plan);
            for (total, weight) in totals.iter().zip(weights) {
                assert!(total.values().all(|times| f64::from(*times) == 4.0 * weight), "weight {weight}: {total:?}");
            }
        }
    }
    shown_by_weight(&data, &[0.3, 3.7, 0.01, 1.0 / 3.0], 30, 50, &plan(&[0.3, 3.7, 0.01, 1.0 / 3.0]));
}

#[test]
fn resuming_from_a_cursor_gives_exactly_the_batches_that_would_have_followed() {
    let data = rows(230, 40, 3, 1);
    for weights in [[1.0, 1.0, 1.0], [0.5, 1.5, 0.01]] {
        for plan in arrangements(&plan(&weights)) {
            for window in [WINDOW_ROWS, 32] {
                let make = || Batches::with_window(data.dataset.clone(), &plan, &[0, 1, 2], [8, 3], window).unwrap();
                let batches = make();
                let mut cursor = Cursor::default();
                let mut whole = Vec::new();
                while cursor.epoch < 3 {
                    whole.push((serde_json::to_string(&cursor).unwrap(), cursor.step(&batches)));
                    cursor = cursor.next(&batches);
                }
                for (from, (saved, _)) in whole.iter().enumerate().step_by(7) {
                    let (batches, mut cursor) = (make(), serde_json::from_str::<Cursor>(saved).unwrap());
                    for (_, expected) in &whole[from..whole.len().min(from + 12)] {
                        assert!(cursor.step(&batches) == *expected && !expected.batches.is_empty());
                        cursor = cursor.next(&batches);
                    }
                }
            }
        }
    }
}

#[test]
fn epochs_that_small_weights_leave_without_a_row_are_passed_over() {
    let data = rows(10, 20, 1, 1);
    let batches = Batches::new(data.dataset.clone(), &plan(&[0.1]), &[0], 1, 1).unwrap();
    assert!((0..10).all(|epoch| batches.steps_in_epoch(epoch) == 1 || epoch > 0));
    let error = Batches::new(data.dataset.clone(), &plan(&[0.05]), &[0], 1, 1).unwrap_err();
    assert!(matches!(error, OrderError::NothingShown { rows: 10, .. }), "{error}");
    let empty = rows(0, 20, 1, 1);
    let batches = Batches::new(empty.dataset.clone(), &plan(&[0.1]), &[0], 1, 1).unwrap();
    assert_eq!((batches.steps_in_epoch(0), batches.step(0, 0)), (0, Step::default()));
    assert_eq!(Cursor::default().settled(&batches), Cursor::default());
    assert_eq!(Cursor { epoch: u64::MAX, step: u64::MAX }.step(&batches), Step::default());
    assert!(empty.root.path().exists());
}

#[test]
fn files_without_a_source_and_weights_that_cannot_be_are_refused() {
    let data = rows(30, 20, 3, 1);
    let make = |weights: &[f64], sources: &[u32]| {
        Batches::new(data.dataset.clone(), &plan(weights), sources, 1, 1).unwrap_err()
    };
    assert_eq!(make(&[1.0], &[0, 0]), OrderError::UnknownFile { file: 2, files: 2 });
    assert!(matches!(make(&[1.0], &[0, 0, 1]), OrderError::Weight { source_index: 1, .. }));
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY, 1001.0] {
        assert!(matches!(make(&[1.0, weight], &[0, 1, 0]), OrderError::Weight { source_index: 1, .. }));
    }
}

#[test]
fn rows_grouped_by_length_share_steps_with_their_like() {
    let data = rows(1000, 64, 1, 1);
    let spread = |plan: &DataPlan| {
        let batches = Batches::new(data.dataset.clone(), plan, &[0], 8, 8).unwrap();
        let of = |step: &Step| {
            let lengths = step.batches[0].segments.windows(2).map(|ends| ends[1] - ends[0]);
            lengths.clone().max().unwrap() - lengths.min().unwrap()
        };
        steps(&batches, 0).iter().map(of).sum::<u32>()
    };
    let (plain, grouped) = (spread(&plan(&[1.0])), spread(&DataPlan { group_by_length: true, ..plan(&[1.0]) }));
    assert!(grouped * 10 < plain, "lengths within steps differ by {grouped} grouped, {plain} plain, summed");
}

#[test]
fn evaluation_batches_keep_file_order_and_their_bounds() {
    let data = rows(101, 60, 1, 1);
    let batches: Vec<Batch> = evaluation_batches(&data.dataset, 100, None).collect();
    assert!(batches.iter().all(|batch| batch.tokens.len() <= 100));
    batches.iter().for_each(|batch| assert_batch_is_sound(batch, &data.rows));
    let tokens: Vec<u32> = batches.iter().flat_map(|batch| batch.tokens.clone()).collect();
    assert_eq!(tokens, data.rows.iter().flat_map(|row| row.1.clone()).collect::<Vec<_>>());
    assert_eq!(evaluation_batches(&data.dataset, 1, None).count(), 101);
    assert_eq!(evaluation_batches(&data.dataset, 1, Some(7)).count(), 7);
    assert_eq!(evaluation_batches(&data.dataset, 1, Some(0)).count(), 0);
}

/// GSM8K's training rows by their lengths in tokens; those beyond `longest` left out, as `too_long = "drop"` does.
fn gsm8k(root: &std::path::Path, longest: usize) -> Dataset {
    let mut writer = Writer::create(root, "a").unwrap();
    for line in include_str!("gsm8k_lengths.txt").lines().filter(|line| !line.starts_with('#')) {
        let (length, count) = line.split_once(' ').unwrap();
        let length = length.parse::<usize>().unwrap();
        for line in (1..=count.parse().unwrap()).filter(|_| length <= longest) {
            writer.push(Part::Training, Place { file: 0, line }, &vec![7; length], &[]).unwrap();
        }
    }
    writer.finish(json!(null)).unwrap().training
}

/// At 512 tokens the rows of 97 to 512 tokens stand two or three in a pack, and no packing fills more than 99.1 % (the linear program
/// over all patterns says so); from 1024 on 99 % must be reached.
#[test]
fn gsm8k_packs_to_at_least_99_percent_from_1024_tokens_on() {
    for (length, least) in [(512, 0.965), (1024, 0.99), (2048, 0.99), (4096, 0.99)] {
        let root = tempfile::tempdir().unwrap();
        let dataset = gsm8k(root.path(), length);
        assert_eq!(dataset.len(), if length == 512 { 7466 } else { 7473 });
        let efficiency = packing::efficiency(&dataset, length);
        println!("GSM8K packed to {length}: {:.3} %", efficiency * 100.0);
        assert!(efficiency >= least, "{length}: {efficiency}");
    }
}

/// Prints what writing, opening and packing cost: `cargo test --release -p datasets measure -- --ignored --nocapture`.
#[test]
#[ignore = "writes 1.3 GB"]
fn measure_two_million_rows() {
    let root = tempfile::tempdir().unwrap();
    let clock = std::time::Instant::now();
    let ids: Vec<u32> = (0..300).collect();
    let mut random = Random::new(1, 1);
    let mut writer = Writer::create(root.path(), "a").unwrap();
    for line in 1..=2_000_000 {
        let length = 50 + random.below(201);
        writer.push(Part::Training, Place { file: 0, line }, &ids[..length], &[10..length as u32]).unwrap();
    }
    let (pushed, bytes) = (clock.elapsed().as_secs_f64(), writer.bytes());
    let cache = writer.finish(json!(null)).unwrap();
    println!("{bytes} bytes pushed in {pushed:.2} s, published after {:.2} s", clock.elapsed().as_secs_f64());
    drop(cache);
    let timed = |what: &str, work: &mut dyn FnMut() -> u64| {
        let clock = std::time::Instant::now();
        let result = work();
        println!("{what}: {result} in {:.3} s; {}", clock.elapsed().as_secs_f64(), resident());
    };
    let mut cache = None;
    timed("open, rows", &mut || cache.insert(Cache::open(root.path(), "a").unwrap()).training.len() as u64);
    let cache = cache.unwrap();
    timed("verify, tokens", &mut || cache.verify().map(|()| cache.training.tokens()).unwrap());
    timed("efficiency at 2048, millionths", &mut || (packing::efficiency(&cache.training, 2048) * 1e6) as u64);
    let dataset = Arc::new(cache.training);
    for plan in arrangements(&DataPlan { sequence_length: 2048, ..plan(&[1.0]) }) {
        let mut batches = None;
        timed("batches", &mut || {
            batches.insert(Batches::new(dataset.clone(), &plan, &[0], 8, 8).unwrap()).steps_in_epoch(0)
        });
        let batches = batches.unwrap();
        timed("first step, tokens", &mut || batches.step(0, 0).tokens() as u64);
        timed("10000 steps, tokens", &mut || (0..10_000).map(|index| batches.step(0, index).tokens() as u64).sum());
    }
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or(name).replace('\t', " ");
    format!("{}, {}", line("VmRSS:"), line("VmHWM:"))
}
