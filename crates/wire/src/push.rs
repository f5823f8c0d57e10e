//! What the server says without being asked: the body of a reply with ticket 0.
//!
//! | type | meaning |
//! |---|---|
//! | u16 | kind: 1 callback, 2 output, 3 event, 4 times |
//! | | the fields of that kind |

use harp_cuda_abi::types::CUresult;

use crate::{DecodeError, Decoder, Encoder};

const CALLBACK: u16 = 1;
const OUTPUT: u16 = 2;
const EVENT: u16 = 3;
const TIMES: u16 = 4;

/// The option of a hello with which a client asks, by `on`, for [`Push::Times`].
pub const TIMES_OPTION: &str = "device_times";
/// The most calls of one [`Push::Times`]; more of them travel in several.
pub const SPANS_MAX: usize = 1024;
const SPAN_BYTES: usize = 24;

/// The most text of one [`Push::Output`]; more of it travels in several.
pub const OUTPUT_MAX: usize = 64 << 10;

/// Where text belongs in the program's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Its standard output: what kernels print.
    Stdout,
    /// Its standard error: failed assertions, and what else the device's library says there.
    Stderr,
}

const STREAMS: [OutputStream; 2] = [OutputStream::Stdout, OutputStream::Stderr];

/// When a call was executed on the device, in nanoseconds of the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The number of the call in the session's stream, from 0.
    pub call: u64,
    pub began: u64,
    pub ended: u64,
}

/// One push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// A stream has reached the host function that `cuLaunchHostFunc` named `callback`; the stream
    /// goes on when the client has sent `harp_callback_done`. `status` is the stream's.
    Callback { callback: u64, status: CUresult },
    /// Text for the program to show, before any reply that follows becomes visible to it.
    Output { stream: OutputStream, text: Vec<u8> },
    /// What `harp_event_watch` called `number` is over: the event has completed, or, where it is not
    /// `over`, the client has to ask what has become of it. It comes before any reply that tells as much.
    Event { number: u64, over: bool },
    /// Calls that the device has executed, told when the server's clock stood at `now`.
    Times { now: u64, spans: Vec<Span> },
}

impl Push {
    pub fn encode(&self, e: &mut Encoder) {
        match self {
            Push::Callback { callback, status } => {
                e.u16(CALLBACK);
                e.u64(*callback);
                e.u32(*status);
            }
            Push::Output { stream, text } => encode_output(e, *stream, text),
            Push::Event { number, over } => {
                e.u16(EVENT);
                e.u64(*number);
                e.u8(u8::from(*over));
            }
            Push::Times { now, spans } => {
                e.u16(TIMES);
                e.u64(*now);
                e.list(spans, |e, span| {
                    e.u64(span.call);
                    e.u64(span.began);
                    e.u64(span.ended);
                });
            }
        }
    }

    /// Whether the body of a push is [`Push::Times`].
    pub fn is_times(body: &[u8]) -> bool {
        body.starts_with(&TIMES.to_le_bytes())
    }

    /// Reads the body of a push; `None` for one of a kind that a newer server may send.
    pub fn decode(d: &mut Decoder) -> Result<Option<Push>, DecodeError> {
        let push = match d.u16() {
            CALLBACK => Push::Callback {
                callback: d.u64(),
                status: d.u32(),
            },
            OUTPUT => {
                let (number, text) = (d.u8(), d.bytes());
                match STREAMS.get(usize::from(number)) {
                    Some(stream) => Push::Output {
                        stream: *stream,
                        text: text.to_vec(),
                    },
                    None => return d.finish().map(|()| None),
                }
            }
            EVENT => Push::Event {
                number: d.u64(),
                over: d.u8() == 1,
            },
            TIMES => Push::Times {
                now: d.u64(),
                spans: d.list(SPAN_BYTES, |d| Span {
                    call: d.u64(),
                    began: d.u64(),
                    ended: d.u64(),
                }),
            },
            _ => {
                return match d.finish() {
                    Ok(()) | Err(DecodeError::TrailingBytes) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        };
        d.finish().map(|()| Some(push))
    }
}

/// The body of a [`Push::Output`], of text that is only borrowed.
pub fn encode_output(e: &mut Encoder, stream: OutputStream, text: &[u8]) {
    e.u16(OUTPUT);
    e.u8(stream as u8);
    e.bytes(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(push: &Push) -> Vec<u8> {
        let mut e = Encoder::new();
        push.encode(&mut e);
        e.into_bytes()
    }

    #[test]
    fn a_push_arrives_as_it_was_sent() {
        let callback = Push::Callback {
            callback: 7,
            status: 700,
        };
        let output = |stream| Push::Output {
            stream,
            text: b"round 1\0\x1b".to_vec(),
        };
        for push in [callback].into_iter().chain(STREAMS.map(output)) {
            let bytes = sent(&push);
            assert_eq!(Push::decode(&mut Decoder::new(&bytes)), Ok(Some(push)));
            for cut in 0..bytes.len() {
                assert_eq!(
                    Push::decode(&mut Decoder::new(&bytes[..cut])),
                    Err(DecodeError::Truncated)
                );
            }
        }
    }

    #[test]
    fn a_push_of_another_kind_is_passed_over() {
        assert_eq!(Push::decode(&mut Decoder::new(&[99, 0, 1, 2, 3])), Ok(None));
        assert_eq!(
            Push::decode(&mut Decoder::new(&[99])),
            Err(DecodeError::Truncated)
        );
        // Text for a stream that this client does not know.
        let mut other = sent(&Push::Output {
            stream: OutputStream::Stderr,
            text: vec![b'x'],
        });
        other[2] = 77;
        assert_eq!(Push::decode(&mut Decoder::new(&other)), Ok(None));
    }
}
