//! The ring that carries blocks out of a program: shared memory with one writer and one reader.
//!
//! The memory outlives its writer: what was appended before a program was killed is still read. A
//! block is published only when it is whole, and appending waits for nothing but what [`Patience`] is given for.
//!
//! | offset | type | written by | meaning |
//! |---|---|---|---|
//! | 0 | u64 | writer, once | magic |
//! | 64 | u64 | writer | head: bytes ever appended |
//! | 128 | u64 | reader | tail: bytes ever taken out |
//! | 192 | u64 | reader | head from which it wants to be woken; `u64::MAX` while it is awake |
//! | 256 | u64 | writer | blocks that found no room, ever |
//! | 264 | u64 | writer | bytes of their bodies |
//! | 272 | u64 | writer | types of those that no block has told of: see [`Kinds`] |
//! | 4096 | | writer | the bytes, a power of two, each at its number modulo that |
//!
//! A block begins at a multiple of 8. The reader believes nothing: the program on the other side may
//! have overwritten any of it.

mod patience;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{fence, Ordering};
use std::time::Duration;

use harp_content::channel;

use crate::block::{
    self, loss, Block, Kind, Kinds, Lost, Payload, Policy, RawBlock, BODY_MAX, HEAD_BYTES, PART_MAX,
};
use crate::ring_unsafe::{self, Mapping};
pub use patience::Patience;

/// The smallest and the largest ring, in bytes.
pub const CAPACITY_MIN: usize = 64 << 10;
pub const CAPACITY_MAX: usize = 1 << 30;

pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"HARPRNG1");
const AWAKE: u64 = u64::MAX;
/// A sleeping reader is woken when this part of the ring is filled; until then it comes by itself.
const WAKE_SHARE: u64 = 8;
/// After a loss this part of the ring has to be free.
const ROOM_SHARE: usize = 8;
/// This part of the ring is not for payloads: what they belong to can be told when they are lost.
const NOT_FOR_PAYLOADS: usize = 4;
/// Nor is this part for [optional](Producer::append_optional) blocks.
const NOT_FOR_OPTIONAL: usize = 8;
/// Bytes that are set aside for the end of a trace.
pub const FOR_LAST: usize = 256;
/// The reader copies so many bytes at once, so that they stay at hand until they have been looked at.
const COPY: usize = 16 << 10;
/// So many bytes ahead of the head the ring is at hand.
const AHEAD: u64 = 512;

fn aligned(bytes: usize) -> usize {
    (bytes + 7) & !7
}

/// What the reader's process needs: the memory, and what wakes it.
#[derive(Debug)]
pub struct RingFds {
    pub memory: OwnedFd,
    pub wake: OwnedFd,
}

/// The writing side. Whoever shares it among threads puts a mutex around it.
#[derive(Debug)]
pub struct Producer {
    map: Mapping,
    wake: OwnedFd,
    head: u64,
    /// The reader's tail as last looked at.
    tail: u64,
    /// What of the losses has been told.
    told: (u64, u64),
    /// Optional blocks that were left out since, which may be told later.
    left_out: u64,
    /// Bytes that only the [last](Producer::append_last) blocks take.
    set_aside: usize,
}

impl Producer {
    /// A new ring of `capacity` bytes, a power of two from [`CAPACITY_MIN`] to [`CAPACITY_MAX`]. Its
    /// memory is all taken at once, so that appending never runs out of it.
    ///
    /// # Errors
    /// What the system says; `InvalidInput` for another capacity.
    pub fn create(capacity: usize) -> io::Result<(Producer, RingFds)> {
        if !is_capacity(capacity) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let memory = ring_unsafe::create_memory(capacity)?;
        let wake = ring_unsafe::create_wake()?;
        let map = Mapping::new(memory.as_fd(), capacity)?;
        map.populate();
        map.wake_at().store(AWAKE, Ordering::Relaxed);
        map.magic().store(MAGIC, Ordering::Release);
        let producer = Producer {
            map,
            wake: wake.try_clone()?,
            head: 0,
            tail: 0,
            told: (0, 0),
            left_out: 0,
            set_aside: FOR_LAST,
        };
        Ok((producer, RingFds { memory, wake }))
    }

    /// Appends one block of type `number` whose body is `parts` one after the other; `false` if there
    /// is no room for it, and then nothing is appended.
    #[inline]
    pub fn try_append(&mut self, number: u16, flags: u16, parts: &[&[u8]]) -> bool {
        let body_bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        let bytes = HEAD_BYTES + aligned(body_bytes);
        if body_bytes > BODY_MAX || bytes > self.known_free() && bytes > self.free() {
            return false;
        }
        let mut at = self.head;
        self.map.write(at, &block::head(number, flags, body_bytes));
        at += HEAD_BYTES as u64;
        for part in parts {
            self.map.write(at, part);
            at += part.len() as u64;
        }
        self.publish(bytes);
        true
    }

    /// The reader may take so many bytes more.
    #[inline]
    fn publish(&mut self, bytes: usize) {
        // What is written next is at hand then: the reader had it, and the writer's locks would wait for it.
        self.map.prefetch(self.head + AHEAD, bytes);
        self.head += bytes as u64;
        // Release: who sees this head sees the block.
        self.map.head().store(self.head, Ordering::Release);
        // Without a fence a reader that falls asleep just now may be missed; it does not sleep for
        // long, and a fence would cost every block more than the rest of this function.
        if self.head >= self.map.wake_at().load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Appends `block`, as [`try_append`](Producer::try_append) does.
    #[inline]
    pub fn try_append_block(&mut self, block: &Block) -> bool {
        let parts = block.parts();
        self.try_append(parts.number, parts.flags, &parts.slices())
    }

    /// Appends `block`, which happened at `time`; what there is no room for is counted, and a
    /// [`Block::Loss`] says so once an eighth of the ring is free again, before which all is lost, so that
    /// there are few gaps. `false` if the block is lost.
    #[inline]
    pub fn append(&mut self, time: u64, block: &Block) -> bool {
        if !self.has_told() && !self.tell_loss(time) {
            return self.count_loss(block);
        }
        self.try_append_block(block) || self.count_loss(block)
    }

    /// Appends the last block of all, for which room is set aside, and before it what has not been told of
    /// losses.
    pub fn append_last(&mut self, time: u64, block: &Block) -> bool {
        self.set_aside = 0;
        if self.lost().blocks != self.told.0 {
            self.tell_loss_now(time);
        }
        self.try_append_block(block)
    }

    /// As [`append`](Producer::append), for the blocks that there are most of: a body of `fixed` fields and then
    /// `rest`. `block` says the same where there is no room.
    #[inline]
    pub fn append_fixed<'a, const N: usize>(
        &mut self,
        kind: Kind,
        fixed: [u64; N],
        rest: &[u8],
        time: u64,
        block: impl FnOnce() -> Block<'a>,
    ) -> bool {
        let body_bytes = 8 * N + rest.len();
        let bytes = HEAD_BYTES + aligned(body_bytes);
        if !self.has_told() || body_bytes > BODY_MAX || bytes > self.known_free() {
            return self.append(time, &block());
        }
        let at = self.head;
        self.map.write(at, &block::head(kind as u16, 0, body_bytes));
        for (index, field) in fixed.iter().enumerate() {
            let at = at + (HEAD_BYTES + 8 * index) as u64;
            self.map.write(at, &field.to_le_bytes());
        }
        if !rest.is_empty() {
            self.map.write(at + (HEAD_BYTES + 8 * N) as u64, rest);
        }
        self.publish(bytes);
        true
    }

    /// As [`append_fixed`](Producer::append_fixed), for blocks of which a trace may lack some: where the ring is
    /// nearly full they are left out, and what cannot be done without finds room.
    #[inline]
    pub fn append_optional<'a, const N: usize>(
        &mut self,
        kind: Kind,
        fixed: [u64; N],
        time: u64,
        block: impl FnOnce() -> Block<'a>,
    ) -> bool {
        // Once some are left out there has to be more room, so that there are few gaps.
        let share = match self.left_out {
            0 => NOT_FOR_OPTIONAL,
            _ => NOT_FOR_PAYLOADS,
        };
        let wanted = HEAD_BYTES + 8 * N + self.capacity() / share;
        if wanted > self.known_free() && wanted > self.free() {
            return self.leave_out(&block());
        }
        if self.left_out != 0 && !self.tell_loss(time) {
            return self.leave_out(&block());
        }
        self.append_fixed(kind, fixed, &[], time, block)
    }

    #[cold]
    fn leave_out(&mut self, block: &Block) -> bool {
        self.left_out += 1;
        self.count_loss(block)
    }

    /// Whether nothing is missing that has to be told before anything else is appended.
    #[inline]
    fn has_told(&self) -> bool {
        self.map.lost_blocks().load(Ordering::Relaxed) == self.told.0.wrapping_add(self.left_out)
    }

    #[cold]
    fn count_loss(&mut self, block: &Block) -> bool {
        let parts = block.parts();
        let bytes: usize = parts.slices().iter().map(|part| part.len()).sum();
        let kinds = self.map.lost_kinds();
        let kinds_now = kinds.load(Ordering::Relaxed) | Kinds::of(parts.number).0;
        kinds.store(kinds_now, Ordering::Relaxed);
        let (blocks, lost) = (self.map.lost_blocks(), self.map.lost_bytes());
        lost.store(
            lost.load(Ordering::Relaxed) + bytes as u64,
            Ordering::Relaxed,
        );
        blocks.store(blocks.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        // A reader that fell asleep unseen would sleep its time out, with nothing that could be appended.
        if self.map.wake_at().load(Ordering::Relaxed) != AWAKE {
            self.wake();
        }
        false
    }

    #[cold]
    fn tell_loss(&mut self, time: u64) -> bool {
        self.free() >= self.capacity() / ROOM_SHARE && self.tell_loss_now(time)
    }

    fn tell_loss_now(&mut self, time: u64) -> bool {
        let lost = self.lost();
        let told = self.try_append_block(&Block::Loss {
            time,
            lost: untold(lost, self.told),
        });
        if told {
            self.told = (lost.blocks, lost.bytes);
            self.left_out = 0;
            self.map.lost_kinds().store(0, Ordering::Relaxed);
        }
        told
    }

    /// What there was no room for so far; the types are those that no block has told of.
    pub fn lost(&self) -> Lost {
        lost(&self.map)
    }

    /// Appends the bytes of a payload as parts, `pieces` one after the other, ahead of the block that
    /// they were cut out of; the caller appends that next, with what this function returns in it. Where
    /// `policy` does not need the bytes nothing is done. Waits for room as long as `patience` lasts:
    /// then the payload is lost.
    pub fn append_payload(
        &mut self,
        policy: Policy,
        pieces: &[&[u8]],
        patience: &mut Patience,
    ) -> Payload {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let done = !policy.has_hash() || self.append_parts(policy, pieces, patience);
        Payload::unnamed(if done { policy } else { Policy::Lost }, length)
    }

    fn append_parts(&mut self, policy: Policy, pieces: &[&[u8]], patience: &mut Patience) -> bool {
        let most = PART_MAX.min(self.capacity() / 4);
        let kept_free = self.capacity() / NOT_FOR_PAYLOADS;
        let mut first = true;
        for chunk in pieces.iter().flat_map(|piece| piece.chunks(most)) {
            let part = Block::Part {
                first,
                keep: policy == Policy::Full,
                bytes: chunk,
            };
            let bytes = HEAD_BYTES + aligned(chunk.len());
            while self.free() < bytes + kept_free || !self.try_append_block(&part) {
                if !patience.wait(self) {
                    return false;
                }
            }
            first = false;
        }
        true
    }

    /// Bytes that could be appended now, heads of blocks included.
    pub fn free(&mut self) -> usize {
        // Acquire: what the reader has given back, it no longer reads.
        self.tail = self.map.tail().load(Ordering::Acquire);
        self.known_free()
    }

    #[inline]
    fn known_free(&self) -> usize {
        // A tail that makes no sense leaves no room.
        let used = self.head.wrapping_sub(self.tail);
        (self.capacity() - self.set_aside)
            .saturating_sub(usize::try_from(used).unwrap_or(usize::MAX))
    }

    /// Bytes that the reader has taken out so far: who waits sees by it whether it gets on.
    pub fn consumed(&self) -> u64 {
        self.map.tail().load(Ordering::Relaxed)
    }

    /// Bytes appended so far.
    pub fn appended(&self) -> u64 {
        self.head
    }

    pub fn capacity(&self) -> usize {
        self.map.capacity()
    }

    /// Has the reader look now.
    #[cold]
    pub fn wake(&self) {
        self.map.wake_at().store(AWAKE, Ordering::Relaxed);
        ring_unsafe::signal(self.wake.as_fd());
    }
}

/// Why a ring is not read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Bytes taken out before.
    pub offset: u64,
    pub what: &'static str,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { offset, what } = self;
        write!(f, "the ring is broken at byte {offset}: {what}")
    }
}

impl std::error::Error for Broken {}

/// The reading side.
#[derive(Debug)]
pub struct Consumer {
    map: Mapping,
    wake: OwnedFd,
    tail: u64,
    /// What has been copied out of the ring: from `at` to `end` from the tail on, whole blocks and perhaps a piece
    /// of one more.
    copied: Vec<u8>,
    at: usize,
    end: usize,
}

impl Consumer {
    /// Reads the ring that `fds` name.
    ///
    /// # Errors
    /// `InvalidData` for memory that is no ring, or that its maker could still shrink; what the system
    /// says.
    pub fn attach(fds: RingFds) -> io::Result<Consumer> {
        let no_ring = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let capacity = ring_unsafe::sealed_capacity(fds.memory.as_fd())?;
        if !is_capacity(capacity) {
            return Err(no_ring("the shared memory has a size that no ring has"));
        }
        ring_unsafe::never_block(fds.wake.as_fd())?;
        let map = Mapping::new(fds.memory.as_fd(), capacity)?;
        if map.magic().load(Ordering::Acquire) != MAGIC {
            return Err(no_ring("the shared memory holds no ring"));
        }
        Ok(Consumer {
            map,
            wake: fds.wake,
            tail: 0,
            copied: Vec::new(),
            at: 0,
            end: 0,
        })
    }

    /// The next block, copied out of the ring; `None` if there is none yet.
    ///
    /// # Errors
    /// When the ring holds what no writer appends; after that there is nothing more.
    #[allow(clippy::should_implement_trait)]
    #[inline]
    pub fn next(&mut self) -> Result<Option<RawBlock<'_>>, Broken> {
        let mut bytes = self.next_bytes();
        if bytes > self.end - self.at {
            if !self.copy()? {
                return Ok(None);
            }
            bytes = self.next_bytes();
        }
        let (head, body) = self.copied[self.at..][..bytes].split_at(HEAD_BYTES);
        let (number, flags, body_bytes) = block::read_head(head.try_into().unwrap_or_default());
        self.at += bytes;
        self.tail += bytes as u64;
        Ok(Some(RawBlock {
            number,
            flags,
            body: &body[..body_bytes],
        }))
    }

    /// The bytes of the next block of those that have been copied; of a head where there is none.
    #[inline]
    fn next_bytes(&self) -> usize {
        let head = self.copied[self.at..self.end].first_chunk();
        HEAD_BYTES + head.map_or(0, |head| aligned(block::read_head(*head).2))
    }

    /// Copies the next blocks, one at least, and gives back what they took of the ring; `false` if there is none.
    fn copy(&mut self) -> Result<bool, Broken> {
        self.copied.copy_within(self.at..self.end, 0);
        self.end -= self.at;
        self.at = 0;
        let offset = self.tail;
        let broken = |what| Err(Broken { offset, what });
        // Acquire: the bytes below this head are there.
        let head = self.map.head().load(Ordering::Acquire);
        let more = head.wrapping_sub(self.tail + self.end as u64);
        if more > self.map.capacity() as u64 || !more.is_multiple_of(8) {
            return broken("its head is somewhere else");
        }
        let available = self.end + more as usize;
        if available == 0 {
            return Ok(false);
        }
        self.fill(COPY.min(available));
        let bytes = self.next_bytes();
        if bytes > available || bytes > HEAD_BYTES + aligned(BODY_MAX) {
            return broken("a block goes on beyond its head");
        }
        self.fill(bytes);
        // Release: the bytes have been read before they are given back.
        let taken = self.tail + self.end as u64;
        self.map.tail().store(taken, Ordering::Release);
        Ok(true)
    }

    /// Copies what comes next, up to so many bytes from the tail on.
    fn fill(&mut self, end: usize) {
        if end > self.end {
            if end > self.copied.len() {
                self.copied.resize(end, 0);
            }
            let from = self.tail + self.end as u64;
            self.map.read(from, &mut self.copied[self.end..end]);
            self.end = end;
        }
    }

    /// Bytes taken out so far.
    pub fn consumed(&self) -> u64 {
        self.tail
    }

    /// What the writer had no room for so far: also what one who is gone could no longer tell in a
    /// [`Block::Loss`]. The types are those of that.
    pub fn lost(&self) -> Lost {
        lost(&self.map)
    }

    /// Bytes that wait in the ring.
    pub fn waiting(&self) -> u64 {
        let head = self.map.head().load(Ordering::Relaxed);
        let taken = self.tail + (self.end - self.at) as u64;
        head.wrapping_sub(taken).min(self.map.capacity() as u64)
    }

    /// Goes to sleep: the writer wakes it when an eighth of the ring is filled. `false` if that is so
    /// already, and then it does not sleep. Who sleeps polls [`wake_fd`](Consumer::wake_fd) for a short
    /// time, and calls [`awake`](Consumer::awake) afterwards.
    pub fn fall_asleep(&self) -> bool {
        let wake_at = self.tail + self.map.capacity() as u64 / WAKE_SHARE;
        self.map.wake_at().store(wake_at, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.waiting() < self.map.capacity() as u64 / WAKE_SHARE
    }

    pub fn awake(&self) {
        self.map.wake_at().store(AWAKE, Ordering::Relaxed);
        ring_unsafe::clear(self.wake.as_fd());
    }

    /// Waits until the writer wakes it, at most for `timeout`.
    pub fn wait(&self, timeout: Duration) {
        if self.fall_asleep() {
            let milliseconds = timeout.as_millis().min(i32::MAX as u128) as i32;
            // Where it cannot be waited for the ring is looked at again at once.
            let _ = channel::wait_readable(&self.wake, milliseconds);
        }
        self.awake();
    }

    /// Is readable when the writer wants to be read.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// What has been lost in all.
fn lost(map: &Mapping) -> Lost {
    Lost {
        reasons: loss::NO_ROOM,
        blocks: map.lost_blocks().load(Ordering::Relaxed),
        bytes: map.lost_bytes().load(Ordering::Relaxed),
        kinds: Kinds(map.lost_kinds().load(Ordering::Relaxed)),
    }
}

/// What of it has not been told, if `told` are the blocks and bytes that have been.
pub fn untold(lost: Lost, told: (u64, u64)) -> Lost {
    Lost {
        blocks: lost.blocks.saturating_sub(told.0),
        bytes: lost.bytes.saturating_sub(told.1),
        ..lost
    }
}

fn is_capacity(bytes: usize) -> bool {
    bytes.is_power_of_two() && (CAPACITY_MIN..=CAPACITY_MAX).contains(&bytes)
}
