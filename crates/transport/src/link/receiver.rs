//! The half that receives.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pace::{Pace, TURN};
use super::receiving::{Arrival, Receiving};
use super::socket::Interest;
use super::{lock, Link};
use crate::envelope::Cold;
use crate::error::{printable, LinkError};
use crate::h2::Side;

/// Of a body of which so much is still to come, nobody needs the next bytes at once.
const LONG: usize = 64 << 10;
/// Each look takes the lock of the socket, which the bytes that arrive need too: a receiver that is faster than its
/// peer and looks all the time makes it slower (docs/performance.md).
const BETWEEN_LOOKS: Duration = Duration::from_micros(8);

/// How long to wait for a frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wait {
    /// How long to ask the socket again and again before sleeping; `None`: as the link is tuned and
    /// earlier waits suggest.
    pub spin: Option<Duration>,
    /// How long in all; `None`: without bound. Zero only looks.
    pub timeout: Option<Duration>,
}

/// What [`Receiver::next`] has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Frame(FrameHead),
    /// Nothing came within the time.
    Idle,
    /// The peer has ended the stream in good order.
    Closed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameHead {
    pub kind: FrameKind,
    /// Bytes of the body, to be [read](Receiver::read).
    pub len: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// From a client: records in the encoding of the wire crate.
    Calls,
    /// From a server: the same.
    Replies,
    /// From a server: the answer to a ping with this token. (A client's pings are answered here.)
    Pong(u64),
    /// The peer ends the session, for this reason if not for the expected one.
    Bye(String),
}

/// Receives frames, in one thread at a time. While the connection is broken and the session may be
/// resumed, its calls wait.
pub struct Receiver {
    link: Arc<Link>,
    pace: Pace,
}

impl Receiver {
    pub(crate) fn new(link: Arc<Link>) -> Receiver {
        let pace = Pace::new(&link.tuning);
        Receiver { link, pace }
    }

    /// Waits for the next frame. What has not been read of the present one is skipped.
    ///
    /// # Errors
    /// What has ended the link; every later call says the same.
    pub fn next(&mut self, wait: Wait) -> Result<Next, LinkError> {
        let deadline = wait.timeout.map(|timeout| Instant::now() + timeout);
        let found = self.attempt(wait.spin, deadline, Receiving::next)?;
        let Some(found) = found else {
            return Ok(Next::Idle);
        };
        let (kind, len) = match found {
            Arrival::End => return Ok(Next::Closed),
            Arrival::Hot(len) if self.link.side == Side::Client => (FrameKind::Replies, len),
            Arrival::Hot(len) => (FrameKind::Calls, len),
            Arrival::Cold(Cold::Pong(token)) => (FrameKind::Pong(token), 0),
            Arrival::Cold(Cold::Bye(reason)) => (FrameKind::Bye(printable(&reason)), 0),
            Arrival::Cold(_) => {
                let error = LinkError::Violation("a greeting inside the session");
                return Err(self.link.fail(error));
            }
        };
        Ok(Next::Frame(FrameHead { kind, len }))
    }

    /// Reads the next bytes of the present frame's body, waiting for them; long reads are opened
    /// straight into `target`, whose content is undefined after an error.
    ///
    /// # Errors
    /// What has ended the link, or a [`LinkError::Violation`] if the frame has fewer bytes left.
    pub fn read(&mut self, target: &mut [u8]) -> Result<(), LinkError> {
        let mut filled = 0;
        while filled < target.len() {
            let rest = &mut target[filled..];
            let len = self.attempt(None, None, |receiving, link| receiving.read(rest, link))?;
            filled += len.unwrap_or(0);
        }
        Ok(())
    }

    /// Bytes of the present frame's body that have not been read.
    pub fn body_left(&self) -> usize {
        lock(&self.link.inbound).body_left()
    }

    /// Whether something has come that [`next`](Receiver::next) or [`read`](Receiver::read) would
    /// find without waiting: bytes of a frame, its end, or an error.
    pub fn readable_now(&mut self) -> bool {
        let mut receiving = lock(&self.link.inbound);
        let connection = receiving.wire.connection.clone();
        let readable = match connection.broken() {
            None => receiving.is_readable(&self.link),
            // What has been taken in before is there all the same.
            Some(_) => Ok(!receiving.inbox.is_empty()),
        };
        let readable = readable.map_err(|error| receiving.judge(error));
        drop(receiving);
        let readable = match readable {
            Ok(readable) => readable,
            Err(how) => self.link.broke(&connection, how).is_err(),
        };
        self.link.after_reading();
        self.link.settle(&connection);
        readable
    }

    /// Whether bytes of the peer's are in this process that have not been read, without asking the system
    /// for more.
    pub fn has_bytes(&self) -> bool {
        lock(&self.link.inbound).has_bytes()
    }

    /// Bytes that have come from the sockets, with all that is around the replies.
    pub fn bytes_received(&self) -> u64 {
        lock(&self.link.inbound).bytes_received()
    }

    /// Waits for the greeting of the other side.
    pub(crate) fn greeting(&mut self, deadline: Instant) -> Result<Option<Cold>, LinkError> {
        match self.attempt(None, Some(deadline), Receiving::next)? {
            None => Ok(None),
            Some(Arrival::Cold(cold)) => Ok(Some(cold)),
            Some(Arrival::End) => Err(LinkError::Closed),
            Some(Arrival::Hot(_)) => Err(self
                .link
                .fail(LinkError::Violation("a session without a greeting"))),
        }
    }

    /// What the peer's greeting acknowledges of a session that it resumes; `None`: it begins one.
    pub(crate) fn resumes_after(&self) -> Option<u64> {
        lock(&self.link.inbound).messages.resumes_after
    }

    /// Tries again and again, spinning and then sleeping, until there is something or `deadline`
    /// has passed. Without a `spin` it is as long as earlier waits suggest.
    fn attempt<T>(
        &mut self,
        spin: Option<Duration>,
        deadline: Option<Instant>,
        mut act: impl FnMut(&mut Receiving, &Link) -> Result<Option<T>, LinkError>,
    ) -> Result<Option<T>, LinkError> {
        let link = &self.link;
        let spin = spin.unwrap_or(self.pace.spin);
        let mut begun = None;
        loop {
            link.check()?;
            let mut receiving = lock(&link.inbound);
            let connection = receiving.wire.connection.clone();
            if connection.broken().is_some() {
                drop(receiving);
                if !link.await_connection(&connection, deadline)? {
                    return Ok(None);
                }
                continue;
            }
            // Since when this thread has had the core.
            let mut by_itself = None;
            let mut gave_way = false;
            let found = loop {
                let found = act(&mut receiving, link);
                if !matches!(found, Ok(None)) {
                    if gave_way {
                        self.pace.shares();
                    }
                    break found;
                }
                if link.has_unsaid(&connection) {
                    link.settle(&connection);
                }
                let now = Instant::now();
                let end = *begun.get_or_insert(now) + spin;
                if now >= end
                    || deadline.is_some_and(|deadline| now >= deadline)
                    || link.sender_waits.load(Ordering::SeqCst)
                    || now - *by_itself.get_or_insert(now) >= self.pace.patience()
                {
                    break found;
                }
                if now - (end - spin) >= self.pace.alone() {
                    std::thread::yield_now();
                    gave_way = now.elapsed() > TURN;
                    if gave_way {
                        by_itself = None;
                    }
                }
                if receiving.body_left() >= LONG {
                    spin_until(now + BETWEEN_LOOKS);
                } else {
                    std::hint::spin_loop();
                }
            };
            let mut look_again = None;
            let found = found.and_then(|found| {
                if found.is_none() {
                    look_again = receiving.watch(link, Instant::now())?;
                }
                Ok(found)
            });
            let found = found.map_err(|error| receiving.judge(error));
            let sleeps = matches!(found, Ok(None));
            // Under the lock: a sender that fills the inbox from here on sees it and rings.
            link.receiver_sleeps.store(sleeps, Ordering::SeqCst);
            drop(receiving);
            link.after_reading();
            link.settle(&connection);
            match found {
                Ok(Some(found)) => {
                    if let Some(begun) = begun {
                        self.pace.learn(begun.elapsed(), &link.tuning);
                    }
                    return Ok(Some(found));
                }
                Ok(None) => {}
                Err(how) => {
                    link.broke(&connection, how)?;
                    continue;
                }
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                link.receiver_sleeps.store(false, Ordering::SeqCst);
                return Ok(None);
            }
            let interest = Interest {
                read: true,
                write: connection.backlog.load(Ordering::Relaxed),
            };
            let until = [deadline, look_again].into_iter().flatten().min();
            let ready = connection
                .socket
                .wait(interest, Some(&link.receiver_bell), until);
            link.receiver_sleeps.store(false, Ordering::SeqCst);
            ready.map_err(|error| link.fail(LinkError::lost(&error)))?;
        }
    }
}

fn spin_until(moment: Instant) {
    loop {
        std::hint::spin_loop();
        if Instant::now() >= moment {
            return;
        }
    }
}
