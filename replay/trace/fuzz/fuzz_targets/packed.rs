//! Any bytes as a packed trace: `cargo +nightly fuzz run packed corpus/packed ../../../tests/replay/golden/v1`.
#![no_main]

#[path = "../../tests/fuzz_smoke/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::packed(bytes));
