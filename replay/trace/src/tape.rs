//! What passes between a client and its server, as blocks: calls, replies and pushes, with as much of their data as is
//! to be kept. Either end can hold one.

use std::collections::HashMap;

use harp_wire::push::Span;
use harp_wire::record::RECORD_HEAD_BYTES;
use harp_wire::reply::REPLY_HEAD_BYTES;
use harp_wire::CallId;

use crate::block::{Block, Kind, Message, Payload, Policy, PAYLOAD_MIN};
use crate::call_numbers::CallNumbers;
use crate::payloads::{self, Class, Policies};
use crate::ring::{Patience, Producer};
use crate::told;

/// The writing end of a trace. Times are nanoseconds since it began.
pub struct Tape {
    ring: Producer,
    policies: Policies,
    /// Calls whose replies bring data, by session and ticket.
    awaited: HashMap<(u32, u32), Class>,
    /// The recorder was too slow for a payload: there are none until it has caught up.
    has_stalled: bool,
    /// Memory for replies.
    reply: Vec<u8>,
    /// Where servers tell of calls by their places.
    numbers: Option<CallNumbers>,
    /// When the server's clock of a session began, as nearly as is known, and whether it has told of times.
    clocks: HashMap<u32, (u64, bool)>,
}

impl Tape {
    pub fn new(ring: Producer, policies: Policies) -> Tape {
        Tape {
            ring,
            policies,
            awaited: HashMap::new(),
            has_stalled: false,
            reply: Vec::new(),
            numbers: None,
            clocks: HashMap::new(),
        }
    }

    /// Servers will tell how long calls took on their devices. To be said before the first call.
    pub fn expect_device_times(&mut self) {
        self.numbers.get_or_insert_default();
    }

    /// Appends any block; where there is no room it is counted as lost.
    #[inline]
    pub fn append(&mut self, time: u64, block: &Block) {
        self.ring.append(time, block);
    }

    /// A session has begun, as its description says.
    pub fn session(&mut self, time: u64, session: u32, description: &[u8]) {
        self.clocks.insert(session, (time, false));
        self.append(time, &Block::Session(description));
    }

    /// A driver call begins in a thread.
    #[inline]
    pub fn enter(&mut self, time: u64, thread: u32, symbol: u16) {
        let fixed = [time, u64::from(thread) | u64::from(symbol) << 32];
        self.ring
            .append_optional(Kind::Enter, fixed, time, || Block::Enter {
                time,
                thread,
                symbol,
            });
    }

    /// It has ended.
    #[inline]
    pub fn leave(&mut self, time: u64, thread: u32, result: u32) {
        let fixed = [time, u64::from(thread) | u64::from(result) << 32];
        self.ring
            .append_optional(Kind::Leave, fixed, time, || Block::Leave {
                time,
                thread,
                result,
            });
    }

    /// The orderly end of what is recorded.
    pub fn end(&mut self, time: u64) {
        self.ring.append_last(time, &Block::End(&told::end(time)));
        self.ring.wake();
    }

    /// A record of a session's stream whose last argument is `payload`, where it has one that is data. It may wait for
    /// the recorder if there is one.
    #[inline]
    pub fn call(&mut self, time: u64, session: u32, record: &[u8], payload: &[u8]) {
        let Some(head) = record.first_chunk::<RECORD_HEAD_BYTES>() else {
            return;
        };
        let call = CallId(u16::from_le_bytes([head[4], head[5]]));
        let ticket = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
        if let Some(class) = payloads::brought_by(call).filter(|_| ticket != 0) {
            self.awaited.insert((session, ticket), class);
        }
        let mut message = Message {
            time,
            session,
            bytes: record,
            payload: None,
        };
        if payload.is_empty() {
            let fixed = [time, u64::from(session)];
            let block = || Block::Call(message);
            let is_there = self
                .ring
                .append_fixed(Kind::Call, fixed, record, time, block);
            return self.count(session, is_there);
        }
        message.payload = payloads::sent_by(call).map(|class| self.payload(class, payload));
        let is_there = self.ring.append(time, &Block::Call(message));
        self.count(session, is_there);
    }

    #[inline]
    fn count(&mut self, session: u32, is_there: bool) {
        if let Some(numbers) = &mut self.numbers {
            numbers.count(session, is_there);
        }
    }

    /// As [`call`](Self::call), of a payload of which only so much is told.
    pub fn call_without_bytes(
        &mut self,
        time: u64,
        session: u32,
        record: &[u8],
        (policy, bytes): (Policy, usize),
    ) {
        let message = Message {
            time,
            session,
            bytes: record,
            payload: Some(Payload::unnamed(policy, bytes)),
        };
        let is_there = self.ring.append(time, &Block::Call(message));
        self.count(session, is_there);
    }

    /// A reply: its head, and its outputs, or else the data that they end with, which has `landed` elsewhere. It may
    /// wait for the recorder where there is data.
    pub fn reply(
        &mut self,
        time: u64,
        session: u32,
        head: &[u8; REPLY_HEAD_BYTES],
        outputs: &[u8],
        landed: &[u8],
    ) {
        let ticket = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let class = self.awaited.remove(&(session, ticket));
        let mut bytes = std::mem::take(&mut self.reply);
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
            Some(class) => Some(self.payload(class, data)),
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
        self.ring.append(time, &Block::Reply(message));
        self.reply = bytes;
    }

    /// What a server says of calls on its devices, heard at `time`.
    pub fn device_times(&mut self, time: u64, session: u32, now: u64, spans: &[Span]) {
        let Some(numbers) = &mut self.numbers else {
            return;
        };
        // What is heard comes late, so the earlier guess is the better one; once used it stays.
        let heard = time.saturating_sub(now);
        let (began, is_used) = self.clocks.entry(session).or_insert((heard, false));
        if !std::mem::replace(is_used, true) {
            *began = heard.min(*began);
        }
        let began = *began;
        for span in spans {
            let Some(call) = numbers.of(session, span.call) else {
                continue;
            };
            let block = Block::DeviceTime {
                session,
                call,
                began: span.began.saturating_add(began),
                ended: span.ended.saturating_add(began),
            };
            self.ring.append(time, &block);
        }
    }

    /// The body of what a server has said without being asked.
    pub fn push(&mut self, time: u64, session: u32, body: &[u8]) {
        let message = Message {
            time,
            session,
            bytes: body,
            payload: None,
        };
        self.ring.append(time, &Block::Push(message));
    }

    /// Appends as much of a payload as is to be kept, for the block that is appended next.
    fn payload(&mut self, class: Class, bytes: &[u8]) -> Payload {
        let policy = self.policies.of(class);
        if !policy.has_hash() {
            return Payload::unnamed(policy, bytes.len());
        }
        if self.has_stalled && self.ring.free() < self.ring.capacity() / 8 * 7 {
            return Payload::unnamed(Policy::Lost, bytes.len());
        }
        let mut patience = Patience::for_bytes(&self.ring, bytes.len() as u64);
        let payload = self.ring.append_payload(policy, &[bytes], &mut patience);
        self.has_stalled = payload.policy == Policy::Lost;
        payload
    }
}
