//! Large copies to the client. They are queued in their stream as they come, each into a buffer of its own, and a
//! thread sends what the device has written, so that device, sealing and reading of calls go on at once.
//!
//! One stream at a time has this way, so that none waits for another's kernels: whoever finds it taken by another
//! stream, or all buffers in use, waits in a thread of its own (`session::relay`).

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use harp_cuda_abi::types::{CUcontext, CUdeviceptr, CUresult, CUstream};

use super::staging::{Buffer, Passed, Staging};
use super::waits::Outcome;
use super::{Ending, Replies};
use crate::generated::driver::Driver;

/// Shorter copies are answered with what else there is.
const LARGE: usize = 128 << 10;

/// A copy that the stream has been given.
struct Download {
    ticket: u32,
    context: CUcontext,
    buffer: Buffer,
    written: Passed,
}

// SAFETY: contexts are opaque values for the driver, which takes them on any thread.
unsafe impl Send for Download {}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Download>,
    /// Queued ones, and the one that is being sent.
    unsent: usize,
    /// The stream and context of them.
    owner: (usize, usize),
}

#[derive(Default)]
struct Desk {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// The downloads of a session.
pub struct Downloads {
    driver: &'static Driver,
    replies: Arc<Replies>,
    ending: Arc<Ending>,
    desk: Arc<Desk>,
    /// Whether a thread sends; `None` before the first.
    served: Option<bool>,
}

impl Downloads {
    pub fn new(driver: &'static Driver, replies: Arc<Replies>, ending: Arc<Ending>) -> Downloads {
        Downloads {
            driver,
            replies,
            ending,
            desk: Arc::default(),
            served: None,
        }
    }

    /// Queues a copy of `bytes` bytes from `source` in `stream`, and has `ticket` answered when it is done. `None` if
    /// it must be waited for otherwise.
    pub fn begin(
        &mut self,
        staging: &Staging,
        ticket: u32,
        (source, bytes): (CUdeviceptr, usize),
        (context, stream): (CUcontext, CUstream),
    ) -> Option<CUresult> {
        let owner = (stream as usize, context as usize);
        {
            let queue = self.desk.lock();
            if bytes < LARGE || (queue.unsent > 0 && queue.owner != owner) {
                return None;
            }
        }
        if !*self
            .served
            .get_or_insert_with(|| serve(self.driver, &self.replies, &self.ending, &self.desk))
        {
            return None;
        }
        let buffer = staging.take(self.driver, bytes)?;
        // SAFETY: the buffer has room for the bytes, and stays until the driver has written them.
        let status =
            unsafe { (self.driver.cuMemcpyDtoHAsync_v2)(buffer.start(), source, bytes, stream) };
        if status != 0 {
            return Some(status);
        }
        let written = match Passed::after(self.driver, stream) {
            Ok(written) => written,
            Err(code) => {
                // Nobody could tell when the device has written it.
                std::mem::forget(buffer);
                return Some(code);
            }
        };
        let mut queue = self.desk.lock();
        queue.owner = owner;
        queue.unsent += 1;
        queue.waiting.push_back(Download {
            ticket,
            context,
            buffer,
            written,
        });
        drop(queue);
        self.desk.changed.notify_all();
        Some(0)
    }

    /// Waits until all are sent: before their context ends.
    pub fn drain(&self) {
        let mut queue = self.desk.lock();
        while queue.unsent > 0 {
            queue = self.desk.wait(queue);
        }
    }
}

/// Starts the thread that sends; `false` if there can be none.
fn serve(
    driver: &'static Driver,
    replies: &Arc<Replies>,
    ending: &Arc<Ending>,
    desk: &Arc<Desk>,
) -> bool {
    let (replies, ending, desk) = (replies.clone(), ending.clone(), desk.clone());
    let thread = thread::Builder::new().name("downloads".to_owned());
    let body = move || loop {
        let download = desk.next();
        if let Err(error) = finish(driver, &replies, download) {
            ending.end(&error.to_string());
        }
        desk.sent();
    };
    thread.spawn(body).is_ok()
}

/// Sends what a copy has brought.
fn finish(
    driver: &Driver,
    replies: &Replies,
    download: Download,
) -> Result<(), harp_transport::LinkError> {
    let Download {
        ticket,
        context,
        buffer,
        written,
    } = download;
    // SAFETY: a context of the session, which does not end before this is sent.
    let status = match unsafe { (driver.cuCtxSetCurrent)(context) } {
        0 => written.wait(driver),
        code => {
            // Nobody can tell when the driver has written it.
            std::mem::forget(buffer);
            return replies.conclude(ticket, Outcome::without_bytes(code));
        }
    };
    let outcome = match status {
        0 => Outcome {
            status,
            payload: Some(Box::new(buffer)),
        },
        code => Outcome::without_bytes(code),
    };
    replies.conclude(ticket, outcome)
}

impl Desk {
    fn next(&self) -> Download {
        let mut queue = self.lock();
        loop {
            match queue.waiting.pop_front() {
                Some(download) => return download,
                None => queue = self.wait(queue),
            }
        }
    }

    fn sent(&self) {
        let mut queue = self.lock();
        queue.unsent -= 1;
        if queue.unsent == 0 {
            drop(queue);
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.changed
            .wait(queue)
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
