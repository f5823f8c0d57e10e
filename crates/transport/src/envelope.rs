//! The protobuf envelope of a frame.
//!
//! Frames with calls or replies are the hot ones: their few bytes of envelope are written and read
//! here by hand, around a body that is not touched. All others go through the generated messages.

use prost::Message;

use crate::error::LinkError;
use crate::proto::{client_frame, server_frame, Bye, ClientFrame, Ping, Pong, ServerFrame};
use crate::{Hello, Refused, Welcome};

/// The longest envelope of a hot frame: four tags, three numbers and the body's length.
pub const HEAD_MAX: usize = 4 + 3 * VARINT_MAX + 5;
const VARINT_MAX: usize = 10;

const SEQ_TAG: u8 = 1 << 3;
const ACK_TAG: u8 = 2 << 3;
const MORE_TAG: u8 = 14 << 3;
/// `calls` of a client's frame, `replies` of a server's: bytes, number 15.
const BODY_TAG: u8 = 15 << 3 | 2;

/// The envelope of a hot frame whose body of `len` bytes follows, and `more` bytes of it in frames
/// after this one. `out` must be empty.
pub fn encode_head(out: &mut HeadBuffer, seq: u64, ack: u64, more: u64, len: u32) {
    out.tagged(SEQ_TAG, seq);
    if ack != 0 {
        out.tagged(ACK_TAG, ack);
    }
    if more != 0 {
        out.tagged(MORE_TAG, more);
    }
    out.tagged(BODY_TAG, u64::from(len));
}

/// Room for one envelope.
pub struct HeadBuffer {
    bytes: [u8; HEAD_MAX],
    len: usize,
}

impl Default for HeadBuffer {
    fn default() -> HeadBuffer {
        HeadBuffer {
            bytes: [0; HEAD_MAX],
            len: 0,
        }
    }
}

impl HeadBuffer {
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn tagged(&mut self, tag: u8, mut value: u64) {
        self.push(tag);
        while value >= 128 {
            self.push(value as u8 | 128);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }
}

/// What the beginning of a message says.
#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    /// A hot frame; its body begins after `len` bytes.
    Hot {
        len: usize,
        seq: u64,
        ack: u64,
        /// Bytes of the body that follow in other frames.
        more: u64,
        body: usize,
    },
    /// Another frame, to be decoded whole.
    Cold,
    /// More bytes are needed to tell.
    Partial,
}

/// Reads the beginning of a message of `message` bytes, of which `bytes` are there.
pub fn decode_head(bytes: &[u8], message: usize) -> Result<Head, LinkError> {
    const MALFORMED: LinkError = LinkError::Violation("a malformed envelope");
    let (mut seq, mut ack, mut more) = (0, 0, 0);
    let mut rest = bytes;
    loop {
        let used = bytes.len() - rest.len();
        let Some((tag, tail)) = rest.split_first() else {
            return if used == message {
                Ok(Head::Cold)
            } else {
                Ok(Head::Partial)
            };
        };
        if !matches!(*tag, SEQ_TAG | ACK_TAG | MORE_TAG | BODY_TAG) {
            return Ok(Head::Cold);
        }
        let Some((value, len)) = varint(tail)? else {
            return if bytes.len() < message {
                Ok(Head::Partial)
            } else {
                Err(MALFORMED)
            };
        };
        rest = &tail[len..];
        match *tag {
            SEQ_TAG => seq = value,
            ACK_TAG => ack = value,
            MORE_TAG => more = value,
            _ => {
                let len = bytes.len() - rest.len();
                if usize::try_from(value) != Ok(message - len) {
                    return Err(LinkError::Violation(
                        "a body that is not the end of its frame",
                    ));
                }
                return Ok(Head::Hot {
                    len,
                    seq,
                    ack,
                    more,
                    body: message - len,
                });
            }
        }
        if bytes.len() - rest.len() > HEAD_MAX {
            return Err(MALFORMED);
        }
    }
}

/// A varint and its length; `None` if it does not end here.
fn varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, LinkError> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(VARINT_MAX).enumerate() {
        value |= u64::from(byte & 127) << (7 * index);
        if byte & 128 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= VARINT_MAX {
        return Err(LinkError::Violation("a malformed envelope"));
    }
    Ok(None)
}

/// What a frame is about, other than calls and replies.
#[derive(Clone, Debug, PartialEq)]
pub enum Cold {
    Hello(Hello),
    Welcome(Welcome),
    Refused(Refused),
    Ping(u64),
    Pong(u64),
    Bye(String),
    /// A kind of frame that a newer peer may know.
    Unknown,
}

/// A frame that is decoded whole, with its number and acknowledgement.
#[derive(Clone, Debug, PartialEq)]
pub struct ColdFrame {
    pub seq: u64,
    pub ack: u64,
    pub body: Cold,
}

impl ColdFrame {
    /// As the client sends it: kinds that only a server sends become an empty frame.
    pub fn encode_from_client(self) -> Vec<u8> {
        use client_frame::Body;
        let body = match self.body {
            Cold::Hello(hello) => Some(Body::Hello(hello)),
            Cold::Ping(token) => Some(Body::Ping(Ping { token })),
            Cold::Bye(reason) => Some(Body::Bye(Bye { reason })),
            Cold::Welcome(_) | Cold::Refused(_) | Cold::Pong(_) | Cold::Unknown => None,
        };
        ClientFrame {
            seq: self.seq,
            ack: self.ack,
            body,
            more: 0,
        }
        .encode_to_vec()
    }

    /// As the server sends it: kinds that only a client sends become an empty frame.
    pub fn encode_from_server(self) -> Vec<u8> {
        use server_frame::Body;
        let body = match self.body {
            Cold::Welcome(welcome) => Some(Body::Welcome(welcome)),
            Cold::Refused(refused) => Some(Body::Refused(refused)),
            Cold::Pong(token) => Some(Body::Pong(Pong { token })),
            Cold::Bye(reason) => Some(Body::Bye(Bye { reason })),
            Cold::Hello(_) | Cold::Ping(_) | Cold::Unknown => None,
        };
        ServerFrame {
            seq: self.seq,
            ack: self.ack,
            body,
            more: 0,
        }
        .encode_to_vec()
    }

    pub fn decode_from_client(bytes: &[u8]) -> Result<ColdFrame, LinkError> {
        use client_frame::Body;
        let ClientFrame { seq, ack, body, .. } = ClientFrame::decode(bytes).map_err(NOT_A_FRAME)?;
        let body = match body {
            Some(Body::Hello(hello)) => Cold::Hello(hello),
            Some(Body::Ping(Ping { token })) => Cold::Ping(token),
            Some(Body::Bye(Bye { reason })) => Cold::Bye(reason),
            Some(Body::Calls(_)) => return Err(BODY_TOO_EARLY),
            None => Cold::Unknown,
        };
        Ok(ColdFrame { seq, ack, body })
    }

    pub fn decode_from_server(bytes: &[u8]) -> Result<ColdFrame, LinkError> {
        use server_frame::Body;
        let ServerFrame { seq, ack, body, .. } = ServerFrame::decode(bytes).map_err(NOT_A_FRAME)?;
        let body = match body {
            Some(Body::Welcome(welcome)) => Cold::Welcome(welcome),
            Some(Body::Refused(refused)) => Cold::Refused(refused),
            Some(Body::Pong(Pong { token })) => Cold::Pong(token),
            Some(Body::Bye(Bye { reason })) => Cold::Bye(reason),
            Some(Body::Replies(_)) => return Err(BODY_TOO_EARLY),
            None => Cold::Unknown,
        };
        Ok(ColdFrame { seq, ack, body })
    }
}

const NOT_A_FRAME: fn(prost::DecodeError) -> LinkError =
    |_| LinkError::Violation("a message that is no frame");
const BODY_TOO_EARLY: LinkError =
    LinkError::Violation("a frame whose body comes before other fields");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hand_written_head_is_what_the_generated_code_writes() {
        // The generated code writes `more` after the body, which nobody else does.
        let more = 0;
        for (seq, ack, len) in [
            (1, 0, 0),
            (1, 1, 1),
            (127, 128, 127),
            (300, 299, 16_384),
            (u64::MAX, 1 << 40, 5),
        ] {
            let calls = vec![7; len];
            let mut head = HeadBuffer::default();
            encode_head(&mut head, seq, ack, more, len as u32);
            let mut ours = head.as_slice().to_vec();
            ours.extend_from_slice(&calls);
            let body = Some(client_frame::Body::Calls(calls.clone()));
            assert_eq!(
                ours,
                ClientFrame {
                    seq,
                    ack,
                    body,
                    more
                }
                .encode_to_vec()
            );
            let body = Some(server_frame::Body::Replies(calls));
            assert_eq!(
                ours,
                ServerFrame {
                    seq,
                    ack,
                    body,
                    more
                }
                .encode_to_vec()
            );
            let head_len = head.as_slice().len();
            assert_eq!(
                decode_head(&ours, ours.len()),
                Ok(Head::Hot {
                    len: head_len,
                    seq,
                    ack,
                    more,
                    body: len
                })
            );
            for cut in 0..head_len {
                assert_eq!(
                    decode_head(&ours[..cut], ours.len()),
                    Ok(Head::Partial),
                    "{cut}"
                );
            }
        }
    }

    #[test]
    fn a_body_in_several_frames_says_how_much_follows() {
        for more in [1, 127, 128, u64::MAX] {
            let mut head = HeadBuffer::default();
            encode_head(&mut head, u64::MAX, u64::MAX, more, u32::MAX);
            let bytes = head.as_slice();
            assert!(bytes.len() <= HEAD_MAX);
            let body = u32::MAX as usize;
            let found = decode_head(bytes, bytes.len() + body).unwrap();
            let expected = Head::Hot {
                len: bytes.len(),
                seq: u64::MAX,
                ack: u64::MAX,
                more,
                body,
            };
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn every_other_frame_survives() {
        let bodies = [
            Cold::Hello(Hello {
                program: "a".to_owned(),
                ..Hello::current()
            }),
            Cold::Ping(3),
            Cold::Bye("b".to_owned()),
        ];
        for body in bodies {
            let frame = ColdFrame {
                seq: 9,
                ack: 4,
                body,
            };
            let bytes = frame.clone().encode_from_client();
            assert_eq!(decode_head(&bytes, bytes.len()), Ok(Head::Cold));
            assert_eq!(ColdFrame::decode_from_client(&bytes), Ok(frame));
        }
        let bodies = [
            Cold::Welcome(Welcome::default()),
            Cold::Refused(Refused::default()),
        ];
        for body in bodies
            .into_iter()
            .chain([Cold::Pong(1), Cold::Bye(String::new())])
        {
            let frame = ColdFrame {
                seq: 9,
                ack: 4,
                body,
            };
            let bytes = frame.clone().encode_from_server();
            assert_eq!(ColdFrame::decode_from_server(&bytes), Ok(frame));
        }
    }

    #[test]
    fn hostile_envelopes_are_refused() {
        // A length that does not fit the message, and numbers that never end.
        assert!(decode_head(&[BODY_TAG, 5, 0], 3).is_err());
        assert!(decode_head(&[SEQ_TAG; 40], 40).is_err());
        assert!(decode_head(
            &[SEQ_TAG, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255],
            11
        )
        .is_err());
        assert!(decode_head(&[SEQ_TAG, 0x80], 2).is_err());
        // Calls before the sequence number: valid protobuf that no serializer writes.
        let frame = ClientFrame {
            seq: 0,
            ack: 0,
            body: Some(client_frame::Body::Calls(vec![0; 3])),
            more: 0,
        };
        let mut bytes = frame.encode_to_vec();
        bytes.extend([SEQ_TAG, 1]);
        assert!(decode_head(&bytes, bytes.len()).is_err());
        assert!(ColdFrame::decode_from_client(&bytes).is_err());
    }
}
