//! Sessions: this process's ordered conversations with pool servers, one with each server that it
//! has devices of.
//!
//! They begin at the first call that needs a device and not before, so that children that never
//! use CUDA connect to nothing. Calling threads do their own input and output: [`outgoing`] batches
//! one-way calls and sends them, [`incoming`] lets one waiting thread read for all, [`output`] writes
//! what kernels print. Lock order:
//! `Outgoing::sender` before `Outgoing::queue`; `Incoming::reader` before `Incoming::pending`;
//! none of the first pair is taken while one of the second is held.
//!
//! A call finds its session by a handle among its arguments, which says whose it is; else by an
//! address, which lies in memory of a context; else by the calling thread's current context.

pub mod addresses;
mod begin;
mod cache;
pub mod callbacks;
pub mod checks;
pub mod credit;
mod faults;
pub mod handles;
mod idle;
mod incoming;
mod landings;
mod life;
mod outgoing;
mod output;
pub mod settings;
mod several;
pub mod snapshot;
mod stats;
mod thread;
pub mod twins;
pub mod watches;
mod weather;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Mutex;
use std::thread::Thread;

use harp_cuda_abi::types::*;
use harp_driver_front::threads::Uncancelled;
use harp_transport::{Keeper, LinkInfo, Loan};
use harp_wire::{Because, CallId, Decoder, Encoder};

pub use begin::program_name;
pub use life::{attach_program, begun, connected, disconnect, sessions};
pub use several::Sessions;
pub use stats::because;
pub use thread::{context_begun, context_changed, id as thread_id};

use crate::api::{current_context, current_device};
use cache::Cache;
use callbacks::{Callbacks, HostFunction};
use faults::Faults;
use idle::Idle;
use incoming::{Incoming, Reply};
use landings::Landings;
use outgoing::Outgoing;
use output::Output;
use settings::{say, settings, LogLevel};
use stats::{readable_bytes, reason_for, Stats};
use twins::Twins;
use watches::Watches;

/// A running session.
pub struct Session {
    /// Its number among the process's sessions, which its handles carry.
    pub number: usize,
    /// `host:port`, as the program was told it.
    pub server: String,
    /// The architecture (86) of the server's devices, where they are soft ones.
    pub soft_architecture: Option<u32>,
    /// The server knows `harp_describe`.
    pub describes: bool,
    /// The server knows `cuFuncLoad`.
    pub loads_functions: bool,
    pub callbacks: Callbacks,
    output: Output,
    pub twins: Twins,
    pub watches: Watches,
    link: LinkInfo,
    keeper: Keeper,
    outgoing: Outgoing,
    incoming: Incoming,
    cache: Cache,
    stats: Stats,
    faults: Faults,
    idle: Idle,
    /// The code that every call returns from now on, once the devices or the connection are gone.
    lost: AtomicU32,
    /// Runs host functions, once there was one.
    callback_thread: Mutex<Option<Thread>>,
}

/// A reply that has been asked for and not yet waited for.
#[must_use]
pub struct Ticket {
    number: u32,
    call: CallId,
    because: Because,
}

impl Session {
    /// The sticky code, if there is one.
    fn alive(&self) -> Result<(), CUresult> {
        match self.lost.load(Ordering::Relaxed) {
            CUDA_SUCCESS => Ok(()),
            code => Err(code),
        }
    }

    /// Ends the session for every thread: the first cause is printed, the code sticks.
    fn lose(&self, cause: &str) -> CUresult {
        let code = CUDA_ERROR_DEVICE_UNAVAILABLE;
        if self.lost.swap(code, Ordering::Relaxed) == CUDA_SUCCESS && !life::is_over() {
            let (server, calls) = match begun() {
                Some(sessions) if sessions.several() => (
                    format!("the pool server {}", self.server),
                    "every CUDA call about its devices",
                ),
                _ => ("the pool server".to_owned(), "every CUDA call"),
            };
            say(
                LogLevel::Quiet,
                &format!(
                    "the connection to {server} is lost: {cause}; {calls} now \
                     returns CUDA_ERROR_DEVICE_UNAVAILABLE, start the program again once \
                     `harp doctor` finds the server"
                ),
            );
        }
        self.incoming.wake_all();
        code
    }

    /// One line about what the session did and how it was protected.
    fn summary(&self, devices: &str) -> String {
        format!(
            "{devices}; {}{}{}; {} {}",
            self.stats
                .line(self.outgoing.sent_bytes(), self.incoming.received_bytes()),
            match self.cache.spared() {
                0 => String::new(),
                bytes => format!("; {} not sent again", readable_bytes(bytes)),
            },
            match self.keeper.resumed() {
                0 => String::new(),
                1 => "; resumed once".to_owned(),
                times => format!("; resumed {times} times"),
            },
            self.link.tls_version,
            self.link.cipher
        )
    }

    /// Why calls waited, in lines.
    fn profile(&self) -> Vec<String> {
        self.stats.profile()
    }

    /// Fails with the sticky error of the calling thread's device, if there is one.
    pub fn check_fault(&self) -> Result<(), CUresult> {
        self.faults.check(current_device)
    }

    /// The calling thread's current context, if it is one of this session's.
    fn current(&self) -> Option<u64> {
        let current = current_context().ok()? as u64;
        (handles::session_of(current) == self.number).then_some(current)
    }

    /// Whether the calling thread's current context is one of this session's.
    pub fn is_current(&self) -> bool {
        self.current().is_some()
    }

    /// Appends a call that nobody waits for.
    fn post(&self, call: CallId, encode: impl FnOnce(&mut Encoder)) -> Result<(), CUresult> {
        self.alive()?;
        self.stats.count_call();
        self.stats
            .sending(call, || self.outgoing.append(call, None, encode))
            .map_err(|error| self.lose(&error.to_string()))
    }

    /// The ticket of a call that is made now.
    fn ticket(&self, call: CallId, destination: Option<incoming::Destination>) -> Ticket {
        Ticket {
            number: self.incoming.expect(destination),
            call,
            because: reason_for(call),
        }
    }

    /// Sends a call, and all before it, and asks for its reply. Bytes that the reply carries land
    /// in `destination` when one is given.
    fn ask(
        &self,
        call: CallId,
        encode: impl FnOnce(&mut Encoder),
        destination: Option<incoming::Destination>,
    ) -> Result<Ticket, CUresult> {
        self.alive()?;
        self.stats.count_call();
        let ticket = self.ticket(call, destination);
        self.outgoing
            .append(call, Some(ticket.number), encode)
            .and_then(|_| self.outgoing.flush())
            .map_err(|error| self.lose(&error.to_string()))?;
        Ok(ticket)
    }

    /// Waits for a reply.
    fn wait(&self, ticket: Ticket) -> Result<Reply, CUresult> {
        let _uncancelled = Uncancelled::new();
        let Ticket {
            number,
            call,
            because,
        } = ticket;
        let reply = self.stats.waiting(call, number, because, || {
            self.incoming.wait(number, || self.alive().is_err())
        });
        self.concluded(reply)
    }

    /// What a reply says beside its call's own outcome, or why there is none.
    fn concluded(&self, reply: Result<Reply, String>) -> Result<Reply, CUresult> {
        // What kernels printed before the reply is there when the call returns.
        self.output.write();
        let mut reply = reply.map_err(|cause| match self.alive() {
            Err(code) => code,
            Ok(()) => self.lose(&cause),
        })?;
        if reply.deferred == CUDA_SUCCESS {
            reply.deferred = self.incoming.landings(Landings::take_failure);
        }
        for code in [reply.status, reply.deferred] {
            // Of a device that is not current the server knows what stays.
            if code != CUDA_SUCCESS && self.is_current() {
                if let Ok(device) = current_device() {
                    self.faults.note(device, code);
                }
            }
        }
        if reply.deferred != CUDA_SUCCESS {
            say(
                LogLevel::Normal,
                &format!(
                    "an earlier call that did not wait failed with {}; HARP_SYNC=1 makes every \
                     call wait and shows which",
                    error_name(reply.deferred)
                ),
            );
        }
        Ok(reply)
    }

    /// Makes a call that the program does not wait for.
    ///
    /// Its errors must be ones that the client has predicted, or may be reported later: what still
    /// goes wrong is returned once by the next call that waits. With `HARP_SYNC=1` it waits.
    pub fn one_way(&self, call: CallId, encode: impl FnOnce(&mut Encoder)) -> CUresult {
        if settings().every_call_waits {
            return because(Because::EveryCall, || self.request(call, encode, |_| ()));
        }
        let posted = self.check_fault().and_then(|()| self.post(call, encode));
        match posted {
            Ok(()) => CUDA_SUCCESS,
            Err(code) => code,
        }
    }

    /// Tells the server what is no call of the program's, and so is said whatever has become of the
    /// device.
    fn tell(&self, call: CallId, encode: impl FnOnce(&mut Encoder)) {
        // Who is lost need not hear it.
        let _ = self.post(call, encode);
    }

    /// Makes a call and waits for its answer; `outputs` reads what it returned, if it succeeded.
    pub fn request(
        &self,
        call: CallId,
        encode: impl FnOnce(&mut Encoder),
        outputs: impl FnOnce(&mut Decoder),
    ) -> CUresult {
        let pushed = self.twins_before(call);
        if pushed != CUDA_SUCCESS {
            return pushed;
        }
        let answer = self
            .ask(call, encode, None)
            .and_then(|ticket| self.wait(ticket));
        let reply = match answer {
            Ok(reply) => reply,
            Err(code) => return code,
        };
        if reply.status != CUDA_SUCCESS {
            return reply.status;
        }
        let mut decoder = Decoder::new(&reply.body);
        outputs(&mut decoder);
        if decoder.finish().is_err() {
            return CUDA_ERROR_UNKNOWN;
        }
        match reply.deferred {
            CUDA_SUCCESS => self.twins_after(call),
            code => code,
        }
    }

    /// As [`request`](Self::request), for two calls of which the second asks about what the first makes:
    /// they are sent together and waited for once. `outputs` reads what the second returned, if both have
    /// succeeded; the status is the first one's.
    pub fn request_both(
        &self,
        first: CallId,
        encode_first: impl FnOnce(&mut Encoder),
        second: CallId,
        encode_second: impl FnOnce(&mut Encoder),
        outputs: impl FnOnce(&mut Decoder),
    ) -> CUresult {
        let answers = || {
            self.alive()?;
            let tickets = [self.ticket(first, None), self.ticket(second, None)];
            let [asked, described] = [&tickets[0], &tickets[1]].map(|ticket| ticket.number);
            self.stats.count_call();
            self.stats.count_call();
            let send = || {
                self.outgoing.append(first, Some(asked), encode_first)?;
                self.outgoing
                    .append(second, Some(described), encode_second)?;
                self.outgoing.flush()
            };
            send().map_err(|error| self.lose(&error.to_string()))?;
            let _uncancelled = Uncancelled::new();
            let lost = || self.alive().is_err();
            let replies = self.stats.waiting(first, asked, tickets[0].because, || {
                [asked, described].map(|number| self.incoming.wait(number, lost))
            });
            let [made, known] = replies.map(|reply| self.concluded(reply));
            Ok((made?, known?))
        };
        let (made, known) = match answers() {
            Ok(both) => both,
            Err(code) => return code,
        };
        if made.status != CUDA_SUCCESS {
            return made.status;
        }
        if known.status == CUDA_SUCCESS {
            let mut decoder = Decoder::new(&known.body);
            outputs(&mut decoder);
            if decoder.finish().is_err() {
                return CUDA_ERROR_UNKNOWN;
            }
        }
        match made.deferred {
            CUDA_SUCCESS => known.deferred,
            code => code,
        }
    }

    /// Something that payloads may be lent for, for [`one_way_lent`](Self::one_way_lent).
    pub fn loan(&self) -> Loan {
        self.keeper.loan()
    }

    /// As [`one_way`](Self::one_way) or [`request`](Self::request), for a call whose bytes are sent
    /// straight from the program's memory.
    ///
    /// `encode` writes every argument but the last, which is `payload`.
    pub fn one_way_bytes(
        &self,
        call: CallId,
        encode: impl FnOnce(&mut Encoder),
        payload: &[u8],
    ) -> CUresult {
        // SAFETY: nothing is lent.
        unsafe { self.one_way_lent(call, encode, payload, None) }
    }

    /// As [`one_way_bytes`](Self::one_way_bytes); what may have to be sent again of the payload is not copied
    /// before `loan` ends.
    ///
    /// # Safety
    /// With a loan the payload stays as it is until that has been dropped.
    pub unsafe fn one_way_lent(
        &self,
        call: CallId,
        encode: impl FnOnce(&mut Encoder),
        payload: &[u8],
        loan: Option<&Loan>,
    ) -> CUresult {
        let sent = || {
            self.alive()?;
            self.check_fault()?;
            self.stats.count_call();
            let waits = settings().every_call_waits;
            let ticket = waits.then(|| because(Because::EveryCall, || self.ticket(call, None)));
            let number = ticket.as_ref().map(|ticket| ticket.number);
            // SAFETY: the caller's promise.
            let send = || unsafe {
                self.outgoing
                    .append_bytes(call, number, encode, payload, loan)
            };
            self.stats
                .sending(call, send)
                .map_err(|error| self.lose(&error.to_string()))?;
            let Some(ticket) = ticket else {
                return Ok(CUDA_SUCCESS);
            };
            self.outgoing
                .flush()
                .map_err(|error| self.lose(&error.to_string()))?;
            Ok(outcome(&self.wait(ticket)?))
        };
        sent().unwrap_or_else(|code| code)
    }

    /// Asks for bytes that land at `destination`, without waiting yet.
    ///
    /// # Safety
    /// `destination..destination + len` must be writable until [`finish_bytes`](Self::finish_bytes)
    /// has returned for this ticket, whatever happens.
    pub unsafe fn ask_bytes(
        &self,
        call: CallId,
        encode: impl FnOnce(&mut Encoder),
        destination: *mut u8,
        len: usize,
    ) -> Result<Ticket, CUresult> {
        // SAFETY: the caller's promise.
        let destination = unsafe { incoming::Destination::new(destination, len) };
        self.ask(call, encode, Some(destination))
    }

    /// Waits until the bytes of [`ask_bytes`](Self::ask_bytes), asked for in this session, have landed.
    pub fn finish_bytes(&self, ticket: Ticket) -> CUresult {
        match self.wait(ticket) {
            Ok(reply) => outcome(&reply),
            Err(code) => code,
        }
    }

    /// Sends what this process has appended so far.
    fn flush(&self) {
        if let Err(error) = self.outgoing.flush() {
            self.lose(&error.to_string());
        }
    }

    /// Gives a host function in a stream of a context its number, and sees that a thread is there to run it.
    ///
    /// # Errors
    /// `CUDA_ERROR_OPERATING_SYSTEM` where the process may have no such thread.
    pub fn queue_host_function(
        &'static self,
        function: HostFunction,
        context: u64,
    ) -> Result<u64, CUresult> {
        let number = self.callbacks.queue(function, context);
        begin::wake_callback_thread(self)
            .inspect_err(|_| self.callbacks.forget(number))
            .map(|()| number)
    }
}

/// What a call without outputs returns: its own failure, else what an earlier one failed with.
fn outcome(reply: &Reply) -> CUresult {
    match reply.status {
        CUDA_SUCCESS => reply.deferred,
        status => status,
    }
}

fn error_name(code: CUresult) -> String {
    harp_cuda_abi::errors::error_name(code).map_or_else(
        || format!("code {code}"),
        |name| name.to_string_lossy().into_owned(),
    )
}
