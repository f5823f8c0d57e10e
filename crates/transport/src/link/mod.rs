//! A connection after its handshake, shared by its two halves.
//!
//! Each half has a lock of its own, and whoever holds one only ever *tries* the other, so that
//! neither can wait for the other in a circle:
//! - a reader that owes the peer an answer (an acknowledgement, more window) leaves it in
//!   [`Owed`]; it sends it itself if nobody is writing, otherwise the writer does before it is done;
//! - a writer that cannot go on (the socket is full, or a window is closed) reads in the meantime,
//!   if nobody else does, and leaves what it has read in the inbox. So two ends that both write
//!   more than the network holds do not stand still.
//!
//! A half that sleeps is woken by its [`Bell`] for what the socket does not tell it: the receiver
//! when a writer has filled the inbox, the writer when the receiver has stopped reading or has
//! read about a window.

mod inbound;
mod inbox;
mod outbound;
mod receiver;
mod sender;
pub mod socket;
mod writing;

use std::sync::atomic::{fence, AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

pub use receiver::{FrameHead, FrameKind, Next, Receiver, Wait};
pub use sender::Sender;
pub(crate) use writing::Writer;

use crate::error::LinkError;
use crate::h2::flow::{Allowance, SendFlow};
use crate::h2::{code, Side};
use crate::tls::handshake::Secured;
use crate::tls::post_handshake::Rekey;
use crate::tuning::Tuning;
use inbound::Inbound;
use outbound::Outbound;
use socket::{Bell, Socket};

/// Answers that may wait to be sent: a peer that asks for more reads none of them.
const ANSWERS_MAX: usize = 1 << 16;
/// Pings that may wait to be answered.
const PONGS_MAX: usize = 1 << 10;

/// What the reading half has found that the writing half must say.
#[derive(Default)]
pub(crate) struct Owed {
    /// Frames of the connection, as bytes.
    pub frames: Vec<u8>,
    /// Tokens of the peer's pings, to be answered between two messages.
    pub pongs: Vec<u64>,
    /// The peer wants us to have new keys.
    pub key_update: bool,
    /// What we may send.
    pub flow: SendFlow,
}

pub(crate) struct Link {
    pub socket: Socket,
    pub side: Side,
    pub tuning: Tuning,
    inbound: Mutex<Inbound>,
    outbound: Mutex<Outbound>,
    owed: Mutex<Owed>,
    /// Something in `owed` waits to be said.
    owes: AtomicBool,
    /// So do pongs, which are worth a try.
    owes_pongs: AtomicBool,
    rekey: Mutex<Box<dyn Rekey>>,
    /// The call's stream; 0 until a server knows it.
    stream: AtomicU32,
    /// Numbers of the last frames sent and received whole.
    sent_seq: AtomicU64,
    received_seq: AtomicU64,
    failure: OnceLock<LinkError>,
    /// Sealed bytes wait for a socket that is full, and nobody is sending.
    backlog: AtomicBool,
    receiver_sleeps: AtomicBool,
    receiver_bell: Bell,
    sender_waits: AtomicBool,
    sender_bell: Bell,
    /// The process whose connection this is: a forked child has only a copy.
    process: u32,
}

/// A lock whose holder panicked is as good as any other: what it guards is checked by the peer.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(std::sync::TryLockError::WouldBlock) => None,
    }
}

impl Link {
    pub fn new(
        side: Side,
        socket: Socket,
        secured: Secured,
        tuning: Tuning,
    ) -> std::io::Result<Link> {
        let Secured {
            sending,
            receiving,
            rekey,
            leftover,
            ..
        } = secured;
        let window = tuning.receive_window;
        Ok(Link {
            socket,
            side,
            inbound: Mutex::new(Inbound::new(side, receiving, &leftover, window)),
            outbound: Mutex::new(Outbound::new(sending)),
            owed: Mutex::default(),
            owes: AtomicBool::new(false),
            owes_pongs: AtomicBool::new(false),
            rekey: Mutex::new(rekey),
            stream: AtomicU32::new(if side == Side::Client { 1 } else { 0 }),
            sent_seq: AtomicU64::new(0),
            received_seq: AtomicU64::new(0),
            failure: OnceLock::new(),
            backlog: AtomicBool::new(false),
            receiver_sleeps: AtomicBool::new(false),
            receiver_bell: Bell::new()?,
            sender_waits: AtomicBool::new(false),
            sender_bell: Bell::new()?,
            process: std::process::id(),
            tuning,
        })
    }

    fn rekey(&self) -> MutexGuard<'_, Box<dyn Rekey>> {
        lock(&self.rekey)
    }

    fn stream(&self) -> u32 {
        self.stream.load(Ordering::Relaxed)
    }

    fn set_stream(&self, stream: u32) {
        self.stream.store(stream, Ordering::Relaxed);
    }

    /// Says `change` to the writing half.
    fn owe(&self, change: impl FnOnce(&mut Owed)) {
        change(&mut lock(&self.owed));
        self.owes.store(true, Ordering::SeqCst);
    }

    /// Takes over the answers and allowances that a reader has found.
    fn answer(
        &self,
        frames: &mut Vec<u8>,
        allowances: &mut Vec<Allowance>,
    ) -> Result<(), LinkError> {
        let mut owed = lock(&self.owed);
        if !allowances.is_empty() && !owed.pongs.is_empty() {
            self.owes_pongs.store(true, Ordering::SeqCst);
        }
        for allowance in allowances.drain(..) {
            owed.flow.apply(allowance)?;
        }
        if owed.frames.len() + frames.len() > ANSWERS_MAX {
            let text = "more questions than it reads answers";
            return Err(LinkError::Http2 {
                code: code::ENHANCE_YOUR_CALM,
                text,
            });
        }
        if !frames.is_empty() {
            owed.frames.append(frames);
            self.owes.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Owes the answer to a ping of the envelope.
    fn answer_ping(&self, token: u64) -> Result<(), LinkError> {
        let mut owed = lock(&self.owed);
        if owed.pongs.len() >= PONGS_MAX {
            return Err(LinkError::Violation("more pings than it reads answers"));
        }
        owed.pongs.push(token);
        self.owes_pongs.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn check(&self) -> Result<(), LinkError> {
        self.failure
            .get()
            .map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Makes `error` the link's end, tells the peer if it can be told at once, and wakes both
    /// halves. Returns the error that ended the link first.
    fn fail(&self, error: LinkError) -> LinkError {
        if self.failure.set(error.clone()).is_ok() {
            self.say_why(&error);
            self.receiver_bell.ring();
            self.sender_bell.ring();
        }
        self.failure.get().cloned().unwrap_or(error)
    }

    /// Wakes the other half after reading, if it sleeps for what was read.
    fn after_reading(&self) {
        fence(Ordering::SeqCst);
        if self.sender_waits.load(Ordering::SeqCst) {
            self.sender_bell.ring();
        }
    }
}

impl Drop for Link {
    /// Says goodbye to TLS, unless the link has failed or is its parent's.
    fn drop(&mut self) {
        if self.failure.get().is_none() && self.process == std::process::id() {
            self.socket.see_off(None);
            self.close_tls(&mut lock(&self.outbound));
        }
    }
}
