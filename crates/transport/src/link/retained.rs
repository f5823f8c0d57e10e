//! Frames that have been sent and not yet acknowledged, for a peer that has lost them.

use std::collections::VecDeque;

use super::byte_queue::ByteQueue;
use super::lent::{Buffer, Lent};
use crate::envelope::Cold;
use crate::error::LinkError;

/// What a frame counts for beside its body.
pub const FRAME_BYTES: usize = 64;
/// Frames that may wait for an acknowledgement: those that answer pings are not bounded otherwise.
const FRAMES_MAX: usize = 1 << 18;
/// Buffers that are kept for the next tails, which then lie in memory that is warm.
const SPARES: usize = 8;

pub enum Kept {
    /// The body lies in the queue but for its tail; `more` bytes of it are in later frames.
    Hot {
        queued: usize,
        tail: Tail,
        more: u64,
    },
    Cold(Cold),
}

/// The last part of a body, where it is long.
pub enum Tail {
    Nothing,
    /// It lies where the sender has it, until the loan ends.
    Lent(Lent),
    /// It was copied from there.
    Own(Vec<u8>),
    /// It came in a buffer.
    Given(Buffer),
}

impl Tail {
    fn bytes(&self) -> &[u8] {
        match self {
            Tail::Nothing => &[],
            Tail::Lent(lent) => lent.bytes(),
            Tail::Own(bytes) => bytes,
            Tail::Given(buffer) => (**buffer).as_ref(),
        }
    }
}

#[derive(Default)]
pub struct Retained {
    frames: VecDeque<Kept>,
    bodies: ByteQueue,
    /// Bytes and number of tails that are kept, and how many of them are lent.
    tail_bytes: usize,
    lent: usize,
    spare: Vec<Vec<u8>>,
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
        self.bodies.len() + self.tail_bytes + self.frames.len() * FRAME_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Keeps the next frame, whose body is `parts` in a row; the last of them is `lent`, if anything.
    pub fn keep(&mut self, parts: &[&[u8]], lent: Option<Lent>, more: u64) {
        let parts = &parts[..parts.len() - usize::from(lent.is_some())];
        let queued = parts.iter().map(|part| part.len()).sum();
        parts.iter().for_each(|part| self.bodies.push(part));
        let tail = lent.map_or(Tail::Nothing, Tail::Lent);
        self.tail_bytes += tail.bytes().len();
        self.lent += usize::from(matches!(tail, Tail::Lent(_)));
        self.frames.push_back(Kept::Hot { queued, tail, more });
    }

    /// Ends a loan: what of it is still kept is copied.
    pub fn end_loan(&mut self, loan: u64) {
        let Retained {
            frames,
            lent,
            spare,
            ..
        } = self;
        let mut unseen = *lent;
        for kept in frames.iter_mut().rev() {
            if unseen == 0 {
                return;
            }
            let Kept::Hot { tail, .. } = kept else {
                continue;
            };
            let Tail::Lent(part) = tail else { continue };
            unseen -= 1;
            if part.loan == loan {
                let mut own = spare.pop().unwrap_or_default();
                own.clear();
                own.extend_from_slice(part.bytes());
                *tail = Tail::Own(own);
                *lent -= 1;
            }
        }
    }

    /// Ends a loan of one part, which is kept in `buffer` from now on. Returns that if it is not needed.
    pub fn take_over(&mut self, loan: u64, buffer: Buffer) -> Option<Buffer> {
        let tail = self.frames.iter_mut().rev().find_map(|kept| match kept {
            Kept::Hot { tail, .. } => match tail {
                Tail::Lent(part) if part.loan == loan => Some(tail),
                _ => None,
            },
            Kept::Cold(_) => None,
        });
        let Some(tail) = tail.filter(|_| self.lent > 0) else {
            return Some(buffer);
        };
        assert!(tail.bytes().as_ptr() == (*buffer).as_ref().as_ptr());
        *tail = Tail::Given(buffer);
        self.lent -= 1;
        None
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
                Some(Kept::Hot { queued, tail, .. }) => {
                    self.bodies.consume(queued);
                    self.drop_tail(tail);
                }
                Some(Kept::Cold(_)) => {}
                None => return,
            }
            self.before += 1;
        }
    }

    fn drop_tail(&mut self, tail: Tail) {
        self.tail_bytes -= tail.bytes().len();
        match tail {
            Tail::Nothing => {}
            Tail::Lent(_) => self.lent -= 1,
            Tail::Own(buffer) if self.spare.len() < SPARES => self.spare.push(buffer),
            Tail::Own(_) | Tail::Given(_) => {}
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
                let (queued, tail) = match kept {
                    Kept::Hot { queued, tail, .. } => (*queued, tail.bytes()),
                    Kept::Cold(_) => (0, &[][..]),
                };
                let mut body: Vec<&[u8]> = self.bodies.slices(start, queued).collect();
                body.extend((!tail.is_empty()).then_some(tail));
                start += queued;
                (seq, kept, body)
            })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn numbers_and_bodies(retained: &Retained) -> Vec<(u64, Vec<u8>)> {
        let frames = retained.frames();
        frames.map(|(seq, _, body)| (seq, body.concat())).collect()
    }

    #[test]
    fn what_is_acknowledged_is_forgotten_and_the_rest_kept_in_order() {
        let mut retained = Retained::after(1);
        retained.keep(&[b"a", b"bc"], None, 7);
        retained.keep_cold(Cold::Pong(3)).unwrap();
        retained.keep(&[b"d"], None, 0);
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

    /// Keeps a frame whose last part is lent.
    fn lend(retained: &mut Retained, head: &[u8], tail: &[u8], loan: u64) {
        // SAFETY: the tests end their loans before the bytes go.
        let lent = unsafe { Lent::new(tail, loan) };
        retained.keep(&[head, tail], Some(lent), 0);
    }

    #[test]
    fn what_is_lent_is_copied_when_its_loan_ends_unless_the_peer_has_it() {
        let mut bytes = [b"one".to_vec(), b"two".to_vec(), b"six".to_vec()];
        let mut retained = Retained::default();
        for (tail, loan) in bytes.iter().zip([1, 2, 1]) {
            lend(&mut retained, b"-", tail, loan);
        }
        assert_eq!(retained.size(), 3 * (4 + FRAME_BYTES));
        retained.forget(1);
        retained.end_loan(1);
        bytes[0].fill(b'x');
        bytes[2].fill(b'x');
        let kept = [(2, b"-two".to_vec()), (3, b"-six".to_vec())];
        assert_eq!(numbers_and_bodies(&retained), kept);
        retained.end_loan(2);
        bytes[1].fill(b'x');
        assert_eq!(numbers_and_bodies(&retained), kept);
        retained.forget(3);
        assert!(retained.is_empty() && retained.size() == 0 && retained.lent == 0);
    }

    #[test]
    fn a_buffer_is_taken_over_and_goes_with_its_frame() {
        struct Counted(&'static [u8], #[allow(dead_code)] Arc<()>);
        impl AsRef<[u8]> for Counted {
            fn as_ref(&self) -> &[u8] {
                self.0
            }
        }
        let kept = Arc::new(());
        let buffer = |bytes| Box::new(Counted(bytes, kept.clone()));
        let mut retained = Retained::default();
        static FIRST: [u8; 5] = *b"first";
        lend(&mut retained, b"", &FIRST, 1);
        assert!(retained.take_over(1, buffer(&FIRST)).is_none());
        assert_eq!(numbers_and_bodies(&retained), [(1, b"first".to_vec())]);
        assert_eq!((retained.tail_bytes, retained.lent), (5, 0));
        assert_eq!(Arc::strong_count(&kept), 2);
        lend(&mut retained, b"", b"second", 2);
        retained.forget(2);
        assert_eq!(Arc::strong_count(&kept), 1, "it has gone with its frame");
        assert!(retained.take_over(2, buffer(b"second")).is_some());
    }

    #[test]
    fn a_peer_that_acknowledges_nothing_is_not_answered_for_ever() {
        let mut retained = Retained::default();
        let kept = (0..).take_while(|_| retained.keep_cold(Cold::Pong(1)).is_ok());
        assert_eq!(kept.count(), FRAMES_MAX);
    }
}
