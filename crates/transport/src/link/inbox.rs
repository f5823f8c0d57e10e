//! Bytes of the stream that a blocked sender has taken off the socket for the receiver.

use std::collections::VecDeque;

/// Bytes are kept in pieces of this size, so that the queue grows without copying.
const CHUNK_BYTES: usize = 1 << 18;

#[derive(Default)]
pub struct Inbox {
    chunks: VecDeque<Vec<u8>>,
    /// What has been taken of the first piece.
    taken: usize,
    len: usize,
}

impl Inbox {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn push(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len();
        while !bytes.is_empty() {
            if self
                .chunks
                .back()
                .is_none_or(|chunk| chunk.len() == chunk.capacity())
            {
                self.chunks.push_back(Vec::with_capacity(CHUNK_BYTES));
            }
            let Some(chunk) = self.chunks.back_mut() else {
                return;
            };
            let len = bytes.len().min(chunk.capacity() - chunk.len());
            chunk.extend_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
        }
    }

    /// The next bytes that lie together; empty only if there are none.
    pub fn front(&self) -> &[u8] {
        self.chunks
            .front()
            .map_or(&[], |chunk| &chunk[self.taken..])
    }

    /// Drops the first `len` bytes of [`front`](Inbox::front).
    pub fn consume(&mut self, len: usize) {
        self.taken += len;
        self.len -= len;
        if self
            .chunks
            .front()
            .is_some_and(|chunk| chunk.len() == self.taken)
        {
            self.chunks.pop_front();
            self.taken = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_across_pieces() {
        let sent: Vec<u8> = (0..3 * CHUNK_BYTES + 77).map(|index| index as u8).collect();
        let mut inbox = Inbox::default();
        let mut received = Vec::new();
        for piece in sent.chunks(100_003) {
            inbox.push(piece);
            let len = inbox.front().len().min(60_001);
            received.extend_from_slice(&inbox.front()[..len]);
            inbox.consume(len);
        }
        while inbox.len() > 0 {
            received.extend_from_slice(inbox.front());
            inbox.consume(inbox.front().len());
        }
        assert!(received == sent);
        assert!(inbox.front().is_empty());
    }
}
