//! Writing of records and replies.

use core::ffi::CStr;

use harp_cuda_abi::types::CUresult;

use crate::record::{FLAG_REPLY, RECORD_HEAD_BYTES};
use crate::reply::{ReplyHead, REPLY_HEAD_BYTES};
use crate::{CallId, RECORD_MAX};

/// A growing buffer of encoded calls or replies.
#[derive(Debug, Default)]
pub struct Encoder {
    buffer: Vec<u8>,
}

/// The bytes of a record or reply that its length word does not count.
const LENGTH_WORD_BYTES: usize = 4;

impl Encoder {
    pub fn new() -> Encoder {
        Encoder::default()
    }

    pub fn with_capacity(bytes: usize) -> Encoder {
        Encoder {
            buffer: Vec::with_capacity(bytes),
        }
    }

    /// Forgets what was written and keeps the memory.
    pub fn clear(&mut self) {
        self.buffer.clear();
    }

    /// Forgets what was written after `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.buffer.truncate(len);
    }

    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.buffer
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.buffer
    }

    /// Begins a call made by client thread `thread`; a `ticket` asks for a reply and is not 0.
    /// The result goes to [`end_record`](Encoder::end_record) when the arguments are written.
    #[inline]
    pub fn begin_record(&mut self, call: CallId, ticket: Option<u32>, thread: u32) -> usize {
        assert!(ticket != Some(0));
        let start = self.buffer.len();
        let mut head = [0; RECORD_HEAD_BYTES];
        head[4..6].copy_from_slice(&call.0.to_le_bytes());
        head[6] = if ticket.is_some() { FLAG_REPLY } else { 0 };
        head[8..12].copy_from_slice(&thread.to_le_bytes());
        head[12..16].copy_from_slice(&ticket.unwrap_or(0).to_le_bytes());
        self.buffer.extend_from_slice(&head);
        start
    }

    #[inline]
    pub fn end_record(&mut self, start: usize) {
        self.end_record_with(start, 0);
    }

    /// Ends a record whose last `extra_bytes` bytes are sent after this buffer, from where they lie.
    #[inline]
    pub fn end_record_with(&mut self, start: usize, extra_bytes: usize) {
        let len = self.buffer.len() - start - LENGTH_WORD_BYTES + extra_bytes;
        assert!(len <= RECORD_MAX, "a record of {len} bytes");
        self.buffer[start..start + LENGTH_WORD_BYTES].copy_from_slice(&(len as u32).to_le_bytes());
    }

    /// Begins a reply; the result goes to [`end_reply`](Encoder::end_reply) after its outputs.
    #[inline]
    pub fn begin_reply(&mut self) -> usize {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; REPLY_HEAD_BYTES]);
        start
    }

    /// Ends a reply. Outputs that were written for a call that failed are dropped.
    #[inline]
    pub fn end_reply(&mut self, start: usize, ticket: u32, status: CUresult, deferred: CUresult) {
        if status != 0 {
            self.buffer.truncate(start + REPLY_HEAD_BYTES);
        }
        let body_bytes = self.buffer.len() - start - REPLY_HEAD_BYTES;
        let head = ReplyHead::new(ticket, status, deferred, body_bytes);
        self.buffer[start..start + REPLY_HEAD_BYTES].copy_from_slice(&head.encode());
    }

    #[inline]
    pub fn u8(&mut self, value: u8) {
        self.buffer.push(value);
    }

    /// A run of bytes: its length as u64, then the bytes.
    #[inline]
    pub fn bytes(&mut self, value: &[u8]) {
        self.u64(value.len() as u64);
        self.buffer.extend_from_slice(value);
    }

    /// A C string: its length with the NUL as u32, then the bytes and the NUL.
    #[inline]
    pub fn text(&mut self, value: &CStr) {
        let bytes = value.to_bytes_with_nul();
        self.u32(bytes.len() as u32);
        self.buffer.extend_from_slice(bytes);
    }

    /// A sequence: its length as u32, then its items.
    #[inline]
    pub fn list<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Encoder, &T)) {
        self.u32(items.len() as u32);
        for value in items {
            item(self, value);
        }
    }
}

macro_rules! scalars {
    ($($name:ident)*) => {
        impl Encoder {
            $(
                #[inline]
                pub fn $name(&mut self, value: $name) {
                    self.buffer.extend_from_slice(&value.to_le_bytes());
                }
            )*
        }
    };
}

scalars!(u16 u32 u64 i32 i64 f32 f64);
