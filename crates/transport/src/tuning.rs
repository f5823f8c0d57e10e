//! What can be set about a link. The defaults are measured (`examples/link_bench.rs`).

use std::time::Duration;

use crate::h2::WINDOW_MAX;

#[derive(Clone, Debug)]
pub struct Tuning {
    /// How long a waiting thread asks the socket again and again before it sleeps. A sleeping
    /// thread is woken late by some 25-30 µs on a virtual machine. Zero where this process has a
    /// single core: the one it waits for needs it.
    pub spin: Duration,
    /// Bytes that a blocked sender takes off the socket for the receiver.
    pub inbox_limit: usize,
    /// Bytes of the stream that the peer may be ahead, as HTTP/2 tells it.
    pub receive_window: u32,
    /// Bytes of a long body that go into one DATA frame; whole records are best.
    pub frame_payload: usize,
    /// Records that are sealed under one key. AES-GCM allows 2^24.5 (RFC 8446 section 5.5).
    pub records_per_key: u64,
    /// The longest message that is sent or received. A body is never held whole in memory, so this
    /// only bounds what a peer can announce.
    pub message_max: usize,
}

impl Default for Tuning {
    /// Reads how many cores this process may use, which opens files: make it before jailing.
    fn default() -> Tuning {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Tuning {
            spin: if cores > 1 {
                Duration::from_micros(30)
            } else {
                Duration::ZERO
            },
            inbox_limit: 256 << 20,
            receive_window: WINDOW_MAX,
            frame_payload: 256 << 10,
            records_per_key: 1 << 23,
            message_max: 1 << 30,
        }
    }
}
