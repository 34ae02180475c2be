//! The NVMe tier from outside: both engines, one path and two, on real files.
#![allow(clippy::unwrap_used, missing_docs)]

mod store_folder;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use offload::{Array, EngineChoice, EngineKind, FaultPlan, Place, Slabs, Store, StoreOptions, TierError, Tiers};
use store_folder::{ENGINES, Folder, pattern, read, write};

fn tiers(store: &Store) -> Tiers {
    Tiers { device: Slabs::new("device", 0), dram: Slabs::new("dram", 1 << 20), nvme: Some(store.clone()) }
}

#[test]
fn chunks_of_every_size_come_back_on_both_engines_and_on_one_path_and_two() {
    for (engine, paths) in ENGINES.iter().flat_map(|engine| [(engine, &["a"][..]), (engine, &["a", "b"][..])]) {
        let folder = Folder::new();
        let store = folder.open(*engine, paths);
        for (bytes, chunk_bytes) in [
            (1u64, 1usize),
            (4095, 4096),
            (4096, 4096),
            (4097, 4096),
            (65_536, 65_536),
            (200_001, 65_536),
            (30_000, 10_000),
            (9, 65_536),
            (0, 4096),
        ] {
            let extent = store.allocate("w", bytes, chunk_bytes).unwrap();
            let contents: Vec<Vec<u8>> = (0..extent.chunks()).map(|i| pattern(i, extent.chunk_len(i))).collect();
            assert_eq!(contents.iter().map(Vec::len).sum::<usize>() as u64, bytes);
            contents.iter().enumerate().for_each(|(i, content)| write(&store, &extent, i, content).unwrap());
            for (i, content) in contents.iter().enumerate() {
                assert!(
                    read(&store, &extent, i).unwrap() == *content,
                    "{engine:?} {paths:?} {bytes} {chunk_bytes} {i}"
                );
            }
        }
        drop(store);
        assert!(folder.is_empty());
    }
}

#[test]
fn auto_says_which_engine_runs_and_why_and_threads_can_be_asked_for() {
    let folder = Folder::new();
    let report = folder.open(EngineChoice::Auto, &["a"]).engine();
    assert!(!report.why.is_empty() && report.direct.len() == 1);
    let report = folder.open(EngineChoice::Threads, &["a", "b"]).engine();
    assert_eq!((report.kind, report.direct.len()), (EngineKind::Threads, 2));
    assert!(report.why.contains("asked for"), "{}", report.why);
}

#[test]
fn what_was_never_written_reads_as_zeros_even_where_another_tensor_was() {
    let folder = Folder::new();
    let store = folder.open(EngineChoice::Auto, &["a", "b"]);
    let old = store.allocate("old", 60_000, 10_000).unwrap();
    (0..6).for_each(|i| write(&store, &old, i, &pattern(i, 10_000)).unwrap());
    let before = store.traffic();
    drop(old);
    let new = store.allocate("new", 60_000, 10_000).unwrap();
    for i in 0..6 {
        assert!(read(&store, &new, i).unwrap().iter().all(|byte| *byte == 0));
    }
    assert_eq!(store.traffic(), before, "zeros need no I/O");
    let size: u64 = ["a", "b"].map(|name| swap_file(&folder, name).metadata().unwrap().len()).iter().sum();
    assert_eq!(size, 6 * 12_288, "the place was used again");
}

fn swap_path(folder: &Folder, name: &str) -> PathBuf {
    folder.path(name).join("tune-swap-test/swap.bin")
}

fn swap_file(folder: &Folder, name: &str) -> fs::File {
    fs::OpenOptions::new().read(true).write(true).open(swap_path(folder, name)).unwrap()
}

#[test]
fn chunks_are_dealt_out_over_the_paths_and_the_index_says_where() {
    let folder = Folder::new();
    let store = folder.open(EngineChoice::Auto, &["a", "b"]);
    let extent = store.allocate("layer.3.weight", 40_960, 8192).unwrap();
    (0..5).for_each(|i| write(&store, &extent, i, &[i as u8 + 1; 8192]).unwrap());
    let bytes = |name: &str| {
        fs::read(swap_path(&folder, name)).unwrap().chunks(8192).map(|chunk| chunk[0]).collect::<Vec<u8>>()
    };
    assert_eq!((bytes("a"), bytes("b")), (vec![1, 3, 5], vec![2, 4]));
    let index = fs::read_to_string(folder.path("b").join("tune-swap-test/index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    assert_eq!(index[0]["tensor"], "layer.3.weight");
    assert_eq!((index[0]["offset"].as_u64(), index[0]["reserved_bytes"].as_u64()), (Some(0), Some(16_384)));
    let traffic = store.traffic();
    assert_eq!((traffic[0].written_bytes, traffic[1].written_bytes), (3 * 8192, 2 * 8192));
}

#[test]
fn a_changed_byte_and_a_misplaced_chunk_are_found_and_named() {
    for engine in ENGINES {
        let folder = Folder::new();
        let store = folder.open(engine, &["a"]);
        let extent = store.allocate("layer.0.moment", 3 * 4096, 4096).unwrap();
        (0..3).for_each(|i| write(&store, &extent, i, &[9; 4096]).unwrap());
        let file = swap_file(&folder, "a");
        file.write_all_at(&[8], 4096 + 77).unwrap();
        file.sync_all().unwrap();
        let error = read(&store, &extent, 1).unwrap_err();
        let TierError::Checksum { path, offset, tensor, .. } = &error else { panic!("{error}") };
        assert_eq!(
            (path.as_path(), *offset, tensor.as_str()),
            (swap_path(&folder, "a").as_path(), 4096, "layer.0.moment")
        );
        // The same 4096 bytes, but those of another chunk's place would do as well: only the checksum's seed tells them apart.
        write(&store, &extent, 0, &[1; 4096]).unwrap();
        write(&store, &extent, 2, &[2; 4096]).unwrap();
        let mut page = [0u8; 4096];
        file.read_exact_at(&mut page, 0).unwrap();
        file.write_all_at(&page, 2 * 4096).unwrap();
        file.sync_all().unwrap();
        assert!(matches!(read(&store, &extent, 2), Err(TierError::Checksum { .. })));
        assert_eq!(read(&store, &extent, 0).unwrap(), vec![1; 4096]);
    }
}

#[test]
fn a_shortened_file_is_a_typed_error_never_zeros() {
    for engine in ENGINES {
        let folder = Folder::new();
        let store = folder.open(engine, &["a"]);
        let extent = store.allocate("embedding", 32_768, 16_384).unwrap();
        (0..2).for_each(|i| write(&store, &extent, i, &pattern(i, 16_384)).unwrap());
        swap_file(&folder, "a").set_len(20_480).unwrap();
        let error = read(&store, &extent, 1).unwrap_err();
        let TierError::ShortFile { end, missing_bytes, tensor, .. } = &error else { panic!("{error}") };
        assert_eq!((*end, *missing_bytes, tensor.as_str()), (20_480, 12_288, "embedding"));
    }
}

#[test]
fn transfers_of_one_chunk_happen_in_the_order_asked_for() {
    for engine in ENGINES {
        let folder = Folder::new();
        let mut options = folder.options(engine, &["a"]);
        options.buffers = 40;
        options.faults = Some(FaultPlan { delay: 0.5, reorder: 0.5, ..FaultPlan::none(3) });
        let store = Store::open(options).unwrap();
        let extent = store.allocate("w", 4096, 4096).unwrap();
        let mut reads = Vec::new();
        for round in 0..20u8 {
            let mut buffer = store.pool().take();
            buffer.fill(round);
            drop(store.write(&extent, 0, buffer));
            reads.push(store.read(&extent, 0, store.pool().take()));
        }
        for (round, ticket) in reads.into_iter().enumerate() {
            assert_eq!(ticket.wait().unwrap()[0], round as u8);
        }
    }
}

#[test]
fn the_write_budget_refuses_the_write_that_would_pass_it_before_it_happens() {
    let folder = Folder::new();
    let mut options = folder.options(EngineChoice::Auto, &["a"]);
    options.write_budget_bytes = Some(10_000);
    let store = Store::open(options).unwrap();
    let extent = store.allocate("w", 16_384, 4096).unwrap();
    (0..2).for_each(|i| write(&store, &extent, i, &[1; 4096]).unwrap());
    let error = write(&store, &extent, 0, &[2; 4096]).unwrap_err();
    assert!(error.is_write_budget(), "{error}");
    let TierError::WriteBudget { budget_bytes, written_bytes, next_bytes } = error else { panic!() };
    assert_eq!((budget_bytes, written_bytes, next_bytes), (10_000, 8192, 4096));
    assert_eq!(read(&store, &extent, 0).unwrap(), vec![1; 4096]);
    assert_eq!(store.traffic()[0].written_bytes, 8192);
}

#[test]
fn a_second_store_of_the_same_run_is_locked_out_until_the_first_is_gone() {
    let folder = Folder::new();
    let first = folder.open(EngineChoice::Auto, &["a", "b"]);
    let error = Store::open(folder.options(EngineChoice::Auto, &["b"])).unwrap_err();
    assert!(matches!(&error, TierError::Locked { path } if path.starts_with(folder.path("b"))), "{error}");
    let mut other = folder.options(EngineChoice::Auto, &["b"]);
    other.run = "other".to_owned();
    drop(Store::open(other).unwrap());
    drop(first);
    drop(folder.open(EngineChoice::Auto, &["b"]));
    assert!(folder.is_empty());
}

#[test]
fn what_a_killed_run_left_is_removed_at_the_next_start() {
    let folder = Folder::new();
    let dead = folder.path("a").join("tune-swap-killed");
    fs::create_dir(&dead).unwrap();
    ["lock", "swap.bin", "index.json"].iter().for_each(|name| fs::write(dead.join(name), b"left").unwrap());
    let store = folder.open(EngineChoice::Auto, &["a"]);
    assert!(!dead.exists());
    assert!(store.notes().iter().any(|note| note.contains("tune-swap-killed")));
    assert!(store.notes().is_empty(), "notes are taken");
}

#[test]
fn options_that_cannot_work_are_refused_before_anything_is_touched() {
    let folder = Folder::new();
    let good = || folder.options(EngineChoice::Auto, &["a"]);
    let file = folder.path("file");
    fs::write(&file, b"").unwrap();
    let cases: Vec<(StoreOptions, &str)> = vec![
        (StoreOptions { paths: Vec::new(), ..good() }, "offload.nvme"),
        (StoreOptions { paths: vec![folder.path("missing")], ..good() }, "missing"),
        (StoreOptions { paths: vec![file], ..good() }, "no directory"),
        (StoreOptions { paths: vec![folder.path("a"), folder.path("b/../a")], ..good() }, "twice"),
        (StoreOptions { run: "../escape".to_owned(), ..good() }, "letters"),
        (StoreOptions { run: String::new(), ..good() }, "letters"),
        (StoreOptions { buffers: 0, ..good() }, "at least one buffer"),
        (StoreOptions { queue_depth: 0, ..good() }, "queue depth"),
        (StoreOptions { buffer_bytes: (1 << 30) + 1, ..good() }, "1 GiB"),
    ];
    for (options, expected) in cases {
        let text = Store::open(options).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    assert!(folder.is_empty());
    let store = folder.open(EngineChoice::Auto, &["a"]);
    let text = store.allocate("wide", 1 << 20, 65_537).unwrap_err().to_string();
    assert!(text.contains("wide") && text.contains("65537"), "{text}");
}

#[test]
fn a_full_disk_is_told_at_allocation_and_by_an_injected_fault_at_the_write() {
    let folder = Folder::new();
    let store = folder.open(EngineChoice::Auto, &["a"]);
    let error = store.allocate("huge", 1 << 50, 4096).unwrap_err();
    assert!(matches!(error, TierError::NoSpace { needed_bytes: 0x4_0000_0000_0000, .. }), "{error}");
    assert_eq!(store.allocate("small", 4096, 4096).unwrap().bytes(), 4096);
    drop(store);
    let mut options = folder.options(EngineChoice::Auto, &["a"]);
    options.faults = Some(FaultPlan { enospc: 1.0, ..FaultPlan::none(1) });
    let store = Store::open(options).unwrap();
    let extent = store.allocate("w", 4096, 4096).unwrap();
    let error = write(&store, &extent, 0, &[1; 4096]).unwrap_err();
    assert!(matches!(&error, TierError::NoSpace { tensor, .. } if tensor == "w"), "{error}");
}

#[test]
fn dropped_tickets_and_a_dropped_store_lose_no_buffer_and_tickets_outlive_the_store() {
    for engine in ENGINES {
        let folder = Folder::new();
        let store = folder.open(engine, &["a", "b"]);
        let pool = store.pool().clone();
        let extent = store.allocate("w", 40_960, 4096).unwrap();
        for chunk in 0..10 {
            drop(store.write(&extent, chunk, pool.take()));
        }
        let last = store.read(&extent, 9, pool.take());
        drop(store);
        drop(last.wait().unwrap());
        assert_eq!(pool.free_count(), 4);
        assert!(folder.is_empty());
    }
}

#[test]
fn arrays_are_the_same_in_memory_and_on_nvme_for_ranges_of_any_alignment() {
    let folder = Folder::new();
    let store = folder.open(EngineChoice::Auto, &["a", "b"]);
    let tiers = tiers(&store);
    let make = |place| tiers.array(place, "p", 256 * 50, 1024, 256 * 3).unwrap();
    let (mut memory, mut nvme): (Array, Array) = (make(Place::Dram), make(Place::Nvme));
    assert!(memory.in_memory().is_some() && nvme.in_memory().is_none() && nvme.on_nvme().is_some());
    assert_eq!((nvme.spans(), nvme.bytes()), (17, 51_200));
    let ranges = [(0u64, 51_200usize), (1, 4), (767, 8), (768, 3072), (5_000, 20_000), (12_799, 4), (100, 12_000)];
    for (round, (first, len)) in ranges.into_iter().enumerate() {
        let data = pattern(round, len);
        memory.write(first, &data).unwrap();
        nvme.write(first, &data).unwrap();
        for (first, len) in ranges {
            let (mut expected, mut found) = (vec![1; len], vec![2; len]);
            memory.read(first, &mut expected).unwrap();
            nvme.read(first, &mut found).unwrap();
            assert!(found == expected, "round {round}, {len} bytes from element {first}");
        }
    }
}

#[test]
fn arrays_that_do_not_fit_are_refused_by_their_tier() {
    let folder = Folder::new();
    let store = folder.open(EngineChoice::Auto, &["a"]);
    let tiers = tiers(&store);
    let error = tiers.array(Place::Dram, "v", 1 << 20, 1024, 256).unwrap_err();
    assert!(matches!(&error, TierError::OverBudget { tier: "dram", what, .. } if what == "v"), "{error}");
    let error = tiers.array(Place::Nvme, "v", 1 << 20, 1024, 1 << 18).unwrap_err();
    assert!(matches!(error, TierError::NotATier { .. }), "{error}");
    let without = Tiers { nvme: None, ..tiers };
    let error = without.array(Place::Nvme, "v", 256, 1024, 256).unwrap_err();
    assert!(matches!(error, TierError::NoNvme { .. }), "{error}");
}

#[test]
fn a_memory_file_system_works_too_and_says_what_it_costs() {
    let shared_memory = Path::new("/dev/shm");
    let Ok(folder) = tempfile::tempdir_in(shared_memory) else {
        eprintln!("skipped: no /dev/shm to write to");
        return;
    };
    let options =
        StoreOptions { paths: vec![folder.path().to_owned()], ..Folder::new().options(EngineChoice::Auto, &[]) };
    let store = Store::open(options).unwrap();
    let direct = store.engine().direct[0];
    assert!(direct || store.notes().iter().any(|note| note.contains("page cache")));
    let extent = store.allocate("w", 10_000, 5_000).unwrap();
    write(&store, &extent, 1, &pattern(1, 5_000)).unwrap();
    assert_eq!(read(&store, &extent, 1).unwrap(), pattern(1, 5_000));
}
