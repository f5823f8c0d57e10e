//! Device memory: what is allocated where, by whom, and how much is left.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use harp_cuda_abi::types::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_OUT_OF_MEMORY};
use harp_softgpu_engine::DeviceMemory;

use super::host;
use super::window::{Window, PAGE, WINDOW_SIZE};
use crate::call::Outcome;
use harp_driver_front::address_map::AddressMap;
use harp_driver_front::free_ranges::FreeRanges;

/// Alignment and unit of allocations; accesses are checked to this boundary.
pub const GRANULE: u64 = 512;
/// Small allocations share slabs of this size; larger ones get addresses in multiples of it.
const SLAB: u64 = 2 << 20;
/// Allocations up to this size come from slabs.
const SMALL_MAX: u64 = 1 << 20;
/// Free bytes in slabs that are kept: programs that allocate and free in a loop stay off the system.
const KEPT: u64 = 2 * SLAB;

/// What an allocation came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `cuMemAlloc` and variables of modules.
    Plain,
    /// A memory pool, by its handle.
    Pool(usize),
    /// `cuMemMap`.
    Mapped,
}

/// One allocation.
#[derive(Clone, Copy, Debug)]
pub struct Allocation {
    pub start: u64,
    /// As asked for.
    pub size: u64,
    /// [`crate::context::Context::id`] of the owner.
    pub context: u64,
    pub origin: Origin,
    /// Unique in this process (`CU_POINTER_ATTRIBUTE_BUFFER_ID`).
    pub id: u64,
}

impl Allocation {
    /// Addresses that a kernel may touch.
    pub fn range(&self) -> Range<u64> {
        self.start..self.start + self.size.next_multiple_of(GRANULE)
    }
}

#[derive(Debug)]
struct Space {
    /// Window addresses that nothing uses, in units of [`SLAB`].
    addresses: FreeRanges,
    /// Free pieces of slabs, in units of [`GRANULE`], and their sum.
    pieces: FreeRanges,
    pieces_free: u64,
    used: u64,
}

/// The memory of one device.
#[derive(Debug)]
pub struct Heap {
    window: Window,
    total: u64,
    space: Mutex<Space>,
    allocations: RwLock<AddressMap<Allocation>>,
}

impl Heap {
    /// The heap of device `ordinal` with `total` bytes.
    ///
    /// # Errors
    /// As for [`Window::reserve`].
    pub fn new(ordinal: usize, total: u64) -> Outcome<Self> {
        let window = Window::reserve(ordinal)?;
        let space = Space {
            addresses: all_addresses(&window),
            pieces: FreeRanges::default(),
            pieces_free: 0,
            used: 0,
        };
        Ok(Self {
            window,
            total,
            space: Mutex::new(space),
            allocations: RwLock::default(),
        })
    }

    /// The window's first address.
    pub fn base(&self) -> u64 {
        self.window.base()
    }

    /// Moves a window that nothing has been taken from.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` where something has; as [`Window::move_to`].
    pub fn move_window(&self, base: u64) -> Outcome {
        let mut space = self.space();
        if space.addresses != all_addresses(&self.window) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        self.window.move_to(base)?;
        space.addresses = all_addresses(&self.window);
        Ok(())
    }

    /// Bytes free and in total.
    pub fn info(&self) -> (u64, u64) {
        (self.total - self.space().used, self.total)
    }

    /// Whether `address` belongs to this device, allocated or not.
    pub fn owns(&self, address: u64) -> bool {
        self.window.contains(address)
    }

    /// Allocates `size` bytes.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for no bytes, `CUDA_ERROR_OUT_OF_MEMORY` where there is no room.
    pub fn allocate(&self, size: u64, context: u64, origin: Origin) -> Outcome<u64> {
        if size == 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let charged = size
            .checked_next_multiple_of(GRANULE)
            .ok_or(CUDA_ERROR_OUT_OF_MEMORY)?;
        let start = {
            let mut space = self.space();
            if charged > self.total - space.used {
                return Err(CUDA_ERROR_OUT_OF_MEMORY);
            }
            let start = if charged <= SMALL_MAX {
                self.take_piece(&mut space, charged)?
            } else {
                let start = take_addresses(&mut space, charged)?;
                if let Err(code) = self.window.back(start, charged.next_multiple_of(PAGE)) {
                    space
                        .addresses
                        .insert(start, charged.next_multiple_of(SLAB));
                    return Err(code);
                }
                start
            };
            space.used += charged;
            start
        };
        self.publish(Allocation {
            start,
            size,
            context,
            origin,
            id: next_id(),
        });
        Ok(start)
    }

    /// Frees what [`Heap::allocate`] returned.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` where no such allocation starts at `start`.
    pub fn free(&self, start: u64) -> Outcome<Allocation> {
        let is_freed_here = |found: &Allocation| found.origin != Origin::Mapped;
        let allocation = self
            .allocations
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove_if(start, is_freed_here)
            .ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let charged = allocation.size.next_multiple_of(GRANULE);
        let mut space = self.space();
        space.used -= charged;
        if charged <= SMALL_MAX {
            self.give_piece(&mut space, start, charged);
        } else {
            self.window.release(start, charged.next_multiple_of(PAGE));
            space
                .addresses
                .insert(start, charged.next_multiple_of(SLAB));
        }
        Ok(allocation)
    }

    /// Frees everything that `context` owns.
    pub fn free_all_of(&self, context: u64) {
        let owned: Vec<u64> = self
            .allocations
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .filter(|allocation| {
                allocation.context == context && allocation.origin != Origin::Mapped
            })
            .map(|allocation| allocation.start)
            .collect();
        for start in owned {
            let _ = self.free(start);
        }
    }

    /// The allocation that holds `address`.
    pub fn find(&self, address: u64) -> Option<Allocation> {
        let allocations = self
            .allocations
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let (_, allocation) = allocations.at_or_below(address)?;
        allocation.range().contains(&address).then_some(*allocation)
    }

    /// Whether all of `length` bytes from `start` lie in one allocation, as asked for, or in
    /// mappings that touch.
    pub fn holds(&self, start: u64, length: u64) -> bool {
        let Some(end) = start.checked_add(length) else {
            return false;
        };
        let mut at = start;
        while let Some(allocation) = self.find(at) {
            at = allocation.start + allocation.size;
            if end <= at {
                return true;
            }
            if allocation.origin != Origin::Mapped {
                return false;
            }
        }
        false
    }

    /// Sets window addresses aside without backing them; in multiples of the slab size.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` where the window is full.
    pub fn reserve(&self, size: u64, alignment: u64, wanted: u64) -> Outcome<u64> {
        let mut space = self.space();
        if wanted != 0 && space.addresses.take_at(wanted, size) {
            return Ok(wanted);
        }
        space
            .addresses
            .take(size, alignment.max(SLAB))
            .ok_or(CUDA_ERROR_OUT_OF_MEMORY)
    }

    /// Gives back what [`Heap::reserve`] set aside.
    pub fn unreserve(&self, start: u64, size: u64) {
        self.space().addresses.insert(start, size);
    }

    /// Backs a part of what [`Heap::reserve`] set aside with zeroed memory.
    ///
    /// # Errors
    /// As for [`Window::back`].
    pub fn back_reserved(&self, start: u64, size: u64) -> Outcome {
        self.window.back(start, size)
    }

    /// Takes the memory behind a reserved range away.
    pub fn unback_reserved(&self, start: u64, size: u64) {
        self.window.release(start, size);
    }

    /// Charges memory that will be mapped.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` where there is not as much left.
    pub fn charge(&self, size: u64) -> Outcome {
        let mut space = self.space();
        if size > self.total - space.used {
            return Err(CUDA_ERROR_OUT_OF_MEMORY);
        }
        space.used += size;
        Ok(())
    }

    /// Takes a charge back.
    pub fn discharge(&self, size: u64) {
        self.space().used -= size;
    }

    /// Makes an allocation visible to [`Heap::find`] that something else backs.
    pub fn publish(&self, allocation: Allocation) {
        let mut allocations = self
            .allocations
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        allocations.insert(allocation.start, allocation);
    }

    /// Undoes [`Heap::publish`].
    pub fn withdraw(&self, start: u64) -> Option<Allocation> {
        self.allocations
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(start)
    }

    fn take_piece(&self, space: &mut Space, charged: u64) -> Outcome<u64> {
        if let Some(start) = space.pieces.take(charged, GRANULE) {
            space.pieces_free -= charged;
            return Ok(start);
        }
        let slab = take_addresses(space, SLAB)?;
        if let Err(code) = self.window.back(slab, SLAB) {
            space.addresses.insert(slab, SLAB);
            return Err(code);
        }
        space.pieces.insert(slab, SLAB);
        space.pieces_free += SLAB - charged;
        space
            .pieces
            .take(charged, GRANULE)
            .ok_or(CUDA_ERROR_OUT_OF_MEMORY)
    }

    fn give_piece(&self, space: &mut Space, start: u64, charged: u64) {
        space.pieces.insert(start, charged);
        space.pieces_free += charged;
        let slab = self.window.base() + (start - self.window.base()) / SLAB * SLAB;
        if space.pieces_free > KEPT && space.pieces.take_at(slab, SLAB) {
            space.pieces_free -= SLAB;
            self.window.release(slab, SLAB);
            space.addresses.insert(slab, SLAB);
        }
    }

    fn space(&self) -> MutexGuard<'_, Space> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DeviceMemory for Heap {
    fn range_of(&self, address: u64) -> Option<Range<u64>> {
        if self.owns(address) {
            return self.find(address).map(|allocation| allocation.range());
        }
        let mapped = host::find(address as usize)?;
        Some(mapped.start as u64..(mapped.start + mapped.size) as u64)
    }
}

/// What a window has to give. Its first slab stays unused: a null pointer plus a large offset faults.
fn all_addresses(window: &Window) -> FreeRanges {
    FreeRanges::of(window.base() + SLAB, WINDOW_SIZE - SLAB)
}

fn take_addresses(space: &mut Space, size: u64) -> Outcome<u64> {
    space
        .addresses
        .take(size.next_multiple_of(SLAB), SLAB)
        .ok_or(CUDA_ERROR_OUT_OF_MEMORY)
}

/// A number that no other allocation of this process has.
pub fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn heap(ordinal: usize) -> Heap {
        Heap::new(ordinal, 64 * MIB).unwrap()
    }

    #[test]
    fn out_of_memory_recovers_after_a_free() {
        let heap = heap(8);
        let first = heap.allocate(40 * MIB, 1, Origin::Plain).unwrap();
        assert_eq!(
            heap.allocate(30 * MIB, 1, Origin::Plain),
            Err(CUDA_ERROR_OUT_OF_MEMORY)
        );
        assert_eq!(
            heap.allocate(u64::MAX, 1, Origin::Plain),
            Err(CUDA_ERROR_OUT_OF_MEMORY)
        );
        assert_eq!(
            heap.allocate(0, 1, Origin::Plain),
            Err(CUDA_ERROR_INVALID_VALUE)
        );
        assert_eq!(heap.info(), (24 * MIB, 64 * MIB));
        heap.free(first).unwrap();
        let again = heap.allocate(64 * MIB, 1, Origin::Plain).unwrap();
        heap.free(again).unwrap();
        assert_eq!(heap.info(), (64 * MIB, 64 * MIB));
    }

    #[test]
    fn a_window_that_is_used_stays_where_it_is() {
        let heap = heap(14);
        let before = heap.allocate(1000, 1, Origin::Plain).unwrap();
        let to = heap.window.base() + WINDOW_SIZE;
        assert_eq!(heap.move_window(to), Err(CUDA_ERROR_INVALID_VALUE));
        assert!(heap.holds(before, 1000));
    }

    #[test]
    fn what_is_allocated_in_a_moved_window_lies_there() {
        let heap = heap(15);
        let to = heap.window.base() + 2 * WINDOW_SIZE;
        heap.move_window(to).unwrap();
        let start = heap.allocate(5 * MIB, 1, Origin::Plain).unwrap();
        assert!(heap.owns(start) && (to..to + WINDOW_SIZE).contains(&start));
    }

    #[test]
    fn only_the_start_of_an_allocation_can_be_freed_and_once() {
        let heap = heap(9);
        let start = heap.allocate(1000, 1, Origin::Plain).unwrap();
        assert_eq!(
            heap.free(start + 512).unwrap_err(),
            CUDA_ERROR_INVALID_VALUE
        );
        heap.free(start).unwrap();
        assert_eq!(heap.free(start).unwrap_err(), CUDA_ERROR_INVALID_VALUE);
    }

    #[test]
    fn addresses_lead_to_their_allocation() {
        let heap = heap(10);
        let small = heap.allocate(1000, 1, Origin::Plain).unwrap();
        let large = heap.allocate(5 * MIB, 2, Origin::Plain).unwrap();
        assert_eq!(heap.find(small + 999).unwrap().start, small);
        assert_eq!(heap.range_of(small), Some(small..small + 1024));
        assert!(heap
            .find(small + 1024)
            .is_none_or(|other| other.start != small));
        assert!(heap
            .find(large - 1)
            .is_none_or(|other| other.start != large));
        assert!(heap.holds(small, 1000) && !heap.holds(small, 1001));
        assert!(heap.holds(large + MIB, 4 * MIB) && !heap.holds(large + MIB, u64::MAX));
        assert_ne!(heap.find(small).unwrap().id, heap.find(large).unwrap().id);
        heap.free_all_of(1);
        assert!(heap.find(small).is_none() && heap.find(large).is_some());
        assert_eq!(small % GRANULE, 0);
    }

    #[test]
    fn fresh_large_memory_is_zero() {
        let heap = heap(11);
        for _ in 0..2 {
            let start = heap.allocate(3 * MIB, 1, Origin::Plain).unwrap();
            // SAFETY: the allocation is backed and ours.
            let bytes =
                unsafe { std::slice::from_raw_parts_mut(start as *mut u8, 3 * MIB as usize) };
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes.fill(0xff);
            heap.free(start).unwrap();
        }
    }
}
