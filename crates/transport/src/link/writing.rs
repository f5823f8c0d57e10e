//! Writing on a link: what is owed, whole messages, and waiting while neither can be sent.

use std::sync::atomic::{fence, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use super::connection::Connection;
use super::outbound::{Outbound, DIRECT_MIN};
use super::retained::{Kept, Retained};
use super::socket::Interest;
use super::{lock, try_lock, Break, Link, KEEP_ALIVE};
use crate::envelope::{encode_head, Cold, ColdFrame, HeadBuffer};
use crate::error::LinkError;
use crate::grpc;
use crate::h2::{code, frames, reader, Side, INITIAL_WINDOW, PREFACE};
use crate::tls::post_handshake::{fatal_alert, CLOSE_NOTIFY_ALERT};

/// What became of writing.
pub type Written = Result<(), Break>;

/// A message of the session.
pub enum Outgoing<'a> {
    /// A body, `parts` in a row, of which `more` bytes follow in later messages.
    Hot {
        parts: &'a [&'a [u8]],
        more: u64,
    },
    Ping(u64),
    /// A goodbye, which ends our side of the stream.
    Bye(&'a str),
}

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

/// The right to write, which settles what is owed when it ends.
pub struct Writer<'a> {
    link: &'a Link,
    sending: Option<MutexGuard<'a, Sending>>,
    connection: Arc<Connection>,
    /// When a blocked write gives up.
    deadline: Option<Instant>,
}

/// What a writer waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Room in the socket.
    Room,
    /// An open window.
    Window,
    /// The acknowledgement of something that is kept.
    Acknowledgement,
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
    fn cold_message(&mut self, body: Cold, link: &Link) -> Result<Vec<u8>, LinkError> {
        if link.is_resumable() {
            self.retained.keep_cold(body.clone())?;
        }
        let seq = self.number(link);
        Ok(cold_bytes(link.side, seq, link.acknowledge(), body))
    }

    /// The next frame's number.
    fn number(&mut self, link: &Link) -> u64 {
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

fn cold_bytes(side: Side, seq: u64, ack: u64, body: Cold) -> Vec<u8> {
    let frame = ColdFrame { seq, ack, body };
    let bytes = match side {
        Side::Client => frame.encode_from_client(),
        Side::Server => frame.encode_from_server(),
    };
    let mut message = grpc::prefix(bytes.len() as u32).to_vec();
    message.extend(bytes);
    message
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

    /// Bytes that have gone to the sockets.
    pub fn bytes_sent(&self) -> u64 {
        let sending = lock(&self.outbound);
        sending.carried + sending.wire.total()
    }

    /// What the next frame acknowledges.
    fn acknowledge(&self) -> u64 {
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
    fn pay(&self, sending: &mut Sending, between: bool) -> Result<bool, LinkError> {
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
            Outgoing::Hot { parts, more } if link.is_resumable() => {
                sending.retained.keep(parts, *more);
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
            Outgoing::Hot { parts, more } => self.hot(seq, ack, *more, parts),
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
            Side::Server => self.sending().close_tls(),
        }
        Ok(())
    }

    /// Sends the stream's next bytes, in as many DATA frames as the peer's windows ask for.
    ///
    /// The first frame ends so that the long parts after it are cut at whole records: the peer then
    /// opens those straight to where they belong.
    fn data(&mut self, head: &[&[u8]], parts: &[&[u8]]) -> Written {
        let link = self.link;
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

    /// Sends everything, waiting as long as it takes.
    fn flush(&mut self) -> Written {
        loop {
            match self.sending().wire.send() {
                Ok(true) => {
                    self.connection.backlog.store(false, Ordering::Relaxed);
                    return Ok(());
                }
                Ok(false) => self.wait(Need::Room)?,
                Err(error) => return Err(self.cause(error)),
            }
        }
    }

    /// The peer's own account of why it takes no more, where it has left one.
    fn cause(&mut self, error: LinkError) -> Break {
        let link = self.link;
        let mut receiving = lock(&link.inbound);
        if self.connection.broken().is_some() {
            return Break::Network(error);
        }
        let read = receiving.stock_up(link.tuning.inbox_limit, link);
        let verdict = match (read, receiving.wire.end()) {
            (Err(LinkError::Lost(_)) | Ok(_), Some(Err(cause))) => Break::Final(cause),
            (Err(cause), _) => receiving.judge(cause),
            (Ok(_), _) => receiving.judge(error),
        };
        drop(receiving);
        if link.receiver_sleeps.load(Ordering::SeqCst) {
            link.receiver_bell.ring();
        }
        verdict
    }

    /// Sleeps until trying again makes sense, and reads meanwhile if nobody else does.
    fn wait(&mut self, need: Need) -> Written {
        self.link.sender_waits.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let result = self.read_and_sleep(need);
        self.link.sender_waits.store(false, Ordering::SeqCst);
        result
    }

    fn read_and_sleep(&mut self, need: Need) -> Written {
        let link = self.link;
        let mut interest = Interest {
            read: false,
            write: need == Need::Room || self.connection.backlog.load(Ordering::Relaxed),
        };
        let mut look_again = None;
        if let Some(mut receiving) = try_lock(&link.inbound) {
            if let Some(error) = self.connection.broken() {
                // What it has brought is settled by now: not a byte more may be read of it.
                return Err(Break::Network(error.clone()));
            }
            let before = receiving.inbox.size();
            let more = receiving.stock_up(link.tuning.inbox_limit, link);
            let end = receiving.end();
            let news = receiving.inbox.size() > before || end.is_some() || more.is_err();
            let over = receiving.is_over();
            let outcome = more.and_then(|more| {
                interest.read = more;
                receiving.watch(link, Instant::now())
            });
            let outcome = outcome.map_err(|error| receiving.judge(error));
            drop(receiving);
            if news && link.receiver_sleeps.load(Ordering::SeqCst) {
                link.receiver_bell.ring();
            }
            look_again = outcome?;
            if over {
                let error = end.and_then(Result::err).unwrap_or(LinkError::Closed);
                return Err(Break::Final(error));
            }
        }
        link.check().map_err(Break::Final)?;
        if let Some(error) = self.connection.broken() {
            return Err(Break::Network(error.clone()));
        }
        let can_go_on = match need {
            Need::Room => false,
            Need::Window => {
                self.connection.owes.load(Ordering::SeqCst)
                    || lock(&self.connection.owed).flow.is_open()
            }
            Need::Acknowledgement => {
                let acked = link.acked.load(Ordering::SeqCst);
                link.has_unsaid(&self.connection) || self.sending().retained.lags(acked)
            }
        };
        if can_go_on {
            return Ok(());
        }
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Err(Break::Final(LinkError::TimedOut));
        }
        let until = [self.deadline, look_again].into_iter().flatten().min();
        self.connection
            .socket
            .wait(interest, Some(&link.sender_bell), until)
            .map_err(|error| Break::Final(LinkError::lost(&error)))?;
        Ok(())
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
