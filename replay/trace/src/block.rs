//! One block: the unit of a trace, in the ring and on disk alike.
//!
//! | offset | type | meaning |
//! |---|---|---|
//! | 0 | u32 | bytes of the body |
//! | 4 | u16 | type, see [`Kind`] |
//! | 6 | u16 | flags: bit 0 the body ends with a payload's [descriptor](Payload) |
//! | 8 | | the body |
//!
//! Everything is little endian and packed. Readers pass over types that they do not know and ignore
//! flags that they do not know.

use std::fmt;

pub const HEAD_BYTES: usize = 8;
/// The longest body: a record or reply of the wire and what comes before it.
pub const BODY_MAX: usize = (64 << 20) + (4 << 10);
/// The body ends with the descriptor of a payload that was cut out of it.
pub const FLAG_PAYLOAD: u16 = 1;
/// Of a [`Kind::Part`]: it begins a payload.
pub const FLAG_FIRST: u16 = 1;
/// Of a [`Kind::Part`]: it is to be kept, not only hashed.
pub const FLAG_KEEP: u16 = 2;
/// The most of a payload in one [`Kind::Part`].
pub const PART_MAX: usize = 256 << 10;
/// Shorter payloads stay in their record.
pub const PAYLOAD_MIN: usize = 64;

/// The types of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Kind {
    /// In the ring only: a piece of the payload of the next block that is none.
    Part = 0,
    Define = 1,
    Process = 2,
    Session = 3,
    Thread = 4,
    Enter = 5,
    Leave = 6,
    Call = 7,
    Reply = 8,
    Push = 9,
    Wait = 10,
    Allocation = 11,
    Free = 12,
    Loss = 13,
    Annotation = 14,
    End = 15,
    Snapshot = 16,
    DeviceTime = 17,
}

impl Kind {
    const ALL: [Kind; 18] = [
        Kind::Part,
        Kind::Define,
        Kind::Process,
        Kind::Session,
        Kind::Thread,
        Kind::Enter,
        Kind::Leave,
        Kind::Call,
        Kind::Reply,
        Kind::Push,
        Kind::Wait,
        Kind::Allocation,
        Kind::Free,
        Kind::Loss,
        Kind::Annotation,
        Kind::End,
        Kind::Snapshot,
        Kind::DeviceTime,
    ];

    pub fn from_number(number: u16) -> Option<Kind> {
        Kind::ALL.get(usize::from(number)).copied()
    }
}

/// Types from here on are experiments: they never get a meaning.
pub const FIRST_EXPERIMENT: u16 = 0x8000;

/// Why blocks are missing, as bits of [`Block::Loss`].
pub mod loss {
    /// The ring was full.
    pub const NO_ROOM: u64 = 1;
    /// The disk was full.
    pub const DISK_FULL: u64 = 1 << 1;
    /// Writing failed otherwise.
    pub const DISK_FAILED: u64 = 1 << 2;
    /// Nobody took blocks out of the ring any more.
    pub const RECORDER_GONE: u64 = 1 << 3;
}

/// How much of a payload is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Policy {
    /// Nothing but its size, though more was asked for.
    Lost = 0,
    /// Its size.
    Shape = 1,
    /// Its size and what its content is called.
    Hash = 2,
    /// All of it.
    Full = 3,
}

impl Policy {
    /// What it is called in settings and in events.
    pub fn name(self) -> &'static str {
        match self {
            Policy::Lost => "lost",
            Policy::Shape => "shape",
            Policy::Hash => "hash",
            Policy::Full => "full",
        }
    }

    pub fn from_number(number: u8) -> Option<Policy> {
        [Policy::Lost, Policy::Shape, Policy::Hash, Policy::Full]
            .get(usize::from(number))
            .copied()
    }

    pub fn from_name(name: &str) -> Option<Policy> {
        [Policy::Lost, Policy::Shape, Policy::Hash, Policy::Full]
            .into_iter()
            .find(|policy| policy.name() == name)
    }

    /// Whether a descriptor on disk names the content.
    pub fn has_hash(self) -> bool {
        matches!(self, Policy::Hash | Policy::Full)
    }
}

/// The name of a content: its BLAKE3 hash.
pub type Hash = [u8; 32];

pub const PAYLOAD_BYTES: usize = 48;

/// The descriptor of a payload: the last 48 bytes of a body whose flags say so.
///
/// `u8 policy, 7 zero bytes, u64 length, [32] hash`. In the ring the hash is not known yet: there the
/// bytes of a payload to be hashed or kept come before the block, as [`Kind::Part`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    pub policy: Policy,
    /// Its bytes.
    pub length: u64,
    /// Zeros unless the policy has a hash.
    pub hash: Hash,
}

impl Payload {
    /// A payload of which no name is known (yet).
    pub fn unnamed(policy: Policy, length: usize) -> Payload {
        Payload {
            policy,
            length: length as u64,
            hash: [0; 32],
        }
    }

    pub fn encode(&self) -> [u8; PAYLOAD_BYTES] {
        let mut bytes = [0; PAYLOAD_BYTES];
        bytes[0] = self.policy as u8;
        bytes[8..16].copy_from_slice(&self.length.to_le_bytes());
        bytes[16..].copy_from_slice(&self.hash);
        bytes
    }

    pub fn decode(bytes: &[u8; PAYLOAD_BYTES]) -> Result<Payload, Malformed> {
        let mut fields = Fields(bytes);
        let policy = Policy::from_number(fields.array::<8>()?[0]);
        Ok(Payload {
            policy: policy.ok_or(Malformed("a payload's policy has no meaning"))?,
            length: fields.u64()?,
            hash: fields.array()?,
        })
    }
}

/// A block whose body has not been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawBlock<'a> {
    pub number: u16,
    pub flags: u16,
    pub body: &'a [u8],
}

impl RawBlock<'_> {
    pub fn head(&self) -> [u8; HEAD_BYTES] {
        head(self.number, self.flags, self.body.len())
    }
}

pub(crate) fn head(number: u16, flags: u16, body_bytes: usize) -> [u8; HEAD_BYTES] {
    let word = body_bytes as u64 & 0xffff_ffff | u64::from(number) << 32 | u64::from(flags) << 48;
    word.to_le_bytes()
}

/// Type, flags and bytes of the body; the reader bounds the latter.
pub(crate) fn read_head(head: [u8; HEAD_BYTES]) -> (u16, u16, usize) {
    let word = u64::from_le_bytes(head);
    (
        (word >> 32) as u16,
        (word >> 48) as u16,
        word as u32 as usize,
    )
}

/// What passed between a program and a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Nanoseconds since the trace began.
    pub time: u64,
    /// Number of the session within the process.
    pub session: u32,
    /// The bytes of the wire, head and all, without the payload that was cut out of them; the lengths
    /// in them are those of the wire.
    pub bytes: &'a [u8],
    pub payload: Option<Payload>,
}

/// A block with its fields. Times are nanoseconds since the trace began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block<'a> {
    Part {
        first: bool,
        /// Whether the payload is to be kept, not only hashed.
        keep: bool,
        bytes: &'a [u8],
    },
    /// JSON: how calls are encoded, and names.
    Define(&'a [u8]),
    /// JSON: the program.
    Process(&'a [u8]),
    /// JSON: a session and what its welcome said.
    Session(&'a [u8]),
    Thread {
        thread: u32,
        tid: u32,
        name: &'a [u8],
    },
    /// A call of the driver API begins.
    Enter {
        time: u64,
        thread: u32,
        symbol: u16,
    },
    Leave {
        time: u64,
        thread: u32,
        result: u32,
    },
    Call(Message<'a>),
    Reply(Message<'a>),
    Push(Message<'a>),
    Wait {
        began: u64,
        ended: u64,
        thread: u32,
        session: u32,
        ticket: u32,
        reason: u16,
        call: u16,
    },
    Allocation {
        time: u64,
        session: u32,
        device: u32,
        address: u64,
        bytes: u64,
    },
    Free {
        time: u64,
        session: u32,
        address: u64,
    },
    Loss {
        time: u64,
        reasons: u64,
        blocks: u64,
        bytes: u64,
    },
    Annotation(&'a [u8]),
    End(&'a [u8]),
    /// Memory of a device before the next call.
    Snapshot {
        session: u32,
        device: u32,
        address: u64,
        bytes: u64,
        payload: Payload,
    },
    DeviceTime {
        session: u32,
        call: u64,
        began: u64,
        ended: u64,
    },
    /// A type that this version does not know.
    Other(RawBlock<'a>),
}

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

const FIXED_MAX: usize = 32;

/// A block ready to be copied: fields, bytes of the caller, descriptor.
pub(crate) struct Parts<'a> {
    pub number: u16,
    pub flags: u16,
    fixed: [u8; FIXED_MAX],
    fixed_bytes: usize,
    rest: &'a [u8],
    described: bool,
    payload: [u8; PAYLOAD_BYTES],
}

impl<'a> Parts<'a> {
    fn new(kind: Kind, rest: &'a [u8]) -> Parts<'a> {
        Parts {
            number: kind as u16,
            flags: 0,
            fixed: [0; FIXED_MAX],
            fixed_bytes: 0,
            rest,
            described: false,
            payload: [0; PAYLOAD_BYTES],
        }
    }

    fn put<const N: usize>(mut self, bytes: [u8; N]) -> Self {
        self.fixed[self.fixed_bytes..self.fixed_bytes + N].copy_from_slice(&bytes);
        self.fixed_bytes += N;
        self
    }

    fn u16(self, value: u16) -> Self {
        self.put(value.to_le_bytes())
    }

    fn u32(self, value: u32) -> Self {
        self.put(value.to_le_bytes())
    }

    fn u64(self, value: u64) -> Self {
        self.put(value.to_le_bytes())
    }

    fn payload(mut self, payload: Option<&Payload>) -> Self {
        if let Some(payload) = payload {
            self.flags |= FLAG_PAYLOAD;
            self.described = true;
            self.payload = payload.encode();
        }
        self
    }

    fn message(kind: Kind, message: &Message<'a>) -> Self {
        Parts::new(kind, message.bytes)
            .u64(message.time)
            .u32(message.session)
            .u32(0)
            .payload(message.payload.as_ref())
    }

    pub fn slices(&self) -> [&[u8]; 3] {
        let payload = if self.described { PAYLOAD_BYTES } else { 0 };
        [
            &self.fixed[..self.fixed_bytes],
            self.rest,
            &self.payload[..payload],
        ]
    }
}

impl<'a> Block<'a> {
    pub(crate) fn parts(&self) -> Parts<'a> {
        match *self {
            Block::Part { first, keep, bytes } => Parts {
                flags: (u16::from(first) * FLAG_FIRST) | (u16::from(keep) * FLAG_KEEP),
                ..Parts::new(Kind::Part, bytes)
            },
            Block::Define(json) => Parts::new(Kind::Define, json),
            Block::Process(json) => Parts::new(Kind::Process, json),
            Block::Session(json) => Parts::new(Kind::Session, json),
            Block::Annotation(json) => Parts::new(Kind::Annotation, json),
            Block::End(json) => Parts::new(Kind::End, json),
            Block::Thread { thread, tid, name } => {
                Parts::new(Kind::Thread, name).u32(thread).u32(tid)
            }
            Block::Enter {
                time,
                thread,
                symbol,
            } => Parts::new(Kind::Enter, &[])
                .u64(time)
                .u32(thread)
                .u16(symbol)
                .u16(0),
            Block::Leave {
                time,
                thread,
                result,
            } => Parts::new(Kind::Leave, &[])
                .u64(time)
                .u32(thread)
                .u32(result),
            Block::Call(ref message) => Parts::message(Kind::Call, message),
            Block::Reply(ref message) => Parts::message(Kind::Reply, message),
            Block::Push(ref message) => Parts::message(Kind::Push, message),
            Block::Wait {
                began,
                ended,
                thread,
                session,
                ticket,
                reason,
                call,
            } => Parts::new(Kind::Wait, &[])
                .u64(began)
                .u64(ended)
                .u32(thread)
                .u32(session)
                .u32(ticket)
                .u16(reason)
                .u16(call),
            Block::Allocation {
                time,
                session,
                device,
                address,
                bytes,
            } => Parts::new(Kind::Allocation, &[])
                .u64(time)
                .u32(session)
                .u32(device)
                .u64(address)
                .u64(bytes),
            Block::Free {
                time,
                session,
                address,
            } => Parts::new(Kind::Free, &[])
                .u64(time)
                .u32(session)
                .u32(0)
                .u64(address),
            Block::Loss {
                time,
                reasons,
                blocks,
                bytes,
            } => Parts::new(Kind::Loss, &[])
                .u64(time)
                .u64(reasons)
                .u64(blocks)
                .u64(bytes),
            Block::Snapshot {
                session,
                device,
                address,
                bytes,
                ref payload,
            } => Parts::new(Kind::Snapshot, &[])
                .u32(session)
                .u32(device)
                .u64(address)
                .u64(bytes)
                .payload(Some(payload)),
            Block::DeviceTime {
                session,
                call,
                began,
                ended,
            } => Parts::new(Kind::DeviceTime, &[])
                .u32(session)
                .u32(0)
                .u64(call)
                .u64(began)
                .u64(ended),
            Block::Other(raw) => Parts {
                number: raw.number,
                // The descriptor, if there is one, is part of its body already.
                flags: raw.flags,
                ..Parts::new(Kind::Part, raw.body)
            },
        }
    }

    /// What has been cut out of it, also if its type is not known.
    pub fn payload(&self) -> Option<Payload> {
        match self {
            Block::Call(message) | Block::Reply(message) | Block::Push(message) => message.payload,
            Block::Snapshot { payload, .. } => Some(*payload),
            Block::Other(raw) if raw.flags & FLAG_PAYLOAD != 0 => {
                Payload::decode(raw.body.last_chunk()?).ok()
            }
            _ => None,
        }
    }

    /// Appends head and body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let parts = self.parts();
        let slices = parts.slices();
        let body_bytes = slices.iter().map(|slice| slice.len()).sum();
        out.extend_from_slice(&head(parts.number, parts.flags, body_bytes));
        slices.iter().for_each(|slice| out.extend_from_slice(slice));
    }

    /// Reads the body of a block.
    ///
    /// What comes after the fields that this version knows is left to later ones.
    pub fn decode(raw: RawBlock<'a>) -> Result<Block<'a>, Malformed> {
        let Some(kind) = Kind::from_number(raw.number) else {
            return Ok(Block::Other(raw));
        };
        let mut fields = Fields(raw.body);
        let mut payload = None;
        if raw.flags & FLAG_PAYLOAD != 0 && kind != Kind::Part {
            let (body, descriptor) = raw
                .body
                .split_last_chunk()
                .ok_or(Malformed("the descriptor of its payload is missing"))?;
            payload = Some(Payload::decode(descriptor)?);
            fields = Fields(body);
        }
        let f = &mut fields;
        Ok(match kind {
            Kind::Part => Block::Part {
                first: raw.flags & FLAG_FIRST != 0,
                keep: raw.flags & FLAG_KEEP != 0,
                bytes: f.0,
            },
            Kind::Define => Block::Define(f.0),
            Kind::Process => Block::Process(f.0),
            Kind::Session => Block::Session(f.0),
            Kind::Annotation => Block::Annotation(f.0),
            Kind::End => Block::End(f.0),
            Kind::Thread => Block::Thread {
                thread: f.u32()?,
                tid: f.u32()?,
                name: f.0,
            },
            Kind::Enter => {
                let (time, thread, symbol) = (f.u64()?, f.u32()?, f.u16()?);
                f.u16()?;
                Block::Enter {
                    time,
                    thread,
                    symbol,
                }
            }
            Kind::Leave => Block::Leave {
                time: f.u64()?,
                thread: f.u32()?,
                result: f.u32()?,
            },
            Kind::Call => Block::Call(f.message(payload)?),
            Kind::Reply => Block::Reply(f.message(payload)?),
            Kind::Push => Block::Push(f.message(payload)?),
            Kind::Wait => Block::Wait {
                began: f.u64()?,
                ended: f.u64()?,
                thread: f.u32()?,
                session: f.u32()?,
                ticket: f.u32()?,
                reason: f.u16()?,
                call: f.u16()?,
            },
            Kind::Allocation => Block::Allocation {
                time: f.u64()?,
                session: f.u32()?,
                device: f.u32()?,
                address: f.u64()?,
                bytes: f.u64()?,
            },
            Kind::Free => {
                let (time, session) = (f.u64()?, f.u32()?);
                f.u32()?;
                Block::Free {
                    time,
                    session,
                    address: f.u64()?,
                }
            }
            Kind::Loss => Block::Loss {
                time: f.u64()?,
                reasons: f.u64()?,
                blocks: f.u64()?,
                bytes: f.u64()?,
            },
            Kind::Snapshot => Block::Snapshot {
                session: f.u32()?,
                device: f.u32()?,
                address: f.u64()?,
                bytes: f.u64()?,
                payload: payload.ok_or(Malformed("a snapshot without a payload"))?,
            },
            Kind::DeviceTime => {
                let session = f.u32()?;
                f.u32()?;
                Block::DeviceTime {
                    session,
                    call: f.u64()?,
                    began: f.u64()?,
                    ended: f.u64()?,
                }
            }
        })
    }
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self
            .0
            .split_first_chunk()
            .ok_or(Malformed("its fields are cut short"))?;
        self.0 = rest;
        Ok(*array)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    fn message(&mut self, payload: Option<Payload>) -> Result<Message<'a>, Malformed> {
        let (time, session) = (self.u64()?, self.u32()?);
        self.u32()?;
        Ok(Message {
            time,
            session,
            bytes: self.0,
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks() -> Vec<Block<'static>> {
        let payload = Payload {
            policy: Policy::Full,
            length: 1 << 33,
            hash: core::array::from_fn(|at| at as u8),
        };
        let message = |payload| Message {
            time: 12,
            session: 3,
            bytes: b"the wire's bytes",
            payload,
        };
        vec![
            Block::Part {
                first: true,
                keep: false,
                bytes: b"piece",
            },
            Block::Define(b"{\"calls\":[]}"),
            Block::Process(b"{}"),
            Block::Session(b"{\"number\":0}"),
            Block::Thread {
                thread: 1,
                tid: 4711,
                name: b"main",
            },
            Block::Enter {
                time: u64::MAX,
                thread: 1,
                symbol: 65535,
            },
            Block::Leave {
                time: 9,
                thread: 1,
                result: 700,
            },
            Block::Call(message(None)),
            Block::Call(message(Some(payload))),
            Block::Reply(message(Some(Payload::unnamed(Policy::Shape, 64)))),
            Block::Push(message(None)),
            Block::Wait {
                began: 1,
                ended: 2,
                thread: 3,
                session: 4,
                ticket: 5,
                reason: 6,
                call: 7,
            },
            Block::Allocation {
                time: 1,
                session: 2,
                device: 3,
                address: 4,
                bytes: 5,
            },
            Block::Free {
                time: 1,
                session: 2,
                address: 4,
            },
            Block::Loss {
                time: 1,
                reasons: loss::NO_ROOM | loss::DISK_FULL,
                blocks: 2,
                bytes: 3,
            },
            Block::Annotation(b"{}"),
            Block::End(b"{}"),
            Block::Snapshot {
                session: 1,
                device: 2,
                address: 3,
                bytes: 4,
                payload,
            },
            Block::DeviceTime {
                session: 1,
                call: 2,
                began: 3,
                ended: 4,
            },
            Block::Other(RawBlock {
                number: FIRST_EXPERIMENT,
                flags: FLAG_PAYLOAD | 4,
                body: b"anything",
            }),
        ]
    }

    fn raw(bytes: &[u8]) -> RawBlock<'_> {
        let (head, body) = bytes.split_first_chunk().unwrap();
        let (number, flags, body_bytes) = read_head(*head);
        assert_eq!(body.len(), body_bytes);
        RawBlock {
            number,
            flags,
            body,
        }
    }

    #[test]
    fn a_block_is_read_as_it_was_written() {
        for block in blocks() {
            let mut bytes = Vec::new();
            block.encode(&mut bytes);
            assert_eq!(Block::decode(raw(&bytes)).as_ref(), Ok(&block));
        }
    }

    #[test]
    fn every_type_has_its_number() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
        assert_eq!(Kind::from_number(18), None);
    }

    #[test]
    fn a_body_cut_short_is_malformed_and_a_longer_one_is_for_later_versions() {
        for block in blocks() {
            let mut bytes = Vec::new();
            block.encode(&mut bytes);
            let whole = raw(&bytes);
            let fixed = block.parts().fixed_bytes;
            for cut in 0..fixed {
                let cut = RawBlock {
                    body: &whole.body[..cut],
                    ..whole
                };
                assert!(Block::decode(cut).is_err(), "{block:?}");
            }
            if let Block::Free { .. } = block {
                let longer = [whole.body, b"more"].concat();
                let body = &longer[..];
                assert_eq!(Block::decode(RawBlock { body, ..whole }), Ok(block));
            }
        }
    }

    #[test]
    fn a_policy_without_a_meaning_is_malformed() {
        let mut bytes = Payload::unnamed(Policy::Hash, 100).encode();
        bytes[0] = 4;
        assert!(Payload::decode(&bytes).is_err());
    }
}
