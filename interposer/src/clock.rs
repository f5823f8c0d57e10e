//! When something happened, cheaply: the processor's time stamp counter where it runs evenly (8 ns), else
//! the monotonic clock (20 ns).

use core::arch::x86_64::{__cpuid, _rdtsc};
use std::time::{Duration, Instant};

use once_cell::race::OnceBool;

/// The first step after which the counter's pace is measured again; each later one is twice as long.
const FIRST_STEP: Duration = Duration::from_millis(1);
/// The longest such step.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// Whether the counter runs at one pace whatever the processor does.
#[inline]
fn counts_evenly() -> bool {
    static EVENLY: OnceBool = OnceBool::new();
    EVENLY.get_or_init(|| {
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

/// A moment by the monotonic clock and by the counter, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub time: Instant,
    pub ticks: u64,
}

impl Moment {
    pub fn now() -> Moment {
        Moment {
            time: Instant::now(),
            ticks: ticks(),
        }
    }
}

/// The monotonic clock and the counter at one time: the closest of some looks, of which any may be interrupted.
fn moment() -> (Instant, u64) {
    let look = |_| {
        let (before, now, after) = (ticks(), Instant::now(), ticks());
        let long = after.saturating_sub(before);
        (long, (now, before + long / 2))
    };
    let looks: [_; 4] = core::array::from_fn(look);
    looks
        .into_iter()
        .min_by_key(|(long, _)| *long)
        .map_or_else(|| look(0).1, |(_, moment)| moment)
}

/// Nanoseconds since it began, of ticks.
///
/// The pace of the counter is measured against the monotonic clock again and again, less and less
/// often. A step never moves what was said before: the next pace makes up for what the last one was off.
#[derive(Debug)]
pub struct Clock {
    begun: Instant,
    /// The counter when it began.
    first: u64,
    /// Since when the pace holds: ticks and the nanoseconds that they are.
    since: (u64, f64),
    /// Nanoseconds of a tick.
    pace: f64,
    /// When to measure again, in ticks, and how long the step after that is.
    next: u64,
    step: Duration,
}

impl Clock {
    /// Begins now; the first measurement of the pace takes some microseconds.
    pub fn new() -> Clock {
        let (begun, first) = moment();
        const TRIAL: Duration = Duration::from_micros(20);
        while begun.elapsed() < TRIAL {
            core::hint::spin_loop();
        }
        let mut clock = Clock {
            begun,
            first,
            since: (first, 0.0),
            pace: 1.0,
            next: first,
            step: FIRST_STEP,
        };
        clock.pace = clock.ns_per_tick();
        clock.next = first + (FIRST_STEP.as_nanos() as f64 / clock.pace) as u64;
        clock
    }

    /// When it began.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Nanoseconds of a tick, as far as can be told by now.
    pub fn ns_per_tick(&self) -> f64 {
        let (now, ticks) = moment();
        let ticks = ticks.saturating_sub(self.first).max(1);
        now.duration_since(self.begun).as_nanos() as f64 / ticks as f64
    }

    /// The nanoseconds at which the counter stood at `ticks`; 0 for what was before it began.
    #[inline]
    pub fn ns(&mut self, ticks: u64) -> u64 {
        if ticks >= self.next {
            self.measure(ticks);
        }
        // Another thread may have looked at the counter a moment before the pace was measured.
        let above = ticks.wrapping_sub(self.since.0) as i64;
        (self.since.1 + above as f64 * self.pace) as u64
    }

    #[cold]
    fn measure(&mut self, ticks: u64) {
        let measured = self.ns_per_tick();
        let held = self.since.1 + ticks.wrapping_sub(self.since.0) as i64 as f64 * self.pace;
        let real = ticks.wrapping_sub(self.first) as f64 * measured;
        let step = self.step.as_nanos() as f64;
        // What it is ahead or behind is made up for within the step, without ever going backwards.
        let gain = ((real - held) / step).clamp(-0.5, 0.5);
        self.since = (ticks, held);
        self.pace = measured * (1.0 + gain);
        self.next = ticks + (step / measured) as u64;
        self.step = (2 * self.step).min(LONGEST_STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_backwards_and_keeps_to_the_monotonic_clock() {
        let mut clock = Clock::new();
        let mut last = 0;
        while clock.begun().elapsed() < Duration::from_millis(30) {
            let before = clock.begun().elapsed();
            let told = clock.ns(ticks());
            let after = clock.begun().elapsed();
            assert!(told >= last);
            last = told;
            // The thread may have stood still while it looked; and the pace of the first moments is rough.
            let rough = before / 20 + Duration::from_micros(20);
            assert!(
                Duration::from_nanos(told) + rough >= before,
                "{told} {before:?}"
            );
            assert!(
                Duration::from_nanos(told) <= after + rough,
                "{told} {after:?}"
            );
        }
    }

    #[test]
    fn what_was_before_it_began_is_its_beginning() {
        let before = ticks();
        assert_eq!(Clock::new().ns(before), 0);
    }
}
