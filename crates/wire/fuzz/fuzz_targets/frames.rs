//! Any bytes as frames: `cargo +nightly fuzz run frames corpus/frames seeds/frames`.
#![no_main]

#[path = "../../tests/fuzz_smoke/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|frame: &[u8]| targets::frames(frame));
