//! The writing half of a connection: bytes into records, records onto the wire.

use std::sync::Arc;

use super::connection::Connection;
use super::sealing::LongWire;
use super::wire_room::{WireRoom, PAGE};
use crate::error::LinkError;
use crate::tls::post_handshake::{Rekey, KEY_UPDATE_MESSAGE};
use crate::tls::records::{
    ContentType, Keys, Run, Sealer, HEADER_BYTES, OVERHEAD_BYTES, PLAINTEXT_MAX, RECORD_MAX,
};

/// Sealed bytes that are handed to the kernel at once.
const WIRE_BYTES: usize = 1 << 18;
/// What has been sealed of a body when its first part is sent, so that the peer opens that while the rest is sealed.
const EARLY_BYTES: usize = 1 << 15;
/// Shorter pieces are gathered with their neighbours, longer ones sealed from where they lie.
pub const DIRECT_MIN: usize = 1 << 11;

pub struct Outbound {
    pub connection: Arc<Connection>,
    /// Sealed and sent; sealed; then, after the room for a header, gathered but not sealed.
    pub(super) wire: WireRoom,
    pub(super) sent: usize,
    pub(super) sealed: usize,
    gathered: usize,
    /// Nothing of what is in `wire` has been sent.
    is_first: bool,
    sealer: Sealer,
    /// Room for what a crew seals.
    pub(super) long: LongWire,
    /// Response headers have been sent, or the request's: data may follow.
    pub opened: bool,
    /// We send no more at all.
    pub closed: bool,
    total: u64,
}

impl Outbound {
    pub fn new(connection: Arc<Connection>, keys: Keys) -> Outbound {
        Outbound {
            connection,
            wire: WireRoom::new(WIRE_BYTES + PAGE),
            sent: 0,
            sealed: 0,
            gathered: 0,
            is_first: true,
            sealer: Sealer::new(keys),
            long: LongWire::default(),
            opened: false,
            closed: false,
            total: 0,
        }
    }

    /// All bytes that have gone to the socket after the handshake.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Records sealed under the present key.
    pub fn records(&self) -> u64 {
        self.sealer.records()
    }

    /// Whether `len` more bytes, in records of their own, can be taken without sending first.
    pub fn has_room(&self, len: usize) -> bool {
        let records = len / PLAINTEXT_MAX + 3;
        self.sealed + self.gathered + len + records * OVERHEAD_BYTES + RECORD_MAX <= self.wire.len()
    }

    /// Whether another record of any length fits.
    fn fits_record(&self) -> bool {
        self.sealed + RECORD_MAX <= self.wire.len()
    }

    /// Takes from `bytes` what fits, gathered into the present record or sealed at once; returns
    /// how much that was. Less than all: [`send`](Outbound::send) first.
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && self.fits_record() {
            let len = if rest.len() < DIRECT_MIN {
                self.gather(rest)
            } else if self.gathered > 0 {
                self.seal_gathered();
                0
            } else {
                self.seal(
                    ContentType::ApplicationData,
                    &rest[..rest.len().min(PLAINTEXT_MAX)],
                )
            };
            rest = &rest[len..];
            if self.is_first && self.sealed - self.sent >= EARLY_BYTES && !rest.is_empty() {
                self.send_early();
            }
        }
        bytes.len() - rest.len()
    }

    /// Gives the socket what it takes of the sealed bytes. If it fails, [`send`](Outbound::send) will tell.
    fn send_early(&mut self) {
        self.is_first = false;
        if let Ok(Some(len)) = self
            .connection
            .socket
            .send(&self.wire[self.sent..self.sealed])
        {
            self.sent += len;
            self.count(len);
        }
    }

    fn gather(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(PLAINTEXT_MAX - self.gathered);
        let start = self.sealed + HEADER_BYTES + self.gathered;
        self.wire[start..start + len].copy_from_slice(&bytes[..len]);
        self.gathered += len;
        if self.gathered == PLAINTEXT_MAX {
            self.seal_gathered();
        }
        len
    }

    fn seal(&mut self, kind: ContentType, plaintext: &[u8]) -> usize {
        self.sealed += self
            .sealer
            .seal(kind, plaintext, &mut self.wire[self.sealed..]);
        plaintext.len()
    }

    /// Seals what has been gathered.
    pub fn seal_gathered(&mut self) {
        if self.gathered > 0 {
            let (kind, wire) = (ContentType::ApplicationData, &mut self.wire[self.sealed..]);
            self.sealed += self.sealer.seal_in_place(kind, self.gathered, wire);
            self.gathered = 0;
        }
    }

    /// The next `records` records, which the caller seals, and sends before anything else.
    pub(super) fn run(&mut self, records: usize) -> Run {
        self.sealer.run(records)
    }

    /// Counts bytes that the socket has taken.
    pub(super) fn count(&mut self, bytes: usize) {
        self.total += bytes as u64;
    }

    /// Changes to new keys, which the peer is told in the last record under the old ones. There
    /// must be room for it.
    pub fn update_keys(&mut self, rekey: &mut dyn Rekey) -> Result<(), LinkError> {
        let keys = rekey.next_sending()?;
        self.seal_gathered();
        self.seal(ContentType::Handshake, &KEY_UPDATE_MESSAGE);
        self.sealer = Sealer::new(keys);
        Ok(())
    }

    /// Adds an alert; there must be room for it.
    pub fn alert(&mut self, alert: [u8; 2]) {
        self.seal_gathered();
        self.seal(ContentType::Alert, &alert);
    }

    /// Gives the socket what it takes without waiting; `false` if something is left.
    pub fn send(&mut self) -> Result<bool, LinkError> {
        self.seal_gathered();
        while self.sent < self.sealed {
            match self
                .connection
                .socket
                .send(&self.wire[self.sent..self.sealed])
            {
                Ok(Some(len)) => {
                    self.sent += len;
                    self.count(len);
                }
                Ok(None) => return Ok(false),
                Err(error) => return Err(LinkError::lost(&error)),
            }
        }
        // The kernel's side goes on where it ended: both stay as far apart within pages as they were.
        (self.sent, self.sealed) = (self.sealed % PAGE, self.sealed % PAGE);
        self.is_first = true;
        Ok(true)
    }

    /// A message begins. What was sent before has mostly been taken by the peer, and the kernel's side begins anew.
    pub fn begin(&mut self) {
        if self.sent == self.sealed && self.gathered == 0 {
            (self.sent, self.sealed) = (0, 0);
        }
    }
}
