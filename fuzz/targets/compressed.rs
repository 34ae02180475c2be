//! Any bytes behind the mark of gzip or zstd, as a JSONL file.
#![no_main]

libfuzzer_sys::fuzz_target!(init: tune_fuzz::quiet_panics(), |bytes: &[u8]| {
    for mark in [b"\x1f\x8b\x08".as_slice(), b"\x28\xb5\x2f\xfd"] {
        datasets::fuzz::file(&[mark, bytes].concat(), planner::plan::FileFormat::Jsonl);
    }
    datasets::fuzz::file(bytes, planner::plan::FileFormat::Jsonl);
});
