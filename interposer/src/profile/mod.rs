//! What a program's calls cost it, said when it ends: `HARP_PROFILE=1`, and in local mode the one line
//! of `HARP_STATS=1`.
//!
//! * [`measured`]: how often and how long each call was made, by thread;
//! * [`moved`]: bytes that calls have copied, by direction;
//! * [`table`]: how that is printed.

mod measured;
pub mod moved;
mod table;

use once_cell::race::OnceBox;

use crate::clock::Clock;
use crate::generated::exports::{COUNT, NAMES};
use crate::generated::hooked::WAITS;
use crate::hooks::{self, Hooks};
use crate::session::settings::{say, LogLevel};
use measured::Measured;

/// Measures every call.
static HOOKS: Hooks = Hooks {
    enter: |_, _| (),
    leave: |call, span, _| {
        // The counters of two cores may differ by a little.
        let spent = span.left.saturating_sub(span.entered);
        measured::note(usize::from(call.0), spent);
    },
};

static BEGUN: OnceBox<Clock> = OnceBox::new();

/// Measures from now on; again is harmless. To be called once the symbols are bound.
pub fn begin() {
    BEGUN.get_or_init(|| Box::new(Clock::new()));
    hooks::attach(&HOOKS);
}

/// What was measured of one symbol.
struct Row {
    name: &'static str,
    /// Whether it waits for the device.
    waits: bool,
    calls: Measured,
}

/// The symbols that were called, those first that took longest, and the nanoseconds of a tick.
fn rows(clock: &Clock) -> (Vec<Row>, f64) {
    let named = |number: usize| NAMES[number].to_str().unwrap_or("?");
    let mut rows: Vec<Row> = (0..COUNT)
        .filter_map(|number| {
            Some(Row {
                name: named(number),
                waits: WAITS.binary_search(&(number as u16)).is_ok(),
                calls: measured::of(number)?,
            })
        })
        .collect();
    rows.sort_by_key(|row| (u64::MAX - row.calls.total, row.name));
    (rows, clock.ns_per_tick())
}

/// Says what was measured, if anything was. `waits` are the lines that say why the program waited; without
/// any, the calls that wait for a driver are named.
pub fn tell(waits: &[String]) {
    let Some(clock) = BEGUN.get() else { return };
    let (rows, ns_per_tick) = rows(clock);
    say(
        LogLevel::Quiet,
        &format!(
            "what its CUDA calls cost:\n{}",
            table::whole(&rows, ns_per_tick, waits, &moved::all())
        ),
    );
}

/// One line: how often and how long a driver was called, if it was measured.
pub fn line(driver: &str) -> Option<String> {
    let clock = BEGUN.get()?;
    let (rows, ns_per_tick) = rows(clock);
    let [mut all, mut waits] = [(0_u64, 0.0); 2];
    for row in &rows {
        let spent = row.calls.total as f64 * ns_per_tick / 1e9;
        all = (all.0 + row.calls.count, all.1 + spent);
        if row.waits {
            waits = (waits.0 + row.calls.count, waits.1 + spent);
        }
    }
    Some(format!(
        "{} calls to {driver}, {} of them waits; {:.2} s in the driver, {:.2} s of it in waits; {:.2} s",
        all.0,
        waits.0,
        all.1,
        waits.1,
        clock.begun().elapsed().as_secs_f64(),
    ))
}
