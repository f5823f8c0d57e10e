//! Any first bytes: `cargo +nightly fuzz run client_hello corpus/client_hello seeds/client_hello`.
#![no_main]

#[path = "../../tests/fuzz_smoke/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::first_bytes(bytes));
