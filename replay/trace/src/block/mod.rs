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

mod encoding;
mod lost;
#[cfg(test)]
mod tests;

use std::fmt;

pub use lost::{loss, Kinds, Lost};

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
    /// On disk only: a run of blocks told by what they are like, see `container/alike/`.
    Alike = 18,
}

impl Kind {
    /// By number, with what they are called in lines.
    const ALL: [(Kind, &'static str); 19] = [
        (Kind::Part, "part"),
        (Kind::Define, "define"),
        (Kind::Process, "process"),
        (Kind::Session, "session"),
        (Kind::Thread, "thread"),
        (Kind::Enter, "enter"),
        (Kind::Leave, "leave"),
        (Kind::Call, "call"),
        (Kind::Reply, "reply"),
        (Kind::Push, "push"),
        (Kind::Wait, "wait"),
        (Kind::Allocation, "allocation"),
        (Kind::Free, "free"),
        (Kind::Loss, "loss"),
        (Kind::Annotation, "annotation"),
        (Kind::End, "end"),
        (Kind::Snapshot, "snapshot"),
        (Kind::DeviceTime, "device_time"),
        (Kind::Alike, "alike"),
    ];

    pub fn from_number(number: u16) -> Option<Kind> {
        let known = Kind::ALL.get(usize::from(number));
        known.map(|(kind, _)| *kind)
    }

    pub fn name(self) -> &'static str {
        Kind::ALL[self as usize].1
    }
}

/// Types from here on are experiments: they never get a meaning.
pub const FIRST_EXPERIMENT: u16 = 0x8000;

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
    const ALL: [Policy; 4] = [Policy::Lost, Policy::Shape, Policy::Hash, Policy::Full];

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
        Policy::ALL.get(usize::from(number)).copied()
    }

    pub fn from_name(name: &str) -> Option<Policy> {
        Policy::ALL.into_iter().find(|policy| policy.name() == name)
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
}

/// A block whose body has not been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawBlock<'a> {
    pub number: u16,
    pub flags: u16,
    pub body: &'a [u8],
}

/// A shorter body of one of the types of [`RawBlock::in_brief`] is cut short.
const BRIEF_MIN: usize = 16;

impl RawBlock<'_> {
    /// Type and time of a block of one of the types that there are most of, if it has no payload and
    /// can be [read](Block::decode): reading all of it takes longer than what is done with most.
    #[inline]
    pub fn in_brief(&self) -> Option<(Kind, u64)> {
        if self.flags & FLAG_PAYLOAD != 0 || self.body.len() < BRIEF_MIN {
            return None;
        }
        let kind = Kind::from_number(self.number)?;
        let time = u64::from_le_bytes(*self.body.first_chunk()?);
        matches!(kind, Kind::Enter | Kind::Leave | Kind::Call | Kind::Reply).then_some((kind, time))
    }

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
        lost: Lost,
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
