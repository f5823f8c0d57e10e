//! The session's part of the server's cache: the tenant's pieces, and what this session adds to them.
//!
//! The cache is another process (`harp-cache`), which knows whose this session is; this one opens no file. A session
//! without a cache, or whose cache has gone, has all its bytes sent to it and keeps none.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use harp_content::channel::{
    self, decode_list, list_bytes, wait_readable, Listed, Message, ABSENT, DAMAGED, KEEP, KEPT,
    OFFER, SLOTS, TAKE, TAKEN,
};
use harp_content::{
    Key, Name, MOST_FETCHED, MOST_LISTED, PIECE, SHORTEST_IMAGE, SHORTEST_PAYLOAD, SHORTEST_REST,
};

use super::Violation;

/// How long the cache may take to answer before the session goes on without it.
const PATIENCE_MS: i32 = 2000;

/// A piece that took so long to come waits for the cache if that is behind, for as long as it took, within a bound. What
/// comes sooner would wait longer than it takes to send it again.
const SLOW: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// Places on the devices that are remembered to have been written.
const MOST_WRITTEN: usize = 1 << 16;

/// Pieces that a session may know of: those it began with, and those it added.
const MOST_KNOWN: usize = 1 << 16;

#[derive(Default)]
pub struct Cache {
    link: Option<Link>,
    /// By the numbers that the client has for them.
    listed: Vec<Listed>,
    names: HashSet<Name>,
    /// What the client has asked for last, by number.
    fetched: HashMap<u32, Vec<u8>>,
    /// Memory of what it asked for before: touched already.
    spare: Vec<Vec<u8>>,
    payload: Payload,
    /// When the last piece of a payload began.
    begun: Option<Instant>,
    /// Where payloads have begun.
    written: HashSet<u64>,
    /// Bytes that did not have to be sent.
    pub spared: u64,
}

/// The way to the cache.
struct Link {
    socket: OwnedFd,
    key: Key,
    slots: Slots,
    free: Vec<u32>,
}

/// What is being copied to a device, and kept on the way.
#[derive(Default)]
struct Payload {
    /// The slot that its piece is being written to, and how much is there.
    open: Option<(u32, usize)>,
    /// Where it will end.
    end: u64,
    /// That one was worth keeping, so what follows it at once is the rest of it.
    goes_on: bool,
}

impl Cache {
    /// The cache at the other end of `socket`.
    ///
    /// # Errors
    /// What keeps the session from using it.
    pub fn begin(socket: OwnedFd) -> io::Result<Self> {
        if !wait_readable(&socket, PATIENCE_MS)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let (offer, descriptors) = channel::receive(socket.as_raw_fd())?.ok_or_else(gone)?;
        let pieces = offer.number as usize;
        let fits = offer.kind == OFFER && pieces <= MOST_LISTED && offer.amount == SLOTS as u64;
        let (true, [list, slots]) = (fits, descriptors.as_slice()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let list = read_list(list, list_bytes(pieces))?;
        let (key, listed) = decode_list(&list).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self {
            names: listed.iter().map(|piece| piece.name).collect(),
            listed,
            link: Some(Link {
                key,
                slots: Slots::new(slots)?,
                free: (0..SLOTS as u32).collect(),
                socket,
            }),
            ..Self::default()
        })
    }

    /// What the client is told of it when it is let in: the key, then the fingerprints of the pieces. Nothing where
    /// there is no cache.
    pub fn welcome(&self) -> Vec<u8> {
        let Some(link) = &self.link else {
            return Vec::new();
        };
        let mut told = link.key.0.to_vec();
        told.extend(self.fingerprints(0));
        told
    }

    fn fingerprints(&self, from: usize) -> impl Iterator<Item = u8> + '_ {
        let new = self.listed.get(from..).unwrap_or_default();
        new.iter().flat_map(|piece| piece.fingerprint.to_le_bytes())
    }

    /// The fingerprints of the pieces after the first `known` ones.
    pub fn list(&mut self, known: u32) -> Vec<u8> {
        self.hear();
        self.fingerprints(known as usize).collect()
    }

    /// Holds these pieces ready, and no others. The first halves of their names; zeros for those that are not there.
    pub fn fetch(&mut self, pieces: &[u32]) -> Result<Vec<u8>, Violation> {
        if pieces.len() > MOST_FETCHED {
            return Err(Violation::new(format!(
                "{} pieces asked for at a time",
                pieces.len()
            )));
        }
        self.fetched.retain(|number, content| {
            let stays = pieces.contains(number);
            if !stays {
                self.spare.push(std::mem::take(content));
            }
            stays
        });
        let mut checks = Vec::with_capacity(16 * pieces.len());
        for number in pieces {
            let name = self.name_of(*number)?;
            if !self.fetched.contains_key(number) {
                let mut content = self.spare.pop().unwrap_or_default();
                if self.take(name, &mut content) {
                    self.fetched.insert(*number, content);
                }
            }
            let check = match self.fetched.contains_key(number) {
                true => name.check(),
                false => [0; 2],
            };
            let words = check.into_iter().flat_map(u64::to_le_bytes);
            checks.extend(words);
        }
        Ok(checks)
    }

    fn name_of(&self, number: u32) -> Result<Name, Violation> {
        let listed = self.listed.get(number as usize);
        let piece = listed.ok_or_else(|| Violation::new(format!("there is no piece {number}")))?;
        Ok(piece.name)
    }

    /// A piece that has been fetched, for a client that has it itself.
    pub fn fetched(&mut self, number: u32, proof: [u64; 2]) -> Result<&[u8], Violation> {
        let name = self.name_of(number)?;
        if !name.is_proved_by(proof) {
            return Err(Violation::new("a piece that the client does not have"));
        }
        match self.fetched.get(&number) {
            Some(content) => {
                self.spared += content.len() as u64;
                Ok(content)
            }
            None => Err(Violation::new(format!(
                "piece {number} has not been fetched"
            ))),
        }
    }

    /// The piece of that number, if it has this name and is there.
    pub fn named(&mut self, number: u32, name: Name) -> Result<Option<Vec<u8>>, Violation> {
        let own = self.name_of(number)?;
        if own.check() != name.check() || !own.is_proved_by(name.proof()) {
            return Ok(None);
        }
        let mut content = Vec::new();
        if !self.take(own, &mut content) {
            return Ok(None);
        }
        self.spared += content.len() as u64;
        Ok(Some(content))
    }

    /// Reads a piece, and sees that it is what it is called. False where it cannot be had.
    fn take(&mut self, name: Name, content: &mut Vec<u8>) -> bool {
        let Some(link) = &self.link else { return false };
        let asked = Message::about(TAKE, name);
        let sent = channel::send(link.socket.as_raw_fd(), &asked, &[]);
        let answered = sent.and_then(|()| self.answer(name));
        let (length, file) = match answered {
            Ok(Some(answer)) => answer,
            Ok(None) => return false,
            Err(_) => {
                self.link = None;
                return false;
            }
        };
        let Some(link) = &self.link else { return false };
        content.resize(length, 0);
        if read_file(&file, content) && link.key.name(content) == name {
            return true;
        }
        let damaged = Message::about(DAMAGED, name);
        let _ = channel::send(link.socket.as_raw_fd(), &damaged, &[]);
        false
    }

    /// What the cache has of a piece: its length and its file.
    fn answer(&mut self, name: Name) -> io::Result<Option<(usize, OwnedFd)>> {
        loop {
            let (message, descriptors) = self.next_message()?;
            match message.kind {
                KEPT => self.note_kept(&message),
                ABSENT if message.name == name => return Ok(None),
                TAKEN if message.name == name => {
                    let file = descriptors.into_iter().next();
                    let length = usize::try_from(message.amount).unwrap_or(usize::MAX);
                    return Ok(file.filter(|_| length <= PIECE).map(|file| (length, file)));
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    /// Waits for the cache to say something.
    fn next_message(&self) -> io::Result<(Message, Vec<OwnedFd>)> {
        let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let link = self.link.as_ref().ok_or_else(gone)?;
        if !wait_readable(&link.socket, PATIENCE_MS)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        channel::receive(link.socket.as_raw_fd())?.ok_or_else(gone)
    }

    /// Takes in what the cache has said so far.
    fn hear(&mut self) {
        while let Some(link) = &self.link {
            match channel::receive(link.socket.as_raw_fd()) {
                Ok(Some((message, _))) if message.kind == KEPT => self.note_kept(&message),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                _ => self.link = None,
            }
        }
    }

    /// A slot is free again, and what was in it can be asked for.
    fn note_kept(&mut self, message: &Message) {
        if let Some(link) = &mut self.link {
            link.free.push(message.number);
        }
        let (name, fingerprint) = (message.name, message.amount);
        let is_kept = name != Name([0; Name::BYTES]);
        if is_kept && self.listed.len() < MOST_KNOWN && self.names.insert(name) {
            self.listed.push(Listed { name, fingerprint });
        }
    }

    /// A slot that is free now.
    fn free_slot(&mut self) -> Option<u32> {
        if self.link.as_ref()?.free.is_empty() {
            self.hear();
        }
        self.link.as_mut()?.free.pop()
    }

    /// A slot for a piece of a payload, which may be worth a wait.
    fn slot_for_payload(&mut self) -> Option<u32> {
        let now = Instant::now();
        let took = self
            .begun
            .replace(now)
            .map_or(Duration::ZERO, |begun| now - begun);
        let patience = if took < SLOW {
            Duration::ZERO
        } else {
            took.min(LONGEST_WAIT)
        };
        loop {
            if let Some(slot) = self.free_slot() {
                return Some(slot);
            }
            let left = patience.saturating_sub(now.elapsed()).as_millis() as i32;
            let socket = &self.link.as_ref()?.socket;
            if left == 0 || !wait_readable(socket, left).unwrap_or(false) {
                return None;
            }
        }
    }

    /// Has what is in a slot kept.
    fn keep(&mut self, slot: u32, bytes: usize) {
        let Some(link) = &self.link else { return };
        let message = Message::of_numbers(KEEP, slot, bytes as u64);
        if channel::send(link.socket.as_raw_fd(), &message, &[]).is_err() {
            self.link = None;
        }
    }

    /// Keeps a piece of an image. A program's start has few of them, and its next one is to find all: so this waits for
    /// the cache to take it.
    pub fn keep_image(&mut self, piece: &[u8]) {
        if piece.len() < SHORTEST_IMAGE || piece.len() > PIECE {
            return;
        }
        let slot = loop {
            match self.free_slot() {
                Some(slot) => break slot,
                None if self.link.is_none() => return,
                None => match self.next_message() {
                    Ok((message, _)) if message.kind == KEPT => self.note_kept(&message),
                    _ => self.link = None,
                },
            }
        };
        if let Some(link) = &mut self.link {
            link.slots.write(slot, 0, piece);
        }
        self.keep(slot, piece.len());
    }

    /// A payload of so many bytes is to be copied to a device. It is kept if it is likely to come again: what is
    /// written to a place for the first time in a session, as a model's weights are; what is written there later is
    /// data that passes through. Where the cache is behind, a piece is left out, unless it has been slow to come.
    pub fn begin_payload(&mut self, address: u64, bytes: usize) {
        if self.link.is_none() {
            return;
        }
        let is_rest = self.payload.goes_on && self.payload.end == address;
        let is_long = bytes >= SHORTEST_PAYLOAD || is_rest && bytes >= SHORTEST_REST;
        let is_new = is_long && self.written.len() < MOST_WRITTEN && self.written.insert(address);
        self.payload = Payload {
            open: if is_new {
                self.slot_for_payload().map(|slot| (slot, 0))
            } else {
                None
            },
            end: address.wrapping_add(bytes as u64),
            goes_on: is_new,
        };
    }

    /// The next bytes of the payload.
    pub fn add_to_payload(&mut self, mut bytes: &[u8]) {
        while let (Some((slot, filled)), false) = (self.payload.open, bytes.is_empty()) {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - filled));
            if let Some(link) = &mut self.link {
                link.slots.write(slot, filled, now);
            }
            bytes = later;
            let filled = filled + now.len();
            self.payload.open = Some((slot, filled));
            if filled == PIECE {
                self.keep(slot, filled);
                self.payload.open = self.slot_for_payload().map(|slot| (slot, 0));
            }
        }
    }

    /// The payload is complete; or it is not, and is not kept.
    pub fn end_payload(&mut self, complete: bool) {
        let Some((slot, filled)) = self.payload.open.take() else {
            return;
        };
        if complete && filled >= SHORTEST_REST {
            self.keep(slot, filled);
        } else if let Some(link) = &mut self.link {
            link.free.push(slot);
        }
    }
}

/// The memory that is shared with the cache.
struct Slots(NonNull<u8>);

// SAFETY: written through raw pointers by whoever has the session, one at a time.
unsafe impl Send for Slots {}

const SLOTS_BYTES: usize = SLOTS * PIECE;

impl Slots {
    fn new(shared: &OwnedFd) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        map(shared, SLOTS_BYTES, protection).map(Self)
    }

    fn write(&mut self, slot: u32, at: usize, bytes: &[u8]) {
        let slot = slot as usize;
        assert!(slot < SLOTS && at + bytes.len() <= PIECE);
        // SAFETY: within the mapping, which is never given up; the cache only reads there.
        unsafe {
            let place = self.0.as_ptr().add(slot * PIECE + at);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
        }
    }
}

/// The first bytes of the list that the cache has made.
fn read_list(list: &OwnedFd, bytes: usize) -> io::Result<Vec<u8>> {
    let place = map(list, bytes, libc::PROT_READ)?;
    // SAFETY: the mapping, which nobody else knows; the file is at least as long.
    unsafe {
        let content = std::slice::from_raw_parts(place.as_ptr(), bytes).to_vec();
        libc::munmap(place.as_ptr().cast(), bytes);
        Ok(content)
    }
}

/// Maps the beginning of a file that lies in memory.
fn map(file: &OwnedFd, bytes: usize, protection: libc::c_int) -> io::Result<NonNull<u8>> {
    // SAFETY: an all-zero stat is one, and lives; a new mapping that replaces nothing.
    unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        // The library's function makes a call that finds files by their names, which the jail refuses.
        if libc::syscall(libc::SYS_fstat, file.as_raw_fd(), &raw mut status) < 0 {
            return Err(io::Error::last_os_error());
        }
        if (status.st_size as u64) < bytes as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mapped = libc::mmap(
            std::ptr::null_mut(),
            bytes,
            protection,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(NonNull::new(mapped.cast()).expect("not at zero"))
    }
}

/// Fills `rest` from a file; false where that has fewer bytes.
fn read_file(file: &OwnedFd, mut rest: &mut [u8]) -> bool {
    while !rest.is_empty() {
        // SAFETY: the slice's own pointer and length.
        match unsafe { libc::read(file.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len()) } {
            count if count > 0 => rest = &mut rest[count as usize..],
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return false,
        }
    }
    true
}
