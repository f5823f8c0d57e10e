//! What the writing half of a link has.

use std::sync::atomic::Ordering;

use super::outbound::Outbound;
use super::retained::Retained;
use super::Link;
use crate::envelope::{Cold, ColdFrame};
use crate::error::LinkError;
use crate::grpc;
use crate::h2::Side;
use crate::tls::post_handshake::CLOSE_NOTIFY_ALERT;

/// What the writing half of a link has, under its lock.
pub struct Sending {
    pub wire: Outbound,
    /// The number of the last frame.
    pub seq: u64,
    /// We send no more: the status and message that end our side of the stream.
    pub ending: Option<(u32, String)>,
    pub retained: Retained,
    /// Bytes that earlier connections have carried.
    pub carried: u64,
}

impl Sending {
    pub fn new(wire: Outbound) -> Sending {
        Sending {
            wire,
            seq: 0,
            ending: None,
            retained: Retained::default(),
            carried: 0,
        }
    }

    /// A frame that is not hot, with its prefix and the next number. It is kept where the session
    /// can be resumed.
    pub(super) fn cold_message(&mut self, body: Cold, link: &Link) -> Result<Vec<u8>, LinkError> {
        if link.is_resumable() {
            self.retained.keep_cold(body.clone())?;
        }
        let seq = self.number(link);
        Ok(cold_bytes(link.side, seq, link.acknowledge(), body))
    }

    /// The next frame's number.
    pub(super) fn number(&mut self, link: &Link) -> u64 {
        self.seq += 1;
        link.sent_seq.store(self.seq, Ordering::SeqCst);
        self.seq
    }

    /// Says close_notify, once and as far as that goes without waiting, and sends no more.
    pub fn close_tls(&mut self) {
        let wire = &mut self.wire;
        if !wire.closed && wire.has_room(CLOSE_NOTIFY_ALERT.len()) {
            wire.closed = true;
            wire.alert(CLOSE_NOTIFY_ALERT);
            let _ = wire.send();
        }
        wire.connection.socket.close_sending();
    }
}

/// A frame that is not hot, with its prefix.
pub fn cold_bytes(side: Side, seq: u64, ack: u64, body: Cold) -> Vec<u8> {
    let frame = ColdFrame { seq, ack, body };
    let bytes = match side {
        Side::Client => frame.encode_from_client(),
        Side::Server => frame.encode_from_server(),
    };
    let mut message = grpc::prefix(bytes.len() as u32).to_vec();
    message.extend(bytes);
    message
}
