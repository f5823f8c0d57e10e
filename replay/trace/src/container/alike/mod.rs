//! Blocks of a frame told by how they differ from earlier ones of it.
//!
//! A program does the same again and again: what it launches, waits for and is told differs from the
//! last time in little more than the time. So a frame on disk has blocks of type [`Kind::Alike`], each for a
//! run of blocks one after the other, which are made of those they are like before anything else reads the
//! frame. The grammar is docs/trace-format.md, "Runs". A block with many changes is told in full.

#[cfg(test)]
mod tests;

use crate::block::{head, read_head, Kind, RawBlock, HEAD_BYTES};

use super::{CONTENT_MAX, FRAME_BYTES};

const WORD: usize = 8;
/// Longer bodies are told in full: `changed` has a bit for each word but the first.
const LIKE_MAX: usize = (1 + u64::BITS as usize) * WORD;
const BACK: u8 = 1;
const CHANGES: u8 = 2;
const LOW_BITS: u32 = 5;
const MORE: u8 = 0x80;
/// A block with more changes is told in full.
const CHANGES_MAX: usize = 6;
/// Places by which blocks are looked for: a power of two.
const SEEN: usize = 256;
const NUMBER: u16 = Kind::Alike as u16;

/// Whether the body of a block of that type begins with a time.
#[inline]
fn has_time(number: u16) -> bool {
    (Kind::Enter as u16..=Kind::Loss as u16).contains(&number)
}

/// A word of which there are only so many bytes: the last of a body.
fn padded(bytes: &[u8]) -> u64 {
    let mut word = [0; WORD];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[inline]
fn first_word(body: &[u8]) -> u64 {
    body.first_chunk()
        .map_or(0, |word| u64::from_le_bytes(*word))
}

/// The difference of two words with its sign in the lowest bit.
#[inline]
fn difference(to: u64, from: u64) -> u64 {
    let signed = to.wrapping_sub(from) as i64;
    (signed << 1 ^ signed >> 63) as u64
}

/// The word that differs so from `from`.
fn differing(from: u64, difference: u64) -> u64 {
    from.wrapping_add(difference >> 1 ^ (difference & 1).wrapping_neg())
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= u64::from(MORE) {
        out.push(value as u8 | MORE);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The words after the first in which a body differs from another one.
#[derive(Default)]
struct Changes {
    bits: u64,
    count: usize,
    by: [u64; CHANGES_MAX],
}

impl Changes {
    /// `None` if there are too many.
    #[inline]
    fn between(like: &[u8], body: &[u8]) -> Option<Changes> {
        let mut changes = Changes::default();
        let (from, to) = (like.get(WORD..)?, body.get(WORD..)?);
        // Most often it is so, and found out at once.
        if from == to {
            return Some(changes);
        }
        let ((from, last_from), (to, last_to)) = (from.as_chunks(), to.as_chunks());
        for (at, (from, to)) in from.iter().zip(to).enumerate() {
            changes.add(at, u64::from_le_bytes(*from), u64::from_le_bytes(*to))?;
        }
        changes.add(to.len(), padded(last_from), padded(last_to))?;
        Some(changes)
    }

    #[inline]
    fn add(&mut self, at: usize, from: u64, to: u64) -> Option<()> {
        if from != to {
            *self.by.get_mut(self.count)? = difference(to, from);
            self.bits |= 1 << at;
            self.count += 1;
        }
        Some(())
    }
}

/// The head of a block as a word: of two that are alike it is the same.
type Head = u64;

/// A block of the frame, told in full.
struct Placed {
    head: Head,
    /// Where its body begins.
    start: usize,
}

/// A frame that is being filled: its blocks, in full and as they are told on disk.
pub(super) struct Telling {
    told: Vec<u8>,
    blocks: Vec<Placed>,
    bodies: Vec<u8>,
    /// Where the run begins that the next block may belong to.
    run: Option<usize>,
    /// How far before the last block of a run the one lies that it is like.
    back: usize,
    /// The last time in the frame.
    time: u64,
    /// By [`look`], the last block that was not found where the run went on. It may be one of an earlier frame.
    seen: [u32; SEEN],
}

impl Telling {
    pub fn new() -> Telling {
        Telling {
            told: Vec::new(),
            blocks: Vec::new(),
            bodies: Vec::new(),
            run: None,
            back: 0,
            time: 0,
            seen: [0; SEEN],
        }
    }

    /// Bytes of the blocks, told in full.
    pub fn bytes(&self) -> usize {
        self.blocks.len() * HEAD_BYTES + self.bodies.len()
    }

    /// The blocks, in full.
    pub fn blocks(&self) -> impl Iterator<Item = RawBlock<'_>> {
        self.blocks.iter().map(|block| {
            let (number, flags, body_bytes) = read_head(block.head.to_le_bytes());
            RawBlock {
                number,
                flags,
                body: &self.bodies[block.start..block.start + body_bytes],
            }
        })
    }

    #[inline]
    pub fn add(&mut self, raw: RawBlock) {
        let head = Head::from_le_bytes(raw.head());
        let index = self.blocks.len();
        // Where there has been no run yet that is the block itself, which is not there.
        if !self.add_like(head, raw, index.wrapping_sub(self.back)) {
            let seen = &mut self.seen[look(head, raw)];
            let like = std::mem::replace(seen, index as u32) as usize;
            if !self.add_like(head, raw, like) {
                self.add_in_full(raw);
            }
        }
        if has_time(raw.number) {
            self.time = first_word(raw.body);
        }
        let start = self.bodies.len();
        self.blocks.push(Placed { head, start });
        self.bodies.extend_from_slice(raw.body);
    }

    /// Adds a block as one like block `like`, if it is.
    #[inline]
    fn add_like(&mut self, head: Head, raw: RawBlock, like: usize) -> bool {
        let Some(block) = self.blocks.get(like) else {
            return false;
        };
        let body = raw.body;
        if block.head != head || !(WORD..=LIKE_MAX).contains(&body.len()) {
            return false;
        }
        let its_body = &self.bodies[block.start..][..body.len()];
        let Some(changes) = Changes::between(its_body, body) else {
            return false;
        };
        let from = match has_time(raw.number) {
            true => self.time,
            false => first_word(its_body),
        };
        if self.run.is_none() {
            self.run = Some(self.told.len());
            self.told.extend_from_slice(&[0; HEAD_BYTES]);
            // A run says where it begins, so that it does not depend on another one.
            self.back = 0;
        }
        let back = self.blocks.len() - like;
        let mut flags = if self.back == back { 0 } else { BACK };
        flags |= if changes.count > 0 { CHANGES } else { 0 };
        self.back = back;
        self.put_entry(flags, difference(first_word(body), from), &changes);
        true
    }

    #[inline]
    fn put_entry(&mut self, flags: u8, difference: u64, changes: &Changes) {
        let told = &mut self.told;
        let low = difference & ((1 << LOW_BITS) - 1);
        let high = difference >> LOW_BITS;
        let first = flags | (low as u8) << 2;
        match high {
            0 => told.push(first),
            // The most common of all: as one.
            1..=0x7f => told.extend_from_slice(&[first | MORE, high as u8]),
            _ => {
                told.push(first | MORE);
                put_varint(told, high);
            }
        }
        if flags & BACK != 0 {
            put_varint(told, self.back as u64);
        }
        if flags & CHANGES != 0 {
            put_varint(told, changes.bits);
            for change in &changes.by[..changes.count] {
                put_varint(told, *change);
            }
        }
    }

    fn add_in_full(&mut self, raw: RawBlock) {
        self.end_run();
        self.told.extend_from_slice(&raw.head());
        self.told.extend_from_slice(raw.body);
    }

    fn end_run(&mut self) {
        if let Some(run) = self.run.take() {
            let body_bytes = self.told.len() - run - HEAD_BYTES;
            self.told[run..run + HEAD_BYTES].copy_from_slice(&head(NUMBER, 0, body_bytes));
        }
    }

    /// The frame as it goes to disk. Blocks may be added even so.
    pub fn told(&mut self) -> &[u8] {
        self.end_run();
        &self.told
    }

    /// Begins the next frame, without the room that a long block took in this one.
    pub fn clear(&mut self) {
        for bytes in [&mut self.told, &mut self.bodies] {
            bytes.clear();
            bytes.shrink_to(2 * FRAME_BYTES);
        }
        self.blocks.clear();
        self.run = None;
        self.back = 0;
        self.time = 0;
    }
}

/// Where a block is kept that may be like this one: such as have the same type and length, and are of
/// the same function or are the same call.
fn look(head: Head, raw: RawBlock) -> usize {
    let at = match Kind::from_number(raw.number) {
        Some(Kind::Enter | Kind::Leave) => WORD..2 * WORD,
        // The head of the record: its length and the call's number.
        Some(Kind::Call) => 2 * WORD..3 * WORD,
        _ => 0..0,
    };
    let word = raw.body.get(at).map_or(0, first_word) ^ head;
    // Fibonacci hashing (Knuth, TAOCP 6.4).
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SEEN.ilog2())) as usize
}

/// What is wrong with a run, and where in the frame.
pub(super) struct Wrong {
    pub at: u64,
    pub what: &'static str,
}

/// Writes `out`, the blocks of a frame in full, of what is told of them on disk. What is no whole block
/// stays at its end.
///
/// # Errors
/// For a run that cannot be: `out` is of no use then.
pub(super) fn in_full(told: &[u8], out: &mut Vec<u8>) -> Result<(), Wrong> {
    let mut frame = InFull {
        out,
        starts: Vec::new(),
        time: 0,
    };
    frame.out.clear();
    let mut rest = told;
    while let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>() {
        let (number, _, body_bytes) = read_head(*head);
        let Some((body, after)) = after.split_at_checked(body_bytes) else {
            break;
        };
        if number == NUMBER {
            let at = (told.len() - rest.len()) as u64;
            frame.run(body).map_err(|what| Wrong { at, what })?;
        } else {
            frame.starts.push(frame.out.len());
            frame
                .out
                .extend_from_slice(&rest[..HEAD_BYTES + body_bytes]);
            if has_time(number) {
                frame.time = first_word(body);
            }
        }
        rest = after;
    }
    frame.out.extend_from_slice(rest);
    Ok(())
}

/// The blocks of a frame as far as they have been told.
struct InFull<'a> {
    out: &'a mut Vec<u8>,
    starts: Vec<usize>,
    time: u64,
}

const CUT: &str = "a block of a run is cut short";
const TOO_LONG: &str = "a number of a run has more than 64 bits";

impl InFull<'_> {
    fn run(&mut self, mut entries: &[u8]) -> Result<(), &'static str> {
        let mut back = 0;
        while let Some((first, rest)) = entries.split_first() {
            entries = rest;
            let high = match first & MORE {
                0 => 0,
                _ => varint(&mut entries)?,
            };
            if high >> (u64::BITS - LOW_BITS) != 0 {
                return Err(TOO_LONG);
            }
            let low = u64::from(first & !MORE) >> 2;
            let difference = low | high << LOW_BITS;
            if first & BACK != 0 {
                back = usize::try_from(varint(&mut entries)?).unwrap_or(usize::MAX);
            }
            let changed = match first & CHANGES {
                0 => 0,
                _ => varint(&mut entries)?,
            };
            self.entry(back, difference, changed, &mut entries)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        back: usize,
        difference: u64,
        mut changed: u64,
        entries: &mut &[u8],
    ) -> Result<(), &'static str> {
        let like = self.starts.len().checked_sub(back);
        let like = like.and_then(|like| self.starts.get(like));
        let like = *like.ok_or("a block of a run is like one that is not there")?;
        let (number, _, body_bytes) = self.head_at(like);
        if !(WORD..=LIKE_MAX).contains(&body_bytes) {
            return Err("a block of a run is like one that none can be like");
        }
        let start = self.out.len();
        if start + HEAD_BYTES + body_bytes > CONTENT_MAX {
            return Err("its runs have more blocks than a frame may have");
        }
        self.out
            .extend_from_within(like..like + HEAD_BYTES + body_bytes);
        let body = &mut self.out[start + HEAD_BYTES..];
        let from = match has_time(number) {
            true => self.time,
            false => first_word(body),
        };
        let first = differing(from, difference);
        body[..WORD].copy_from_slice(&first.to_le_bytes());
        while changed != 0 {
            let at = (1 + changed.trailing_zeros() as usize) * WORD;
            changed &= changed - 1;
            let there = body.len().min(at + WORD);
            let Some(word) = body.get_mut(at..there).filter(|word| !word.is_empty()) else {
                return Err("a block of a run has changed where it has nothing");
            };
            let to = differing(padded(word), varint(entries)?).to_le_bytes();
            let (within, beyond) = to.split_at(word.len());
            if beyond.iter().any(|byte| *byte != 0) {
                return Err("a block of a run is longer than the one it is like");
            }
            word.copy_from_slice(within);
        }
        self.starts.push(start);
        if has_time(number) {
            self.time = first;
        }
        Ok(())
    }

    fn head_at(&self, start: usize) -> (u16, u16, usize) {
        let head = self.out[start..].first_chunk();
        read_head(head.copied().unwrap_or_default())
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0;
    for at in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(CUT)?;
        *bytes = rest;
        let bits = u64::from(byte & !MORE);
        if bits << at >> at != bits {
            break;
        }
        value |= bits << at;
        if byte & MORE == 0 {
            return Ok(value);
        }
    }
    Err(TOO_LONG)
}
