//! What CUDA keeps per thread of the program, kept here per client thread: the current context, and the stream that
//! the value `CU_STREAM_PER_THREAD` stands for. The worker serves all client threads from few threads of its own.

use std::collections::HashMap;
use std::ptr;

use harp_cuda_abi::types::{CUcontext, CUresult, CUstream, CU_STREAM_DEFAULT};

use super::Violation;
use crate::generated::driver::Driver;

/// Client threads that a session may have at the same time.
const MOST_THREADS: usize = 1 << 16;

/// Current contexts of the client's threads, and which one this thread of the worker has.
pub struct ClientThreads {
    contexts: HashMap<u32, CUcontext>,
    /// The client thread whose call is being executed, unless that has just ended, and its current context.
    thread: Option<u32>,
    context: CUcontext,
    /// The driver's current context on the worker thread that executes; `None` when that has to be set again.
    applied: Option<CUcontext>,
}

// SAFETY: contexts are opaque values for the driver, which takes them on any thread.
unsafe impl Send for ClientThreads {}

impl ClientThreads {
    pub fn new() -> Self {
        Self {
            contexts: HashMap::new(),
            thread: None,
            context: ptr::null_mut(),
            applied: None,
        }
    }

    /// Client threads that have made calls and not ended.
    pub fn count(&self) -> usize {
        self.contexts.len()
    }

    /// The current context of the client thread that is being served.
    pub fn context(&self) -> CUcontext {
        self.context
    }

    /// The client thread that is being served; 0, which is none's number, after its end.
    pub fn thread(&self) -> u32 {
        self.thread.unwrap_or_default()
    }

    /// Turns to client thread `thread`. True if that is another than before.
    #[inline]
    pub fn enter(&mut self, thread: u32) -> Result<bool, Violation> {
        if self.thread == Some(thread) {
            return Ok(false);
        }
        if self.contexts.len() >= MOST_THREADS && !self.contexts.contains_key(&thread) {
            return Err(Violation::new(format!(
                "more than {MOST_THREADS} client threads"
            )));
        }
        self.thread = Some(thread);
        self.context = *self.contexts.entry(thread).or_insert(ptr::null_mut());
        Ok(true)
    }

    /// The client thread that is being served has made `context` current.
    pub fn set_context(&mut self, context: CUcontext) {
        self.context = context;
        self.contexts.insert(self.thread(), context);
    }

    /// Makes the driver's current context of this worker thread that of the client thread.
    #[inline]
    pub fn apply(&mut self, driver: &Driver) {
        if self.applied != Some(self.context) {
            self.apply_again(driver);
        }
    }

    #[cold]
    fn apply_again(&mut self, driver: &Driver) {
        // SAFETY: the context came from the driver, or is null. One that has been destroyed since is refused by the
        // driver, and the call that follows finds no context, which is what CUDA answers to a program that does this.
        let status = unsafe { (driver.cuCtxSetCurrent)(self.context) };
        if status != 0 {
            // SAFETY: no context at all is always allowed.
            unsafe { (driver.cuCtxSetCurrent)(ptr::null_mut()) };
        }
        self.applied = Some(self.context);
    }

    /// The driver's current context of this worker thread is no longer what `apply` made it, or this is another thread.
    pub fn forget_applied(&mut self) {
        self.applied = None;
    }

    /// A client thread has ended: as a rule the one that is being served, which says so itself.
    pub fn ended(&mut self, thread: u32) {
        self.contexts.remove(&thread);
        if self.thread == Some(thread) {
            self.thread = None;
            self.context = ptr::null_mut();
        }
    }
}

/// The per-thread default streams of the client's threads. A stream belongs to a context, so a thread has one in each
/// context in which it used the value. They are made at first use.
pub struct ThreadStreams {
    driver: Option<&'static Driver>,
    streams: HashMap<(u32, CUcontext), CUstream>,
    owner: (u32, CUcontext),
}

impl ThreadStreams {
    pub fn new(driver: &'static Driver) -> Self {
        Self {
            driver: Some(driver),
            streams: HashMap::new(),
            owner: (0, ptr::null_mut()),
        }
    }

    #[cfg(test)]
    pub fn for_tests() -> Self {
        Self {
            driver: None,
            streams: HashMap::new(),
            owner: (0, ptr::null_mut()),
        }
    }

    /// The context that the client thread which is being served has current.
    pub fn context(&self) -> CUcontext {
        self.owner.1
    }

    /// From now on `current` is about this client thread in this context.
    pub fn enter(&mut self, thread: u32, context: CUcontext) {
        self.owner = (thread, context);
    }

    /// The stream of the client thread that is being served; `Err` as the driver fails to make one.
    pub fn current(&mut self) -> Result<CUstream, CUresult> {
        if let Some(stream) = self.streams.get(&self.owner) {
            return Ok(*stream);
        }
        let driver = self
            .driver
            .expect("a session's thread streams have its driver");
        let mut stream = ptr::null_mut();
        // Not CU_STREAM_NON_BLOCKING: a per-thread default stream waits for the legacy stream and the other way round.
        // SAFETY: the pointer is to a live variable; the owner's context is current.
        match unsafe { (driver.cuStreamCreate)(&mut stream, CU_STREAM_DEFAULT) } {
            0 => {
                self.streams.insert(self.owner, stream);
                Ok(stream)
            }
            code => Err(code),
        }
    }

    /// A client thread has ended, and its streams with it.
    pub fn thread_ended(&mut self, thread: u32) {
        let Some(driver) = self.driver else { return };
        self.streams.retain(|(owner, _), stream| {
            if *owner == thread {
                // SAFETY: made here and in no other table. Work that is still queued on it finishes first.
                unsafe { (driver.cuStreamDestroy_v2)(*stream) };
            }
            *owner != thread
        });
    }

    /// A context's streams end with it.
    pub fn context_ended(&mut self, context: CUcontext) {
        self.streams.retain(|(_, owner), _| *owner != context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_have_ended_make_room_for_others() {
        let mut threads = ClientThreads::new();
        for thread in 1..=MOST_THREADS as u32 + 1 {
            assert_eq!(threads.enter(thread).ok(), Some(true));
            threads.set_context(ptr::without_provenance_mut(8));
            threads.ended(thread);
            assert_eq!(threads.count(), 0);
            assert!(threads.context().is_null());
        }
    }

    #[test]
    fn threads_that_go_on_are_bounded_and_keep_their_contexts() {
        let mut threads = ClientThreads::new();
        for thread in 1..=MOST_THREADS as u32 {
            assert_eq!(threads.enter(thread).ok(), Some(true));
            threads.set_context(ptr::without_provenance_mut(thread as usize));
        }
        assert!(threads.enter(MOST_THREADS as u32 + 1).is_err());
        threads.ended(2);
        assert_eq!(threads.enter(1).ok(), Some(true));
        assert_eq!(threads.enter(1).ok(), Some(false));
        assert_eq!(threads.context().addr(), 1);
        assert_eq!(threads.enter(MOST_THREADS as u32 + 1).ok(), Some(true));
        assert!(threads.context().is_null());
    }
}
