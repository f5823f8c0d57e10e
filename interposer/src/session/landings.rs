//! Bytes that land in page-locked memory of the program while it goes on.
//!
//! The server sends them in the order of their stream, and all that tells the program of the stream's progress behind
//! them; whichever thread waits next reads them. What uses or frees such memory in other ways waits for them here.

use std::collections::{HashMap, HashSet};
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

/// The same where one of the program's functions in streams has not returned, short ones and others: the copies may be
/// behind it, and it may be waiting for the thread that asks for them.
const SHORT_BEHIND_MAX: usize = 960;
const LONG_BEHIND_MAX: usize = 56;
/// For short ones the server has buffers of this size.
const SHORT_BYTES: usize = 16 << 10;

/// How long to wait for bytes before the device is asked whether it has failed.
const PATIENCE: Duration = Duration::from_millis(500);

/// One copy.
struct Landing {
    at: Range<usize>,
    /// Until its bytes come.
    destination: Option<Destination>,
    /// The one that its stream belongs to.
    context: u64,
}

impl Landing {
    fn touches(&self, range: &Range<usize>) -> bool {
        self.at.start < range.end && range.start < self.at.end
    }
}

/// The copies that are on their way, by ticket.
#[derive(Default)]
pub struct Landings {
    all: HashMap<u32, Landing>,
    /// Tickets of those that nobody wants any more, should they come.
    unwanted: HashSet<u32>,
    /// What one of them has failed with, until somebody is told.
    failure: CUresult,
}

impl Landings {
    fn add(&mut self, ticket: u32, destination: Destination, context: u64) {
        let landing = Landing {
            at: destination.range(),
            destination: Some(destination),
            context,
        };
        self.all.insert(ticket, landing);
    }

    /// Where the bytes of that ticket go, which have come: nowhere if they are not wanted any more. `None` if it is no
    /// such ticket.
    pub fn arrives(&mut self, ticket: u32) -> Option<Option<Destination>> {
        match self.all.get_mut(&ticket) {
            Some(landing) => Some(landing.destination.take()),
            None => self.unwanted.contains(&ticket).then_some(None),
        }
    }

    /// They are there, or what has become of them.
    pub fn arrived(&mut self, ticket: u32, status: CUresult) {
        let known = self.all.remove(&ticket).is_some() || self.unwanted.remove(&ticket);
        if known && self.failure == CUDA_SUCCESS {
            self.failure = status;
        }
    }

    pub fn holds(&self, ticket: u32) -> bool {
        self.all.contains_key(&ticket) || self.unwanted.contains(&ticket)
    }

    pub fn take_failure(&mut self) -> CUresult {
        std::mem::replace(&mut self.failure, CUDA_SUCCESS)
    }

    fn has_room(&self, bytes: usize) -> bool {
        let on_their_way: usize = self.all.values().map(|landing| landing.at.len()).sum();
        let fits = on_their_way + bytes <= BYTES_MAX && self.all.len() < COPIES_MAX;
        self.all.is_empty() || fits
    }

    /// As [`has_room`](Self::has_room), where a function may be waiting for this thread.
    fn has_room_behind_functions(&self, bytes: usize) -> bool {
        let is_long = |bytes: usize| bytes > SHORT_BYTES;
        let all = self.all.values();
        let alike = all.filter(|landing| is_long(landing.at.len()) == is_long(bytes));
        let most = match is_long(bytes) {
            true => LONG_BEHIND_MAX,
            false => SHORT_BEHIND_MAX,
        };
        alike.count() < most
    }

    /// The context of one within a range.
    fn context_within(&self, range: &Range<usize>) -> Option<u64> {
        let mut all = self.all.values();
        all.find(|landing| landing.touches(range))
            .map(|landing| landing.context)
    }

    /// Gives up those whose bytes are not coming just now; `false` if others are.
    fn give_up(&mut self, which: impl Fn(&Landing) -> bool) -> bool {
        let Landings { all, unwanted, .. } = self;
        all.retain(|ticket, landing| {
            let goes = which(landing) && landing.destination.is_some();
            if goes {
                unwanted.insert(*ticket);
            }
            !goes
        });
        !all.values().any(which)
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
        let has_room = || {
            self.incoming.landings(|landings| {
                landings.has_room(len)
                    || self.callbacks.any() && landings.has_room_behind_functions(len)
            })
        };
        if !has_room() {
            self.stats
                .waiting(call, 0, Because::Network, || self.make_room(has_room))?;
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

    /// Waits for bytes that are on their way.
    ///
    /// # Errors
    /// The code of a device that has failed: it sends none.
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
                self.give_up_failed();
                self.check_fault()?;
            }
        }
        Ok(())
    }

    /// Gives up what contexts will not send any more.
    fn give_up_failed(&self) {
        let contexts: HashSet<u64> = self.incoming.landings(|landings| {
            let all = landings.all.values();
            all.map(|landing| landing.context).collect()
        });
        for context in contexts {
            let _visit = Visit::of(context);
            // SAFETY: the context's default stream.
            match unsafe { forward::cuStreamQuery(std::ptr::null_mut()) } {
                CUDA_SUCCESS | CUDA_ERROR_NOT_READY => {}
                _ => {
                    let of_it = |landing: &Landing| landing.context == context;
                    self.incoming.landings(|landings| landings.give_up(of_it));
                }
            }
        }
    }

    /// Returns when no bytes land in a range of the program's memory any more.
    pub fn settle(&self, range: Range<usize>) {
        let context = |landings: &mut Landings| landings.context_within(&range);
        while let Some(context) = self.incoming.landings(context) {
            let visit = Visit::of(context);
            // What it returns does not matter: after a failure they do not come.
            // SAFETY: no arguments.
            because(Because::Order, || unsafe { forward::cuCtxSynchronize() });
            drop(visit);
            let of_it = |landing: &Landing| landing.touches(&range) && landing.context == context;
            while !self.incoming.landings(|landings| landings.give_up(of_it)) {
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
        let touching = |landing: &Landing| landing.touches(&range);
        assert!(!landings.give_up(touching), "the first is arriving");
        assert_eq!(landings.context_within(&range), Some(1));
        landings.arrived(1, CUDA_SUCCESS);
        assert!(landings.give_up(touching));
        assert_eq!(landings.context_within(&range), None);
        assert!(landings.holds(2) && landings.has_room(BYTES_MAX));
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

    #[test]
    fn behind_functions_there_is_room_for_more() {
        let mut landings = Landings::default();
        let mut memory = vec![0; SHORT_BYTES + 1];
        for ticket in 0..LONG_BEHIND_MAX as u32 {
            assert!(landings.has_room_behind_functions(memory.len()));
            landing(&mut landings, ticket, &mut memory);
        }
        assert!(!landings.has_room_behind_functions(memory.len()));
        for ticket in 0..SHORT_BEHIND_MAX as u32 {
            assert!(landings.has_room_behind_functions(SHORT_BYTES));
            landing(&mut landings, 100 + ticket, &mut memory[..SHORT_BYTES]);
        }
        assert!(!landings.has_room_behind_functions(SHORT_BYTES));
    }
}
