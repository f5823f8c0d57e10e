//! A trace of what passes between this process and its sessions, and of the calls that caused it.
//!
//! Blocks go into a ring in shared memory, which a recorder (`harp-trace record`) empties: it hashes,
//! compresses and writes, so that neither a slow disk nor the end of this process costs anything but what
//! finds no room. Without `HARP_TRACE_SOCKET` nothing of this happens, and each tap is one branch.
//!
//! * [`hooks`]: each driver call, when it begins and when it has ended;
//! * [`payloads`]: which bytes of a call are data, and how much of them is kept;
//! * [`told`]: what a trace says of itself.
//!
//! The order of calls is that of their session's stream: they are recorded under the lock that they are
//! queued under. Nothing else is locked while the ring is.

mod hooks;
pub mod payloads;
mod told;

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use harp_driver_front::lifecycle;
use harp_driver_front::threads::Uncancelled;
use harp_trace::block::{Block, Message, Payload, PAYLOAD_MIN};
use harp_trace::greeting::greet;
use harp_trace::ring::{Patience, Producer};
use harp_wire::record::RECORD_HEAD_BYTES;
use harp_wire::reply::REPLY_HEAD_BYTES;
use harp_wire::{Because, CallId};

use crate::clock::{ticks, Clock};
use crate::session::program_name;
use crate::session::settings::{say, settings, LogLevel};
pub use hooks::HOOKS;
use payloads::{Class, Policies};

/// Bytes of the ring: a tenth of a second of launches one after the other.
const RING_BYTES: usize = 32 << 20;

/// Null while nothing is recorded.
static RECORDER: AtomicPtr<Recorder> = AtomicPtr::new(null_mut());

/// What is being recorded of this process.
pub struct Recorder {
    state: Mutex<State>,
    policies: Policies,
    /// Its end is that of the trace.
    socket: OwnedFd,
}

struct State {
    ring: Producer,
    clock: Clock,
    /// Calls whose replies bring data, by session and ticket.
    awaited: HashMap<(u32, u32), Class>,
    /// The recorder was too slow for a payload: there are none until it has caught up.
    has_stalled: bool,
    is_over: bool,
    /// Memory for replies.
    reply: Vec<u8>,
}

/// The recorder, where this process is recorded.
#[inline]
pub fn recorder() -> Option<&'static Recorder> {
    let recorder = RECORDER.load(Ordering::Acquire);
    if recorder.is_null() {
        return None;
    }
    recorder_of_this_process(recorder)
}

/// A copy of the process that was recorded writes nothing into its ring.
#[cold]
fn recorder_of_this_process(recorder: *mut Recorder) -> Option<&'static Recorder> {
    match lifecycle::is_copy() {
        true => None,
        // SAFETY: leaked by `begin`.
        false => Some(unsafe { &*recorder }),
    }
}

/// Begins the trace of this process, if one is wanted. What stands in the way is said, and then the program
/// runs without.
pub fn begin() {
    let Some(path) = &settings().trace_socket else {
        return;
    };
    let policies = settings().trace_payload;
    let begun = Producer::create(RING_BYTES)
        .and_then(|(ring, fds)| Ok((greet(path, &program_name(), fds)?, ring)));
    let (socket, ring) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let cause = format!(
                "nothing of this process is recorded: the recorder cannot be reached ({error}); start \
                 the program with `harp-run --trace OUT -- program`"
            );
            return say(LogLevel::Normal, &cause);
        }
    };
    let mut state = State {
        ring,
        clock: Clock::new(),
        awaited: HashMap::new(),
        has_stalled: false,
        is_over: false,
        reply: Vec::new(),
    };
    state.ring.append(0, &Block::Define(&told::define()));
    state
        .ring
        .append(0, &Block::Process(&told::process(policies)));
    let recorder = Box::leak(Box::new(Recorder {
        state: Mutex::new(state),
        policies,
        socket,
    }));
    hooks::enter_begun(recorder);
    RECORDER.store(recorder, Ordering::Release);
}

/// Ends the trace: the program is over.
pub fn end() {
    let Some(recorder) = recorder() else { return };
    RECORDER.store(null_mut(), Ordering::Release);
    let mut state = recorder.lock();
    state.is_over = true;
    let time = state.clock.ns(ticks());
    state.ring.append(time, &Block::End(&told::end(time)));
    state.ring.wake();
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
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what happened when the counter stood at `ticks`.
    #[inline]
    fn append(&self, ticks: u64, block: impl FnOnce(u64) -> Block<'static>) {
        let mut state = self.lock();
        if !state.is_over {
            let time = state.clock.ns(ticks);
            let block = block(time);
            state.ring.append(time, &block);
        }
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
        let mut state = self.lock();
        let time = state.clock.ns(ticks());
        state.ring.append(time, &Block::Session(&json));
    }

    /// A record goes into the stream of a session; to be called while no other one can. Its last `payload`
    /// bytes are data.
    #[inline(never)]
    pub fn call(&self, session: usize, record: &[u8], payload: usize) {
        let cut = if payload < PAYLOAD_MIN { 0 } else { payload };
        let (record, payload) = record.split_at(record.len() - cut);
        self.call_with(session, record, payload);
    }

    /// As [`call`](Self::call), for a payload that lies elsewhere.
    #[inline]
    pub fn call_with(&self, session: usize, record: &[u8], payload: &[u8]) {
        let ticks = ticks();
        let Some(head) = record.first_chunk::<RECORD_HEAD_BYTES>() else {
            return;
        };
        let call = CallId(u16::from_le_bytes([head[4], head[5]]));
        let ticket = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
        let session = session as u32;
        let mut state = self.lock();
        if state.is_over {
            return;
        }
        if let Some(class) = payloads::brought_by(call).filter(|_| ticket != 0) {
            state.awaited.insert((session, ticket), class);
        }
        let time = state.clock.ns(ticks);
        let payload = payloads::sent_by(call)
            .filter(|_| !payload.is_empty())
            .map(|class| state.payload(self.policies, class, payload));
        let message = Message {
            time,
            session,
            bytes: record,
            payload,
        };
        state.ring.append(time, &Block::Call(message));
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
        let ticket = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let session = session as u32;
        let mut state = self.lock();
        if state.is_over {
            return;
        }
        let class = state.awaited.remove(&(session, ticket));
        let time = state.clock.ns(ticks);
        let mut bytes = std::mem::take(&mut state.reply);
        bytes.clear();
        bytes.extend_from_slice(head);
        let data = match landed.is_empty() {
            true => {
                let cut = class.map_or(outputs.len(), |_| payloads::cut(outputs));
                bytes.extend_from_slice(&outputs[..cut]);
                &outputs[cut..]
            }
            false => {
                bytes.extend_from_slice(&(landed.len() as u64).to_le_bytes());
                landed
            }
        };
        let payload = match class.filter(|_| data.len() >= PAYLOAD_MIN) {
            Some(class) => Some(state.payload(self.policies, class, data)),
            None => {
                bytes.extend_from_slice(data);
                None
            }
        };
        let message = Message {
            time,
            session,
            bytes: &bytes,
            payload,
        };
        state.ring.append(time, &Block::Reply(message));
        state.reply = bytes;
    }

    /// The server has said something without being asked.
    pub fn push(&self, session: usize, body: &[u8]) {
        let ticks = ticks();
        let mut state = self.lock();
        if state.is_over {
            return;
        }
        let time = state.clock.ns(ticks);
        let message = Message {
            time,
            session: session as u32,
            bytes: body,
            payload: None,
        };
        state.ring.append(time, &Block::Push(message));
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
        state.ring.append(ended, &block);
    }

    /// The program has got memory of a device.
    pub fn allocated(&self, session: usize, device: i32, address: u64, bytes: u64) {
        self.append(ticks(), |time| Block::Allocation {
            time,
            session: session as u32,
            device: device as u32,
            address,
            bytes,
        });
    }

    /// Memory of a device is the program's no more.
    pub fn freed(&self, session: usize, address: u64) {
        self.append(ticks(), |time| Block::Free {
            time,
            session: session as u32,
            address,
        });
    }
}

impl State {
    /// Appends as much of a payload as is to be kept, for the block that is appended next.
    fn payload(&mut self, policies: Policies, class: Class, bytes: &[u8]) -> Payload {
        use harp_trace::block::Policy;
        let policy = policies.of(class);
        if !policy.has_hash() {
            return Payload::unnamed(policy, bytes.len());
        }
        if self.has_stalled && self.ring.free() < self.ring.capacity() / 8 * 7 {
            return Payload::unnamed(Policy::Lost, bytes.len());
        }
        let _uncancelled = Uncancelled::new(); // it may sleep
        let mut patience = Patience::for_bytes(&self.ring, bytes.len() as u64);
        let payload = self.ring.append_payload(policy, &[bytes], &mut patience);
        self.has_stalled = payload.policy == Policy::Lost;
        payload
    }
}
