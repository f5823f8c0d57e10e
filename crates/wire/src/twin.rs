//! Twins: memory that lies at the same address in the program and in its worker.
//!
//! Kernels that use the program's own memory (mapped page-locked memory, managed memory) use the
//! worker's twin of it. Each side keeps a *shadow*, the contents that both agreed on last, and sends
//! the bytes that differ from it: the program's before it queues work, the worker's when the program
//! has waited for work. Only changed bytes travel and are stored, so that what one side writes beside
//! what the other writes is never lost.
//!
//! A change is a *line* of up to 64 bytes: u64 address, u64 mask of the bytes that changed, then those.

use core::ops::Range;

/// Where twins lie: addresses that neither programs nor drivers use by themselves.
pub const REGION: Range<u64> = 0x4000_0000_0000..0x5000_0000_0000;
/// Twins begin at a page and have whole pages.
pub const PAGE: u64 = 4096;
/// Bytes of a line.
pub const LINE: usize = 64;
/// Bytes of a line's address and mask.
const HEAD: usize = 16;
/// Memory is looked at in blocks of this many bytes.
const BLOCK: usize = 64 << 10;

/// Whether a twin may lie there: whole pages in the [`REGION`].
pub fn is_place(base: u64, bytes: u64) -> bool {
    let end = base.checked_add(bytes);
    base.is_multiple_of(PAGE)
        && bytes.is_multiple_of(PAGE)
        && bytes > 0
        && base >= REGION.start
        && end.is_some_and(|end| end <= REGION.end)
}

/// Appends the lines of `memory` that differ from `shadow`, and brings the shadow up to date. `address`
/// is how the lines name the first byte. Looks from offset `from` on, and stops when `out` holds
/// `most` bytes; the offset reached is the next call's `from`.
///
/// # Safety
/// `memory` is readable for as many bytes as `shadow` has. Others may write to it meanwhile.
pub unsafe fn collect(
    memory: *const u8,
    address: u64,
    shadow: &mut [u8],
    mut from: usize,
    most: usize,
    out: &mut Vec<u8>,
) -> usize {
    let mut now = vec![0; BLOCK.min(shadow.len())];
    while from < shadow.len() && out.len() < most {
        let count = BLOCK.min(shadow.len() - from);
        let now = &mut now[..count];
        // SAFETY: the caller's promise. The copy is what is compared and sent, whatever is written
        // to the memory meanwhile.
        unsafe { core::ptr::copy_nonoverlapping(memory.add(from), now.as_mut_ptr(), count) };
        let then = &mut shadow[from..from + count];
        if now != then {
            for (index, (now, then)) in now.chunks(LINE).zip(then.chunks_mut(LINE)).enumerate() {
                if now != then {
                    append(address + (from + index * LINE) as u64, now, then, out);
                }
            }
        }
        from += count;
    }
    from
}

/// The lines of `now` that differ from `then`, which is as long; `address` is how they name the first byte.
/// As [`collect`], for bytes that nobody else writes to.
pub fn differences(address: u64, now: &[u8], then: &mut [u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if now.len() == then.len() {
        // SAFETY: both have the same length.
        unsafe { collect(now.as_ptr(), address, then, 0, usize::MAX, &mut out) };
    }
    out
}

fn append(address: u64, now: &[u8], then: &mut [u8], out: &mut Vec<u8>) {
    let differs = |(index, (now, then)): (usize, (&u8, &u8))| u64::from(now != then) << index;
    let mask: u64 = now.iter().zip(&*then).enumerate().map(differs).sum();
    out.extend(address.to_le_bytes());
    out.extend(mask.to_le_bytes());
    out.extend(bits(mask).map(|index| now[index]));
    then.copy_from_slice(now);
}

/// The numbers of the bits that are set, lowest first.
fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let index = mask.trailing_zeros() as usize;
        mask &= mask.wrapping_sub(1);
        (index < LINE).then_some(index)
    })
}

/// One changed line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Address of the line's first byte.
    pub address: u64,
    mask: u64,
    bytes: &'a [u8],
}

impl<'a> Line<'a> {
    /// How many bytes say it.
    pub fn size(&self) -> usize {
        HEAD + self.bytes.len()
    }

    /// The bytes that changed, with their addresses.
    pub fn bytes(&self) -> impl Iterator<Item = (u64, u8)> + 'a {
        let address = self.address;
        bits(self.mask)
            .zip(self.bytes)
            .map(move |(index, byte)| (address.wrapping_add(index as u64), *byte))
    }
}

/// The lines that [`collect`] has written; `None` at the end stands for bytes that are none.
pub fn lines(mut rest: &[u8]) -> impl Iterator<Item = Option<Line<'_>>> {
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let line = first(rest);
        rest = match line {
            Some(line) => &rest[line.size()..],
            None => &[],
        };
        Some(line)
    })
}

fn first(bytes: &[u8]) -> Option<Line<'_>> {
    let (address, rest) = bytes.split_first_chunk::<8>()?;
    let (mask, rest) = rest.split_first_chunk::<8>()?;
    let mask = u64::from_le_bytes(*mask);
    let bytes = rest.get(..mask.count_ones() as usize)?;
    Some(Line {
        address: u64::from_le_bytes(*address),
        mask,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(memory: &[u8], shadow: &mut [u8]) -> Vec<(u64, u8)> {
        let out = differences(0x1000, memory, shadow);
        lines(&out)
            .flat_map(|line| line.unwrap().bytes().collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn exactly_the_changed_bytes_travel_and_once() {
        let mut memory = vec![7; 3 * BLOCK + 100];
        let mut shadow = memory.clone();
        assert!(changes(&memory, &mut shadow).is_empty());
        let places = [0, 1, 63, 64, BLOCK - 1, BLOCK, 3 * BLOCK + 99];
        places.iter().for_each(|at| memory[*at] = 9);
        let wanted = places.map(|at| (0x1000 + at as u64, 9));
        assert_eq!(changes(&memory, &mut shadow), wanted);
        assert_eq!(shadow, memory);
        assert!(changes(&memory, &mut shadow).is_empty());
    }

    #[test]
    fn collecting_stops_and_goes_on() {
        let memory = vec![1; 4 * BLOCK];
        let mut shadow = vec![0; 4 * BLOCK];
        let (mut from, mut turns, mut total) = (0, 0, 0);
        while from < memory.len() {
            let mut out = vec![];
            // SAFETY: both have the same length.
            from = unsafe { collect(memory.as_ptr(), 0, &mut shadow, from, 1, &mut out) };
            total += lines(&out)
                .map(|line| line.unwrap().bytes().count())
                .sum::<usize>();
            turns += 1;
        }
        assert_eq!((turns, total), (4, 4 * BLOCK));
    }

    #[test]
    fn bytes_that_are_no_lines_are_told() {
        let mut out = vec![];
        append(0x40, &[1; 64], &mut [0; 64], &mut out);
        for length in 1..out.len() {
            assert_eq!(lines(&out[..length]).last(), Some(None), "{length}");
        }
        assert_eq!(lines(&out).filter(Option::is_some).count(), 1);
        assert_eq!(lines(&[]).count(), 0);
    }

    #[test]
    fn places_are_whole_pages_of_the_region() {
        assert!(is_place(REGION.start, PAGE));
        assert!(!is_place(REGION.start + 1, PAGE) && !is_place(REGION.start, PAGE - 1));
        assert!(!is_place(REGION.start, 0) && !is_place(0, PAGE));
        assert!(!is_place(REGION.end, PAGE) && !is_place(REGION.end - PAGE, 2 * PAGE));
        assert!(!is_place(REGION.start, u64::MAX - PAGE + 1));
    }
}
