//! Any bytes as a Jsonl file.
#![no_main]

libfuzzer_sys::fuzz_target!(init: tune_fuzz::quiet_panics(), |bytes: &[u8]| {
    datasets::fuzz::file(bytes, planner::plan::FileFormat::Jsonl);
});
