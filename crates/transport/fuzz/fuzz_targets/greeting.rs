//! What a client says that comes back for its session.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harp_transport::fuzzing::read_greeting(bytes));
