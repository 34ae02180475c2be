//! Any bytes as one row.
#![no_main]

libfuzzer_sys::fuzz_target!(init: tune_fuzz::quiet_panics(), |bytes: &[u8]| {
    datasets::fuzz::shape(bytes);
});
