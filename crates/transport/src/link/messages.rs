//! Finds messages in the stream's bytes, checks their numbers, and knows what of them has arrived
//! when the stream goes on over another connection.

use std::sync::atomic::Ordering;

use super::inbound::Inbound;
use super::Link;
use crate::envelope::{decode_head, Cold, ColdFrame, Head, HEAD_MAX};
use crate::error::LinkError;
use crate::grpc::{self, PREFIX_BYTES};
use crate::h2::Side;

/// The longest frame that is decoded whole: a welcome with its snapshot.
const COLD_MAX: usize = 4 << 20;

/// A frame's beginning, for the receiver.
#[derive(Debug, PartialEq)]
pub enum Found {
    /// A hot frame with a body of this length, be it in one message or in several.
    Hot(usize),
    Cold(Cold),
}

/// The next thing on the stream.
#[derive(Debug, PartialEq)]
pub enum Step {
    Found(Found),
    /// So many bytes of the present body lie in front.
    Body(usize),
    /// The present body goes on in another message.
    GoesOn,
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
    Cold {
        message: usize,
        bytes: Vec<u8>,
    },
    Body(Body),
}

const BETWEEN: State = State::Prefix([0; PREFIX_BYTES], 0);

/// A message's body that is being read.
#[derive(Clone, Copy)]
struct Body {
    seq: u64,
    len: usize,
    /// Bytes that this connection has not brought yet.
    left: usize,
    /// Bytes that the receiver has been given, by this connection or one before.
    given: usize,
}

impl Body {
    /// Bytes in front that an earlier connection has brought already.
    fn repeated(&self) -> usize {
        (self.left + self.given).saturating_sub(self.len)
    }
}

pub struct Messages {
    side: Side,
    message_max: usize,
    state: State,
    last_seq: u64,
    last_ack: u64,
    /// Bytes of the present body that come in later messages.
    more: usize,
    /// The message in whose body the connection broke.
    interrupted: Option<Body>,
    /// What the greeting of a resuming peer acknowledges.
    pub resumes_after: Option<u64>,
}

impl Messages {
    pub fn new(side: Side, message_max: usize) -> Messages {
        Messages {
            side,
            message_max,
            state: BETWEEN,
            last_seq: 0,
            last_ack: 0,
            more: 0,
            interrupted: None,
            resumes_after: None,
        }
    }

    /// The connection is gone: what comes next begins with the message after the last whole one.
    pub fn restart(&mut self, link: &Link) {
        if let State::Body(body) = self.state {
            self.interrupted = Some(body);
        }
        self.state = BETWEEN;
        self.last_seq = link.received_seq.load(Ordering::SeqCst);
    }

    /// The peer has acknowledged `ack` in its greeting on a new connection.
    pub fn set_acknowledged(&mut self, ack: u64) {
        self.last_ack = ack;
    }

    /// Whether nothing of the stream is half read.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Prefix(_, 0)) && self.more == 0 && self.interrupted.is_none()
    }

    /// Goes on to the next thing on the stream; `None` if that would have to wait. Bytes of a body
    /// stay where they are: take them, and tell [`took`](Messages::took).
    pub fn step(&mut self, wire: &mut Inbound, link: &Link) -> Result<Option<Step>, LinkError> {
        loop {
            let available = wire.available()?;
            if available.is_empty() {
                return self.nothing(wire);
            }
            let used = match &mut self.state {
                State::Body(body) => {
                    let repeated = body.repeated();
                    let len = available.len().min(body.left);
                    if repeated == 0 {
                        return Ok(Some(Step::Body(len)));
                    }
                    let len = len.min(repeated);
                    wire.consume(len);
                    self.passed(len, link);
                    continue;
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
                        wire.consume(len);
                        if message == 0 {
                            // Nothing of it will come: not even a number.
                            return Err(LinkError::Violation("an empty message"));
                        }
                        continue;
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
                            more,
                            body,
                        } => {
                            wire.consume(len - before);
                            self.check_numbers(seq, ack, link)?;
                            return self.begin_body(seq, body, more, link).map(Some);
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
                wire.consume(used);
            }
            if let Some(cold) = self.finish_cold(link)? {
                return Ok(Some(Step::Found(Found::Cold(cold))));
            }
        }
    }

    /// Reads bytes of the present body, as many as come without waiting, into `target`; or finds
    /// what comes between its messages.
    pub fn read(
        &mut self,
        target: &mut [u8],
        wire: &mut Inbound,
        link: &Link,
    ) -> Result<Option<Read>, LinkError> {
        loop {
            if let State::Body(body) = &self.state {
                if body.repeated() == 0 {
                    let limit = body.left.min(target.len());
                    let len = wire.read(target, limit, &link.crew)?;
                    if len == 0 {
                        return self.nothing(wire).map(|_| None);
                    }
                    self.took(len, link);
                    return Ok(Some(Read::Bytes(len)));
                }
            }
            match self.step(wire, link)? {
                None => return Ok(None),
                Some(Step::GoesOn | Step::Body(_)) => {}
                Some(Step::Found(Found::Cold(cold))) => return Ok(Some(Read::Cold(cold))),
                Some(Step::Found(Found::Hot(_)) | Step::End) => return Err(TOO_EARLY),
            }
        }
    }

    /// The first `len` bytes of the present body have been taken, and the receiver will have them.
    pub fn took(&mut self, len: usize, link: &Link) {
        if let State::Body(body) = &mut self.state {
            body.given += len;
        }
        self.passed(len, link);
    }

    fn passed(&mut self, len: usize, link: &Link) {
        if let State::Body(body) = &mut self.state {
            body.left -= len;
            if body.left == 0 {
                link.received(body.seq, body.len);
                self.state = BETWEEN;
            }
        }
    }

    /// What it means that no more bytes are there.
    fn nothing(&self, wire: &Inbound) -> Result<Option<Step>, LinkError> {
        match wire.end() {
            None => Ok(None),
            Some(Ok(())) if self.is_between() => Ok(Some(Step::End)),
            Some(Ok(())) => Err(TOO_EARLY),
            Some(Err(error)) => Err(error),
        }
    }

    fn begin_body(
        &mut self,
        seq: u64,
        len: usize,
        more: u64,
        link: &Link,
    ) -> Result<Step, LinkError> {
        let more = usize::try_from(more)
            .ok()
            .filter(|more| *more <= self.message_max)
            .ok_or(LinkError::Violation("a body larger than allowed"))?;
        let mut given = 0;
        let step = if let Some(before) = self.interrupted.take() {
            if (seq, len, more) != (before.seq, before.len, self.more) {
                return Err(LinkError::Violation("a repeated frame that is another"));
            }
            given = before.given;
            Step::GoesOn
        } else if self.more > 0 {
            if len == 0 || len + more != self.more {
                return Err(LinkError::Violation(
                    "a body that does not go on as it said",
                ));
            }
            Step::GoesOn
        } else {
            if more > 0 && !link.is_resumable() {
                return Err(LinkError::Violation(
                    "a body in pieces, which nobody agreed on",
                ));
            }
            Step::Found(Found::Hot(len + more))
        };
        self.more = more;
        self.state = State::Body(Body {
            seq,
            len,
            left: len,
            given,
        });
        if len == 0 {
            self.passed(0, link);
        }
        Ok(step)
    }

    /// Decodes a frame that has come whole.
    fn finish_cold(&mut self, link: &Link) -> Result<Option<Cold>, LinkError> {
        let State::Cold { message, bytes } = &self.state else {
            return Ok(None);
        };
        let message = *message;
        if bytes.len() < message {
            return Ok(None);
        }
        let frame = match self.side {
            Side::Client => ColdFrame::decode_from_server(bytes)?,
            Side::Server => ColdFrame::decode_from_client(bytes)?,
        };
        if frame.seq == 0 && self.last_seq == 0 && self.resumes_after.is_none() {
            // A greeting outside of the count. Whoever expects it checks what it acknowledges.
            self.resumes_after = Some(frame.ack);
            self.state = BETWEEN;
            return Ok(Some(frame.body));
        }
        self.check_numbers(frame.seq, frame.ack, link)?;
        let aside = matches!(frame.body, Cold::Ping(_) | Cold::Pong(_) | Cold::Unknown);
        if self.interrupted.is_some() {
            return Err(LinkError::Violation("a repeated frame that is another"));
        }
        if self.more > 0 && !aside {
            return Err(TOO_EARLY);
        }
        link.received(frame.seq, message);
        self.state = BETWEEN;
        Ok(Some(frame.body))
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
        link.acked.store(ack, Ordering::SeqCst);
        Ok(())
    }
}

/// What reading a body has brought.
pub enum Read {
    Bytes(usize),
    Cold(Cold),
}

const TOO_EARLY: LinkError = LinkError::Violation("a stream that ends in a frame");
