//! Writing on a link: what is owed, whole messages, and waiting while neither can be sent.

use std::sync::atomic::{fence, Ordering};
use std::sync::MutexGuard;
use std::time::Instant;

use super::outbound::{Outbound, DIRECT_MIN};
use super::socket::Interest;
use super::{lock, try_lock, Link, Owed};
use crate::envelope::{encode_head, Cold, ColdFrame, HeadBuffer};
use crate::error::LinkError;
use crate::grpc;
use crate::h2::{code, frames, reader, Side, INITIAL_WINDOW, PREFACE};
use crate::tls::post_handshake::{fatal_alert, CLOSE_NOTIFY_ALERT};

/// The right to write, which settles what is owed when it ends.
pub struct Writer<'a> {
    link: &'a Link,
    out: Option<MutexGuard<'a, Outbound>>,
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
}

impl Link {
    pub fn write(&self, deadline: Option<Instant>) -> Result<Writer<'_>, LinkError> {
        let out = lock(&self.outbound);
        let writer = Writer {
            link: self,
            out: Some(out),
            deadline,
        };
        self.check()?;
        Ok(writer)
    }

    /// Bytes that have gone to the socket.
    pub fn bytes_sent(&self) -> u64 {
        lock(&self.outbound).total()
    }

    /// Sends what is owed if nobody is writing: who writes does it before letting go.
    pub fn settle(&self) {
        while self.has_unsaid() {
            let Some(mut out) = try_lock(&self.outbound) else {
                return;
            };
            // A failure of the socket is left to the reader or the next writer to find.
            let sent = out.send(&self.socket).unwrap_or(false)
                && self.pay(&mut out, true)
                && out.send(&self.socket).unwrap_or(false);
            self.backlog.store(!sent, Ordering::Relaxed);
            drop(out);
            fence(Ordering::SeqCst);
            if !sent {
                return;
            }
        }
    }

    /// Whether [`settle`](Link::settle) has something to do.
    pub fn has_unsaid(&self) -> bool {
        self.owes.load(Ordering::SeqCst)
            || self.owes_pongs.load(Ordering::SeqCst)
            || self.backlog.load(Ordering::Relaxed)
    }

    /// Moves what is owed into `out`, and pongs too where it is `between` two messages; `false` if
    /// there is no room.
    fn pay(&self, out: &mut Outbound, between: bool) -> bool {
        let due = out.records() >= self.tuning.records_per_key;
        let pongs = between && self.owes_pongs.load(Ordering::SeqCst);
        if !due && !pongs && !self.owes.load(Ordering::SeqCst) {
            return true;
        }
        let mut owed = lock(&self.owed);
        if !out.has_room(owed.frames.len()) {
            return false;
        }
        self.owes.store(false, Ordering::SeqCst);
        if (due || owed.key_update) && !out.closed {
            owed.key_update = false;
            // It fails only without a next secret, and then the present keys stay as they are.
            let _ = out.update_keys(&mut **self.rekey());
        }
        if !out.closed {
            out.put(&owed.frames);
        }
        owed.frames.clear();
        if pongs {
            self.pay_pongs(out, &mut owed);
        }
        true
    }

    /// Answers the peer's pings, as far as the stream, the window and the room allow.
    fn pay_pongs(&self, out: &mut Outbound, owed: &mut Owed) {
        /// No pong is longer, with all that is around it.
        const PONG_MAX: usize = 64;
        // What stays is tried again when the stream is opened or the window grows.
        self.owes_pongs.store(false, Ordering::SeqCst);
        if !out.opened {
            return;
        }
        if out.ended {
            owed.pongs.clear();
        }
        while !owed.pongs.is_empty() && owed.flow.has(PONG_MAX) && out.has_room(PONG_MAX) {
            let token = owed.pongs.remove(0);
            let message = self.cold_message(out, Cold::Pong(token));
            let len = owed.flow.take(message.len());
            out.put(&frames::data_header(self.stream(), len, false));
            out.put(&message);
        }
        if !owed.pongs.is_empty() && !out.has_room(PONG_MAX) {
            self.owes_pongs.store(true, Ordering::SeqCst);
        }
    }

    /// A frame that is not hot, with its prefix and the next number.
    fn cold_message(&self, out: &mut Outbound, body: Cold) -> Vec<u8> {
        let (seq, ack) = self.number(out);
        let frame = ColdFrame { seq, ack, body };
        let bytes = match self.side {
            Side::Client => frame.encode_from_client(),
            Side::Server => frame.encode_from_server(),
        };
        let mut message = grpc::prefix(bytes.len() as u32).to_vec();
        message.extend(bytes);
        message
    }

    /// The next frame's number, and what it acknowledges.
    fn number(&self, out: &mut Outbound) -> (u64, u64) {
        out.seq += 1;
        self.sent_seq.store(out.seq, Ordering::SeqCst);
        (out.seq, self.received_seq.load(Ordering::SeqCst))
    }

    /// Says close_notify, once and as far as that goes without waiting, and sends no more.
    pub fn close_tls(&self, out: &mut Outbound) {
        if !out.closed && out.has_room(CLOSE_NOTIFY_ALERT.len()) {
            out.closed = true;
            out.alert(CLOSE_NOTIFY_ALERT);
            let _ = out.send(&self.socket);
        }
        self.socket.close_sending();
    }

    /// Tells the peer why the link ends, as far as that goes without waiting.
    pub fn say_why(&self, error: &LinkError) {
        let Some(mut out) = try_lock(&self.outbound) else {
            return;
        };
        if out.closed || !out.has_room(256) {
            return;
        }
        match error {
            LinkError::Http2 { code, text } => {
                let mut frame = Vec::new();
                frames::goaway(&mut frame, self.stream(), *code, text);
                out.put(&frame);
            }
            LinkError::NotGrpc(text) if self.side == Side::Server => {
                let mut frame = Vec::new();
                let block = grpc::trailers_only(grpc::status::UNIMPLEMENTED, text);
                frames::headers(&mut frame, self.stream(), &block, true);
                frames::goaway(&mut frame, self.stream(), code::NO_ERROR, text);
                out.put(&frame);
            }
            LinkError::Violation(_) | LinkError::Sequence { .. } | LinkError::NotGrpc(_) => {
                let mut frame = Vec::new();
                if self.stream() != 0 {
                    frames::rst_stream(&mut frame, self.stream(), code::PROTOCOL_ERROR);
                }
                frames::goaway(
                    &mut frame,
                    self.stream(),
                    code::PROTOCOL_ERROR,
                    &error.to_string(),
                );
                out.put(&frame);
            }
            LinkError::Tls(_) => {
                if let Some(alert) = fatal_alert(error) {
                    out.alert(alert);
                }
            }
            _ => return,
        }
        let _ = out.send(&self.socket);
    }
}

impl Writer<'_> {
    fn out(&mut self) -> &mut Outbound {
        self.out
            .as_mut()
            .expect("a writer has its half until it is dropped")
    }

    /// What each end says first; the client's request goes with it.
    pub fn open_connection(&mut self, request: Option<&str>) -> Result<(), LinkError> {
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
                self.link.stream(),
                &grpc::request(authority),
                false,
            );
            self.out().opened = true;
        }
        self.put(&opening)?;
        self.flush()
    }

    /// Begins the server's response.
    pub fn open_response(&mut self) -> Result<(), LinkError> {
        let mut headers = Vec::new();
        frames::headers(&mut headers, self.link.stream(), &grpc::response(), false);
        self.put(&headers)?;
        self.out().opened = true;
        self.link.owes_pongs.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Sends one hot frame whose body is `parts` in a row.
    pub fn hot(&mut self, parts: &[&[u8]]) -> Result<(), LinkError> {
        self.check_open()?;
        let body: usize = parts.iter().map(|part| part.len()).sum();
        let link = self.link;
        let (seq, ack) = link.number(self.out());
        let mut head = HeadBuffer::default();
        encode_head(&mut head, seq, ack, body as u32);
        let head = head.as_slice();
        let prefix = grpc::prefix((head.len() + body) as u32);
        self.data(&[&prefix, head], parts)
    }

    /// Sends one frame of another kind.
    pub fn cold(&mut self, body: Cold) -> Result<(), LinkError> {
        self.check_open()?;
        let link = self.link;
        let message = link.cold_message(self.out(), body);
        self.data(&[], &[&message])
    }

    /// Ends our side of the stream: nothing more can be sent. `status` and `message` are the
    /// server's verdict on the call, which is over with it; a client has none, and leaves TLS open
    /// for the server's.
    pub fn end(&mut self, status: u32, message: &str) -> Result<(), LinkError> {
        self.check_open()?;
        let stream = self.link.stream();
        let mut last = Vec::new();
        match self.link.side {
            Side::Client => last.extend(frames::data_header(stream, 0, true)),
            Side::Server => {
                let block = if self.out().opened {
                    grpc::trailers(status, message)
                } else {
                    grpc::trailers_only(status, message)
                };
                frames::headers(&mut last, stream, &block, true);
            }
        }
        self.put(&last)?;
        self.out().ended = true;
        self.flush()?;
        let link = self.link;
        match link.side {
            Side::Client => link.socket.see_off(self.deadline),
            Side::Server => link.close_tls(self.out()),
        }
        Ok(())
    }

    fn check_open(&mut self) -> Result<(), LinkError> {
        if self.out().ended {
            return Err(LinkError::Closed);
        }
        Ok(())
    }

    /// Sends the stream's next bytes, in as many DATA frames as the peer's windows ask for.
    ///
    /// The first frame ends so that the long parts after it are cut at whole records: the peer then
    /// opens those straight to where they belong.
    fn data(&mut self, head: &[&[u8]], parts: &[&[u8]]) -> Result<(), LinkError> {
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
            if !link.pay(self.out(), false) {
                self.flush()?;
                continue;
            }
            let granted = lock(&link.owed).flow.take(left.min(frame_max));
            if granted == 0 {
                self.flush()?;
                self.wait(Need::Window)?;
                continue;
            }
            frame_max = link.tuning.frame_payload;
            self.put(&frames::data_header(link.stream(), granted, false))?;
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

    fn put(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        let mut rest = bytes;
        loop {
            let taken = self.out().put(rest);
            rest = &rest[taken..];
            if rest.is_empty() {
                return Ok(());
            }
            self.flush()?;
        }
    }

    /// Sends everything, waiting as long as it takes.
    fn flush(&mut self) -> Result<(), LinkError> {
        let link = self.link;
        loop {
            match self.out().send(&link.socket) {
                Ok(true) => {
                    link.backlog.store(false, Ordering::Relaxed);
                    return Ok(());
                }
                Ok(false) => self.wait(Need::Room)?,
                Err(error) => return Err(self.cause(error)),
            }
        }
    }

    /// The peer's own account of why it takes no more, where it has left one.
    fn cause(&mut self, error: LinkError) -> LinkError {
        let Some(mut inbound) = try_lock(&self.link.inbound) else {
            return error;
        };
        match inbound.stock_up(self.link) {
            Err(LinkError::Lost(_)) | Ok(_) => match inbound.end() {
                Some(Err(cause)) => cause,
                _ => error,
            },
            Err(cause) => cause,
        }
    }

    /// Sleeps until trying again makes sense, and reads meanwhile if nobody else does.
    fn wait(&mut self, need: Need) -> Result<(), LinkError> {
        self.link.sender_waits.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let result = self.read_and_sleep(need);
        self.link.sender_waits.store(false, Ordering::SeqCst);
        result
    }

    fn read_and_sleep(&mut self, need: Need) -> Result<(), LinkError> {
        let link = self.link;
        let mut interest = Interest {
            read: false,
            write: need == Need::Room,
        };
        if let Some(mut inbound) = try_lock(&link.inbound) {
            let before = inbound.waiting();
            let more = inbound.stock_up(link);
            let end = inbound.end();
            let news = inbound.waiting() > before || end.is_some() || more.is_err();
            let over = inbound.is_over();
            drop(inbound);
            if news && link.receiver_sleeps.load(Ordering::SeqCst) {
                link.receiver_bell.ring();
            }
            interest.read = more?;
            if over {
                return Err(end.and_then(Result::err).unwrap_or(LinkError::Closed));
            }
        }
        link.check()?;
        if need == Need::Window
            && (link.owes.load(Ordering::SeqCst) || lock(&link.owed).flow.is_open())
        {
            return Ok(());
        }
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Err(LinkError::TimedOut);
        }
        link.socket
            .wait(interest, Some(&link.sender_bell), self.deadline)
            .map_err(|error| LinkError::lost(&error))?;
        Ok(())
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        drop(self.out.take());
        fence(Ordering::SeqCst);
        self.link.settle();
    }
}
