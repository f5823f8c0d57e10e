//! Driver calls: when each begins, and how it has ended, by thread.

use core::cell::Cell;
use std::io::Read;

use harp_trace::block::Block;

use super::{recorder, Recorder};
use crate::hooks::{Call, Hooks};
use crate::session::thread_id;

/// Records every call from the beginning of the trace on.
pub static HOOKS: Hooks = Hooks {
    enter: |call, ticks| match recorder() {
        Some(recorder) => enter(recorder, call, ticks),
        None => OWN.with(|own| own.unrecorded.set(Some((call, ticks)))),
    },
    leave: |_, span, code| {
        let was_recorded = OWN.with(|own| {
            own.unrecorded.set(None);
            own.entered.replace(own.entered.get().saturating_sub(1)) > 0
        });
        if let Some(recorder) = recorder().filter(|_| was_recorded) {
            let thread = thread(recorder);
            recorder.append(span.left, |time| Block::Leave {
                time,
                thread,
                result: code,
            });
        }
    },
};

/// What is known of a thread.
struct Own {
    /// The number by which the trace knows it.
    number: Cell<u32>,
    /// Calls that have begun in it, and whose beginning is recorded.
    entered: Cell<u32>,
    /// The call that it makes, where that began before the trace.
    unrecorded: Cell<Option<(Call, u64)>>,
}

thread_local! {
    static OWN: Own = const {
        Own {
            number: Cell::new(0),
            entered: Cell::new(0),
            unrecorded: Cell::new(None),
        }
    };
}

#[inline]
fn enter(recorder: &Recorder, call: Call, ticks: u64) {
    let thread = thread(recorder);
    OWN.with(|own| own.entered.set(own.entered.get() + 1));
    recorder.append(ticks, |time| Block::Enter {
        time,
        thread,
        symbol: call.0,
    });
}

/// Records the call that this thread makes: the trace begins in it.
pub fn enter_begun(recorder: &Recorder) {
    if let Some((call, ticks)) = OWN.with(|own| own.unrecorded.take()) {
        enter(recorder, call, ticks);
    }
}

/// The number of this thread, which the trace is told.
#[inline]
pub fn thread(recorder: &Recorder) -> u32 {
    let number = thread_id();
    if OWN.with(|own| own.number.replace(number)) != number {
        tell(recorder, number);
    }
    number
}

#[cold]
fn tell(recorder: &Recorder, thread: u32) {
    // SAFETY: has no preconditions.
    let tid = unsafe { libc::gettid() } as u32;
    let mut name = Vec::new();
    // A thread without a name is one all the same.
    let _ = std::fs::File::open("/proc/thread-self/comm")
        .and_then(|file| file.take(64).read_to_end(&mut name));
    let mut state = recorder.lock();
    let time = state.clock.ns(crate::clock::ticks());
    let block = Block::Thread {
        thread,
        tid,
        name: name.trim_ascii_end(),
    };
    state.tape.append(time, &block);
}
