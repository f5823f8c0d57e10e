//! Copies to page-locked memory of the program, for which it does not wait.
//!
//! Whatever tells the client that a stream has got behind such a copy comes after its bytes: each frame to the client is
//! preceded by what has landed until then. While nothing is sent, a thread looks now and then. A host function behind
//! each copy would tell at once, and would wait for those of the program, which a driver calls one after the other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use harp_cuda_abi::types::{CUcontext, CUdeviceptr, CUresult, CUstream};

use super::replies::Replies;
use super::staging::{Buffer, Passed};
use super::waits::Outcome;
use crate::generated::driver::Driver;

/// The thread looks this often, and after every time without success half as often as before, down to the second.
pub const PAUSE: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// One copy.
struct Landing {
    ticket: u32,
    buffer: Buffer,
    passed: Passed,
}

#[derive(Default)]
struct UnderWay {
    copies: Vec<Landing>,
    /// What is to be sent behind that of them which has landed.
    frames: Vec<Vec<u8>>,
    is_tended: bool,
}

/// The copies of a session that are under way.
#[derive(Default)]
pub struct Landings {
    under_way: Mutex<UnderWay>,
    /// How many there are, from before one is queued until it has been sent: to be looked at before each reply.
    count: AtomicUsize,
    more: Condvar,
}

impl Landings {
    /// Queues a copy of as many bytes as `buffer` has from `source` in `stream` of the current `context`, which are sent
    /// as the answer to `ticket`. `None` where nobody would send them.
    pub fn begin(
        self: &Arc<Self>,
        (driver, replies): (&'static Driver, &Arc<Replies>),
        ticket: u32,
        (source, buffer): (CUdeviceptr, Buffer),
        (context, stream): (CUcontext, CUstream),
    ) -> Option<CUresult> {
        if !self.see_to_it((driver, replies), context) {
            return None;
        }
        self.count.fetch_add(1, Ordering::SeqCst);
        let queued = copy(driver, source, &buffer, stream);
        let status = match queued {
            Ok(passed) => {
                let copy = Landing {
                    ticket,
                    buffer,
                    passed,
                };
                let mut under_way = self.lock();
                let is_first = under_way.copies.is_empty();
                under_way.copies.push(copy);
                drop(under_way);
                if is_first {
                    self.more.notify_one();
                }
                return Some(0);
            }
            Err(Failed::Before(status)) => status,
            Err(Failed::Behind(status)) => {
                // Nobody could tell when the device has written it.
                std::mem::forget(buffer);
                status
            }
        };
        self.count.fetch_sub(1, Ordering::SeqCst);
        Some(status)
    }

    /// What has landed since this was last asked for, and what has become of each. It is [`sent`](Self::sent) before
    /// anything else.
    pub fn landed(&self, driver: &Driver) -> Vec<(u32, Outcome)> {
        if !self.any() {
            return Vec::new();
        }
        let mut over = newest_first(&mut self.lock().copies, |copy| copy.passed.status(driver));
        over.reverse();
        over.into_iter()
            .map(|(copy, status)| outcome(driver, copy, status))
            .collect()
    }

    /// Whether some are under way still, or on their way to whom it is that sends them.
    pub fn any(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// So many that have landed are on their way to the client.
    pub fn sent(&self, copies: usize) {
        self.count.fetch_sub(copies, Ordering::SeqCst);
    }

    /// Has a frame sent that comes from within the driver, where it may not be asked what has landed. `false` if nothing is
    /// under way: the frame has nothing to wait for.
    pub fn hand_over(&self, frame: &[u8]) -> bool {
        if !self.any() {
            return false;
        }
        self.lock().frames.push(frame.to_owned());
        self.more.notify_one();
        true
    }

    /// Whether there is a thread for what nobody else sends; it is started for the first copy.
    fn see_to_it(
        self: &Arc<Self>,
        (driver, replies): (&'static Driver, &Arc<Replies>),
        context: CUcontext,
    ) -> bool {
        let mut under_way = self.lock();
        if !under_way.is_tended {
            let (landings, replies) = (self.clone(), replies.clone());
            let context = context as usize;
            let thread = thread::Builder::new().name("landings".to_owned());
            let started = thread.spawn(move || {
                // SAFETY: a context of the session; where it is gone the driver says so to whoever asks.
                unsafe { (driver.cuCtxSetCurrent)(context as CUcontext) };
                landings.tend(&replies)
            });
            under_way.is_tended = started.is_ok();
        }
        under_way.is_tended
    }

    /// The thread's life.
    fn tend(&self, replies: &Replies) -> ! {
        let mut pause = PAUSE;
        loop {
            let mut under_way = self.lock();
            while under_way.copies.is_empty() && under_way.frames.is_empty() {
                under_way = self
                    .more
                    .wait(under_way)
                    .unwrap_or_else(|poison| poison.into_inner());
                pause = PAUSE;
            }
            if under_way.frames.is_empty() {
                let waited = self.more.wait_timeout(under_way, pause);
                under_way = waited.unwrap_or_else(|poison| poison.into_inner()).0;
            }
            let before = under_way.copies.len();
            let frames = std::mem::take(&mut under_way.frames);
            drop(under_way);
            replies.send_completed();
            for frame in frames {
                // If the client is gone, whoever reads from it ends the session.
                let _ = replies.send(&frame);
            }
            pause = match self.lock().copies.len() {
                now if now < before => PAUSE,
                _ => (pause * 2).min(PAUSE_MAX),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }
}

/// Why a copy is not under way.
enum Failed {
    Before(CUresult),
    /// It is queued, and nobody can tell when it is over.
    Behind(CUresult),
}

fn copy(
    driver: &Driver,
    source: CUdeviceptr,
    buffer: &Buffer,
    stream: CUstream,
) -> Result<Passed, Failed> {
    let bytes = buffer.as_ref().len();
    // SAFETY: the buffer has room for the bytes, and stays until the stream has passed the copy.
    match unsafe { (driver.cuMemcpyDtoHAsync_v2)(buffer.start(), source, bytes, stream) } {
        0 => Passed::after(driver, stream).map_err(Failed::Behind),
        status => Err(Failed::Before(status)),
    }
}

/// Takes out what is over, `ask`ing the newest first: when that is over so is, before it is asked, all that it came
/// behind, in whatever streams. The other way round a copy could be sent ahead of one that it has to overwrite.
fn newest_first<T>(
    copies: &mut Vec<T>,
    ask: impl Fn(&T) -> Option<CUresult>,
) -> Vec<(T, CUresult)> {
    let mut over = Vec::new();
    for index in (0..copies.len()).rev() {
        if let Some(status) = ask(&copies[index]) {
            over.push((copies.remove(index), status));
        }
    }
    over
}

/// Of a copy that is over.
fn outcome(driver: &Driver, copy: Landing, status: CUresult) -> (u32, Outcome) {
    let Landing {
        ticket,
        buffer,
        passed,
    } = copy;
    passed.end(driver);
    let outcome = match status {
        0 => Outcome {
            status: 0,
            payload: Some(Box::new(buffer)),
        },
        status => {
            // A device that has failed may have, and one that goes on may still write it.
            std::mem::forget(buffer);
            Outcome::without_bytes(status)
        }
    };
    (ticket, outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn no_copy_is_over_without_those_before_it() {
        // The device gets on after each question.
        for ahead in 0..6 {
            let over = Cell::new(0);
            let ask = |number: &usize| {
                let status = (*number < over.get()).then_some(0);
                over.set(over.get() + ahead);
                status
            };
            let mut left: Vec<usize> = (0..6).collect();
            let found = newest_first(&mut left, ask);
            let found: Vec<usize> = found.into_iter().map(|(number, _)| number).collect();
            assert!(
                found.is_sorted_by(|after, before| after > before),
                "{found:?}"
            );
            assert!(
                found.iter().all(|over| left.iter().all(|open| over < open)),
                "{found:?} {left:?}"
            );
        }
    }
}
