//! When something happened, cheaply: the processor's time stamp counter where it runs evenly (8 ns), else
//! the monotonic clock (20 ns).

use core::arch::x86_64::{__cpuid, _rdtsc};
use std::sync::OnceLock;
use std::time::Instant;

/// Whether the counter runs at one pace whatever the processor does.
#[inline]
fn counts_evenly() -> bool {
    static EVENLY: OnceLock<bool> = OnceLock::new();
    *EVENLY.get_or_init(|| {
        const ADVANCED: u32 = 0x8000_0007;
        const INVARIANT: u32 = 1 << 8;
        __cpuid(0x8000_0000).eax >= ADVANCED && __cpuid(ADVANCED).edx & INVARIANT != 0
    })
}

/// Where the counter does not run evenly, ticks are nanoseconds of the monotonic clock.
#[inline]
pub fn ticks() -> u64 {
    if !counts_evenly() {
        return monotonic();
    }
    // SAFETY: every x86-64 has the counter, and this library is for no other.
    unsafe { _rdtsc() }
}

#[cold]
fn monotonic() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a clock that every Linux has, and a place for its time.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Tells time of ticks.
#[derive(Debug)]
pub struct Clock {
    /// When it began, by the monotonic clock and by the counter.
    begun: Instant,
    first: u64,
}

impl Clock {
    /// Begins now.
    pub fn new() -> Clock {
        Clock {
            begun: Instant::now(),
            first: ticks(),
        }
    }

    /// When it began.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Nanoseconds of a tick, as far as can be told by now.
    pub fn ns_per_tick(&self) -> f64 {
        let ticks = ticks().saturating_sub(self.first).max(1);
        self.begun.elapsed().as_nanos() as f64 / ticks as f64
    }
}
