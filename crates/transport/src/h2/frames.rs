//! HTTP/2 frames as bytes (RFC 9113 sections 4 and 6).

use super::Side;

pub const HEADER_BYTES: usize = 9;

pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

pub mod flag {
    /// Of SETTINGS and PING.
    pub const ACK: u8 = 0x1;
    /// Of DATA and HEADERS.
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

pub mod setting {
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Length of the payload.
    pub len: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl FrameHeader {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> FrameHeader {
        let [high, middle, low, kind, flags, stream @ ..] = *bytes;
        FrameHeader {
            len: u32::from_be_bytes([0, high, middle, low]) as usize,
            kind,
            flags,
            // The first bit is reserved and ignored.
            stream: u32::from_be_bytes(stream) & !(1 << 31),
        }
    }

    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        assert!(self.len < 1 << 24);
        let [_, high, middle, low] = (self.len as u32).to_be_bytes();
        let [a, b, c, d] = self.stream.to_be_bytes();
        [high, middle, low, self.kind, self.flags, a, b, c, d]
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend(
        FrameHeader {
            len: payload.len(),
            kind,
            flags,
            stream,
        }
        .encode(),
    );
    out.extend_from_slice(payload);
}

/// What an end says about itself first. `window` is for the stream, whose peer may use it at once.
pub fn settings(out: &mut Vec<u8>, side: Side, window: u32, frame_max: u32, headers_max: u32) {
    let own = match side {
        Side::Client => (setting::ENABLE_PUSH, 0),
        Side::Server => (setting::MAX_CONCURRENT_STREAMS, 1),
    };
    let entries = [
        own,
        (setting::INITIAL_WINDOW_SIZE, window),
        (setting::MAX_FRAME_SIZE, frame_max),
        (setting::MAX_HEADER_LIST_SIZE, headers_max),
    ];
    let payload: Vec<u8> = entries
        .iter()
        .flat_map(|(id, value)| id.to_be_bytes().into_iter().chain(value.to_be_bytes()))
        .collect();
    frame(out, kind::SETTINGS, 0, 0, &payload);
}

pub fn settings_ack(out: &mut Vec<u8>) {
    frame(out, kind::SETTINGS, flag::ACK, 0, &[]);
}

pub fn ping_ack(out: &mut Vec<u8>, payload: &[u8; 8]) {
    frame(out, kind::PING, flag::ACK, 0, payload);
}

/// `stream` 0 is the connection.
pub fn window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    frame(
        out,
        kind::WINDOW_UPDATE,
        0,
        stream,
        &increment.to_be_bytes(),
    );
}

pub fn rst_stream(out: &mut Vec<u8>, stream: u32, code: u32) {
    frame(out, kind::RST_STREAM, 0, stream, &code.to_be_bytes());
}

pub fn goaway(out: &mut Vec<u8>, last_stream: u32, code: u32, text: &str) {
    let mut payload = Vec::with_capacity(8 + text.len());
    payload.extend(last_stream.to_be_bytes());
    payload.extend(code.to_be_bytes());
    payload.extend_from_slice(text.as_bytes());
    frame(out, kind::GOAWAY, 0, 0, &payload);
}

/// A whole header block in one frame; ours are far below any peer's frame size.
pub fn headers(out: &mut Vec<u8>, stream: u32, block: &[u8], end_stream: bool) {
    let end = if end_stream { flag::END_STREAM } else { 0 };
    frame(out, kind::HEADERS, flag::END_HEADERS | end, stream, block);
}

/// The header of a DATA frame whose `len` bytes follow.
pub fn data_header(stream: u32, len: usize, end_stream: bool) -> [u8; HEADER_BYTES] {
    let flags = if end_stream { flag::END_STREAM } else { 0 };
    FrameHeader {
        len,
        kind: kind::DATA,
        flags,
        stream,
    }
    .encode()
}
