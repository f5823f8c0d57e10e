//! Memory that kernels shared with the program, as the two sides know it: the recording's and ours.
//!
//! A reply tells what has changed since the one before, be that by work which is not over yet. So one reply
//! may tell more or less than the recorded one, and the next makes up for it: what counts is what the memory
//! holds in the end, when it is given back or the trace is over.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use harp_wire::twin::{is_place, lines, LINE, PAGE};

use super::kernels::Launch;
use super::tolerance::{deviation, Deviation, Tolerance};

const PAGE_BYTES: usize = PAGE as usize;
/// Pages that are looked after: 256 MiB.
const MOST_PAGES: usize = 1 << 16;

/// Who has changed a page last.
#[derive(Clone, Debug)]
pub struct Told {
    pub call: u64,
    pub maker: Option<Launch>,
}

/// What both sides know of a page.
struct Page {
    /// The recording's, and ours.
    sides: [Box<[u8; PAGE_BYTES]>; 2],
    /// By the reply of which they came to differ.
    differs: Option<Told>,
}

impl Page {
    fn new() -> Page {
        let empty = || Box::new([0; PAGE_BYTES]);
        Page {
            sides: [empty(), empty()],
            differs: None,
        }
    }
}

/// Which side something is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Recorded,
    Replayed,
}

/// The shared memory of a session.
#[derive(Default)]
pub struct Twins {
    /// Bytes by first address.
    all: BTreeMap<u64, u64>,
    pages: HashMap<u64, Page>,
    /// There is more of it than is looked after.
    pub overflown: bool,
}

/// Shared memory that holds something else than recorded.
pub struct Unlike {
    pub told: Told,
    pub deviation: Deviation,
}

impl Twins {
    /// Some begins, if it may lie there: else the server refuses it.
    pub fn create(&mut self, base: u64, bytes: u64) {
        if is_place(base, bytes) {
            self.all.insert(base, bytes);
        }
    }

    /// The memory that an address lies in, by its first address.
    pub fn holding(&self, address: u64) -> Option<u64> {
        let (base, bytes) = self.all.range(..=address).next_back()?;
        (address - base < *bytes).then_some(*base)
    }

    /// Bytes have changed on the sides named; `told` is by which reply, or nothing if the program has changed
    /// them. False for what is no such change.
    pub fn change(&mut self, sides: &[Side], changes: &[u8], told: Option<&Told>) -> bool {
        for line in lines(changes) {
            // A line lies within a page, as the server makes them.
            let Some(line) = line.filter(|line| line.address.is_multiple_of(LINE as u64)) else {
                return false;
            };
            if self.holding(line.address).is_none() {
                return false;
            }
            let Some(page) = self.page(line.address / PAGE) else {
                continue;
            };
            for (address, byte) in line.bytes() {
                let at = (address % PAGE) as usize;
                sides
                    .iter()
                    .for_each(|side| page.sides[*side as usize][at] = byte);
            }
            if let (Some(told), None) = (told, &page.differs) {
                page.differs = Some(told.clone());
            }
        }
        true
    }

    fn page(&mut self, number: u64) -> Option<&mut Page> {
        if self.pages.len() == MOST_PAGES && !self.pages.contains_key(&number) {
            self.overflown = true;
            return None;
        }
        Some(self.pages.entry(number).or_insert_with(Page::new))
    }

    /// Settles which pages differ, after a reply has been taken in on both sides.
    pub fn settle(&mut self, changed: [&[u8]; 2]) {
        for line in changed.into_iter().flat_map(lines).flatten() {
            if let Some(page) = self.pages.get_mut(&(line.address / PAGE)) {
                if page.sides[0] == page.sides[1] {
                    page.differs = None;
                }
            }
        }
    }

    /// The memory is given back: how it differs from the recorded one.
    pub fn destroy(&mut self, base: u64, tolerance: Option<&Tolerance>) -> Option<Unlike> {
        let bytes = self.all.remove(&base)?;
        let pages = base / PAGE..base.saturating_add(bytes).div_ceil(PAGE);
        let unlike = self.unlike(base, bytes, pages.clone(), tolerance);
        self.pages.retain(|number, _| !pages.contains(number));
        unlike
    }

    /// The trace is over: how all that is left differs.
    pub fn end(&mut self, tolerance: Option<&Tolerance>) -> Vec<Unlike> {
        let all: Vec<u64> = self.all.keys().copied().collect();
        all.into_iter()
            .filter_map(|base| self.destroy(base, tolerance))
            .collect()
    }

    fn unlike(
        &self,
        base: u64,
        bytes: u64,
        pages: Range<u64>,
        tolerance: Option<&Tolerance>,
    ) -> Option<Unlike> {
        let differing = self
            .pages
            .iter()
            .filter(|(number, page)| pages.contains(number) && page.sides[0] != page.sides[1]);
        let mut differing: Vec<_> = differing.collect();
        differing.sort_by_key(|(number, _)| **number);
        let mut unlike: Option<Unlike> = None;
        for (number, page) in differing {
            let [then, now] = &page.sides;
            let Some(found) = deviation(&then[..], &now[..], tolerance) else {
                continue;
            };
            match &mut unlike {
                Some(unlike) => unlike.deviation.count += found.count,
                None => {
                    let told = page.differs.clone();
                    unlike = Some(Unlike {
                        told: told.unwrap_or(Told {
                            call: 0,
                            maker: None,
                        }),
                        deviation: Deviation {
                            offset: number * PAGE + found.offset - base,
                            of: bytes,
                            ..found
                        },
                    });
                }
            }
        }
        unlike
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harp_wire::twin::REGION;

    fn line(address: u64, bytes: &[u8]) -> Vec<u8> {
        let within = address % LINE as u64;
        let mut line = (address - within).to_le_bytes().to_vec();
        line.extend((((1u64 << bytes.len()) - 1) << within).to_le_bytes());
        line.extend(bytes);
        line
    }

    fn reply(twins: &mut Twins, call: u64, recorded: &[u8], replayed: &[u8]) {
        let told = Told { call, maker: None };
        for (side, changes) in [(Side::Recorded, recorded), (Side::Replayed, replayed)] {
            assert!(twins.change(&[side], changes, Some(&told)));
        }
        twins.settle([recorded, replayed]);
    }

    #[test]
    fn what_is_told_sooner_or_later_is_no_difference() {
        let mut twins = Twins::default();
        twins.create(REGION.start, 2 * PAGE);
        let both = [Side::Recorded, Side::Replayed];
        assert!(twins.change(&both, &line(REGION.start, &[9]), None));
        let first = line(REGION.start + 8, &[1, 2]);
        let second = line(REGION.start + PAGE, &[3]);
        reply(&mut twins, 1, &first, &[]);
        reply(
            &mut twins,
            2,
            &second,
            &[first.clone(), second.clone()].concat(),
        );
        assert!(twins.end(None).is_empty());
    }

    #[test]
    fn what_is_other_in_the_end_is_told_with_the_reply_that_brought_it() {
        let mut twins = Twins::default();
        twins.create(REGION.start, 2 * PAGE);
        let at = REGION.start + PAGE + 16;
        reply(&mut twins, 1, &line(at, &[1]), &line(at, &[1]));
        reply(&mut twins, 2, &line(at, &[5, 6]), &line(at, &[5, 7]));
        reply(&mut twins, 3, &line(at + 8, &[1]), &line(at + 8, &[1]));
        let unlike = twins.destroy(REGION.start, None).unwrap();
        assert_eq!(unlike.told.call, 2);
        assert_eq!(
            (unlike.deviation.count, unlike.deviation.offset),
            (1, PAGE + 17)
        );
        assert!(twins.end(None).is_empty() && twins.pages.is_empty());
    }

    #[test]
    fn changes_outside_of_shared_memory_are_none() {
        let mut twins = Twins::default();
        twins.create(REGION.start, PAGE);
        let told = Told {
            call: 1,
            maker: None,
        };
        for changes in [line(REGION.start + PAGE, &[1]), line(0, &[1]), vec![1; 9]] {
            assert!(!twins.change(&[Side::Recorded], &changes, Some(&told)));
        }
    }
}
