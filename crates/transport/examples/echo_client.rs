//! Opens a session and checks that every body comes back, for the tests with stock gRPC peers.
//!
//! `echo_client ADDRESS CA CERT KEY SIZE...` (paths of PEM files, sizes in bytes)

use std::error::Error;
use std::fs;
use std::time::Duration;

use harp_transport::{connect, ClientConfig, FrameKind, Hello, Next, Wait};

fn main() {
    if let Err(error) = run() {
        println!("{error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, ca, cert, key, sizes @ ..] = arguments.as_slice() else {
        return Err("usage: echo_client ADDRESS CA CERT KEY SIZE...".into());
    };
    let config = ClientConfig {
        ca_pem: fs::read_to_string(ca)?,
        cert_pem: fs::read_to_string(cert)?,
        key_pem: fs::read_to_string(key)?,
        server_name: "harp-server".to_owned(),
    };
    let hello = Hello {
        program: "echo_client".to_owned(),
        ..Hello::current()
    };
    let (mut sender, mut receiver, welcome, link) =
        connect(address, &config, hello, Duration::from_secs(10))?;
    println!(
        "session {} {} {}",
        welcome.session, link.tls_version, link.cipher
    );
    for (round, size) in sizes.iter().enumerate() {
        let size: usize = size.parse()?;
        let body: Vec<u8> = (0..size)
            .map(|index| (index * 31 + index / 256 + round) as u8)
            .collect();
        sender.send(&[&body])?;
        let Next::Frame(head) = receiver.next(Wait::default())? else {
            return Err("the session ended".into());
        };
        let mut echo = vec![0; head.len];
        receiver.read(&mut echo)?;
        if head.kind != FrameKind::Replies || echo != body {
            return Err(format!("{size} bytes came back changed").into());
        }
        println!("{size} bytes came back");
    }
    sender.ping(77)?;
    match receiver.next(Wait::default())? {
        Next::Frame(head) if head.kind == FrameKind::Pong(77) => {}
        other => return Err(format!("{other:?} instead of a pong").into()),
    }
    sender.bye()?;
    while receiver.next(Wait::default())? != Next::Closed {}
    println!("goodbye");
    Ok(())
}
