//! A trace of what passes between this process and its sessions, and of the calls that caused it.
//!
//! Blocks go into a ring in shared memory, which a recorder (`harp-trace record`) empties: it hashes,
//! compresses and writes, so that neither a slow disk nor the end of this process costs anything but what
//! finds no room. Without `HARP_TRACE_SOCKET` nothing of this happens, and each tap is one branch.
//!
//! * [`hooks`]: each driver call, when it begins and when it has ended;
//!
//! Which bytes of a call are data, and how much of them is kept, is said in [`harp_trace::payloads`].
//!
//! The order of calls is that of their session's stream: they are recorded under the lock that they are
//! queued under. Nothing else is locked while the ring is.

mod hooks;

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use harp_driver_front::threads::Uncancelled;
use harp_trace::block::{Block, PAYLOAD_MIN};
use harp_trace::greeting::greet;
use harp_trace::payloads::{self, Policies};
use harp_trace::ring::Producer;
use harp_trace::tape::Tape;
use harp_trace::told::{self, Recorded};
use harp_wire::push::Span;
use harp_wire::reply::REPLY_HEAD_BYTES;
use harp_wire::{Because, CallId};

use crate::clock::{ticks, Clock};
use crate::generated::exports::NAMES;
use crate::session::program_name;
use crate::session::settings::{say, settings, LogLevel};
pub use hooks::{thread_ended, HOOKS};

/// Bytes of the ring: those of a tenth of a second of launches and nothing else, at 170 each.
const RING_BYTES: usize = 32 << 20;

/// Null while nothing is recorded.
static RECORDER: AtomicPtr<Recorder> = AtomicPtr::new(null_mut());

/// What is being recorded of this process.
pub struct Recorder {
    state: Mutex<State>,
    /// Its end is that of the trace.
    socket: OwnedFd,
}

struct State {
    tape: Tape,
    clock: Clock,
    is_over: bool,
}

/// The recorder, where this process is recorded. For what is done for a session, which a copy of the process
/// has none of.
#[inline]
pub fn recorder() -> Option<&'static Recorder> {
    // SAFETY: null, or leaked by `begin`.
    unsafe { RECORDER.load(Ordering::Acquire).as_ref() }
}

/// Begins the trace of this process, if one is wanted. What stands in the way is said, and then the program
/// runs without.
pub fn begin() {
    let Some(path) = &settings().trace_socket else {
        return;
    };
    let policies = settings().trace_payload;
    let not_recorded = |cause: &str, error, next_step: &str| {
        let line = format!("nothing of this process is recorded: {cause}: {error}; {next_step}");
        say(LogLevel::Normal, &line);
    };
    let (ring, fds) = match Producer::create(RING_BYTES) {
        Ok(ring) => ring,
        Err(error) => {
            let cause = "no shared memory of 32 MiB";
            let next_step = "raise the limits on memory and files (`ulimit -a`)";
            return not_recorded(cause, error, next_step);
        }
    };
    let socket = match greet(path, &program_name(), fds) {
        Ok(socket) => socket,
        Err(error) => {
            let next_step = "have the program that harp-run starts wait for its children";
            return not_recorded("its recorder cannot be reached", error, next_step);
        }
    };
    let mut state = State {
        tape: Tape::new(ring, policies),
        clock: Clock::new(),
        is_over: false,
    };
    state.tape.append(0, &Block::Define(&define()));
    state.tape.append(0, &Block::Process(&process(policies)));
    let recorder = Box::leak(Box::new(Recorder {
        state: Mutex::new(state),
        socket,
    }));
    hooks::enter_begun(recorder);
    RECORDER.store(recorder, Ordering::Release);
}

fn define() -> Vec<u8> {
    told::define(NAMES.iter().map(|name| name.to_string_lossy()))
}

fn process(policies: Policies) -> Vec<u8> {
    let pid = std::process::id();
    told::process(&program_name(), pid, policies, Recorded::Program)
}

/// Ends the trace: the program is over.
pub fn end() {
    let Some(recorder) = recorder() else { return };
    RECORDER.store(null_mut(), Ordering::Release);
    let _uncancelled = Uncancelled::new(); // it may sleep
    let mut state = recorder.lock();
    state.is_over = true;
    let time = state.clock.ns(ticks());
    state.tape.end(time);
}

/// In a forked child: the trace is its parent's, and ends with that. Only async-signal-safe calls are made.
pub fn forget() {
    let recorder = RECORDER.swap(null_mut(), Ordering::AcqRel);
    // SAFETY: null, or leaked by `begin`.
    if let Some(recorder) = unsafe { recorder.as_ref() } {
        crate::session::disconnect(recorder.socket.as_raw_fd());
    }
}

impl Recorder {
    #[inline]
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the tape take what happened when the counter stood at `ticks`; nothing once the trace has ended.
    #[inline]
    fn write(&self, ticks: u64, what: impl FnOnce(&mut Tape, u64)) {
        let mut state = self.lock();
        if !state.is_over {
            let time = state.clock.ns(ticks);
            what(&mut state.tape, time);
        }
    }

    #[inline]
    fn enter(&self, ticks: u64, thread: u32, symbol: u16) {
        self.write(ticks, |tape, time| tape.enter(time, thread, symbol));
    }

    #[inline]
    fn leave(&self, ticks: u64, thread: u32, result: u32) {
        self.write(ticks, |tape, time| tape.leave(time, thread, result));
    }

    /// A session has begun.
    pub fn session(
        &self,
        number: usize,
        server: &str,
        snapshot: &[u8],
        round_trip_ns: Option<u64>,
    ) {
        let json = told::session(number, server, snapshot, round_trip_ns);
        self.write(ticks(), |tape, time| {
            tape.session(time, number as u32, &json);
        });
    }

    /// A record goes into the stream of a session; to be called while no other one can. Its last `payload`
    /// bytes are data.
    #[inline(never)]
    pub fn call(&self, session: usize, record: &[u8], payload: usize) {
        let (record, payload) = payloads::split(record, payload);
        self.call_with(session, record, payload);
    }

    /// As [`call`](Self::call), for a payload that lies elsewhere.
    #[inline]
    pub fn call_with(&self, session: usize, record: &[u8], payload: &[u8]) {
        let ticks = ticks();
        let _uncancelled = (!payload.is_empty()).then(Uncancelled::new); // it may sleep
        self.write(ticks, |tape, time| {
            tape.call(time, session as u32, record, payload);
        });
    }

    /// A reply has come: its head, and its outputs, or else the data that has landed in the program's memory.
    pub fn reply(
        &self,
        session: usize,
        head: &[u8; REPLY_HEAD_BYTES],
        outputs: &[u8],
        landed: &[u8],
    ) {
        let ticks = ticks();
        let has_data = outputs.len().max(landed.len()) >= PAYLOAD_MIN;
        let _uncancelled = has_data.then(Uncancelled::new); // it may sleep
        self.write(ticks, |tape, time| {
            tape.reply(time, session as u32, head, outputs, landed);
        });
    }

    /// The server has said something without being asked.
    pub fn push(&self, session: usize, body: &[u8]) {
        self.write(ticks(), |tape, time| tape.push(time, session as u32, body));
    }

    /// The servers will be asked how long calls take on their devices.
    pub fn expect_device_times(&self) {
        self.lock().tape.expect_device_times();
    }

    /// A server has told how long calls took on its devices, when its clock stood at `now`.
    pub fn device_times(&self, session: usize, now: u64, spans: &[Span]) {
        self.write(ticks(), |tape, time| {
            tape.device_times(time, session as u32, now, spans);
        });
    }

    /// This thread has waited since `began` (ticks) for the reply to a call; the ticket is 0 where it
    /// waited for something else.
    pub fn wait(&self, session: usize, began: u64, ticket: u32, because: Because, call: CallId) {
        let (ended, thread) = (ticks(), hooks::thread(self));
        let mut state = self.lock();
        if state.is_over {
            return;
        }
        let (began, ended) = (state.clock.ns(began), state.clock.ns(ended));
        let block = Block::Wait {
            began,
            ended,
            thread,
            session: session as u32,
            ticket,
            reason: because as u16,
            call: call.0,
        };
        state.tape.append(ended, &block);
    }

    /// The program has got memory of a device.
    pub fn allocated(&self, session: usize, device: i32, address: u64, bytes: u64) {
        self.write(ticks(), |tape, time| {
            let block = Block::Allocation {
                time,
                session: session as u32,
                device: device as u32,
                address,
                bytes,
            };
            tape.append(time, &block);
        });
    }

    /// Memory of a device is the program's no more.
    pub fn freed(&self, session: usize, address: u64) {
        self.write(ticks(), |tape, time| {
            let block = Block::Free {
                time,
                session: session as u32,
                address,
            };
            tape.append(time, &block);
        });
    }
}
