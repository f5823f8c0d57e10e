//! The receiving half: one waiting thread reads, and hands the others what is theirs.
//!
//! A waiting thread that finds nobody reading reads itself, so a lone thread gets its reply with
//! no hand-over. The others sleep: it wakes each whose reply it has read, and when its own has come
//! it lets go of the reader and wakes one of those that still wait, which goes on.

mod turns;

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use harp_cuda_abi::types::{CUresult, CUDA_ERROR_DEVICE_UNAVAILABLE};
use harp_transport::{FrameHead, FrameKind, Next, Receiver, Wait};
use harp_wire::push::Push;
use harp_wire::reply::{ReplyHead, PUSH, REPLY_HEAD_BYTES};
use harp_wire::{Decoder, RECORD_MAX};

use super::landings::Landings;
use crate::recording::recorder;
use turns::{Awaited, Readiness, BEDS};

/// A waiting thread looks after the session's health this often.
const HEALTH_INTERVAL: Duration = Duration::from_millis(200);
/// A thread that has woken others so often, and still waits, waits for something long: it lets one of those
/// read that are answered soon, who then need not be woken.
const WOKEN_MAX: u32 = 8;

/// Where the bytes of a reply land in the program's memory.
pub struct Destination {
    pointer: *mut u8,
    len: usize,
}

// SAFETY: the memory is given over to the session until the reply has been waited for.
unsafe impl Send for Destination {}

impl Destination {
    /// # Safety
    /// The memory must be writable until the ticket it is used for has been waited for.
    pub unsafe fn new(pointer: *mut u8, len: usize) -> Destination {
        Destination { pointer, len }
    }

    /// The addresses.
    pub fn range(&self) -> std::ops::Range<usize> {
        let start = self.pointer as usize;
        start..start + self.len
    }
}

/// What the server answered.
#[derive(Debug, Default)]
pub struct Reply {
    pub status: CUresult,
    /// A code that an earlier one-way call failed with, told once.
    pub deferred: CUresult,
    /// The call's outputs; empty where they went to a destination.
    pub body: Vec<u8>,
}

enum Slot {
    Expected(Option<Destination>),
    Arrived(Reply),
}

#[derive(Default)]
struct Pending {
    last_ticket: u32,
    slots: HashMap<u32, Slot>,
    landings: Landings,
    /// What the threads wait for that sleep until somebody else has read it. Those that have stepped aside
    /// look by themselves whether they are to read.
    asleep: Vec<(Awaited, Readiness)>,
    /// How often somebody has let go of the reader.
    turns: u64,
    /// How often something has come that nobody asked for.
    news: u64,
}

pub struct Incoming {
    reader: Mutex<Reader>,
    pending: Mutex<Pending>,
    beds: [Condvar; BEDS],
    session: usize,
    on_push: OnPush,
}

/// Hears what the server of a session, by its number, says without being asked. It must not wait for
/// the program.
pub type OnPush = fn(usize, Push) -> Result<(), String>;

struct Reader {
    receiver: Receiver,
    spin: Option<Duration>,
    /// How many threads who reads now has woken because their replies have come.
    woken: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

impl Incoming {
    /// The receiving half of the session with that number.
    pub fn new(
        receiver: Receiver,
        spin: Option<Duration>,
        session: usize,
        on_push: OnPush,
    ) -> Incoming {
        Incoming {
            reader: Mutex::new(Reader {
                receiver,
                spin,
                woken: 0,
            }),
            pending: Mutex::default(),
            beds: Default::default(),
            session,
            on_push,
        }
    }

    /// Makes the ticket of a call that wants a reply.
    pub fn expect(&self, destination: Option<Destination>) -> u32 {
        let mut pending = lock(&self.pending);
        let ticket = pending.unused_ticket();
        pending.slots.insert(ticket, Slot::Expected(destination));
        ticket
    }

    /// Makes the ticket of a call whose bytes nobody waits for.
    pub fn unused_ticket(&self, add: impl FnOnce(&mut Landings, u32)) -> u32 {
        let mut pending = lock(&self.pending);
        let ticket = pending.unused_ticket();
        add(&mut pending.landings, ticket);
        ticket
    }

    /// What lands without being waited for.
    pub fn landings<T>(&self, act: impl FnOnce(&mut Landings) -> T) -> T {
        act(&mut lock(&self.pending).landings)
    }

    /// Waits for a reply, reading if nobody else does.
    ///
    /// # Errors
    /// A sentence about why there will be none; `lost` says that another thread found out first.
    pub fn wait(&self, ticket: u32, lost: impl Fn() -> bool) -> Result<Reply, String> {
        let mut has_slept = false;
        loop {
            let mut pending = lock(&self.pending);
            if let Some(reply) = pending.take(ticket) {
                drop(pending);
                if has_slept {
                    self.see_that_one_reads();
                }
                return Ok(reply);
            }
            if lost() {
                drop(pending);
                // Whoever is reading may hold this ticket's destination: wait until it lets go.
                let _reader = lock(&self.reader);
                lock(&self.pending).slots.remove(&ticket);
                return Err("another thread lost it".to_owned());
            }
            match self.reader.try_lock() {
                Ok(mut reader) => {
                    drop(pending);
                    let answered = || lock(&self.pending).has_arrived(ticket);
                    let result = self.read_until(&mut reader, answered, &lost);
                    drop(reader);
                    self.wake_one();
                    if !result? {
                        self.step_aside(Some(ticket));
                        has_slept = true;
                    }
                }
                Err(TryLockError::Poisoned(_)) => return Err("the reader failed".to_owned()),
                Err(TryLockError::WouldBlock) => {
                    drop(self.sleep(pending, Some(ticket), Readiness::Reads));
                    has_slept = true;
                }
            }
        }
    }

    /// Waits until a push has brought what `enough` asks about, reading if nobody else does.
    ///
    /// # Errors
    /// A sentence about why there will be none.
    pub fn listen(&self, enough: impl Fn() -> bool, lost: impl Fn() -> bool) -> Result<(), String> {
        let mut has_slept = false;
        loop {
            let heard = lock(&self.pending).news;
            if enough() || lost() {
                break;
            }
            let pending = lock(&self.pending);
            match self.reader.try_lock() {
                Ok(mut reader) => {
                    drop(pending);
                    let result = self.read_until(&mut reader, &enough, &lost);
                    drop(reader);
                    self.wake_one();
                    if !result? {
                        self.step_aside(None);
                        has_slept = true;
                    }
                }
                Err(TryLockError::Poisoned(_)) => return Err("the reader failed".to_owned()),
                Err(TryLockError::WouldBlock) if pending.news != heard => (),
                Err(TryLockError::WouldBlock) => {
                    drop(self.sleep(pending, None, Readiness::Reads));
                    has_slept = true;
                }
            }
        }
        if has_slept {
            self.see_that_one_reads();
        }
        Ok(())
    }

    /// Reads what has come by now, if nobody else is reading.
    ///
    /// # Errors
    /// A sentence about why nothing more will.
    pub fn glance(&self) -> Result<(), String> {
        let Ok(mut reader) = self.reader.try_lock() else {
            return Ok(());
        };
        let at_once = Wait {
            spin: None,
            timeout: Some(Duration::ZERO),
        };
        let mut result = Ok(());
        while result.is_ok() && reader.receiver.readable_now() {
            result = self.read_next(&mut reader, at_once).map(drop);
        }
        drop(reader);
        self.wake_one();
        result
    }

    /// Wakes every waiting thread to look at the session's state.
    pub fn wake_all(&self) {
        drop(lock(&self.pending));
        self.beds.iter().for_each(Condvar::notify_all);
    }

    /// Bytes that have come in.
    pub fn received_bytes(&self) -> u64 {
        self.reader
            .try_lock()
            .map_or(0, |reader| reader.receiver.bytes_received())
    }

    /// Reads until there is `enough`. False: others read from now on, because they are answered sooner.
    fn read_until(
        &self,
        reader: &mut Reader,
        enough: impl Fn() -> bool,
        lost: impl Fn() -> bool,
    ) -> Result<bool, String> {
        reader.woken = 0;
        let wait = Wait {
            spin: reader.spin,
            timeout: Some(HEALTH_INTERVAL),
        };
        loop {
            if enough() {
                return Ok(true);
            }
            if reader.woken >= WOKEN_MAX {
                return Ok(false);
            }
            if !self.read_next(reader, wait)? && lost() {
                return Ok(true);
            }
        }
    }

    /// Reads the next frame; false if none came within the time.
    fn read_next(&self, reader: &mut Reader, wait: Wait) -> Result<bool, String> {
        match reader.receiver.next(wait) {
            Ok(Next::Frame(head)) if head.kind == FrameKind::Replies => {
                self.read_replies(reader, head.len)?;
            }
            Ok(Next::Frame(FrameHead {
                kind: FrameKind::Bye(reason),
                ..
            })) if !reason.is_empty() => return Err(format!("the server says: {reason}")),
            Ok(Next::Frame(_)) => (),
            Ok(Next::Idle) => return Ok(false),
            Ok(Next::Closed) => return Err("the server closed the session".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
        Ok(true)
    }

    fn take_push(&self, body: &[u8]) -> Result<(), String> {
        match Push::decode(&mut Decoder::new(body)) {
            Ok(Some(push)) => {
                (self.on_push)(self.session, push)?;
                self.wake(lock(&self.pending), None);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(_) => Err(MALFORMED.to_owned()),
        }
    }

    /// Reads the records of one frame of `left` bytes.
    fn read_replies(&self, reader: &mut Reader, mut left: usize) -> Result<(), String> {
        let receiver = &mut reader.receiver;
        while left > 0 {
            let mut bytes = [0; REPLY_HEAD_BYTES];
            left = left.checked_sub(bytes.len()).ok_or(MALFORMED)?;
            receiver
                .read(&mut bytes)
                .map_err(|error| error.to_string())?;
            let head = ReplyHead::decode(&bytes);
            let body_bytes = head
                .body_bytes()
                .filter(|len| *len <= RECORD_MAX)
                .ok_or(MALFORMED)?;
            left = left.checked_sub(body_bytes).ok_or(MALFORMED)?;
            let mut body = Vec::new();
            if head.ticket == PUSH {
                body.resize(body_bytes, 0);
                receiver
                    .read(&mut body)
                    .map_err(|error| error.to_string())?;
                // What is told of times becomes blocks of its own.
                if let Some(recorder) = recorder().filter(|_| !Push::is_times(&body)) {
                    recorder.push(self.session, &body);
                }
                self.take_push(&body)?;
                continue;
            }
            let landing = lock(&self.pending).landings.arrives(head.ticket);
            let lands = landing.is_some();
            let destination = match landing {
                Some(destination) => destination,
                None => lock(&self.pending).destination(head.ticket)?,
            };
            let read = match &destination {
                Some(to) if head.status == 0 => read_bytes(receiver, to, body_bytes),
                _ => {
                    body.resize(body_bytes, 0);
                    let read = receiver.read(&mut body);
                    read.map(|()| &[][..]).map_err(|error| error.to_string())
                }
            };
            let landed = match read {
                Ok(landed) => landed,
                Err(cause) => {
                    // Nothing lands there any more: the memory is the program's again.
                    let landings = &mut lock(&self.pending).landings;
                    landings.arrived(head.ticket, CUDA_ERROR_DEVICE_UNAVAILABLE);
                    return Err(cause);
                }
            };
            if let Some(recorder) = recorder() {
                recorder.reply(self.session, &bytes, &body, landed);
            }
            if lands {
                let code = [head.status, head.deferred]
                    .into_iter()
                    .find(|code| *code != 0);
                let mut pending = lock(&self.pending);
                pending.landings.arrived(head.ticket, code.unwrap_or(0));
                self.wake(pending, None);
                continue;
            }
            let reply = Reply {
                status: head.status,
                deferred: head.deferred,
                body,
            };
            let mut pending = lock(&self.pending);
            pending.slots.insert(head.ticket, Slot::Arrived(reply));
            reader.woken += u32::from(self.wake(pending, Some(head.ticket)));
        }
        Ok(())
    }
}

const MALFORMED: &str = "the server sent a malformed reply";

/// Reads a reply that is one run of bytes straight to where they belong, and shows them there.
fn read_bytes<'a>(
    receiver: &mut Receiver,
    to: &'a Destination,
    body: usize,
) -> Result<&'a [u8], String> {
    let mut announced = [0; 8];
    if body != to.len + announced.len() {
        return Err(MALFORMED.to_owned());
    }
    receiver
        .read(&mut announced)
        .map_err(|error| error.to_string())?;
    if u64::from_le_bytes(announced) != to.len as u64 {
        return Err(MALFORMED.to_owned());
    }
    // SAFETY: `Destination::new`'s promise; the thread that made it is still waiting.
    let target = unsafe { std::slice::from_raw_parts_mut(to.pointer, to.len) };
    receiver.read(target).map_err(|error| error.to_string())?;
    Ok(target)
}

impl Pending {
    fn unused_ticket(&mut self) -> u32 {
        loop {
            self.last_ticket = self.last_ticket.wrapping_add(1);
            let ticket = self.last_ticket;
            // Zero marks a push; a number still waited for after a wrap is not given out twice.
            let is_used = self.slots.contains_key(&ticket) || self.landings.holds(ticket);
            if ticket != 0 && !is_used {
                return ticket;
            }
        }
    }

    fn has_arrived(&self, ticket: u32) -> bool {
        !matches!(self.slots.get(&ticket), Some(Slot::Expected(_)))
    }

    fn take(&mut self, ticket: u32) -> Option<Reply> {
        match self.slots.remove(&ticket)? {
            Slot::Arrived(reply) => Some(reply),
            expected => {
                self.slots.insert(ticket, expected);
                None
            }
        }
    }

    /// Where the reply to `ticket` goes; a ticket that nobody holds is the server's error.
    fn destination(&mut self, ticket: u32) -> Result<Option<Destination>, String> {
        match self.slots.get_mut(&ticket) {
            Some(Slot::Expected(destination)) => Ok(destination.take()),
            _ => Err(format!(
                "the server answered a call that was not made (ticket {ticket})"
            )),
        }
    }
}
