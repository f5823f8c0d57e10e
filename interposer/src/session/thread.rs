//! What the servers must know of each thread: its number, which of their contexts is current in it,
//! and that it has ended.
//!
//! While another server's context is current, a server is told of any that it has itself: as one driver
//! with all devices does, its driver answers calls about a stream or a function to whoever has a context.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use harp_driver_front::context_stack;
use harp_wire::calls::encode_harp_thread_ended;
use harp_wire::CallId;

use super::handles::{session_of, MOST_SESSIONS};
use super::sessions;
use crate::recording;

static LAST_THREAD: AtomicU32 = AtomicU32::new(0);
/// What a server has been told that has not heard of a thread: to it the thread has no context.
const NOTHING: (u64, u32) = (u64::MAX, 0);

/// A context of each session: its last primary one where it has any, for those stay as a rule.
static LASTING: [AtomicU64; MOST_SESSIONS] = [const { AtomicU64::new(0) }; MOST_SESSIONS];

/// How often a context ended or began anew: what a thread sent before may not hold any more.
static CHANGES: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static THREAD: Cell<u32> = const { Cell::new(0) };
    /// The current context that each server was last told of, and the changes by then.
    static SENT_CONTEXTS: [Cell<(u64, u32)>; MOST_SESSIONS] =
        const { [const { Cell::new(NOTHING) }; MOST_SESSIONS] };
    static FAREWELL: Farewell = const { Farewell };
}

/// Tells the servers when a thread that made calls ends.
struct Farewell;

impl Drop for Farewell {
    fn drop(&mut self) {
        let thread = id();
        // The sessions may be over, and then nobody needs to know.
        if let Ok(sessions) = sessions() {
            let knows = |number: usize| SENT_CONTEXTS.with(|sent| sent[number].get() != NOTHING);
            for session in sessions.iter().filter(|session| knows(session.number)) {
                session.tell(CallId::harp_thread_ended, |encoder| {
                    encode_harp_thread_ended(encoder, thread);
                });
            }
        }
        // What else runs at the thread's end may still make calls: as another thread, since the
        // servers have forgotten this one.
        THREAD.set(0);
        recording::thread_ended();
        SENT_CONTEXTS.with(|sent| sent.iter().for_each(|sent| sent.set(NOTHING)));
    }
}

/// This thread's number in all sessions, from 1.
#[inline]
pub fn id() -> u32 {
    match THREAD.get() {
        0 => {
            let number = LAST_THREAD.fetch_add(1, Ordering::Relaxed) + 1;
            THREAD.set(number);
            let _ = FAREWELL.try_with(|_| ());
            number
        }
        number => number,
    }
}

/// What the server of a session must be told before this thread's next call there: a live context that
/// it has, or 0 for none.
#[inline]
pub fn unsent_context(session: usize) -> Option<u64> {
    let current = context_stack::current() as u64;
    let own = match current {
        0 => 0,
        current if session_of(current) == session => current,
        _ => LASTING[session].load(Ordering::Relaxed),
    };
    // That there is none does not change with what becomes of contexts.
    let changes = match own {
        0 => 0,
        _ => CHANGES.load(Ordering::Relaxed),
    };
    let now = (own, changes);
    match SENT_CONTEXTS.with(|sent| sent[session].replace(now)) {
        sent if sent == now => None,
        NOTHING if own == 0 => None,
        _ if own == 0 => Some(0),
        _ if crate::api::is_alive(own) => Some(own),
        _ => Some(0),
    }
}

/// A context has begun: threads may have had it current before.
pub fn context_begun(context: u64, is_primary: bool) {
    let lasting = &LASTING[session_of(context)];
    if is_primary || !crate::api::is_alive(lasting.load(Ordering::Relaxed)) {
        lasting.store(context, Ordering::Relaxed);
    }
    context_changed();
}

/// Makes every thread tell the servers of its context again: one has ended.
pub fn context_changed() {
    CHANGES.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_thread_has_a_number_of_its_own() {
        let mine = super::id();
        let other = std::thread::spawn(super::id).join().unwrap();
        assert_eq!(super::id(), mine);
        assert_ne!(mine, other);
    }
}
