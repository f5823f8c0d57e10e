//! The parsers of hostile bytes, without a connection around them: for the fuzz targets, and for a
//! short run of the same with made-up bytes in the tests.

use std::sync::Mutex;
use std::time::Duration;

use crate::envelope::{decode_head, Cold, ColdFrame, Head, HEAD_MAX};
use crate::error::LinkError;
use crate::grpc::{message_len, PREFIX_BYTES};
use crate::h2::flow::SendFlow;
use crate::h2::reader::Reader;
use crate::h2::Side;
use crate::link::retained::Retained;
use crate::proto::Resume;
use crate::server::Kept;
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

/// Reads what a client could greet a session with that it wants to resume: a message. It gets in with
/// the session's token alone, and is then sent again what it lacks, if all of that is kept.
pub fn read_greeting(message: &[u8]) {
    let head = decode_head(&message[..message.len().min(HEAD_MAX)], message.len());
    let (Ok(Head::Cold), Ok(frame)) = (head, ColdFrame::decode_from_client(message)) else {
        return;
    };
    let Cold::Hello(hello) = frame.body else {
        return;
    };
    let kept = kept();
    let user = kept.peer.as_deref();
    assert!(kept.admits(&hello, None).is_err());
    assert!(kept
        .admits(&hello, Some("spiffe://pool/tenant/t/user/v"))
        .is_err());
    let shows = |resume: &Resume| resume.token == TOKEN && resume.session == SESSION;
    assert_eq!(
        kept.admits(&hello, user).is_ok(),
        hello.resume.as_ref().is_some_and(shows)
    );
    let mut retained = Retained::after(FORGOTTEN);
    for number in FORGOTTEN + 1..=SENT {
        match number % 3 {
            0 => retained.keep_cold(Cold::Pong(number)).expect("room"),
            _ => retained.keep(&[&number.to_le_bytes()], None, 0),
        }
    }
    let continues = (FORGOTTEN..=SENT).contains(&frame.ack);
    assert_eq!(retained.continues(frame.ack), continues);
    if continues {
        retained.forget(frame.ack);
        let again: Vec<u64> = retained.frames().map(|(number, ..)| number).collect();
        assert!(again.into_iter().eq(frame.ack + 1..=SENT));
        for (number, _, body) in retained.frames().filter(|(number, ..)| number % 3 != 0) {
            assert_eq!(body.concat(), number.to_le_bytes());
        }
    }
}

const SESSION: &str = "0123456789abcdef";
const TOKEN: [u8; 32] = *b"a token that nobody can guess ..";
/// Frames that a client has acknowledged, and that were sent to it.
const FORGOTTEN: u64 = 120;
const SENT: u64 = 140;

fn kept() -> Kept {
    Kept {
        session: SESSION.to_owned(),
        token: TOKEN.to_vec(),
        peer: Some("spiffe://pool/tenant/t/user/u".to_owned()),
        grace: Duration::ZERO,
        turn: Mutex::default(),
    }
}

#[cfg(test)]
mod tests {
    use harp_mutation::smoke::Smoke;

    use super::*;
    use crate::h2::{frames, PREFACE};
    use crate::{grpc, Hello};

    fn hello(seq: u64, ack: u64, resume: Option<Resume>) -> Vec<u8> {
        let body = Cold::Hello(Hello {
            program: "a".to_owned(),
            resume,
            ..Hello::current()
        });
        ColdFrame { seq, ack, body }.encode_from_client()
    }

    /// A good client's first bytes, then changes of them without end or sense. One test: the watch
    /// on an input is on one at a time.
    #[test]
    fn changed_bytes_are_read_without_panic() {
        let mut opening = Vec::new();
        frames::settings(&mut opening, Side::Client, 70_000, 20_000, 1000);
        frames::headers(&mut opening, 1, &grpc::request("pool"), false);
        frames::window_update(&mut opening, 0, 5);
        let frame = hello(1, 0, None);
        let message = [&grpc::prefix(frame.len() as u32)[..], &frame].concat();
        opening.extend(frames::data_header(1, message.len(), false));
        opening.extend(message);
        let smoke = |name, seeds, longest| Smoke {
            name,
            seeds,
            runs: 100_000,
            longest,
        };
        smoke("stream", vec![opening.clone()], 1 << 10).run(|bytes| {
            let size = bytes.last().copied().unwrap_or_default();
            read_stream(&[&[1, size], PREFACE, bytes].concat());
        });
        smoke("records", vec![opening], 1 << 10).run(read_records);

        let session = SESSION.to_owned();
        let token = TOKEN.to_vec();
        let right = Resume { session, token };
        let greetings = vec![
            hello(0, FORGOTTEN, Some(right.clone())),
            hello(0, SENT, Some(right.clone())),
            hello(1, 0, Some(right)),
            hello(0, 125, Some(Resume::default())),
        ];
        smoke("greeting", greetings, 200).run(read_greeting);
    }
}
