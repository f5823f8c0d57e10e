//! The baselines of `make bench`: the same exchanges as a session's over bare sockets.
//!
//! `harp-baseline serve CHAIN.pem KEY.pem` prints the ports of a TCP and a TLS 1.3 service;
//! `harp-baseline drive TCP_PORT TLS_PORT CA.pem` takes commands on standard input, one a line, and
//! answers each with one line of numbers:
//!
//! ```text
//! ping BYTES N      request and answer of that size over TCP, polled and slept for as a session
//!                   does (30 us, then sleep); us of each
//! send BYTES N      fresh random bytes over TLS by rustls' stock stream, until the answer; GB/s of each
//! receive BYTES N   a request, and that many bytes over TLS; GB/s of each
//! ```

mod exchange;
mod tls;

use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

use exchange::{Request, Waiting};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", chain, key] => serve(chain, key),
        ["drive", tcp, tls, ca] => drive(tcp.parse()?, tls.parse()?, ca),
        _ => Err("usage: harp-baseline serve CHAIN KEY | drive TCP_PORT TLS_PORT CA".into()),
    }
}

/// Serves one connection of each kind, and ends when both have ended.
fn serve(chain: &str, key: &str) -> Result<(), Failure> {
    let config = tls::server(chain, key)?;
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let tls = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{} {}", tcp.local_addr()?.port(), tls.local_addr()?.port());
    std::thread::scope(|scope| {
        let pings = scope.spawn(|| exchange::answer(Waiting::new(accept(&tcp)?)?));
        let copies = scope.spawn(|| exchange::answer(tls::accept(config, accept(&tls)?)?));
        pings
            .join()
            .expect("no panic")
            .and(copies.join().expect("no panic"))
    })?;
    Ok(())
}

fn accept(listener: &TcpListener) -> std::io::Result<TcpStream> {
    let (socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn drive(tcp: u16, tls: u16, ca: &str) -> Result<(), Failure> {
    let mut pings = Waiting::new(connect(tcp)?)?;
    let mut copies = tls::connect(ca, connect(tls)?)?;
    let mut random = exchange::Random::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [command, bytes, count] = words[..] else {
            return Err("COMMAND BYTES N".into());
        };
        let (bytes, count): (usize, usize) = (bytes.parse()?, count.parse()?);
        let mut buffer = vec![0; bytes];
        let mut found = Vec::with_capacity(count);
        // The first touches all memory for the first time and is not reported.
        for round in 0..=count {
            let value = match command {
                "ping" => {
                    let start = Instant::now();
                    exchange::ask(&mut pings, Request::Echo, &mut buffer)?;
                    start.elapsed().as_secs_f64() * 1e6
                }
                "send" => {
                    random.fill(&mut buffer);
                    let start = Instant::now();
                    exchange::ask(&mut copies, Request::Take, &mut buffer)?;
                    bytes as f64 / start.elapsed().as_secs_f64() / 1e9
                }
                "receive" => {
                    let start = Instant::now();
                    exchange::ask(&mut copies, Request::Give, &mut buffer)?;
                    bytes as f64 / start.elapsed().as_secs_f64() / 1e9
                }
                _ => return Err(format!("no command {command}").into()),
            };
            if round > 0 {
                found.push(format!("{value:.9}"));
            }
        }
        println!("{}", found.join(" "));
        std::io::stdout().flush()?;
    }
    Ok(())
}
