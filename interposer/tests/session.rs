//! The session against a scripted server: batching, concurrent waits, errors that come later, and
//! a server that goes away. A session belongs to its process, so this is one story told in order.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use harp_cuda_abi::types::*;
use harp_interposer::session::{attach_program, finish_bytes, one_way, request, session};
use harp_transport::{accept, FrameKind, Next, Receiver, Sender, ServerConfig, Wait, Welcome};
use harp_wire::record::records;
use harp_wire::{CallId, Encoder};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

const TIMEOUT: Duration = Duration::from_secs(20);
const SNAPSHOT: &str = r#"{"driver_version":13000,"soft":true,"devices":[{"name":"Scripted",
    "uuid":"000102030405060708090a0b0c0d0e0f","total_memory":1048576,
    "pci_bus_id":"0000:01:00.0","attributes":{"1":1024},"window":null}]}"#;

/// A record as the server saw it.
struct Seen {
    call: CallId,
    ticket: Option<u32>,
    arguments: Vec<u8>,
}

/// A server that shows what came and answers what it is told to.
struct Script {
    sender: Sender,
    receiver: Receiver,
    seen: VecDeque<Seen>,
    frames: usize,
}

impl Script {
    /// The next record of the client.
    fn next(&mut self) -> Seen {
        while self.seen.is_empty() {
            let wait = Wait {
                spin: None,
                timeout: Some(TIMEOUT),
            };
            let Next::Frame(head) = self.receiver.next(wait).unwrap() else {
                panic!("the client sent nothing");
            };
            assert_eq!(head.kind, FrameKind::Calls);
            let mut body = vec![0; head.len];
            self.receiver.read(&mut body).unwrap();
            self.frames += 1;
            // That a thread of the test has ended may come at any time.
            let told = records(&body).map(Result::unwrap);
            let told = told.filter(|record| record.call != CallId::harp_thread_ended);
            self.seen.extend(told.map(|record| {
                let arguments = record.arguments.to_vec();
                Seen {
                    call: record.call,
                    ticket: record.ticket,
                    arguments,
                }
            }));
        }
        self.seen.pop_front().unwrap()
    }

    fn answer(
        &mut self,
        seen: &Seen,
        status: CUresult,
        deferred: CUresult,
        outputs: impl FnOnce(&mut Encoder),
    ) {
        let mut frame = Encoder::new();
        let start = frame.begin_reply();
        outputs(&mut frame);
        frame.end_reply(start, seen.ticket.unwrap(), status, deferred);
        self.sender.send(&[frame.as_slice()]).unwrap();
    }
}

/// Certificates for both ends; the client's are left in `directory`.
fn credentials(directory: &Path) -> ServerConfig {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca_pem = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let issue = |dns: &[&str], uri: &str| {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
        (
            params.signed_by(&key, &issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    };
    let (client_cert, client_key) = issue(&[], "spiffe://test/tenant/a/user/b");
    std::fs::create_dir_all(directory).unwrap();
    std::fs::write(directory.join("ca.pem"), &ca_pem).unwrap();
    std::fs::write(directory.join("client.pem"), client_cert).unwrap();
    std::fs::write(directory.join("client.key"), client_key).unwrap();
    let (cert_pem, key_pem) = issue(&["harp-server"], "spiffe://test/session/s1");
    ServerConfig {
        ca_pem,
        cert_pem,
        key_pem,
    }
}

fn nothing(_: &mut Encoder) {}

#[test]
fn a_session_from_the_first_call_to_the_servers_end() {
    let directory = std::env::temp_dir().join(format!("harp-session-{}", std::process::id()));
    let config = credentials(&directory);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    std::env::set_var("HARP_SERVER", listener.local_addr().unwrap().to_string());
    std::env::set_var("HARP_CREDENTIALS", &directory);
    let (go, wait_for_go) = mpsc::channel::<()>();

    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let incoming = accept(stream, &config, TIMEOUT).unwrap();
        let welcome = Welcome {
            session: "s1".to_owned(),
            snapshot: SNAPSHOT.as_bytes().to_vec(),
            ..Welcome::default()
        };
        let (sender, receiver) = incoming.welcome(welcome).unwrap();
        let mut script = Script {
            sender,
            receiver,
            seen: VecDeque::new(),
            frames: 0,
        };

        // 1. A thousand one-way calls arrive whole, in order, in far fewer frames, and unasked.
        for number in 0..1000_u64 {
            let seen = script.next();
            assert_eq!((seen.call, seen.ticket), (CallId::cuEventRecord, None));
            assert_eq!(seen.arguments, number.to_le_bytes());
        }
        assert!(script.frames < 500, "{} frames", script.frames);
        go_on(&wait_for_go);

        // 2. Two threads wait; the one that asked last is answered first.
        let (first, second) = (script.next(), script.next());
        for seen in [second, first] {
            let value = seen.arguments.clone();
            script.answer(&seen, CUDA_SUCCESS, CUDA_SUCCESS, |reply| {
                reply.u64(u64::from_le_bytes(value[..8].try_into().unwrap()));
            });
        }

        // 3. What an earlier call failed with comes once, beside a success; a failure keeps its code.
        let seen = script.next();
        script.answer(&seen, CUDA_SUCCESS, CUDA_ERROR_ILLEGAL_ADDRESS, nothing);
        let seen = script.next();
        script.answer(&seen, CUDA_ERROR_NOT_READY, CUDA_SUCCESS, nothing);

        // 4. Bytes land where they were asked to.
        let seen = script.next();
        script.answer(&seen, CUDA_SUCCESS, CUDA_SUCCESS, |reply| {
            reply.bytes(b"landed")
        });

        // 5. The server goes away while a call waits.
        script.next();
    });

    assert_eq!(
        session().err(),
        Some(CUDA_ERROR_NOT_INITIALIZED),
        "cuInit comes first"
    );
    assert_eq!(
        attach_program().unwrap().snapshot.devices[0].name,
        "Scripted"
    );

    for number in 0..1000_u64 {
        let status = one_way(CallId::cuEventRecord, |encoder| encoder.u64(number));
        assert_eq!(status, CUDA_SUCCESS);
    }
    go.send(()).unwrap();

    let askers: Vec<_> = [10_u64, 20]
        .map(|value| {
            thread::spawn(move || {
                let mut answer = 0;
                let encode = |encoder: &mut Encoder| encoder.u64(value);
                let status = request(CallId::cuMemGetInfo_v2, encode, |reply| {
                    answer = reply.u64()
                });
                (status, answer == value)
            })
        })
        .into_iter()
        .collect();
    for asker in askers {
        assert_eq!(asker.join().unwrap(), (CUDA_SUCCESS, true));
    }

    let synchronize = || request(CallId::cuCtxSynchronize, |_| (), |_| ());
    assert_eq!(synchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_eq!(synchronize(), CUDA_ERROR_NOT_READY);

    let mut landing = [0_u8; 6];
    // SAFETY: `landing` outlives the wait right below.
    let ticket = unsafe {
        let encode = |encoder: &mut Encoder| encoder.u64(6);
        let (at, len) = (landing.as_mut_ptr(), landing.len());
        harp_interposer::session::ask_bytes(CallId::cuMemcpyDtoH_v2, encode, at, len)
    };
    assert_eq!(finish_bytes(ticket.unwrap()), CUDA_SUCCESS);
    assert_eq!(&landing, b"landed");

    assert_eq!(synchronize(), CUDA_ERROR_DEVICE_UNAVAILABLE);
    server.join().unwrap();
    assert_eq!(
        one_way(CallId::cuEventRecord, |encoder| encoder.u64(0)),
        CUDA_ERROR_DEVICE_UNAVAILABLE
    );
    std::fs::remove_dir_all(&directory).unwrap();
}

fn go_on(signal: &mpsc::Receiver<()>) {
    signal.recv_timeout(TIMEOUT).expect("the client is stuck");
}
