//! A TCP socket that never blocks by itself, and the one place where a thread sleeps for it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What to wait for, and what has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    pub read: bool,
    pub write: bool,
}

impl Interest {
    pub const READ: Interest = Interest {
        read: true,
        write: false,
    };
    pub const WRITE: Interest = Interest {
        read: false,
        write: true,
    };

    pub fn any(self) -> bool {
        self.read || self.write
    }
}

pub struct Socket {
    stream: TcpStream,
    minds_stuck: AtomicBool,
    /// Closing the descriptor resets the connection.
    resets: AtomicBool,
    /// The kernel tells of a reset once; whoever asks later sees only an end.
    reset: AtomicBool,
}

impl Socket {
    /// # Errors
    /// As the system's for setting options of the socket.
    pub fn new(stream: TcpStream) -> io::Result<Socket> {
        let stream = above_standard_streams(stream)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        keep_alive(&stream)?;
        Ok(Socket {
            stream,
            minds_stuck: AtomicBool::new(false),
            resets: AtomicBool::new(false),
            reset: AtomicBool::new(false),
        })
    }

    pub fn raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Reads what is there: `None` if that is nothing, zero at the end.
    pub fn receive(&self, target: &mut [u8]) -> io::Result<Option<usize>> {
        self.remember(attempt(|| (&self.stream).read(target)))
    }

    /// Writes what fits: `None` if that is nothing.
    pub fn send(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let sent = self.remember(attempt(|| (&self.stream).write(bytes)))?;
        if self.minds_stuck.load(Ordering::Relaxed)
            && (sent.is_none() || bytes.len() >= MINDED || self.resets.load(Ordering::Relaxed))
        {
            self.mind_unsent(sent.is_none());
        }
        Ok(sent)
    }

    fn remember<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            if error.kind() == io::ErrorKind::ConnectionReset {
                self.reset.store(true, Ordering::SeqCst);
            }
        }
        result
    }

    /// Whether the connection was reset while it was open, rather than after an orderly end.
    pub fn was_reset(&self) -> bool {
        self.reset.load(Ordering::SeqCst)
    }

    /// Whether the connection has been reset or has failed otherwise. Closed by the peer is not
    /// failed: what it has sent before can be read.
    pub fn has_failed(&self) -> bool {
        self.shows(0)
    }

    /// Whether the peer sends nothing more.
    pub fn was_hung_up(&self) -> bool {
        self.shows(libc::POLLRDHUP)
    }

    fn shows(&self, events: libc::c_short) -> bool {
        let mut entry = [libc::pollfd {
            fd: self.raw_fd(),
            events,
            revents: 0,
        }];
        poll(&mut entry, Some(Duration::ZERO)).is_ok() && entry[0].revents != 0
    }

    /// From now on the end of this process resets the connection where the peer has not taken what
    /// was sent to it. A peer that waits for something else would learn of an end in good order
    /// behind all that only after minutes.
    pub fn reset_when_stuck(&self) {
        self.minds_stuck.store(true, Ordering::Relaxed);
    }

    /// Notes whether everything written is on its way, after a write that `found_no_room` or not.
    fn mind_unsent(&self, found_no_room: bool) {
        self.reset_on_close(found_no_room || self.has_unsent());
    }

    fn reset_on_close(&self, reset: bool) {
        if reset == self.resets.swap(reset, Ordering::Relaxed) {
            return;
        }
        let linger = libc::linger {
            l_onoff: reset.into(),
            l_linger: 0,
        };
        // SAFETY: the value is live for the call. It fails only where there is no such option.
        unsafe {
            libc::setsockopt(
                self.raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                std::ptr::from_ref(&linger).cast(),
                size_of_val(&linger) as libc::socklen_t,
            );
        }
    }

    fn has_unsent(&self) -> bool {
        let mut unsent: libc::c_int = 0;
        // SAFETY: stores a number of bytes in the local, or fails where there is no such question.
        unsafe { libc::ioctl(self.raw_fd(), SIOCOUTQNSD, &mut unsent) == 0 && unsent > 0 }
    }

    /// Nothing more is written. Waits until all that was is on its way, but not beyond `deadline`: from
    /// then on closing resets after all. With no deadline what is left may take its time.
    pub fn see_off(&self, deadline: Option<Instant>) {
        const PAUSE: Duration = Duration::from_micros(500);
        let late = |deadline| Instant::now() >= deadline;
        while deadline.is_some_and(|deadline| !late(deadline)) && self.has_unsent() {
            std::thread::sleep(PAUSE);
        }
        self.reset_on_close(deadline.is_some() && self.has_unsent());
    }

    pub fn close_sending(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Sleeps until the socket is ready for one of `interest`, `bell` rings or `deadline` has
    /// passed. An error of the socket counts as readiness: the next call on it tells.
    pub fn wait(
        &self,
        interest: Interest,
        bell: Option<&Bell>,
        deadline: Option<Instant>,
    ) -> io::Result<Interest> {
        let mut events = 0;
        if interest.read {
            events |= libc::POLLIN;
        }
        if interest.write {
            events |= libc::POLLOUT;
        }
        // With no interest the descriptor is left out: a hang-up would end the sleep at once.
        let socket = if interest.any() { self.raw_fd() } else { -1 };
        let bell_fd = bell.map_or(-1, |bell| bell.file.as_raw_fd());
        let mut entries = [
            libc::pollfd {
                fd: socket,
                events,
                revents: 0,
            },
            libc::pollfd {
                fd: bell_fd,
                events: libc::POLLIN,
                revents: 0,
            },
        ];
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        poll(&mut entries, timeout)?;
        if entries[1].revents != 0 {
            if let Some(bell) = bell {
                bell.silence();
            }
        }
        let ready = entries[0].revents;
        let failed = ready & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0;
        Ok(Interest {
            read: interest.read && (failed || ready & libc::POLLIN != 0),
            write: interest.write && (failed || ready & libc::POLLOUT != 0),
        })
    }
}

/// A program may run without standard streams and print all the same: no descriptor of ours may
/// have a number that it would print to.
fn above_standard_streams<T>(file: T) -> io::Result<T>
where
    T: AsRawFd + FromRawFd,
{
    const FIRST_FREE: RawFd = libc::STDERR_FILENO + 1;
    if file.as_raw_fd() >= FIRST_FREE {
        return Ok(file);
    }
    // SAFETY: makes a new descriptor, which is owned by the value that is returned.
    unsafe {
        let fd = libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, FIRST_FREE);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(T::from_raw_fd(fd))
    }
}

/// From this size on a write is looked after ([`Socket::reset_when_stuck`]).
const MINDED: usize = 4 << 10;

/// Bytes that were written and not sent yet (linux/sockios.h).
const SIOCOUTQNSD: libc::c_ulong = 0x894b;

/// Has the kernel ask a silent peer for a sign of life, so that a host that is gone ends the link
/// after some 40 s. A stopped process is no such host: its kernel answers.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    const OPTIONS: [(libc::c_int, libc::c_int, libc::c_int); 4] = [
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 20),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 5),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 4),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
    ];
    for (level, name, value) in OPTIONS {
        let len = size_of_val(&value) as libc::socklen_t;
        let pointer = std::ptr::from_ref(&value).cast();
        // SAFETY: the value is live for the call, and `len` is its size.
        if unsafe { libc::setsockopt(stream.as_raw_fd(), level, name, pointer, len) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn attempt(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(len) => return Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sleeps at most `timeout`; a signal ends the sleep early with nothing ready.
fn poll(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout
        .as_ref()
        .map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the entries and the time are live for the call; no signal mask is given.
    let ready = unsafe {
        libc::ppoll(
            entries.as_mut_ptr(),
            entries.len() as libc::nfds_t,
            timeout,
            std::ptr::null(),
        )
    };
    if ready >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.kind() != io::ErrorKind::Interrupted {
        return Err(error);
    }
    for entry in entries {
        entry.revents = 0;
    }
    Ok(())
}

/// Wakes one half of a link that sleeps in [`Socket::wait`] from the other half.
pub struct Bell {
    file: File,
}

impl Bell {
    /// # Errors
    /// As eventfd(2).
    pub fn new() -> io::Result<Bell> {
        // SAFETY: takes no pointers; the descriptor is new and owned by the file alone.
        let file = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            File::from_raw_fd(fd)
        };
        let file = above_standard_streams(file)?;
        Ok(Bell { file })
    }

    pub fn ring(&self) {
        // It fails only when 2^64 - 2 rings have not been heard.
        let _ = (&self.file).write(&1u64.to_ne_bytes());
    }

    fn silence(&self) {
        let mut count = [0; 8];
        let _ = (&self.file).read(&mut count);
    }
}
