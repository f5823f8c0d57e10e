//! Virtual memory management: addresses and memory apart from each other (`cuMemAddressReserve`,
//! `cuMemCreate`, `cuMemMap`).
//!
//! Memory keeps its contents between mappings: while it is not mapped its pages wait at an address
//! of the system's choice. It can be mapped at one place at a time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use harp_cuda_abi::types::*;

use super::heap::{next_id, Allocation, Origin};
use super::window::PAGE;
use crate::call::Outcome;
use crate::device::{device, owner_of, Device};

/// Unit of reservations and of memory.
pub const GRANULARITY: usize = 2 << 20;

/// Memory of `cuMemCreate`.
struct Physical {
    device: CUdevice,
    size: u64,
    /// Where the pages are: 0 before the first mapping.
    pages: u64,
    /// Whether `pages` is where the program mapped them.
    mapped: bool,
    /// Handles that programs hold; it ends with the last one once it is not mapped.
    handles: usize,
}

#[derive(Clone, Copy)]
struct Mapping {
    size: u64,
    handle: u64,
    /// `cuMemSetAccess` has made it readable and writable.
    accessible: bool,
}

#[derive(Default)]
struct State {
    reservations: BTreeMap<u64, u64>,
    mappings: BTreeMap<u64, Mapping>,
    memory: BTreeMap<u64, Physical>,
}

static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check_size(size: usize) -> Outcome<u64> {
    if size == 0 || !size.is_multiple_of(GRANULARITY) {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    Ok(size as u64)
}

/// `cuMemAddressReserve`: at `wanted` if that is free, else where there is room on its device.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for odd sizes and alignments, `CUDA_ERROR_OUT_OF_MEMORY`.
pub fn reserve(default: &Device, size: usize, alignment: usize, wanted: u64) -> Outcome<u64> {
    let size = check_size(size)?;
    let alignment = alignment.max(GRANULARITY) as u64;
    if !alignment.is_power_of_two() {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    let device = owner_of(wanted).unwrap_or(default);
    let wanted = if wanted.is_multiple_of(alignment) {
        wanted
    } else {
        0
    };
    let start = device.heap.reserve(size, alignment, wanted)?;
    state().reservations.insert(start, size);
    Ok(start)
}

/// `cuMemAddressFree`.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for anything but a whole reservation without mappings.
pub fn unreserve(start: u64, size: usize) -> Outcome {
    let mut state = state();
    let size = size as u64;
    let mapped = state
        .mappings
        .range(start..start.saturating_add(size))
        .next()
        .is_some();
    if mapped || state.reservations.get(&start) != Some(&size) {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    state.reservations.remove(&start);
    owner_of(start)
        .ok_or(CUDA_ERROR_INVALID_VALUE)?
        .heap
        .unreserve(start, size);
    Ok(())
}

/// `cuMemCreate`: charged at once, zeroed.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for odd sizes, `CUDA_ERROR_OUT_OF_MEMORY`.
pub fn create(ordinal: CUdevice, size: usize) -> Outcome<u64> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let size = check_size(size)?;
    device(ordinal)?.heap.charge(size)?;
    let handle = NEXT.fetch_add(1, Ordering::Relaxed);
    let memory = Physical {
        device: ordinal,
        size,
        pages: 0,
        mapped: false,
        handles: 1,
    };
    state().memory.insert(handle, memory);
    Ok(handle)
}

/// `cuMemRelease`.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for no such memory.
pub fn release(handle: u64) -> Outcome {
    let mut state = state();
    let memory = state
        .memory
        .get_mut(&handle)
        .filter(|memory| memory.handles > 0);
    memory.ok_or(CUDA_ERROR_INVALID_VALUE)?.handles -= 1;
    state.end_if_unused(handle);
    Ok(())
}

/// `cuMemRetainAllocationHandle`: the memory mapped at `address`, held once more.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` where nothing is mapped.
pub fn retain(address: u64) -> Outcome<u64> {
    let mut state = state();
    let (_, mapping) = state.mapping_at(address).ok_or(CUDA_ERROR_INVALID_VALUE)?;
    let memory = state
        .memory
        .get_mut(&mapping.handle)
        .ok_or(CUDA_ERROR_INVALID_VALUE)?;
    memory.handles += 1;
    Ok(mapping.handle)
}

/// The device that memory is on.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for no such memory.
pub fn device_of(handle: u64) -> Outcome<CUdevice> {
    state()
        .memory
        .get(&handle)
        .map(|memory| memory.device)
        .ok_or(CUDA_ERROR_INVALID_VALUE)
}

/// `cuMemMap`: all of the memory, inside one reservation of its device. Not accessible yet.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for addresses or sizes that do not fit, `CUDA_ERROR_NOT_SUPPORTED` for
/// memory that is mapped elsewhere already.
pub fn map(start: u64, size: usize, offset: usize, handle: u64) -> Outcome {
    let mut state = state();
    let size = check_size(size)?;
    let memory = state.memory.get(&handle).ok_or(CUDA_ERROR_INVALID_VALUE)?;
    let on_device = owner_of(start).is_some_and(|device| device.ordinal == memory.device);
    if offset != 0 || size != memory.size || !start.is_multiple_of(GRANULARITY as u64) || !on_device
    {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    if memory.mapped {
        return Err(CUDA_ERROR_NOT_SUPPORTED);
    }
    let end = start.checked_add(size).ok_or(CUDA_ERROR_INVALID_VALUE)?;
    let reserved = state.reservations.range(..=start).next_back();
    if reserved.is_none_or(|(first, length)| end > first + length)
        || state.overlaps_mapping(start, end)
    {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    state.mappings.insert(
        start,
        Mapping {
            size,
            handle,
            accessible: false,
        },
    );
    let memory = state
        .memory
        .get_mut(&handle)
        .ok_or(CUDA_ERROR_INVALID_VALUE)?;
    memory.mapped = true;
    if memory.pages != 0 {
        move_pages(memory.pages, size, Some(start));
        memory.pages = start;
    }
    Ok(())
}

/// `cuMemSetAccess` for the device's own memory: everything in the range must be mapped.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for a range that is not whole mappings, `CUDA_ERROR_OUT_OF_MEMORY`.
pub fn set_access(start: u64, size: usize, accessible: bool, context: u64) -> Outcome {
    let mut state = state();
    for at in state.mappings_in(start, size)? {
        let mapping = state.mappings[&at];
        let device = owner_of(at).ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let memory = state
            .memory
            .get_mut(&mapping.handle)
            .ok_or(CUDA_ERROR_INVALID_VALUE)?;
        if accessible && memory.pages == 0 {
            device.heap.back_reserved(at, mapping.size)?;
            memory.pages = at;
        }
        if accessible && !mapping.accessible {
            let origin = Origin::Mapped;
            let size = mapping.size;
            device.heap.publish(Allocation {
                start: at,
                size,
                context,
                origin,
                id: next_id(),
            });
        } else if !accessible {
            device.heap.withdraw(at);
        }
        state.mappings.insert(
            at,
            Mapping {
                accessible,
                ..mapping
            },
        );
    }
    Ok(())
}

/// Whether the memory mapped at `address` is accessible.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` where nothing is mapped.
pub fn is_accessible(address: u64) -> Outcome<bool> {
    let found = state().mapping_at(address);
    found
        .map(|(_, mapping)| mapping.accessible)
        .ok_or(CUDA_ERROR_INVALID_VALUE)
}

/// `cuMemUnmap`: whole mappings. The caller has waited for all work.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for a range that is not whole mappings.
pub fn unmap(start: u64, size: usize) -> Outcome {
    let mut state = state();
    for at in state.mappings_in(start, size)? {
        let Some(mapping) = state.mappings.remove(&at) else {
            continue;
        };
        if let Some(device) = owner_of(at) {
            device.heap.withdraw(at);
        }
        if let Some(memory) = state.memory.get_mut(&mapping.handle) {
            memory.mapped = false;
            if memory.pages != 0 && memory.handles > 0 {
                memory.pages = move_pages(at, mapping.size, None);
            }
        }
        if let Some(device) = owner_of(at) {
            device.heap.unback_reserved(at, mapping.size);
        }
        state.end_if_unused(mapping.handle);
    }
    Ok(())
}

impl State {
    fn mapping_at(&self, address: u64) -> Option<(u64, Mapping)> {
        let (start, mapping) = self.mappings.range(..=address).next_back()?;
        (address < start + mapping.size).then_some((*start, *mapping))
    }

    fn overlaps_mapping(&self, start: u64, end: u64) -> bool {
        let last = self.mappings.range(..end).next_back();
        last.is_some_and(|(at, mapping)| at + mapping.size > start)
    }

    /// Starts of the mappings that exactly fill a range.
    fn mappings_in(&self, start: u64, size: usize) -> Outcome<Vec<u64>> {
        let end = start
            .checked_add(check_size(size)?)
            .ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let mut at = start;
        let mut found = Vec::new();
        while at < end {
            let mapping = self.mappings.get(&at).ok_or(CUDA_ERROR_INVALID_VALUE)?;
            found.push(at);
            at += mapping.size;
        }
        if at == end {
            Ok(found)
        } else {
            Err(CUDA_ERROR_INVALID_VALUE)
        }
    }

    fn end_if_unused(&mut self, handle: u64) {
        let unused = |memory: &Physical| memory.handles == 0 && !memory.mapped;
        if !self.memory.get(&handle).is_some_and(unused) {
            return;
        }
        let Some(memory) = self.memory.remove(&handle) else {
            return;
        };
        if memory.pages != 0 && owner_of(memory.pages).is_none() {
            // SAFETY: the pages were moved here by `move_pages` and nothing uses them.
            unsafe { libc::munmap(memory.pages as *mut _, memory.size as usize) };
        }
        if let Ok(device) = device(memory.device) {
            device.heap.discharge(memory.size);
        }
    }
}

/// Moves pages with their contents: to `to`, which is reserved, or to an address of the system's
/// choice. Returns where they are; 0 where the system refuses, and the contents are lost.
fn move_pages(from: u64, size: u64, to: Option<u64>) -> u64 {
    assert_eq!(from % PAGE, 0);
    // SAFETY: both ranges belong to this module: `from` holds the pages, `to` is reserved.
    let moved = unsafe {
        match to {
            Some(to) => libc::mremap(
                from as *mut _,
                size as usize,
                size as usize,
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                to as *mut libc::c_void,
            ),
            None => {
                let place = libc::mmap(
                    core::ptr::null_mut(),
                    size as usize,
                    libc::PROT_NONE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                    -1,
                    0,
                );
                if place == libc::MAP_FAILED {
                    return 0;
                }
                libc::mremap(
                    from as *mut _,
                    size as usize,
                    size as usize,
                    libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                    place,
                )
            }
        }
    };
    if moved == libc::MAP_FAILED {
        0
    } else {
        moved as u64
    }
}
