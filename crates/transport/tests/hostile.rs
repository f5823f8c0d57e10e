//! Peers that hold a good certificate and send what they like.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{channel, Receiver as Answers};
use std::thread;

use harp_transport::{
    accept_with, connect, AcceptError, FrameKind, Hello, LinkError, Next, Tuning, Wait,
};
use support::frames::*;
use support::{noise, welcome, Authority, TIMEOUT};

/// What became of a session that echoes: the frames it got, and its end.
type Outcome = Result<(usize, Result<(), LinkError>), AcceptError>;

/// A server that echoes one session, and a stock client in front of it.
fn echo(tuning: Tuning) -> (Stream, Answers<Outcome>) {
    let authority = Authority::new("pool");
    let server = authority.server();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (outcome, answers) = channel();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let session = accept_with(stream, &server, TIMEOUT, tuning).and_then(|incoming| {
            let (mut sender, mut receiver) =
                incoming.welcome(welcome()).map_err(AcceptError::Link)?;
            let mut frames = 0;
            let patient = Wait {
                timeout: Some(TIMEOUT),
                ..Wait::default()
            };
            let end = loop {
                match receiver.next(patient) {
                    Ok(Next::Frame(head)) if head.kind == FrameKind::Calls => {
                        let mut body = vec![0; head.len];
                        if let Err(error) = receiver.read(&mut body) {
                            break Err(error);
                        }
                        frames += 1;
                        let _ = sender.send(&[&body]);
                    }
                    Ok(Next::Frame(_)) => {}
                    Ok(Next::Idle) => panic!("nothing for so long"),
                    Ok(Next::Closed) => {
                        let _ = sender.bye();
                        break Ok(());
                    }
                    Err(error) => break Err(error),
                }
            };
            Ok((frames, end))
        });
        let _ = outcome.send(session);
    });
    (stock_tls_client(&authority, &address), answers)
}

/// What a server makes of `bytes` instead of a well-formed opening.
fn opened_with(bytes: &[u8]) -> AcceptError {
    let (mut stream, answers) = echo(Tuning::default());
    say(&mut stream, bytes);
    answers
        .recv_timeout(TIMEOUT)
        .unwrap()
        .expect_err("no session")
}

/// What ends a session in which the client says `bytes` after the welcome.
fn ended_by(bytes: &[u8]) -> LinkError {
    let (mut stream, answers) = echo(Tuning::default());
    say(&mut stream, &opening());
    find(&mut stream, |kind, _| kind == DATA);
    say(&mut stream, bytes);
    answers
        .recv_timeout(TIMEOUT)
        .unwrap()
        .unwrap()
        .1
        .expect_err("a violation")
}

#[test]
fn everything_that_http2_allows_is_understood() {
    let (mut stream, answers) = echo(Tuning::default());
    let block = request();
    let (first, second) = block.split_at(20);
    let mut padded = vec![3, 0, 0, 0, 5, 7];
    padded.extend(first);
    padded.extend([0; 3]);
    let greeting = hello(1);
    let mut padded_data = vec![5];
    padded_data.extend(&greeting[..6]);
    padded_data.extend([0; 5]);
    let parts = [
        PREFACE.to_vec(),
        // Settings that nobody knows, then ones that matter.
        frame(
            SETTINGS,
            0,
            0,
            &[0x77, 0x77, 0, 0, 0, 1, 0, 5, 0, 0, 0x80, 0],
        ),
        frame(0x55, 0xff, 0, b"an unknown frame"),
        frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 9]),
        // Padded headers with a priority, in three frames.
        frame(HEADERS, 0x8 | 0x20, 1, &padded),
        frame(CONTINUATION, 0, 1, &second[..30]),
        frame(CONTINUATION, 0x4, 1, &second[30..]),
        // A second call is refused, its data ignored.
        frame(HEADERS, 0x4, 3, &block),
        frame(DATA, 0x1, 3, &[9; 100]),
        // The hello in two frames, one of them padded, and an empty one.
        frame(DATA, 0x8, 1, &padded_data),
        frame(DATA, 0, 1, &[]),
        frame(DATA, 0, 1, &greeting[6..]),
        frame(WINDOW_UPDATE, 0, 3, &[0, 0, 0, 1]),
        frame(WINDOW_UPDATE, 0, 0, &[0x80, 0, 0, 1]),
        frame(PING, 0, 0, b"are you?"),
        frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    // One byte a record for the worst of splits.
    for byte in parts.concat() {
        say(&mut stream, &[byte]);
    }
    let (flags, payload) = find(&mut stream, |kind, _| kind == PING);
    assert_eq!((flags, payload.as_slice()), (1, &b"are you?"[..]));
    let (_, code) = {
        say(&mut stream, &frame(HEADERS, 0x5, 5, &block));
        find(&mut stream, |kind, id| kind == RST_STREAM && id == 5)
    };
    assert_eq!(code, [0, 0, 0, 7]);
    // Two calls in one frame, the second one cut; then its rest with the end of the stream.
    let both = [calls(2, 0, b"one"), calls(3, 1, b"two")].concat();
    say(&mut stream, &frame(DATA, 0, 1, &both[..17]));
    say(&mut stream, &frame(DATA, 0x1, 1, &both[17..]));
    let mut echoed = Vec::new();
    while !echoed.ends_with(b"two") {
        echoed.extend(find(&mut stream, |kind, id| kind == DATA && id == 1).1);
    }
    let (flags, _) = find(&mut stream, |kind, id| kind == HEADERS && id == 1);
    assert_eq!(flags & 1, 1, "trailers end the stream");
    assert_eq!(answers.recv_timeout(TIMEOUT).unwrap(), Ok((2, Ok(()))));
}

#[test]
fn openings_that_are_none_are_refused() {
    let settings = frame(SETTINGS, 0, 0, &[]);
    let start = [PREFACE, &settings].concat();
    let after = |frame: Vec<u8>| [start.clone(), frame].concat();
    let mut other_path = request();
    let slash = other_path.iter().position(|byte| *byte == b'/').unwrap();
    other_path[slash + 1] = b'X';
    let mut compressed = hello(1);
    compressed[0] = 1;
    let huge = [0, 0xff, 0xff, 0xff, 0xff];
    let with_data = |data: &[u8]| {
        let headers = frame(HEADERS, 0x4, 1, &request());
        after([headers, frame(DATA, 0, 1, data)].concat())
    };
    let cases = [
        (
            "no preface",
            b"GET / HTTP/1.1\r\nHost: pool\r\n\r\n".to_vec(),
        ),
        (
            "no settings",
            [PREFACE, &frame(PING, 0, 0, &[0; 8])].concat(),
        ),
        ("another path", after(frame(HEADERS, 0x4, 1, &other_path))),
        ("an even stream", after(frame(HEADERS, 0x4, 2, &request()))),
        (
            "bad hpack",
            after(frame(HEADERS, 0x4, 1, &[0xff, 0xff, 0xff, 0xff, 0xff])),
        ),
        ("a cut table size", after(frame(HEADERS, 0x4, 1, &[0x3f]))),
        ("no block", after(frame(HEADERS, 0x4, 1, &[]))),
        ("data first", after(frame(DATA, 0, 1, &hello(1)))),
        (
            "an interrupted block",
            after(
                [
                    frame(HEADERS, 0, 1, &request()[..10]),
                    frame(PING, 0, 0, &[0; 8]),
                ]
                .concat(),
            ),
        ),
        (
            "a stray continuation",
            after(frame(CONTINUATION, 0x4, 1, &request())),
        ),
        (
            "an endless block",
            after(
                [
                    frame(HEADERS, 0, 1, &request()),
                    frame(CONTINUATION, 0, 1, &[0; 9000]),
                    frame(CONTINUATION, 0, 1, &[0; 9000]),
                ]
                .concat(),
            ),
        ),
        ("a push", after(frame(PUSH_PROMISE, 0x4, 1, &[0, 0, 0, 2]))),
        (
            "a frame too large",
            after([0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1].to_vec()),
        ),
        ("settings cut", after(frame(SETTINGS, 0, 0, &[0, 4, 0]))),
        (
            "a window too large",
            after(frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0])),
        ),
        (
            "a frame size too small",
            after(frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1])),
        ),
        ("a ping cut", after(frame(PING, 0, 0, &[0; 7]))),
        (
            "a window of nothing",
            after(frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ),
        (
            "a window overflow",
            after(frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        ),
        ("compressed", with_data(&compressed)),
        ("a huge message", with_data(&huge)),
        (
            "a large greeting",
            with_data(&[0, 0, 0x50, 0, 0, 0x1a, 1, 2, 3, 4]),
        ),
        (
            "not protobuf",
            with_data(&message(&[0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1])),
        ),
        ("a wrong number", with_data(&hello(2))),
        (
            "an ack of nothing",
            with_data(&message(&[8, 1, 16, 1, 0x1a, 0])),
        ),
        ("calls first", with_data(&calls(1, 0, b"x"))),
        ("a bye first", with_data(&message(&[8, 1, 0x2a, 0]))),
        ("an empty message", with_data(&[0, 0, 0, 0, 0, 0])),
        (
            "padding too long",
            after(
                [
                    frame(HEADERS, 0x4, 1, &request()),
                    frame(DATA, 0x8, 1, &[4, 0, 0, 0]),
                ]
                .concat(),
            ),
        ),
        (
            "an end without a hello",
            after(frame(HEADERS, 0x5, 1, &request())),
        ),
        (
            "a reset",
            after(
                [
                    frame(HEADERS, 0x4, 1, &request()),
                    frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]),
                ]
                .concat(),
            ),
        ),
    ];
    for (name, bytes) in cases {
        let error = opened_with(&bytes);
        let expected = !matches!(error, AcceptError::TimedOut(_));
        assert!(expected, "{name}: {error}");
    }
}

#[test]
fn violations_end_the_session_with_their_name() {
    let data = |bytes: Vec<u8>| frame(DATA, 0, 1, &bytes);
    let sequence = |expected, received| LinkError::Sequence { expected, received };
    assert_eq!(ended_by(&data(calls(3, 0, b"gap"))), sequence(2, 3));
    assert_eq!(ended_by(&data(calls(1, 0, b"again"))), sequence(2, 1));
    let acks = [calls(2, 1, b""), calls(3, 0, b"")].concat();
    assert!(matches!(ended_by(&data(acks)), LinkError::Violation(_)));
    assert!(matches!(
        ended_by(&data(calls(2, 9, b""))),
        LinkError::Violation(_)
    ));
    assert!(matches!(ended_by(&data(hello(2))), LinkError::Violation(_)));
    let mut wrong_len = calls(2, 1, b"abc");
    let at = wrong_len.len() - 4;
    wrong_len[at] = 2;
    assert!(matches!(
        ended_by(&data(wrong_len)),
        LinkError::Violation(_)
    ));
    let cut = frame(DATA, 0x1, 1, &calls(2, 1, b"abc")[..9]);
    assert!(matches!(ended_by(&cut), LinkError::Violation(_)));
    let cut = frame(DATA, 0x1, 1, &calls(2, 1, b"abc")[..13]);
    assert!(matches!(ended_by(&cut), LinkError::Violation(_)));
    let after_end = [frame(DATA, 0x1, 1, &[]), frame(DATA, 0, 1, &[1])].concat();
    assert!(matches!(
        ended_by(&after_end),
        LinkError::Http2 { code: 1, .. }
    ));
    let reset = frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    assert_eq!(
        ended_by(&reset),
        LinkError::Ended {
            code: 8,
            text: String::new()
        }
    );
}

#[test]
fn more_data_than_the_window_allows_ends_the_session() {
    let tuning = Tuning {
        receive_window: 1000,
        ..Tuning::default()
    };
    let (mut stream, answers) = echo(tuning);
    say(&mut stream, &opening());
    say(&mut stream, &frame(DATA, 0, 1, &[0; 1001]));
    let outcome = answers.recv_timeout(TIMEOUT).unwrap();
    let error = match outcome {
        Ok((_, end)) => end.unwrap_err(),
        Err(AcceptError::Link(error)) => error,
        Err(AcceptError::NotGrpc(text)) => panic!("{text}"),
        Err(other) => panic!("{other}"),
    };
    assert!(matches!(error, LinkError::Http2 { code: 3, .. }), "{error}");
}

#[test]
fn a_peer_that_asks_and_never_reads_is_dropped() {
    let (mut stream, answers) = echo(Tuning::default());
    say(&mut stream, &opening());
    let pings = frame(PING, 0, 0, &[1; 8]).repeat(1000);
    thread::spawn(move || loop {
        if stream.write_all(&pings).is_err() {
            return;
        }
    });
    let outcome = answers.recv_timeout(TIMEOUT).unwrap().unwrap();
    assert!(
        matches!(outcome.1, Err(LinkError::Http2 { code: 11, .. })),
        "{outcome:?}"
    );
}

#[test]
fn new_keys_are_followed_and_asked_for_ones_sent() {
    let (mut stream, answers) = echo(Tuning::default());
    say(&mut stream, &opening());
    find(&mut stream, |kind, _| kind == DATA);
    for seq in 2..30 {
        // rustls asks for new keys of ours with each of its own.
        stream.conn.refresh_traffic_keys().unwrap();
        say(&mut stream, &frame(DATA, 0, 1, &calls(seq, 0, &[seq])));
        let (_, echoed) = find(&mut stream, |kind, _| kind == DATA);
        assert!(echoed.ends_with(&[seq]));
    }
    stream.conn.send_close_notify();
    say(&mut stream, &[]);
    let (frames, end) = answers.recv_timeout(TIMEOUT).unwrap().unwrap();
    assert_eq!(frames, 28);
    assert!(matches!(end, Err(LinkError::Lost(_))), "{end:?}");
}

#[test]
fn key_updates_without_end_are_a_violation() {
    let (mut stream, answers) = echo(Tuning::default());
    say(&mut stream, &opening());
    find(&mut stream, |kind, _| kind == DATA);
    for _ in 0..100 {
        stream.conn.refresh_traffic_keys().unwrap();
    }
    say(&mut stream, &[]);
    let (_, end) = answers.recv_timeout(TIMEOUT).unwrap().unwrap();
    assert!(matches!(end, Err(LinkError::Tls(_))), "{end:?}");
}

/// Bytes of a good session with some of them changed: whatever they become, the server ends.
#[test]
fn no_change_of_bytes_makes_a_server_hang_or_panic() {
    let good = [
        opening(),
        frame(PING, 0, 0, &[1; 8]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 9, 0]),
        frame(DATA, 0, 1, &calls(2, 0, b"some calls")),
        frame(DATA, 0x1, 1, &calls(3, 1, b"more calls")),
    ]
    .concat();
    for seed in 0..60 {
        let mut bytes = good.clone();
        for change in noise(8, seed + 1).chunks(4).take(1 + seed as usize % 2) {
            // Behind the preface, whose every byte counts.
            let room = bytes.len() - PREFACE.len();
            let at = PREFACE.len() + u16::from_le_bytes([change[0], change[1]]) as usize % room;
            match change[2] % 3 {
                0 => bytes[at] ^= change[3].max(1),
                1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at + 1),
            }
        }
        let (mut stream, answers) = echo(Tuning::default());
        say(&mut stream, &bytes);
        stream.conn.send_close_notify();
        say(&mut stream, &[]);
        let _ = stream.sock.shutdown(std::net::Shutdown::Write);
        answers
            .recv_timeout(TIMEOUT)
            .unwrap_or_else(|_| panic!("seed {seed}"))
            .ok();
    }
}

/// Carries a session and changes the bytes that come from the client after the first `before`.
fn meddle(before: usize, change: impl Fn(&mut Vec<u8>) + Send + 'static) -> LinkError {
    let authority = Authority::new("pool");
    let server = authority.server();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let behind = listener.local_addr().unwrap();
    let address = support::listen(move |client| {
        let server = TcpStream::connect(behind).unwrap();
        let (mut from_server, mut to_client) =
            (server.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
        let (mut from_client, mut to_server) = (client, server);
        let mut passed = 0;
        let mut buffer = [0; 4096];
        while let Ok(len) = from_client.read(&mut buffer) {
            let mut bytes = buffer[..len].to_vec();
            if passed > before && len > 0 {
                change(&mut bytes);
            }
            passed += len;
            if len == 0 || bytes.is_empty() || to_server.write_all(&bytes).is_err() {
                let _ = to_server.shutdown(std::net::Shutdown::Both);
                return;
            }
        }
    });
    let (failure, answers) = channel();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let incoming = accept_with(stream, &server, TIMEOUT, Tuning::default()).unwrap();
        let (_sender, mut receiver) = incoming.welcome(welcome()).unwrap();
        let error = loop {
            match receiver.next(Wait::default()) {
                Ok(Next::Frame(head)) => {
                    if let Err(error) = receiver.read(&mut vec![0; head.len]) {
                        break error;
                    }
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(receiver.next(Wait::default()), Err(error.clone()));
        failure.send(error).unwrap();
    });
    let (mut sender, ..) =
        connect(&address, &authority.client(), Hello::current(), TIMEOUT).unwrap();
    let body = noise(100_000, 1);
    while sender.send(&[&body]).is_ok() {}
    answers.recv_timeout(TIMEOUT).unwrap()
}

#[test]
fn changed_or_missing_bytes_on_the_wire_are_noticed() {
    let error = meddle(50_000, |bytes| bytes[0] ^= 1);
    assert!(matches!(error, LinkError::Tls(_)), "{error}");
    let error = meddle(200_000, |bytes| {
        bytes.remove(0);
    });
    assert!(matches!(error, LinkError::Tls(_)), "{error}");
    let error = meddle(200_000, Vec::clear);
    assert!(matches!(error, LinkError::Lost(_)), "{error}");
}
