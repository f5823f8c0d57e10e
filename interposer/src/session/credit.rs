//! Device memory that a server has allocated before anybody asked for it: small allocations are cut from
//! it here, without a question and without a way to fail (DESIGN D6).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Deserializer};

/// Allocations start at multiples of this many bytes, as a driver's do.
const ALIGNMENT: u64 = 512;

/// One block, in the first life of a device's primary context. Of larger allocations the server is asked.
#[derive(Debug, Default)]
pub struct Credit {
    base: u64,
    size: u64,
    /// What is left: the lengths of free ranges by their first address. None once the context has ended.
    free: Mutex<Option<BTreeMap<u64, u64>>>,
}

impl Credit {
    fn new(base: u64, size: u64) -> Credit {
        Credit {
            base,
            size,
            free: Mutex::new(Some(BTreeMap::from([(base, size)]))),
        }
    }

    fn free(&self) -> MutexGuard<'_, Option<BTreeMap<u64, u64>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory of that many bytes, if there is room for them.
    pub fn take(&self, bytes: usize) -> Option<u64> {
        let wanted = (bytes as u64).checked_next_multiple_of(ALIGNMENT)?;
        let mut free = self.free();
        let free = free.as_mut()?;
        let (at, length) = free.iter().find(|(_, length)| **length >= wanted)?;
        let (at, length) = (*at, *length);
        free.remove(&at);
        if length > wanted {
            free.insert(at + wanted, length - wanted);
        }
        Some(at)
    }

    /// Whether an address was taken from here.
    pub fn holds(&self, address: u64) -> bool {
        address.wrapping_sub(self.base) < self.size && self.free().is_some()
    }

    /// Takes memory back that [`take`](Self::take) gave.
    pub fn give_back(&self, address: u64, bytes: u64) {
        let mut free = self.free();
        let Some(free) = free.as_mut() else { return };
        let (mut start, mut length) = (address, bytes.next_multiple_of(ALIGNMENT));
        if let Some(after) = free.remove(&(start + length)) {
            length += after;
        }
        let before = free.range(..start).next_back();
        if let Some((at, before)) = before.map(|(at, before)| (*at, *before)) {
            if at + before == start {
                (start, length) = (at, length + before);
            }
        }
        free.insert(start, length);
    }

    /// Bytes that are left, which the driver counts as allocated.
    pub fn left(&self) -> u64 {
        self.free().as_ref().map_or(0, |free| free.values().sum())
    }

    /// The context has ended, and the block with it.
    pub fn end(&self) {
        *self.free() = None;
    }
}

impl<'de> Deserialize<'de> for Credit {
    /// From `[base, bytes]`, or null where there is none.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Credit, D::Error> {
        let block = Option::<(u64, u64)>::deserialize(deserializer)?;
        Ok(match block {
            Some((base, size)) if base.checked_add(size).is_some() => Credit::new(base, size),
            _ => Credit::default(),
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
    fn a_server_may_grant_nothing() {
        for text in ["null", "[18446744073709551615, 2]"] {
            let credit: Credit = serde_json::from_str(text).unwrap();
            assert!(credit.take(1).is_none());
        }
        let credit: Credit = serde_json::from_str("[4096, 512]").unwrap();
        assert_eq!(credit.take(1), Some(4096));
    }
}
