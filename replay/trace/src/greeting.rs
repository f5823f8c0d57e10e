//! How a program finds its recorder: it connects to a `SOCK_SEQPACKET` Unix socket and sends one packet,
//! the program's name with the descriptors of its ring. The connection says that the program lives;
//! when it breaks, what lies in the ring is all there will be.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use harp_content::channel;

use crate::ring::RingFds;

/// The longest name of a program, in bytes.
pub const PROGRAM_MAX: usize = 1024;
/// Programs that have connected and have not been looked at.
const BACKLOG: libc::c_int = 64;

/// Hands the ring that `fds` name to the recorder at `path`, as that of `program`. The connection is to
/// be held as long as the ring is written, and closed in children that are forked.
///
/// # Errors
/// What the system says: `NotFound` and `ConnectionRefused` where there is no recorder.
pub fn greet(path: &Path, program: &str, fds: RingFds) -> io::Result<OwnedFd> {
    let address = address(path)?;
    let socket = socket()?;
    let size = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: an address of the size given.
    let connected = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), size) };
    if connected < 0 {
        return Err(io::Error::last_os_error());
    }
    greet_over(&socket, program, fds)?;
    Ok(socket)
}

/// As [`greet`], over a connection that somebody else has made.
///
/// # Errors
/// What the system says.
pub fn greet_over(socket: &OwnedFd, program: &str, fds: RingFds) -> io::Result<()> {
    let program = &program.as_bytes()[..program.len().min(PROGRAM_MAX)];
    let descriptors = [fds.memory.as_raw_fd(), fds.wake.as_raw_fd()];
    channel::send_bytes(socket.as_raw_fd(), program, &descriptors)
}

/// A socket at `path`, which is not there yet, for programs to come.
///
/// # Errors
/// What the system says; `InvalidInput` for a path that is too long.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    let address = address(path)?;
    let socket = socket()?;
    let size = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: an address of the size given.
    let listens = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) == 0
            && libc::listen(socket.as_raw_fd(), BACKLOG) == 0
    };
    match listens {
        true => Ok(socket),
        false => Err(io::Error::last_os_error()),
    }
}

fn socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the descriptor is new and nobody else's.
    unsafe {
        let descriptor = libc::socket(libc::AF_UNIX, kind, 0);
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

fn address(path: &Path) -> io::Result<libc::sockaddr_un> {
    // SAFETY: all-zero is a valid address.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    // Its last byte ends the name.
    if bytes.len() >= address.sun_path.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in address.sun_path.iter_mut().zip(bytes) {
        *place = *byte as libc::c_char;
    }
    Ok(address)
}

/// A program that has come.
#[derive(Debug)]
pub struct Greeting {
    /// What the kernel says of it.
    pub pid: i32,
    /// What it says of itself.
    pub program: String,
    pub ring: RingFds,
}

/// Takes the greeting that comes over `socket`, within `patience` milliseconds.
///
/// # Errors
/// `PermissionDenied` for another user, `TimedOut`, `InvalidData` for what is no greeting; what the
/// system says.
pub fn receive(socket: &OwnedFd, patience: i32) -> io::Result<Greeting> {
    let peer = peer(socket)?;
    // SAFETY: a query.
    if peer.uid != unsafe { libc::geteuid() } {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    if !channel::wait_readable(socket, patience)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut bytes = [0; PROGRAM_MAX];
    let (count, descriptors) = channel::receive_bytes(socket.as_raw_fd(), &mut bytes)?;
    let no_greeting = |_| io::Error::new(io::ErrorKind::InvalidData, "no greeting");
    let [memory, wake] = <[OwnedFd; 2]>::try_from(descriptors).map_err(no_greeting)?;
    Ok(Greeting {
        pid: peer.pid,
        program: String::from_utf8_lossy(&bytes[..count]).into_owned(),
        ring: RingFds { memory, wake },
    })
}

fn peer(socket: &OwnedFd) -> io::Result<libc::ucred> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut size = mem::size_of_val(&peer) as libc::socklen_t;
    let place = (&raw mut peer).cast();
    let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    // SAFETY: a query that fills in `peer`, whose size is given.
    if unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, place, &mut size) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(peer)
}
