//! The reading half of a connection: socket, records, frames, and then the bytes of the stream.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::connection::Connection;
use super::crew::Crew;
use super::wire_room::{WireRoom, PAGE};
use crate::error::LinkError;
use crate::grpc;
use crate::h2::headers::Headers;
use crate::h2::reader::Reader;
use crate::h2::Side;
use crate::tls::post_handshake::{read_alert, PostHandshake};
use crate::tls::records::{ContentType, Keys, Opener, HEADER_BYTES};

/// The most that one system call takes off the socket.
pub(super) const RAW_BYTES: usize = 1 << 20;
/// Records in a row that carry nothing for the stream: more of them mean harm.
const IDLE_RECORDS_MAX: u32 = 64;

pub struct Inbound {
    pub connection: Arc<Connection>,
    side: Side,
    /// Bytes as they came: opened ones in `plain`, sealed ones in `sealed`.
    pub(super) raw: WireRoom,
    pub(super) plain: Range<usize>,
    pub(super) sealed: Range<usize>,
    /// What comes while a crew opens `raw`.
    pub(super) ahead: WireRoom,
    pub(super) opener: Opener,
    post_handshake: PostHandshake,
    idle_records: u32,
    /// The peer has said close_notify, or closed after the end of its stream.
    pub(super) closed: bool,
    /// The peer's system has closed the connection, rather than reset it.
    hung_up: bool,
    /// What went wrong after bytes that have been given out first.
    pub(super) failure: Option<LinkError>,
    reader: Reader,
    head_checked: bool,
    received: u64,
    /// When something last came.
    pub heard: Instant,
}

impl Inbound {
    /// `leftover`: sealed bytes that came with the handshake. `window`: how many bytes of the
    /// stream the peer may be ahead.
    pub fn new(
        side: Side,
        connection: Arc<Connection>,
        keys: Keys,
        leftover: &[u8],
        window: u32,
    ) -> Inbound {
        let mut raw = WireRoom::new(RAW_BYTES.max(leftover.len()) + PAGE);
        raw[..leftover.len()].copy_from_slice(leftover);
        Inbound {
            connection,
            side,
            raw,
            plain: 0..0,
            sealed: 0..leftover.len(),
            ahead: WireRoom::default(),
            opener: Opener::new(keys),
            post_handshake: PostHandshake::default(),
            idle_records: 0,
            closed: false,
            hung_up: false,
            failure: None,
            reader: Reader::new(side, window),
            head_checked: false,
            received: leftover.len() as u64,
            heard: Instant::now(),
        }
    }

    /// All bytes that have come from the socket after the handshake.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether there are bytes in memory that have not been taken.
    pub fn has_bytes(&self) -> bool {
        !self.plain.is_empty() || !self.sealed.is_empty()
    }

    /// The peer has said goodbye to TLS: it does not want the connection any more.
    pub fn said_goodbye(&self) -> bool {
        self.closed
    }

    /// The peer's system has closed the connection.
    pub fn was_hung_up(&self) -> bool {
        self.hung_up
    }

    /// The next bytes of the stream that lie together: without waiting, empty if there are none.
    pub fn available(&mut self) -> Result<&[u8], LinkError> {
        self.check()?;
        while self.plain_data() == 0 && self.advance()? {}
        Ok(self.ready())
    }

    fn ready(&self) -> &[u8] {
        &self.raw[self.plain.start..self.plain.start + self.plain_data()]
    }

    fn check(&mut self) -> Result<(), LinkError> {
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Drops the first `len` bytes of what [`available`](Inbound::available) has shown.
    pub fn consume(&mut self, len: usize) {
        self.plain.start += len;
        self.reader.take_data(len);
    }

    /// Moves bytes of the stream to `target`, at most `limit` and as many as come without waiting;
    /// 0 is none. The rest of `target` becomes scratch.
    pub fn read(
        &mut self,
        target: &mut [u8],
        limit: usize,
        crew: &Crew,
    ) -> Result<usize, LinkError> {
        self.check()?;
        let mut filled = 0;
        while filled < limit && self.failure.is_none() {
            match self.read_some(&mut target[filled..], limit - filled, crew) {
                Ok(None) => break,
                Ok(Some(len)) => filled += len,
                Err(error) if filled == 0 => return Err(error),
                Err(error) => {
                    // What has been moved counts, and must be told before the error.
                    self.failure = Some(error);
                    break;
                }
            }
        }
        Ok(filled)
    }

    fn read_some(
        &mut self,
        target: &mut [u8],
        limit: usize,
        crew: &Crew,
    ) -> Result<Option<usize>, LinkError> {
        let ready = self.ready();
        if !ready.is_empty() {
            let len = ready.len().min(limit);
            target[..len].copy_from_slice(&ready[..len]);
            self.consume(len);
            return Ok(Some(len));
        }
        let run = self.open_run(target, limit, crew)?;
        if run > 0 {
            return Ok(Some(run));
        }
        if let Some(len) = self.open_directly(target, limit)? {
            return Ok(Some(len));
        }
        Ok(self.advance()?.then_some(0))
    }

    /// How the peer has ended the stream, if it has and everything before has been taken.
    pub fn end(&self) -> Option<Result<(), LinkError>> {
        if self.plain_data() > 0 || self.failure.is_some() {
            return None;
        }
        if self.reader.ended {
            // A response may be over before it has begun, and then its headers are the trailers.
            let only = self
                .reader
                .head
                .as_ref()
                .filter(|head| head.grpc_status.is_some());
            if let Some(trailers) = self.reader.trailers.as_ref().or(only) {
                return Some(grpc::check_trailers(trailers));
            }
            if let Some(reset) = &self.reader.reset {
                let (code, text) = (reset.code, reset.text.clone());
                return Some(Err(LinkError::Ended { code, text }));
            }
            return Some(match self.side {
                Side::Server => Ok(()),
                Side::Client => grpc::check_trailers(&Headers::default()),
            });
        }
        self.closed
            .then(|| Err(self.cut("TLS was closed in mid-stream")))
    }

    /// Whether nothing that we send is of use any more.
    pub fn is_over(&self) -> bool {
        self.reader.reset.is_some() || (self.side == Side::Client && self.reader.ended)
    }

    fn cut(&self, text: &str) -> LinkError {
        match &self.reader.goaway {
            Some(goaway) if goaway.code != crate::h2::code::NO_ERROR => LinkError::Ended {
                code: goaway.code,
                text: goaway.text.clone(),
            },
            _ => LinkError::Lost(text.to_owned()),
        }
    }

    /// How many opened bytes are the stream's.
    fn plain_data(&self) -> usize {
        self.plain.len().min(self.reader.data_left())
    }

    /// Goes one step towards the next bytes of the stream; `false` if that would have to wait.
    fn advance(&mut self) -> Result<bool, LinkError> {
        if self.reader.data_left() == 0 {
            let ended = self.reader.ended;
            let used = self.reader.read_framing(&self.raw[self.plain.clone()])?;
            self.plain.start += used;
            self.tell()?;
            if used > 0 || self.reader.ended != ended {
                return Ok(true);
            }
        }
        if self.closed {
            return Ok(false);
        }
        if let Some(record) = Opener::whole_record(&self.raw[self.sealed.clone()])? {
            let start = self.sealed.start;
            let (kind, len) = self
                .opener
                .open_in_place(&mut self.raw[start..start + record])?;
            self.sealed.start += record;
            let content = start + HEADER_BYTES..start + HEADER_BYTES + len;
            if kind == ContentType::ApplicationData {
                self.count(len)?;
                self.plain = content;
            } else {
                let content = self.raw[content].to_vec();
                self.special(kind, &content)?;
            }
            return Ok(true);
        }
        self.receive()
    }

    /// Opens a record straight into `target` where it is whole, all the stream's, and fits.
    fn open_directly(
        &mut self,
        target: &mut [u8],
        limit: usize,
    ) -> Result<Option<usize>, LinkError> {
        if !self.plain.is_empty() || self.closed {
            return Ok(None);
        }
        let Some(record) = Opener::whole_record(&self.raw[self.sealed.clone()])? else {
            return Ok(None);
        };
        // The content type, which comes after the plaintext, and padding land in the target too.
        let room = Opener::target_bytes(record);
        let most = room.saturating_sub(1);
        if room > target.len() || most > limit || most > self.reader.data_left() {
            return Ok(None);
        }
        let start = self.sealed.start;
        let (kind, len) = self
            .opener
            .open_into(&self.raw[start..start + record], target)?;
        self.sealed.start += record;
        if kind == ContentType::ApplicationData {
            self.count(len)?;
            self.reader.take_data(len);
            return Ok(Some(len));
        }
        let content = target[..len].to_vec();
        self.special(kind, &content)?;
        Ok(Some(0))
    }

    /// How many of the next bytes are the stream's.
    pub(super) fn data_left(&self) -> usize {
        self.reader.data_left()
    }

    /// Whether a message of TLS's own has come in part.
    pub(super) fn expects_more(&self) -> bool {
        self.post_handshake.is_partial()
    }

    /// Counts bytes of the stream that came in full records and have been taken.
    pub(super) fn take_run(&mut self, len: usize) {
        self.idle_records = 0;
        self.reader.take_data(len);
    }

    /// Keeps count of records without content, and of what may not come between two records.
    fn count(&mut self, len: usize) -> Result<(), LinkError> {
        if self.post_handshake.is_partial() {
            return Err(LinkError::Tls("data inside a handshake message"));
        }
        if len > 0 {
            self.idle_records = 0;
            return Ok(());
        }
        self.count_idle()
    }

    fn count_idle(&mut self) -> Result<(), LinkError> {
        self.idle_records += 1;
        if self.idle_records > IDLE_RECORDS_MAX {
            return Err(LinkError::Tls("records without data"));
        }
        Ok(())
    }

    /// Acts on a record that is TLS's own.
    fn special(&mut self, kind: ContentType, content: &[u8]) -> Result<(), LinkError> {
        self.count_idle()?;
        if kind == ContentType::Alert {
            self.closed |= read_alert(content)?;
        } else if let Some(update) = self.post_handshake.take(content)? {
            self.opener = Opener::new(self.connection.rekey().next_receiving()?);
            if update.answer {
                self.connection.owe(|owed| owed.key_update = true);
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<bool, LinkError> {
        // What is left is less than a record; a whole buffer can then be filled behind it. The kernel's side goes on where
        // it ended: both stay as far apart within pages as they were, until nothing is to come of a frame.
        let start = match self.sealed.is_empty() && self.reader.data_left() == 0 {
            true => 0,
            false => self.sealed.start % PAGE,
        };
        if self.sealed.start != start {
            self.raw.copy_within(self.sealed.clone(), start);
            self.sealed = start..start + self.sealed.len();
        }
        let received = self
            .connection
            .socket
            .receive(&mut self.raw[self.sealed.end..]);
        self.note(received)
    }

    /// Acts on what the socket had behind the sealed bytes that were there; `false` if that was nothing.
    pub(super) fn note(&mut self, received: io::Result<Option<usize>>) -> Result<bool, LinkError> {
        match received {
            Ok(None) => Ok(false),
            Ok(Some(0)) if self.reader.ended => {
                self.closed = true;
                Ok(false)
            }
            Ok(Some(0)) if self.connection.socket.was_reset() => Err(self.cut("reset by the peer")),
            Ok(Some(0)) => {
                self.hung_up = true;
                Err(self.cut("closed by the peer without a goodbye"))
            }
            Ok(Some(len)) => {
                self.heard = Instant::now();
                self.sealed.end += len;
                self.received += len as u64;
                Ok(true)
            }
            Err(error) => match LinkError::lost(&error) {
                LinkError::Lost(text) => Err(self.cut(&text)),
                other => Err(other),
            },
        }
    }

    /// Passes on what the frames just read mean for the sending half.
    fn tell(&mut self) -> Result<(), LinkError> {
        if !self.reader.replies.is_empty() || !self.reader.allowances.is_empty() {
            self.connection
                .answer(&mut self.reader.replies, &mut self.reader.allowances)?;
        }
        if self.head_checked {
            return Ok(());
        }
        let Some(head) = &self.reader.head else {
            return Ok(());
        };
        self.head_checked = true;
        self.connection.set_stream(self.reader.stream());
        match self.side {
            Side::Client => grpc::check_response(head).map_err(LinkError::NotGrpc),
            Side::Server => {
                grpc::check_request(head).map_err(|text| LinkError::NotGrpc(text.to_owned()))
            }
        }
    }
}
