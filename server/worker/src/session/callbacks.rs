//! Host functions in streams. The function is the program's and runs in its process: when a stream reaches it, the
//! client is told, and the stream goes on when the client says that the function has returned.

use std::collections::HashSet;
use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use harp_cuda_abi::types::{CUresult, CUstream};
use harp_wire::push::Push;
use harp_wire::reply::PUSH;
use harp_wire::Encoder;

use super::replies::Replies;
use super::Violation;
use crate::generated::driver::Driver;

/// Host functions that a session may have queued at a time.
const MOST_QUEUED: usize = 1 << 16;

/// The host functions of a session that are queued or running.
pub struct Callbacks {
    replies: Arc<Replies>,
    unfinished: Mutex<HashSet<u64>>,
    finished: Condvar,
}

/// What a stream's place in the queue knows. Owned by the driver until it calls [`reached`].
struct Place {
    callbacks: Arc<Callbacks>,
    callback: u64,
}

impl Callbacks {
    pub fn new(replies: Arc<Replies>) -> Arc<Self> {
        Arc::new(Self {
            replies,
            unfinished: Mutex::default(),
            finished: Condvar::new(),
        })
    }

    /// Whether the client may have a function to run, and then something to say.
    pub fn any(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Queues the client's function `callback` in `stream`.
    pub fn queue(
        self: &Arc<Self>,
        driver: &Driver,
        stream: CUstream,
        callback: u64,
    ) -> Result<CUresult, Violation> {
        let mut unfinished = self.lock();
        if unfinished.len() == MOST_QUEUED || !unfinished.insert(callback) {
            return Err(Violation::new(format!(
                "host function {callback} is queued twice, or {MOST_QUEUED} others are"
            )));
        }
        drop(unfinished);
        let callbacks = self.clone();
        let place = Box::into_raw(Box::new(Place {
            callbacks,
            callback,
        }));
        // SAFETY: the driver calls the function once with the place that it is given here, or not at all.
        let status = unsafe { (driver.cuLaunchHostFunc)(stream, Some(reached), place.cast()) };
        if status != 0 {
            // SAFETY: a driver that refuses the function does not call it.
            drop(unsafe { Box::from_raw(place) });
            self.lock().remove(&callback);
        }
        Ok(status)
    }

    /// The client's function has returned.
    pub fn done(&self, callback: u64) -> Result<(), Violation> {
        if !self.lock().remove(&callback) {
            return Err(Violation::new(format!(
                "host function {callback} has returned without being called"
            )));
        }
        self.finished.notify_all();
        Ok(())
    }

    /// Tells the client that a stream has come to its function, and waits for it.
    fn run(&self, callback: u64) {
        let mut e = Encoder::new();
        let start = e.begin_reply();
        let status = 0;
        Push::Callback { callback, status }.encode(&mut e);
        e.end_reply(start, PUSH, 0, 0);
        // If the client is gone, whoever reads from it ends the session.
        let _ = self.replies.send_from_driver(e.as_slice());
        let mut unfinished = self.lock();
        while unfinished.contains(&callback) {
            unfinished = self
                .finished
                .wait(unfinished)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.unfinished
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Called by the driver, on a thread of its own, where the function has its place in the stream.
unsafe extern "C" fn reached(place: *mut c_void) {
    // SAFETY: made by `queue`, and called once.
    let place = unsafe { Box::from_raw(place.cast::<Place>()) };
    place.callbacks.run(place.callback);
}
