//! Any text as a chat template, over a conversation of any text.
#![no_main]

libfuzzer_sys::fuzz_target!(init: tune_fuzz::quiet_panics(), |bytes: &[u8]| {
    datasets::fuzz::template(bytes);
});
