//! A stock rustls client that writes HTTP/2 by hand, right or wrong.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::{ClientConnection, RootCertStore, StreamOwned};

use super::{Authority, SERVER_NAME, TIMEOUT};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The request's header block, as literals.
pub fn request() -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/harp.data.v1.Session/Open"),
        (":authority", "pool"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A gRPC message.
pub fn message(bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![0];
    message.extend((bytes.len() as u32).to_be_bytes());
    message.extend(bytes);
    message
}

/// A hello with this number, in version 1.0.
pub fn hello(seq: u8) -> Vec<u8> {
    message(&[0x08, seq, 0x1a, 4, 0x0a, 2, 0x08, 1])
}

/// Calls with this number.
pub fn calls(seq: u8, ack: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x08, seq, 0x10, ack, 0x7a, body.len() as u8];
    bytes.extend(body);
    message(&bytes)
}

/// Everything up to and with the hello.
pub fn opening() -> Vec<u8> {
    let parts = [
        PREFACE.to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, 0x4, 1, &request()),
        frame(DATA, 0, 1, &hello(1)),
    ];
    parts.concat()
}

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A client of the pool that does the TLS handshake and nothing else.
pub fn stock_tls_client(authority: &Authority, address: &str) -> Stream {
    let client = authority.client();
    let mut roots = RootCertStore::empty();
    roots
        .add(PemObject::from_pem_slice(client.ca_pem.as_bytes()).unwrap())
        .unwrap();
    let chain = vec![PemObject::from_pem_slice(client.cert_pem.as_bytes()).unwrap()];
    let key = PemObject::from_pem_slice(client.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connection =
        ClientConnection::new(Arc::new(config), SERVER_NAME.try_into().unwrap()).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    StreamOwned::new(connection, stream)
}

/// Sends what there is to send; a server that has hung up is fine.
pub fn say(stream: &mut Stream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
    let _ = stream.flush();
}

/// Reads frames until one that `wanted` takes: its flags and payload.
pub fn find(stream: &mut Stream, wanted: impl Fn(u8, u32) -> bool) -> (u8, Vec<u8>) {
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).expect("a frame");
        let len = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let mut payload = vec![0; len];
        stream.read_exact(&mut payload).expect("a whole frame");
        let id = u32::from_be_bytes(header[5..].try_into().unwrap());
        if wanted(header[3], id) {
            return (header[4], payload);
        }
    }
}
