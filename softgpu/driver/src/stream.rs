//! Streams: queues with the ordering rules of CUDA.
//!
//! The *legacy* stream of a context waits for all earlier work of its blocking streams, and they
//! for its. Streams made with `CU_STREAM_NON_BLOCKING` are apart from that. Every thread has a
//! stream of its own in each context, which is a blocking one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use harp_cuda_abi::types::*;
use harp_driver_front::resolve_stream;

use crate::call::Outcome;
use crate::context::Context;
use crate::execution::command::{Command, Marker, Work};
use crate::execution::host_calls;
use crate::execution::queue::Queue;
use crate::handles::Registry;

/// Live streams that programs made.
pub static STREAMS: Registry<Stream> = Registry::new();

/// Lowest and highest priority; lower numbers run first.
pub const PRIORITIES: (i32, i32) = (0, -5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Legacy,
    Blocking,
    NonBlocking,
}

/// One stream.
pub struct Stream {
    /// Unique in this process (`cuStreamGetId`).
    pub id: u64,
    pub priority: i32,
    kind: Kind,
    context: Weak<Context>,
    pub queue: Arc<Queue>,
}

/// A number that no other stream of this process has.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Stream {
    /// The legacy stream of a context that is being made.
    pub fn legacy(context: Weak<Context>, queue: Arc<Queue>) -> Arc<Self> {
        Arc::new(Self {
            id: next_id(),
            priority: 0,
            kind: Kind::Legacy,
            context,
            queue,
        })
    }

    fn new(context: &Arc<Context>, kind: Kind, priority: i32) -> Arc<Self> {
        let (lowest, highest) = PRIORITIES;
        let priority = priority.clamp(highest, lowest);
        let queue = context.add_queue(kind == Kind::Blocking, priority < lowest);
        let context = Arc::downgrade(context);
        Arc::new(Self {
            id: next_id(),
            priority,
            kind,
            context,
            queue,
        })
    }

    /// `cuStreamCreateWithPriority`: priorities out of range are clamped, as CUDA does.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for unknown flags.
    pub fn create(context: &Arc<Context>, flags: u32, priority: i32) -> Outcome<CUstream> {
        let kind = match flags {
            CU_STREAM_DEFAULT => Kind::Blocking,
            CU_STREAM_NON_BLOCKING => Kind::NonBlocking,
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        };
        Ok(STREAMS.insert(Self::new(context, kind, priority)))
    }

    /// The stream that a handle means in `context`: null, 1 and 2 are its default streams.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_HANDLE` for anything that is no live stream.
    pub fn resolve(handle: CUstream, context: &Arc<Context>) -> Outcome<Arc<Self>> {
        match resolve_stream(handle) {
            CU_STREAM_LEGACY => Ok(context.legacy.clone()),
            CU_STREAM_PER_THREAD => Ok(of_this_thread(context)),
            handle => STREAMS.get(handle).ok_or(CUDA_ERROR_INVALID_HANDLE),
        }
    }

    /// As [`Stream::resolve`] for calls that need no current context: a stream that the program made
    /// brings its own, and only the default streams are those of the current one.
    ///
    /// # Errors
    /// As [`Stream::resolve`] and [`Context::current`].
    pub fn find(handle: CUstream) -> Outcome<Arc<Self>> {
        match resolve_stream(handle) {
            CU_STREAM_LEGACY | CU_STREAM_PER_THREAD => Self::resolve(handle, &Context::current()?),
            handle => {
                host_calls::check()?;
                let stream = STREAMS.get(handle).ok_or(CUDA_ERROR_INVALID_HANDLE)?;
                stream.context()?.usable()?;
                Ok(stream)
            }
        }
    }

    /// The context it was made in.
    ///
    /// # Errors
    /// `CUDA_ERROR_CONTEXT_IS_DESTROYED` where that is gone.
    pub fn context(&self) -> Outcome<Arc<Context>> {
        self.context
            .upgrade()
            .ok_or(CUDA_ERROR_CONTEXT_IS_DESTROYED)
    }

    /// Whether it is its context's legacy stream.
    pub fn is_legacy(&self) -> bool {
        self.kind == Kind::Legacy
    }

    /// Whether it was made in `context`.
    pub fn is_of(&self, context: &Context) -> bool {
        core::ptr::eq(self.context.as_ptr(), context)
    }

    /// `cuStreamGetFlags`.
    pub fn flags(&self) -> u32 {
        match self.kind {
            Kind::NonBlocking => CU_STREAM_NON_BLOCKING,
            Kind::Legacy | Kind::Blocking => CU_STREAM_DEFAULT,
        }
    }

    /// What has to happen before a command that is submitted now.
    fn order(&self) -> Vec<Marker> {
        let Some(context) = self.context.upgrade() else {
            return Vec::new();
        };
        match self.kind {
            Kind::Legacy => context.ends_of_blocking_streams(),
            Kind::Blocking if !context.legacy.queue.is_drained() => {
                vec![context.legacy.queue.end()]
            }
            Kind::Blocking | Kind::NonBlocking => Vec::new(),
        }
    }

    /// Queues work and returns at once; the marker is reached when it is done.
    pub fn submit(&self, work: Work) -> Marker {
        let count = self.queue.submit(Command {
            after: self.order(),
            work,
        });
        Marker {
            queue: self.queue.clone(),
            count,
        }
    }

    /// Queues work that also waits for `markers`; the marker that comes back is reached when it is done.
    pub fn submit_after(&self, markers: impl IntoIterator<Item = Marker>, work: Work) -> Marker {
        let mut after = self.order();
        after.extend(markers);
        let count = self.queue.submit(Command { after, work });
        Marker {
            queue: self.queue.clone(),
            count,
        }
    }

    /// Does work in stream order and returns when it is done.
    ///
    /// # Errors
    /// The context's sticky error.
    pub fn run(&self, work: Work) -> Outcome {
        self.run_after([], work)
    }

    /// As [`Stream::run`], once `markers` are reached too.
    ///
    /// # Errors
    /// The context's sticky error.
    pub fn run_after(&self, markers: impl IntoIterator<Item = Marker>, work: Work) -> Outcome {
        let mut after = self.order();
        after.extend(markers);
        self.queue.submit_and_wait(Command { after, work });
        self.show_printed();
        self.check()
    }

    /// Shows what kernels of the stream's context have printed.
    fn show_printed(&self) {
        if let Some(context) = self.context.upgrade() {
            context.printed.flush();
        }
    }

    /// `cuStreamSynchronize`. For the legacy stream that includes what it would wait for.
    ///
    /// # Errors
    /// The context's sticky error.
    pub fn synchronize(&self) -> Outcome {
        for marker in self.order() {
            if self.kind == Kind::Legacy {
                marker.wait();
            }
        }
        self.queue.end().wait();
        self.show_printed();
        self.check()
    }

    /// `cuStreamQuery`.
    ///
    /// # Errors
    /// `CUDA_ERROR_NOT_READY` while work is left, the context's sticky error.
    pub fn query(&self) -> Outcome {
        self.check()?;
        let others_done = self.kind != Kind::Legacy || self.order().is_empty();
        if self.queue.is_drained() && others_done {
            self.check()
        } else {
            Err(CUDA_ERROR_NOT_READY)
        }
    }

    /// Whether work that is queued now would be done at once. Shows what kernels have printed.
    ///
    /// # Errors
    /// As [`Stream::query`].
    pub fn check_idle(&self) -> Outcome {
        self.query()?;
        if !self.order().is_empty() {
            return Err(CUDA_ERROR_NOT_READY);
        }
        self.show_printed();
        Ok(())
    }

    /// Whether no kernel has failed on the stream's device.
    ///
    /// # Errors
    /// The sticky error.
    pub fn check(&self) -> Outcome {
        match self.queue.fault() {
            0 => Ok(()),
            code => Err(code),
        }
    }
}

/// `cuStreamDestroy`: work that is queued still runs.
///
/// # Errors
/// `CUDA_ERROR_INVALID_HANDLE` for the default streams and for no live stream.
pub fn destroy(handle: CUstream) -> Outcome<Arc<Stream>> {
    STREAMS.remove(handle).ok_or(CUDA_ERROR_INVALID_HANDLE)
}

/// Ends the streams of a context that is being wiped.
pub fn end_all_of(context: &Arc<Context>) {
    STREAMS.remove_where(|stream| stream.is_of(context));
}

fn of_this_thread(context: &Arc<Context>) -> Arc<Stream> {
    thread_local! {
        /// The thread's own streams, by context id.
        static STREAMS: RefCell<HashMap<u64, Arc<Stream>>> = RefCell::default();
    }
    let own = STREAMS.try_with(|streams| {
        let mut streams = streams.borrow_mut();
        let make = || Stream::new(context, Kind::Blocking, 0);
        streams.entry(context.id).or_insert_with(make).clone()
    });
    // A thread that is ending has lost its streams; the legacy one orders at least as much.
    own.unwrap_or_else(|_| context.legacy.clone())
}
