//! What can be set about a link. The defaults are measured (`examples/link_bench.rs`).

use std::time::Duration;

use crate::h2::WINDOW_MAX;
use crate::link::StartThread;

#[derive(Clone, Debug)]
pub struct Tuning {
    /// How long a waiting thread asks the socket again and again before it sleeps. A sleeping
    /// thread is woken late by some 25-50 µs on a virtual machine. Zero where this process has a
    /// single core: the one it waits for needs it.
    pub spin: Duration,
    /// How long it does so at most, where its waits have been that short.
    pub spin_max: Duration,
    /// Threads that seal and open long bodies beside the caller's. None where they would take the core
    /// that the peer, or the program, needs.
    pub crew: usize,
    /// Starts them.
    pub start_thread: StartThread,
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
    /// Bytes of a body that go into one message where the session can be resumed: that much at most
    /// is sent again of what has arrived. A call with 1 MiB of payload goes into one.
    pub piece_max: usize,
    /// Bytes that are kept until they are acknowledged. A sender that has sent more waits.
    pub retained_max: usize,
    /// When somebody has waited so long without a sign of the server, a client asks for one.
    pub ask_after: Duration,
    /// So long after it has asked in vain, it tells of that.
    pub tell_after: Duration,
    /// So long after it has asked in vain, it takes the connection for broken.
    pub give_up_after: Duration,
    /// How long a server keeps a session whose connection was closed without a goodbye, rather than
    /// reset: that is what becomes of the connection of a process that is killed.
    pub hung_up_grace: Duration,
}

const SPIN: Duration = Duration::from_micros(30);
/// From so many cores on a link has a crew: two for each end, where both are on one machine.
const CREW_CORES: usize = 4;

impl Default for Tuning {
    /// Reads how many cores this process may use, which opens files: make it before jailing.
    fn default() -> Tuning {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let spin = if cores > 1 { SPIN } else { Duration::ZERO };
        Tuning {
            spin,
            spin_max: 4 * spin,
            crew: usize::from(cores >= CREW_CORES),
            start_thread: |name, body| {
                let builder = std::thread::Builder::new().name(name.to_owned());
                builder.spawn(body).map(drop)
            },
            inbox_limit: 256 << 20,
            receive_window: WINDOW_MAX,
            frame_payload: 1 << 20,
            records_per_key: 1 << 23,
            message_max: 1 << 30,
            piece_max: (1 << 20) + (4 << 10),
            retained_max: 8 << 20,
            ask_after: Duration::from_secs(2),
            tell_after: Duration::from_secs(3),
            give_up_after: Duration::from_secs(8),
            hung_up_grace: Duration::from_secs(2),
        }
    }
}

impl Tuning {
    /// Bytes after which a receiver acknowledges if nothing else that it sends has done so. Far
    /// below what a peer may keep, so that none waits for long.
    pub(crate) fn acknowledge_every(&self) -> usize {
        self.retained_max / 8
    }
}
