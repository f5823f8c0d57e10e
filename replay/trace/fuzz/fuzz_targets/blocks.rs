//! Any bytes as the blocks of a trace: `cargo +nightly fuzz run blocks corpus/blocks ../../../tests/replay/golden/v1`.
#![no_main]

#[path = "../../tests/fuzz_smoke/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::blocks(bytes));
