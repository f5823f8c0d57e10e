//! One reply, or a push that answers no call.
//!
//! | offset | type | meaning |
//! |---|---|---|
//! | 0 | u32 | bytes that follow this word |
//! | 4 | u32 | ticket of the call; 0 for a push |
//! | 8 | u32 | the call's CUresult |
//! | 12 | u32 | a CUresult that an earlier call without a reply failed with, told once; else 0 |
//! | 16 | | outputs, of a call that succeeded |

use harp_cuda_abi::types::CUresult;

use crate::{DecodeError, RECORD_MAX};

pub const REPLY_HEAD_BYTES: usize = 16;
/// The ticket of what answers no call: the body is a [push](crate::push).
pub const PUSH: u32 = 0;
/// The part of the head that the length word counts.
const COUNTED_HEAD_BYTES: usize = REPLY_HEAD_BYTES - 4;

/// The head of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHead {
    len: u32,
    pub ticket: u32,
    pub status: CUresult,
    pub deferred: CUresult,
}

impl ReplyHead {
    /// The head of a reply with `body_bytes` bytes of outputs.
    pub fn new(ticket: u32, status: CUresult, deferred: CUresult, body_bytes: usize) -> ReplyHead {
        assert!(body_bytes <= RECORD_MAX - COUNTED_HEAD_BYTES);
        ReplyHead {
            len: (body_bytes + COUNTED_HEAD_BYTES) as u32,
            ticket,
            status,
            deferred,
        }
    }

    pub fn decode(head: &[u8; REPLY_HEAD_BYTES]) -> ReplyHead {
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        ReplyHead {
            len: word(0),
            ticket: word(4),
            status: word(8),
            deferred: word(12),
        }
    }

    pub fn encode(&self) -> [u8; REPLY_HEAD_BYTES] {
        let mut head = [0; REPLY_HEAD_BYTES];
        let words = [self.len, self.ticket, self.status, self.deferred];
        for (bytes, word) in head.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        head
    }

    /// Bytes of outputs that follow; `None` for a length that no reply has.
    pub fn body_bytes(&self) -> Option<usize> {
        let len = self.len as usize;
        if len > RECORD_MAX {
            return None;
        }
        len.checked_sub(COUNTED_HEAD_BYTES)
    }
}

/// The replies of one frame, each with its outputs. After an error there is nothing more.
pub fn replies(frame: &[u8]) -> Replies<'_> {
    Replies { rest: frame }
}

#[derive(Clone, Debug)]
pub struct Replies<'a> {
    rest: &'a [u8],
}

impl<'a> Replies<'a> {
    fn read(&mut self) -> Result<(ReplyHead, &'a [u8]), DecodeError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<REPLY_HEAD_BYTES>()
            .ok_or(DecodeError::Truncated)?;
        let head = ReplyHead::decode(head);
        let body_bytes = head.body_bytes().ok_or(DecodeError::MalformedHead)?;
        let (body, rest) = rest
            .split_at_checked(body_bytes)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok((head, body))
    }
}

impl<'a> Iterator for Replies<'a> {
    type Item = Result<(ReplyHead, &'a [u8]), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let reply = self.read();
        if reply.is_err() {
            self.rest = &[];
        }
        Some(reply)
    }
}
