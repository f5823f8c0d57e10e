//! Sessions whose connections break: everything arrives, once and in order, or both ends are told.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use harp_transport::proto::Resume;
use harp_transport::{
    connect, ClientConfig, ConnectError, FrameHead, FrameKind, Hello, Keeper, LinkError, Next,
    Observed, Observer, Receiver, Resuming, Sender, Tuning, Version, Wait, VERSION,
};
use support::weather::{Plan, Random, Session, Share, ENDLESS};
use support::{noise, End, TIMEOUT, USER};

const PATIENT: Wait = Wait {
    spin: None,
    timeout: Some(TIMEOUT),
};

fn send_all(sender: &mut Sender, random: &mut Random, noise: &[u8], frames: usize) {
    for index in 0..frames {
        let len = size(random, noise.len());
        let (first, second) = noise[..len].split_at(random.below(len + 1));
        sender.send(&[&[index as u8], first, second]).unwrap();
    }
}

fn receive_all(receiver: &mut Receiver, random: &mut Random, noise: &[u8], frames: usize) {
    for index in 0..frames {
        let len = size(random, noise.len());
        random.below(len + 1);
        let head = match receiver.next(PATIENT).unwrap() {
            Next::Frame(head) => head,
            other => panic!("{other:?} instead of frame {index}"),
        };
        assert_eq!(head.len, len + 1, "frame {index}");
        let mut body = vec![0; head.len];
        let (first, second) = body.split_at_mut(len / 3);
        receiver.read(first).unwrap();
        receiver.read(second).unwrap();
        assert_eq!(body[0], index as u8);
        assert!(body[1..] == noise[..len], "frame {index}");
    }
}

/// Mostly small, now and then long.
fn size(random: &mut Random, max: usize) -> usize {
    match random.below(4) {
        0 => random.below(max),
        1 => random.below(max / 10),
        _ => random.below(200),
    }
}

/// Both ends send and receive at once, then say goodbye.
fn exchange(session: Session, seed: u64, frames: usize) -> usize {
    let (up, down) = (noise(60_000, seed), noise(50_000, seed + 1));
    let (going_up, going_down) = (Random::new(seed + 2), Random::new(seed + 3));
    let Session {
        client,
        server,
        weather,
        ..
    } = session;
    let (mut client, mut server) = (client, server);
    let keeper = client.sender.keeper();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // A client that has sent everything and wants nothing would not notice a break.
        scope.spawn(|| tend_until(&keeper, &done));
        let (mut sends, mut receives) = (going_up.clone(), going_down.clone());
        let (up, down, sender) = (&up, &down, &mut client.sender);
        scope.spawn(move || send_all(sender, &mut sends, up, frames));
        let receiver = &mut client.receiver;
        scope.spawn(move || receive_all(receiver, &mut receives, down, frames));
        let (mut sends, mut receives) = (going_down.clone(), going_up.clone());
        let (sender, receiver) = (&mut server.sender, &mut server.receiver);
        scope.spawn(move || send_all(sender, &mut sends, down, frames));
        let _ended = EndsWith(&done);
        receive_all(receiver, &mut receives, up, frames);
    });
    client.sender.bye_because("done").unwrap();
    let bye = FrameHead {
        kind: FrameKind::Bye("done".to_owned()),
        len: 0,
    };
    // A cut may take the goodbye too.
    let arrived = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| tend_until(&keeper, &arrived));
        let _ended = EndsWith(&arrived);
        assert_eq!(server.receiver.next(PATIENT), Ok(Next::Frame(bye)));
    });
    weather.cuts.load(Ordering::SeqCst)
}

fn tend_until(keeper: &Keeper, done: &AtomicBool) {
    while !done.load(Ordering::SeqCst) {
        keeper.tend();
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sets its flag however its thread ends.
struct EndsWith<'a>(&'a AtomicBool);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Little is kept and bodies go in many pieces, so that every cut falls on something interesting.
fn narrow() -> Tuning {
    Tuning {
        piece_max: 3000,
        retained_max: 30_000,
        spin: Duration::ZERO,
        ..Tuning::default()
    }
}

/// Shares of which some end within the handshake, some while things are sent again, and some far
/// on.
fn shares(seed: u64) -> impl FnMut(usize) -> Share + Send {
    let mut random = Random::new(seed);
    move |connection| {
        let mut share = || match random.below(4) {
            0 => 1 + random.below(6000),
            1 => 4000 + random.below(20_000),
            _ => 5000 + random.below(80_000),
        };
        match connection {
            0 => [20_000 + share(), 20_000 + share()],
            _ => [share(), share()],
        }
    }
}

#[test]
fn cuts_anywhere_lose_nothing_and_repeat_nothing() {
    let mut cuts = 0;
    for seed in 1..=12 {
        let session = Plan::new(narrow()).connect(shares(seed));
        cuts += exchange(session, seed, 200);
    }
    assert!(cuts >= 1000, "{cuts} cuts");
}

/// What happens to a link, in words.
fn diary() -> (Arc<Mutex<Vec<String>>>, Observer) {
    let diary: Arc<Mutex<Vec<String>>> = Arc::default();
    let pages = diary.clone();
    let observer: Observer = Arc::new(move |what| {
        let text = match what {
            Observed::Silent(_) => "silent".to_owned(),
            Observed::Heard => "heard".to_owned(),
            Observed::Interrupted(cause) => format!("interrupted: {cause}"),
            Observed::Waiting { cause, .. } => format!("waiting: {cause}"),
            Observed::Resumed(_) => "resumed".to_owned(),
        };
        pages.lock().unwrap().push(text);
    });
    (diary, observer)
}

fn body(end: &mut End) -> Vec<u8> {
    match end.receiver.next(PATIENT).unwrap() {
        Next::Frame(head) => {
            let mut bytes = vec![0; head.len];
            end.receiver.read(&mut bytes).unwrap();
            bytes
        }
        other => panic!("{other:?} instead of a body"),
    }
}

#[test]
fn a_long_body_goes_on_in_its_middle_and_is_bounded_in_memory() {
    long_bodies_are_cut(Tuning {
        piece_max: 1 << 16,
        retained_max: 1 << 20,
        ..Tuning::default()
    });
}

#[test]
fn what_a_crew_seals_and_opens_goes_on_in_its_middle_too() {
    long_bodies_are_cut(Tuning {
        crew: 2,
        ..Tuning::default()
    });
}

fn long_bodies_are_cut(tuning: Tuning) {
    let session = Plan::new(tuning).connect(|_| [1_700_001, 1_900_001]);
    let Session {
        mut client,
        mut server,
        weather,
        ..
    } = session;
    let (up, down) = (noise(12 << 20, 1), noise(9 << 20, 2));
    // One thread at each end: both write everything before they read anything.
    thread::scope(|scope| {
        let serving = scope.spawn(|| {
            server.sender.send(&[&down]).unwrap();
            assert!(body(&mut server) == up);
        });
        let keeper = client.sender.keeper();
        client.sender.send(&[b"", &up[..5], &up[5..]]).unwrap();
        assert!(body(&mut client) == down);
        while !serving.is_finished() {
            keeper.tend();
            thread::sleep(Duration::from_millis(5));
        }
    });
    assert!(weather.cuts.load(Ordering::SeqCst) >= 6);
}

#[test]
fn memory_that_was_lent_may_change_when_the_loan_has_ended() {
    const FRAMES: usize = 40;
    const BYTES: usize = 200_000;
    let session = Plan::new(Tuning::default()).connect(|_| [700_001, 900_001]);
    let Session {
        mut client,
        mut server,
        weather,
        ..
    } = session;
    let (up, down) = (noise(FRAMES * BYTES, 1), noise(FRAMES * BYTES, 2));
    thread::scope(|scope| {
        let (up, down) = (&up, &down);
        scope.spawn(move || {
            for (sent, due) in down.chunks(BYTES).zip(up.chunks(BYTES)) {
                let buffer = Box::new(sent[1..].to_vec());
                server.sender.send_buffer(&[&sent[..1]], buffer).unwrap();
                assert!(body(&mut server) == due);
            }
        });
        for (sent, due) in up.chunks(4 * BYTES).zip(down.chunks(4 * BYTES)) {
            let mut memory = sent.to_vec();
            let loan = client.sender.loan();
            for part in memory.chunks(BYTES) {
                // SAFETY: the loan ends before the memory changes.
                unsafe { client.sender.send_lent(&[&[], part], &loan) }.unwrap();
            }
            drop(loan);
            memory.fill(0);
            due.chunks(BYTES)
                .for_each(|due| assert!(body(&mut client) == due));
        }
    });
    assert!(weather.cuts.load(Ordering::SeqCst) >= 12);
}

#[test]
fn a_silent_connection_is_left_for_another() {
    let (client_diary, observer) = diary();
    let tuning = Tuning {
        ask_after: Duration::from_millis(30),
        tell_after: Duration::from_millis(30),
        give_up_after: Duration::from_millis(900),
        ..Tuning::default()
    };
    let mut plan = Plan::new(tuning);
    plan.resuming.observer = observer;
    let mut session = plan.connect(|_| ENDLESS);
    let (client, server) = (&mut session.client, &mut session.server);
    client.sender.send(&[b"before"]).unwrap();
    assert_eq!(body(server), b"before");
    // Nobody at all is told of this.
    session.weather.still.store(true, Ordering::SeqCst);
    client.sender.send(&[b"into the void"]).unwrap();
    let weather = session.weather.clone();
    let pages = client_diary.clone();
    let healer = thread::spawn(move || {
        while !pages
            .lock()
            .unwrap()
            .iter()
            .any(|page| page.starts_with("interrupted"))
        {
            thread::sleep(Duration::from_millis(5));
        }
        weather.still.store(false, Ordering::SeqCst);
        weather.cut_now.store(true, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(50));
        weather.cut_now.store(false, Ordering::SeqCst);
    });
    thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(body(server), b"into the void");
            server.sender.send(&[b"answer"]).unwrap();
        });
        assert_eq!(body(client), b"answer");
    });
    healer.join().unwrap();
    // The link goes on before its observer hears of that.
    let deadline = Instant::now() + TIMEOUT;
    let last = || client_diary.lock().unwrap().last().cloned();
    while last().as_deref() != Some("resumed") && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let pages = client_diary.lock().unwrap();
    assert_eq!(pages[0], "silent");
    let cause = "interrupted: the connection was lost: no sign of the peer";
    assert!(pages[1].starts_with(cause), "{pages:?}");
    assert_eq!(pages.last().unwrap(), "resumed");
}

#[test]
fn a_peer_that_is_busy_and_alive_is_waited_for() {
    let tuning = Tuning {
        ask_after: Duration::from_millis(20),
        tell_after: Duration::from_millis(20),
        give_up_after: Duration::from_secs(20),
        ..Tuning::default()
    };
    let (pages, observer) = diary();
    let mut plan = Plan::new(tuning);
    plan.resuming.observer = observer;
    let mut session = plan.connect(|_| ENDLESS);
    session.client.sender.send(&[b"call"]).unwrap();
    thread::scope(|scope| {
        let (server, keeper) = (&mut session.server, &session.keeper);
        scope.spawn(move || {
            assert_eq!(body(server), b"call");
            // It executes, and reads nothing; somebody looks after its connection.
            for _ in 0..200 {
                thread::sleep(Duration::from_millis(5));
                keeper.tend();
            }
            server.sender.send(&[b"reply"]).unwrap();
        });
        assert_eq!(body(&mut session.client), b"reply");
    });
    let pages = pages.lock().unwrap();
    assert!(
        !pages.iter().any(|page| page.starts_with("interrupted")),
        "{pages:?}"
    );
}

#[test]
fn a_session_is_kept_for_its_grace_and_no_longer() {
    let grace = Duration::from_millis(400);
    let mut plan = Plan::new(Tuning::default());
    plan.keeping.grace = grace;
    let session = plan.connect(|_| ENDLESS);
    let Session {
        mut client,
        mut server,
        weather,
        keeper,
        ..
    } = session;
    weather.refuses.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    weather.cut_now.store(true, Ordering::SeqCst);
    let error = server.receiver.next(PATIENT).unwrap_err();
    assert!(begun.elapsed() >= grace, "{:?}", begun.elapsed());
    assert_eq!(
        error.to_string(),
        "the connection was lost: reset by the peer, and not resumed within 0.4 s"
    );
    assert_eq!(keeper.end(), Some(error));
    assert!(server.sender.send(&[b"x"]).is_err());
    // The client was told of the grace, and gives up as well.
    let error = client.receiver.next(PATIENT).unwrap_err();
    assert!(matches!(error, LinkError::NotResumed(_)), "{error:?}");
    assert!(
        error.to_string().contains("not resumed within 0.4 s"),
        "{error}"
    );
}

#[test]
fn a_client_has_a_limit_of_its_own() {
    let mut plan = Plan::new(Tuning::default());
    plan.resuming = Resuming {
        limit: Duration::ZERO,
        ..Resuming::default()
    };
    let mut session = plan.connect(|_| ENDLESS);
    session.weather.refuses.store(true, Ordering::SeqCst);
    session.weather.cut_now.store(true, Ordering::SeqCst);
    let error = session.client.receiver.next(PATIENT).unwrap_err();
    assert!(matches!(error, LinkError::NotResumed(_)), "{error:?}");
}

#[test]
fn a_client_that_may_start_no_thread_says_so() {
    let mut plan = Plan::new(Tuning::default());
    plan.resuming.start_thread = |name, _| {
        assert_eq!(name, "harp-resume");
        Err(std::io::Error::from_raw_os_error(libc::EAGAIN))
    };
    let mut session = plan.connect(|_| ENDLESS);
    session.weather.cut_now.store(true, Ordering::SeqCst);
    let error = session.client.receiver.next(PATIENT).unwrap_err();
    assert!(
        error.to_string().contains("no thread can be started"),
        "{error}"
    );
}

#[test]
fn a_client_connects_anew_with_the_credentials_of_then() {
    let asked = Arc::new(AtomicBool::new(false));
    let mut plan = Plan::new(Tuning::default());
    plan.resuming.refresh = Arc::new({
        let asked = asked.clone();
        move |begun_with| {
            asked.store(true, Ordering::SeqCst);
            ClientConfig {
                key_pem: "no key".to_owned(),
                ..begun_with.clone()
            }
        }
    });
    let mut session = plan.connect(|_| ENDLESS);
    assert!(!asked.load(Ordering::SeqCst));
    session.weather.cut_now.store(true, Ordering::SeqCst);
    let error = session.client.receiver.next(PATIENT).unwrap_err();
    assert!(asked.load(Ordering::SeqCst));
    assert!(matches!(error, LinkError::NotResumed(_)), "{error:?}");
}

#[test]
fn a_session_that_has_ended_is_refused_at_once() {
    let mut session = Plan::new(Tuning::default()).connect(|_| ENDLESS);
    session.weather.refuses.store(true, Ordering::SeqCst);
    session.weather.cut_now.store(true, Ordering::SeqCst);
    thread::sleep(Duration::from_millis(50));
    session.weather.cut_now.store(false, Ordering::SeqCst);
    session
        .server
        .sender
        .set_send_timeout(Duration::from_millis(1));
    while session.server.sender.send(&[b"x"]).is_ok() {}
    assert!(session.keeper.end().is_some());
    session.weather.refuses.store(false, Ordering::SeqCst);
    let error = session.client.receiver.next(PATIENT).unwrap_err();
    assert_eq!(
        error,
        LinkError::SessionLost("it has just ended".to_owned())
    );
}

#[test]
fn an_older_neighbour_gets_a_session_that_ends_with_its_connection() {
    let mut plan = Plan::new(Tuning::default());
    plan.hello.version = Some(Version {
        minor: VERSION.minor - 1,
        ..VERSION
    });
    let mut session = plan.connect(|_| ENDLESS);
    let long = noise(3 << 20, 1);
    thread::scope(|scope| {
        scope.spawn(|| session.client.sender.send(&[&long]).unwrap());
        assert!(body(&mut session.server) == long);
    });
    assert!(!session.keeper.is_resumable());
    assert!(!session.client.sender.keeper().is_resumable());
    session.weather.cut_now.store(true, Ordering::SeqCst);
    for end in [session.client, session.server] {
        let End { mut receiver, .. } = end;
        let error = receiver.next(PATIENT).unwrap_err();
        assert!(matches!(error, LinkError::Lost(_)), "{error:?}");
    }
}

/// A client of the pool that shows this to resume the session at `address`.
fn come_back(session: &Session, user: &str, token: Vec<u8>) -> ConnectError {
    let (cert_pem, key_pem) = session.authority.issue(&[], &[user], |_| {});
    let config = ClientConfig {
        ca_pem: session.authority.pem(),
        cert_pem,
        key_pem,
        server_name: "s1.harp-server".to_owned(),
    };
    let resume = Some(Resume {
        session: "s1".to_owned(),
        token,
    });
    let hello = Hello {
        resume,
        ..Hello::current()
    };
    connect(&session.upstream, &config, hello, TIMEOUT)
        .err()
        .expect("no session")
}

#[test]
fn a_session_is_its_clients_alone() {
    let mut session = Plan::new(Tuning::default()).connect(|_| ENDLESS);
    // A client of this library counts its hello, which no resuming client does.
    for (user, token) in [
        (USER, vec![0; 32]),
        (USER, vec![]),
        ("spiffe://test/tenant/a/user/c", vec![0; 32]),
    ] {
        come_back(&session, user, token);
    }
    session.client.sender.send(&[b"still here"]).unwrap();
    assert_eq!(body(&mut session.server), b"still here");
    assert_eq!(session.keeper.resumed(), 0);
}
