//! What is owed to the peer between messages: answers, acknowledgements, signs of life, more window,
//! new keys, and why the link ends. Whoever can write without waiting says it.

use std::sync::atomic::{fence, Ordering};

use super::connection::Connection;
use super::sending::Sending;
use super::{lock, try_lock, Link, KEEP_ALIVE};
use crate::envelope::Cold;
use crate::error::LinkError;
use crate::grpc;
use crate::h2::{code, frames, Side};
use crate::tls::post_handshake::fatal_alert;

impl Link {
    /// Bytes that have gone to the sockets.
    pub fn bytes_sent(&self) -> u64 {
        let sending = lock(&self.outbound);
        sending.carried + sending.wire.total()
    }

    /// What the next frame acknowledges.
    pub(super) fn acknowledge(&self) -> u64 {
        self.owes_ack.store(false, Ordering::SeqCst);
        self.unacknowledged.store(0, Ordering::SeqCst);
        self.received_seq.load(Ordering::SeqCst)
    }

    /// Sends what is owed if nobody is writing: who writes does it before letting go.
    pub fn settle(&self, connection: &Connection) {
        while self.has_unsaid(connection) {
            let Some(mut sending) = try_lock(&self.outbound) else {
                return;
            };
            if !std::ptr::eq(&*sending.wire.connection, connection) {
                return;
            }
            // A failure of the socket is left to the reader or the next writer to find.
            let paid = match sending.wire.send() {
                Ok(true) => self.pay(&mut sending, true),
                _ => Ok(false),
            };
            let paid = match paid {
                Ok(paid) => paid,
                Err(error) => {
                    drop(sending);
                    self.fail(error);
                    return;
                }
            };
            let sent = paid && sending.wire.send().unwrap_or(false);
            connection.backlog.store(!sent, Ordering::Relaxed);
            drop(sending);
            fence(Ordering::SeqCst);
            if !sent {
                return;
            }
        }
    }

    /// Whether [`settle`](Link::settle) has something to do.
    pub fn has_unsaid(&self, connection: &Connection) -> bool {
        if connection.widened.load(Ordering::Relaxed) {
            connection.widened.store(false, Ordering::Relaxed);
            self.owe_again();
        }
        connection.owes.load(Ordering::SeqCst)
            || connection.backlog.load(Ordering::Relaxed)
            || self.has_messages()
    }

    /// What could not be said before may be said now.
    pub fn owe_again(&self) {
        if !lock(&self.pongs).is_empty() {
            self.owes_pongs.store(true, Ordering::SeqCst);
        }
        if self.unacknowledged.load(Ordering::SeqCst) >= self.tuning.acknowledge_every() {
            self.owes_ack.store(true, Ordering::SeqCst);
        }
    }

    /// Whether there is something to be said between two messages.
    fn has_messages(&self) -> bool {
        self.owes_pongs.load(Ordering::SeqCst)
            || self.owes_ack.load(Ordering::SeqCst)
            || self.owes_ping.load(Ordering::SeqCst)
    }

    /// Moves what is owed into the wire, and whole messages too where it is `between` two of them;
    /// `false` if there is no room.
    pub(super) fn pay(&self, sending: &mut Sending, between: bool) -> Result<bool, LinkError> {
        let wire = &mut sending.wire;
        let connection = wire.connection.clone();
        let due = wire.records() >= self.tuning.records_per_key;
        let messages = between && self.has_messages();
        if !due && !messages && !connection.owes.load(Ordering::SeqCst) {
            return Ok(true);
        }
        {
            let mut owed = lock(&connection.owed);
            if !wire.has_room(owed.frames.len()) {
                return Ok(false);
            }
            connection.owes.store(false, Ordering::SeqCst);
            if (due || owed.key_update) && !wire.closed {
                owed.key_update = false;
                // It fails only without a next secret, and then the present keys stay as they are.
                let _ = wire.update_keys(&mut **connection.rekey());
            }
            if !wire.closed {
                wire.put(&owed.frames);
            }
            owed.frames.clear();
        }
        if messages {
            self.pay_messages(sending)?;
        }
        Ok(true)
    }

    /// Answers the peer's pings, asks for a sign of life and acknowledges, as far as the stream,
    /// the window and the room allow.
    fn pay_messages(&self, sending: &mut Sending) -> Result<(), LinkError> {
        /// No such message is longer, with all that is around it.
        const MESSAGE_MAX: usize = 64;
        // What stays is tried again when the stream is opened or the window grows.
        let pongs = self.owes_pongs.swap(false, Ordering::SeqCst);
        let mut ping = self.owes_ping.swap(false, Ordering::SeqCst);
        let mut ack = self.owes_ack.swap(false, Ordering::SeqCst);
        if !sending.wire.opened {
            return Ok(());
        }
        let mut tokens = lock(&self.pongs);
        if sending.ending.is_some() {
            tokens.clear();
            return Ok(());
        }
        let connection = sending.wire.connection.clone();
        loop {
            let body = match tokens.first() {
                Some(token) if pongs => Cold::Pong(*token),
                _ if ping => Cold::Ping(KEEP_ALIVE),
                _ if ack => Cold::Unknown,
                _ => return Ok(()),
            };
            let room = sending.wire.has_room(MESSAGE_MAX);
            let mut owed = lock(&connection.owed);
            if !room || !owed.flow.has(MESSAGE_MAX) {
                // Without a window nobody tries again before it grows; the ping and the
                // acknowledgement are wanted whatever else happens.
                self.owes_pongs.store(pongs && room, Ordering::SeqCst);
                self.owes_ping.store(ping && room, Ordering::SeqCst);
                self.owes_ack.store(ack && room, Ordering::SeqCst);
                return Ok(());
            }
            match body {
                Cold::Pong(_) => drop(tokens.remove(0)),
                Cold::Ping(_) => ping = false,
                _ => {}
            }
            // Whatever is sent acknowledges.
            ack = false;
            let message = sending.cold_message(body, self)?;
            let len = owed.flow.take(message.len());
            sending
                .wire
                .put(&frames::data_header(connection.stream(), len, false));
            sending.wire.put(&message);
        }
    }

    /// Tells the peer why the link ends, or its connection, as far as that goes without waiting.
    pub fn say_why(&self, error: &LinkError) {
        let Some(mut sending) = try_lock(&self.outbound) else {
            return;
        };
        let wire = &mut sending.wire;
        if wire.closed || !wire.has_room(256) {
            return;
        }
        let stream = wire.connection.stream();
        match error {
            LinkError::Http2 { code, text } => {
                let mut frame = Vec::new();
                frames::goaway(&mut frame, stream, *code, text);
                wire.put(&frame);
            }
            LinkError::NotGrpc(text) if self.side == Side::Server => {
                let mut frame = Vec::new();
                let block = grpc::trailers_only(grpc::status::UNIMPLEMENTED, text);
                frames::headers(&mut frame, stream, &block, true);
                frames::goaway(&mut frame, stream, code::NO_ERROR, text);
                wire.put(&frame);
            }
            LinkError::Violation(_) | LinkError::Sequence { .. } | LinkError::NotGrpc(_) => {
                let mut frame = Vec::new();
                if stream != 0 {
                    frames::rst_stream(&mut frame, stream, code::PROTOCOL_ERROR);
                }
                frames::goaway(&mut frame, stream, code::PROTOCOL_ERROR, &error.to_string());
                wire.put(&frame);
            }
            LinkError::Tls(_) => {
                if let Some(alert) = fatal_alert(error) {
                    wire.alert(alert);
                }
            }
            _ => return,
        }
        let _ = wire.send();
    }
}
