//! Writing on a link: greetings, messages, and the end of our side of the stream.

use std::sync::atomic::{fence, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use super::connection::Connection;
use super::lent::Lent;
use super::outbound::DIRECT_MIN;
use super::retained::Kept;
use super::sealing::LONG_MIN;
use super::sending::{cold_bytes, Sending};
use super::waiting::Need;
use super::{lock, Break, Link};
use crate::envelope::{encode_head, Cold, HeadBuffer};
use crate::error::LinkError;
use crate::grpc;
use crate::h2::{code, frames, reader, Side, INITIAL_WINDOW, PREFACE};

/// What became of writing.
pub type Written = Result<(), Break>;

/// A message of the session.
pub enum Outgoing<'a> {
    /// A body, `parts` in a row, of which `more` bytes follow in later messages. The last part may be `lent`.
    Hot {
        parts: &'a [&'a [u8]],
        lent: Option<Lent>,
        more: u64,
    },
    Ping(u64),
    /// A goodbye, which ends our side of the stream.
    Bye(&'a str),
}

/// The right to write, which settles what is owed when it ends.
pub struct Writer<'a> {
    pub(super) link: &'a Link,
    sending: Option<MutexGuard<'a, Sending>>,
    pub(super) connection: Arc<Connection>,
    /// When a blocked write gives up.
    pub(super) deadline: Option<Instant>,
}

impl Link {
    /// The right to write on the present connection, which may be broken.
    pub fn write(&self, deadline: Option<Instant>) -> Result<Writer<'_>, LinkError> {
        let sending = lock(&self.outbound);
        let connection = sending.wire.connection.clone();
        let writer = Writer {
            link: self,
            sending: Some(sending),
            connection,
            deadline,
        };
        self.check()?;
        Ok(writer)
    }
}

impl Writer<'_> {
    pub fn sending(&mut self) -> &mut Sending {
        self.sending
            .as_mut()
            .expect("a writer has its half until it is dropped")
    }

    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// What each end says first; the client's request goes with it.
    pub fn open_connection(&mut self, request: Option<&str>) -> Written {
        let mut opening = Vec::new();
        let window = self.link.tuning.receive_window;
        if request.is_some() {
            opening.extend_from_slice(PREFACE);
        }
        let (frame_max, headers_max) = (reader::FRAME_MAX as u32, reader::HEADERS_MAX as u32);
        frames::settings(&mut opening, self.link.side, window, frame_max, headers_max);
        if window > INITIAL_WINDOW {
            frames::window_update(&mut opening, 0, window - INITIAL_WINDOW);
        }
        if let Some(authority) = request {
            frames::headers(
                &mut opening,
                self.connection.stream(),
                &grpc::request(authority),
                false,
            );
            self.sending().wire.opened = true;
        }
        self.put(&opening)?;
        self.flush()
    }

    /// Begins the server's response.
    pub fn open_response(&mut self) -> Written {
        let mut headers = Vec::new();
        let stream = self.connection.stream();
        frames::headers(&mut headers, stream, &grpc::response(), false);
        self.put(&headers)?;
        self.sending().wire.opened = true;
        self.link.owe_again();
        Ok(())
    }

    /// Sends a greeting: as the first frame of a session, or outside of its count with what it
    /// acknowledges.
    pub fn greet(&mut self, body: Cold, resumes_after: Option<u64>) -> Written {
        let link = self.link;
        let message = match resumes_after {
            Some(ack) => cold_bytes(link.side, 0, ack, body),
            None => self
                .sending()
                .cold_message(body, link)
                .map_err(Break::Final)?,
        };
        self.data(&[], &[&message])
    }

    /// Gives the session's next message its number, and keeps it where the session can be resumed,
    /// waiting for acknowledgements if too much is kept already.
    pub fn admit(&mut self, message: &Outgoing<'_>) -> Result<u64, Break> {
        if self.sending().ending.is_some() {
            return Err(Break::Final(LinkError::Closed));
        }
        let link = self.link;
        if link.is_resumable() {
            self.make_room(message)?;
        }
        let sending = self.sending();
        match message {
            Outgoing::Hot { parts, lent, more } if link.is_resumable() => {
                sending.retained.keep(parts, *lent, *more);
            }
            Outgoing::Hot { .. } => {}
            _ if link.is_resumable() => {
                sending
                    .retained
                    .keep_cold(cold(message))
                    .map_err(Break::Final)?;
            }
            _ => {}
        }
        if let Outgoing::Bye(_) = message {
            sending.ending = Some((grpc::status::OK, String::new()));
        }
        Ok(sending.number(link))
    }

    fn make_room(&mut self, message: &Outgoing<'_>) -> Written {
        let link = self.link;
        let len: usize = match message {
            Outgoing::Hot { parts, .. } => parts.iter().map(|part| part.len()).sum(),
            _ => 0,
        };
        loop {
            let retained = &mut self.sending().retained;
            retained.forget(link.acked.load(Ordering::SeqCst));
            if retained.is_empty() || retained.size() + len <= link.tuning.retained_max {
                return Ok(());
            }
            // Between two messages, so that two ends that wait for each other's acknowledgement
            // get them.
            link.pay(self.sending(), true).map_err(Break::Final)?;
            self.flush()?;
            self.wait(Need::Acknowledgement)?;
        }
    }

    /// Sends a message that has been admitted.
    pub fn transmit(&mut self, seq: u64, message: &Outgoing<'_>) -> Written {
        let ack = self.link.acknowledge();
        match message {
            Outgoing::Hot { parts, more, .. } => self.hot(seq, ack, *more, parts),
            _ => self.data(&[], &[&cold_bytes(self.link.side, seq, ack, cold(message))]),
        }?;
        match message {
            Outgoing::Bye(_) => self.finish(),
            _ => Ok(()),
        }
    }

    fn hot(&mut self, seq: u64, ack: u64, more: u64, parts: &[&[u8]]) -> Written {
        let body: usize = parts.iter().map(|part| part.len()).sum();
        let mut head = HeadBuffer::default();
        encode_head(&mut head, seq, ack, more, body as u32);
        let head = head.as_slice();
        let prefix = grpc::prefix((head.len() + body) as u32);
        self.data(&[&prefix, head], parts)
    }

    /// Sends everything that is kept, on a new connection.
    pub fn repeat(&mut self, connection: Arc<Connection>) -> Written {
        self.connection = connection;
        let retained = std::mem::take(&mut self.sending().retained);
        let repeated = retained.frames().try_for_each(|(seq, kept, body)| {
            let ack = self.link.acknowledge();
            match kept {
                Kept::Hot { more, .. } => self.hot(seq, ack, *more, &body),
                Kept::Cold(cold) => {
                    let message = cold_bytes(self.link.side, seq, ack, cold.clone());
                    self.data(&[], &[&message])
                }
            }
        });
        self.sending().retained = retained;
        repeated?;
        match self.sending().ending {
            Some(_) => self.finish(),
            None => Ok(()),
        }
    }

    /// Ends our side of the stream: nothing more can be sent. `status` and `message` are the
    /// server's verdict on the call, which is over with it; a client has none, and leaves TLS open
    /// for the server's.
    pub fn end(&mut self, status: u32, message: &str) -> Written {
        self.sending().ending = Some((status, message.to_owned()));
        self.finish()
    }

    fn finish(&mut self) -> Written {
        let stream = self.connection.stream();
        let (status, message) = self.sending().ending.clone().unwrap_or_default();
        let mut last = Vec::new();
        match self.link.side {
            Side::Client => last.extend(frames::data_header(stream, 0, true)),
            Side::Server => {
                let block = if self.sending().wire.opened {
                    grpc::trailers(status, &message)
                } else {
                    grpc::trailers_only(status, &message)
                };
                frames::headers(&mut last, stream, &block, true);
                // The connection carries one call: a stock client closes it once it has the status.
                frames::goaway(&mut last, stream, code::NO_ERROR, "");
            }
        }
        self.put(&last)?;
        self.flush()?;
        let socket = &self.connection.socket;
        match self.link.side {
            // What is on its way arrives without us, and a server that can wait for a client to
            // come back knows the end by it.
            Side::Client if self.link.is_resumable() => {}
            Side::Client => socket.see_off(self.deadline),
            // Left open until the link is dropped or has lingered: a stock client drops a status
            // that it has not passed on when the connection ends.
            Side::Server => {}
        }
        Ok(())
    }

    /// Sends the stream's next bytes, in as many DATA frames as the peer's windows ask for.
    ///
    /// The first frame ends so that the long parts after it are cut at whole records: the peer then
    /// opens those straight to where they belong.
    fn data(&mut self, head: &[&[u8]], parts: &[&[u8]]) -> Written {
        let link = self.link;
        self.sending().wire.begin();
        let mut pieces = head.iter().chain(parts).copied();
        let mut left: usize = head.iter().chain(parts).map(|part| part.len()).sum();
        let lead: usize = head
            .iter()
            .chain(parts.iter().take_while(|part| part.len() < DIRECT_MIN))
            .map(|part| part.len())
            .sum();
        let mut frame_max = lead.saturating_add(link.tuning.frame_payload);
        let mut piece: &[u8] = &[];
        while left > 0 {
            if !link.pay(self.sending(), false).map_err(Break::Final)? {
                self.flush()?;
                continue;
            }
            let want = left.min(frame_max);
            let granted = lock(&self.connection.owed).flow.take(want);
            if granted == 0 {
                self.flush()?;
                self.wait(Need::Window)?;
                continue;
            }
            frame_max = link.tuning.frame_payload;
            self.put(&frames::data_header(
                self.connection.stream(),
                granted,
                false,
            ))?;
            let mut rest = granted;
            while rest > 0 {
                if piece.is_empty() {
                    piece = pieces.next().unwrap_or_default();
                }
                let (now, later) = piece.split_at(rest.min(piece.len()));
                self.put(now)?;
                rest -= now.len();
                piece = later;
            }
            left -= granted;
        }
        self.flush()
    }

    fn put(&mut self, bytes: &[u8]) -> Written {
        if bytes.len() >= LONG_MIN && self.link.crew.is_there() {
            return self.put_long(bytes);
        }
        let mut rest = bytes;
        loop {
            let taken = self.sending().wire.put(rest);
            rest = &rest[taken..];
            if rest.is_empty() {
                return Ok(());
            }
            self.flush()?;
        }
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        drop(self.sending.take());
        fence(Ordering::SeqCst);
        self.link.settle(&self.connection);
    }
}

/// A message that is not hot, as a frame.
fn cold(message: &Outgoing<'_>) -> Cold {
    match message {
        Outgoing::Hot { .. } => Cold::Unknown,
        Outgoing::Ping(token) => Cold::Ping(*token),
        Outgoing::Bye(reason) => Cold::Bye((*reason).to_owned()),
    }
}
