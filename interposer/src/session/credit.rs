//! Device memory that is allocated before anybody has asked for it: small allocations are cut from it
//! here, without a question and without a way to fail (DESIGN D6).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use harp_driver_front::free_ranges::FreeRanges;
use serde::{Deserialize, Deserializer};

/// Allocations start at multiples of this many bytes, as a driver's do.
const ALIGNMENT: u64 = 512;
/// A further block is asked for by allocations of which it holds at least so many.
const PARTS: u64 = 16;
/// No block is asked for that is larger, in bytes.
const BLOCK_MAX: u64 = 16 << 20;

/// Memory that the driver has given in one piece.
#[derive(Debug)]
struct Block {
    size: u64,
    left: u64,
    free: FreeRanges,
}

/// The blocks in the first life of a device's primary context. Of larger allocations the server is asked.
#[derive(Debug, Default)]
pub struct Credit {
    /// The block that came with the context.
    granted: u64,
    /// All blocks by their first address. None once the context has ended.
    blocks: Mutex<Option<BTreeMap<u64, Block>>>,
}

impl Credit {
    fn new(base: u64, size: u64) -> Credit {
        let credit = Credit {
            granted: base,
            blocks: Mutex::new(Some(BTreeMap::new())),
        };
        credit.add(base, size);
        credit
    }

    fn blocks(&self) -> MutexGuard<'_, Option<BTreeMap<u64, Block>>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory of that many bytes, if there is room for them.
    pub fn take(&self, bytes: usize) -> Option<u64> {
        let wanted = (bytes as u64).checked_next_multiple_of(ALIGNMENT)?;
        let mut blocks = self.blocks();
        blocks.as_mut()?.values_mut().find_map(|block| {
            let at = block.free.take(wanted, ALIGNMENT)?;
            block.left -= wanted;
            Some(at)
        })
    }

    /// The size of a block to ask for, now that there is no room for so many bytes; None where they are to be asked
    /// for by themselves. What is asked for grows with what there is, so that a program which keeps much asks
    /// seldom, and one that keeps little does not hold what it does not use.
    pub fn lacking(&self, bytes: usize) -> Option<usize> {
        let size = self
            .blocks()
            .as_ref()?
            .values()
            .map(|block| block.size)
            .sum::<u64>();
        let size = size.min(BLOCK_MAX);
        (bytes as u64 <= size / PARTS).then_some(size as usize)
    }

    /// Takes in a block that has been allocated. False, and it is not taken in, if the context has ended, or if the
    /// server says that it lies where there is no room for it.
    pub fn add(&self, base: u64, size: u64) -> bool {
        let Some(end) = base.checked_add(size) else {
            return false;
        };
        let mut blocks = self.blocks();
        let Some(blocks) = blocks.as_mut() else {
            return false;
        };
        let below = blocks.range(..end).next_back();
        if below.is_some_and(|(below, block)| below + block.size > base) {
            return false;
        }
        let free = FreeRanges::of(base, size);
        let left = size;
        blocks.insert(base, Block { size, left, free });
        true
    }

    /// Whether an address was taken from here.
    pub fn holds(&self, address: u64) -> bool {
        let blocks = self.blocks();
        let below = blocks
            .as_ref()
            .and_then(|blocks| blocks.range(..=address).next_back());
        below.is_some_and(|(base, block)| address - base < block.size)
    }

    /// Takes memory back that [`take`](Self::take) gave.
    pub fn give_back(&self, address: u64, bytes: u64) {
        let mut blocks = self.blocks();
        let block = blocks
            .as_mut()
            .and_then(|blocks| blocks.range_mut(..=address).next_back());
        let Some((_, block)) = block else { return };
        let bytes = bytes.next_multiple_of(ALIGNMENT);
        block.free.insert(address, bytes);
        block.left += bytes;
    }

    /// Gives up a block that was added and of which nothing is used, but for the last `spare` ones: its first address,
    /// to be freed.
    pub fn take_unused(&self, spare: usize) -> Option<u64> {
        let mut blocks = self.blocks();
        let blocks = blocks.as_mut()?;
        let is_unused =
            |(base, block): &(&u64, &Block)| **base != self.granted && block.left == block.size;
        let base = *blocks.iter().filter(is_unused).nth(spare)?.0;
        blocks.remove(&base).map(|_| base)
    }

    /// Bytes that are left, which the driver counts as allocated.
    pub fn left(&self) -> u64 {
        let blocks = self.blocks();
        blocks
            .iter()
            .flat_map(BTreeMap::values)
            .map(|block| block.left)
            .sum()
    }

    /// The context has ended, and the blocks with it.
    pub fn end(&self) {
        *self.blocks() = None;
    }
}

impl<'de> Deserialize<'de> for Credit {
    /// From `[base, bytes]`, or null where there is none.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Credit, D::Error> {
        let block = Option::<(u64, u64)>::deserialize(deserializer)?;
        Ok(match block {
            Some((base, size)) => Credit::new(base, size),
            None => Credit::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_whole_again() {
        let credit = Credit::new(0x10000, 0x1000);
        let [first, second, third] = [1, 512, 513].map(|bytes| credit.take(bytes).unwrap());
        assert_eq!([first, second, third], [0x10000, 0x10200, 0x10400]);
        assert_eq!(credit.left(), 0x1000 - 4 * 512);
        assert!(credit.take(0x0900).is_none());
        assert!(credit.take(usize::MAX).is_none());
        credit.give_back(second, 512);
        assert_eq!(credit.take(100), Some(second));
        for (address, bytes) in [(third, 513), (first, 1), (second, 100)] {
            assert!(credit.holds(address));
            credit.give_back(address, bytes);
        }
        assert_eq!(
            (credit.left(), credit.take(0x1000)),
            (0x1000, Some(0x10000))
        );
        assert!(!credit.holds(0x11000) && !credit.holds(0xffff));
        credit.end();
        assert!(credit.take(1).is_none() && !credit.holds(first));
        assert_eq!(credit.left(), 0);
    }

    #[test]
    fn blocks_are_added_where_they_run_out_and_given_up_where_they_are_unused() {
        let credit = Credit::new(0x10000, 0x10000);
        assert_eq!(credit.lacking(0x1000), Some(0x10000));
        assert_eq!(credit.lacking(0x1001), None);
        assert!(credit.take(0x10000).is_some() && credit.take(1).is_none());
        // A neighbour of the first, which no allocation may reach into.
        assert!(credit.add(0x20000, 0x10000));
        assert_eq!(credit.lacking(0x1000), Some(0x20000));
        assert!(credit.add(0x80000, 0x20000));
        credit.give_back(0x1f000, 0x1000);
        assert_eq!(credit.take(0x11000), Some(0x80000));
        assert!(credit.holds(0x9ffff) && !credit.holds(0x30000) && !credit.holds(0xa0000));
        assert_eq!(credit.left(), 0x1000 + 0x10000 + 0xf000);
        credit.give_back(0x80000, 0x11000);
        assert_eq!(credit.take_unused(1), Some(0x80000));
        assert_eq!(credit.take_unused(1), None);
        // The first came with the context, and goes with it.
        credit.give_back(0x10000, 0xf000);
        assert_eq!(credit.take_unused(0), Some(0x20000));
        assert_eq!((credit.take_unused(0), credit.left()), (None, 0x10000));
        assert!(
            !credit.add(0x1ffff, 0x100) && !credit.add(0xf000, 0x1001) && !credit.add(u64::MAX, 2)
        );
        credit.end();
        assert!(!credit.add(0x20000, 0x1000));
        assert_eq!((credit.lacking(1), credit.take(1)), (None, None));
    }

    #[test]
    fn a_server_may_grant_nothing() {
        for text in ["null", "[18446744073709551615, 2]"] {
            let credit: Credit = serde_json::from_str(text).unwrap();
            assert!(credit.take(1).is_none());
            assert!(credit.lacking(1).is_none());
        }
        let credit: Credit = serde_json::from_str("[4096, 512]").unwrap();
        assert_eq!(credit.take(1), Some(4096));
    }
}
