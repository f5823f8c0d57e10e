//! Reads the peer's side of the connection: which bytes belong to the stream, and what to answer.

use super::flow::{Allowance, ReceiveWindow};
use super::frames::{self, flag, kind, setting, FrameHeader};
use super::headers::{HeaderDecoder, Headers};
use super::{code, Side, INITIAL_WINDOW, PREFACE, WINDOW_MAX};
use crate::error::{printable, LinkError};

/// The largest frame that we allow the peer: whole DATA frames of our own kind fit with room.
pub const FRAME_MAX: usize = (1 << 20) + (1 << 14);
/// The largest header block, and the largest payload of a frame that is not DATA.
pub const HEADERS_MAX: usize = 1 << 14;
/// Blocks that a peer may send on one connection: a call has two, and refused calls cost work.
const BLOCKS_MAX: u32 = 16;
/// What is kept of a GOAWAY's text.
const GOAWAY_TEXT_MAX: usize = 256;

/// How the peer has ended the stream other than with END_STREAM, or announced to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerError {
    pub code: u32,
    pub text: String,
}

enum State {
    /// What is left of the client's preface.
    Preface(&'static [u8]),
    /// A frame's header, as far as it is there.
    Header([u8; frames::HEADER_BYTES], usize),
    /// The length of the padding is the next byte.
    PadLength(FrameHeader),
    /// Data of the stream, then padding.
    Data {
        left: usize,
        padding: usize,
        end: bool,
    },
    /// Payload that is not looked at.
    Skip(usize),
    /// The payload of another frame, as far as it is there.
    Payload(FrameHeader, Vec<u8>),
}

/// One end's view of what the other sends.
pub struct Reader {
    side: Side,
    state: State,
    decoder: HeaderDecoder,
    /// A header block that goes on in CONTINUATION frames.
    block: Option<Block>,
    blocks: u32,
    seen_settings: bool,
    connection_window: ReceiveWindow,
    stream_window: ReceiveWindow,
    /// The call's stream; 0 where the client has not opened one.
    stream: u32,
    last_stream: u32,
    /// The first header block on the stream: the request, or the response's beginning.
    pub head: Option<Headers>,
    /// The last one: the response's end.
    pub trailers: Option<Headers>,
    /// The peer sends no more on the stream.
    pub ended: bool,
    pub reset: Option<PeerError>,
    pub goaway: Option<PeerError>,
    /// Frames to send: acknowledgements and window updates.
    pub replies: Vec<u8>,
    /// What the peer has said about our sending.
    pub allowances: Vec<Allowance>,
}

struct Block {
    stream: u32,
    end_stream: bool,
    bytes: Vec<u8>,
}

fn broken(text: &'static str) -> LinkError {
    LinkError::Http2 {
        code: code::PROTOCOL_ERROR,
        text,
    }
}

fn wrong_size(text: &'static str) -> LinkError {
    LinkError::Http2 {
        code: code::FRAME_SIZE_ERROR,
        text,
    }
}

fn calm(text: &'static str) -> LinkError {
    LinkError::Http2 {
        code: code::ENHANCE_YOUR_CALM,
        text,
    }
}

impl Reader {
    /// `window`: the bytes of the stream that the peer may be ahead of us.
    pub fn new(side: Side, window: u32) -> Reader {
        let state = match side {
            Side::Client => State::Header([0; frames::HEADER_BYTES], 0),
            Side::Server => State::Preface(PREFACE),
        };
        Reader {
            side,
            state,
            decoder: HeaderDecoder::default(),
            block: None,
            blocks: 0,
            seen_settings: false,
            // A connection's window begins with the protocol's default and can only grow.
            connection_window: ReceiveWindow::new(window.max(INITIAL_WINDOW)),
            stream_window: ReceiveWindow::new(window),
            stream: if side == Side::Client { 1 } else { 0 },
            last_stream: 0,
            head: None,
            trailers: None,
            ended: false,
            reset: None,
            goaway: None,
            replies: Vec::new(),
            allowances: Vec::new(),
        }
    }

    /// The call's stream; 0 until the client has opened one.
    pub fn stream(&self) -> u32 {
        self.stream
    }

    /// How many bytes of the stream come next.
    pub fn data_left(&self) -> usize {
        match self.state {
            State::Data { left, .. } => left,
            _ => 0,
        }
    }

    /// Says that `len` of those bytes have been taken.
    pub fn take_data(&mut self, len: usize) {
        if let State::Data { left, .. } = &mut self.state {
            *left -= len;
        }
    }

    /// Reads framing up to the next bytes of the stream or the end of `input`; returns how many
    /// bytes it was.
    pub fn read_framing(&mut self, input: &[u8]) -> Result<usize, LinkError> {
        let mut rest = input;
        loop {
            match &mut self.state {
                State::Data {
                    left: 0,
                    padding: 0,
                    end,
                } => {
                    self.ended |= *end;
                    self.next_frame();
                }
                State::Data {
                    left: 0, padding, ..
                } => {
                    let len = rest.len().min(*padding);
                    *padding -= len;
                    rest = &rest[len..];
                    if *padding > 0 {
                        break;
                    }
                }
                State::Data { .. } => break,
                State::Skip(0) => self.next_frame(),
                State::Payload(header, bytes) if bytes.len() == header.len => {
                    let (header, bytes) = (*header, std::mem::take(bytes));
                    self.next_frame();
                    self.control(header, &bytes)?;
                }
                _ if rest.is_empty() => break,
                State::Preface(expected) => {
                    let len = rest.len().min(expected.len());
                    if rest[..len] != expected[..len] {
                        return Err(broken("no HTTP/2 preface"));
                    }
                    *expected = &expected[len..];
                    rest = &rest[len..];
                    if expected.is_empty() {
                        self.next_frame();
                    }
                }
                State::Header(bytes, have) => {
                    let len = rest.len().min(bytes.len() - *have);
                    bytes[*have..*have + len].copy_from_slice(&rest[..len]);
                    *have += len;
                    rest = &rest[len..];
                    if *have == bytes.len() {
                        let header = FrameHeader::decode(bytes);
                        self.begin(header)?;
                    }
                }
                State::PadLength(header) => {
                    let (header, padding) = (*header, usize::from(rest[0]));
                    rest = &rest[1..];
                    let left = (header.len - 1)
                        .checked_sub(padding)
                        .ok_or(broken("padding longer than its frame"))?;
                    self.state = State::Data {
                        left,
                        padding,
                        end: header.has(flag::END_STREAM),
                    };
                }
                State::Skip(left) => {
                    let len = rest.len().min(*left);
                    *left -= len;
                    rest = &rest[len..];
                }
                State::Payload(header, bytes) => {
                    let len = rest.len().min(header.len - bytes.len());
                    bytes.extend_from_slice(&rest[..len]);
                    rest = &rest[len..];
                }
            }
        }
        Ok(input.len() - rest.len())
    }

    fn next_frame(&mut self) {
        self.state = State::Header([0; frames::HEADER_BYTES], 0);
    }

    /// Decides from a frame's header how its payload is read.
    fn begin(&mut self, header: FrameHeader) -> Result<(), LinkError> {
        if header.len > FRAME_MAX {
            return Err(wrong_size("a frame larger than allowed"));
        }
        if !self.seen_settings && header.kind != kind::SETTINGS {
            return Err(broken("a first frame that is not SETTINGS"));
        }
        match (&self.block, header.kind == kind::CONTINUATION) {
            (None, false) => {}
            (Some(block), true) if block.stream == header.stream => {}
            _ => return Err(broken("a header block that is interrupted or out of place")),
        }
        if header.kind == kind::DATA {
            return self.begin_data(header);
        }
        self.state = match header.kind {
            kind::PUSH_PROMISE => return Err(broken("a pushed stream")),
            kind::PRIORITY if header.len != 5 => return Err(wrong_size("a malformed PRIORITY")),
            kind::HEADERS
            | kind::RST_STREAM
            | kind::SETTINGS
            | kind::PING
            | kind::GOAWAY
            | kind::WINDOW_UPDATE
            | kind::CONTINUATION => {
                if header.len > HEADERS_MAX {
                    return Err(calm("a control frame larger than needed"));
                }
                State::Payload(header, Vec::with_capacity(header.len))
            }
            _ => State::Skip(header.len),
        };
        Ok(())
    }

    fn begin_data(&mut self, header: FrameHeader) -> Result<(), LinkError> {
        if header.stream == 0 || header.stream > self.last_stream.max(self.stream) {
            return Err(broken("data on a stream that is not open"));
        }
        if let Some(increment) = self.connection_window.spend(header.len)? {
            frames::window_update(&mut self.replies, 0, increment);
        }
        if header.stream != self.stream {
            // What was under way on a stream that we have refused.
            self.state = State::Skip(header.len);
            return Ok(());
        }
        if self.ended || self.head.is_none() {
            return Err(broken(
                "data before the headers or after the end of its stream",
            ));
        }
        if let Some(increment) = self.stream_window.spend(header.len)? {
            if !header.has(flag::END_STREAM) {
                frames::window_update(&mut self.replies, self.stream, increment);
            }
        }
        self.state = match (header.has(flag::PADDED), header.len) {
            (true, 0) => return Err(wrong_size("a padded frame without padding")),
            (true, _) => State::PadLength(header),
            (false, left) => State::Data {
                left,
                padding: 0,
                end: header.has(flag::END_STREAM),
            },
        };
        Ok(())
    }

    /// Acts on a whole frame that is not DATA.
    fn control(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), LinkError> {
        match header.kind {
            kind::SETTINGS => self.settings(header, payload)?,
            kind::PING => {
                let payload = payload
                    .try_into()
                    .map_err(|_| wrong_size("a malformed PING"))?;
                if header.stream != 0 {
                    return Err(broken("a PING on a stream"));
                }
                if !header.has(flag::ACK) {
                    frames::ping_ack(&mut self.replies, payload);
                }
            }
            kind::WINDOW_UPDATE => self.window_update(header, payload)?,
            kind::HEADERS => self.begin_block(header, payload)?,
            kind::CONTINUATION => self.continue_block(header, payload)?,
            kind::RST_STREAM => {
                let code = payload
                    .try_into()
                    .map_err(|_| wrong_size("a malformed RST_STREAM"))?;
                if header.stream == 0 {
                    return Err(broken("a reset of the connection's stream"));
                }
                if header.stream == self.stream {
                    let code = u32::from_be_bytes(code);
                    self.reset = Some(PeerError {
                        code,
                        text: String::new(),
                    });
                    self.ended = true;
                }
            }
            kind::GOAWAY => {
                let Some((_, rest)) = payload.split_first_chunk::<4>() else {
                    return Err(wrong_size("a malformed GOAWAY"));
                };
                let Some((code, text)) = rest.split_first_chunk::<4>() else {
                    return Err(wrong_size("a malformed GOAWAY"));
                };
                let text = &text[..text.len().min(GOAWAY_TEXT_MAX)];
                self.goaway = Some(PeerError {
                    code: u32::from_be_bytes(*code),
                    text: printable(&String::from_utf8_lossy(text)),
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn settings(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), LinkError> {
        if header.stream != 0 {
            return Err(broken("SETTINGS on a stream"));
        }
        if header.has(flag::ACK) {
            return match (self.seen_settings, payload.is_empty()) {
                (_, false) => Err(wrong_size("a malformed acknowledgement of SETTINGS")),
                (false, _) => Err(broken("a first frame that is not SETTINGS")),
                (true, true) => Ok(()),
            };
        }
        self.seen_settings = true;
        let entries = payload.chunks_exact(6);
        if !entries.remainder().is_empty() {
            return Err(wrong_size("malformed SETTINGS"));
        }
        for entry in entries {
            let id = u16::from_be_bytes([entry[0], entry[1]]);
            let value = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
            match id {
                setting::INITIAL_WINDOW_SIZE if value > WINDOW_MAX => {
                    let text = "an initial window above 2^31-1";
                    return Err(LinkError::Http2 {
                        code: code::FLOW_CONTROL_ERROR,
                        text,
                    });
                }
                setting::INITIAL_WINDOW_SIZE => {
                    self.allowances.push(Allowance::InitialWindow(value));
                }
                setting::MAX_FRAME_SIZE if !(1 << 14..1 << 24).contains(&value) => {
                    return Err(broken("an impossible frame size"));
                }
                setting::MAX_FRAME_SIZE => {
                    self.allowances.push(Allowance::FrameMax(value as usize));
                }
                setting::ENABLE_PUSH if value > 1 => {
                    return Err(broken("an impossible setting"));
                }
                _ => {}
            }
        }
        frames::settings_ack(&mut self.replies);
        Ok(())
    }

    fn window_update(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), LinkError> {
        let increment: [u8; 4] = payload
            .try_into()
            .map_err(|_| wrong_size("a malformed WINDOW_UPDATE"))?;
        let increment = u32::from_be_bytes(increment) & WINDOW_MAX;
        if increment == 0 {
            return Err(broken("a window update of nothing"));
        }
        if header.stream == 0 {
            self.allowances.push(Allowance::Connection(increment));
        } else if header.stream == self.stream {
            self.allowances.push(Allowance::Stream(increment));
        } else if header.stream > self.last_stream.max(self.stream) {
            return Err(broken("a window update of a stream that is not open"));
        }
        Ok(())
    }

    fn begin_block(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), LinkError> {
        const PRIORITY_BYTES: usize = 5;
        if header.stream.is_multiple_of(2) {
            return Err(broken("headers on a stream that no client can open"));
        }
        let mut fragment = payload;
        if header.has(flag::PADDED) {
            let (padding, rest) = fragment
                .split_first()
                .ok_or(wrong_size("a padded frame without padding"))?;
            let len = rest
                .len()
                .checked_sub(usize::from(*padding))
                .ok_or(broken("padding longer than its frame"))?;
            fragment = &rest[..len];
        }
        if header.has(flag::PRIORITY) {
            fragment = fragment
                .get(PRIORITY_BYTES..)
                .ok_or(wrong_size("headers without their priority"))?;
        }
        self.blocks += 1;
        if self.blocks > BLOCKS_MAX {
            return Err(calm("more header blocks than a call has"));
        }
        let end_stream = header.has(flag::END_STREAM);
        let block = Block {
            stream: header.stream,
            end_stream,
            bytes: fragment.to_vec(),
        };
        self.block = Some(block);
        self.finish_block(header)
    }

    fn continue_block(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), LinkError> {
        if let Some(block) = &mut self.block {
            if block.bytes.len() + payload.len() > HEADERS_MAX {
                return Err(calm("a header block larger than needed"));
            }
            block.bytes.extend_from_slice(payload);
        }
        self.finish_block(header)
    }

    fn finish_block(&mut self, header: FrameHeader) -> Result<(), LinkError> {
        if !header.has(flag::END_HEADERS) {
            return Ok(());
        }
        let Some(block) = self.block.take() else {
            return Ok(());
        };
        let headers = self.decoder.decode(&block.bytes).ok_or(LinkError::Http2 {
            code: code::COMPRESSION_ERROR,
            text: "a malformed header block",
        })?;
        match self.side {
            Side::Server if block.stream > self.last_stream => {
                self.last_stream = block.stream;
                if self.stream != 0 {
                    // One call is what this connection is for.
                    frames::rst_stream(&mut self.replies, block.stream, code::REFUSED_STREAM);
                    return Ok(());
                }
                self.stream = block.stream;
            }
            _ if block.stream == self.stream => {}
            Side::Server => return Ok(()),
            Side::Client => return Err(broken("headers on a stream that is not open")),
        }
        if self.ended {
            return Err(broken("headers after the end of their stream"));
        }
        if self.head.is_none() {
            // An interim response is followed by the real one.
            let interim = self.side == Side::Client
                && headers
                    .status
                    .as_ref()
                    .is_some_and(|status| status.starts_with('1'));
            if !interim {
                self.head = Some(headers);
            }
        } else if block.end_stream {
            self.trailers = Some(headers);
        } else {
            return Err(broken("trailers that do not end their stream"));
        }
        self.ended |= block.end_stream;
        Ok(())
    }
}
