//! What the server says without being asked: the body of a reply with ticket 0.
//!
//! | type | meaning |
//! |---|---|
//! | u16 | kind: 1 callback |
//! | | the fields of that kind |

use harp_cuda_abi::types::CUresult;

use crate::{DecodeError, Decoder, Encoder};

const CALLBACK: u16 = 1;

/// One push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// A stream has reached the host function that `cuLaunchHostFunc` named `callback`; the stream
    /// goes on when the client has sent `harp_callback_done`. `status` is the stream's.
    Callback { callback: u64, status: CUresult },
}

impl Push {
    pub fn encode(&self, e: &mut Encoder) {
        match *self {
            Push::Callback { callback, status } => {
                e.u16(CALLBACK);
                e.u64(callback);
                e.u32(status);
            }
        }
    }

    /// Reads the body of a push; `None` for one of a kind that a newer server may send.
    pub fn decode(d: &mut Decoder) -> Result<Option<Push>, DecodeError> {
        let push = match d.u16() {
            CALLBACK => Push::Callback {
                callback: d.u64(),
                status: d.u32(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_arrives_as_it_was_sent() {
        let push = Push::Callback {
            callback: 7,
            status: 700,
        };
        let mut e = Encoder::new();
        push.encode(&mut e);
        assert_eq!(
            Push::decode(&mut Decoder::new(e.as_slice())),
            Ok(Some(push))
        );
        let cut = &e.as_slice()[..9];
        assert_eq!(
            Push::decode(&mut Decoder::new(cut)),
            Err(DecodeError::Truncated)
        );
    }

    #[test]
    fn a_push_of_another_kind_is_passed_over() {
        assert_eq!(Push::decode(&mut Decoder::new(&[99, 0, 1, 2, 3])), Ok(None));
        assert_eq!(
            Push::decode(&mut Decoder::new(&[99])),
            Err(DecodeError::Truncated)
        );
    }
}
