//! Events: points in streams that can be waited for and timed.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use harp_cuda_abi::types::*;

use crate::call::Outcome;
use crate::context::Context;
use crate::execution::command::{Marker, Timestamp, Work};
use crate::execution::host_calls;
use crate::handles::Registry;
use crate::stream::Stream;

/// Live events.
pub static EVENTS: Registry<Event> = Registry::new();

const KNOWN_FLAGS: u32 = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;

/// The latest time that an event was recorded.
#[derive(Clone)]
struct Recording {
    marker: Marker,
    time: Arc<Timestamp>,
}

/// One event.
pub struct Event {
    context: Weak<Context>,
    timed: bool,
    recording: Mutex<Option<Recording>>,
}

impl Event {
    /// `cuEventCreate`.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for unknown flags, `CUDA_ERROR_NOT_SUPPORTED` for an event that
    /// other processes are to see.
    pub fn create(context: &Arc<Context>, flags: u32) -> Outcome<CUevent> {
        let timed = flags & CU_EVENT_DISABLE_TIMING == 0;
        let interprocess = flags & CU_EVENT_INTERPROCESS != 0;
        if flags & !KNOWN_FLAGS != 0 || interprocess && timed {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if interprocess {
            return Err(CUDA_ERROR_NOT_SUPPORTED);
        }
        let event = Self {
            context: Arc::downgrade(context),
            timed,
            recording: Mutex::new(None),
        };
        Ok(EVENTS.insert(Arc::new(event)))
    }

    /// The event that a handle names.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_HANDLE` where it names none.
    pub fn get(handle: CUevent) -> Outcome<Arc<Self>> {
        host_calls::check()?;
        EVENTS.get(handle).ok_or(CUDA_ERROR_INVALID_HANDLE)
    }

    /// The sticky error of its context.
    ///
    /// # Errors
    /// The code of the first kernel that failed there, `CUDA_ERROR_CONTEXT_IS_DESTROYED` where the
    /// context is gone.
    pub fn check_fault(&self) -> Outcome {
        let context = self.context.upgrade();
        context
            .ok_or(CUDA_ERROR_CONTEXT_IS_DESTROYED)?
            .check_fault()
    }

    /// `cuEventRecord`: from now on the event stands for this point of the stream.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_HANDLE` where the stream is of another context.
    pub fn record(&self, stream: &Stream) -> Outcome {
        if !core::ptr::eq(self.context.as_ptr(), Arc::as_ptr(&stream.context()?)) {
            return Err(CUDA_ERROR_INVALID_HANDLE);
        }
        let time = Arc::new(Timestamp::default());
        let work = if self.timed {
            Work::Record(time.clone())
        } else {
            Work::Order
        };
        let marker = stream.submit(work);
        *self.lock() = Some(Recording { marker, time });
        Ok(())
    }

    /// Has later work of `stream` wait for the latest recording, if there is one.
    pub fn hold_up(&self, stream: &Stream) {
        if let Some(recording) = self.latest() {
            if !recording.marker.is_reached() {
                stream.submit_after([recording.marker], Work::Order);
            }
        }
    }

    /// `cuEventQuery`.
    ///
    /// # Errors
    /// `CUDA_ERROR_NOT_READY` while the recorded point lies ahead.
    pub fn query(&self) -> Outcome {
        match self.latest() {
            Some(recording) if !recording.marker.is_reached() => Err(CUDA_ERROR_NOT_READY),
            _ => Ok(()),
        }
    }

    /// `cuEventSynchronize`.
    pub fn synchronize(&self) {
        if let Some(recording) = self.latest() {
            recording.marker.wait();
        }
    }

    /// Milliseconds from this event to `end`.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_HANDLE` where one was never recorded or takes no time, or where they are of
    /// two devices; `CUDA_ERROR_NOT_READY` where one was not reached yet.
    pub fn elapsed(&self, end: &Event) -> Outcome<f32> {
        let device = |event: &Event| event.context.upgrade().map(|it| it.device.ordinal);
        if device(self) != device(end) {
            return Err(CUDA_ERROR_INVALID_HANDLE);
        }
        let time = |event: &Event| {
            let recording = event.latest().filter(|_| event.timed);
            let recording = recording.ok_or(CUDA_ERROR_INVALID_HANDLE)?;
            recording.time.get().ok_or(CUDA_ERROR_NOT_READY)
        };
        let (from, to) = (time(self)?, time(end)?);
        Ok((to as f64 - from as f64) as f32 / 1e6)
    }

    fn latest(&self) -> Option<Recording> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Recording>> {
        self.recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the events of a context that is being wiped.
pub fn end_all_of(context: &Context) {
    EVENTS.remove_where(|event| core::ptr::eq(event.context.as_ptr(), context));
}
