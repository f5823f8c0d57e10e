//! Driver calls: when each begins, and how it has ended, by thread.

use core::cell::Cell;
use std::io::Read;

use harp_driver_front::lifecycle;
use harp_trace::block::Block;

use super::{recorder, Recorder};
use crate::clock::ticks;
use crate::hooks::{Call, Hooks};
use crate::session::thread_id;

/// Records every call from the beginning of the trace on.
pub static HOOKS: Hooks = Hooks {
    enter: |call, ticks| {
        OWN.with(|own| match recorder_of_this_process() {
            Some(recorder) => own.enter(recorder, call, ticks),
            None => own.unrecorded.set(Some((call, ticks))),
        });
    },
    leave: |_, span, code| {
        OWN.with(|own| match own.entered.get() {
            0 => own.unrecorded.set(None),
            entered => {
                own.entered.set(entered - 1);
                if let Some(recorder) = recorder_of_this_process() {
                    recorder.leave(span.left, own.number(recorder), code);
                }
            }
        });
    },
};

/// A copy of the process that is recorded writes nothing into its ring.
#[inline]
fn recorder_of_this_process() -> Option<&'static Recorder> {
    recorder().filter(|_| !lifecycle::is_copy())
}

/// What is known of a thread.
struct Own {
    /// The number by which the trace knows it; 0 as long as that is not so.
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

impl Own {
    #[inline]
    fn enter(&self, recorder: &Recorder, call: Call, ticks: u64) {
        self.entered.set(self.entered.get() + 1);
        recorder.enter(ticks, self.number(recorder), call.0);
    }

    #[inline]
    fn number(&self, recorder: &Recorder) -> u32 {
        match self.number.get() {
            0 => self.introduced(recorder),
            number => number,
        }
    }

    #[cold]
    fn introduced(&self, recorder: &Recorder) -> u32 {
        let thread = thread_id();
        self.number.set(thread);
        // SAFETY: has no preconditions.
        let tid = unsafe { libc::gettid() } as u32;
        let mut name = Vec::new();
        // A thread without a name is one all the same.
        let _ = std::fs::File::open("/proc/thread-self/comm")
            .and_then(|file| file.take(64).read_to_end(&mut name));
        let block = Block::Thread {
            thread,
            tid,
            name: name.trim_ascii_end(),
        };
        recorder.write(ticks(), |tape, time| tape.append(time, &block));
        thread
    }
}

/// Records the call that this thread makes: the trace begins in it.
pub fn enter_begun(recorder: &Recorder) {
    OWN.with(|own| {
        if let Some((call, ticks)) = own.unrecorded.take() {
            own.enter(recorder, call, ticks);
        }
    });
}

/// The number of this thread, which the trace is told.
pub fn thread(recorder: &Recorder) -> u32 {
    OWN.with(|own| own.number(recorder))
}

/// This thread gets another number.
pub fn thread_ended() {
    OWN.with(|own| own.number.set(0));
}
