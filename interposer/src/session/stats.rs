//! What a session did, for the line that `HARP_STATS=1` prints.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub struct Stats {
    begun: Instant,
    calls: AtomicU64,
    waits: AtomicU64,
}

impl Stats {
    pub fn new() -> Stats {
        Stats {
            begun: Instant::now(),
            calls: AtomicU64::new(0),
            waits: AtomicU64::new(0),
        }
    }

    pub fn count_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_wait(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    /// One line: calls, waits, bytes each way, time.
    pub fn line(&self, sent: u64, received: u64) -> String {
        format!(
            "{} calls sent, {} waited; {} sent, {} received; {:.2} s",
            self.calls.load(Ordering::Relaxed),
            self.waits.load(Ordering::Relaxed),
            readable_bytes(sent),
            readable_bytes(received),
            self.begun.elapsed().as_secs_f64(),
        )
    }
}

fn readable_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes} B");
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::readable_bytes;

    #[test]
    fn bytes_are_readable() {
        assert_eq!(readable_bytes(1023), "1023 B");
        assert_eq!(readable_bytes(1536), "1.5 KiB");
        assert_eq!(readable_bytes(3 << 40), "3072.0 GiB");
    }
}
