//! The parsers of hostile bytes, without a connection around them: for the fuzz targets, and for a
//! short run of the same with made-up bytes in the tests.

use crate::envelope::{decode_head, ColdFrame, Head, HEAD_MAX};
use crate::error::LinkError;
use crate::grpc::{message_len, PREFIX_BYTES};
use crate::h2::flow::SendFlow;
use crate::h2::reader::Reader;
use crate::h2::Side;
use crate::tls::post_handshake::{read_alert, PostHandshake};
use crate::tls::records::Opener;

const MESSAGE_MAX: usize = 1 << 16;

/// Reads what a peer could send inside TLS. The first byte chooses the side that reads, the second
/// the size of the pieces that the rest comes in.
pub fn read_stream(bytes: &[u8]) {
    let [side, piece, bytes @ ..] = bytes else {
        return;
    };
    let side = if side % 2 == 0 {
        Side::Client
    } else {
        Side::Server
    };
    let mut reader = Reader::new(side, 1 << 20);
    let mut flow = SendFlow::default();
    let mut stream = Vec::new();
    for piece in bytes.chunks(usize::from(*piece) + 1) {
        if read_piece(&mut reader, &mut flow, piece, &mut stream).is_err() {
            break;
        }
    }
    // Windows never grant what they do not have, whatever was said about them.
    let granted = flow.take(usize::MAX);
    assert!(granted < 1 << 24);
    read_messages(side, &stream);
}

fn read_piece(
    reader: &mut Reader,
    flow: &mut SendFlow,
    mut bytes: &[u8],
    stream: &mut Vec<u8>,
) -> Result<(), LinkError> {
    loop {
        bytes = &bytes[reader.read_framing(bytes)?..];
        for allowance in reader.allowances.drain(..) {
            flow.apply(allowance)?;
        }
        let data = reader.data_left().min(bytes.len());
        if data == 0 {
            assert!(bytes.is_empty());
            return Ok(());
        }
        stream.extend_from_slice(&bytes[..data]);
        reader.take_data(data);
        bytes = &bytes[data..];
    }
}

fn read_messages(side: Side, mut stream: &[u8]) {
    while let Some((prefix, rest)) = stream.split_first_chunk::<PREFIX_BYTES>() {
        let Ok(len) = message_len(prefix, MESSAGE_MAX) else {
            return;
        };
        let message = &rest[..len.min(rest.len())];
        match decode_head(&message[..message.len().min(HEAD_MAX)], len) {
            Ok(Head::Hot {
                len: head, body, ..
            }) => assert_eq!(head + body, len),
            Ok(Head::Cold) if side == Side::Server => {
                let _ = ColdFrame::decode_from_client(message);
            }
            Ok(Head::Cold) => {
                let _ = ColdFrame::decode_from_server(message);
            }
            Ok(Head::Partial) | Err(_) => return,
        }
        stream = &rest[message.len()..];
    }
}

/// Reads what a peer could send around and beside the application's data.
pub fn read_records(bytes: &[u8]) {
    if let Ok(Some(record)) = Opener::whole_record(bytes) {
        assert!(record <= bytes.len());
        assert!(Opener::target_bytes(record) < record);
    }
    let _ = read_alert(bytes);
    let mut messages = PostHandshake::default();
    let Some((piece, bytes)) = bytes.split_first() else {
        return;
    };
    for piece in bytes.chunks(usize::from(*piece) + 1) {
        if messages.take(piece).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h2::{frames, PREFACE};
    use crate::{grpc, Hello};

    /// A good client's first bytes, then changes of them without end or sense.
    #[test]
    fn changed_bytes_are_read_without_panic() {
        let hello = crate::envelope::Cold::Hello(Hello::current());
        let frame = ColdFrame {
            seq: 1,
            ack: 0,
            body: hello,
        }
        .encode_from_client();
        let mut good = vec![1, 200];
        good.extend_from_slice(PREFACE);
        frames::settings(&mut good, Side::Client, 70_000, 20_000, 1000);
        frames::headers(&mut good, 1, &grpc::request("pool"), false);
        frames::window_update(&mut good, 0, 5);
        let message = [&grpc::prefix(frame.len() as u32)[..], &frame].concat();
        good.extend(frames::data_header(1, message.len(), false));
        good.extend(message);
        read_stream(&good);

        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize % below
        };
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=random(4) {
                let at = 2 + PREFACE.len() + random(bytes.len() - 2 - PREFACE.len());
                match random(3) {
                    0 => bytes[at] = random(256) as u8,
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, random(256) as u8),
                }
            }
            bytes[1] = random(256) as u8;
            read_stream(&bytes);
            read_records(&bytes[random(bytes.len())..]);
        }
    }
}
