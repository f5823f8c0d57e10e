//! A queue of bytes that grows and shrinks in pieces, so that nothing is moved in it.

use std::collections::VecDeque;

/// Bytes are kept in pieces of this size.
const PIECE_BYTES: usize = 1 << 18;
/// Emptied pieces that are kept for the next bytes, which then lie in memory that is warm.
const SPARE_PIECES: usize = 4;

#[derive(Default)]
pub struct ByteQueue {
    pieces: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// What has been taken of the first piece.
    taken: usize,
    len: usize,
}

impl ByteQueue {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn push(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len();
        while !bytes.is_empty() {
            let full = |piece: &Vec<u8>| piece.len() == piece.capacity();
            if self.pieces.back().is_none_or(full) {
                let piece = self.spare.pop();
                self.pieces
                    .push_back(piece.unwrap_or_else(|| Vec::with_capacity(PIECE_BYTES)));
            }
            let Some(piece) = self.pieces.back_mut() else {
                return;
            };
            let len = bytes.len().min(piece.capacity() - piece.len());
            piece.extend_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
        }
    }

    /// The next bytes that lie together; empty only if there are none.
    pub fn front(&self) -> &[u8] {
        self.pieces
            .front()
            .map_or(&[], |piece| &piece[self.taken..])
    }

    /// `len` bytes from the one at `start` on, as they lie.
    pub fn slices(&self, start: usize, len: usize) -> impl Iterator<Item = &[u8]> {
        let (mut skip, mut left) = (start, len);
        let pieces = self.pieces.iter().enumerate();
        pieces.filter_map(move |(index, piece)| {
            let piece = &piece[if index == 0 { self.taken } else { 0 }..];
            let from = skip.min(piece.len());
            skip -= from;
            let part = &piece[from..][..left.min(piece.len() - from)];
            left -= part.len();
            (!part.is_empty()).then_some(part)
        })
    }

    /// Drops the first `len` bytes.
    pub fn consume(&mut self, mut len: usize) {
        self.len -= len;
        while len > 0 {
            let Some(first) = self.pieces.front_mut() else {
                return;
            };
            let now = len.min(first.len() - self.taken);
            self.taken += now;
            len -= now;
            if self.taken < first.len() {
                continue;
            }
            self.taken = 0;
            first.clear();
            if self.pieces.len() > 1 {
                let piece = self.pieces.pop_front().unwrap_or_default();
                if self.spare.len() < SPARE_PIECES {
                    self.spare.push(piece);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_across_pieces() {
        let sent: Vec<u8> = (0..3 * PIECE_BYTES + 77).map(|index| index as u8).collect();
        let mut queue = ByteQueue::default();
        let mut received = Vec::new();
        for piece in sent.chunks(100_003) {
            queue.push(piece);
            let len = queue.front().len().min(60_001);
            received.extend_from_slice(&queue.front()[..len]);
            queue.consume(len);
            let rest: Vec<u8> = queue.slices(0, queue.len()).flatten().copied().collect();
            assert!(sent[received.len()..].starts_with(&rest));
        }
        let left = queue.len();
        for (start, len) in [
            (0, left),
            (5, 70_000),
            (PIECE_BYTES, left - PIECE_BYTES),
            (left, 0),
        ] {
            let found: Vec<u8> = queue.slices(start, len).flatten().copied().collect();
            assert!(
                found == sent[received.len() + start..][..len],
                "{start} {len}"
            );
        }
        queue.consume(left - 10);
        assert_eq!(queue.front(), &sent[sent.len() - 10..]);
        queue.consume(10);
        assert_eq!((queue.len(), queue.front()), (0, &[][..]));
    }

    #[test]
    fn an_emptied_queue_uses_its_memory_again() {
        let mut queue = ByteQueue::default();
        queue.push(&[1]);
        let place = queue.front().as_ptr();
        for byte in 0..10 {
            queue.consume(1);
            queue.push(&[byte]);
            assert_eq!(
                (queue.front(), queue.front().as_ptr()),
                (&[byte][..], place)
            );
        }
    }
}
