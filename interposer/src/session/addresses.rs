//! Which addresses are whose: device allocations and registered host memory.
//!
//! Unified addressing lets a program pass any pointer to any copy, so the client must tell a
//! device address from a host one, and must know an allocation's bounds to predict the errors of
//! copies that do not wait for the server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use harp_cuda_abi::types::*;
use harp_driver_front::address_map::AddressMap;

use super::handles::session_of;
use crate::recording::recorder;

/// What an address range is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Memory of a device, allocated in a context.
    Device { device: i32, context: u64 },
    /// Managed memory, which lies in this process too.
    Managed { device: i32, context: u64 },
    /// Page-locked memory of this process, with its `CU_MEMHOSTALLOC_*` or `CU_MEMHOSTREGISTER_*` flags.
    Host {
        flags: u32,
        registered: bool,
        context: u64,
    },
}

/// One allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub base: u64,
    /// Bytes.
    pub size: u64,
    pub owner: Owner,
    /// `CU_POINTER_ATTRIBUTE_BUFFER_ID`: unique for each allocation of the process.
    pub buffer_id: u64,
    /// Where devices see it: memory that the program registered has no place before one is to see it.
    pub seen_at: Option<u64>,
}

impl Range {
    /// Bytes from `address` to the end of the allocation.
    pub fn remaining(&self, address: u64) -> u64 {
        self.base.saturating_add(self.size).saturating_sub(address)
    }
}

/// Allocations by base address.
#[derive(Debug, Default)]
pub struct Addresses {
    ranges: RwLock<AddressMap<Range>>,
    last_buffer: AtomicU64,
    managed_made: AtomicU64,
}

impl Addresses {
    fn read(&self) -> RwLockReadGuard<'_, AddressMap<Range>> {
        self.ranges.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, AddressMap<Range>> {
        self.ranges.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an allocation; one that was known at `base` is replaced.
    pub fn insert(&self, base: u64, size: u64, owner: Owner) {
        let mut ranges = self.write();
        self.put(&mut ranges, base, size, owner);
    }

    /// As [`insert`](Self::insert), unless one that has some of the addresses is in the way.
    ///
    /// # Errors
    /// The first one that is.
    pub fn insert_unless(
        &self,
        base: u64,
        size: u64,
        owner: Owner,
        in_the_way: impl Fn(&Range) -> bool,
    ) -> Result<(), Range> {
        let mut ranges = self.write();
        let taken = overlapping(&ranges, base, size).filter(|range| in_the_way(range));
        if let Some(first) = taken.last() {
            return Err(*first);
        }
        self.put(&mut ranges, base, size, owner);
        Ok(())
    }

    fn put(&self, ranges: &mut AddressMap<Range>, base: u64, size: u64, owner: Owner) {
        if matches!(owner, Owner::Device { .. }) {
            // What a driver has given out again is not what it was: a variable of a module that is gone.
            let old = overlapping(ranges, base, size);
            let old = old.filter(|range| matches!(range.owner, Owner::Device { .. }));
            for base in old.map(|range| range.base).collect::<Vec<_>>() {
                ranges.remove(base).iter().for_each(record_freed);
            }
        }
        let buffer_id = self.last_buffer.fetch_add(1, Ordering::Relaxed) + 1;
        let has_place = match owner {
            Owner::Host { registered, .. } => !registered,
            Owner::Device { .. } | Owner::Managed { .. } => true,
        };
        let range = Range {
            base,
            size,
            owner,
            buffer_id,
            seen_at: has_place.then_some(base),
        };
        record_allocated(&range);
        ranges.insert(base, range);
        // Whoever sees this count finds the allocation among them.
        if matches!(owner, Owner::Managed { .. }) {
            self.managed_made.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets the allocation that starts at `base`, if its owner is such a one.
    pub fn remove(&self, base: u64, is_wanted: impl Fn(&Owner) -> bool) -> Option<Range> {
        let removed = self
            .write()
            .remove_if(base, |range| is_wanted(&range.owner));
        removed.inspect(record_freed)
    }

    /// Forgets the device allocation that starts at `base`; the context that it was made in, none when
    /// there is no such allocation.
    pub fn remove_device(&self, base: u64) -> Option<u64> {
        match self
            .remove(base, |owner| matches!(owner, Owner::Device { .. }))?
            .owner
        {
            Owner::Device { context, .. } => Some(context),
            _ => None,
        }
    }

    /// Where devices see the allocation that starts at `base`: once and for all what `place` says, where
    /// it has no place yet.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` where there is no such allocation, `CUDA_ERROR_OUT_OF_MEMORY` where
    /// `place` has nothing to say.
    pub fn seen_at(&self, base: u64, place: impl FnOnce() -> Option<u64>) -> Result<u64, CUresult> {
        let mut ranges = self.write();
        let range = ranges.get_mut(base).ok_or(CUDA_ERROR_INVALID_VALUE)?;
        if range.seen_at.is_none() {
            range.seen_at = place();
        }
        range.seen_at.ok_or(CUDA_ERROR_OUT_OF_MEMORY)
    }

    /// Forgets all memory of a context that ended.
    pub fn remove_context(&self, ended: u64) {
        let mut ranges = self.write();
        ranges.retain(|_, range| {
            let stays = context_of(range) != Some(ended);
            if !stays {
                record_freed(range);
            }
            stays
        });
    }

    /// The allocation that holds `address`.
    pub fn find(&self, address: u64) -> Option<Range> {
        let ranges = self.read();
        let (_, range) = ranges.at_or_below(address)?;
        (address - range.base < range.size.max(1)).then_some(*range)
    }

    /// The allocation that devices see at `address`, where it is registered memory.
    pub fn find_as_seen(&self, address: u64) -> Option<Range> {
        let ranges = self.read();
        let is_seen_there = |range: &&Range| {
            let start = range.seen_at.filter(|at| *at != range.base);
            start.is_some_and(|start| address.wrapping_sub(start) < range.size)
        };
        let found = ranges.values().find(is_seen_there);
        found.copied()
    }

    /// How many managed allocations have been made so far.
    pub fn managed_made(&self) -> u64 {
        self.managed_made.load(Ordering::Relaxed)
    }

    /// The managed allocations.
    pub fn managed(&self) -> Vec<Range> {
        let ranges = self.read();
        let is_managed = |range: &&Range| matches!(range.owner, Owner::Managed { .. });
        ranges.values().filter(is_managed).copied().collect()
    }

    /// The managed allocation that holds all of `address..address + bytes`.
    pub fn find_managed(&self, address: u64, bytes: u64) -> Option<Range> {
        self.find(address).filter(|range| {
            matches!(range.owner, Owner::Managed { .. }) && range.remaining(address) >= bytes
        })
    }

    /// The device allocation that holds `address`.
    pub fn find_device(&self, address: u64) -> Option<Range> {
        self.find(address)
            .filter(|range| matches!(range.owner, Owner::Device { .. }))
    }

    /// The device allocation that holds all of `address..address + bytes`.
    pub fn find_device_span(&self, address: u64, bytes: u64) -> Option<Range> {
        self.find_device(address)
            .filter(|range| range.remaining(address) >= bytes)
    }
}

/// Whose context device memory is.
fn context_of(range: &Range) -> Option<u64> {
    match range.owner {
        Owner::Device { context, .. } | Owner::Managed { context, .. } => Some(context),
        Owner::Host { .. } => None,
    }
}

fn record_allocated(range: &Range) {
    if let (
        Some(recorder),
        Owner::Device { device, context } | Owner::Managed { device, context },
    ) = (recorder(), range.owner)
    {
        recorder.allocated(session_of(context), device, range.base, range.size);
    }
}

fn record_freed(range: &Range) {
    if let (Some(recorder), Some(context)) = (recorder(), context_of(range)) {
        recorder.freed(session_of(context), range.base);
    }
}

/// The allocations that have addresses in `address..address + bytes`, the last one first.
fn overlapping(
    ranges: &AddressMap<Range>,
    address: u64,
    bytes: u64,
) -> impl Iterator<Item = &Range> {
    let below = ranges.below(address.saturating_add(bytes.max(1)));
    let below = below.map(|(_, range)| range);
    // The one that starts before it may reach into it.
    below.take_while(move |range| range.base >= address || range.remaining(address) > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: Owner = Owner::Device {
        device: 0,
        context: 9,
    };

    #[test]
    fn an_address_belongs_to_the_allocation_around_it() {
        let addresses = Addresses::default();
        addresses.insert(0x1000, 0x100, DEVICE);
        addresses.insert(0x3000, 0x100, DEVICE);
        assert_eq!(addresses.find(0x0fff), None);
        assert_eq!(addresses.find(0x10ff).map(|range| range.base), Some(0x1000));
        assert_eq!(addresses.find(0x1100), None);
        assert!(addresses.find_device_span(0x1080, 0x80).is_some());
        assert!(addresses.find_device_span(0x1080, 0x81).is_none());
    }

    #[test]
    fn nothing_is_remembered_over_what_is_in_the_way() {
        let addresses = Addresses::default();
        addresses.insert(0x1000, 0x100, DEVICE);
        addresses.insert(0x3000, 0x100, DEVICE);
        let in_the_way = |base, size| {
            let put = addresses.insert_unless(base, size, DEVICE, |_| true);
            if put.is_ok() {
                assert!(addresses.remove(base, |_| true).is_some());
            }
            put.err().map(|range| range.base)
        };
        assert_eq!(in_the_way(0x0f00, 0x100), None);
        assert_eq!(in_the_way(0x0f00, 0x101), Some(0x1000));
        assert_eq!(in_the_way(0x10ff, 0x10), Some(0x1000));
        assert_eq!(in_the_way(0x1100, 0x1f00), None);
        assert_eq!(in_the_way(0x1100, 0x1f01), Some(0x3000));
        let last_only =
            addresses.insert_unless(0x1080, 0x3000, DEVICE, |range| range.base > 0x1000);
        assert_eq!(last_only.map_err(|range| range.base), Err(0x3000));
    }

    #[test]
    fn buffer_ids_differ_and_host_memory_is_not_the_device() {
        let addresses = Addresses::default();
        addresses.insert(0x1000, 0x100, DEVICE);
        addresses.insert(
            0x2000,
            0x100,
            Owner::Host {
                flags: 0,
                registered: false,
                context: 9,
            },
        );
        let (device, host) = (
            addresses.find(0x1000).unwrap(),
            addresses.find(0x2000).unwrap(),
        );
        assert_ne!(device.buffer_id, host.buffer_id);
        assert_eq!(addresses.find_device(0x2000), None);
        assert_eq!(addresses.remove_device(0x2000), None);
        assert_eq!(addresses.remove_device(0x1001), None);
        addresses.remove_context(9);
        assert_eq!(addresses.find(0x1000), None);
        assert_eq!(addresses.remove_device(0x1000), None);
        assert!(addresses.remove(0x2000, |_| true).is_some());
    }

    #[test]
    fn memory_that_is_given_out_again_is_not_what_it_was() {
        let addresses = Addresses::default();
        addresses.insert(0x1100, 4, DEVICE);
        addresses.insert(0x1000, 0x1000, DEVICE);
        assert_eq!(addresses.find(0x1200).map(|range| range.base), Some(0x1000));
        addresses.insert(0x1800, 4, DEVICE);
        assert_eq!(addresses.find(0x1000), None);
    }

    #[test]
    fn registered_memory_gets_one_place() {
        let addresses = Addresses::default();
        let host = |registered| Owner::Host {
            flags: 0,
            registered,
            context: 9,
        };
        addresses.insert(0x1000, 0x100, host(false));
        addresses.insert(0x2000, 0x100, host(true));
        let place = |base, place| addresses.seen_at(base, || place);
        assert_eq!(place(0x1000, Some(0x7000)), Ok(0x1000));
        assert_eq!(place(0x2000, None), Err(CUDA_ERROR_OUT_OF_MEMORY));
        assert_eq!(place(0x2000, Some(0x7000)), Ok(0x7000));
        assert_eq!(place(0x2000, Some(0x8000)), Ok(0x7000));
        assert_eq!(place(0x3000, Some(0x8000)), Err(CUDA_ERROR_INVALID_VALUE));
        let seen = |address| addresses.find_as_seen(address).map(|range| range.base);
        assert_eq!(seen(0x70ff), Some(0x2000));
        assert_eq!([0x1000, 0x6fff, 0x7100].map(seen), [None; 3]);
        let forgotten = addresses.remove(0x2000, |_| true);
        assert_eq!(forgotten.and_then(|range| range.seen_at), Some(0x7000));
    }
}
