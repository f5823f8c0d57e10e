//! Any bytes as an image: `cargo +nightly fuzz run select corpus/select seeds/select`.
#![no_main]

#[path = "../../tests/fuzz_smoke/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::images(bytes));
