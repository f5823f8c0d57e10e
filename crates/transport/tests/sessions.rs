//! Both ends of a link against each other.

mod support;

use std::thread;
use std::time::Duration;

use harp_transport::{
    FrameHead, FrameKind, Hello, LinkError, Next, Tuning, Version, Wait, VERSION,
};
use support::{handshake, noise, pair, Authority, End, SERVER_NAME, USER};

const PATIENT: Wait = Wait {
    spin: None,
    timeout: Some(support::TIMEOUT),
};

fn body(end: &mut End) -> Vec<u8> {
    match end.receiver.next(PATIENT).unwrap() {
        Next::Frame(FrameHead {
            kind: FrameKind::Calls | FrameKind::Replies,
            len,
        }) => {
            let mut bytes = vec![0; len];
            end.receiver.read(&mut bytes).unwrap();
            bytes
        }
        other => panic!("{other:?} instead of a body"),
    }
}

#[test]
fn both_sides_learn_who_the_other_is() {
    let authority = Authority::new("pool");
    let hello = Hello {
        pid: 7,
        program: "a.out".to_owned(),
        ..Hello::current()
    };
    let (client, server) = handshake(
        &authority.client(),
        &authority.server(),
        hello.clone(),
        (Tuning::default(), Tuning::default()),
    );
    let (_, welcome, info) = client.unwrap();
    assert_eq!(
        (welcome.version, welcome.session.as_str()),
        (Some(VERSION), "s1")
    );
    assert_eq!(welcome.snapshot, b"{}");
    assert_eq!(info.tls_version, "TLSv1.3");
    assert!(info.cipher.starts_with("TLS_"), "{}", info.cipher);
    assert_eq!(info.peer.as_deref(), Some("spiffe://test/session/s1"));
    let (_, seen) = server.unwrap();
    assert_eq!(seen.hello, hello);
    assert_eq!(seen.info.peer.as_deref(), Some(USER));
    assert_eq!(seen.info.cipher, info.cipher);
    assert_eq!(SERVER_NAME, "harp-server");
}

#[test]
fn frames_of_every_size_arrive_whole_in_both_directions() {
    for crews in [[0, 0], [2, 2], [0, 1], [1, 0]] {
        let [client, server] = crews.map(|crew| Tuning {
            crew,
            ..Tuning::default()
        });
        frames_of_every_size(pair(client, server));
    }
}

fn frames_of_every_size((mut client, mut server): (End, End)) {
    let sizes = [
        0,
        1,
        7,
        100,
        2047,
        2048,
        2049,
        16_000,
        16_383,
        16_384,
        16_385,
        32_768,
        65_536,
        262_143,
        262_144,
        262_145,
        300_000,
        1 << 20,
        (5 << 20) + 3,
    ];
    for (index, size) in sizes.into_iter().enumerate() {
        let sent = noise(size, index as u64);
        let (small, large) = sent.split_at(size.min(40 * index));
        thread::scope(|scope| {
            scope.spawn(|| client.sender.send(&[small, &[], large]).unwrap());
            assert!(body(&mut server) == sent, "up, {size}");
        });
        thread::scope(|scope| {
            scope.spawn(|| server.sender.send(&[&sent]).unwrap());
            assert!(body(&mut client) == sent, "down, {size}");
        });
    }
    assert!(client.sender.bytes_sent() > 7 << 20);
    assert!(client.receiver.bytes_received() > 7 << 20);
}

#[test]
fn a_body_may_be_read_in_pieces_or_left_unread() {
    let (mut client, mut server) = pair(Tuning::default(), Tuning::default());
    let sent = noise(200_001, 1);
    for _ in 0..2 {
        client.sender.send(&[&sent]).unwrap();
    }
    client.sender.send(&[b"after"]).unwrap();
    let Next::Frame(head) = server.receiver.next(PATIENT).unwrap() else {
        panic!()
    };
    assert_eq!(head.len, sent.len());
    let mut received = Vec::new();
    for step in [1, 5, 16_384, 20_000, 33_000].into_iter().cycle() {
        let left = server.receiver.body_left();
        if left == 0 {
            break;
        }
        let mut piece = vec![0; step.min(left)];
        server.receiver.read(&mut piece).unwrap();
        received.extend(piece);
    }
    assert!(received == sent);
    let Next::Frame(_) = server.receiver.next(PATIENT).unwrap() else {
        panic!()
    };
    server.receiver.read(&mut [0; 10]).unwrap();
    assert_eq!(body(&mut server), b"after");
    assert!(matches!(
        server.receiver.read(&mut [0]),
        Err(LinkError::Violation(_))
    ));
}

#[test]
fn two_ends_that_write_more_than_the_network_holds_do_not_stand_still() {
    let (mut client, mut server) = pair(Tuning::default(), Tuning::default());
    let up = noise(48 << 20, 1);
    let down = noise(40 << 20, 2);
    // One thread at each end: both write everything before they read anything.
    thread::scope(|scope| {
        scope.spawn(|| {
            server.sender.send(&[&down]).unwrap();
            assert!(body(&mut server) == up);
        });
        client.sender.send(&[&up]).unwrap();
        assert!(body(&mut client) == down);
    });
}

#[test]
fn halves_work_in_threads_of_their_own() {
    let (client, server) = pair(Tuning::default(), Tuning::default());
    let sent = noise(3 << 20, 5);
    thread::scope(|scope| {
        for end in [client, server] {
            let End {
                mut sender,
                mut receiver,
            } = end;
            let sent = &sent;
            scope.spawn(move || {
                for round in 0..30 {
                    sender
                        .send(&[&[round], &sent[..round as usize * 100_000]])
                        .unwrap();
                }
            });
            scope.spawn(move || {
                for round in 0..30 {
                    let Next::Frame(head) = receiver.next(PATIENT).unwrap() else {
                        panic!()
                    };
                    let mut bytes = vec![0; head.len];
                    receiver.read(&mut bytes).unwrap();
                    assert_eq!(bytes[0], round);
                    assert!(bytes[1..] == sent[..round as usize * 100_000]);
                }
            });
        }
    });
}

#[test]
fn tiny_windows_and_frames_only_slow_things_down() {
    let tiny = Tuning {
        receive_window: 100,
        frame_payload: 1000,
        ..Tuning::default()
    };
    for (client, server) in [(tiny.clone(), Tuning::default()), (tiny.clone(), tiny)] {
        let (mut client, mut server) = pair(client, server);
        let sent = noise(30_000, 3);
        thread::scope(|scope| {
            scope.spawn(|| {
                server.sender.send(&[&sent]).unwrap();
                assert!(body(&mut server) == sent);
            });
            client.sender.send(&[&sent]).unwrap();
            assert!(body(&mut client) == sent);
        });
    }
}

/// Everything that wakes or blocks a half, at once: a lost wake-up would hang this.
#[test]
fn four_threads_with_closed_windows_and_a_full_inbox_go_on() {
    let narrow = Tuning {
        spin: Duration::ZERO,
        inbox_limit: 3000,
        receive_window: 2000,
        frame_payload: 900,
        records_per_key: 5,
        ..Tuning::default()
    };
    let (client, server) = pair(narrow.clone(), narrow);
    let sent = noise(70_000, 6);
    thread::scope(|scope| {
        for (pings, end) in [(true, client), (false, server)] {
            let End {
                mut sender,
                mut receiver,
            } = end;
            let sent = &sent;
            scope.spawn(move || {
                for round in 0..60 {
                    if pings {
                        sender.ping(round).unwrap();
                    }
                    sender.send(&[&sent[..round as usize * 349]]).unwrap();
                }
            });
            scope.spawn(move || {
                let (mut bodies, mut pongs) = (0, 0);
                while bodies < 60 || (pings && pongs < 60) {
                    match receiver.next(PATIENT).unwrap() {
                        Next::Frame(FrameHead {
                            kind: FrameKind::Pong(token),
                            ..
                        }) => {
                            assert_eq!(token, pongs);
                            pongs += 1;
                        }
                        Next::Frame(head) => {
                            assert_eq!(head.len, bodies * 349);
                            let mut body = vec![0; head.len];
                            receiver.read(&mut body).unwrap();
                            assert!(body == sent[..head.len]);
                            bodies += 1;
                        }
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
}

#[test]
fn keys_are_renewed_on_the_way() {
    let often = Tuning {
        records_per_key: 3,
        ..Tuning::default()
    };
    let (mut client, mut server) = pair(often.clone(), often);
    let sent = noise(3 << 20, 4);
    for _ in 0..3 {
        thread::scope(|scope| {
            scope.spawn(|| {
                server.sender.send(&[&sent]).unwrap();
                assert!(body(&mut server) == sent);
            });
            client.sender.send(&[&sent]).unwrap();
            assert!(body(&mut client) == sent);
        });
    }
    for round in 0..20u8 {
        client.sender.send(&[&[round]]).unwrap();
        assert_eq!(body(&mut server), [round]);
    }
}

#[test]
fn waiting_is_bounded_and_looking_does_not_wait() {
    let (mut client, mut server) = pair(Tuning::default(), Tuning::default());
    let look = Wait {
        spin: None,
        timeout: Some(Duration::ZERO),
    };
    assert_eq!(client.receiver.next(look), Ok(Next::Idle));
    assert!(!client.receiver.readable_now());
    let short = Wait {
        spin: None,
        timeout: Some(Duration::from_millis(20)),
    };
    assert_eq!(client.receiver.next(short), Ok(Next::Idle));
    server.sender.send(&[b"x"]).unwrap();
    while !client.receiver.readable_now() {
        thread::yield_now();
    }
    assert_eq!(body(&mut client), b"x");
}

#[test]
fn pings_are_answered_by_whoever_reads() {
    let (mut client, mut server) = pair(Tuning::default(), Tuning::default());
    client.sender.ping(42).unwrap();
    client.sender.send(&[b"call"]).unwrap();
    assert_eq!(body(&mut server), b"call");
    let pong = FrameHead {
        kind: FrameKind::Pong(42),
        len: 0,
    };
    assert_eq!(client.receiver.next(PATIENT), Ok(Next::Frame(pong)));
    server.sender.send(&[b"reply"]).unwrap();
    assert_eq!(body(&mut client), b"reply");
}

#[test]
fn goodbyes_arrive_in_either_order() {
    for client_first in [true, false] {
        let (mut client, mut server) = pair(Tuning::default(), Tuning::default());
        let ends = if client_first {
            [&mut client, &mut server]
        } else {
            [&mut server, &mut client]
        };
        let [first, second] = ends;
        first.sender.send(&[b"last words"]).unwrap();
        first.sender.bye_because("done").unwrap();
        assert!(first.sender.send(&[b"more"]).is_err());
        assert_eq!(body(second), b"last words");
        let bye = FrameHead {
            kind: FrameKind::Bye("done".to_owned()),
            len: 0,
        };
        assert_eq!(second.receiver.next(PATIENT), Ok(Next::Frame(bye)));
        assert_eq!(second.receiver.next(PATIENT), Ok(Next::Closed));
        assert_eq!(second.receiver.next(PATIENT), Ok(Next::Closed));
        second
            .sender
            .bye()
            .unwrap_or_else(|error| assert!(!client_first, "{error}"));
    }
}

#[test]
fn an_end_that_dies_is_noticed_by_both_halves() {
    let (mut client, server) = pair(Tuning::default(), Tuning::default());
    drop(server);
    let error = client.receiver.next(PATIENT).unwrap_err();
    assert!(matches!(error, LinkError::Lost(_)), "{error:?}");
    assert_eq!(client.receiver.next(PATIENT), Err(error.clone()));
    let sending = client.sender.send(&[b"x"]).unwrap_err();
    assert_eq!(sending.downcast::<LinkError>().unwrap(), error);
}

#[test]
fn a_peer_that_takes_nothing_is_given_up_on() {
    let small = Tuning {
        inbox_limit: 1 << 20,
        ..Tuning::default()
    };
    let (mut client, _server) = pair(small.clone(), small);
    client.sender.set_send_timeout(Duration::from_millis(50));
    let body = vec![0; 1 << 20];
    let error = loop {
        if let Err(error) = client.sender.send(&[&body]) {
            break error;
        }
    };
    assert_eq!(error.downcast::<LinkError>().unwrap(), LinkError::TimedOut);
}

#[test]
fn other_versions_are_refused_with_both_numbers() {
    let authority = Authority::new("pool");
    let other = Version {
        major: VERSION.major + 1,
        minor: 0,
    };
    let hello = Hello {
        version: Some(other),
        ..Hello::current()
    };
    let tuning = (Tuning::default(), Tuning::default());
    let (client, server) = handshake(&authority.client(), &authority.server(), hello, tuning);
    let client = client.err().unwrap();
    assert_eq!(
        client,
        harp_transport::ConnectError::VersionRefused {
            client: other,
            server: VERSION
        }
    );
    let text = client.to_string();
    assert!(
        text.contains(&other.to_string()) && text.contains(&VERSION.to_string()),
        "{text}"
    );
    assert_eq!(
        server.err().unwrap(),
        harp_transport::AcceptError::VersionRefused {
            client: other,
            server: VERSION
        }
    );
}
