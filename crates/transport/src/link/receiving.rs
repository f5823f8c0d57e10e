//! What the reading half of a link has, under its lock: the connection's bytes, the messages in
//! them, and frames that a blocked sender has taken in ahead.

use std::time::{Duration, Instant};

use super::inbound::Inbound;
use super::inbox::Inbox;
use super::messages::{Found, Messages, Read, Step};
use super::{Break, Link, Observed, KEEP_ALIVE};
use crate::envelope::Cold;
use crate::error::LinkError;
use crate::h2::Side;

pub struct Receiving {
    pub wire: Inbound,
    pub messages: Messages,
    pub inbox: Inbox,
    /// Bytes of the present frame's body that the receiver has not read.
    body_left: usize,
    /// The peer has said goodbye.
    bye: bool,
    silence: Silence,
    /// Bytes that earlier connections have brought.
    pub carried: u64,
}

/// For how long somebody has waited without a sign of the peer.
#[derive(Default)]
struct Silence {
    since: Option<Instant>,
    /// When the peer was asked for a sign, and what it was asked with has been told of.
    asked: Option<Instant>,
    told: bool,
}

/// What comes next for the receiver.
pub enum Arrival {
    Hot(usize),
    Cold(Cold),
    End,
}

impl Receiving {
    pub fn new(wire: Inbound, messages: Messages) -> Receiving {
        Receiving {
            wire,
            messages,
            inbox: Inbox::default(),
            body_left: 0,
            bye: false,
            silence: Silence::default(),
            carried: 0,
        }
    }

    /// All bytes that have come from the sockets.
    pub fn bytes_received(&self) -> u64 {
        self.carried + self.wire.received()
    }

    /// Whether there are bytes in memory that the receiver has not read, opened or not.
    pub fn has_bytes(&self) -> bool {
        !self.inbox.is_empty() || self.wire.has_bytes()
    }

    pub fn body_left(&self) -> usize {
        self.body_left
    }

    /// Goes on to the next frame, as far as that goes without waiting.
    pub fn next(&mut self, link: &Link) -> Result<Option<Arrival>, LinkError> {
        while self.body_left > 0 {
            let ahead = self.inbox.bytes.len().min(self.body_left);
            if ahead > 0 {
                self.inbox.bytes.consume(ahead);
                self.body_left -= ahead;
                continue;
            }
            match self.messages.step(&mut self.wire, link)? {
                None => return Ok(None),
                Some(Step::Body(len)) => {
                    self.wire.consume(len);
                    self.messages.took(len, link);
                    self.body_left -= len;
                }
                Some(step) => self.stash(step, link)?,
            }
        }
        loop {
            let found = match self.inbox.pop() {
                Some(found) => found,
                None => match self.messages.step(&mut self.wire, link)? {
                    None => return Ok(None),
                    Some(Step::End) => return Ok(Some(Arrival::End)),
                    Some(step) => {
                        self.stash(step, link)?;
                        continue;
                    }
                },
            };
            return Ok(Some(match found {
                Found::Hot(len) => {
                    self.body_left = len;
                    Arrival::Hot(len)
                }
                Found::Cold(cold) => Arrival::Cold(cold),
            }));
        }
    }

    /// Reads bytes of the present body that come without waiting; `None` if there are none yet.
    pub fn read(&mut self, target: &mut [u8], link: &Link) -> Result<Option<usize>, LinkError> {
        if target.len() > self.body_left {
            return Err(LinkError::Violation("a frame that ends too early"));
        }
        let ahead = self.inbox.bytes.front();
        if !ahead.is_empty() {
            let len = ahead.len().min(target.len());
            target[..len].copy_from_slice(&ahead[..len]);
            self.inbox.bytes.consume(len);
            self.body_left -= len;
            return Ok(Some(len));
        }
        loop {
            match self.messages.read(target, &mut self.wire, link)? {
                None => return Ok(None),
                Some(Read::Bytes(len)) => {
                    self.body_left -= len;
                    return Ok(Some(len));
                }
                Some(Read::Cold(cold)) => self.stash(Step::Found(Found::Cold(cold)), link)?,
            }
        }
    }

    /// Whether the receiver would find something without waiting.
    pub fn is_readable(&mut self, link: &Link) -> Result<bool, LinkError> {
        loop {
            if !self.inbox.is_empty() {
                return Ok(true);
            }
            match self.messages.step(&mut self.wire, link)? {
                None => return Ok(false),
                Some(Step::Body(_) | Step::End) => return Ok(true),
                Some(step) => self.stash(step, link)?,
            }
        }
    }

    /// Takes everything off the socket that comes without waiting, up to `limit` bytes ahead of
    /// the receiver. Returns whether more may be taken when it comes.
    pub fn stock_up(&mut self, limit: usize, link: &Link) -> Result<bool, LinkError> {
        while self.inbox.size() < limit {
            match self.messages.step(&mut self.wire, link)? {
                None => return Ok(!self.wire.said_goodbye()),
                Some(Step::End) => return Ok(false),
                Some(Step::Body(len)) => {
                    self.inbox.bytes.push(&self.wire.available()?[..len]);
                    self.wire.consume(len);
                    self.messages.took(len, link);
                }
                Some(step) => self.stash(step, link)?,
            }
        }
        Ok(false)
    }

    /// Keeps a frame for the receiver, or acts on one that is not for it.
    fn stash(&mut self, step: Step, link: &Link) -> Result<(), LinkError> {
        let Step::Found(found) = step else {
            return Ok(());
        };
        match found {
            Found::Cold(Cold::Ping(token)) => return link.answer_ping(token),
            // It has said with its acknowledgement all that it had to say, or what a newer peer
            // may say and this version does not know.
            Found::Cold(Cold::Unknown | Cold::Pong(KEEP_ALIVE)) => return Ok(()),
            Found::Cold(Cold::Bye(_)) => self.bye = true,
            _ => {}
        }
        self.inbox.push(found);
        Ok(())
    }

    /// How the peer has ended the stream, if it has and the receiver has everything before.
    pub fn end(&self) -> Option<Result<(), LinkError>> {
        if self.inbox.is_empty() {
            self.wire.end()
        } else {
            None
        }
    }

    /// Whether nothing that we send is of use any more.
    pub fn is_over(&self) -> bool {
        self.bye || self.wire.is_over()
    }

    /// What an error of this connection means for the link.
    pub fn judge(&self, error: LinkError) -> Break {
        match &error {
            _ if self.bye => Break::Final(LinkError::Closed),
            _ if self.wire.said_goodbye() => Break::Final(error),
            LinkError::Lost(_) if self.wire.was_hung_up() => Break::HungUp(error),
            LinkError::Lost(_) | LinkError::Tls(_) | LinkError::Alert(_) => Break::Network(error),
            _ => Break::Final(error),
        }
    }

    /// Looks after a wait that is about to sleep: asks a silent peer for a sign of life, tells of
    /// its silence, and ends it. Returns when to look again.
    pub fn watch(&mut self, link: &Link, now: Instant) -> Result<Option<Instant>, LinkError> {
        if link.side == Side::Server || !link.is_resumable() {
            return Ok(None);
        }
        let tuning = &link.tuning;
        let silence = &mut self.silence;
        let since = *silence.since.get_or_insert(now);
        if self.wire.heard >= since {
            if silence.told {
                link.observe(&Observed::Heard);
            }
            *silence = Silence::default();
            silence.since = Some(now);
            return Ok(Some(now + tuning.ask_after));
        }
        let Some(asked) = silence.asked else {
            if now < since + tuning.ask_after {
                return Ok(Some(since + tuning.ask_after));
            }
            silence.asked = Some(now);
            link.owe_keep_alive();
            return Ok(Some(now + tuning.tell_after));
        };
        if now >= asked + tuning.give_up_after {
            *silence = Silence::default();
            let seconds = (tuning.ask_after + tuning.give_up_after).as_secs();
            let text = format!("no sign of the peer for {seconds} s");
            return Err(LinkError::Lost(text));
        }
        if now >= asked + tuning.tell_after && !silence.told {
            silence.told = true;
            let silent = now.duration_since(asked) + tuning.ask_after;
            link.observe(&Observed::Silent(whole_seconds(silent)));
        }
        let next = if silence.told {
            tuning.give_up_after
        } else {
            tuning.tell_after
        };
        Ok(Some(asked + next))
    }

    /// The wait goes on over another connection.
    pub fn forget_silence(&mut self) {
        self.silence = Silence::default();
    }
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}
