//! The gate's end of its control socket: one JSON object per SEQPACKET message, with the accepted socket attached
//! where there is one.

use std::io;
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use serde::Serialize;

/// A TLS connection for the agent, sent with its socket.
#[derive(Serialize)]
struct Connection<'a> {
    peer: SocketAddr,
    sni: Option<&'a str>,
}

/// What the agent logs; sent without a socket.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// The port is open. `address` says which one where port 0 was asked for.
    Listening { address: SocketAddr },
    /// A connection was closed unseen. `unreported` counts refusals since the last line that had to be left out.
    Refused {
        peer: SocketAddr,
        reason: &'a str,
        unreported: u64,
    },
}

/// The socket that the agent passed to the gate.
pub struct Control(OwnedFd);

impl Control {
    pub fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Tells the agent something. Waits while the agent is behind: a gate whose agent does not listen has nothing to do.
    pub fn report(&self, event: &Event) -> io::Result<()> {
        self.send(&serde_json::to_vec(event)?, None)
    }

    /// Hands a connection over. The gate's own copy of the socket closes when `socket` is dropped.
    pub fn pass(&self, socket: TcpStream, peer: SocketAddr, sni: Option<&str>) -> io::Result<()> {
        self.send(
            &serde_json::to_vec(&Connection { peer, sni })?,
            Some(socket.as_raw_fd()),
        )
    }

    fn send(&self, message: &[u8], socket: Option<RawFd>) -> io::Result<()> {
        let mut part = libc::iovec {
            iov_base: message.as_ptr() as *mut _,
            iov_len: message.len(),
        };
        let mut ancillary = AncillarySpace::default();
        // SAFETY: all-zero is a valid msghdr; every pointer put into it outlives the call below; the control area is
        // aligned for cmsghdr and large enough for one descriptor.
        let sent = unsafe {
            let mut header: libc::msghdr = mem::zeroed();
            header.msg_iov = &mut part;
            header.msg_iovlen = 1;
            if let Some(fd) = socket {
                header.msg_control = (&raw mut ancillary).cast();
                header.msg_controllen = libc::CMSG_SPACE(FD_BYTES) as _;
                let first = libc::CMSG_FIRSTHDR(&header);
                (*first).cmsg_level = libc::SOL_SOCKET;
                (*first).cmsg_type = libc::SCM_RIGHTS;
                (*first).cmsg_len = libc::CMSG_LEN(FD_BYTES) as _;
                libc::CMSG_DATA(first).cast::<RawFd>().write_unaligned(fd);
            }
            loop {
                let sent = libc::sendmsg(self.0.as_raw_fd(), &header, libc::MSG_NOSIGNAL);
                if sent >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                    break sent;
                }
            }
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl AsRawFd for Control {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

const FD_BYTES: u32 = mem::size_of::<RawFd>() as u32;

/// Room for one descriptor's control message.
#[derive(Default)]
#[repr(C, align(8))]
struct AncillarySpace([u8; 32]);
