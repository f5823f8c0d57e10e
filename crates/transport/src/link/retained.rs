//! Frames that have been sent and not yet acknowledged, for a peer that has lost them.

use std::collections::VecDeque;

use super::byte_queue::ByteQueue;
use crate::envelope::Cold;
use crate::error::LinkError;

/// What a frame counts for beside its body.
pub const FRAME_BYTES: usize = 64;
/// Frames that may wait for an acknowledgement: those that answer pings are not bounded otherwise.
const FRAMES_MAX: usize = 1 << 18;

pub enum Kept {
    /// The body lies in the queue; `more` bytes of it are in later frames.
    Hot {
        len: usize,
        more: u64,
    },
    Cold(Cold),
}

#[derive(Default)]
pub struct Retained {
    frames: VecDeque<Kept>,
    bodies: ByteQueue,
    /// The number of the last frame that is not kept any more.
    before: u64,
}

impl Retained {
    /// Keeps frames after number `before`.
    pub fn after(before: u64) -> Retained {
        Retained {
            before,
            ..Retained::default()
        }
    }

    /// The memory that it takes, about.
    pub fn size(&self) -> usize {
        self.bodies.len() + self.frames.len() * FRAME_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Keeps the next frame, whose body is `parts` in a row.
    pub fn keep(&mut self, parts: &[&[u8]], more: u64) {
        let len = parts.iter().map(|part| part.len()).sum();
        parts.iter().for_each(|part| self.bodies.push(part));
        self.frames.push_back(Kept::Hot { len, more });
    }

    /// Keeps the next frame, which is not hot.
    ///
    /// # Errors
    /// For a peer that makes us send and acknowledges nothing.
    pub fn keep_cold(&mut self, cold: Cold) -> Result<(), LinkError> {
        if self.frames.len() >= FRAMES_MAX {
            return Err(LinkError::Violation("no acknowledgement for too long"));
        }
        self.frames.push_back(Kept::Cold(cold));
        Ok(())
    }

    /// Forgets what the peer has.
    pub fn forget(&mut self, acknowledged: u64) {
        while self.before < acknowledged {
            match self.frames.pop_front() {
                Some(Kept::Hot { len, .. }) => self.bodies.consume(len),
                Some(Kept::Cold(_)) => {}
                None => return,
            }
            self.before += 1;
        }
    }

    /// Whether something that is kept has been acknowledged.
    pub fn lags(&self, acknowledged: u64) -> bool {
        self.before < acknowledged && !self.frames.is_empty()
    }

    /// Whether a peer that has the frames up to `acknowledged` can be given all others.
    pub fn continues(&self, acknowledged: u64) -> bool {
        (self.before..=self.before + self.frames.len() as u64).contains(&acknowledged)
    }

    /// Every frame with its number, and the bytes of its body as they lie.
    pub fn frames(&self) -> impl Iterator<Item = (u64, &Kept, Vec<&[u8]>)> {
        let mut start = 0;
        self.frames
            .iter()
            .zip(self.before + 1..)
            .map(move |(kept, seq)| {
                let len = match kept {
                    Kept::Hot { len, .. } => *len,
                    Kept::Cold(_) => 0,
                };
                let body = self.bodies.slices(start, len).collect();
                start += len;
                (seq, kept, body)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers_and_bodies(retained: &Retained) -> Vec<(u64, Vec<u8>)> {
        let frames = retained.frames();
        frames.map(|(seq, _, body)| (seq, body.concat())).collect()
    }

    #[test]
    fn what_is_acknowledged_is_forgotten_and_the_rest_kept_in_order() {
        let mut retained = Retained::after(1);
        retained.keep(&[b"a", b"bc"], 7);
        retained.keep_cold(Cold::Pong(3)).unwrap();
        retained.keep(&[b"d"], 0);
        let d = (4, b"d".to_vec());
        assert_eq!(
            numbers_and_bodies(&retained),
            [(2, b"abc".to_vec()), (3, vec![]), d.clone()]
        );
        assert!(retained.continues(1) && retained.continues(4));
        assert!(!retained.continues(0) && !retained.continues(5));
        retained.forget(2);
        retained.forget(1);
        assert_eq!(numbers_and_bodies(&retained), [(3, vec![]), d]);
        assert!(!retained.continues(1));
        retained.forget(4);
        assert!(retained.is_empty() && retained.size() == 0);
        assert!(retained.continues(4));
    }

    #[test]
    fn a_peer_that_acknowledges_nothing_is_not_answered_for_ever() {
        let mut retained = Retained::default();
        let kept = (0..).take_while(|_| retained.keep_cold(Cold::Pong(1)).is_ok());
        assert_eq!(kept.count(), FRAMES_MAX);
    }
}
