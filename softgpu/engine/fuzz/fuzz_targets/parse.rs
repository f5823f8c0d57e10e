//! Any text: `cargo +nightly fuzz run parse corpus/parse seeds/parse`.
#![no_main]

#[path = "../../tests/fuzz_smoke/targets.rs"]
#[allow(dead_code)]
mod targets;

libfuzzer_sys::fuzz_target!(|text: &[u8]| targets::texts(text));
