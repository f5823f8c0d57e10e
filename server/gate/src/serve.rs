//! The accept loop: one thread, one `poll`, no state per connection but its socket, address and deadline.
//!
//! A connection's first bytes are only peeked at, so that the worker's TLS library later reads the whole handshake
//! itself. `SO_RCVLOWAT` makes `poll` stay quiet until as many bytes as the parser still needs have arrived: a peer
//! that drips bytes costs one wake per length field, not one per byte.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use crate::client_hello::{server_name, Refusal, Seen, LARGEST_HELLO};
use crate::control::{Control, Event};

/// What a stranger may take before it has shown a server name.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections waiting for their ClientHello at one time. One more and the longest-waiting gives way.
    pub connections: usize,
    /// From accept to a whole ClientHello.
    pub patience: Duration,
}

/// Refusals reported per second; the rest is counted, so that a flood does not become a flood of log lines.
const REPORTS_PER_SECOND: u32 = 20;

/// How long to leave the listener alone after an accept error that only time can cure (no descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const CONTROL: usize = 0;
const LISTENER: usize = 1;
const FIRST_WAITING: usize = 2;

struct Waiting {
    socket: TcpStream,
    peer: SocketAddr,
    deadline: Instant,
}

/// The open port and everything that waits at it.
pub struct Gate {
    listener: TcpListener,
    control: Control,
    limits: Limits,
    /// In order of arrival, so that the first has the nearest deadline.
    waiting: Vec<Waiting>,
    polled: Vec<libc::pollfd>,
    peeked: Box<[u8; LARGEST_HELLO]>,
    joined: Box<[u8; LARGEST_HELLO]>,
    accept_after: Option<Instant>,
    reports: Reports,
}

impl Gate {
    pub fn new(listener: TcpListener, control: Control, limits: Limits) -> Self {
        Self {
            listener,
            control,
            limits,
            waiting: Vec::with_capacity(limits.connections),
            polled: Vec::with_capacity(limits.connections + FIRST_WAITING),
            peeked: Box::new([0; LARGEST_HELLO]),
            joined: Box::new([0; LARGEST_HELLO]),
            accept_after: None,
            reports: Reports::default(),
        }
    }

    /// Serves until the control socket closes (`Ok`) or fails.
    pub fn serve(mut self) -> io::Result<()> {
        let address = self.listener.local_addr()?;
        self.control.report(&Event::Listening { address })?;
        loop {
            self.poll()?;
            // The agent never writes to the gate; readable means that it closed its end.
            if self.polled[CONTROL].revents != 0 {
                return Ok(());
            }
            self.examine_waiting()?;
            if self.polled[LISTENER].revents != 0 {
                self.accept()?;
            }
        }
    }

    fn poll(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let accepting = self.accept_after.is_none_or(|time| time <= now);
        if accepting {
            self.accept_after = None;
        }
        self.polled.clear();
        self.polled.push(readable(self.control.as_raw_fd()));
        // poll ignores a negative descriptor.
        self.polled.push(readable(if accepting {
            self.listener.as_raw_fd()
        } else {
            -1
        }));
        self.polled
            .extend(self.waiting.iter().map(|w| readable(w.socket.as_raw_fd())));

        let next = self
            .waiting
            .first()
            .map(|w| w.deadline)
            .into_iter()
            .chain(self.accept_after)
            .min();
        let timeout = match next {
            None => -1,
            // Rounded up, or the last millisecond before a deadline would be spent spinning.
            Some(time) => time.saturating_duration_since(now).as_millis() as libc::c_int + 1,
        };
        // SAFETY: the pointer and count describe the vector; poll writes only `revents`.
        let ready = unsafe {
            libc::poll(
                self.polled.as_mut_ptr(),
                self.polled.len() as libc::nfds_t,
                timeout,
            )
        };
        if ready < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
            self.polled.iter_mut().for_each(|p| p.revents = 0);
        }
        Ok(())
    }

    /// Looks at each connection that has become readable or late; those that are decided leave the list.
    fn examine_waiting(&mut self) -> io::Result<()> {
        let now = Instant::now();
        // From the back, so that a removal leaves the positions still to be visited as they were polled.
        for index in (0..self.waiting.len()).rev() {
            let entry = &self.waiting[index];
            let verdict = if self.polled[FIRST_WAITING + index].revents != 0 {
                examine(&entry.socket, &mut self.peeked, &mut self.joined)
            } else if entry.deadline <= now {
                Err(Refusal("no whole ClientHello in time"))
            } else {
                continue;
            };
            match verdict {
                Ok(Seen::Needs(count)) => wake_at(&entry.socket, count)?,
                Ok(Seen::Hello(sni)) => {
                    let Waiting { socket, peer, .. } = self.waiting.remove(index);
                    wake_at(&socket, 1)?;
                    self.control.pass(socket, peer, sni)?;
                }
                Err(refusal) => {
                    let peer = self.waiting.remove(index).peer;
                    self.reports.refused(&self.control, peer, refusal, now)?;
                }
            }
        }
        Ok(())
    }

    /// Takes one connection from the backlog; `poll` says at once if there are more.
    fn accept(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let (socket, peer) = match self.listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                if !accept_error_has_passed(&error) {
                    self.accept_after = Some(now + ACCEPT_PAUSE);
                }
                return Ok(());
            }
        };
        if self.waiting.len() == self.limits.connections {
            // An honest ClientHello arrives within a round trip, so the longest-waiting is the least likely honest one.
            let oldest = self.waiting.remove(0);
            let refusal = Refusal("too many connections without a ClientHello");
            self.reports
                .refused(&self.control, oldest.peer, refusal, now)?;
        }
        self.waiting.push(Waiting {
            socket,
            peer,
            deadline: now + self.limits.patience,
        });
        Ok(())
    }
}

fn examine<'a>(
    socket: &TcpStream,
    peeked: &mut [u8; LARGEST_HELLO],
    joined: &'a mut [u8; LARGEST_HELLO],
) -> Result<Seen<'a>, Refusal> {
    // SAFETY: the pointer and length describe the buffer.
    let count = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            peeked.as_mut_ptr().cast(),
            peeked.len(),
            libc::MSG_PEEK | libc::MSG_DONTWAIT,
        )
    };
    if count < 0 {
        return match io::Error::last_os_error().kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(Seen::Needs(1)),
            _ => Err(Refusal("connection reset before its ClientHello")),
        };
    }
    let bytes = &peeked[..count as usize];
    match server_name(bytes, joined)? {
        // `poll` woke us with fewer bytes than asked for: no more will come.
        Seen::Needs(_) if bytes.is_empty() || has_ended(socket) => {
            Err(Refusal("connection closed before its ClientHello"))
        }
        seen => Ok(seen),
    }
}

/// Whether the peer has said that it sends nothing more.
fn has_ended(socket: &TcpStream) -> bool {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: one pollfd, zero timeout.
    unsafe { libc::poll(&mut poll, 1, 0) > 0 }
}

/// Makes `poll` report `socket` once `count` bytes lie in its buffer.
fn wake_at(socket: &TcpStream, count: usize) -> io::Result<()> {
    let count = count as libc::c_int;
    // SAFETY: the option takes one int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const count).cast(),
            std::mem::size_of_val(&count) as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn readable(fd: RawFd) -> libc::pollfd {
    libc::pollfd {
        fd,
        events: libc::POLLIN | libc::POLLRDHUP,
        revents: 0,
    }
}

/// Errors that belong to the connection that was about to be accepted (accept(2)), not to the listener.
fn accept_error_has_passed(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// Keeps the rate of refusal reports within bounds.
#[derive(Default)]
struct Reports {
    second: Option<Instant>,
    made: u32,
    left_out: u64,
}

impl Reports {
    fn refused(
        &mut self,
        control: &Control,
        peer: SocketAddr,
        Refusal(reason): Refusal,
        now: Instant,
    ) -> io::Result<()> {
        if self
            .second
            .is_none_or(|start| now.duration_since(start) >= Duration::from_secs(1))
        {
            self.second = Some(now);
            self.made = 0;
        }
        if self.made == REPORTS_PER_SECOND {
            self.left_out += 1;
            return Ok(());
        }
        self.made += 1;
        let unreported = std::mem::take(&mut self.left_out);
        control.report(&Event::Refused {
            peer,
            reason,
            unreported,
        })
    }
}
