//! Between a worker and the cache: messages of one size over a `SOCK_SEQPACKET` Unix socket.
//!
//! | who | message | number | amount | name | descriptors |
//! |---|---|---|---|---|---|
//! | cache, first | [`OFFER`] | pieces in the list | slots | | the list, the slots |
//! | worker | [`TAKE`] | | | what it wants | |
//! | cache | [`TAKEN`] | | bytes | the same | the content's file |
//! | cache | [`ABSENT`] | | | the same | |
//! | worker | [`DAMAGED`] | | | whose content is not what it is called | |
//! | worker | [`KEEP`] | slot | bytes | | |
//! | cache | [`KEPT`], when the slot is free again | slot | fingerprint | what was kept; zeros: nothing was | |
//!
//! The list is a file in memory: the tenant's [`Key`], then a [`Listed`] for each piece, in the order in which they were
//! last used. The slots are shared memory of so many times [`PIECE`](crate::PIECE) bytes: the worker writes a content
//! into a slot and says `KEEP`, and does not touch it again before the cache has said `KEPT`.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::{Key, Name};

pub const OFFER: u32 = 1;
pub const TAKE: u32 = 2;
pub const TAKEN: u32 = 3;
pub const ABSENT: u32 = 4;
pub const DAMAGED: u32 = 5;
pub const KEEP: u32 = 6;
pub const KEPT: u32 = 7;

/// Slots of a session.
pub const SLOTS: usize = 32;

/// Descriptors that one message may bring.
const MOST_DESCRIPTORS: usize = 2;

/// A message. What its numbers mean is in the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: u32,
    pub number: u32,
    pub amount: u64,
    pub name: Name,
}

impl Message {
    pub const BYTES: usize = 16 + Name::BYTES;

    /// A message about a name alone.
    pub fn about(kind: u32, name: Name) -> Message {
        Message {
            kind,
            number: 0,
            amount: 0,
            name,
        }
    }

    /// A message of numbers alone.
    pub fn of_numbers(kind: u32, number: u32, amount: u64) -> Message {
        Message {
            kind,
            number,
            amount,
            name: Name([0; Name::BYTES]),
        }
    }

    fn encode(&self) -> [u8; Message::BYTES] {
        let mut bytes = [0; Message::BYTES];
        bytes[..4].copy_from_slice(&self.kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.amount.to_le_bytes());
        bytes[16..].copy_from_slice(&self.name.0);
        bytes
    }

    fn decode(bytes: &[u8; Message::BYTES]) -> Message {
        let four = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        Message {
            kind: four(0),
            number: four(4),
            amount: crate::word(&bytes[8..]),
            name: Name(bytes[16..].try_into().expect("the rest is a name")),
        }
    }
}

/// A piece in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: Name,
    pub fingerprint: u64,
}

impl Listed {
    const BYTES: usize = Name::BYTES + 8;
}

/// The bytes of a list.
pub fn encode_list(key: &Key, pieces: &[Listed]) -> Vec<u8> {
    let mut bytes = key.0.to_vec();
    for piece in pieces {
        bytes.extend(piece.name.0);
        bytes.extend(piece.fingerprint.to_le_bytes());
    }
    bytes
}

/// What the bytes of a list say; `None` where they are none.
pub fn decode_list(bytes: &[u8]) -> Option<(Key, Vec<Listed>)> {
    let (key, rest) = bytes.split_first_chunk::<{ Key::BYTES }>()?;
    if rest.len() % Listed::BYTES != 0 {
        return None;
    }
    let pieces = rest.chunks_exact(Listed::BYTES).map(|piece| Listed {
        name: Name(piece[..Name::BYTES].try_into().expect("as many")),
        fingerprint: crate::word(&piece[Name::BYTES..]),
    });
    Some((Key(*key), pieces.collect()))
}

/// The length of a list of so many pieces.
pub fn list_bytes(pieces: usize) -> usize {
    Key::BYTES + pieces * Listed::BYTES
}

/// Sends a message with descriptors, at most two, without waiting for room.
///
/// # Errors
/// `WouldBlock` where the other end has not taken what it was sent before, else what the system says.
pub fn send(socket: RawFd, message: &Message, descriptors: &[RawFd]) -> io::Result<()> {
    send_bytes(socket, &message.encode(), descriptors)
}

/// Sends one packet of any bytes, as [`send`] does a message.
///
/// # Errors
/// As [`send`].
pub fn send_bytes(socket: RawFd, bytes: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
    assert!(descriptors.len() <= MOST_DESCRIPTORS);
    let mut space = Ancillary::default();
    let mut part = libc::iovec {
        // It is only read.
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all-zero is a valid msghdr; its pointers are to live buffers of the lengths given, and the descriptors
    // are written into a control message that has room for as many.
    let sent = unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        if !descriptors.is_empty() {
            let length = mem::size_of_val(descriptors) as u32;
            header.msg_control = (&raw mut space).cast();
            header.msg_controllen = libc::CMSG_SPACE(length) as _;
            let control = libc::CMSG_FIRSTHDR(&header);
            (*control).cmsg_level = libc::SOL_SOCKET;
            (*control).cmsg_type = libc::SCM_RIGHTS;
            (*control).cmsg_len = libc::CMSG_LEN(length) as _;
            let place = libc::CMSG_DATA(control).cast::<RawFd>();
            for (index, descriptor) in descriptors.iter().enumerate() {
                place.add(index).write_unaligned(*descriptor);
            }
        }
        libc::sendmsg(socket, &header, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
    };
    match sent {
        count if count == bytes.len() as isize => Ok(()),
        count if count >= 0 => Err(io::Error::other("a message was cut")),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The next message and the descriptors that came with it, without waiting for one. `None` where the other end is gone.
///
/// # Errors
/// `WouldBlock` where there is none now, `InvalidData` for what is no message, else what the system says.
pub fn receive(socket: RawFd) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
    // One byte more, so that a longer message is seen to be one.
    let mut bytes = [0; Message::BYTES + 1];
    let (count, descriptors) = receive_bytes(socket, &mut bytes)?;
    match count {
        0 => Ok(None),
        Message::BYTES => {
            let bytes = bytes.first_chunk().expect("there is one byte more");
            Ok(Some((Message::decode(bytes), descriptors)))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a message")),
    }
}

/// One packet, without waiting for it: how many bytes of it are in `bytes`, and its descriptors.
///
/// # Errors
/// As [`receive`].
pub fn receive_bytes(socket: RawFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    receive_packet(socket, bytes, libc::MSG_DONTWAIT)
}

/// As [`receive_bytes`], but waits for the packet.
///
/// # Errors
/// As [`receive`], but for `WouldBlock`.
pub fn await_bytes(socket: RawFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    loop {
        match receive_packet(socket, bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            done => return done,
        }
    }
}

fn receive_packet(
    socket: RawFd,
    bytes: &mut [u8],
    flags: libc::c_int,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = Ancillary::default();
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all-zero is a valid msghdr; the pointers put into it are to live buffers of the lengths given; the kernel
    // wrote the control messages that are walked, and each descriptor in them is owned once.
    unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut space).cast();
        header.msg_controllen = mem::size_of_val(&space) as _;
        let count = libc::recvmsg(socket, &mut header, flags | libc::MSG_CMSG_CLOEXEC);
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut descriptors = Vec::new();
        let mut next = libc::CMSG_FIRSTHDR(&header);
        while let Some(control) = next.as_ref() {
            if control.cmsg_level == libc::SOL_SOCKET && control.cmsg_type == libc::SCM_RIGHTS {
                let length = control.cmsg_len - libc::CMSG_LEN(0) as usize;
                let place = libc::CMSG_DATA(next).cast::<RawFd>();
                for index in 0..length / mem::size_of::<RawFd>() {
                    descriptors.push(OwnedFd::from_raw_fd(place.add(index).read_unaligned()));
                }
            }
            next = libc::CMSG_NXTHDR(&header, next);
        }
        if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message that is too long",
            ));
        }
        Ok((count as usize, descriptors))
    }
}

/// Two ends of a socket for messages.
///
/// # Errors
/// What the system says.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends: [RawFd; 2] = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors, each owned once from here on.
    unsafe {
        if libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Waits until a socket has something to read, or its other end is gone. False where neither comes in time.
///
/// # Errors
/// What the system says.
pub fn wait_readable(socket: &impl AsRawFd, milliseconds: i32) -> io::Result<bool> {
    let mut polled = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    loop {
        // SAFETY: one pollfd.
        match unsafe { libc::poll(&mut polled, 1, milliseconds) } {
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            ready => return Ok(ready > 0),
        }
    }
}

/// Room for the control message of `MOST_DESCRIPTORS` descriptors.
#[derive(Default)]
#[repr(C, align(8))]
struct Ancillary([u64; 2 + MOST_DESCRIPTORS]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive() {
        let (here, there) = pair().unwrap();
        let message = Message {
            kind: TAKEN,
            number: 5,
            amount: 1 << 40,
            name: Name([3; 32]),
        };
        let given = [here.as_raw_fd(), there.as_raw_fd()];
        send(here.as_raw_fd(), &message, &given).unwrap();
        let (received, descriptors) = receive(there.as_raw_fd()).unwrap().unwrap();
        assert_eq!(received, message);
        assert_eq!(descriptors.len(), 2);
        let nothing = receive(there.as_raw_fd()).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(here);
        drop(descriptors);
        assert!(receive(there.as_raw_fd()).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let (here, there) = pair().unwrap();
        for length in [1, Message::BYTES - 1, Message::BYTES + 1, 4096] {
            let bytes = vec![0u8; length];
            // SAFETY: the slice's own pointer and length.
            let sent = unsafe { libc::send(here.as_raw_fd(), bytes.as_ptr().cast(), length, 0) };
            assert_eq!(sent, length as isize);
            let refused = receive(there.as_raw_fd()).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{length}");
        }
    }

    #[test]
    fn lists_are_read_as_written_and_nothing_else_is() {
        let key = Key([1; 32]);
        let pieces = [
            Listed {
                name: Name([2; 32]),
                fingerprint: 3,
            },
            Listed {
                name: Name([4; 32]),
                fingerprint: u64::MAX,
            },
        ];
        let bytes = encode_list(&key, &pieces);
        assert_eq!(bytes.len(), list_bytes(2));
        let (read, listed) = decode_list(&bytes).unwrap();
        assert!(read == key);
        assert_eq!(listed, pieces);
        assert!(decode_list(&bytes[..bytes.len() - 1]).is_none());
        assert!(decode_list(&bytes[..31]).is_none());
        assert!(decode_list(&[]).is_none());
    }
}
