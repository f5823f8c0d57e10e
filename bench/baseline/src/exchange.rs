//! Requests over any stream: a head of nine bytes, then a payload one way or both.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// How long a session polls at most before it sleeps (`Tuning::default` of harp-transport).
const SPIN: Duration = Duration::from_micros(120);

#[derive(Clone, Copy)]
pub enum Request {
    /// The payload comes back.
    Echo,
    /// The payload is taken and answered by one byte.
    Take,
    /// The payload is given.
    Give,
}

const KINDS: [Request; 3] = [Request::Echo, Request::Take, Request::Give];
const HEAD: usize = 9;

/// Makes one request and waits for all of its answer. An echo carries its head inside the payload's
/// size, so that `BYTES` are what travels.
pub fn ask(
    stream: &mut (impl Read + Write),
    request: Request,
    payload: &mut [u8],
) -> io::Result<()> {
    let mut head = [0; HEAD];
    head[0] = request as u8;
    head[1..].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    match request {
        Request::Echo => {
            payload[..HEAD].copy_from_slice(&head);
            stream.write_all(payload)?;
            stream.flush()?;
            stream.read_exact(payload)
        }
        Request::Take => {
            stream.write_all(&head)?;
            stream.write_all(payload)?;
            stream.flush()?;
            stream.read_exact(&mut [0])
        }
        Request::Give => {
            stream.write_all(&head)?;
            stream.flush()?;
            stream.read_exact(payload)
        }
    }
}

/// Answers requests until the peer closes the connection.
pub fn answer(mut stream: impl Read + Write) -> io::Result<()> {
    let mut random = Random::new();
    let mut buffer = Vec::new();
    let mut given = Vec::new();
    loop {
        let mut head = [0; HEAD];
        match stream.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let bytes = u64::from_le_bytes(head[1..].try_into().expect("eight bytes")) as usize;
        match KINDS[usize::from(head[0])] {
            Request::Echo => {
                buffer.resize(bytes, 0);
                buffer[..HEAD].copy_from_slice(&head);
                stream.read_exact(&mut buffer[HEAD..])?;
                stream.write_all(&buffer)?;
            }
            Request::Take => {
                buffer.resize(bytes, 0);
                stream.read_exact(&mut buffer)?;
                stream.write_all(&[1])?;
            }
            Request::Give => {
                if given.len() != bytes {
                    given.resize(bytes, 0);
                    random.fill(&mut given);
                }
                stream.write_all(&given)?;
            }
        }
        stream.flush()?;
    }
}

/// A TCP stream whose reader polls for a while before it sleeps, as both ends of a session do.
pub struct Waiting(TcpStream);

impl Waiting {
    pub fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    fn sleep(&self, events: libc::c_short) {
        let mut wanted = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events,
            revents: 0,
        };
        // SAFETY: one pollfd that lives until the call returns.
        unsafe { libc::poll(&mut wanted, 1, -1) };
    }
}

impl Read for Waiting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut spin_end = None;
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            let now = Instant::now();
            if now >= *spin_end.get_or_insert(now + SPIN) {
                self.sleep(libc::POLLIN);
            }
        }
    }
}

impl Write for Waiting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.sleep(libc::POLLOUT),
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that no layer can compress or deduplicate (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}
