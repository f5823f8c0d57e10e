//! A pool server that does what a test says.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::collections::VecDeque;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use harp_cuda_abi::types::*;
use harp_transport::{accept, FrameKind, Next, Receiver, Sender, ServerConfig, Wait, Welcome};
use harp_wire::record::records;
use harp_wire::{CallId, Encoder};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

pub const TIMEOUT: Duration = Duration::from_secs(20);
/// One device without addresses of its own choice.
const SNAPSHOT: &str = r#"{"driver_version":13000,"soft":true,"devices":[{"name":"Scripted",
    "uuid":"000102030405060708090a0b0c0d0e0f","total_memory":1048576,
    "pci_bus_id":"0000:01:00.0","attributes":{"1":1024},"window":null}]}"#;

/// A record as the server saw it.
pub struct Seen {
    pub call: CallId,
    pub ticket: Option<u32>,
    pub arguments: Vec<u8>,
}

/// A server that shows what came and answers what it is told to.
pub struct Script {
    sender: Sender,
    receiver: Receiver,
    seen: VecDeque<Seen>,
    pub frames: usize,
}

impl Script {
    /// Lets the next client in, whose session gets this name.
    pub fn welcome(listener: &TcpListener, config: &ServerConfig, session: &str) -> Script {
        let (stream, _) = listener.accept().unwrap();
        let incoming = accept(stream, config, TIMEOUT).unwrap();
        let welcome = Welcome {
            session: session.to_owned(),
            snapshot: SNAPSHOT.as_bytes().to_vec(),
            ..Welcome::default()
        };
        let (sender, receiver) = incoming.welcome(welcome).unwrap();
        Script {
            sender,
            receiver,
            seen: VecDeque::new(),
            frames: 0,
        }
    }

    /// The next record of the client.
    pub fn next(&mut self) -> Seen {
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

    pub fn answer(
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
pub fn credentials(directory: &Path) -> ServerConfig {
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
