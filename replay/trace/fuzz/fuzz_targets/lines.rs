//! Any bytes as the lines of a trace: `cargo +nightly fuzz run lines corpus/lines ../../../tests/replay/golden/v1`.
#![no_main]

#[path = "../../tests/fuzz_smoke/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::lines(bytes));
