//! HTTP/2 (RFC 9113) for one stream of one connection: what gRPC needs, against any stock peer.
//!
//! Nothing here does input or output: [`reader::Reader`] is fed opened bytes and says which of them
//! are the stream's, and [`flow::SendFlow`] says how many of ours may leave.

pub mod flow;
pub mod frames;
pub mod headers;
pub mod reader;

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The window of a connection and of a stream before anything else is agreed.
pub const INITIAL_WINDOW: u32 = 65_535;
/// The largest window there can be.
pub const WINDOW_MAX: u32 = (1 << 31) - 1;
/// The largest frame payload before anything else is agreed.
pub const INITIAL_FRAME: usize = 1 << 14;

/// Error codes (RFC 9113 section 7) that we send.
pub mod code {
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}
