//! What is fuzzed, shared by the short run here and by cargo-fuzz.

#[path = "../../src/client_hello.rs"]
#[allow(dead_code)]
mod client_hello;

use client_hello::{server_name, Seen, LARGEST_HELLO};

/// Any first bytes end in a verdict: a name that is safe to log, a request for more bytes, or a
/// refusal.
pub fn first_bytes(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(LARGEST_HELLO)];
    let mut joined = [0; LARGEST_HELLO];
    match server_name(bytes, &mut joined) {
        Ok(Seen::Needs(count)) => assert!(count > bytes.len() && count <= LARGEST_HELLO),
        Ok(Seen::Hello(Some(name))) => {
            assert!(name.bytes().all(|b| b.is_ascii_graphic() && b != b'"'));
        }
        Ok(Seen::Hello(None)) | Err(_) => {}
    }
}
