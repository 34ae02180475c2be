//! Facts about caches, on real folders.
// A row with one trained range is an ordinary row.
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::format::HEADER_BYTES;
use super::*;
use crate::content::Place;
use crate::random::Random;
use crate::test_tokenizers::byte_level;

/// A row to write.
pub(crate) type Written = (Place, Vec<u32>, Vec<Range<u32>>);

/// Rows of 1 to `longest` random tokens with random trained ranges; `files` files take turns of ten rows.
pub(crate) fn random_rows(count: usize, longest: usize, files: u32, random: &mut Random) -> Vec<Written> {
    (0..count)
        .map(|number| {
            let ids: Vec<u32> = (0..1 + random.below(longest)).map(|_| random.below(50_000) as u32).collect();
            let mut trained = Vec::new();
            let mut from = 1;
            while from < ids.len() {
                let start = from + random.below(4);
                let end = start + 1 + random.below(5);
                if end > ids.len() {
                    break;
                }
                trained.push(start as u32..end as u32);
                from = end;
            }
            (Place { file: number as u32 / 10 % files, line: 1 + number as u64 }, ids, trained)
        })
        .collect()
}

/// Writes rows as training rows of a cache.
pub(crate) fn written(root: &Path, address: &str, rows: &[Written]) -> Cache {
    let mut writer = Writer::create(root, address).unwrap();
    for (place, ids, trained) in rows {
        writer.push(Part::Training, *place, ids, trained).unwrap();
    }
    writer.finish(json!({"rows": rows.len()})).unwrap()
}

fn assert_holds(dataset: &Dataset, rows: &[Written]) {
    assert_eq!(dataset.len(), rows.len());
    for (row, (place, ids, trained)) in dataset.rows().zip(rows) {
        let found: Vec<Range<u32>> = row.trained.iter().map(|range| range[0]..range[1]).collect();
        assert_eq!((row.place, row.tokens, &found), (*place, ids.as_slice(), trained));
        for index in 0..ids.len() {
            assert_eq!(row.is_trained(index), trained.iter().any(|range| range.contains(&(index as u32))));
        }
    }
    let tokens: usize = rows.iter().map(|(_, ids, _)| ids.len()).sum();
    let count = |ranges: &Vec<Range<u32>>| ranges.iter().map(|range| range.len() as u64).sum::<u64>();
    assert_eq!(dataset.tokens(), tokens as u64);
    assert_eq!(dataset.trained_tokens(), rows.iter().map(|(.., trained)| count(trained)).sum::<u64>());
    assert_eq!(dataset.longest(), rows.iter().map(|(_, ids, _)| ids.len()).max().unwrap_or(0));
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_was_pushed_comes_back_row_for_row_for_random_rows() {
    for seed in 0..20 {
        let root = tempfile::tempdir().unwrap();
        let mut random = Random::new(seed, 0);
        let count = random.below(300);
        let rows = random_rows(count, 40, 3, &mut random);
        let cache = written(root.path(), "a", &rows);
        assert_holds(&cache.training, &rows);
        assert!(cache.held_out.is_empty());
        cache.verify().unwrap();
        let again = Cache::open(root.path(), "a").unwrap();
        assert_holds(&again.training, &rows);
        assert_eq!(again.facts, json!({"rows": count}));
        assert_eq!(names(root.path()), [".lock", "a"]);
    }
}

#[test]
fn both_parts_are_kept_apart_and_rows_dropped_later_are_gone() {
    let root = tempfile::tempdir().unwrap();
    let mut random = Random::new(3, 0);
    let rows = random_rows(500, 30, 2, &mut random);
    let mut writer = Writer::create(root.path(), "a").unwrap();
    for (place, ids, trained) in &rows {
        let part = if place.line.is_multiple_of(5) { Part::HeldOut } else { Part::Training };
        writer.push(part, *place, ids, trained).unwrap();
    }
    assert_eq!((writer.rows(Part::Training), writer.rows(Part::HeldOut)), (400, 100));
    writer.retain(Part::Training, &|number| !number.is_multiple_of(3)).unwrap();
    writer.retain(Part::Training, &|number| number != 1).unwrap();
    let extra = (Place { file: 9, line: 1 }, vec![7, 8], vec![1..2]);
    writer.push(Part::Training, extra.0, &extra.1, &extra.2).unwrap();
    let cache = writer.finish(json!(null)).unwrap();
    let (held_out, training): (Vec<Written>, Vec<Written>) =
        rows.into_iter().partition(|row| row.0.line.is_multiple_of(5));
    let kept = training.into_iter().enumerate().filter(|(number, _)| !number.is_multiple_of(3)).map(|(_, row)| row);
    let mut kept: Vec<Written> = kept.collect();
    kept.remove(1);
    kept.push(extra);
    assert_holds(&cache.training, &kept);
    assert_holds(&cache.held_out, &held_out);
    cache.verify().unwrap();
    assert_eq!(names(cache.folder()).len(), 7);
}

#[test]
fn a_row_that_no_encoder_makes_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(root.path(), "a").unwrap();
    let place = Place { file: 0, line: 4 };
    for (ids, trained) in
        [(vec![], vec![]), (vec![1, 2], vec![0..1]), (vec![1, 2], vec![1..3]), (vec![1, 2, 3], vec![2..3, 1..2])]
    {
        let error = writer.push(Part::Training, place, &ids, &trained).unwrap_err();
        assert!(
            matches!(error, CacheError::UnsoundRow { .. }) && error.to_string().contains("row 4 of file 0"),
            "{error}"
        );
    }
    assert!(writer.finish(json!(null)).unwrap().training.is_empty());
}

#[test]
fn ids_beyond_a_model_are_found_with_their_place() {
    let root = tempfile::tempdir().unwrap();
    let rows = [(Place { file: 0, line: 1 }, vec![1, 2], vec![]), (Place { file: 1, line: 7 }, vec![3, 99], vec![])];
    let cache = written(root.path(), "a", &rows);
    assert_eq!(cache.training.id_beyond(99), Some((Place { file: 1, line: 7 }, 99)));
    assert_eq!(cache.training.id_beyond(100), None);
}

/// A cache with rows in both parts, and its files.
fn small() -> (tempfile::TempDir, Vec<PathBuf>) {
    let root = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(root.path(), "a").unwrap();
    for (place, ids, trained) in random_rows(6, 5, 2, &mut Random::new(1, 0)) {
        Part::ALL.iter().for_each(|part| writer.push(*part, place, &ids, &trained).unwrap());
    }
    let cache = writer.finish(json!({"name": "small"})).unwrap();
    let files = names(cache.folder()).iter().map(|name| cache.folder().join(name)).collect();
    (root, files)
}

#[test]
fn every_file_cut_anywhere_or_lengthened_or_missing_is_told_as_damage() {
    let (root, files) = small();
    for path in &files {
        let whole = std::fs::read(path).unwrap();
        let cuts = (0..whole.len()).map(|length| whole[..length].to_vec());
        for bytes in cuts.chain([[&whole[..], &[0]].concat()]) {
            std::fs::write(path, &bytes).unwrap();
            let error = Cache::open(root.path(), "a").unwrap_err();
            assert!(error.is_rebuildable(), "{} of {} bytes: {error}", bytes.len(), path.display());
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
        }
        std::fs::remove_file(path).unwrap();
        assert!(matches!(Cache::open(root.path(), "a"), Err(CacheError::Damaged { .. })));
        std::fs::write(path, &whole).unwrap();
        Cache::open(root.path(), "a").unwrap().verify().unwrap();
    }
}

#[test]
fn every_flipped_bit_is_seen_on_opening_and_in_tokens_on_verifying() {
    let (root, files) = small();
    for path in &files {
        let whole = std::fs::read(path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(path, &bytes).unwrap();
            let opened = Cache::open(root.path(), "a");
            let error = match path.extension().unwrap().to_str().unwrap() {
                "tokens" => opened.unwrap().verify().unwrap_err(),
                _ => opened.unwrap_err(),
            };
            assert!(error.is_rebuildable(), "bit {bit} of {}: {error}", path.display());
        }
        std::fs::write(path, &whole).unwrap();
    }
}

#[test]
fn records_that_point_outside_are_refused_even_with_matching_checksums() {
    use super::format::{Header, Packed, Record};
    let (root, files) = small();
    let path = files.iter().find(|path| path.ends_with("training.rows")).unwrap();
    let whole = std::fs::read(path).unwrap();
    let first: Packed = std::array::from_fn(|at| {
        u64::from_le_bytes(whole[HEADER_BYTES + 8 * at..HEADER_BYTES + 8 * at + 8].try_into().unwrap())
    });
    let sound = Record::unpack(&first);
    for wrong in [
        Record { tokens_at: u64::MAX, ..sound },
        Record { ranges_at: 1 << 40, ..sound },
        Record { length: u32::MAX, ..sound },
        Record { length: 0, ranges: 0, ..sound },
        Record { ranges: u32::MAX, ..sound },
    ] {
        let mut bytes = whole.clone();
        bytes[HEADER_BYTES..HEADER_BYTES + 40].copy_from_slice(bytemuck::cast_slice(&wrong.pack()));
        let sum = twox_hash::XxHash3_64::oneshot(&bytes[HEADER_BYTES..]);
        let header = Header { rows_sum: sum, ..Header::parse(&whole).unwrap() };
        bytes[..HEADER_BYTES].copy_from_slice(&header.bytes());
        std::fs::write(path, &bytes).unwrap();
        let error = Dataset::open(&root.path().join("a"), Part::Training).unwrap_err();
        assert!(matches!(error, CacheError::Damaged { .. }), "{error}");
    }
}

#[test]
fn another_version_a_foreign_file_and_anothers_rows_are_told() {
    let (root, files) = small();
    let path = files.iter().find(|path| path.ends_with("training.rows")).unwrap();
    let whole = std::fs::read(path).unwrap();
    let mut bytes = whole.clone();
    bytes[8] = 9;
    std::fs::write(path, &bytes).unwrap();
    let error = Cache::open(root.path(), "a").unwrap_err();
    assert!(matches!(error, CacheError::Version { found: 9, expected: 1, .. }), "{error}");
    std::fs::write(path, vec![b'{'; 4096]).unwrap();
    assert!(Cache::open(root.path(), "a").unwrap_err().to_string().contains("does not begin as a token cache"));
    std::fs::write(path, &whole).unwrap();
    written(root.path(), "b", &random_rows(6, 5, 1, &mut Random::new(2, 0)));
    for kind in ["rows", "tokens", "ranges"] {
        let name = format!("training.{kind}");
        std::fs::copy(root.path().join("b").join(&name), root.path().join("a").join(&name)).unwrap();
    }
    assert!(Cache::open(root.path(), "a").unwrap_err().to_string().contains("those of another cache"));
    std::fs::rename(root.path().join("b"), root.path().join("c")).unwrap();
    assert!(Cache::open(root.path(), "c").unwrap_err().to_string().contains("belongs to address b"));
    assert!(matches!(Cache::open(root.path(), "d"), Err(CacheError::Absent { .. })));
}

#[test]
fn of_two_writers_at_once_one_wins_and_both_get_a_whole_cache() {
    let root = tempfile::tempdir().unwrap();
    let rows = random_rows(200, 20, 1, &mut Random::new(4, 0));
    let caches: Vec<Cache> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8).map(|_| scope.spawn(|| written(root.path(), "a", &rows))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    caches.iter().for_each(|cache| assert_holds(&cache.training, &rows));
    assert_eq!(names(root.path()), [".lock", "a"]);
}

#[test]
fn the_second_of_two_writers_takes_what_the_first_published() {
    let root = tempfile::tempdir().unwrap();
    let first = Writer::create(root.path(), "a").unwrap();
    let mut second = Writer::create(root.path(), "a").unwrap();
    second.push(Part::Training, Place { file: 0, line: 1 }, &[1, 2], &[]).unwrap();
    first.finish(json!("first")).unwrap();
    let cache = second.finish(json!("second")).unwrap();
    assert_eq!((cache.facts, cache.training.len()), (json!("first"), 0));
}

#[test]
fn a_damaged_folder_is_replaced_and_a_dropped_writer_leaves_nothing() {
    let (root, files) = small();
    std::fs::write(&files[0], b"{}").unwrap();
    drop(Writer::create(root.path(), "a").unwrap());
    assert_eq!(names(root.path()), [".lock", "a"]);
    let rows = random_rows(4, 5, 1, &mut Random::new(5, 0));
    assert_holds(&written(root.path(), "a", &rows).training, &rows);
    assert_eq!(names(root.path()), [".lock", "a"]);
}

/// This test starts itself as a second process that is killed while it writes.
#[test]
fn a_killed_writer_leaves_no_cache_and_its_folder_goes_with_the_next_writer_but_a_living_ones_stays() {
    const ROOT: &str = "TUNE_TEST_CACHE_ROOT";
    if let Some(root) = std::env::var_os(ROOT) {
        let mut writer = Writer::create(Path::new(&root), "a").unwrap();
        loop {
            writer.push(Part::Training, Place { file: 0, line: 1 }, &[1; 100], &[1..100]).unwrap();
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
    }
    let root = tempfile::tempdir().unwrap();
    let living = Writer::create(root.path(), "b").unwrap();
    let name = std::thread::current().name().unwrap().to_string();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([&name, "--exact", "--nocapture"])
        .env(ROOT, root.path())
        .spawn()
        .unwrap();
    let staged = || names(root.path()).iter().filter(|name| name.starts_with(".staging")).count();
    while staged() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(child.try_wait().unwrap().is_none(), "the writing process ended by itself");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(Cache::open(root.path(), "a"), Err(CacheError::Absent { .. })));
    let rows = random_rows(4, 5, 1, &mut Random::new(5, 0));
    assert_holds(&written(root.path(), "a", &rows).training, &rows);
    assert_eq!(staged(), 1);
    living.finish(json!(null)).unwrap();
    assert_eq!(names(root.path()), [".lock", "a", "b"]);
}

#[test]
fn a_question_is_the_row_up_to_its_last_answer_and_the_answer_without_its_end() {
    let tokenizer = byte_level(None);
    let end = tokenizer.eos()[0];
    let (ask, first, last) =
        (tokenizer.encode("hello").unwrap(), tokenizer.encode("12").unwrap(), tokenizer.encode(" user \n").unwrap());
    let mut ids = [&ask[..], &first, &[end], &ask].concat();
    let start = ids.len();
    ids.extend(last.iter().chain([&end]));
    let early = ask.len() as u32..(ask.len() + first.len() + 1) as u32;
    let place = Place { file: 0, line: 3 };
    let root = tempfile::tempdir().unwrap();
    let late = start as u32..ids.len() as u32;
    let rows = [(Place { line: 2, ..place }, ask, vec![]), (place, ids.clone(), vec![early, late])];
    let cache = written(root.path(), "a", &rows);
    let asked = questions(&cache.training, &tokenizer, None).unwrap();
    assert_eq!(asked, [Question { prompt: ids[..start].to_vec(), answer: "user".to_string(), place }]);
    assert!(questions(&cache.training, &tokenizer, Some(0)).unwrap().is_empty());
}
