//! One session's channel: its worker's wishes, and the memory that the two share.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use harp_content::channel::{
    self, encode_list, Listed, Message, ABSENT, DAMAGED, KEEP, KEPT, OFFER, SLOTS, TAKE, TAKEN,
};
use harp_content::{Key, Name, PIECE};

use crate::folder::{check, write_all};
use crate::store::TenantId;

/// What a worker wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Take(Name),
    Damaged(Name),
    /// The content of so many bytes in that slot.
    Keep {
        slot: usize,
        bytes: usize,
    },
}

pub struct Session {
    pub tenant: TenantId,
    socket: OwnedFd,
    slots: Slots,
    /// Slots whose content has not been kept yet.
    busy: [AtomicBool; SLOTS],
}

impl Session {
    /// Tells the worker at the other end of `socket` what there is.
    ///
    /// # Errors
    /// What the system says.
    pub fn begin(
        tenant: TenantId,
        socket: OwnedFd,
        key: &Key,
        pieces: &[Listed],
    ) -> io::Result<Session> {
        let list = memory(c"harp-list")?;
        write_all(&list, &encode_list(key, pieces))?;
        let (slots, shared) = Slots::new()?;
        let offer = Message::of_numbers(OFFER, pieces.len() as u32, SLOTS as u64);
        let given = [list.as_raw_fd(), shared.as_raw_fd()];
        channel::send(socket.as_raw_fd(), &offer, &given)?;
        Ok(Session {
            tenant,
            socket,
            slots,
            busy: [const { AtomicBool::new(false) }; SLOTS],
        })
    }

    /// The next wish, if there is one now. `None` where the worker is gone.
    ///
    /// # Errors
    /// `WouldBlock` where there is none now; `InvalidData` where a worker says what none says.
    pub fn wish(&self) -> io::Result<Option<Wish>> {
        let Some((message, _)) = channel::receive(self.socket.as_raw_fd())? else {
            return Ok(None);
        };
        let wish = match message.kind {
            TAKE => Wish::Take(message.name),
            DAMAGED => Wish::Damaged(message.name),
            KEEP => self.to_keep(&message)?,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        Ok(Some(wish))
    }

    fn to_keep(&self, message: &Message) -> io::Result<Wish> {
        let slot = message.number as usize;
        let fits = slot < SLOTS && message.amount > 0 && message.amount <= PIECE as u64;
        if !fits || self.busy[slot].swap(true, Ordering::AcqRel) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Wish::Keep {
            slot,
            bytes: message.amount as usize,
        })
    }

    /// Answers [`Wish::Take`].
    ///
    /// # Errors
    /// What the system says.
    pub fn give(&self, name: Name, found: Option<(OwnedFd, u64)>) -> io::Result<()> {
        let mut message = Message::about(ABSENT, name);
        match found {
            None => channel::send(self.socket.as_raw_fd(), &message, &[]),
            Some((file, bytes)) => {
                (message.kind, message.amount) = (TAKEN, bytes);
                channel::send(self.socket.as_raw_fd(), &message, &[file.as_raw_fd()])
            }
        }
    }

    /// A copy of what is in a slot: the worker may write there while it is looked at.
    pub fn content(&self, slot: usize, bytes: usize, into: &mut Vec<u8>) {
        self.slots.read(slot, bytes, into);
    }

    /// The slot is free again; what was in it has been kept under this name, or not at all.
    pub fn kept(&self, slot: usize, kept: Option<Listed>) {
        let mut message = Message::of_numbers(KEPT, slot as u32, 0);
        if let Some(piece) = kept {
            (message.name, message.amount) = (piece.name, piece.fingerprint);
        }
        self.busy[slot].store(false, Ordering::Release);
        // A worker that is gone or does not listen loses the slot, and nothing else.
        let _ = channel::send(self.socket.as_raw_fd(), &message, &[]);
    }
}

impl AsRawFd for Session {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Memory that is shared with the worker.
struct Slots(NonNull<u8>);

// SAFETY: the memory is read through raw pointers only, whatever the worker does to it meanwhile.
unsafe impl Send for Slots {}
// SAFETY: as above.
unsafe impl Sync for Slots {}

const SLOTS_BYTES: usize = SLOTS * PIECE;

impl Slots {
    fn new() -> io::Result<(Slots, OwnedFd)> {
        let shared = memory(c"harp-slots")?;
        // SAFETY: plain system calls; a new mapping of all of the file, which cannot be made shorter.
        unsafe {
            check(libc::ftruncate(shared.as_raw_fd(), SLOTS_BYTES as i64))?;
            let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
            check(libc::fcntl(shared.as_raw_fd(), libc::F_ADD_SEALS, seals))?;
            let mapped = libc::mmap(
                std::ptr::null_mut(),
                SLOTS_BYTES,
                libc::PROT_READ,
                libc::MAP_SHARED,
                shared.as_raw_fd(),
                0,
            );
            if mapped == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let place = NonNull::new(mapped.cast()).expect("not at zero");
            Ok((Slots(place), shared))
        }
    }

    fn read(&self, slot: usize, bytes: usize, into: &mut Vec<u8>) {
        assert!(slot < SLOTS && bytes <= PIECE);
        into.clear();
        into.reserve(bytes);
        // SAFETY: within the mapping; there is room for so many bytes.
        unsafe {
            let from = self.0.as_ptr().add(slot * PIECE);
            std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), bytes);
            into.set_len(bytes);
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made.
        unsafe { libc::munmap(self.0.as_ptr().cast(), SLOTS_BYTES) };
    }
}

/// A file that lies in memory.
fn memory(name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    // SAFETY: a C string; the descriptor is owned once.
    unsafe {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        let descriptor = libc::memfd_create(name.as_ptr(), flags);
        check(descriptor)?;
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}
