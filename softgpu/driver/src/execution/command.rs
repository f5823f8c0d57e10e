//! What a queue holds.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use harp_softgpu_engine::Grid;

use super::copy::{Copy, Fill};
use super::host_calls::HostCall;
use super::polls::Poll;
use super::queue::Queue;
use crate::device::owner_of;

/// A point in a queue: reached when so many of its commands are complete.
#[derive(Clone, Debug)]
pub struct Marker {
    pub queue: Arc<Queue>,
    pub count: u64,
}

impl Marker {
    /// Whether the queue has come this far.
    pub fn is_reached(&self) -> bool {
        self.queue.completed() >= self.count
    }

    /// Blocks until the queue has come this far, doing its work meanwhile.
    pub fn wait(&self) {
        self.queue.wait(self.count);
    }
}

/// When the queue reached an event.
#[derive(Debug, Default)]
pub struct Timestamp(AtomicU64);

impl Timestamp {
    /// Notes the time.
    fn take(&self) {
        self.0.store(nanoseconds(), Ordering::Release);
    }

    /// Nanoseconds on a clock of this process, none before it was taken.
    pub fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|time| *time != 0)
    }
}

/// Nanoseconds since some moment before the first call; never 0.
fn nanoseconds() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64 + 1
}

/// One entry of a queue.
pub struct Command {
    /// Points in other queues that must be reached first.
    pub after: Vec<Marker>,
    pub work: Work,
}

/// A kernel to execute.
pub struct Launch {
    pub grid: Arc<Grid>,
    /// Blocks of the grid.
    pub blocks: u64,
}

/// Bytes of the program that are kept for a command.
pub struct Stored(Box<[u8]>);

static STORED: AtomicU64 = AtomicU64::new(0);

impl Stored {
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        let bytes = bytes.into();
        STORED.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Self(bytes)
    }

    /// Of all commands of the process.
    pub fn bytes() -> u64 {
        STORED.load(Ordering::Relaxed)
    }
}

impl Deref for Stored {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        STORED.fetch_sub(self.0.len() as u64, Ordering::Relaxed);
    }
}

/// What to do.
pub enum Work {
    /// Nothing: only the order counts.
    Order,
    Launch(Launch),
    Copy(Copy),
    /// Bytes that were taken from the program when it made the call, and where they go.
    Store(Stored, u64),
    Fill(Fill),
    /// Note the time of an event.
    Record(Arc<Timestamp>),
    /// Give memory back; done even when the context has failed.
    Free(Box<dyn FnOnce() + Send>),
    /// A function of the program, on a thread of its own.
    Host(HostCall),
    /// Asked again and again until it says that it is done.
    Poll(Poll),
}

impl Work {
    /// Whether the device memory that a copy or fill names is still allocated. The API has checked it
    /// when the call was made; a program may have freed it from elsewhere since, and a device faults then.
    pub fn memory_is_there(&self) -> bool {
        let there = |address, (width, height, depth), pitch: usize, slice: usize| {
            let last = (height - 1) * pitch + (depth - 1) * slice;
            owner_of(address).is_none_or(|device| device.heap.holds(address, (last + width) as u64))
        };
        match self {
            Work::Copy(copy) => {
                let size = (copy.width, copy.height, copy.depth);
                there(copy.from, size, copy.from_pitch, copy.from_slice)
                    && there(copy.to, size, copy.to_pitch, copy.to_slice)
            }
            Work::Store(bytes, to) => there(*to, (bytes.len(), 1, 1), 0, 0),
            Work::Fill(fill) => {
                let size = (fill.width * fill.element, fill.height, 1);
                there(fill.to, size, fill.pitch, 0)
            }
            _ => true,
        }
    }
}

/// Runs what needs no other thread. Launches, host calls and polls are the queue's own business.
///
/// # Safety
/// Copies and fills name memory that the API has checked and that lives until now.
pub unsafe fn run_here(work: Work) {
    match work {
        // SAFETY: the caller's promise.
        Work::Copy(copy) => unsafe { copy.run() },
        // SAFETY: the caller's promise.
        Work::Store(bytes, to) => unsafe {
            Copy::linear(bytes.as_ptr() as u64, to, bytes.len()).run();
        },
        // SAFETY: the caller's promise.
        Work::Fill(fill) => unsafe { fill.run() },
        Work::Record(time) => time.take(),
        Work::Free(free) => free(),
        Work::Order | Work::Launch(_) | Work::Host(_) | Work::Poll(_) => {}
    }
}
