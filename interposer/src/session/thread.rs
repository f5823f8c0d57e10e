//! What the server must know of each thread: its number, which context is current in it, and that
//! it has ended.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use harp_driver_front::context_stack;
use harp_wire::calls::encode_harp_thread_ended;
use harp_wire::CallId;

static LAST_THREAD: AtomicU32 = AtomicU32::new(0);
/// How often a context ended or began anew: what a thread sent before may not hold any more.
static CHANGES: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static THREAD: Cell<u32> = const { Cell::new(0) };
    /// The current context that the server was last told of, and the changes by then.
    static SENT_CONTEXT: Cell<(u64, u32)> = const { Cell::new((0, 0)) };
    static FAREWELL: Farewell = const { Farewell };
}

/// Tells the server when a thread that made calls ends.
struct Farewell;

impl Drop for Farewell {
    fn drop(&mut self) {
        let thread = id();
        // The session may be over, and then nobody needs to know.
        super::tell(CallId::harp_thread_ended, |encoder| {
            encode_harp_thread_ended(encoder, thread);
        });
        // What else runs at the thread's end may still make calls: as another thread, since the
        // server has forgotten this one.
        THREAD.set(0);
        SENT_CONTEXT.set((0, 0));
    }
}

/// This thread's number in the session, from 1.
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

/// What the server must be told before this thread's next call: a live context, or 0 for none.
#[inline]
pub fn unsent_context() -> Option<u64> {
    let now = (
        context_stack::current() as u64,
        CHANGES.load(Ordering::Relaxed),
    );
    if SENT_CONTEXT.replace(now) == now {
        return None;
    }
    Some(crate::api::current_context().map_or(0, |context| context as u64))
}

/// Makes every thread tell the server of its context again: one has ended or begun anew.
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
