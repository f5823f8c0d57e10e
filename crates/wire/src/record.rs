//! One call in the stream.
//!
//! | offset | type | meaning |
//! |---|---|---|
//! | 0 | u32 | bytes that follow this word |
//! | 4 | u16 | call number |
//! | 6 | u8 | flags: bit 0 a reply is wanted; the others are 0 |
//! | 7 | u8 | 0 |
//! | 8 | u32 | the client thread that called |
//! | 12 | u32 | ticket that the reply names; 0 when none is wanted |
//! | 16 | | arguments |

use crate::{CallId, DecodeError, RECORD_MAX};

pub const RECORD_HEAD_BYTES: usize = 16;
pub(crate) const FLAG_REPLY: u8 = 1;

/// A call as it lies in the stream; its arguments are not decoded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub call: CallId,
    /// What the reply is to name, when the caller waits for one.
    pub ticket: Option<u32>,
    pub thread: u32,
    pub arguments: &'a [u8],
}

/// The head of a record, for a reader that takes the arguments from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    pub call: CallId,
    pub ticket: Option<u32>,
    pub thread: u32,
    /// Bytes of arguments that follow.
    pub argument_bytes: usize,
}

impl RecordHead {
    pub fn decode(head: &[u8; RECORD_HEAD_BYTES]) -> Result<RecordHead, DecodeError> {
        let [l0, l1, l2, l3, c0, c1, flags, zero, h0, h1, h2, h3, t0, t1, t2, t3] = *head;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let ticket = u32::from_le_bytes([t0, t1, t2, t3]);
        let wants_reply = flags == FLAG_REPLY;
        let argument_bytes = (len + 4).checked_sub(RECORD_HEAD_BYTES);
        match argument_bytes {
            Some(argument_bytes)
                if len <= RECORD_MAX
                    && flags & !FLAG_REPLY == 0
                    && zero == 0
                    && wants_reply == (ticket != 0) =>
            {
                Ok(RecordHead {
                    call: CallId(u16::from_le_bytes([c0, c1])),
                    ticket: wants_reply.then_some(ticket),
                    thread: u32::from_le_bytes([h0, h1, h2, h3]),
                    argument_bytes,
                })
            }
            _ => Err(DecodeError::MalformedHead),
        }
    }
}

/// The records of one frame. After an error there is nothing more.
pub fn records(frame: &[u8]) -> Records<'_> {
    Records { rest: frame }
}

#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    #[inline]
    fn read(&mut self) -> Result<Record<'a>, DecodeError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<RECORD_HEAD_BYTES>()
            .ok_or(DecodeError::Truncated)?;
        let head = RecordHead::decode(head)?;
        let (arguments, rest) = rest
            .split_at_checked(head.argument_bytes)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        let RecordHead {
            call,
            ticket,
            thread,
            ..
        } = head;
        Ok(Record {
            call,
            ticket,
            thread,
            arguments,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.read();
        if record.is_err() {
            self.rest = &[];
        }
        Some(record)
    }
}
