//! The built gate, driven as the agent drives it.

use std::io::{self, IoSliceMut, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

struct Gate {
    process: Child,
    control: Option<OwnedFd>,
    address: SocketAddr,
}

impl Gate {
    fn start(extra: &[&str]) -> Self {
        let (ours, theirs) = socket_pair();
        let mut command = Command::new(env!("CARGO_BIN_EXE_harp-gate"));
        let fd = theirs.as_raw_fd();
        command
            .args(["--control-fd", &fd.to_string(), "--listen", "127.0.0.1:0"])
            .args(extra);
        // SAFETY: fcntl is async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                libc::fcntl(fd, libc::F_SETFD, 0);
                Ok(())
            })
        };
        let process = command.spawn().expect("harp-gate starts");
        drop(theirs);
        let (message, socket) = receive(&ours).expect("a first message");
        assert!(socket.is_none());
        assert_eq!(message["event"], "listening");
        let address = message["address"].as_str().unwrap().parse().unwrap();
        Self {
            process,
            control: Some(ours),
            address,
        }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).expect("the gate accepts")
    }

    fn next(&self) -> (Value, Option<TcpStream>) {
        receive(self.control.as_ref().unwrap()).expect("a message")
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn socket_pair() -> (OwnedFd, OwnedFd) {
    let mut fds: [RawFd; 2] = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors, owned from here on.
    unsafe {
        assert_eq!(
            libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()),
            0
        );
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    }
}

fn receive(control: &OwnedFd) -> io::Result<(Value, Option<TcpStream>)> {
    let mut bytes = vec![0; 4096];
    let mut space = [0u64; 8];
    let mut part = IoSliceMut::new(&mut bytes);
    // SAFETY: pointers and lengths describe live buffers; a received descriptor is owned once.
    let (count, socket) = unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = (&raw mut part).cast();
        header.msg_iovlen = 1;
        header.msg_control = space.as_mut_ptr().cast();
        header.msg_controllen = mem::size_of_val(&space) as _;
        let count = libc::recvmsg(control.as_raw_fd(), &mut header, libc::MSG_CMSG_CLOEXEC);
        let first = libc::CMSG_FIRSTHDR(&header);
        let socket = (!first.is_null()).then(|| {
            TcpStream::from_raw_fd(libc::CMSG_DATA(first).cast::<RawFd>().read_unaligned())
        });
        (count, socket)
    };
    if count <= 0 {
        return Err(io::Error::other("control socket closed"));
    }
    Ok((serde_json::from_slice(&bytes[..count as usize])?, socket))
}

/// A ClientHello with nothing in it but the server name.
fn hello(name: &str) -> Vec<u8> {
    let name = name.as_bytes();
    let n = name.len() as u16;
    let mut extension = vec![0, 0];
    extension.extend((n + 5).to_be_bytes());
    extension.extend((n + 3).to_be_bytes());
    extension.push(0);
    extension.extend(n.to_be_bytes());
    extension.extend(name);
    let mut body = vec![3, 3];
    body.extend([1; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend((extension.len() as u16).to_be_bytes());
    body.extend(extension);
    let mut record = vec![22, 3, 1];
    record.extend((body.len() as u16 + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

/// Whether the peer has closed `socket`, with or without a reset.
fn is_closed(mut socket: TcpStream) -> bool {
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    match socket.read(&mut [0; 16]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn a_tls_connection_is_passed_on_untouched() {
    let gate = Gate::start(&[]);
    let mut client = gate.connect();
    let sent = hello("harp-server");
    client.write_all(&sent).unwrap();
    let (message, socket) = gate.next();
    assert_eq!(message["sni"], "harp-server");
    assert_eq!(message["peer"], client.local_addr().unwrap().to_string());
    let mut socket = socket.expect("the socket comes along");
    let mut seen = vec![0; sent.len()];
    socket.read_exact(&mut seen).unwrap();
    assert_eq!(seen, sent, "the worker reads the hello from its first byte");
    // The receive mark is back at one byte, and the socket blocks.
    client.write_all(b"x").unwrap();
    socket.read_exact(&mut seen[..1]).unwrap();
    socket.write_all(b"answer").unwrap();
    drop(socket);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
}

#[test]
fn a_hello_in_single_bytes_does_not_hold_up_others() {
    let gate = Gate::start(&[]);
    let mut slow = gate.connect();
    slow.set_nodelay(true).unwrap();
    let sent = hello("slow.example");
    let (last, first) = sent.split_last().unwrap();
    for byte in first {
        slow.write_all(&[*byte]).unwrap();
    }
    gate.connect().write_all(&hello("quick.example")).unwrap();
    assert_eq!(gate.next().0["sni"], "quick.example");
    slow.write_all(&[*last]).unwrap();
    assert_eq!(gate.next().0["sni"], "slow.example");
}

#[test]
fn other_protocols_are_closed_and_reported() {
    let gate = Gate::start(&[]);
    let mut client = gate.connect();
    client
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .unwrap();
    let (message, socket) = gate.next();
    assert!(socket.is_none());
    assert_eq!(message["event"], "refused");
    assert_eq!(
        message["reason"],
        "not TLS: looks like HTTP or gRPC in the clear"
    );
    assert!(is_closed(client));

    drop(gate.connect());
    assert_eq!(
        gate.next().0["reason"],
        "connection closed before its ClientHello"
    );
    let mut half = gate.connect();
    half.write_all(&hello("harp-server")[..20]).unwrap();
    drop(half);
    assert_eq!(
        gate.next().0["reason"],
        "connection closed before its ClientHello"
    );
}

#[test]
fn a_silent_connection_is_given_up() {
    let gate = Gate::start(&["--patience", "1"]);
    let silent = gate.connect();
    assert_eq!(gate.next().0["reason"], "no whole ClientHello in time");
    assert!(is_closed(silent));
}

#[test]
fn a_crowd_of_silent_connections_does_not_shut_the_gate() {
    let gate = Gate::start(&["--connections", "8", "--patience", "600"]);
    let crowd: Vec<_> = (0..60).map(|_| gate.connect()).collect();
    gate.connect().write_all(&hello("harp-server")).unwrap();
    loop {
        let (message, socket) = gate.next();
        if socket.is_some() {
            assert_eq!(message["sni"], "harp-server");
            break;
        }
        assert_eq!(
            message["reason"],
            "too many connections without a ClientHello"
        );
    }
    assert!(
        is_closed(crowd.into_iter().next().unwrap()),
        "the longest-waiting gave way"
    );
}

#[test]
fn the_gate_is_jailed_and_ends_with_its_control_socket() {
    let mut gate = Gate::start(&[]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.process.id())).unwrap();
    let field = |name: &str| {
        let line = status
            .lines()
            .find(|l| l.starts_with(name))
            .unwrap_or_default();
        line.split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_ne!(field("Uid:"), "0");
    gate.control = None;
    let deadline = Instant::now() + Duration::from_secs(20);
    while gate.process.try_wait().unwrap().is_none() {
        assert!(
            Instant::now() < deadline,
            "the gate outlived its control socket"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(gate.process.wait().unwrap().success());
}
