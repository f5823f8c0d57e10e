//! Frames from the client, cut into records.
//!
//! A frame is read in large steps into one buffer that is used again for the next; a record that fits is executed from
//! where it lies. The payload of a record that is larger than the buffer can be taken in pieces, each of which is copied
//! to the device while it is still in the processor's cache.

use harp_transport::{FrameHead, FrameKind, LinkError, Next, Receiver, Wait};
use harp_wire::record::{RecordHead, RECORD_HEAD_BYTES};

use super::Violation;

/// Bytes read from the connection in one step, and the largest record that is kept whole without growing the buffer.
const STEP: usize = 1 << 20;
/// A frame with so many bytes to come is read in smaller steps while these hold.
const LONG: usize = 256 << 10;
const LONG_STEP: usize = 4 << 10;

/// Why no more records come.
#[derive(Debug)]
pub enum Stopped {
    /// The client said goodbye or closed the connection in good order.
    Bye,
    Lost(LinkError),
    Violation(Violation),
}

impl From<LinkError> for Stopped {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Closed => Stopped::Bye,
            other => Stopped::Lost(other),
        }
    }
}

impl From<Violation> for Stopped {
    fn from(violation: Violation) -> Self {
        Stopped::Violation(violation)
    }
}

pub struct Intake {
    receiver: Receiver,
    /// Bytes of the current frame that are still in the connection.
    outside: usize,
    buffer: Vec<u8>,
    /// The unread part of `buffer`.
    start: usize,
    end: usize,
}

impl Intake {
    pub fn new(receiver: Receiver) -> Self {
        Self {
            receiver,
            outside: 0,
            buffer: vec![0; STEP],
            start: 0,
            end: 0,
        }
    }

    /// Bytes of frames received so far.
    pub fn bytes_received(&self) -> u64 {
        self.receiver.bytes_received()
    }

    /// Whether part of the current frame is still to be executed.
    pub fn in_frame(&self) -> bool {
        self.start < self.end || self.outside > 0
    }

    /// Bytes of the current frame that can be had without waiting for the client.
    #[inline]
    pub fn at_hand(&self) -> usize {
        self.end - self.start
    }

    /// Whether there is something to do without waiting for the client.
    pub fn has_input(&mut self) -> bool {
        self.in_frame() || self.receiver.readable_now()
    }

    /// Whether some of that is in memory already.
    pub fn has_input_at_hand(&self) -> bool {
        self.in_frame() || self.receiver.has_bytes()
    }

    /// Waits for the next frame of calls.
    pub fn next_frame(&mut self) -> Result<(), Stopped> {
        loop {
            match self.receiver.next(Wait::default())? {
                Next::Closed => return Err(Stopped::Bye),
                Next::Frame(FrameHead {
                    kind: FrameKind::Calls,
                    len,
                }) => {
                    self.outside = len;
                    (self.start, self.end) = (0, 0);
                    return Ok(());
                }
                Next::Frame(FrameHead {
                    kind: FrameKind::Bye(_),
                    ..
                }) => return Err(Stopped::Bye),
                // Pings are answered by the transport; nothing else has a meaning here.
                Next::Frame(_) | Next::Idle => {}
            }
        }
    }

    /// The head of the next record, which stays unread until [`skip`](Self::skip).
    #[inline]
    pub fn record_head(&mut self) -> Result<RecordHead, Stopped> {
        self.ensure(RECORD_HEAD_BYTES)?;
        let bytes = &self.buffer[self.start..self.start + RECORD_HEAD_BYTES];
        let head = RecordHead::decode(bytes.try_into().expect("as many bytes as a head has"))
            .map_err(Violation::from)?;
        let rest = self.end - self.start - RECORD_HEAD_BYTES + self.outside;
        if head.argument_bytes > rest {
            return Err(Violation::new(format!(
                "a record of {} bytes where its frame has {rest} left",
                head.argument_bytes
            ))
            .into());
        }
        Ok(head)
    }

    /// Whether so many bytes are better taken in pieces.
    pub fn is_large(&self, bytes: usize) -> bool {
        bytes > STEP
    }

    /// The next `count` bytes of the frame, which stay unread until [`skip`](Self::skip).
    #[inline]
    pub fn peek(&mut self, count: usize) -> Result<&[u8], Stopped> {
        self.ensure(count)?;
        Ok(&self.buffer[self.start..self.start + count])
    }

    /// What [`at_hand`](Self::at_hand) counts.
    #[inline]
    pub fn bytes_at_hand(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Leaves `count` bytes behind that `peek` or `record_head` has shown.
    #[inline]
    pub fn skip(&mut self, count: usize) {
        self.start += count;
        assert!(self.start <= self.end);
    }

    /// The next piece of a run of which `left` bytes remain: as much as the buffer holds, at least one byte, read.
    pub fn take_piece(&mut self, left: usize) -> Result<&[u8], Stopped> {
        if self.start == self.end {
            self.ensure(left.min(STEP))?;
        }
        let from = self.start;
        let count = left.min(self.end - from);
        self.start += count;
        Ok(&self.buffer[from..from + count])
    }

    /// Fills `target` with the next bytes of the frame, which are read straight into it but for those at hand.
    pub fn take_into(&mut self, target: &mut [u8]) -> Result<(), Stopped> {
        let present = target.len().min(self.end - self.start);
        let (ready, rest) = target.split_at_mut(present);
        ready.copy_from_slice(&self.buffer[self.start..self.start + present]);
        self.start += present;
        if rest.len() > self.outside {
            return Err(Violation::new("a frame that ends within a record").into());
        }
        self.receiver.read(rest)?;
        self.outside -= rest.len();
        Ok(())
    }

    /// Has `count` bytes of the frame in the buffer, in one piece.
    #[inline]
    fn ensure(&mut self, count: usize) -> Result<(), Stopped> {
        if self.end - self.start >= count {
            return Ok(());
        }
        self.read_until(count)
    }

    #[cold]
    fn read_until(&mut self, count: usize) -> Result<(), Stopped> {
        let present = self.end - self.start;
        if count > present + self.outside {
            return Err(Violation::new("a frame that ends within a record").into());
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, present);
        if self.buffer.len() < count {
            self.buffer.resize(count, 0);
        } else if self.buffer.len() > STEP && count <= STEP {
            self.buffer.truncate(STEP.max(present));
            self.buffer.shrink_to_fit();
        }
        // A long frame ends with a payload that is taken straight to where it belongs.
        let step = match self.outside {
            outside if outside > LONG => (count - present).max(LONG_STEP).min(outside),
            outside => outside,
        };
        let step = step.min(self.buffer.len() - present);
        self.receiver
            .read(&mut self.buffer[present..present + step])?;
        self.outside -= step;
        self.end += step;
        Ok(())
    }
}
