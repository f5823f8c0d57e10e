//! A throw-away pool: an authority, certificates of it, and a connected pair of ends.

// Each test binary uses its own part of this.
#![allow(dead_code)]

pub mod frames;
pub mod weather;

use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use harp_transport::{
    accept_with, connect_with, AcceptError, ClientConfig, ConnectError, Hello, LinkInfo, Receiver,
    Resuming, Sender, ServerConfig, Tuning, Welcome,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

pub const SERVER_NAME: &str = "harp-server";
pub const USER: &str = "spiffe://test/tenant/a/user/b";
pub const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    pub fn pem(&self) -> String {
        self.pem.clone()
    }

    /// Certificate and key for these names, after `change`.
    pub fn issue(
        &self,
        dns: &[&str],
        uris: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "end entity");
        for uri in uris {
            params
                .subject_alt_names
                .push(SanType::URI((*uri).try_into().unwrap()));
        }
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    pub fn server(&self) -> ServerConfig {
        let names = [SERVER_NAME, "s1.harp-server"];
        let (cert_pem, key_pem) = self.issue(&names, &["spiffe://test/session/s1"], |_| {});
        ServerConfig {
            ca_pem: self.pem(),
            cert_pem,
            key_pem,
        }
    }

    pub fn client(&self) -> ClientConfig {
        let (cert_pem, key_pem) = self.issue(&[], &[USER], |_| {});
        let server_name = SERVER_NAME.to_owned();
        ClientConfig {
            ca_pem: self.pem(),
            cert_pem,
            key_pem,
            server_name,
        }
    }
}

pub struct End {
    pub sender: Sender,
    pub receiver: Receiver,
}

pub type ClientResult = Result<(End, Welcome, LinkInfo), ConnectError>;
pub type ServerResult = Result<(End, Seen), AcceptError>;

/// Runs both sides of the handshake and returns what each got.
pub fn handshake(
    client: &ClientConfig,
    server: &ServerConfig,
    hello: Hello,
    tuning: (Tuning, Tuning),
) -> (ClientResult, ServerResult) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::scope(|scope| {
        let accepting = scope.spawn(|| {
            let (stream, _) = listener.accept().unwrap();
            let incoming = accept_with(stream, server, TIMEOUT, tuning.1)?;
            let seen = Seen {
                hello: incoming.hello.clone(),
                info: incoming.info.clone(),
            };
            let (sender, receiver) = incoming.welcome(welcome()).map_err(AcceptError::Link)?;
            Ok((End { sender, receiver }, seen))
        });
        let client = connect_with(
            &address,
            client,
            hello,
            TIMEOUT,
            tuning.0,
            Resuming::default(),
        )
        .map(|(sender, receiver, welcome, info)| (End { sender, receiver }, welcome, info));
        (client, accepting.join().unwrap())
    })
}

/// What a server saw of its client.
pub struct Seen {
    pub hello: Hello,
    pub info: LinkInfo,
}

pub fn welcome() -> Welcome {
    Welcome {
        session: "s1".to_owned(),
        snapshot: b"{}".to_vec(),
        ..Welcome::default()
    }
}

/// A client and a server that are connected.
pub fn pair(client: Tuning, server: Tuning) -> (End, End) {
    let authority = Authority::new("pool");
    let (client, server) = handshake(
        &authority.client(),
        &authority.server(),
        Hello::current(),
        (client, server),
    );
    (client.unwrap().0, server.unwrap().0)
}

/// A TCP connection to a listener that `serve` handles in its own thread.
pub fn listen(serve: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || serve(listener.accept().unwrap().0));
    address
}

/// Bytes that look random, and the same for one seed.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
