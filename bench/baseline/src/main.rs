//! The baselines of `make bench`: the same exchanges as a session's over bare sockets.
//!
//! `harp-baseline serve CHAIN.pem KEY.pem` prints the ports of a TCP and a TLS 1.3 service;
//! `harp-baseline drive TCP_PORT TLS_PORT CA.pem` takes commands on standard input, one a line, and
//! answers each with one line of numbers:
//!
//! ```text
//! ping BYTES N      request and answer of that size over TCP; us of each
//! send BYTES N      fresh random bytes over TLS by rustls' stock stream, until the answer; GB/s of each
//! receive BYTES N   a request, and that many bytes over TLS; GB/s of each
//! wake GAP_US N     a thread that sleeps is woken by one that has slept for so long; us until it runs, of each
//! ```
//!
//! Both kinds are polled and then slept for as a session's socket is ([`exchange::Waiting`]): a blocking one that
//! finds the machine idle would be measured by how late it is woken.
//!
//! `harp-baseline link HOST:PORT ROUND_TRIP_US BITS_PER_S` is a network in front of a server (0: no
//! delay, no limit): it prints its port, and answers each line on standard input with the bytes that have
//! gone up and come down, and how often something went up after something had come down.

mod exchange;
mod link;
mod tls;
mod wake;

use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use exchange::{Request, Waiting};
use link::{Carried, Line};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", chain, key] => serve(chain, key),
        ["drive", tcp, tls, ca] => drive(tcp.parse()?, tls.parse()?, ca),
        ["link", upstream, round_trip, rate] => link(upstream, round_trip.parse()?, rate.parse()?),
        _ => Err(
            "usage: harp-baseline serve CHAIN KEY | drive TCP_PORT TLS_PORT CA \
                  | link HOST:PORT ROUND_TRIP_US BITS_PER_S"
                .into(),
        ),
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
        let copies =
            scope.spawn(|| exchange::answer(tls::accept(config, Waiting::new(accept(&tls)?)?)?));
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

/// Is a network in front of `upstream` until standard input ends.
fn link(upstream: &str, round_trip_us: u64, rate: u64) -> Result<(), Failure> {
    let line = Line {
        delay: Duration::from_micros(round_trip_us) / 2,
        rate: (rate > 0).then_some(rate),
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?.port());
    let (carried, upstream) = (Arc::new(Carried::default()), upstream.to_owned());
    let counts = carried.clone();
    std::thread::spawn(move || link::serve(&listener, &upstream, line, &counts));
    for line in std::io::stdin().lock().lines() {
        line?;
        let [up, down, turns] = carried.numbers();
        println!("{up} {down} {turns}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn drive(tcp: u16, tls: u16, ca: &str) -> Result<(), Failure> {
    let mut pings = Waiting::new(connect(tcp)?)?;
    let mut copies = tls::connect(ca, Waiting::new(connect(tls)?)?)?;
    let mut random = exchange::Random::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [command, bytes, count] = words[..] else {
            return Err("COMMAND BYTES N".into());
        };
        let (bytes, count): (usize, usize) = (bytes.parse()?, count.parse()?);
        if command == "wake" {
            let gap = Duration::from_micros(bytes as u64);
            say(wake::latencies(gap, count)?.iter().map(micros))?;
            continue;
        }
        let mut buffer = vec![0; bytes];
        let mut found = Vec::with_capacity(count);
        // The first touches all memory for the first time and is not reported.
        for round in 0..=count {
            let value = match command {
                "ping" => {
                    let start = Instant::now();
                    exchange::ask(&mut pings, Request::Echo, &mut buffer)?;
                    micros(&start.elapsed())
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
                found.push(value);
            }
        }
        say(found.into_iter())?;
    }
    Ok(())
}

fn micros(time: &Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Answers a command.
fn say(values: impl Iterator<Item = f64>) -> std::io::Result<()> {
    let words: Vec<String> = values.map(|value| format!("{value:.9}")).collect();
    println!("{}", words.join(" "));
    std::io::stdout().flush()
}
