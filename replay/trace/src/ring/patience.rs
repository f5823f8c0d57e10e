//! Waiting for room in a ring, for what is worth it.

use std::time::{Duration, Instant};

use super::Producer;

/// How often a writer that waits for room looks again.
const LOOK_AGAIN: Duration = Duration::from_micros(200);

/// How long a program waits for the recorder to make room.
///
/// As long as the recorder gets on, and not longer than the bytes take at [`Patience::PACE`]; in any case as long
/// as it may stand still.
#[derive(Debug)]
pub struct Patience {
    until: Instant,
    consumed: u64,
    progress: Instant,
}

impl Patience {
    /// Bytes a second that a recorder has to take.
    pub const PACE: u64 = 100_000_000;
    /// How long it may stand still.
    pub const STANDSTILL: Duration = Duration::from_millis(100);
    /// How long one may take that has not begun: it is a process that is being started, on a machine that may be busy.
    pub const START: Duration = Duration::from_secs(2);

    /// For a payload of `bytes`, from now.
    pub fn for_bytes(producer: &Producer, bytes: u64) -> Patience {
        let now = Instant::now();
        let span = Duration::from_nanos(bytes.saturating_mul(1_000_000_000 / Patience::PACE));
        let consumed = producer.consumed();
        Patience {
            until: now + span.max(standstill(consumed)),
            consumed,
            progress: now,
        }
    }

    /// Waits a moment; `false` when there is no sense in waiting on.
    pub(super) fn wait(&mut self, producer: &Producer) -> bool {
        producer.wake();
        std::thread::sleep(LOOK_AGAIN);
        let (now, consumed) = (Instant::now(), producer.consumed());
        if consumed != self.consumed {
            self.consumed = consumed;
            self.progress = now;
        }
        now < self.until && now < self.progress + standstill(consumed)
    }
}

/// How long a recorder may stand still that has taken so many bytes.
fn standstill(consumed: u64) -> Duration {
    match consumed {
        0 => Patience::START,
        _ => Patience::STANDSTILL,
    }
}
