//! Long parts of a body, sealed by a crew while the thread that writes hands them to the socket.

use std::sync::Mutex;

use super::lock;
use super::outbound::Outbound;
use super::wire_room::{WireRoom, PAGE};
use super::writing::{Writer, Written};
use crate::tls::records::{Run, OVERHEAD_BYTES, PLAINTEXT_MAX, RECORD_MAX};

/// Shorter parts are sealed by the thread that writes.
pub const LONG_MIN: usize = 4 * CHUNK_RECORDS * PLAINTEXT_MAX;
/// Records that are sealed in one job, and handed to the kernel at once.
const CHUNK_RECORDS: usize = 8;
const CHUNK_PLAINTEXT: usize = CHUNK_RECORDS * PLAINTEXT_MAX;
/// The most that is sealed at a time.
const LONG_MAX: usize = 8 * CHUNK_PLAINTEXT;
/// What was sealed before goes out with the first chunk if it is no longer.
const LEAD_MAX: usize = 4 << 10;

/// A part of a long run of bytes, on its way to the socket.
struct Chunk<'a> {
    /// The number of its first record in the run.
    first: usize,
    plaintext: &'a [u8],
    wire: &'a mut [u8],
    /// What of `wire` is sealed: in the first chunk some before it begins.
    sealed: usize,
}

impl Chunk<'_> {
    fn seal(&mut self, run: &Run) {
        for (index, plaintext) in self.plaintext.chunks(PLAINTEXT_MAX).enumerate() {
            let wire = &mut self.wire[self.sealed..];
            self.sealed += run.seal(self.first + index, plaintext, wire);
        }
    }
}

/// Sealed bytes that come before a long run, and room for those of the run.
#[derive(Default)]
pub struct LongWire {
    bytes: WireRoom,
    /// Where the first of them are: at their place in a page (see [`Outbound::send`]).
    start: usize,
    lead: usize,
}

impl Outbound {
    /// Takes the room for a long run out, with what has been sealed and is not sent at its beginning; `None` if
    /// that is better sent first.
    fn take_long(&mut self) -> Option<LongWire> {
        self.seal_gathered();
        if self.sealed - self.sent > LEAD_MAX {
            return None;
        }
        let mut long = std::mem::take(&mut self.long);
        if long.bytes.is_empty() {
            long.bytes = WireRoom::new(PAGE + LEAD_MAX + LONG_MAX / PLAINTEXT_MAX * RECORD_MAX);
        }
        let lead = &self.wire[self.sent..self.sealed];
        (long.start, long.lead) = (self.sent % PAGE, lead.len());
        long.bytes[long.start..][..lead.len()].copy_from_slice(lead);
        Some(long)
    }

    /// Takes the room back, of which `sealed` bytes have been sent behind the first ones.
    fn put_back(&mut self, long: LongWire, sealed: usize) {
        self.sent = (long.start + long.lead + sealed) % PAGE;
        self.sealed = self.sent;
        self.long = long;
    }
}

impl Writer<'_> {
    /// Sends `bytes`, [`LONG_MIN`] at least, with the help of the link's crew.
    pub(super) fn put_long(&mut self, bytes: &[u8]) -> Written {
        bytes.chunks(LONG_MAX).try_for_each(|run| self.put_run(run))
    }

    fn put_run(&mut self, bytes: &[u8]) -> Written {
        let mut long = loop {
            match self.sending().wire.take_long() {
                Some(long) => break long,
                None => self.flush()?,
            }
        };
        let records = bytes.len().div_ceil(PLAINTEXT_MAX);
        let sent = self.seal_and_send(bytes, &mut long);
        let wire = &mut self.sending().wire;
        wire.put_back(long, bytes.len() + records * OVERHEAD_BYTES);
        // After a part of the run nothing else can be sealed.
        wire.closed |= sent.is_err();
        sent
    }

    fn seal_and_send(&mut self, bytes: &[u8], long: &mut LongWire) -> Written {
        let link = self.link;
        let run = self.sending().wire.run(bytes.len().div_ceil(PLAINTEXT_MAX));
        let (mut room, mut lead) = (&mut long.bytes[long.start..], long.lead);
        let mut chunks = Vec::with_capacity(bytes.len().div_ceil(CHUNK_PLAINTEXT));
        for (index, plaintext) in bytes.chunks(CHUNK_PLAINTEXT).enumerate() {
            let (wire, rest) = room.split_at_mut(lead + CHUNK_RECORDS * RECORD_MAX);
            room = rest;
            chunks.push(Mutex::new(Chunk {
                first: index * CHUNK_RECORDS,
                plaintext,
                wire,
                sealed: std::mem::take(&mut lead),
            }));
        }
        let seal = |index: usize| lock(&chunks[index]).seal(&run);
        link.crew.share(chunks.len(), &seal, |batch| {
            chunks.iter().enumerate().try_for_each(|(index, chunk)| {
                batch.finish(index);
                let chunk = lock(chunk);
                self.send_sealed(&chunk.wire[..chunk.sealed])
            })
        })
    }
}
