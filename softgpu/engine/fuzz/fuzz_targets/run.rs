//! The body of a kernel: `cargo +nightly fuzz run run corpus/run seeds/run`.
#![no_main]

#[path = "../../tests/fuzz_smoke/targets.rs"]
#[allow(dead_code)]
mod targets;

libfuzzer_sys::fuzz_target!(|body: &[u8]| targets::bodies(body));
