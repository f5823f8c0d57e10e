//! The half that receives.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inbound::Inbound;
use super::socket::Interest;
use super::{lock, Link};
use crate::envelope::{decode_head, Cold, ColdFrame, Head, HEAD_MAX};
use crate::error::{printable, LinkError};
use crate::grpc::{self, PREFIX_BYTES};
use crate::h2::Side;

/// The longest frame that is decoded whole: a welcome with its snapshot.
const COLD_MAX: usize = 4 << 20;

/// How long to wait for a frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wait {
    /// How long to ask the socket again and again before sleeping; `None`: as the link is tuned.
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
    /// A kind of frame that this version does not know.
    Unknown,
}

/// Receives frames, in one thread at a time.
pub struct Receiver {
    link: Arc<Link>,
    messages: Messages,
}

impl Receiver {
    pub(crate) fn new(link: Arc<Link>) -> Receiver {
        let (side, max) = (link.side, link.tuning.message_max);
        Receiver {
            link,
            messages: Messages::new(side, max),
        }
    }

    /// Waits for the next frame. What has not been read of the present one is skipped.
    ///
    /// # Errors
    /// What has ended the link; every later call says the same.
    pub fn next(&mut self, wait: Wait) -> Result<Next, LinkError> {
        let spin = wait.spin.unwrap_or(self.link.tuning.spin);
        let deadline = wait.timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let found = self.attempt(spin, deadline, |messages, inbound, link| {
                messages.next(inbound, link)
            })?;
            let Some(found) = found else {
                return Ok(Next::Idle);
            };
            let (kind, len) = match found {
                Found::End => return Ok(Next::Closed),
                Found::Hot(len) if self.link.side == Side::Client => (FrameKind::Replies, len),
                Found::Hot(len) => (FrameKind::Calls, len),
                Found::Cold(Cold::Ping(token)) => {
                    self.link
                        .answer_ping(token)
                        .map_err(|error| self.link.fail(error))?;
                    self.link.settle();
                    continue;
                }
                Found::Cold(Cold::Pong(token)) => (FrameKind::Pong(token), 0),
                Found::Cold(Cold::Bye(reason)) => (FrameKind::Bye(printable(&reason)), 0),
                Found::Cold(Cold::Unknown) => (FrameKind::Unknown, 0),
                Found::Cold(Cold::Hello(_) | Cold::Welcome(_) | Cold::Refused(_)) => {
                    let error = LinkError::Violation("a greeting inside the session");
                    return Err(self.link.fail(error));
                }
            };
            return Ok(Next::Frame(FrameHead { kind, len }));
        }
    }

    /// Reads the next bytes of the present frame's body, waiting for them; long reads are opened
    /// straight into `target`, whose content is undefined after an error.
    ///
    /// # Errors
    /// What has ended the link, or a [`LinkError::Violation`] if the frame has fewer bytes left.
    pub fn read(&mut self, target: &mut [u8]) -> Result<(), LinkError> {
        if target.len() > self.messages.body_left() {
            return Err(self
                .link
                .fail(LinkError::Violation("a frame that ends too early")));
        }
        let spin = self.link.tuning.spin;
        let mut filled = 0;
        while filled < target.len() {
            let rest = &mut target[filled..];
            let len = self.attempt(spin, None, |messages, inbound, link| {
                messages.read(rest, inbound, link)
            })?;
            filled += len.unwrap_or(0);
        }
        Ok(())
    }

    /// Bytes of the present frame's body that have not been read.
    pub fn body_left(&self) -> usize {
        self.messages.body_left()
    }

    /// Whether something has come that [`next`](Receiver::next) or [`read`](Receiver::read) would
    /// find without waiting: bytes of a frame, its end, or an error.
    pub fn readable_now(&mut self) -> bool {
        let mut inbound = lock(&self.link.inbound);
        let readable = match inbound.available(&self.link) {
            Ok(bytes) => !bytes.is_empty() || inbound.end().is_some(),
            Err(error) => {
                self.link.fail(error);
                true
            }
        };
        drop(inbound);
        self.link.after_reading();
        self.link.settle();
        readable
    }

    /// Bytes that have come from the socket, with all that is around the replies.
    pub fn bytes_received(&self) -> u64 {
        lock(&self.link.inbound).received()
    }

    /// Waits for the greeting of the other side.
    pub(crate) fn greeting(&mut self, deadline: Instant) -> Result<Option<Cold>, LinkError> {
        let spin = self.link.tuning.spin;
        let found = self.attempt(spin, Some(deadline), |messages, inbound, link| {
            messages.next(inbound, link)
        })?;
        match found {
            None => Ok(None),
            Some(Found::Cold(cold)) => Ok(Some(cold)),
            Some(Found::End) => Err(LinkError::Closed),
            Some(Found::Hot(_)) => Err(self
                .link
                .fail(LinkError::Violation("a session without a greeting"))),
        }
    }

    /// Tries again and again, spinning and then sleeping, until there is something or `deadline`
    /// has passed.
    fn attempt<T>(
        &mut self,
        spin: Duration,
        deadline: Option<Instant>,
        mut act: impl FnMut(&mut Messages, &mut Inbound, &Link) -> Result<Option<T>, LinkError>,
    ) -> Result<Option<T>, LinkError> {
        let link = &*self.link;
        let mut spin_end = None;
        loop {
            link.check()?;
            let mut inbound = lock(&link.inbound);
            let found = loop {
                let found = act(&mut self.messages, &mut inbound, link);
                if !matches!(found, Ok(None)) {
                    break found;
                }
                if link.has_unsaid() {
                    link.settle();
                }
                let now = Instant::now();
                let end = *spin_end.get_or_insert_with(|| {
                    deadline.map_or(now + spin, |deadline| deadline.min(now + spin))
                });
                if now >= end || link.sender_waits.load(Ordering::SeqCst) {
                    break found;
                }
                std::hint::spin_loop();
            };
            let sleeps = matches!(found, Ok(None));
            // Under the lock: a sender that fills the inbox from here on sees it and rings.
            link.receiver_sleeps.store(sleeps, Ordering::SeqCst);
            drop(inbound);
            link.after_reading();
            link.settle();
            if !sleeps {
                return found.map_err(|error| link.fail(error));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                link.receiver_sleeps.store(false, Ordering::SeqCst);
                return Ok(None);
            }
            let interest = Interest {
                read: true,
                write: link.backlog.load(Ordering::Relaxed),
            };
            let ready = link
                .socket
                .wait(interest, Some(&link.receiver_bell), deadline);
            link.receiver_sleeps.store(false, Ordering::SeqCst);
            ready.map_err(|error| link.fail(LinkError::lost(&error)))?;
        }
    }
}

/// What comes next on the stream.
enum Found {
    /// A hot frame with a body of this length.
    Hot(usize),
    Cold(Cold),
    End,
}

enum State {
    /// A message's prefix, as far as it is there.
    Prefix([u8; PREFIX_BYTES], usize),
    /// The beginning of a message of this length, as far as it is there.
    Head {
        message: usize,
        bytes: [u8; HEAD_MAX],
        have: usize,
    },
    /// A message of this length that is decoded whole.
    Cold { message: usize, bytes: Vec<u8> },
    /// What is left of a body, and the frame's number.
    Body { left: usize, seq: u64 },
}

/// Finds messages in the stream's bytes, and checks their numbers.
struct Messages {
    side: Side,
    message_max: usize,
    state: State,
    last_seq: u64,
    last_ack: u64,
}

impl Messages {
    fn new(side: Side, message_max: usize) -> Messages {
        let state = State::Prefix([0; PREFIX_BYTES], 0);
        Messages {
            side,
            message_max,
            state,
            last_seq: 0,
            last_ack: 0,
        }
    }

    fn body_left(&self) -> usize {
        match self.state {
            State::Body { left, .. } => left,
            _ => 0,
        }
    }

    /// Goes on to the next frame, as far as that goes without waiting.
    fn next(&mut self, inbound: &mut Inbound, link: &Link) -> Result<Option<Found>, LinkError> {
        loop {
            let available = inbound.available(link)?;
            let between = matches!(
                self.state,
                State::Prefix(_, 0) | State::Body { left: 0, .. }
            );
            if available.is_empty() && !matches!(self.state, State::Body { left: 0, .. }) {
                return match inbound.end() {
                    None => Ok(None),
                    Some(Ok(())) if between => Ok(Some(Found::End)),
                    Some(Ok(())) => Err(LinkError::Violation("a stream that ends in a frame")),
                    Some(Err(error)) => Err(error),
                };
            }
            let used = match &mut self.state {
                State::Body { left: 0, .. } => {
                    self.state = State::Prefix([0; PREFIX_BYTES], 0);
                    0
                }
                State::Body { left, .. } => {
                    let len = available.len().min(*left);
                    *left -= len;
                    self.acknowledge_whole(link);
                    len
                }
                State::Prefix(bytes, have) => {
                    let len = available.len().min(bytes.len() - *have);
                    bytes[*have..*have + len].copy_from_slice(&available[..len]);
                    *have += len;
                    if *have == bytes.len() {
                        let message = grpc::message_len(bytes, self.message_max)?;
                        self.state = State::Head {
                            message,
                            bytes: [0; HEAD_MAX],
                            have: 0,
                        };
                    }
                    len
                }
                State::Head {
                    message,
                    bytes,
                    have,
                } => {
                    let (message, before) = (*message, *have);
                    let len = available.len().min(bytes.len().min(message) - before);
                    bytes[before..before + len].copy_from_slice(&available[..len]);
                    *have += len;
                    match decode_head(&bytes[..*have], message)? {
                        Head::Partial if *have == bytes.len() => {
                            return Err(LinkError::Violation("a malformed envelope"));
                        }
                        Head::Partial => len,
                        Head::Hot {
                            len,
                            seq,
                            ack,
                            body,
                        } => {
                            inbound.consume(len - before);
                            self.check_numbers(seq, ack, link)?;
                            self.state = State::Body { left: body, seq };
                            self.acknowledge_whole(link);
                            return Ok(Some(Found::Hot(body)));
                        }
                        Head::Cold if message > COLD_MAX => {
                            return Err(LinkError::Violation("a greeting larger than allowed"));
                        }
                        Head::Cold => {
                            let bytes = bytes[..before].to_vec();
                            self.state = State::Cold { message, bytes };
                            0
                        }
                    }
                }
                State::Cold { message, bytes } => {
                    let len = available.len().min(*message - bytes.len());
                    bytes.extend_from_slice(&available[..len]);
                    len
                }
            };
            if used > 0 {
                inbound.consume(used);
            }
            if let Some(found) = self.finish_cold(link)? {
                return Ok(Some(found));
            }
        }
    }

    /// Decodes a frame that has come whole.
    fn finish_cold(&mut self, link: &Link) -> Result<Option<Found>, LinkError> {
        let State::Cold { message, bytes } = &self.state else {
            return Ok(None);
        };
        if bytes.len() < *message {
            return Ok(None);
        }
        let frame = match self.side {
            Side::Client => ColdFrame::decode_from_server(bytes)?,
            Side::Server => ColdFrame::decode_from_client(bytes)?,
        };
        self.check_numbers(frame.seq, frame.ack, link)?;
        link.received_seq.store(frame.seq, Ordering::SeqCst);
        self.state = State::Prefix([0; PREFIX_BYTES], 0);
        Ok(Some(Found::Cold(frame.body)))
    }

    /// Frames come in sequence, and acknowledge what was sent, in order.
    fn check_numbers(&mut self, seq: u64, ack: u64, link: &Link) -> Result<(), LinkError> {
        let expected = self.last_seq + 1;
        if seq != expected {
            return Err(LinkError::Sequence {
                expected,
                received: seq,
            });
        }
        if ack < self.last_ack || ack > link.sent_seq.load(Ordering::SeqCst) {
            return Err(LinkError::Violation(
                "an acknowledgement of what was not sent",
            ));
        }
        self.last_seq = seq;
        self.last_ack = ack;
        Ok(())
    }

    /// What we send next acknowledges the present frame, if its body is there whole.
    fn acknowledge_whole(&self, link: &Link) {
        if let State::Body { left: 0, seq } = self.state {
            link.received_seq.store(seq, Ordering::SeqCst);
        }
    }

    /// Reads bytes of the body that come without waiting; `None` if there are none yet.
    fn read(
        &mut self,
        target: &mut [u8],
        inbound: &mut Inbound,
        link: &Link,
    ) -> Result<Option<usize>, LinkError> {
        let State::Body { left, seq } = &mut self.state else {
            return Ok(Some(0));
        };
        let len = inbound.read(target, link)?;
        *left -= len;
        if *left == 0 {
            link.received_seq.store(*seq, Ordering::SeqCst);
        }
        if len > 0 {
            return Ok(Some(len));
        }
        match inbound.end() {
            None => Ok(None),
            Some(Ok(())) => Err(LinkError::Violation("a stream that ends in a frame")),
            Some(Err(error)) => Err(error),
        }
    }
}
