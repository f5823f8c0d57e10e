//! Opened bytes of a peer, from HTTP/2 frames down to the envelope.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harp_transport::fuzzing::read_stream(bytes));
