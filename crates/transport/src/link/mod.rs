//! A link: one ordered stream of frames in each direction, over one connection after another.
//!
//! Each half has a lock of its own. Whoever holds the reading half's only ever *tries* the writing
//! half's, so that neither can wait for the other in a circle:
//! - a reader that owes the peer an answer (an acknowledgement, more window) leaves it behind; it
//!   sends it itself if nobody is writing, otherwise the writer does before it is done;
//! - a writer that cannot go on (the socket is full, a window is closed, or too much is
//!   unacknowledged) reads in the meantime, if nobody else does, and leaves what it has read in
//!   the inbox. So two ends that both write more than the network holds do not stand still.
//!
//! A half that sleeps is woken by its [`Bell`] for what the socket does not tell it: the receiver
//! when a writer has filled the inbox, the writer when the receiver has stopped reading or has
//! read about a window.
//!
//! When the connection breaks, both halves wait until `resuming` has put another in its place.

mod byte_queue;
pub(crate) mod connection;
mod crew;
mod inbound;
mod inbox;
mod lent;
mod messages;
mod opening;
mod outbound;
mod pace;
mod receiver;
mod receiving;
mod resuming;
pub(crate) mod retained;
mod sealing;
mod sender;
mod sending;
mod settling;
pub mod socket;
mod waiting;
mod wire_room;
mod writing;

use std::sync::atomic::{fence, AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

pub use crew::StartThread;
pub use lent::{Buffer, Loan};
pub use receiver::{FrameHead, FrameKind, Next, Receiver, Wait};
pub use resuming::Keeper;
pub(crate) use resuming::{Continuity, Resumption};
pub use sender::Sender;
pub(crate) use writing::Writer;

use crate::error::LinkError;
use crate::h2::Side;
use crate::tls::handshake::Secured;
use crate::tuning::Tuning;
use connection::Connection;
use crew::Crew;
use inbound::Inbound;
use messages::Messages;
use outbound::Outbound;
use receiving::Receiving;
use sending::Sending;
use socket::{Bell, Socket};

/// Pings that may wait to be answered.
const PONGS_MAX: usize = 1 << 10;
/// The token of a ping that only asks for a sign of life.
const KEEP_ALIVE: u64 = u64::MAX;

/// What happens to a link without its halves' doing.
#[derive(Debug)]
pub enum Observed<'a> {
    /// Somebody waits, and the peer has given no sign of life for so long.
    Silent(Duration),
    /// It has given one after all.
    Heard,
    /// The connection broke, for this reason; both halves wait for another.
    Interrupted(&'a LinkError),
    /// There has been none for so long, and there may be none for so much longer; why the last
    /// attempt failed.
    Waiting {
        since: Duration,
        left: Duration,
        cause: &'a str,
    },
    /// The link goes on over another connection after so long.
    Resumed(Duration),
}

/// Hears what happens to a link. It is called with locks held: it must not use the link.
pub type Observer = Arc<dyn Fn(&Observed<'_>) + Send + Sync>;

/// What an error means for the link.
pub(crate) enum Break {
    /// The network failed: the session may go on over another connection.
    Network(LinkError),
    /// The peer's system closed the connection, as it does for a process that ends.
    HungUp(LinkError),
    /// The link ends.
    Final(LinkError),
}

pub(crate) struct Link {
    pub side: Side,
    pub tuning: Tuning,
    inbound: Mutex<Receiving>,
    outbound: Mutex<Sending>,
    /// Tokens of the peer's pings, to be answered between two messages.
    pongs: Mutex<Vec<u64>>,
    owes_pongs: AtomicBool,
    /// A ping of our own, and an acknowledgement, are to be sent between two messages.
    owes_ping: AtomicBool,
    owes_ack: AtomicBool,
    /// Numbers of the last frames that were sent, acknowledged, and received whole.
    sent_seq: AtomicU64,
    acked: AtomicU64,
    received_seq: AtomicU64,
    /// Bytes received since we have last acknowledged anything.
    unacknowledged: AtomicUsize,
    failure: OnceLock<LinkError>,
    receiver_sleeps: AtomicBool,
    receiver_bell: Bell,
    sender_waits: AtomicBool,
    sender_bell: Bell,
    /// How the session is resumed, where both ends have agreed on that.
    resumption: OnceLock<Resumption>,
    observer: OnceLock<Observer>,
    continuity: Mutex<Continuity>,
    /// Rung with every change of `continuity`.
    changed: Condvar,
    /// Helps with what is long.
    crew: Crew,
    /// There is no connection on which the writing half may write.
    interrupted: AtomicBool,
    resumed: AtomicU64,
    /// Loans that there have been.
    loans: AtomicU64,
    /// The present connection's, for who may take no lock.
    socket: AtomicI32,
    /// The process whose link this is: a forked child has only a copy.
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
        let descriptor = AtomicI32::new(socket.raw_fd());
        let connection = Arc::new(Connection::new(side, socket, rekey));
        let inbound = Inbound::new(
            side,
            connection.clone(),
            receiving,
            &leftover,
            tuning.receive_window,
        );
        let messages = Messages::new(side, tuning.message_max);
        Ok(Link {
            side,
            inbound: Mutex::new(Receiving::new(inbound, messages)),
            outbound: Mutex::new(Sending::new(Outbound::new(connection.clone(), sending))),
            pongs: Mutex::default(),
            owes_pongs: AtomicBool::new(false),
            owes_ping: AtomicBool::new(false),
            owes_ack: AtomicBool::new(false),
            sent_seq: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            received_seq: AtomicU64::new(0),
            unacknowledged: AtomicUsize::new(0),
            failure: OnceLock::new(),
            receiver_sleeps: AtomicBool::new(false),
            receiver_bell: Bell::new()?,
            sender_waits: AtomicBool::new(false),
            sender_bell: Bell::new()?,
            resumption: OnceLock::new(),
            observer: OnceLock::new(),
            continuity: Mutex::new(Continuity::new(connection)),
            changed: Condvar::new(),
            crew: Crew::new(tuning.crew, tuning.start_thread),
            interrupted: AtomicBool::new(false),
            resumed: AtomicU64::new(0),
            loans: AtomicU64::new(0),
            socket: descriptor,
            process: std::process::id(),
            tuning,
        })
    }

    /// Both ends keep what they send until it is acknowledged.
    fn is_resumable(&self) -> bool {
        self.resumption.get().is_some()
    }

    fn next_loan(&self) -> u64 {
        self.loans.fetch_add(1, Ordering::Relaxed)
    }

    pub fn set_observer(&self, observer: Observer) {
        let _ = self.observer.set(observer);
    }

    fn observe(&self, what: &Observed<'_>) {
        if let Some(observer) = self.observer.get() {
            observer(what);
        }
    }

    /// A frame with a message of `bytes` has come whole.
    fn received(&self, seq: u64, bytes: usize) {
        self.received_seq.store(seq, Ordering::SeqCst);
        if !self.is_resumable() {
            return;
        }
        let bytes = bytes + retained::FRAME_BYTES;
        let before = self.unacknowledged.fetch_add(bytes, Ordering::SeqCst);
        if before + bytes >= self.tuning.acknowledge_every() {
            self.owes_ack.store(true, Ordering::SeqCst);
        }
    }

    /// Owes the answer to a ping of the envelope.
    fn answer_ping(&self, token: u64) -> Result<(), LinkError> {
        let mut pongs = lock(&self.pongs);
        if pongs.len() >= PONGS_MAX {
            return Err(LinkError::Violation("more pings than it reads answers"));
        }
        pongs.push(token);
        self.owes_pongs.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn owe_keep_alive(&self) {
        self.owes_ping.store(true, Ordering::SeqCst);
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
            self.wake_everybody();
        }
        self.failure.get().cloned().unwrap_or(error)
    }

    fn wake_everybody(&self) {
        self.receiver_bell.ring();
        self.sender_bell.ring();
        // Under the lock, so that nobody falls asleep between a look and this.
        drop(lock(&self.continuity));
        self.changed.notify_all();
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
            self.present().socket.see_off(None);
            lock(&self.outbound).close_tls();
        }
    }
}
