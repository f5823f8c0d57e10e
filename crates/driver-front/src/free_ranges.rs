//! Best-fit bookkeeping of free address ranges.

use std::collections::BTreeSet;

use crate::address_map::AddressMap;

/// Free ranges by start and by length; neighbours are joined.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FreeRanges {
    by_start: AddressMap<u64>,
    by_length: BTreeSet<(u64, u64)>,
}

impl FreeRanges {
    /// One free range.
    pub fn of(start: u64, length: u64) -> Self {
        let mut ranges = Self::default();
        ranges.insert(start, length);
        ranges
    }

    /// Takes `length` bytes aligned to `alignment` (a power of two) out of the smallest range that
    /// has them; the lowest such range on a tie.
    pub fn take(&mut self, length: u64, alignment: u64) -> Option<u64> {
        let (start, aligned) = self
            .by_length
            .range((length, 0)..)
            .find_map(|(free, start)| {
                let aligned = start.checked_next_multiple_of(alignment)?;
                (aligned - start + length <= *free).then_some((*start, aligned))
            })?;
        self.split(start, aligned, length);
        Some(aligned)
    }

    /// Takes exactly this range out; false where it is not entirely free.
    pub fn take_at(&mut self, start: u64, length: u64) -> bool {
        let Some((free_start, &free)) = self.by_start.at_or_below(start) else {
            return false;
        };
        let fits = start
            .checked_add(length)
            .is_some_and(|end| end <= free_start + free);
        if fits {
            self.split(free_start, start, length);
        }
        fits
    }

    /// Gives a range back and joins it with its neighbours.
    pub fn insert(&mut self, mut start: u64, mut length: u64) {
        if let Some((before, &before_length)) = self.by_start.at_or_below(start) {
            assert!(before + before_length <= start, "freed twice");
            if before + before_length == start {
                self.remove(before, before_length);
                (start, length) = (before, before_length + length);
            }
        }
        if let Some(&after_length) = self.by_start.get(start + length) {
            self.remove(start + length, after_length);
            length += after_length;
        }
        self.by_start.insert(start, length);
        self.by_length.insert((length, start));
    }

    #[cfg(test)]
    /// Length of the free range that starts at `start`.
    pub fn length_at(&self, start: u64) -> Option<u64> {
        self.by_start.get(start).copied()
    }

    fn split(&mut self, start: u64, taken: u64, length: u64) {
        let Some(&free) = self.by_start.get(start) else {
            return;
        };
        self.remove(start, free);
        if taken > start {
            self.by_start.insert(start, taken - start);
            self.by_length.insert((taken - start, start));
        }
        let rest = start + free - (taken + length);
        if rest > 0 {
            self.by_start.insert(taken + length, rest);
            self.by_length.insert((rest, taken + length));
        }
    }

    fn remove(&mut self, start: u64, length: u64) {
        self.by_start.remove(start);
        self.by_length.remove(&(length, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_split_aligned_and_joined_again() {
        let mut ranges = FreeRanges::of(0x100, 0x1000);
        assert_eq!(ranges.take(0x200, 0x200), Some(0x200));
        assert_eq!(ranges.take(0x100, 0x100), Some(0x100));
        assert_eq!(ranges.take(0x2000, 1), None);
        assert!(ranges.take_at(0x800, 0x100));
        assert!(!ranges.take_at(0x880, 0x10));
        assert!(!ranges.take_at(0x1000, 0x200));
        ranges.insert(0x200, 0x200);
        ranges.insert(0x800, 0x100);
        ranges.insert(0x100, 0x100);
        assert_eq!(ranges.length_at(0x100), Some(0x1000));
    }

    #[test]
    fn the_smallest_fitting_range_is_taken() {
        let mut ranges = FreeRanges::of(0, 0x1000);
        ranges.insert(0x2000, 0x100);
        assert_eq!(ranges.take(0x80, 1), Some(0x2000));
    }

    /// A long deterministic sequence: taken ranges never overlap and all comes back as one range.
    #[test]
    fn random_traffic_leaves_one_whole_range() {
        let mut ranges = FreeRanges::of(0, 1 << 20);
        let mut taken: Vec<(u64, u64)> = Vec::new();
        let mut seed = 1u64;
        for _ in 0..20_000 {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let length = (seed >> 40) % 4000 + 1;
            if seed >> 33 & 1 == 0 && !taken.is_empty() {
                let (start, length) = taken.swap_remove((seed >> 20) as usize % taken.len());
                ranges.insert(start, length);
            } else if let Some(start) = ranges.take(length, 64) {
                assert_eq!(start % 64, 0);
                assert!(taken
                    .iter()
                    .all(|(s, l)| start + length <= *s || s + l <= start));
                taken.push((start, length));
            }
        }
        for (start, length) in taken {
            ranges.insert(start, length);
        }
        assert_eq!(ranges.length_at(0), Some(1 << 20));
    }
}
