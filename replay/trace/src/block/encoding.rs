//! Blocks as bytes, and bytes as blocks.

use super::{
    head, Block, Kind, Kinds, Lost, Malformed, Message, Payload, Policy, RawBlock, FLAG_FIRST,
    FLAG_KEEP, FLAG_PAYLOAD, PAYLOAD_BYTES,
};

const FIXED_MAX: usize = 40;

/// A block ready to be copied: fields, bytes of the caller, descriptor.
pub struct Parts<'a> {
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
            Block::Loss { time, lost } => {
                let parts = Parts::new(Kind::Loss, &[])
                    .u64(time)
                    .u64(lost.reasons)
                    .u64(lost.blocks)
                    .u64(lost.bytes);
                match lost.kinds {
                    Kinds::UNKNOWN => parts,
                    Kinds(kinds) => parts.u64(kinds),
                }
            }
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
                lost: Lost {
                    reasons: f.u64()?,
                    blocks: f.u64()?,
                    bytes: f.u64()?,
                    kinds: f.u64().map_or(Kinds::UNKNOWN, Kinds),
                },
            },
            Kind::Snapshot => Block::Snapshot {
                session: f.u32()?,
                device: f.u32()?,
                address: f.u64()?,
                bytes: f.u64()?,
                payload: payload.ok_or(Malformed("a snapshot without a payload"))?,
            },
            Kind::Alike => {
                return Err(Malformed("it tells of others, which is for frames on disk"))
            }
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

impl Payload {
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
