//! Serves sessions that send every body back, for the tests with stock gRPC peers.
//!
//! `echo_server CA CERT KEY` (paths of PEM files) prints the address it listens at, then one line
//! per session that has ended.

use std::env;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use harp_transport::{
    accept, AcceptError, FrameKind, Incoming, LinkError, Next, ServerConfig, Wait, Welcome,
};

fn main() {
    let mut paths = env::args().skip(1);
    let mut pem = || fs::read_to_string(paths.next().expect("CA CERT KEY")).expect("a PEM file");
    let config = ServerConfig {
        ca_pem: pem(),
        cert_pem: pem(),
        key_pem: pem(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    say(&listener.local_addr().expect("an address").to_string());
    for stream in listener.incoming() {
        let stream = stream.expect("a connection");
        match accept(stream, &config, Duration::from_secs(10)) {
            Ok(incoming) => say(&end(echo(incoming))),
            Err(AcceptError::VersionRefused { client, .. }) => {
                say(&format!("refused version {client}"));
            }
            Err(error) => say(&format!("no session: {error}")),
        }
    }
}

fn end(result: Result<u64, LinkError>) -> String {
    match result {
        Ok(frames) => format!("echoed {frames} frames"),
        Err(error) => format!("ended: {error}"),
    }
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().expect("somebody who listens");
}

fn echo(incoming: Incoming) -> Result<u64, LinkError> {
    let session = incoming.hello.program.clone();
    let snapshot = incoming.info.peer.clone().unwrap_or_default().into_bytes();
    let welcome = Welcome {
        session,
        snapshot,
        ..Welcome::default()
    };
    let (mut sender, mut receiver) = incoming.welcome(welcome)?;
    let mut frames = 0;
    loop {
        match receiver.next(Wait::default())? {
            Next::Frame(head) if head.kind == FrameKind::Calls => {
                let mut body = vec![0; head.len];
                receiver.read(&mut body)?;
                sender
                    .send(&[&body])
                    .map_err(|error| error.downcast().expect("a link's error"))?;
                frames += 1;
            }
            Next::Frame(_) | Next::Idle => {}
            Next::Closed => {
                let _ = sender.bye();
                return Ok(frames);
            }
        }
    }
}
