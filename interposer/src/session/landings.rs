//! Bytes that land in page-locked memory of the program while it goes on.
//!
//! The server sends them in the order of their stream, and all that tells the program of the stream's progress behind
//! them; whichever thread waits next reads them. What uses or frees such memory in other ways waits for them here.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use harp_cuda_abi::types::*;
use harp_wire::{Because, CallId, Encoder};

use super::incoming::Destination;
use super::stats::because;
use super::Session;
use crate::api::Visit;
use crate::generated::forward;

/// Bytes and copies that may be on their way at a time: what the server has buffers for.
const BYTES_MAX: usize = 8 << 20;
const COPIES_MAX: usize = 48;

/// How long to wait for bytes before the device is asked whether it has failed.
const PATIENCE: Duration = Duration::from_millis(500);

/// One copy.
struct Landing {
    at: Range<usize>,
    /// Until its bytes come, or it is given up.
    destination: Option<Destination>,
    is_arriving: bool,
    context: u64,
}

/// The copies that are on their way, by ticket.
#[derive(Default)]
pub struct Landings {
    all: HashMap<u32, Landing>,
    bytes: usize,
    /// What one of them has failed with, until somebody is told.
    failure: CUresult,
}

impl Landings {
    fn add(&mut self, ticket: u32, destination: Destination, context: u64) {
        let at = destination.range();
        self.bytes += at.len();
        let landing = Landing {
            at,
            destination: Some(destination),
            is_arriving: false,
            context,
        };
        self.all.insert(ticket, landing);
    }

    /// Where the bytes of that ticket go, which have come: nowhere if they are not wanted any more. `None` if it is no
    /// such ticket.
    pub fn arrives(&mut self, ticket: u32) -> Option<Option<Destination>> {
        let landing = self.all.get_mut(&ticket)?;
        landing.is_arriving = true;
        Some(landing.destination.take())
    }

    /// They are there, or what has become of them.
    pub fn arrived(&mut self, ticket: u32, status: CUresult) {
        if let Some(landing) = self.all.remove(&ticket) {
            self.bytes -= landing.at.len();
            if self.failure == CUDA_SUCCESS {
                self.failure = status;
            }
        }
    }

    pub fn holds(&self, ticket: u32) -> bool {
        self.all.contains_key(&ticket)
    }

    pub fn take_failure(&mut self) -> CUresult {
        std::mem::replace(&mut self.failure, CUDA_SUCCESS)
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.all.is_empty() || (self.bytes + bytes <= BYTES_MAX && self.all.len() < COPIES_MAX)
    }

    fn within(&self, range: &Range<usize>) -> impl Iterator<Item = &Landing> {
        let range = range.clone();
        self.all
            .values()
            .filter(move |landing| landing.at.start < range.end && range.start < landing.at.end)
    }

    /// Gives up those within a range whose bytes are not coming just now; `false` if some are.
    fn give_up(&mut self, range: &Range<usize>) -> bool {
        let mut arriving = false;
        for landing in self.all.values_mut() {
            if landing.at.start < range.end && range.start < landing.at.end {
                arriving |= landing.is_arriving;
                if landing.destination.take().is_some() {
                    landing.at = 0..0;
                }
            }
        }
        !arriving
    }
}

impl Session {
    /// Makes a call whose bytes land at `destination` when its stream has got there, and does not wait for them.
    ///
    /// # Safety
    /// `destination..destination + len` must be writable until [`settle`](Self::settle) has returned for it.
    pub unsafe fn bring(
        &self,
        call: CallId,
        encode: impl FnOnce(&mut Encoder),
        destination: *mut u8,
        len: usize,
        context: u64,
    ) -> Result<(), CUresult> {
        self.alive()?;
        self.check_fault()?;
        let has_room = || self.incoming.landings(|landings| landings.has_room(len));
        if !has_room() {
            self.stats
                .waiting(call, Because::Network, || self.make_room(has_room))?;
        }
        self.stats.count_call();
        // SAFETY: the caller's promise.
        let destination = unsafe { Destination::new(destination, len) };
        let ticket = self.incoming.unused_ticket(|landings, ticket| {
            landings.add(ticket, destination, context);
        });
        self.stats
            .sending(call, || {
                self.outgoing.append_unawaited(call, ticket, encode)
            })
            .map_err(|error| self.lose(&error.to_string()))
    }

    /// Waits for bytes that are on their way. A device that has failed sends none.
    fn make_room(&self, has_room: impl Fn() -> bool) -> Result<(), CUresult> {
        self.flush();
        while !has_room() {
            let started = Instant::now();
            let long = || self.alive().is_err() || started.elapsed() > PATIENCE;
            self.incoming
                .listen(&has_room, long)
                .map_err(|cause| self.lose(&cause))?;
            self.alive()?;
            if !has_room() {
                // SAFETY: the legacy stream of the current context.
                match unsafe { forward::cuStreamQuery(std::ptr::null_mut()) } {
                    CUDA_SUCCESS | CUDA_ERROR_NOT_READY => {}
                    failed => return Err(failed),
                }
            }
        }
        Ok(())
    }

    /// Returns when no bytes land in a range of the program's memory any more.
    pub fn settle(&self, range: Range<usize>) {
        let context = |landings: &mut Landings| landings.within(&range).map(|it| it.context).next();
        while let Some(context) = self.incoming.landings(context) {
            {
                // What it returns does not matter: after a failure they do not come.
                let _visit = Visit::of(context);
                // SAFETY: no arguments.
                because(Because::Order, || unsafe { forward::cuCtxSynchronize() });
            }
            let over = |landings: &mut Landings| landings.give_up(&range);
            while !self.incoming.landings(over) {
                std::thread::yield_now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn landing(landings: &mut Landings, ticket: u32, memory: &mut [u8]) {
        // SAFETY: the memory outlives the test's landings.
        let destination = unsafe { Destination::new(memory.as_mut_ptr(), memory.len()) };
        landings.add(ticket, destination, 1);
    }

    #[test]
    fn what_is_given_up_goes_nowhere_and_what_arrives_is_waited_for() {
        let mut memory = [0; 8];
        let range = memory.as_ptr_range();
        let range = range.start as usize..range.end as usize;
        let (first, second) = memory.split_at_mut(4);
        let mut landings = Landings::default();
        landing(&mut landings, 1, first);
        landing(&mut landings, 2, second);
        assert!(landings.arrives(3).is_none());
        assert!(landings.arrives(1).is_some_and(|to| to.is_some()));
        assert_eq!(landings.within(&range).count(), 2);
        assert!(!landings.give_up(&range), "the first is arriving");
        landings.arrived(1, CUDA_SUCCESS);
        assert!(landings.give_up(&range));
        assert_eq!(landings.within(&range).count(), 0);
        assert!(landings.arrives(2).is_some_and(|to| to.is_none()));
        landings.arrived(2, CUDA_ERROR_UNKNOWN);
        assert_eq!(landings.take_failure(), CUDA_ERROR_UNKNOWN);
        assert_eq!(landings.take_failure(), CUDA_SUCCESS);
        assert!(!landings.holds(2));
    }

    #[test]
    fn bytes_and_copies_are_bounded_but_one_has_always_room() {
        let mut landings = Landings::default();
        assert!(landings.has_room(BYTES_MAX + 1));
        let mut memory = vec![0; BYTES_MAX];
        landing(&mut landings, 1, &mut memory[1..]);
        assert!(landings.has_room(1) && !landings.has_room(2));
        for ticket in 2..=COPIES_MAX as u32 {
            landing(&mut landings, ticket, &mut memory[..0]);
        }
        assert!(!landings.has_room(0));
    }
}
