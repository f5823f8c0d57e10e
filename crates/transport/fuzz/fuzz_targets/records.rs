//! Bytes of a peer off the wire, and what TLS says after its handshake.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harp_transport::fuzzing::read_records(bytes));
