//! How a link goes on when its connection has broken.
//!
//! Whoever finds the break reports it ([`Link::broke`]), and both halves wait. The client connects
//! anew in a thread of its own, the server is handed a new connection ([`Keeper::resume`]); either
//! way [`Link::adopt`] puts it in the place of the old one and sends again what the peer has not
//! acknowledged. If there is none in time, or the session is gone, the link fails.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::lent::Loan;
use super::socket::Interest;
use super::{lock, try_lock, Break, Link, Observed};
use crate::client::Reconnector;
use crate::error::{AcceptError, LinkError};
use crate::h2::Side;
use crate::server::{Incoming, Kept};
use crate::tls::handshake;

/// A sign of life without being asked for one comes at most this often.
const SIGN_INTERVAL: Duration = Duration::from_secs(1);

/// What a server takes in of a client that sends while nobody reads: more than the network holds of
/// one that is gone, whose end comes after it.
const AHEAD_MAX: usize = 16 << 20;

/// What each side needs to resume its session.
pub(crate) enum Resumption {
    Client(Box<Reconnector>),
    Server(Kept),
}

/// Where a link stands between its connections.
pub(crate) struct Continuity {
    current: Arc<Connection>,
    /// When the first connection broke since the link last went on.
    since: Option<Instant>,
    /// The last one was closed by the peer's system.
    hung_up: bool,
    /// Somebody is putting another connection in place.
    resuming: bool,
    last_sign: Option<Instant>,
    /// The last frame that had come whole when somebody last looked.
    seen: u64,
}

impl Continuity {
    pub fn new(current: Arc<Connection>) -> Continuity {
        Continuity {
            current,
            since: None,
            hung_up: false,
            resuming: false,
            last_sign: None,
            seen: 0,
        }
    }
}

impl Link {
    /// From now on both ends keep what they send. Nothing but greetings has been sent before.
    pub fn make_resumable(&self, resumption: Resumption) {
        let sending = &mut *lock(&self.outbound);
        sending.retained = super::retained::Retained::after(sending.seq);
        let _ = self.resumption.set(resumption);
    }

    pub fn resumption(&self) -> Option<&Resumption> {
        self.resumption.get()
    }

    /// `connection` is of no use any more.
    ///
    /// # Errors
    /// The link's end, if it does not go on over another one.
    pub fn broke(
        self: &Arc<Link>,
        connection: &Arc<Connection>,
        how: Break,
    ) -> Result<(), LinkError> {
        let (error, hung_up) = match how {
            Break::Final(error) => return Err(self.fail(error)),
            Break::Network(error) => (error, false),
            Break::HungUp(error) => (error, true),
        };
        let own = self.process == std::process::id();
        let Some(resumption) = self.resumption.get().filter(|_| own) else {
            return Err(self.fail(error));
        };
        self.check()?;
        let mut continuity = lock(&self.continuity);
        if !Arc::ptr_eq(&continuity.current, connection) {
            return Ok(());
        }
        self.interrupted.store(true, Ordering::SeqCst);
        if !connection.give_up(error.clone()) {
            return Ok(());
        }
        continuity.since.get_or_insert_with(Instant::now);
        continuity.hung_up = hung_up;
        let starts = match resumption {
            Resumption::Client(reconnector) if !continuity.resuming => {
                continuity.resuming = true;
                Some(reconnector)
            }
            _ => None,
        };
        drop(continuity);
        if matches!(error, LinkError::Tls(_)) {
            self.say_why(&error);
        }
        self.observe(&Observed::Interrupted(&error));
        self.wake_everybody();
        match starts {
            Some(reconnector) => reconnector.start(self).map_err(|error| self.fail(error)),
            None => Ok(()),
        }
    }

    /// Waits until there is another connection than `old` to read from; false: not by `deadline`.
    ///
    /// # Errors
    /// The link's end.
    pub fn await_connection(
        &self,
        old: &Arc<Connection>,
        deadline: Option<Instant>,
    ) -> Result<bool, LinkError> {
        self.await_change(deadline, |continuity| {
            !Arc::ptr_eq(&continuity.current, old)
        })
    }

    /// Waits until messages can be sent.
    ///
    /// # Errors
    /// The link's end, which `deadline` is too.
    pub fn await_resumed(&self, deadline: Option<Instant>) -> Result<(), LinkError> {
        self.check()?;
        if !self.interrupted.load(Ordering::SeqCst) {
            return Ok(());
        }
        match self.await_change(deadline, |_| !self.interrupted.load(Ordering::SeqCst))? {
            true => Ok(()),
            false => Err(self.fail(LinkError::TimedOut)),
        }
    }

    fn await_change(
        &self,
        deadline: Option<Instant>,
        enough: impl Fn(&Continuity) -> bool,
    ) -> Result<bool, LinkError> {
        let mut continuity = lock(&self.continuity);
        loop {
            self.check()?;
            if enough(&continuity) {
                return Ok(true);
            }
            let now = Instant::now();
            let end = self.end_of_grace(&continuity);
            if end.is_some_and(|end| now >= end) {
                let error = self.not_resumed(&continuity);
                drop(continuity);
                return Err(self.fail(error));
            }
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Ok(false);
            }
            let until = [deadline, end].into_iter().flatten().min();
            continuity = match until {
                None => self
                    .changed
                    .wait(continuity)
                    .unwrap_or_else(|poisoned| poisoned.into_inner()),
                Some(until) => {
                    self.changed
                        .wait_timeout(continuity, until - now)
                        .unwrap_or_else(|poisoned| poisoned.into_inner())
                        .0
                }
            };
        }
    }

    /// When a server gives an interrupted session up. A client is told by its own thread.
    fn end_of_grace(&self, continuity: &Continuity) -> Option<Instant> {
        let Some(Resumption::Server(kept)) = self.resumption.get() else {
            return None;
        };
        Some(continuity.since? + self.grace(continuity, kept))
    }

    fn grace(&self, continuity: &Continuity, kept: &Kept) -> Duration {
        if continuity.hung_up {
            kept.grace.min(self.tuning.hung_up_grace)
        } else {
            kept.grace
        }
    }

    fn not_resumed(&self, continuity: &Continuity) -> LinkError {
        let cause = match continuity.current.broken() {
            Some(LinkError::Lost(cause)) => cause.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let grace = match self.resumption.get() {
            Some(Resumption::Server(kept)) => self.grace(continuity, kept),
            _ => Duration::ZERO,
        };
        let seconds = grace.as_secs_f64();
        LinkError::Lost(format!("{cause}, and not resumed within {seconds} s"))
    }

    /// Gives up a connection that the peer has come back for, and what was read of it in part.
    /// Returns the number of the last frame that has come whole; nothing more is read after this.
    pub fn leave_connection(&self) -> u64 {
        let mut continuity = lock(&self.continuity);
        self.interrupted.store(true, Ordering::SeqCst);
        continuity.since.get_or_insert_with(Instant::now);
        let text = "the client came back over another connection".to_owned();
        let error = LinkError::Lost(text);
        let news = continuity.current.give_up(error.clone());
        drop(continuity);
        if news {
            self.observe(&Observed::Interrupted(&error));
            self.wake_everybody();
        }
        let mut receiving = lock(&self.inbound);
        receiving.messages.restart(self);
        self.received_seq.load(Ordering::SeqCst)
    }

    /// Whether a peer that has come back can be given everything after `acknowledged`.
    pub fn continues_after(&self, acknowledged: u64) -> bool {
        let mut sending = lock(&self.outbound);
        let acked = self.acked.load(Ordering::SeqCst);
        sending.retained.forget(acked);
        sending.retained.continues(acknowledged)
    }

    /// Goes on over the connection of `fresh`, on which both ends have greeted each other: sends
    /// again what the peer has not received, which is everything after `acknowledged`.
    pub fn adopt(self: &Arc<Link>, fresh: &Link, acknowledged: u64) -> Result<(), Break> {
        let mut writer = self.write(None).map_err(Break::Final)?;
        let sending = writer.sending();
        let mut receiving = lock(&self.inbound);
        receiving.messages.restart(self);
        let new_receiving = &mut *lock(&fresh.inbound);
        let new_sending = &mut *lock(&fresh.outbound);
        if !new_receiving.messages.is_between() || !new_receiving.inbox.is_empty() {
            let text = "frames before the session goes on";
            return Err(Break::Network(LinkError::Violation(text)));
        }
        let connection = new_sending.wire.connection.clone();
        sending.carried += sending.wire.total();
        receiving.carried += receiving.wire.received();
        std::mem::swap(&mut sending.wire, &mut new_sending.wire);
        std::mem::swap(&mut receiving.wire, &mut new_receiving.wire);
        sending.retained.forget(acknowledged);
        self.acked.store(acknowledged, Ordering::SeqCst);
        receiving.messages.set_acknowledged(acknowledged);
        receiving.forget_silence();
        drop(receiving);
        self.owe_again();
        let socket = connection.socket.raw_fd();
        self.socket.store(socket, Ordering::SeqCst);
        lock(&self.continuity).current = connection.clone();
        self.wake_everybody();
        writer.repeat(connection)
    }

    /// Lets the writing half go on after [`adopt`](Link::adopt); false if the new connection has
    /// broken by then.
    pub fn has_resumed(&self) -> bool {
        let mut continuity = lock(&self.continuity);
        if continuity.current.broken().is_some() {
            return false;
        }
        let since = continuity.since.take();
        continuity.hung_up = false;
        continuity.resuming = false;
        self.interrupted.store(false, Ordering::SeqCst);
        self.resumed.fetch_add(1, Ordering::SeqCst);
        drop(continuity);
        let after = since.map_or(Duration::ZERO, |since| since.elapsed());
        self.observe(&Observed::Resumed(after));
        self.wake_everybody();
        true
    }

    /// When the link was interrupted, unless it goes on or has ended.
    pub fn interrupted_since(&self) -> Option<Instant> {
        lock(&self.continuity).since
    }

    pub fn is_alive(&self) -> bool {
        self.failure.get().is_none()
    }

    pub fn give_up(&self, error: LinkError) {
        self.fail(error);
    }

    /// Gives the peer of a call that we have ended so long to close its connection, and reads what
    /// it still sends; then closes it.
    pub fn linger(&self, bound: Duration) {
        let connection = self.present();
        if connection.broken().is_none() {
            handshake::read_dry(&connection.socket, bound);
            lock(&self.outbound).close_tls();
        }
    }

    pub fn present(&self) -> Arc<Connection> {
        lock(&self.continuity).current.clone()
    }

    pub fn tell(&self, what: &Observed<'_>) {
        self.observe(what);
    }
}

/// Looks after a link from outside of its two halves.
#[derive(Clone)]
pub struct Keeper {
    link: Arc<Link>,
}

impl Keeper {
    pub(crate) fn new(link: Arc<Link>) -> Keeper {
        Keeper { link }
    }

    /// Something that bytes may be lent for, as of the sender.
    pub fn loan(&self) -> Loan {
        Loan::new(&self.link)
    }

    /// How often the session has gone on over another connection.
    pub fn resumed(&self) -> u64 {
        self.link.resumed.load(Ordering::SeqCst)
    }

    /// Whether the session can be resumed at all.
    pub fn is_resumable(&self) -> bool {
        self.link.is_resumable()
    }

    /// The present connection's socket, for a forked child that closes its copy, or to look for the
    /// peer's end of it. It changes when the session is resumed. Async-signal-safe.
    pub fn socket(&self) -> RawFd {
        self.link.socket.load(Ordering::SeqCst)
    }

    /// Whether the connection is broken, and the session may still be resumed.
    pub fn is_interrupted(&self) -> bool {
        self.link.interrupted_since().is_some()
    }

    /// Whether the peer's system has closed the present connection, which nobody has noticed in
    /// reading: what it has sent before may still be unread.
    pub fn was_hung_up(&self) -> bool {
        let connection = self.link.present();
        connection.broken().is_none() && connection.socket.was_hung_up()
    }

    /// Why the session is over, if it is, be it that it was not resumed in time.
    pub fn end(&self) -> Option<LinkError> {
        if let Err(error) = self.link.check() {
            return Some(error);
        }
        let continuity = lock(&self.link.continuity);
        let end = self.link.end_of_grace(&continuity)?;
        if Instant::now() < end {
            return None;
        }
        let error = self.link.not_resumed(&continuity);
        drop(continuity);
        Some(self.link.fail(error))
    }

    /// To be called now and then where it may be that nobody reads for long: finds that the
    /// connection has broken, takes in what has come, and, on a server, gives a client that waits a
    /// sign of life.
    pub fn tend(&self) {
        let link = &self.link;
        if !link.is_resumable() || link.check().is_err() {
            return;
        }
        let Some(mut receiving) = try_lock(&link.inbound) else {
            return;
        };
        let connection = receiving.wire.connection.clone();
        if link.receiver_sleeps.load(Ordering::SeqCst) || connection.broken().is_some() {
            return;
        }
        if connection.socket.has_failed() {
            drop(receiving);
            let error = LinkError::Lost("reset by the peer".to_owned());
            let _ = link.broke(&connection, Break::Network(error));
            return;
        }
        let interest = Interest::READ;
        let look = Some(Instant::now());
        let ready = connection.socket.wait(interest, None, look);
        if !ready.is_ok_and(|ready| ready.read) {
            return;
        }
        match link.side {
            Side::Server => {
                let received = link.received_seq.load(Ordering::SeqCst);
                let mut continuity = lock(&link.continuity);
                if std::mem::replace(&mut continuity.seen, received) != received {
                    return; // somebody reads
                }
                // Whoever is busy for long shows the client that it is not dead.
                let due = |sign: Instant| sign.elapsed() >= SIGN_INTERVAL;
                if continuity.last_sign.is_none_or(due) {
                    continuity.last_sign = Some(Instant::now());
                    link.owes_ack.store(true, Ordering::SeqCst);
                }
            }
            Side::Client => {}
        }
        let ahead = match link.side {
            Side::Client => link.tuning.piece_max,
            Side::Server if receiving.is_over() => 0,
            Side::Server => AHEAD_MAX.min(link.tuning.inbox_limit),
        };
        let read = receiving.stock_up(ahead, link);
        let read = read.map_err(|error| receiving.judge(error));
        drop(receiving);
        link.after_reading();
        link.settle(&connection);
        if let Err(how) = read {
            let _ = link.broke(&connection, how);
        }
    }

    /// Goes on with the session over a new connection, whose client has shown that it is this
    /// session's. A connection that is still there is given up for it.
    ///
    /// # Errors
    /// Why the client was refused, or the new connection failed; the session then waits for another
    /// one as long as its grace lasts.
    pub fn resume(&self, incoming: Incoming) -> Result<(), AcceptError> {
        let Some(Resumption::Server(kept)) = self.link.resumption() else {
            return Err(incoming.refuse_resuming("this session cannot be resumed"));
        };
        incoming.resume(&self.link, kept)
    }
}
