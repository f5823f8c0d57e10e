//! Copies to page-locked memory of the program, for which it does not wait.
//!
//! Whatever tells the client that a stream has got behind such a copy comes after its bytes: each frame to the client is
//! preceded by what has landed until then, and while nothing is sent a thread looks (`session::tending`). A host function
//! behind each copy would tell at once, and would wait for those of the program, which a driver calls one after the other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use harp_cuda_abi::types::{CUdeviceptr, CUresult, CUstream};

use super::staging::{Buffer, Passed};
use super::waits::Outcome;
use crate::generated::driver::Driver;

/// One copy.
struct Landing {
    ticket: u32,
    buffer: Buffer,
    passed: Passed,
}

/// The copies of a session that are under way.
#[derive(Default)]
pub struct Landings {
    copies: Mutex<Vec<Landing>>,
    /// How many there are, from before one is queued until it has been sent: to be looked at before each reply.
    count: AtomicUsize,
}

impl Landings {
    /// Queues a copy of as many bytes as `buffer` has from `source` in `stream` of the current context, which are told of
    /// under `ticket` once the stream has passed it.
    ///
    /// # Errors
    /// The driver's code, where there is no such copy.
    pub fn begin(
        &self,
        driver: &Driver,
        ticket: u32,
        (source, buffer): (CUdeviceptr, Buffer),
        stream: CUstream,
    ) -> Result<(), CUresult> {
        self.count.fetch_add(1, Ordering::SeqCst);
        let (at, bytes) = (buffer.start(), buffer.as_ref().len());
        // SAFETY: the buffer has room for the bytes, and stays until the stream has passed the copy.
        let queued = unsafe { (driver.cuMemcpyDtoHAsync_v2)(at, source, bytes, stream) };
        let passed = match queued {
            0 => Passed::after(driver, stream),
            status => Err(status),
        };
        match passed {
            Ok(passed) => {
                self.lock().push(Landing {
                    ticket,
                    buffer,
                    passed,
                });
                Ok(())
            }
            Err(status) => {
                if queued == 0 {
                    // Nobody could tell when the device has written it.
                    std::mem::forget(buffer);
                }
                self.sent(1);
                Err(status)
            }
        }
    }

    /// What has landed since this was last asked for, and what has become of each. It is [`sent`](Self::sent) before
    /// anything else.
    pub fn landed(&self, driver: &Driver) -> Vec<(u32, Outcome)> {
        if self.open() == 0 {
            return Vec::new();
        }
        let mut over = newest_first(&mut self.lock(), |copy| copy.passed.status(driver));
        over.reverse();
        over.into_iter()
            .map(|(copy, status)| outcome(driver, copy, status))
            .collect()
    }

    /// How many are under way still, or on their way to whom it is that sends them.
    pub fn open(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// So many that have landed are on their way to the client.
    pub fn sent(&self, copies: usize) {
        self.count.fetch_sub(copies, Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Landing>> {
        self.copies
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
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
