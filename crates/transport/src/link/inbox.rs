//! Frames that a blocked sender has taken off the socket for the receiver.

use std::collections::VecDeque;

use super::byte_queue::ByteQueue;
use super::messages::Found;

/// What a frame counts for beside its bytes.
const FRAME_BYTES: usize = 64;

/// Frames in order, and the bytes of their bodies in a row. The first bytes may be the rest of a
/// body that the receiver is reading.
#[derive(Default)]
pub struct Inbox {
    frames: VecDeque<Found>,
    pub bytes: ByteQueue,
}

impl Inbox {
    /// The memory that it takes, about.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.frames.len() * FRAME_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.size() == 0
    }

    pub fn push(&mut self, frame: Found) {
        self.frames.push_back(frame);
    }

    pub fn pop(&mut self) -> Option<Found> {
        self.frames.pop_front()
    }
}
