//! Measures a link against what it is made of, in one interleaved run over loopback:
//! a 64-byte ping against raw TCP with the same wait policy, and copies of 64 KiB, 1 MiB and
//! 256 MiB each way against a raw TLS 1.3 socket with rustls's stock API and the same cipher.
//!
//! `link_bench [ROUNDS [CREW]]`, with so many threads that help each end, prints medians and their ratios: time, and processor time of both ends
//! together, which says more on a busy machine. Only ratios of one run mean anything. The peer is a
//! thread of this process.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use harp_transport::{
    accept_with, connect_with, ClientConfig, Hello, Next, Receiver, Resuming, Sender, ServerConfig,
    Tuning, Wait, Welcome,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConnection, RootCertStore, ServerConnection, StreamOwned};

const NAME: &str = "harp-server";
const TIMEOUT: Duration = Duration::from_secs(10);
const PING_BYTES: usize = 64;
const PINGS: usize = 2000;
const SIZES: [(usize, &str, usize); 3] = [
    (64 << 10, "64k", 200),
    (1 << 20, "1m", 50),
    (256 << 20, "256m", 1),
];

/// A connected end of any of the stacks.
trait Pipe: Send {
    fn send(&mut self, parts: &[&[u8]]);
    fn receive(&mut self, target: &mut [u8]);
}

struct Tcp {
    stream: TcpStream,
    spin: Duration,
}

impl Tcp {
    fn new(stream: TcpStream) -> Tcp {
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        Tcp {
            stream,
            spin: Tuning::default().spin,
        }
    }

    fn wait(&self, start: Instant, events: i16) {
        use std::os::fd::AsRawFd;
        if start.elapsed() < self.spin {
            std::hint::spin_loop();
            return;
        }
        let mut entry = libc::pollfd {
            fd: self.stream.as_raw_fd(),
            events,
            revents: 0,
        };
        // SAFETY: one live entry.
        unsafe { libc::poll(&mut entry, 1, -1) };
    }
}

impl Pipe for Tcp {
    fn send(&mut self, parts: &[&[u8]]) {
        let start = Instant::now();
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                match self.stream.write(rest) {
                    Ok(len) => rest = &rest[len..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.wait(start, libc::POLLOUT);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    fn receive(&mut self, target: &mut [u8]) {
        let start = Instant::now();
        let mut filled = 0;
        while filled < target.len() {
            match self.stream.read(&mut target[filled..]) {
                Ok(0) => panic!("closed"),
                Ok(len) => filled += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.wait(start, libc::POLLIN);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// rustls as its documentation shows it, on a blocking socket.
struct Tls<S>(S);

impl<S: Read + Write + Send> Pipe for Tls<S> {
    fn send(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.0.write_all(part).unwrap();
        }
        self.0.flush().unwrap();
    }

    fn receive(&mut self, target: &mut [u8]) {
        self.0.read_exact(target).unwrap();
    }
}

struct Ours(Sender, Receiver);

impl Pipe for Ours {
    fn send(&mut self, parts: &[&[u8]]) {
        self.0.send(parts).unwrap();
    }

    fn receive(&mut self, target: &mut [u8]) {
        if self.1.body_left() == 0 {
            let next = self.1.next(Wait::default()).unwrap();
            assert!(matches!(next, Next::Frame(_)), "{next:?}");
        }
        self.1.read(target).unwrap();
    }
}

const PING: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;
const END: u8 = 3;
const COMMAND_BYTES: usize = 16;

fn command(kind: u8, len: usize) -> [u8; COMMAND_BYTES] {
    let mut bytes = [0; COMMAND_BYTES];
    bytes[0] = kind;
    bytes[8..].copy_from_slice(&(len as u64).to_le_bytes());
    bytes
}

/// The peer: does what commands say. Its memory is touched beforehand, as a device's would be.
fn serve(mut pipe: Box<dyn Pipe>) {
    let mut memory = noise(SIZES[2].0);
    loop {
        let mut bytes = [0; COMMAND_BYTES];
        pipe.receive(&mut bytes);
        let len = u64::from_le_bytes(bytes[8..].try_into().unwrap()) as usize;
        match bytes[0] {
            PING => {
                let mut rest = [0; PING_BYTES - COMMAND_BYTES];
                pipe.receive(&mut rest);
                pipe.send(&[&[0; PING_BYTES]]);
            }
            UP => {
                pipe.receive(&mut memory[..len]);
                pipe.send(&[&[1; COMMAND_BYTES]]);
            }
            DOWN => pipe.send(&[&bytes, &memory[..len]]),
            _ => return,
        }
    }
}

/// Bytes that do not compress and that no cache has seen as they are.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .unwrap();
    bytes
}

/// Seconds that something took, by the clock and of both ends' processors.
#[derive(Clone, Copy)]
struct Cost {
    time: f64,
    cpu: f64,
}

/// Does `act` many times; the cost of one.
fn measure(times: usize, mut act: impl FnMut()) -> Cost {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    for _ in 0..times {
        act();
    }
    let each = |seconds: f64| seconds / times as f64;
    Cost {
        time: each(start.elapsed().as_secs_f64()),
        cpu: each(cpu_seconds() - cpu),
    }
}

fn cpu_seconds() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock writes to the one live value.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn ping(pipe: &mut dyn Pipe) -> Cost {
    let mut message = [0; PING_BYTES];
    message[..COMMAND_BYTES].copy_from_slice(&command(PING, 0));
    measure(PINGS, || {
        pipe.send(&[&message]);
        pipe.receive(&mut [0; PING_BYTES]);
    })
}

fn up(pipe: &mut dyn Pipe, bytes: &[u8], times: usize) -> Cost {
    measure(times, || {
        pipe.send(&[&command(UP, bytes.len()), bytes]);
        pipe.receive(&mut [0; COMMAND_BYTES]);
    })
}

fn down(pipe: &mut dyn Pipe, bytes: &mut [u8], times: usize) -> Cost {
    measure(times, || {
        pipe.send(&[&command(DOWN, bytes.len())]);
        pipe.receive(&mut [0; COMMAND_BYTES]);
        pipe.receive(bytes);
    })
}

fn median(samples: &[Cost], of: impl Fn(&Cost) -> f64) -> f64 {
    let mut sorted: Vec<f64> = samples.iter().map(of).collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

struct Row {
    name: String,
    baseline: &'static str,
    bytes: usize,
    ours: Vec<Cost>,
    theirs: Vec<Cost>,
}

impl Row {
    fn print(&self) {
        let [ours, theirs] = [&self.ours, &self.theirs].map(|samples| median(samples, |c| c.time));
        let [our_cpu, their_cpu] =
            [&self.ours, &self.theirs].map(|samples| median(samples, |c| c.cpu) * 1e6);
        let (name, baseline) = (&self.name, self.baseline);
        if self.bytes == 0 {
            let [ours, theirs] = [ours, theirs].map(|time| time * 1e6);
            print!("{name:10} {ours:7.1} µs    {baseline} {theirs:7.1} µs    ");
            print!("x time  {:5.2}", ours / theirs);
        } else {
            let [ours, theirs] = [ours, theirs].map(|time| self.bytes as f64 / time / 1e9);
            print!("{name:10} {ours:7.2} GB/s  {baseline} {theirs:7.2} GB/s  ");
            print!("x speed {:5.2}", ours / theirs);
        }
        println!(
            "   cpu {our_cpu:9.1} µs  {their_cpu:9.1} µs  x {:4.2}",
            our_cpu / their_cpu
        );
    }
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut numbers = arguments.iter().filter_map(|text| text.parse().ok());
    let rounds = numbers.next().unwrap_or(7);
    let mut tuning = Tuning::default();
    tuning.crew = numbers.next().unwrap_or(tuning.crew);
    let pool = Pool::new();
    let (mut tcp, mut tls, mut ours) = (pool.tcp()?, pool.tls()?, pool.ours(&tuning)?);

    let mut rows = vec![Row {
        name: "ping".to_owned(),
        baseline: "tcp",
        bytes: 0,
        ours: Vec::new(),
        theirs: Vec::new(),
    }];
    for (bytes, name, _) in SIZES {
        for way in ["up", "down"] {
            let name = format!("{way} {name}");
            rows.push(Row {
                name,
                baseline: "tls",
                bytes,
                ours: vec![],
                theirs: vec![],
            });
        }
    }
    let mut memory = noise(SIZES[2].0);
    for round in 0..=rounds {
        // The first round only warms up.
        let mut record = |row: usize, ours: Cost, theirs: Cost| {
            if round > 0 {
                rows[row].ours.push(ours);
                rows[row].theirs.push(theirs);
            }
        };
        let baseline = ping(&mut *tcp);
        record(0, ping(&mut *ours), baseline);
        for (index, (len, _, times)) in SIZES.into_iter().enumerate() {
            let bytes = &mut memory[..len];
            aws_lc_rs::default_provider()
                .secure_random
                .fill(bytes)
                .unwrap();
            let baseline = up(&mut *tls, bytes, times);
            record(1 + 2 * index, up(&mut *ours, bytes, times), baseline);
            let baseline = down(&mut *tls, bytes, times);
            record(2 + 2 * index, down(&mut *ours, bytes, times), baseline);
        }
    }
    for pipe in [&mut tcp, &mut tls, &mut ours] {
        pipe.send(&[&command(END, 0)]);
    }
    rows.iter().for_each(Row::print);
    Ok(())
}

/// An authority and one certificate for both ends.
struct Pool {
    ca: String,
    cert: String,
    key: String,
}

impl Pool {
    fn new() -> Pool {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::new(ca, ca_key);
        let leaf = CertificateParams::new([NAME.to_owned()]).unwrap();
        let cert = leaf.signed_by(&key, &issuer).unwrap().pem();
        Pool {
            ca: ca_pem,
            cert,
            key: key.serialize_pem(),
        }
    }

    fn connected(&self) -> io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        Ok((client, listener.accept()?.0))
    }

    fn tcp(&self) -> io::Result<Box<dyn Pipe>> {
        let (client, server) = self.connected()?;
        thread::spawn(|| serve(Box::new(Tcp::new(server))));
        Ok(Box::new(Tcp::new(client)))
    }

    fn tls(&self) -> io::Result<Box<dyn Pipe>> {
        let (client, server) = self.connected()?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let provider = Arc::new(rustls::crypto::CryptoProvider {
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            ..aws_lc_rs::default_provider()
        });
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap())
            .unwrap();
        let chain = vec![CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let versions = [&rustls::version::TLS13];
        let server_config = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let client_config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connection = ServerConnection::new(Arc::new(server_config)).unwrap();
        thread::spawn(|| serve(Box::new(Tls(StreamOwned::new(connection, server)))));
        let name = ServerName::try_from(NAME).unwrap();
        let connection = ClientConnection::new(Arc::new(client_config), name).unwrap();
        Ok(Box::new(Tls(StreamOwned::new(connection, client))))
    }

    fn ours(&self, tuning: &Tuning) -> io::Result<Box<dyn Pipe>> {
        let (ca_pem, cert_pem, key_pem) = (self.ca.clone(), self.cert.clone(), self.key.clone());
        let config = ServerConfig {
            ca_pem: ca_pem.clone(),
            cert_pem: cert_pem.clone(),
            key_pem: key_pem.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let for_server = tuning.clone();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let incoming = accept_with(stream, &config, TIMEOUT, for_server).unwrap();
            let (sender, receiver) = incoming.welcome(Welcome::default()).unwrap();
            serve(Box::new(Ours(sender, receiver)));
        });
        let server_name = NAME.to_owned();
        let config = ClientConfig {
            ca_pem,
            cert_pem,
            key_pem,
            server_name,
        };
        let (sender, receiver, _, link) = connect_with(
            &address,
            &config,
            Hello::current(),
            TIMEOUT,
            tuning.clone(),
            Resuming::default(),
        )
        .unwrap();
        eprintln!("{} {}", link.tls_version, link.cipher);
        Ok(Box::new(Ours(sender, receiver)))
    }
}
