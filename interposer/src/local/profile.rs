//! `HARP_STATS=1` in local mode: how many calls there were and how long they were in the driver, in
//! one line when the program ends.

use core::sync::atomic::{AtomicU64, Ordering};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use harp_cuda_abi::types::CUresult;

use super::hooks::{Call, Hooks};
use crate::generated::exports::COUNT;
use crate::generated::hooked::WAITS;
use crate::session::settings::{say, settings, LogLevel};

pub static HOOKS: Hooks = Hooks { enter, leave };

/// What is known of one symbol's calls. Each has a cache line of its own, so that threads that make
/// different calls do not wait for each other.
#[repr(align(64))]
struct Calls {
    count: AtomicU64,
    ticks: AtomicU64,
}

static CALLS: [Calls; COUNT] = [const {
    Calls {
        count: AtomicU64::new(0),
        ticks: AtomicU64::new(0),
    }
}; COUNT];

/// The processor's counter and the clock at one moment, to tell seconds of the counter's ticks.
struct Moment {
    ticks: u64,
    time: Instant,
}

impl Moment {
    fn now() -> Moment {
        Moment {
            ticks: ticks(),
            time: Instant::now(),
        }
    }
}

static BEGUN: OnceLock<Moment> = OnceLock::new();

/// Measures from now on.
pub fn begin() {
    let _ = BEGUN.set(Moment::now());
}

/// The processor's time stamp counter: a clock costs twice as much.
#[inline]
fn ticks() -> u64 {
    // SAFETY: every x86-64 has it, and this library is for no other.
    unsafe { core::arch::x86_64::_rdtsc() }
}

fn enter(_: Call) -> u64 {
    ticks()
}

fn leave(call: Call, entered: u64, _: CUresult) {
    let calls = &CALLS[usize::from(call.0)];
    calls.count.fetch_add(1, Ordering::Relaxed);
    // The counters of two cores may differ by a little.
    let spent = ticks().saturating_sub(entered);
    calls.ticks.fetch_add(spent, Ordering::Relaxed);
}

/// Says what there was, if it was measured.
pub fn tell() {
    let Some(begun) = BEGUN.get() else {
        return;
    };
    let now = Moment::now();
    let seconds = now.time.duration_since(begun.time).as_secs_f64();
    let per_tick = seconds / now.ticks.saturating_sub(begun.ticks).max(1) as f64;
    let [mut all, mut waits] = [(0_u64, 0.0); 2];
    for (number, calls) in CALLS.iter().enumerate() {
        let count = calls.count.load(Ordering::Relaxed);
        let spent = calls.ticks.load(Ordering::Relaxed) as f64 * per_tick;
        all = (all.0 + count, all.1 + spent);
        if WAITS.binary_search(&(number as u16)).is_ok() {
            waits = (waits.0 + count, waits.1 + spent);
        }
    }
    let driver = settings().libcuda.as_deref().unwrap_or(Path::new("?"));
    say(
        LogLevel::Quiet,
        &format!(
            "{} calls to {}, {} of them waits; {:.2} s in the driver, {:.2} s of it in waits; {seconds:.2} s",
            all.0,
            driver.display(),
            waits.0,
            all.1,
            waits.1,
        ),
    );
}
